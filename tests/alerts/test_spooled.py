"""Outputs that may be slow or dead: nothing waits for them, and they get everything, in order, once they are back."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ftnids.alerts import sinks, spooled
from ftnids.alerts.outputs import as_line
from ftnids.alerts.sinks import ForgetfulError, Sink, SinkError, Stdout, Syslog, summary
from ftnids.alerts.spooled import Spooled

from .records import identified


class Receiver(Sink):
    """Takes records while it is `open`, and says when it has a number of them."""

    def __init__(self, keep_bytes: int = 0) -> None:
        self.keep_bytes = keep_bytes
        self.open = threading.Event()
        self.ids: list[str] = []
        self.came = threading.Condition()
        self.fault: Exception | None = None
        self.most = 1_000
        self.tries = 0

    def put(self, lines: Sequence[bytes]) -> int:
        with self.came:
            self.tries += 1
            self.came.notify_all()
            if self.fault is not None:
                fault, self.fault = self.fault, None
                raise fault
            if not self.open.is_set():
                raise SinkError("closed", "open it")
            self.ids += [json.loads(line)["ftnids"]["id"] for line in lines[: self.most]]
            self.came.notify_all()
            return min(len(lines), self.most)

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.came:
            assert self.came.wait_for(condition, 20)

    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "FIRST_S", 0.001)
    monkeypatch.setattr(spooled, "SINK_BACKOFF_S", 0.01)


def make(receiver: Sink, directory: Path, limit: int = 1 << 20) -> Spooled:
    return Spooled("alerts.x", receiver, directory, limit)


def batch(first: int, end: int) -> list[dict[str, object]]:
    return [identified(str(n)) for n in range(first, end)]


def numbers(first: int, end: int) -> list[str]:
    return [str(n) for n in range(first, end)]


def test_a_receiver_that_comes_back_gets_all_in_order(tmp_path: Path) -> None:
    receiver = Receiver()
    with capture_logs() as lines:
        out = make(receiver, tmp_path)
        out.write(batch(0, 10))
        out.write(batch(5, 20))
        receiver.wait(lambda: receiver.tries > 2)
        assert out.counters()["delivered"] == 0
        receiver.most = 7
        receiver.open.set()
        receiver.wait(lambda: len(receiver.ids) == 20)
        out.close()
    assert receiver.ids == numbers(0, 20)
    counted = out.counters()
    assert (counted["delivered"], counted["suppressed"], counted["lost"], counted["waiting_bytes"]) == (20, 5, 0, 0)
    assert [line["event"] for line in lines] == ["alert_output_down", "alert_output_up"]
    assert (lines[0]["reason"], lines[0]["hint"]) == ("closed", "open it")


def test_what_a_dead_receiver_did_not_take_is_there_after_a_restart(tmp_path: Path) -> None:
    receiver = Receiver()
    out = make(receiver, tmp_path)
    out.write(batch(0, 5))
    with capture_logs() as lines:
        out.close()
    assert lines[-1]["event"] == "alerts_wait_in_spool"
    receiver.open.set()
    again = make(receiver, tmp_path)
    again.write(batch(3, 8))  # a restart may raise what is in the spool
    receiver.wait(lambda: len(receiver.ids) == 8)
    again.close()
    assert receiver.ids == numbers(0, 8)


def test_each_status_of_an_alert_goes_out_once(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.open.set()
    provisional = identified("1")
    provisional["ftnids"]["status"] = "provisional"
    for _ in range(2):  # the second life knows what is in the spool
        out = make(receiver, tmp_path)
        out.write([provisional])
        out.write([identified("1"), provisional, identified("1")])
        out.write([identified("2")])
        receiver.wait(lambda: len(receiver.ids) == 3)
        out.close()
    assert receiver.ids == ["1", "1", "2"]


def test_a_receiver_that_forgot_gets_what_is_kept_again(tmp_path: Path) -> None:
    receiver = Receiver(keep_bytes=1 << 20)
    receiver.open.set()
    out = make(receiver, tmp_path)
    out.write(batch(0, 5))
    receiver.wait(lambda: len(receiver.ids) == 5)
    receiver.fault = ForgetfulError()
    out.write(batch(5, 6))
    receiver.wait(lambda: len(receiver.ids) == 11)
    out.close()
    assert receiver.ids == numbers(0, 5) + numbers(0, 6)


def test_a_fault_of_a_library_ends_no_thread(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.open.set()
    receiver.fault = ZeroDivisionError("oops")
    with capture_logs() as lines:
        out = make(receiver, tmp_path)
        out.write(batch(0, 3))
        receiver.wait(lambda: len(receiver.ids) == 3)
        out.close()
    assert "ZeroDivisionError" in lines[0]["reason"]
    assert lines[0]["hint"] == "see alerts.x"


def test_what_is_beyond_the_spool_is_lost_and_said(tmp_path: Path) -> None:
    receiver = Receiver()
    size = len(as_line(identified("100")))
    with capture_logs() as lines:
        out = make(receiver, tmp_path, limit=20 * size)
        for n in range(100, 200):
            out.write(batch(n, n + 1))
        receiver.open.set()
        receiver.wait(lambda: receiver.ids[-1:] == ["199"])
        out.close()
    lost = out.counters()["lost"]
    assert receiver.ids == numbers(100 + lost, 200)
    assert 80 <= lost <= 90
    (said,) = (line for line in lines if line["event"] == "alerts_lost")
    assert "alerts.spool_mb" in said["hint"]


# -- standard output ------------------------------------------------------------------------------


def test_stdout_is_json_lines() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader:
        out = Stdout(write)
        assert out.put([as_line(identified("1")), as_line(identified("2"))]) == 2
        os.close(write)
        assert [json.loads(line)["ftnids"]["id"] for line in reader] == ["1", "2"]


def test_stdout_survives_a_reader_that_left() -> None:
    read, write = os.pipe()
    os.close(read)
    assert Stdout(write).put([b"1\n", b"2\n"]) == 2
    os.close(write)


def test_stdout_that_nobody_reads_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is half out is ended before the next one, also when the spool lost it meanwhile."""
    monkeypatch.setattr(sinks, "SINK_WAIT_S", 0.01)
    read, write = os.pipe()
    out = Stdout(write)
    lines = [b"a" * 40_000 + b"\n", b"b" * 40_000 + b"\n"]
    assert out.put(lines) == 1
    with pytest.raises(SinkError, match="nobody reads standard output"):
        out.put(lines[1:])
    found = bytearray()

    def drain() -> None:
        while part := os.read(read, 65_536):
            found.extend(part)

    reader = threading.Thread(target=drain)
    reader.start()
    monkeypatch.setattr(sinks, "SINK_WAIT_S", 10)
    assert out.put([b"c\n"]) == 1
    os.close(write)
    reader.join()
    os.close(read)
    assert bytes(found) == lines[0] + lines[1] + b"c\n"


