"""The hub: every sensor sees every frame as it was sent, in one order; nothing is left of it, however it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftnids.errors import FtnidsError
from ftnids.lab import generate, leftovers, netns, verify
from ftnids.lab.netns import CAPTURE, HUB, TAP, Link, Sender, entered
from ftnids.lab.options import Options
from ftnids.lab.processes import Children, wait_until
from ftnids.lab.traffic import Tap, Traffic, senders

pytestmark = pytest.mark.needs_root
OWNER = """
import sys, time
from ftnids.lab.netns import Link, Sender
with Link(["r0", "r1"], [Sender("replay")]):
    print("made", flush=True)
    time.sleep(60)
"""


def ours() -> list[str]:
    return list(leftovers.namespaces())


def inside(link: Link, name: str, command: str) -> str:
    return netns.run(*link.inside(name, *command.split()))


def test_capture_interfaces_are_mute_and_see_the_wire() -> None:
    with Link(["r0", "r1"], [Sender("client", "10.84.0.1/24"), Sender("server", "10.84.0.2/24")]) as link:
        for sensor in (*link.replicas, TAP):
            shown = inside(link, sensor, f"ip address show {CAPTURE}")
            assert "inet" not in shown
            assert "NOARP" in shown
            assert f"mtu {netns.PORT_MTU}" in shown
            assert inside(link, sensor, f"cat /proc/sys/net/ipv6/conf/{CAPTURE}/disable_ipv6").strip() == "1"
        mirrors = inside(link, HUB, "tc filter show dev client parent ffff:")
        assert mirrors.count("Egress Mirror") == 4  # the server, two replicas, the tap
        assert link.sync_address("r0") != link.sync_address("r1")
    assert not ours()


@pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")
def test_offloads_are_off() -> None:
    with Link(["r0", "r1"], [Sender("replay")]) as link:
        for sensor in (*link.replicas, TAP):
            features = inside(link, sensor, f"ethtool -k {CAPTURE}")
            for feature in ("rx-checksumming", "tx-checksumming", "generic-receive-offload", "rx-vlan-offload"):
                assert f"{feature}: off" in features


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_error(error: type[BaseException]) -> None:
    with pytest.raises(error), Link(["r0", "r1"], [Sender("replay")]):
        raise error


def test_nothing_is_left_when_it_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Link, "_connect", lambda self: self._in(HUB, "ip link set nothing up"))
    with pytest.raises(FtnidsError, match="ip link set nothing up` failed: Cannot find device"):
        Link(["r0", "r1"], [Sender("replay")]).__enter__()
    assert not ours()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_next_run_removes_what_a_killed_one_left(number: int) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert owner.stdout is not None
    with owner, owner.stdout as out:
        assert out.readline() == b"made\n"
        theirs = ours()
        assert len(theirs) == 5
        assert leftovers.sweep() == []  # its owner lives
        assert ours() == theirs
        owner.send_signal(number)
    assert sorted(leftovers.sweep()) == (sorted(theirs) if number == signal.SIGKILL else [])
    assert not ours()


def test_a_pid_that_came_round_again_is_another_run() -> None:
    me, begun = os.getpid(), leftovers.started(os.getpid())
    assert begun is not None
    assert not leftovers.stale(f"{leftovers.PREFIX}-{me}-{begun}-r0")
    assert leftovers.stale(f"{leftovers.PREFIX}-{me}-{begun - 1}-r0")
    assert not leftovers.stale("somebody-elses")
    assert not leftovers.stale(f"{leftovers.PREFIX}-x-y-r0")


def test_programs_reach_every_sensor_in_one_order(tmp_path: Path) -> None:
    """HTTP and DNS between real programs; the replicas' ports and the tap see the same bytes in the same order."""
    options = Options(out=tmp_path, netns=True, ids="none")
    with Link(["r0", "r1"], senders(options)) as link, Children() as children:
        taps = [record(link, children, name, tmp_path) for name in link.replicas]
        taps.append(Tap(link, children, tmp_path / "tap.pcap", tmp_path / "tap.log"))
        traffic = Traffic(options, link, children, tmp_path / "traffic")
        traffic.prepare()
        traffic.start()
        wait_until(lambda: traffic.over, 60, "the end of the traffic")
        time.sleep(0.2)  # the last acknowledgement
        seen = [tap.stop() for tap in taps]
        assert link.drops() == 0
    streams = [verify.read_pcap(tap.path, 65_535, 0) for tap in taps]
    assert seen[0][0] > 3_000
    assert set(seen) == {(len(streams[0]), 0)}
    assert all((stream.hash == streams[0].hash).all() for stream in streams)


