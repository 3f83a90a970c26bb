"""CRIU: an IDS goes back to what it was, its FIFO and its logs with it; what fails is one line and costs nothing."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from ftnids.core import pcap_header
from ftnids.feed import criu
from ftnids.feed.checkpoint import CheckpointError
from ftnids.feed.criu import Criu, complaint, unread
from ftnids.feed.criu_checkpoints import CriuCheckpoints, remove_left
from ftnids.feed.images import Images
from ftnids.feed.namespace import PLACE

from .fake_ids import FakeIds

SHELL = "#!/bin/sh\n"


def records(*micros: int) -> bytes:
    """One pcap record of 60 bytes for each time."""
    return b"".join(struct.pack("<IIII", 1, micro, 60, 60) + bytes(60) for micro in micros)


@dataclass
class Target:
    """The stand-in IDS under the back-end, on a FIFO that this process writes."""

    folder: Path
    orders: dict[str, float] = field(default_factory=dict)
    backend: CriuCheckpoints = field(init=False)
    fd: int = -1

    def __post_init__(self) -> None:
        for name in ("run", "fifo", "log"):
            (self.folder / name).mkdir()
        self.backend = CriuCheckpoints(self.folder / "run")

    def start(self) -> None:
        fifo, logs = self.folder / "fifo/ids.fifo", self.folder / "log"
        ids = FakeIds(self.folder, **self.orders)
        os.mkfifo(fifo, 0o600)
        self.child = self.backend.start(ids.command(*self.backend.inside(fifo)), os.environ, fifo, logs)
        self.fd = os.open(fifo, os.O_WRONLY)
        os.write(self.fd, pcap_header(1, 65535))

    def feed(self, *micros: int) -> None:
        os.write(self.fd, records(*micros))

    def logged(self) -> list[int]:
        """The times of the packets in the log of the IDS."""
        path = self.folder / "log/eve.json"
        lines = path.read_text().splitlines() if path.exists() else []
        return [int(json.loads(line)["timestamp"][20:26]) for line in lines]

    def wait(self, *micros: int) -> None:
        deadline = time.monotonic() + 30
        while self.logged() != list(micros) and time.monotonic() < deadline:
            time.sleep(0.002)
        assert self.logged() == list(micros)

    def finish(self) -> list[int]:
        """Let it come to its end, in order, and what it logged."""
        os.close(self.fd)
        self.fd = -1
        assert self.child.wait(60) == 0
        return self.logged()

    def close(self) -> None:
        self.backend.close()
        if self.fd >= 0:
            os.close(self.fd)


@pytest.fixture
def target(needs_criu: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Target]:
    target = Target(tmp_path, getattr(request, "param", {}))
    yield target
    target.close()


def test_self_test_works_here_and_leaves_nothing(needs_criu: Path, tmp_path: Path) -> None:
    assert CriuCheckpoints(tmp_path).self_test() == ""
    assert not list(tmp_path.iterdir())


def test_what_was_fed_after_a_checkpoint_never_was(target: Target) -> None:
    target.start()
    target.feed(1, 2)
    target.wait(1, 2)
    inside = target.child.inside
    for wrong in (7, 8, 9):  # more than once from the same image
        if target.backend.image is None:
            target.backend.take(2)
        target.feed(wrong, wrong)
        target.wait(1, 2, wrong, wrong)
        (target.folder / "log/rotated.json").write_text("what a wrong packet made")
        target.child = target.backend.restore()
        assert target.logged() == [1, 2]
        assert target.child.inside == inside
    target.feed(3)
    target.wait(1, 2, 3)
    target.backend.take(3)
    target.feed(4)
    assert target.finish() == [1, 2, 3, 4]
    assert sorted(path.name for path in (target.folder / "log").iterdir()) == ["eve.json", "ids.log"]


def test_a_pid_that_is_taken_at_first(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU is tried again, and what became of the first try is not what becomes of the IDS."""
    target.start()
    target.feed(1)
    target.wait(1)
    target.backend.take(1)
    target.child.kill()
    target.child.wait(30)
    namespace = target.backend._namespace
    assert namespace is not None
    other = namespace.spawn(["/bin/sleep", "60"], PLACE / "log/other", after_pid=criu.FIRST_PID)
    assert other.inside == target.child.inside
    tries: list[str] = []
    run = Criu._run

    def counted(self: Criu, *arguments: Any, **options: Any) -> None:
        if len(tries) == 2:
            other.kill()
            while psutil.pid_exists(other.pid):  # its status is nobody's
                time.sleep(0.001)
        tries.append(arguments[1])
        run(self, *arguments, **options)

    monkeypatch.setattr(Criu, "_run", counted)
    target.child = target.backend.restore()
    assert tries == ["restore"] * 3
    target.feed(2)
    assert target.finish() == [1, 2]


