"""What earlier runs wrote: put aside, the short ones removed first, and each removal said."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ftnids.core import pcap_header
from ftnids.feed import put_aside
from ftnids.limits import ARCHIVES, SMALL_ARCHIVE


def pcap(packets: int) -> bytes:
    return pcap_header(1, 65535) + (struct.pack("<IIII", 1, 2, 60, 60) + bytes(60)) * packets


def lines(packets: int) -> bytes:
    return b"".join(b"%d %016x %d\n" % (seq, seq, seq) for seq in range(packets))


def test_what_is_no_file_is_left_where_it_is(tmp_path: Path) -> None:
    """Else `agreed_pcap = "/dev/null"` would rename the device of the whole machine."""
    pipe = tmp_path / "agreed.pcap"
    os.mkfifo(pipe)
    put_aside(pipe)
    put_aside(tmp_path)
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_an_earlier_run_wrote_is_put_aside_and_said(tmp_path: Path) -> None:
    """Once a life; of equals the newest few stay."""
    path = tmp_path / "agreed.pcap"
    with capture_logs() as said:
        put_aside(path)
    assert said == []
    lives = ARCHIVES + 2
    for life in range(lives):
        path.write_text(f"{life}")
        before = set(tmp_path.iterdir())
        with capture_logs() as said:
            put_aside(path)
        kept = sorted(tmp_path.iterdir())
        assert (said[0]["file"], said[0]["to"]) == (str(path), str(kept[-1]))
        gone = before - {path, *kept}
        assert [line["file"] for line in said[1:]] == [str(one) for one in gone]
        assert len(gone) == (life >= ARCHIVES)
    assert [one.read_text() for one in kept] == [f"{life}" for life in range(lives)][-ARCHIVES:]


@pytest.mark.parametrize(("name", "stream"), [("agreed.pcap", pcap), ("hashes.txt", lines)])
def test_a_short_stream_pushes_out_no_long_one(tmp_path: Path, name: str, stream: Callable[[int], bytes]) -> None:
    path = tmp_path / name
    for packets in [SMALL_ARCHIVE] * ARCHIVES + [0, 1, SMALL_ARCHIVE - 1]:
        path.write_bytes(stream(packets))
        put_aside(path)
    assert {one.read_bytes() for one in tmp_path.iterdir()} == {stream(SMALL_ARCHIVE)}
    path.write_bytes(stream(SMALL_ARCHIVE + 1))
    put_aside(path)  # a long one takes the place of the oldest
    kept = [one.read_bytes() for one in sorted(tmp_path.iterdir())]
    assert kept == [stream(SMALL_ARCHIVE)] * (ARCHIVES - 1) + [stream(SMALL_ARCHIVE + 1)]


def test_a_long_stream_pushes_out_the_oldest_short_one(tmp_path: Path) -> None:
    path = tmp_path / "hashes.txt"
    for packets in [SMALL_ARCHIVE, 3, 2] + [SMALL_ARCHIVE] * (ARCHIVES - 2):
        path.write_bytes(lines(packets))
        put_aside(path)
    kept = [one.read_bytes() for one in sorted(tmp_path.iterdir())]
    assert kept == [lines(SMALL_ARCHIVE), lines(2)] + [lines(SMALL_ARCHIVE)] * (ARCHIVES - 2)


def test_files_of_other_names_are_not_counted_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "agreed.pcap"
    for n in range(ARCHIVES + 2):
        (tmp_path / f"agreed.mine-{n}.pcap").write_bytes(b"")
    path.write_bytes(pcap(1))
    put_aside(path)
    assert len(list(tmp_path.iterdir())) == ARCHIVES + 3


def test_one_that_cannot_be_removed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", denied)
    path = tmp_path / "agreed.pcap"
    with capture_logs() as said:
        for _ in range(ARCHIVES + 1):
            path.write_bytes(b"")
            put_aside(path)
    assert (said[-1]["log_level"], said[-1]["reason"]) == ("warning", "Operation not permitted")
