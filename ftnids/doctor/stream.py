"""Whether a running replica's port brings the frames that its peers' ports bring.

The ring is looked at from outside: what the replica captured itself, and what it recovered from peers.  A frame that
the port brought in another form is in the agreed stream twice: captured as it came, and recovered as it came to a
peer.  So recovered frames are compared with captured ones, by the views of `ftnids.doctor.frames`.  What no view
explains was lost, or never came.

Nothing is written, and nobody waits for the doctor.  Slots are freed while they are read: what was freed before its
copy was whole is left out.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ftnids.core import RECOVERED, Ring
from ftnids.core.segment import path_of
from ftnids.doctor.finding import Finding, fail, ok, warn
from ftnids.doctor.frames import GAIN, Cause, Frame, Sample, digests, match, named, needed, reshaped, shortest
from ftnids.errors import RingError
from ftnids.limits import SAMPLE_BYTES, SAMPLE_PACKETS

LOOK_S: Final = 0.005  # between looks at the ring where nothing is stable; what is agreed comes before
BATCH: Final = 512  # packets that are copied at a time
TRIES: Final = 4  # to copy a batch of which some is freed meanwhile
LEAST: Final = 8  # a cause that explains no more frames may be chance
WHY: Final = "frames that a port does not bring as the others' ports do are recovered one by one, or come out twice"
PORTS: Final = "compare the ports: both directions, the same VLANs, the filter (capture.bpf)"

I64 = NDArray[np.int64]


@dataclass
class Followed:
    """What was seen of the agreed stream."""

    linktype: int
    seconds: float = 0.0
    own: list[Frame] = field(default_factory=list)
    recovered: list[Frame] = field(default_factory=list)
    missed: int = 0  # freed before they were copied
    gone: bool = False  # the ring was taken away, by a replica that ended or rejoined

    @property
    def seen(self) -> int:
        """Frames that were copied."""
        return len(self.own) + len(self.recovered)


def follow(ring: Ring, seconds: float) -> Followed:
    """Copy what is agreed from now on, for so long or up to SAMPLE_PACKETS or SAMPLE_BYTES.  `ring` is only read."""
    found, room = Followed(ring.linktype), SAMPLE_BYTES
    start = time.monotonic()
    seq = -1
    while found.seen < SAMPLE_PACKETS and room > 0:
        found.seconds = time.monotonic() - start
        agreed = ring.agreed
        if found.seconds >= seconds or (ring.ended and max(seq, 0) >= agreed):
            break
        if seq < 0 and agreed:  # the first entries of a ring may be those of any seq: nothing is below `fed` then
            seq = max(ring.stable, ring.fed)
        if seq >= agreed or seq < 0:
            found.gone = _gone(ring)
            if found.gone:
                break
            ring.wait_stable(max(seq, 0), min(LOOK_S, seconds - found.seconds))
            continue
        oldest = min(ring.fed, agreed - ring.agreed_slots // 2)  # older ones may be written over now
        found.missed += max(0, oldest - seq)
        seq = max(seq, oldest)
        last = min(agreed, seq + BATCH)
        room -= _copy(ring, seq, last, found)
        seq = last
    return found


def _gone(ring: Ring) -> bool:
    """Whether the replica has removed the ring, or made another of its name."""
    try:
        return path_of(ring.name).stat().st_ino != ring.identity[1]
    except OSError:
        return True


def _copy(ring: Ring, first: int, last: int, found: Followed) -> int:
    """Copy the packets of seqs [first, last); how many bytes they have."""
    try:
        refs, times, _ = ring.agreed_entries(first, last)
    except RingError:
        found.missed += last - first
        return 0
    real = refs >= 0  # void entries have no packet
    refs, times = refs[real], times[real]
    count = len(refs)
    for _ in range(TRIES):
        there = _held(ring, refs)
        refs, times = refs[there], times[there]
        try:
            batch = ring.gather(refs)
        except RingError:  # freed between the two
            continue
        whole = _held(ring, refs)
        ends = np.cumsum(batch.caplen, dtype=np.int64)
        columns = (refs, times, batch.wirelen, ends - batch.caplen, ends)
        for ref, time_us, wirelen, begin, end in zip(*(column[whole].tolist() for column in columns), strict=True):
            (found.recovered if ref >= RECOVERED else found.own).append(
                Frame(time_us * 1000, wirelen, batch.data[begin:end])
            )
        found.missed += count - int(np.count_nonzero(whole))
        return len(batch.data)
    found.missed += count
    return 0


def _held(ring: Ring, refs: I64) -> NDArray[np.bool_]:
    """Which packets, int64[n] slot references, are not freed; what is held now was not written over before."""
    tail, recovered_tail = ring.tail, ring.recovered_tail
    return np.where(refs >= RECOVERED, (refs & ~np.int64(RECOVERED)) >= recovered_tail, refs >= tail)


# -- what it says -------------------------------------------------------------------------------------


def explain(found: Followed, name: str, peers: str) -> list[Finding]:
    """What the frames say of the ports of replica `name` and of its `peers`."""
    own, recovered = Sample(name, found.linktype, found.own), Sample(peers, found.linktype, found.recovered)
    span = f"in {found.seconds:.1f} s"
    note = f" ({found.missed:,} more were freed too soon to be looked at)" if found.missed else ""
    if not found.seen:
        what = f"no frame was agreed {span}{note}"
        return [warn("same_frames", what, WHY, "ask again while there is traffic; see ftnids status")]
    if not own.frames:
        what = f"{name} captured none of {found.seen:,} frames {span}: all came from {peers}"
        return [fail("same_frames", what, WHY, f"see that traffic reaches the port of {name}; {PORTS}")]
    if not recovered.frames:
        return [
            ok("same_frames", f"nothing of {found.seen:,} frames {span} recovered: {name} sees what {peers} sees", WHY)
        ]
    findings = list(_differences(own, recovered))
    if findings:
        return findings
    what = f"{name} captured {len(own.frames):,} frames {span} and recovered {len(recovered.frames):,}{note}"
    return [ok("same_frames", f"{what}; none of these came to it in another form: lost, or too late", WHY)]


def _differences(own: Sample, recovered: Sample) -> Iterator[Finding]:
    """Causes by which recovered frames are other forms of own ones."""
    cut, exact = shortest(own, recovered), digests(own, ())
    known = set(exact)
    places = [place for place, one in enumerate(digests(recovered, ())) if one not in known]  # the others are repeats
    changed = Sample(recovered.name, recovered.linktype, [recovered.frames[place] for place in places])
    if not changed.frames:
        return
    least = max(LEAST, GAIN * min(len(own.frames), len(changed.frames)))

    def explained(causes: list[Cause]) -> int:
        mine, theirs = digests(own, causes, cut), digests(changed, causes, cut)
        alike = sum((Counter(mine) & Counter(theirs)).values())
        if alike <= least:
            return 0
        forms = defaultdict(set)
        for one, form in zip(mine, exact, strict=True):
            forms[one].add(form)
        # A port may bring frames in two forms, as a mirror of both sides of a router does, and lose one at times.
        by_itself = sum(len(found) > 1 for found in forms.values())
        return alike - by_itself

    kept = needed(explained, least)
    if kept and explained(kept) <= least:
        kept = []
    ours, theirs = digests(own, kept, cut), digests(changed, kept, cut)
    found = match(own, changed, (ours, theirs))
    everything = set(ours)
    count = sum(one in everything for one in theirs) if kept else 0
    rest = len(recovered.frames) - count
    numbers = f"{count:,} of {len(recovered.frames):,} frames that {own.name} recovered"
    for cause in kept:
        tail = f"; the other {rest:,} are loss" if rest else ""
        yield fail("same_frames", f"{named(cause, own, changed, found)}: {numbers}{tail}", WHY, cause.do)
    for what, count, do in reshaped(own, changed, found, LEAST):
        yield fail("same_frames", f"{what}: {count:,} frames", WHY, do)


def examine(ring_name: str, name: str, peers: str, seconds: float) -> list[Finding]:
    """Follow the ring of the running replica `name` for so long, and say what it shows.  A ring that cannot be read
    is one finding.
    """
    try:
        ring = Ring.attach(ring_name)
    except (RingError, OSError) as error:
        return [warn("same_frames", str(error), WHY, "ask as root, or as the replica's user, on its host")]
    with closing(ring):
        found = follow(ring, seconds)
    if found.gone and found.seen < LEAST:
        what = f"ring {ring_name} was taken away {found.seconds:.1f} s after it was opened"
        return [warn("same_frames", what, WHY, f"see why {name} ended or joined anew, and ask again")]
    return explain(found, name, peers)
