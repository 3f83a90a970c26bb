"""The capture room: from `[capture]` to a thread that fills a ring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ftnids.capture import CaptureThread, open_capture, preflight
from ftnids.capture.preflight import kernel_buffer
from ftnids.core import RandomDrop
from ftnids.core.capture import Capture
from ftnids.core.ring import Ring
from ftnids.errors import CaptureError
from ftnids.lab import netns
from tests.capture.conftest import INSIDE, Wire
from tests.core.helpers import SLOTS, Core, contents, some_packets, write_pcap

Listen = Callable[..., tuple[Capture, Ring]]


@dataclass
class DropKeys:
    """`[capture.drop]` as the configuration has it."""

    loss: float = 0.0
    burst: float = 1.0
    seed: int = 0


@dataclass
class Keys:
    """`[capture]` as the configuration has it."""

    interface: str | None = None
    file: Path | None = None
    bpf: str = ""
    snaplen: int = 65535
    promiscuous: bool = True
    buffer_mb: int = 8
    pace: str = "topspeed"
    pps: int = 0
    clock_offset_us: int = 0
    jitter_us: int = 0
    drop: DropKeys = field(default_factory=DropKeys)


def test_file_to_its_end(core: Core, tmp_path: Path, seed: int) -> None:
    packets = some_packets(3000, seed, 100)
    source, ring = core.file(write_pcap(tmp_path / "x.pcap", packets, nano=True)), core.ring(slots=4096)
    woken = threading.Event()
    thread = CaptureThread(source, ring, wake=woken.set)
    try:
        assert not thread.ended
        thread.start()
        thread.join(30)
        assert thread.ended
        assert woken.is_set()
        assert (thread.captured, ring.head, ring.watermark_ns) == (3000, 3000, 2**63 - 1)
        assert thread.captured_bytes == source.captured_bytes == sum(len(packet.data) for packet in packets)
        source.close()
        assert thread.captured == 3000
    finally:
        source.close()
        ring.close(unlink=True)


def test_stop_while_the_ring_is_full(core: Core, tmp_path: Path, seed: int) -> None:
    path = write_pcap(tmp_path / "x.pcap", some_packets(2 * SLOTS, seed, 60))
    source, ring = core.file(path), core.ring()
    thread = CaptureThread(source, ring)
    thread.start()
    while ring.head < SLOTS:
        threading.Event().wait(0.001)
    thread.stop()
    thread.join(30)
    assert thread.ended
    assert (thread.captured, thread.ring_drops) == (SLOTS, 0)
    source.close()
    ring.close(unlink=True)


def test_stop_before_start(core: Core, ring_and_file: tuple[Ring, Path]) -> None:
    ring, path = ring_and_file
    source = core.file(path)
    thread = CaptureThread(source, ring)
    thread.stop()
    thread.join()
    assert thread.ended
    thread.start()
    thread.join(30)
    assert ring.head == 0
    source.close()


@pytest.fixture
def ring_and_file(core: Core, tmp_path: Path, seed: int):  # type: ignore[no-untyped-def]
    """A ring, and a file that ends in garbage."""
    path = write_pcap(tmp_path / "x.pcap", some_packets(20, seed, 100))
    path.write_bytes(path.read_bytes() + b"\xff" * 64)
    ring = core.ring()
    yield ring, path
    ring.close(unlink=True)


def test_garbage_ends_the_file_with_a_warning(core: Core, ring_and_file: tuple[Ring, Path]) -> None:
    ring, path = ring_and_file
    source = core.file(path)
    thread = CaptureThread(source, ring)
    thread.start()
    thread.join(30)
    assert thread.ended
    assert ring.head == thread.captured == 20
    assert "damaged at packet 20 (invalid packet capture length" in thread.warning
    source.close()


def test_failure_reaches_the_main_loop(core: Core, tmp_path: Path, seed: int) -> None:
    source = core.file(write_pcap(tmp_path / "x.pcap", some_packets(20, seed, 100), linktype=101))
    ring = core.ring(linktype=1)
    thread = CaptureThread(source, ring)
    try:
        thread.start()
        thread.join(30)
        with pytest.raises(CaptureError, match="link type 101"):
            _ = thread.ended
    finally:
        source.close()
        ring.close(unlink=True)


def test_settings_of_a_file(tmp_path: Path, seed: int) -> None:
    packets = some_packets(300, seed, 100)
    path = write_pcap(tmp_path / "x.pcap", packets, nano=True)
    keys = Keys(file=path, snaplen=80, clock_offset_us=300, jitter_us=20, drop=DropKeys(0.2, 3, seed))
    source, ring = open_capture(keys), Core("c").ring(snaplen=80)
    try:
        while source.run(ring, SLOTS, 0) >= 0:
            pass
        kept = [one for one, lost in zip(packets, RandomDrop(0.2, 3, seed).decide(300), strict=True) if not lost]
        got = contents(ring, 0, ring.head)
        assert [one[1:] for one in got] == [(one.data[:80], len(one.data)) for one in kept]
        late = np.array([one[0] for one in got]) - np.array([one.time_ns for one in kept]) - 300_000
        assert late.min() >= 0
        assert late.max() <= 20_000
        assert source.injected_drops == 300 - len(kept)
    finally:
        source.close()
        ring.close(unlink=True)


def test_settings_of_an_interface(wire: Wire, capsys: pytest.CaptureFixture[str]) -> None:
    wire.ip(f"address add 10.99.0.1/24 dev {INSIDE}")
    with netns.entered(wire.namespace):
        source = open_capture(Keys(interface=INSIDE, snaplen=200, clock_offset_us=10**9))
        assert [fault.cure for fault in preflight(INSIDE)] == [f"ip address flush dev {INSIDE}"]
    assert (source.linktype, source.snaplen) == (1, 200)
    assert source.clock_ns > time.time_ns() + 900 * 10**9
    assert "10.99.0.1" in "".join(capsys.readouterr())
    source.close()


def test_preflight_finds_what_replicas_would_see_differently(wire: Wire) -> None:
    with netns.entered(wire.namespace):
        assert preflight(INSIDE) == []
        assert preflight("nosuch0") == []
    wire.ip("link add plain0 type veth peer name plain1")
    wire.ip("link set plain0 up")
    wire.ip("address add 10.99.0.2/24 dev plain0")
    with netns.entered(wire.namespace):
        Path("/proc/sys/net/ipv6/conf/plain0/disable_ipv6").write_text("0")
        cures = {fault.cure.split("dev")[0].split("/proc")[0].strip() for fault in preflight("plain0")}
        assert kernel_buffer(INSIDE, 65535, 64 << 20) == []
        (fault,) = kernel_buffer("plain0", 65535, 64 << 20)
        assert fault.what == "its kernel buffer holds only 1022 packets"
        assert kernel_buffer("plain0", 2000, 64 << 20) == []
    assert {"ip address flush", "echo 1 >", "ethtool -K plain0 rxvlan off"} <= cures


def test_live_until_stopped(wire: Wire, listen: Listen) -> None:
    source, ring = listen()
    thread = CaptureThread(source, ring)
    thread.start()
    wire.send([bytes(12) + b"\x88\xb5" + bytes(46)] * 100)
    while thread.captured < 100:
        threading.Event().wait(0.001)
    assert not thread.ended
    thread.stop()
    thread.join(30)
    assert thread.ended
    assert (ring.head, thread.kernel_drops, thread.injected_drops, thread.warning) == (100, 0, 0, "")