@pytest.mark.parametrize("target", [{"slow": 0.2}], indirect=True)
def test_a_pid_that_is_taken_at_last(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """CRIU has filled the pipe by then: what lay in there comes once all the same."""
    target.start()
    target.feed(*range(200))
    while not target.logged():
        time.sleep(0.002)
    left = unread(target.fd)
    target.backend.take(200)
    run, tries = Criu._run, 0

    def failing(self: Criu, *arguments: Any, **options: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            fd = os.open(target.backend._fifo, os.O_RDWR | os.O_NONBLOCK)  # as CRIU does
            os.write(fd, b"x" * left)
            os.close(fd)
            raise CheckpointError("criu restore failed: Unable to create a thread: -17")
        run(self, *arguments, **options)

    monkeypatch.setattr(Criu, "_run", failing)
    target.child = target.backend.restore()
    assert unread(target.fd) == left
    target.child.kill()


@pytest.mark.parametrize("target", [{"slow": 0.2}], indirect=True)
def test_what_lies_unread_in_the_pipe_is_part_of_a_checkpoint(target: Target) -> None:
    target.start()
    many = list(range(200))
    target.feed(*many)
    while not target.logged():
        time.sleep(0.002)
    left = unread(target.fd)
    assert left > 0, "the reader's buffer does not hold them all"
    target.backend.take(len(many))
    target.feed(999)
    target.child = target.backend.restore()
    assert unread(target.fd) == left, "no more and no less than at the checkpoint"
    target.child.kill()


def test_an_image_is_private_and_the_only_one(target: Target) -> None:
    target.start()
    for seq in range(3):
        image = target.backend.take(seq)
        assert [path.name for path in image.folder.parent.iterdir()] == [str(seq)]
    folders = [image.folder, image.folder.parent, image.criu]
    assert {path.stat().st_mode & 0o777 for path in folders} == {0o700}
    assert image.bytes() > 100_000
    target.backend.discard()
    assert not list(image.folder.parent.iterdir())


def test_images_that_nobody_discards_are_few_and_do_not_outlive_their_process(tmp_path: Path) -> None:
    images = Images(tmp_path / "images")
    folders = [images.new() for _ in range(5)]
    assert sorted(path.name for path in images.folder.iterdir()) == ["3", "4"]
    images.remove(folders[0])  # gone already: said, no error
    assert not list(Images(tmp_path / "images").folder.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot make .*images.* for checkpoints: Not a directory; check"):
        Images(tmp_path / "file/images")


def test_what_a_killed_process_left_goes_in_any_mode(tmp_path: Path) -> None:
    remove_left(tmp_path)
    (tmp_path / "checkpoints/7/criu").mkdir(parents=True)
    (tmp_path / "checkpoints/7/criu/pages-1.img").write_bytes(b"memory")
    remove_left(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_finds_no_room_costs_nothing(target: Target) -> None:
    folder = target.folder / "run"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "ftnids-tests", folder], check=True)
    try:
        target.start()
        target.feed(1)
        target.wait(1)
        with pytest.raises(CheckpointError, match=r"criu dump failed: .*No space left on device; make room in replica"):
            target.backend.take(1)
        assert target.backend.image is None
        assert not list((folder / "checkpoints").iterdir())
        target.feed(2)
        assert target.finish() == [1, 2]
    finally:
        target.backend.close()
        subprocess.run(["umount", folder], check=True)


def test_logs_that_are_not_what_they_were_make_a_restore_fail(target: Target) -> None:
    target.start()
    target.feed(1)
    target.wait(1)
    target.backend.take(1)
    os.truncate(target.folder / "log/eve.json", 5)
    with pytest.raises(CheckpointError, match=r"cannot bring .*eve.json back to \d+ bytes: it has 5"):
        target.backend.restore()
    assert target.child.returncode == -9


def test_a_file_elsewhere_would_not_be_rolled_back(target: Target) -> None:
    fifo, elsewhere = target.folder / "fifo/ids.fifo", target.folder / "elsewhere.log"
    os.mkfifo(fifo, 0o600)
    command = f"exec 4>>{elsewhere}; exec 3<{target.backend.inside(fifo)[0]}; echo >&4; exec /bin/sleep 3600"
    target.child = target.backend.start(["/bin/sh", "-c", command], os.environ, fifo, target.folder / "log")
    target.fd = os.open(fifo, os.O_WRONLY)
    while not elsewhere.read_text():
        time.sleep(0.002)
    with pytest.raises(CheckpointError, match=r"the IDS writes .*/elsewhere.log, outside of its log folder; let its"):
        target.backend.take(0)
    assert target.child.poll() is None


def test_a_process_that_has_ended_cannot_be_dumped(target: Target) -> None:
    target.start()
    target.child.kill()
    target.child.wait(10)
    with pytest.raises(CheckpointError, match=r"process 10 has ended with status -9"):
        target.backend.take(0)


def script(path: Path, text: str) -> Path:
    path.write_text(SHELL + text)
    path.chmod(0o755)
    return path


def test_a_criu_that_hangs_is_killed_and_what_it_dumped_with_it(
    target: Target, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = script(tmp_path / "criu", '[ "$1" = --version ] && { echo Version: 4.1; exit; }\nexec sleep 3600\n')
    monkeypatch.setenv("FTNIDS_CRIU", str(program))
    monkeypatch.setattr(criu, "CRIU_DUMP_S", 0.2)
    monkeypatch.setattr(criu, "CRIU_CHECK_S", 0.2)
    target.start()
    with pytest.raises(CheckpointError, match="criu dump did not end within 0 s; killed"):
        target.backend.take(0)
    assert target.child.wait(10) == -9
    assert "check did not end" in target.backend.self_test()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo Version: 3.17.1", r"criu 3.17.1 \(.*\) is older than 4.1; install CRIU"),
        ("echo what; exit 1", r"--version: what; install CRIU"),
        ("exit 3", r"--version: exit status 3; install CRIU"),
        ('[ $1 = --version ] && echo Version: 4.2 || { echo "Error (criu/x.c:1): no such thing"; exit 1; }', "no such"),
    ],
)
def test_a_criu_that_will_not_do_is_one_line(
    monkeypatch: pytest.MonkeyPatch, needs_root: None, tmp_path: Path, text: str, said: str
) -> None:
    monkeypatch.setenv("FTNIDS_CRIU", str(script(tmp_path / "criu", text + "\n")))
    with pytest.raises(CheckpointError, match=said) as raised:
        Criu().check()
    assert "\n" not in str(raised.value)


def test_no_criu_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTNIDS_CRIU", str(tmp_path / "none"))
    assert "no program" in CriuCheckpoints(tmp_path).self_test()
    monkeypatch.delenv("FTNIDS_CRIU")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    if not Path("/usr/sbin/criu").exists():
        assert "no program criu to run; install CRIU 4.1" in CriuCheckpoints(tmp_path).self_test()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "exit status 1"),
        ("(00.1) Warn  (criu/a.c:1): x\n(00.2)   9: Error (criu/b.c:2): cause\nError (criu/c.c:3): effect", "cause"),
        ("Error (criu/util.c:9): rlimit: Can't setup RLIMIT_NOFILE for self\nError (criu/a.c:1): real", "real"),
        ("(00.1) Error (criu/a.c:1): write: No space left on device", "write: No space left on device; make room in"),
        ("some words\nlast words", "last words"),
    ],
)
def test_the_first_complaint_of_a_log_is_the_reason(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "dump.log").write_text(text)
    assert complaint(tmp_path, "dump", 1).startswith(said)


def test_the_ids_sees_the_same_paths_everywhere() -> None:
    assert CriuCheckpoints.inside(Path("/a/b.fifo")) == (PLACE / "run/b.fifo", PLACE / "log")
