"""Capturing on a real interface: what comes in, all of it, in order, with honest counters."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ftnids import limits
from ftnids.capture import CaptureThread
from ftnids.core import RandomDrop, splitmix64
from ftnids.core.capture import Capture
from ftnids.core.ring import Ring
from ftnids.errors import CaptureError
from ftnids.lab import netns
from tests.capture.conftest import INSIDE, OUTSIDE, Wire
from tests.core.helpers import SLOTS, Core, contents

Listen = Callable[..., tuple[Capture, Ring]]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0


def frame(number: int, size: int = 60) -> bytes:
    """An Ethernet frame of an experimental type that carries its number."""
    return (
        b"\x02\x00\x00\x00\x00\x02" + b"\x02\x00\x00\x00\x00\x01\x88\xb5" + number.to_bytes(4, "big") + bytes(size - 18)
    )


def run_until(source: Capture, ring: Ring, done: Callable[[], bool]) -> None:
    """Capture until `done`; what does not come within seconds does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"captured {source.captured}, drops {source.kernel_drops}"
        source.run(ring, SLOTS, 5)


def test_frames_come_in_order(wire: Wire, listen: Listen) -> None:
    before = time.time_ns()
    source, ring = listen()
    sent = [frame(n, 60 + n) for n in range(500)]
    wire.send(sent)
    run_until(source, ring, lambda: ring.head == 500)
    got = contents(ring, 0, 500)
    assert [one[1] for one in got] == sent
    times = [one[0] for one in got]
    assert times == sorted(times)
    assert before - 10**9 < times[0] <= times[-1] <= source.clock_ns
    assert (source.captured, source.kernel_drops, source.ring_drops, source.warning) == (500, 0, 0, "")


