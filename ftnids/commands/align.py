"""`ftnids align`: lossy captures of one link become one capture, by the merger that the replicas use.

Each file is read into a private ring as a replica would capture it, the merger decides window by window, and the
agreed packets are exported from the first ring, where those that the first file lost are stored as recovered.  Memory
is bounded by the rings; the frames are touched by the core alone.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import numpy as np

from ftnids import limits
from ftnids.core import Capture, Ring, pcap_header
from ftnids.errors import CaptureError, FeedError, RingError, UsageError
from ftnids.sync.merge import Merger, Settings
from ftnids.sync.messages import I64
from ftnids.sync.settle import Settled

SLOTS = 2 * limits.MAX_WINDOW  # packets of one file in memory
STDIN, STDOUT = Path("/dev/stdin"), Path("standard output")  # what "-" stands for
FOREVER = int(np.iinfo(np.int64).max)
WAIT_MS = 10  # a file that waits for room in its ring comes back after this long


@dataclass
class Source:
    """One file: its capture, its ring, and how far the merger has been told."""

    path: Path
    capture: Capture
    ring: Ring
    told: int = 0
    held: int = 0  # agreed packets that it holds
    shared: int = 0  # of these, those that another file holds, too
    ended: bool = False

    def fill(self, room: int) -> None:
        """Read on until `room` packets have come, the ring is full, or the file ends."""
        while not self.ended and room > 0:
            count = self.capture.run(self.ring, room, WAIT_MS)
            self.ended = count < 0
            if count <= 0:
                break
            room -= count

    def tell(self, merger: Merger, member: int) -> bool:
        """Tell the merger what was read; whether that is anything."""
        head, before = self.ring.head, self.told
        if head > before:
            merger.add(member, before, self.ring.hashes(before, head), self.ring.times(before, head))
            merger.watermark(member, int(self.ring.times(head - 1, head)[0]))
        if self.ended:
            merger.watermark(member, FOREVER, end=True)
        self.told = head
        return head > before


def _read(sources: Sequence[Source], merger: Merger, pool: Executor) -> bool:
    """Fill all windows, each file in a thread of its own; whether anything came."""
    rooms = [limits.MAX_WINDOW - merger.pending(member) for member in range(len(sources))]
    list(pool.map(Source.fill, sources, rooms))
    came = [source.tell(merger, member) for member, source in enumerate(sources)]
    return any(came)


@dataclass
class Output:
    """Where the agreed packets go."""

    pcap: IO[bytes]
    map: IO[str] | None
    agreed: int = 0
    common: int = 0  # agreed packets that more than one file holds

    def write(self, sources: Sequence[Source], settled: Settled) -> None:
        """Write what was settled, in as many parts as the first ring has room for."""
        first = 0
        while first < len(settled.hash):
            last = min(first + limits.MAX_BYTES_PACKETS, len(settled.hash))
            first = self._part(sources, settled, first, last)
        holds = settled.places >= 0
        common = holds.sum(axis=1) > 1
        self.common += int(np.count_nonzero(common))
        for member, source in enumerate(sources):
            source.held += int(np.count_nonzero(holds[:, member]))
            source.shared += int(np.count_nonzero(holds[:, member] & common))
        if self.map is not None:
            row = "\t".join(["%d"] * len(sources)) + "\n"
            self.map.write("".join(row % tuple(places) for places in settled.places.tolist()))

    def _part(self, sources: Sequence[Source], settled: Settled, first: int, last: int) -> int:
        ring = sources[0].ring
        refs = _refs(sources, settled.places[first:last])
        full = np.flatnonzero(refs < 0)
        if len(full):
            last = first + int(full[0])
            if last == first:
                raise RingError(f"ring {ring.name}: takes no packet at all")
            refs = refs[: full[0]]
        ring.publish_agreed(self.agreed, refs, settled.time_us[first:last], settled.flags[first:last])
        self.agreed += last - first
        ring.set_stable(self.agreed)
        seq, fd = self.agreed - (last - first), self.pcap.fileno()
        while (seq := ring.export_pcap(fd, seq, self.agreed)) < self.agreed:
            select.select([], [fd], [])  # a pipe that somebody made non-blocking is full
        ring.fed = self.agreed
        ring.free_recovered(ring.recovered_head)
        return last


def _refs(sources: Sequence[Source], places: I64) -> I64:
    """Slot references in the first ring; packets that it lacks are stored there, negative where there is no room."""
    refs = places[:, 0].copy()
    for source, column in zip(sources[1:], places.T[1:], strict=True):
        missing = np.flatnonzero((refs == -1) & (column >= 0))
        if len(missing):
            refs[missing] = sources[0].ring.store_recovered(source.ring.gather(column[missing]))
    return refs


@contextmanager
def _sources(paths: Sequence[Path]) -> Iterator[list[Source]]:
    """The files, opened, checked against each other, each with a ring."""
    seed = secrets.randbits(63)  # who made the traffic cannot know the hashes
    with ExitStack() as stack:
        captures = []
        for path in paths:
            capture = Capture.file(path, snaplen=limits.MAX_SNAPLEN, bpf="")
            captures.append(stack.enter_context(closing(capture)))
        for path, capture in zip(paths, captures, strict=True):
            if capture.linktype != captures[0].linktype:
                raise CaptureError(
                    f"{path}: link type {capture.linktype}, but {paths[0]} has {captures[0].linktype}: "
                    "captures of one link have one link type"
                )
        sources = []
        for number, (path, capture) in enumerate(zip(paths, captures, strict=True)):
            ring = _ring(f"ftnids-align-{os.getpid()}-{number}", path, capture.linktype, seed)
            stack.callback(ring.close, unlink=True)
            sources.append(Source(path, capture, ring))
        yield sources


def _ring(name: str, path: Path, linktype: int, seed: int) -> Ring:
    """A ring that holds the whole file where it is small, else as much as memory gives."""
    size = min(max(path.stat().st_size, limits.MIN_ARENA_BYTES), limits.ALIGN_ARENA_BYTES)
    while True:
        try:
            return Ring.create(
                name,
                slots=SLOTS,
                arena_bytes=size,
                recovered_slots=2 * limits.MAX_BYTES_PACKETS,
                recovered_bytes=max(2 * limits.MAX_BYTES_DATA, 4 * limits.MAX_SNAPLEN),
                agreed_slots=2 * limits.MAX_BYTES_PACKETS,
                linktype=linktype,
                snaplen=limits.MAX_SNAPLEN,
                seed=seed,
                mode=0o600,
            )
        except RingError:
            size //= 2
            if size < limits.MIN_ARENA_BYTES:
                raise


def align(
    paths: Sequence[Path], output: Path, map_path: Path | None, settings: Settings, progress: Callable[[int], None]
) -> dict[str, Any]:
    """Merge the captures `paths` into `output`; returns the summary.

    `progress` is told the number of agreed packets now and then.  CaptureError for inputs and outputs that cannot be
    read or written.
    """
    started = time.perf_counter()
    with ExitStack() as stack:
        sources = stack.enter_context(_sources(paths))
        merger = Merger(range(len(sources)), 0, settings)
        pool = stack.enter_context(ThreadPoolExecutor(len(sources), "ftnids-read"))
        _read(sources, merger, pool)
        for source in sources:
            if source.told == 0:
                raise CaptureError(source.capture.warning or f"{source.path}: holds no packets; leave it out")
        pcap = stack.enter_context(_writable(output, "wb"))
        lines = stack.enter_context(_writable(map_path, "w")) if map_path else None
        out = Output(pcap, lines)
        try:
            pcap.write(pcap_header(sources[0].capture.linktype, limits.MAX_SNAPLEN))
            for settled in _decisions(sources, merger, pool):
                out.write(sources, settled)
                for member, source in enumerate(sources):
                    source.ring.free_captured(merger.consumed(member))
                progress(out.agreed)
            if lines:
                lines.flush()
        except OSError as error:
            raise FeedError(f"{output}: cannot be written: {error.strerror}") from None
        seconds = time.perf_counter() - started
        warnings = [source.capture.warning for source in sources if source.capture.warning]
        return {
            "replicas": [
                {"name": str(source.path), "captured": source.told, "recovered": out.agreed - source.held}
                for source in sources
            ],
            "agreed": out.agreed,
            "common": out.common,
            "alone": [str(source.path) for source in sources if source.shared == 0],
            "ambiguous": merger.ambiguous,
            "late": merger.late,
            "rounds": merger.rounds,
            "dirty_rounds": merger.dirty_rounds,
            "max_desync": merger.max_desync,
            "seconds": round(seconds, 3),
            "packets_per_second": round(out.agreed / seconds),
            "warnings": warnings,
        }


def _decisions(sources: Sequence[Source], merger: Merger, pool: Executor) -> Iterator[Settled]:
    """What the merger settles, from windows as full as can be; the first has been read."""
    came = True
    while True:
        settled = merger.decide()
        if settled is not None:
            yield settled
        elif not any(merger.pending(member) for member in range(len(sources))):
            return
        elif not came:
            raise CaptureError(f"{sources[0].path}: no packet can be settled any more; is it one link's traffic?")
        came = _read(sources, merger, pool)


def _writable(path: Path, mode: str) -> IO[Any]:
    """Open for writing; what is made is for its owner alone, packets being in it."""
    if path is STDOUT:
        return os.fdopen(os.dup(sys.__stdout__.fileno() if sys.__stdout__ else 1), mode, 0)
    try:
        buffering = 0 if "b" in mode else -1  # the core writes to the same descriptor
        return open(path, mode, buffering, opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise FeedError(f"{path}: cannot be written: {error.strerror}") from None


@click.command("align")
@click.argument("captures", nargs=-1, type=click.Path(path_type=Path), metavar="A.pcap B.pcap [C.pcap ...]")
@click.option(
    "-w",
    "output",
    required=True,
    type=click.Path(path_type=Path),
    help='The agreed capture (pcap, us); "-": to stdout.',
)
@click.option(
    "--map", "map_path", type=click.Path(path_type=Path), help="For each packet its place in each copy, or -1."
)
@click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object.")
@click.option("-k", default=56, show_default=True, help="Packets in a cluster.")
@click.option("-l", "length", default=8, show_default=True, help="Contiguous common packets that make an anchor.")
@click.option("--aligner", default="default", show_default=True, help='"default", or "difflib", the slow reference.')
def command(
    captures: tuple[Path, ...], output: Path, map_path: Path | None, as_json: bool, k: int, length: int, aligner: str
) -> int:
    """Merge lossy captures of one link into one: every packet that any of them holds, once, in order.

    One capture may be "-", standard input.  With "-w -" the summary goes to standard error.
    """
    captures = tuple(STDIN if str(path) == "-" else path for path in captures)
    output = STDOUT if str(output) == "-" else output
    _check_streams(captures, output)
    if not 2 <= len(captures) <= limits.MAX_MEMBERS:
        raise UsageError(f"{len(captures)} captures: wants 2 to {limits.MAX_MEMBERS}")
    for name, value, most in (("-k", k, limits.MAX_CLUSTER), ("-l", length, limits.MAX_ANCHOR)):
        if not 1 <= value <= most:
            raise UsageError(f"{name} {value}: wants 1 to {most}")
    for path in filter(None, (output, map_path)):
        if any(_same_file(path, capture) for capture in captures):
            raise UsageError(f"{path}: is one of the captures; write somewhere else")
    if map_path and _same_file(output, map_path):
        raise UsageError(f"--map {map_path}: is where -w writes; write somewhere else")
    settings = Settings(k=k, l=length, aligner=aligner)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the rings are removed
    with _progress() as progress:
        summary = align(captures, output, map_path, settings, progress)
    click.echo(json.dumps(summary) if as_json else _table(summary, output), err=output is STDOUT)
    for warning in summary["warnings"]:
        click.echo(f"ftnids: {warning}", err=True)
    if summary["alone"]:
        names = ", ".join(summary["alone"])
        click.echo(f"ftnids: {names}: no packet in common with another capture; are they of one link?", err=True)
    return 1 if summary["warnings"] else 0


def _check_streams(captures: Sequence[Path], output: Path) -> None:
    """UsageError for what would wait for ever, or fill a terminal with packets."""
    if captures.count(STDIN) > 1:
        raise UsageError("-: standard input can be read once; name files for the other captures")
    if output is STDOUT and sys.stdout.isatty():
        raise UsageError("-w -: standard output is a terminal; redirect it, or name a file")
    for path in captures:
        try:
            mode = path.stat().st_mode
        except OSError:  # said when it is opened
            continue
        pipe = stat.S_ISFIFO(mode) and os.path.realpath(path).startswith("/proc/")  # the shell's, not one with a name
        if stat.S_ISCHR(mode) or (stat.S_ISFIFO(mode) and not pipe):
            what = "a FIFO, on which align would wait for a writer" if stat.S_ISFIFO(mode) else "a device"
            raise UsageError(f"{path}: is {what}; name a file, or pipe one capture into - (standard input)")


def _same_file(one: Path, other: Path) -> bool:
    """Whether writing the one would write the other: by name, or through a link of either kind."""
    try:
        return one.samefile(other) and one.is_file()
    except OSError:  # one of them is not there
        return one.resolve() == other.resolve()


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A bar on stderr when that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda agreed: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("aligning"), BarColumn(), TextColumn("{task.completed} packets"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda agreed: bar.update(task, completed=agreed)


def _table(summary: dict[str, Any], output: Path) -> str:
    """The summary for people."""
    replicas = summary["replicas"]
    wide = max(len(replica["name"]) for replica in replicas)
    lines = [
        f"{replica['name']:{wide}}  captured {replica['captured']:>9}  recovered {replica['recovered']:>8}"
        f"  ({100 * replica['recovered'] / max(summary['agreed'], 1):.2f} % lost)"
        for replica in replicas
    ]
    lines.append(
        f"{output}: {summary['agreed']} packets agreed, {summary['ambiguous']} ambiguous, {summary['late']} late"
    )
    lines.append(
        f"{summary['dirty_rounds']} of {summary['rounds']} rounds dirty, desync at most {summary['max_desync']}; "
        f"{summary['seconds']:.2f} s, {summary['packets_per_second']} packets/s"
    )
    return "\n".join(lines)