def record(link: Link, children: Children, name: str, directory: Path) -> Tap:
    """A tap on a replica's port."""

    class There(Tap):
        def __init__(self) -> None:
            self.path = directory / f"{name}.pcap"
            command = [sys.executable, "-m", "ftnids.lab.tap", CAPTURE, str(self.path)]
            self._child = children.start(name, link.inside(name, *command), directory / f"{name}.log", talks=True)
            self._child.read_line(60)

    return There()


def test_a_replayed_file_arrives_whole(tmp_path: Path) -> None:
    """A trace with frames far above an Ethernet MTU, flat out."""
    big = tmp_path / "big.pcap"
    generate.write(tmp_path / "small.pcap", seed=1)
    frame = bytes(12) + b"\x08\x00" + bytes(range(256)) * 170
    with big.open("wb") as file:
        file.write((tmp_path / "small.pcap").read_bytes())
        at = (generate.EPOCH_US // 1_000_000 + 9).to_bytes(4, "little")
        file.write(at + bytes(4) + len(frame).to_bytes(4, "little") * 2 + frame)
    options = Options(out=tmp_path, netns=True, ids="none", pcap=big, topspeed=True)
    with Link(["r0", "r1"], senders(options)) as link, Children() as children:
        tap = Tap(link, children, tmp_path / "tap.pcap", tmp_path / "tap.log")
        traffic = Traffic(options, link, children, tmp_path / "traffic")
        traffic.prepare()
        traffic.start()
        wait_until(lambda: traffic.over, 60, "the end of the replay")
        assert tap.stop()[1] == 0
        assert traffic.report()["skipped"] == 0
        assert link.drops() == 0
    sent, seen = verify.read_pcap(big, 65_535, 0), verify.read_pcap(tap.path, 65_535, 0)
    assert (sent.hash == seen.hash).all()


def heard(link: Link, count: int) -> int:
    """How many of `count` datagrams on the sync network get from r0 to r1."""
    address = (link.sync_address("r1"), 9_000)
    with entered(link.namespace("r1")):
        there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with entered(link.namespace("r0")):
        here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with there, here:
        there.bind(address)
        there.settimeout(0.2)
        arrived = 0
        for _ in range(count // 50):
            for _ in range(50):
                here.sendto(b"x", address)
            with contextlib.suppress(TimeoutError):
                for _ in range(50):
                    there.recv(1)
                    arrived += 1
        return arrived


def test_the_sync_network_can_be_cut_and_mended() -> None:
    with Link(["r0", "r1"], [Sender("replay")]) as link:
        wait_until(lambda: heard(link, 50) == 50, 20, "the sync network")
        link.cut("r1")
        assert heard(link, 50) == 0
        link.mend("r1")
        wait_until(lambda: heard(link, 50) == 50, 20, "the sync network")


def test_the_sync_network_can_lose_frames() -> None:
    with Link(["r0", "r1"], [Sender("replay")]) as link:
        wait_until(lambda: heard(link, 50) == 50, 20, "the sync network")
        link.lose(0.3)
        assert 100 < sum(heard(link, 50) for _ in range(5)) < 240