# -- syslog -----------------------------------------------------------------------------------------


def test_syslog_line_names_rule_flow_and_id(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        out = Syslog(str(tmp_path / "log"))
        assert out.put([as_line(identified("1f")), b"no record\n"]) == 2
        first, second = daemon.recv(9_000).decode(), daemon.recv(9_000).decode()
        out.close()
    assert first.startswith("<29>")  # daemon, notice
    assert first.endswith(f" ftnids[{os.getpid()}]: [1:1:1] x {{TCP}} 192.0.2.1:1024 -> 198.51.100.2:80 id 1f")
    assert second.endswith("]: no record")


def test_syslog_lines_have_no_control_characters_and_an_end(tmp_path: Path) -> None:
    record = identified("1")
    record["alert"] |= {"signature": "a\n<0>b\0" + "c" * 9_000, "severity": 1}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / "log"))
        out = Syslog(str(tmp_path / "log"))
        out.put([as_line(record)])
        line = daemon.recv(9_000)
        out.close()
    assert line.startswith(b"<27>")
    assert b"] a<0>bccc" in line
    assert len(line) == 4_096


def test_a_syslog_daemon_that_is_restarted(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    out = Syslog(path)
    with pytest.raises(SinkError, match="No such file"):
        out.put([b"1\n"])
    for number in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            assert out.put([b"%d\n" % number]) == 1
            assert daemon.recv(100).endswith(b"%d" % number)
        with pytest.raises(SinkError, match="Connection refused"):
            out.put([b"x\n"])
        Path(path).unlink()
    out.close()


def test_summary_writes_ipv6_with_brackets() -> None:
    record = identified("1") | {"src_ip": "2001:db8::1", "proto": "UDP"}
    assert "[2001:db8::1]:1024 ->" in summary(record)


def test_summary_says_what_may_still_change() -> None:
    record = identified("1")
    assert summary(record).endswith(" id 1")
    record["ftnids"]["status"] = "retracted"
    assert summary(record).endswith(" id 1 retracted")
