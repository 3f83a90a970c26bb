"""What the two ends of a transfer ask of their surroundings, which carry it out in order (`ftnids.joining`)."""

from __future__ import annotations

from dataclasses import dataclass

from ftnids.limits import MAX_TEXT
from ftnids.sync.actions import Note, Send
from ftnids.sync.messages import Offer


def clipped(reason: str) -> str:
    """`reason`, no longer than a message may have it: of many libraries that differ, the first ones."""
    return reason.encode(errors="replace")[:MAX_TEXT].decode(errors="ignore")


# -- the joiner's --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """Look whether the image that is offered can be used here, then call `Joiner.checked`."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class Write:
    """Take a piece of an image, the next one, then call `Joiner.wrote`."""

    transfer: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Restore:
    """All pieces are here: let the IDS go on from the image, then call `Joiner.restored`."""

    transfer: int


@dataclass(frozen=True, slots=True)
class Forget:
    """What has come of an image is not wanted: leave nothing of it."""

    transfer: int


@dataclass(frozen=True, slots=True)
class Cold:
    """There will be no image: let the IDS begin cold; `reason` is one line, "" where there is nothing to tell."""

    reason: str


# -- the donor's ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepare:
    """Take an image at `seq` or later for one whose IDS is as `facts` say, then call `Donor.prepared`."""

    transfer: int
    seq: int
    facts: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """Read pieces [first, last) of the image, then call `Donor.read`."""

    transfer: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Drop:
    """The image is not needed any more."""

    transfer: int


Action = Send | Note | Check | Write | Restore | Forget | Cold | Prepare | Read | Drop
