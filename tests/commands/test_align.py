"""`ftnids align`, as an operator runs it; bad input included."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import numpy as np
import pytest
from click.testing import CliRunner, Result

from ftnids.cli import cli
from ftnids.commands import align
from ftnids.errors import FtnidsError

Record = tuple[int, bytes]  # time in us, frame
START = 1_700_000_000_000_000
ROOT: Final = Path(__file__).resolve().parents[2]


def write_pcap(path: Path, records: list[Record], *, linktype: int = 1, cut: int = 0) -> Path:
    """A classic microsecond capture; `cut` bytes are missing at its end."""
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype)]
    for time, frame in records:
        parts += [struct.pack("<IIII", time // 1_000_000, time % 1_000_000, len(frame), len(frame)), frame]
    data = b"".join(parts)
    path.write_bytes(data[: len(data) - cut])
    return path


def read_pcap(path: Path) -> list[Record]:
    data, at, records = path.read_bytes(), 24, []
    while at < len(data):
        seconds, micros, length, _ = struct.unpack_from("<IIII", data, at)
        records.append((seconds * 1_000_000 + micros, data[at + 16 : at + 16 + length]))
        at += 16 + length
    return records


def line(count: int) -> list[Record]:
    """Packets 100 us apart, all different, as they went over the link."""
    return [(START + 100 * i, struct.pack(">I", i) * (15 + i % 80)) for i in range(count)]


def lossy(records: list[Record], seed: int, *, loss: float = 0.1, offset_us: int = 0) -> list[Record]:
    rng = np.random.default_rng(seed)
    kept = [record for record in records if rng.random() >= loss]
    return [(time + offset_us + int(rng.integers(0, 20)), frame) for time, frame in kept]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["align", *map(str, arguments)], standalone_mode=False)


def summary(*arguments: object) -> dict[str, object]:
    result = run(*arguments, "--json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def refusal(*arguments: object) -> str:
    """The one line that the operator sees."""
    error = run(*arguments).exception
    assert isinstance(error, FtnidsError), error
    assert "\n" not in str(error)
    assert error.exit_status != 0
    return str(error)


@pytest.mark.parametrize("impl", ["c", "python"])
@pytest.mark.parametrize("aligner", ["default", "difflib"])
def test_two_copies_become_what_both_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impl: str, aligner: str
) -> None:
    monkeypatch.setenv("FTNIDS_IMPL", impl)
    truth = line(600)
    copies = [lossy(truth, 1), lossy(truth, 2, offset_us=7_000_000)]
    paths = [write_pcap(tmp_path / f"{i}.pcap", copy) for i, copy in enumerate(copies)]
    out, map_path = tmp_path / "agreed.pcap", tmp_path / "map"
    figures = summary(*paths, "-w", out, "--map", map_path, "--aligner", aligner)
    caught = [{frame for _, frame in copy} for copy in copies]
    union = [frame for _, frame in truth if frame in caught[0] | caught[1]]
    agreed = read_pcap(out)
    assert [frame for _, frame in agreed] == union
    assert all(a <= b for (a, _), (b, _) in pairwise(agreed))
    assert figures["agreed"] == len(union)
    assert figures["replicas"] == [
        {"name": str(path), "captured": len(copy), "recovered": len(union) - len(copy)}
        for path, copy in zip(paths, copies, strict=True)
    ]
    assert {"ambiguous", "late", "rounds", "dirty_rounds", "max_desync", "seconds", "packets_per_second"} <= set(
        figures
    )
    rows = [list(map(int, row.split("\t"))) for row in map_path.read_text().splitlines()]
    for frame, row in zip(union, rows, strict=True):
        for copy, place in zip(copies, row, strict=True):
            assert (place >= 0) == (frame in {f for _, f in copy})
            assert place < 0 or copy[place][1] == frame


def test_many_copies_with_large_frames(tmp_path: Path) -> None:
    truth = [(START + 100 * i, struct.pack(">I", i) * 15_000) for i in range(300)]
    paths = [write_pcap(tmp_path / f"{i}.pcap", lossy(truth, i, loss=0.5)) for i in range(4)]
    summary(*paths, "-w", tmp_path / "agreed.pcap")
    union = {frame for path in paths for _, frame in read_pcap(path)}
    agreed = read_pcap(tmp_path / "agreed.pcap")
    assert len(agreed) == len(union)
    assert {frame for _, frame in agreed} == union


def test_copies_longer_than_a_window(tmp_path: Path) -> None:
    truth = [(START + 10 * i, struct.pack(">IQQ", i, i, i) * 3) for i in range(150_000)]
    paths = [write_pcap(tmp_path / f"{i}.pcap", lossy(truth, i, loss=0.001)) for i in range(2)]
    figures = summary(*paths, "-w", tmp_path / "agreed.pcap")
    union = {frame for path in paths for _, frame in read_pcap(path)}
    assert figures["agreed"] == len(union)
    assert [f for _, f in read_pcap(tmp_path / "agreed.pcap")] == [f for _, f in truth if f in union]


def test_a_copy_that_starts_later_and_ends_earlier(tmp_path: Path) -> None:
    truth = line(500)
    first = write_pcap(tmp_path / "a.pcap", truth)
    second = write_pcap(tmp_path / "b.pcap", lossy(truth[200:300], 1, offset_us=-3_000_000))
    assert summary(first, second, "-w", tmp_path / "agreed.pcap")["agreed"] == 500


def test_people_get_a_table(tmp_path: Path) -> None:
    paths = [write_pcap(tmp_path / f"{i}.pcap", lossy(line(100), i)) for i in range(2)]
    result = run(*paths, "-w", tmp_path / "agreed.pcap")
    assert result.exception is None
    assert "packets agreed" in result.stdout
    assert (tmp_path / "agreed.pcap").stat().st_mode & 0o777 == 0o600


def test_captures_with_nothing_in_common_are_merged_with_a_warning(tmp_path: Path) -> None:
    truth = line(200)
    first, second = (write_pcap(tmp_path / f"{i}.pcap", truth[i::2]) for i in range(2))
    result = run(first, second, "-w", tmp_path / "agreed.pcap", "--json")
    assert result.return_value == 0
    figures = json.loads(result.stdout)
    assert (figures["agreed"], figures["common"], figures["alone"]) == (200, 0, [str(first), str(second)])
    assert "no packet in common" in result.stderr
    assert result.stderr.count("\n") == 1


def test_one_capture_of_another_link_is_named(tmp_path: Path) -> None:
    truth = line(200)
    paths = [write_pcap(tmp_path / f"{i}.pcap", truth[:100]) for i in range(2)]
    other = write_pcap(tmp_path / "other.pcap", truth[100:])
    result = run(*paths, other, "-w", tmp_path / "agreed.pcap")
    assert result.stderr.startswith(f"ftnids: {other}: no packet in common")
    assert run(*paths, "-w", tmp_path / "agreed.pcap").stderr == ""


def test_a_truncated_capture_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    first = write_pcap(tmp_path / "a.pcap", line(50), cut=7)
    second = write_pcap(tmp_path / "b.pcap", line(40))
    result = run(first, second, "-w", tmp_path / "agreed.pcap", "--json")
    assert result.return_value == 1
    figures = json.loads(result.stdout)
    assert figures["agreed"] == 49
    assert figures["warnings"] == [result.stderr.removeprefix("ftnids: ").strip()]
    assert result.stderr.startswith("ftnids: ")
    assert "a.pcap" in result.stderr
    assert "truncated" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_damaged_capture_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    first = write_pcap(tmp_path / "a.pcap", line(50))
    with first.open("ab") as file:
        file.write(b"\xff" * 80)
    second = write_pcap(tmp_path / "b.pcap", line(40))
    result = run(first, second, "-w", tmp_path / "agreed.pcap", "--json")
    assert result.return_value == 1
    assert json.loads(result.stdout)["agreed"] == 50
    assert result.stderr.startswith(f"ftnids: {first}: damaged at packet 50 (")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write_pcap(tmp_path / "a.pcap", line(20)), write_pcap(tmp_path / "b.pcap", line(20))


@pytest.mark.parametrize(
    "content", [b"", b"no capture at all, " * 5, struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 9, 1)]
)
def test_what_is_no_capture_is_named(tmp_path: Path, pair: tuple[Path, Path], content: bytes) -> None:
    bad = tmp_path / "bad.pcap"
    bad.write_bytes(content)
    assert str(bad) in refusal(pair[0], bad, "-w", tmp_path / "agreed.pcap")
    assert not (tmp_path / "agreed.pcap").exists()


def test_a_capture_that_is_not_there(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert "gone.pcap" in refusal(pair[0], tmp_path / "gone.pcap", "-w", tmp_path / "agreed.pcap")


def test_link_types_that_differ(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = write_pcap(tmp_path / "raw.pcap", line(5), linktype=101)
    line_ = refusal(pair[0], other, "-w", tmp_path / "agreed.pcap")
    assert "raw.pcap: link type 101" in line_
    assert "has 1" in line_


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-k", "0"], "-k 0: wants 1 to"),
        (["-l", "0"], "-l 0: wants 1 to"),
        (["-k", "1000000"], "-k 1000000"),
        (["--aligner", "best"], "default and difflib"),
    ],
)
def test_options_out_of_range(tmp_path: Path, pair: tuple[Path, Path], options: list[str], words: str) -> None:
    assert words in refusal(*pair, "-w", tmp_path / "agreed.pcap", *options)


def test_one_capture_is_not_enough(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert "1 captures: wants 2 to" in refusal(pair[0], "-w", tmp_path / "agreed.pcap")


@pytest.mark.parametrize("where", ["missing/agreed.pcap", "."])
def test_an_output_that_cannot_be_written(tmp_path: Path, pair: tuple[Path, Path], where: str) -> None:
    assert "cannot be written" in refusal(*pair, "-w", tmp_path / where)


def test_an_output_that_is_full(pair: tuple[Path, Path]) -> None:
    assert "/dev/full: cannot be written" in refusal(*pair, "-w", "/dev/full")


def test_a_capture_is_not_overwritten(pair: tuple[Path, Path]) -> None:
    assert "one of the captures" in refusal(*pair, "-w", pair[0])


@pytest.mark.parametrize("link", ["hardlink_to", "symlink_to"])
def test_a_capture_is_not_overwritten_through_a_link(tmp_path: Path, pair: tuple[Path, Path], link: str) -> None:
    getattr(tmp_path / "other.pcap", link)(pair[1])
    assert "one of the captures" in refusal(*pair, "-w", tmp_path / "other.pcap")


def test_the_map_does_not_overwrite_the_output(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    assert "is where -w writes" in refusal(*pair, "-w", tmp_path / "agreed", "--map", tmp_path / "agreed")
    assert not (tmp_path / "agreed").exists()


def test_a_fifo_without_a_writer_does_not_hang(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "is a FIFO, on which align would wait" in refusal(pair[0], tmp_path / "fifo", "-w", tmp_path / "agreed.pcap")
    assert "is a device" in refusal(pair[0], "/dev/zero", "-w", tmp_path / "agreed.pcap")


def shell(line_: str, *arguments: Path) -> subprocess.CompletedProcess[bytes]:
    """A line of shell in which `align` is the command and $1, $2 ... are files."""
    whole = f'align() {{ "{sys.executable}" -m ftnids align "$@"; }}; {line_}'
    return subprocess.run(["bash", "-c", whole, "bash", *arguments], cwd=ROOT, capture_output=True, check=False)


def test_the_agreed_capture_to_standard_output(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    """As tcpdump does it: packets on standard output, words on standard error."""
    done = shell('align "$1" "$2" -w - --json', *pair)
    assert done.returncode == 0, done.stderr
    (tmp_path / "agreed.pcap").write_bytes(done.stdout)
    assert [frame for _, frame in read_pcap(tmp_path / "agreed.pcap")] == [frame for _, frame in line(20)]
    assert json.loads(done.stderr)["agreed"] == 20
    assert not (ROOT / "-").exists()


def test_a_capture_from_standard_input(pair: tuple[Path, Path]) -> None:
    for read in ('cat "$2" | align "$1" -', 'align "$1" - < "$2"', 'align "$1" <(cat "$2")'):
        done = shell(f"{read} -w - | tail -c +25", *pair)
        assert done.returncode == 0
        assert done.stdout == pair[0].read_bytes()[24:], (read, done.stderr)
    assert "can be read once" in refusal("-", "-", "-w", "x")


def test_a_reader_that_goes_away_is_one_line(tmp_path: Path) -> None:
    large = [write_pcap(tmp_path / f"{i}.pcap", line(20_000)) for i in range(2)]
    done = shell('set -o pipefail; align "$1" "$2" -w - | head -c 100', *large)
    assert done.returncode == 1
    assert done.stderr == b"ftnids: standard output: cannot be written: Broken pipe\n"


def test_standard_output_that_does_not_block(tmp_path: Path) -> None:
    """A full pipe loses nothing, whoever made it non-blocking."""
    large = [write_pcap(tmp_path / f"{i}.pcap", line(20_000)) for i in range(2)]
    command = [sys.executable, "-m", "ftnids", "align", *map(str, large), "-w", "-"]
    read, write = os.pipe()
    os.set_blocking(write, False)
    with subprocess.Popen(command, cwd=ROOT, stdout=write, stderr=subprocess.DEVNULL) as process:
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read()[24:] == large[0].read_bytes()[24:]
        assert process.wait() == 0


def test_packets_do_not_go_to_a_terminal(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "sys", SimpleNamespace(stdout=SimpleNamespace(isatty=lambda: True)))
    assert "-w -: standard output is a terminal" in refusal(*pair, "-w", "-")