def test_only_inbound(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    wire.send([frame(1)], interface=INSIDE)
    wire.send([frame(2)], interface=OUTSIDE)
    run_until(source, ring, lambda: ring.head > 0)
    source.run(ring, 10, 20)
    assert [one[1] for one in contents(ring, 0, ring.head)] == [frame(2)]


def test_filter_and_snaplen(wire: Wire, listen: Listen) -> None:
    source, ring = listen(bpf="ether[17] = 7", snaplen=40)
    wire.send([frame(n % 10, 100) for n in range(100)])
    run_until(source, ring, lambda: ring.head == 10)
    assert {one[1:] for one in contents(ring, 0, 10)} == {(frame(7, 100)[:40], 100)}


def test_watermark_moves_on_a_quiet_link(listen: Listen) -> None:
    source, ring = listen()
    assert source.run(ring, 10, 2) == 0
    first = ring.watermark_ns
    assert first > 0
    run_until(source, ring, lambda: ring.watermark_ns > first)
    assert ring.watermark_ns < source.clock_ns


def test_a_quiet_link_wakes_the_main_loop_and_is_looked_at_on_demand(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    woken = threading.Event()
    thread = CaptureThread(source, ring, wake=woken.set)

    def await_quiet() -> None:
        until = time.monotonic() + PATIENCE_S
        while not thread.quiet:
            assert time.monotonic() < until
            time.sleep(0.001)

    thread.start()
    try:
        for number in range(3):
            await_quiet()
            for _ in range(20):  # the kernel may delay one thread or the other, not each time
                asked = source.clock_ns
                thread.look()
                if ring.watermark_ns > asked - source.guard_ns - 2 * limits.CAPTURE_STALE_NS:
                    break
            else:
                pytest.fail(f"the watermark lags by {(source.clock_ns - ring.watermark_ns) / 1e6:.1f} ms")
            woken.clear()
            wire.send([frame(number)])
            assert woken.wait(PATIENCE_S)
            assert ring.head == number + 1
    finally:
        thread.stop()
        thread.join(PATIENCE_S)
    thread.look()  # nothing, once it has ended


def test_packets_that_gather_all_arrive(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    for burst in range(20):
        wire.send([frame(20 * burst + n) for n in range(20)])
        source.run(ring, SLOTS, 1)
    run_until(source, ring, lambda: ring.head == 400)
    assert [one[1] for one in contents(ring, 0, 400)] == [frame(n) for n in range(400)]


def test_at_most_what_was_asked_for(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    wire.send([frame(n) for n in range(100)])
    while ring.head < 7:
        assert 0 <= source.run(ring, 7 - ring.head, 5) <= 7
    assert ring.head == 7
    run_until(source, ring, lambda: ring.head == 100)


def test_full_ring_drops_and_counts(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    wire.send([frame(n) for n in range(SLOTS + 300)])
    run_until(source, ring, lambda: source.ring_drops == 300)
    assert (ring.head, source.captured, ring.stats()["ring_drops"]) == (SLOTS, SLOTS, 300)
    ring.free_captured(SLOTS)
    wire.send([frame(9999)])
    run_until(source, ring, lambda: ring.head == SLOTS + 1)
    assert contents(ring, SLOTS, SLOTS + 1)[0][1] == frame(9999)


def test_a_ring_that_fills_is_shared_with_peers(wire: Wire, listen: Listen) -> None:
    """Who keeps what is the same for all; up to a quarter, and alone, a replica keeps everything."""
    wanted = SLOTS // 4 + 400
    found = []
    for mine in range(3):
        source, ring = listen()
        source.set_share(mine, 3)
        wire.send([frame(n) for n in range(wanted)])
        run_until(source, ring, lambda: ring.head + source.left_to_peers == wanted)  # noqa: B023
        kept = [int.from_bytes(one[1][14:18]) for one in contents(ring, 0, ring.head)]
        assert kept[: SLOTS // 4 + 1] == list(range(SLOTS // 4 + 1))
        assert (source.captured, source.ring_drops) == (ring.head, 0)
        found.append(set(kept[SLOTS // 4 + 1 :]))
        ring.free_captured(ring.head)
        before = source.left_to_peers
        wire.send([frame(n) for n in range(10)])
        run_until(source, ring, lambda: source.captured == len(kept) + 10)  # noqa: B023
        assert source.left_to_peers == before
        source.close()
    assert set.union(*found) == set(range(SLOTS // 4 + 1, wanted))
    assert sum(map(len, found)) <= wanted - SLOTS // 4 - 1 + 2  # but for what came before the ring was that full


def test_kernel_drops_are_counted(wire: Wire, listen: Listen) -> None:
    """A small kernel buffer that nobody empties: what is not captured is counted as dropped."""
    source, ring = listen({"slots": 16_384, "arena_bytes": 32 << 20}, buffer_bytes=1 << 16)
    wire.send([frame(n, 1400) for n in range(5000)])
    run_until(source, ring, lambda: source.captured + source.kernel_drops >= 5000)
    assert source.captured + source.kernel_drops == 5000
    assert source.kernel_drops > 0
    assert source.ring_drops == 0


def test_injected_drops(wire: Wire, listen: Listen, seed: int) -> None:
    source, ring = listen()
    source.set_drop(RandomDrop(0.3, 2, seed))
    wire.send([frame(n) for n in range(500)])
    run_until(source, ring, lambda: source.captured + source.injected_drops == 500)
    kept = [n for n, lost in enumerate(RandomDrop(0.3, 2, seed).decide(500).tolist()) if not lost]
    assert [one[1] for one in contents(ring, 0, ring.head)] == [frame(n) for n in kept]


def test_injected_clock_error(wire: Wire, listen: Listen, seed: int) -> None:
    """Against a capture of the same packets without it; both read the clocks for themselves, within `slack`."""
    offset, jitter, slack = -3600 * 10**9, 10**10, 10**8
    plain, true_ring = listen()
    source, ring = listen(clock_offset_ns=offset, jitter_ns=jitter, seed=seed)
    for start in range(0, 200, 10):
        wire.send([frame(n) for n in range(start, start + 10)])
        run_until(plain, true_ring, lambda wanted=start + 10: true_ring.head == wanted)  # type: ignore[misc]
        run_until(source, ring, lambda wanted=start + 10: ring.head == wanted)  # type: ignore[misc]
    draws = [splitmix64(seed + n * 0x9E3779B97F4A7C15) for n in range(200)]
    late = np.array([(draw >> 1) * (jitter + 1) >> 63 for draw in draws])
    expected = np.maximum.accumulate(true_ring.times(0, 200) + offset + late)
    assert np.abs(ring.times(0, 200) - expected).max() < slack
    assert abs(source.clock_ns - plain.clock_ns - offset) < slack


def test_promises_hold_under_injected_clock_error(wire: Wire, listen: Listen, seed: int) -> None:
    """No packet's time is below a watermark given before it came, and a quiet link's watermark passes every packet."""
    source, ring = listen(clock_offset_ns=3600 * 10**9, jitter_ns=50_000_000, seed=seed)
    given: list[tuple[int, int]] = []
    for n in range(200):
        wire.send([frame(n)])
        run_until(source, ring, lambda wanted=n + 1: ring.head == wanted)  # type: ignore[misc]
        given.append((ring.watermark_ns, ring.head))
        source.run(ring, 1, n % 3)
        given.append((ring.watermark_ns, ring.head))
    times = ring.times(0, ring.head)
    assert (np.diff(times) >= 0).all()
    assert all((times[head:] >= watermark).all() for watermark, head in given)
    assert given == sorted(given)
    run_until(source, ring, lambda: ring.watermark_ns > times[-1])
    assert ring.watermark_ns < source.clock_ns


def test_vlan_tags_stay(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    tagged = frame(1)[:12] + b"\x81\x00\x00\x2a" + frame(1)[12:]
    wire.send([tagged])
    run_until(source, ring, lambda: ring.head == 1)
    assert contents(ring, 0, 1)[0][1] == tagged


def test_interface_that_goes_away(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    source.run(ring, 10, 1)
    wire.ip(f"link del {INSIDE}")
    with pytest.raises(CaptureError, match=f"^{INSIDE}: ") as caught:
        run_until(source, ring, lambda: False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("interface", "bpf", "says"),
    [("nosuch0", "", "no such interface"), (INSIDE, "tcp prot 80", "bad filter"), ("x" * 300, "", "")],
)
def test_refused(core: Core, wire: Wire, interface: str, bpf: str, says: str) -> None:
    with pytest.raises(CaptureError) as caught, netns.entered(wire.namespace):
        core.Capture.live(interface, snaplen=100, promiscuous=True, buffer_bytes=1 << 20, bpf=bpf)
    assert str(caught.value).startswith(f"{interface}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_interface_that_is_down(core: Core, wire: Wire) -> None:
    wire.ip(f"link set {INSIDE} down")
    with pytest.raises(CaptureError, match=f"^{INSIDE}: the interface is down"), netns.entered(wire.namespace):
        core.Capture.live(INSIDE, snaplen=100, promiscuous=True, buffer_bytes=1 << 20, bpf="")


def test_no_permission(core: Core, wire: Wire) -> None:
    """Without root, one line that says what to do."""
    code = (
        "import os, sys\n"
        "from tests.core.helpers import Core\n"
        "from ftnids.errors import CaptureError\n"
        "core = Core(sys.argv[1])\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: core.Capture.live('lo', snaplen=100, promiscuous=False, buffer_bytes=1 << 20, bpf='')\n"
        "except CaptureError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, core.native.IMPL]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"HOME": "/"})
    assert done.stdout == "lo: no permission to capture; run as root or give the process CAP_NET_RAW\n", done.stderr
