"""What earlier runs wrote: put aside under a time stamp, and of many some are removed.

A stream of fewer than SMALL_ARCHIVE packets, as a replica leaves that rejoins again and again, goes before a
larger one, however new it is; of equals the oldest goes first.
"""

from __future__ import annotations

import re
import struct
import time
from pathlib import Path
from typing import BinaryIO

from ftnids.core import pcap_header
from ftnids.limits import ARCHIVES, SMALL_ARCHIVE
from ftnids.log import get

log = get("feed")


def put_aside(path: Path) -> None:
    """Rename what an earlier run wrote to `path`, and remove all but ARCHIVES of such files; the log says which."""
    if not path.is_file():  # nothing is there, or a device or pipe, which no run wrote
        return
    aside = path.with_name(f"{path.stem}.{time.time_ns()}{path.suffix}")
    path.rename(aside)
    log.info("what an earlier run wrote is put aside", file=str(path), to=str(aside), kept=ARCHIVES)
    archives = _archives(path)
    excess = len(archives) - ARCHIVES
    if excess <= 0:
        return
    small = [one for one in archives if _is_small(one)]
    for old in [*small, *(one for one in archives if one not in small)][:excess]:
        try:
            size = old.stat().st_size
            old.unlink()
        except OSError as error:
            log.warning("stream of an earlier run not removed", file=str(old), reason=error.strerror or str(error))
        else:
            log.warning("stream of an earlier run removed", file=str(old), bytes=size, kept=ARCHIVES)


def _archives(path: Path) -> list[Path]:
    """What has been put aside from `path`, oldest first; no file that bears another kind of name."""
    name = re.compile(rf"{re.escape(path.stem)}\.(\d{{16,}}){re.escape(path.suffix)}")
    found = [(int(match[1]), one) for one in path.parent.iterdir() if (match := name.fullmatch(one.name))]
    return [one for _, one in sorted(found)]


def _is_small(path: Path) -> bool:
    """Whether it holds fewer than SMALL_ARCHIVE packets; what cannot be read does not count as small."""
    try:
        with path.open("rb") as file:
            head = file.read(len(pcap_header(0, 0)))
            if head[:4] == pcap_header(0, 0)[:4]:
                return _pcap_is_small(file)
            file.seek(0)
            return sum(1 for _ in zip(range(SMALL_ARCHIVE), file, strict=False)) < SMALL_ARCHIVE
    except OSError:
        return False


def _pcap_is_small(file: BinaryIO) -> bool:
    for _ in range(SMALL_ARCHIVE):
        header = file.read(16)
        if len(header) < 16:
            return True
        file.seek(struct.unpack_from("<I", header, 8)[0], 1)
    return False
