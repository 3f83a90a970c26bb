"""Capture files in pure Python: pcap with micro- and nanoseconds, pcapng.

pcapy-ng reads both but gives whole microseconds only; capture times are in nanoseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from ftnids import limits
from ftnids.errors import CaptureError

NO_CAPTURE: Final = "is no capture file that can be read (pcap or pcapng)"
LARGEST_BLOCK: Final = 16 << 20
SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, PACKET = 0x0A0D0D0A, 1, 2, 3, 6
IF_TSRESOL, IF_TSOFFSET = 9, 14
Packet = tuple[int, int, bytes]  # stamp in ns, wire length, bytes


class TruncatedError(Exception):
    """The file ends inside a record."""


@dataclass(frozen=True)
class CaptureFile:
    """An open capture file; iterating over `packets` raises TruncatedError where the file ends inside a record."""

    file: BinaryIO
    linktype: int
    packets: Iterator[Packet]


def open_file(path: str) -> CaptureFile:
    """Open a capture file of any kind.  CaptureError when it is none."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115  (closed by who uses it)
    except IsADirectoryError:
        raise CaptureError("is a directory, not a capture file") from None
    except OSError as error:
        raise CaptureError(f"cannot be opened: {error.strerror}") from None
    try:
        magic = file.read(4)
        if not magic:
            raise CaptureError("is empty, not a capture file")
        return CaptureFile(file, *_read_header(file, magic))
    except TruncatedError:
        file.close()
        raise CaptureError(f"{NO_CAPTURE}: truncated file header") from None
    except CaptureError:
        file.close()
        raise
    except OSError as error:
        file.close()
        raise CaptureError(f"cannot be read: {error.strerror}") from None


def _read_header(file: BinaryIO, magic: bytes) -> tuple[int, Iterator[Packet]]:
    for order in "<>":
        for number, tick in ((0xA1B2C3D4, 1000), (0xA1B23C4D, 1)):
            if magic == struct.pack(order + "I", number):
                return _open_pcap(file, order, tick)
    if magic == struct.pack("<I", SECTION):
        try:
            return _open_pcapng(file)
        except CaptureError as error:
            raise CaptureError(f"{NO_CAPTURE}: {error}") from None
    raise CaptureError(f"{NO_CAPTURE}: unknown file format")


def _read(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise TruncatedError
    return data


# -- pcap ------------------------------------------------------------------------------------------
def _open_pcap(file: BinaryIO, order: str, tick: int) -> tuple[int, Iterator[Packet]]:
    snaplen, linktype = struct.unpack(order + "12xII", _read(file, 20))
    return linktype & 0x03FFFFFF, _pcap_packets(file, order, tick, snaplen or limits.MAX_SNAPLEN)


def _pcap_packets(file: BinaryIO, order: str, tick: int, snaplen: int) -> Iterator[Packet]:
    record = struct.Struct(order + "IIII")
    while head := file.read(16):
        if len(head) < 16:
            raise TruncatedError
        seconds, fraction, caplen, wirelen = record.unpack(head)
        if caplen > limits.MAX_SNAPLEN:
            raise CaptureError(f"invalid packet capture length {caplen}")
        frame = _read(file, caplen)[:snaplen]
        yield seconds * 10**9 + fraction * tick % 10**9, wirelen, frame


# -- pcapng ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Interface:
    """What an interface description block says."""

    linktype: int
    snaplen: int
    units: int  # per second
    offset_s: int

    def stamp_ns(self, high: int, low: int) -> int:
        """A block's time stamp in ns."""
        seconds, fraction = divmod(high << 32 | low, self.units)
        return (seconds + self.offset_s) * 10**9 + fraction * 10**9 // self.units


class _Section:
    """The reader's state: byte order, and the interfaces of the running section."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.begun = struct.pack(
            "<I", SECTION
        )  # was read to tell what file it is, and cannot be read again from a pipe
        self.order = "<"
        self.interfaces: list[Interface] = []
        self.linktype: int | None = None

    def unpack(self, fields: str, data: bytes, offset: int = 0) -> tuple[int, ...]:
        """Fields in the section's byte order.  CaptureError where the block is too short for them."""
        try:
            return struct.unpack_from(self.order + fields, data, offset)
        except struct.error:
            raise CaptureError("a pcapng block is shorter than its fields") from None

    def block(self) -> tuple[int, bytes] | None:
        """(type, body) of the next block, None at the end of the file."""
        head = self.begun + self.file.read(8 - len(self.begun))
        self.begun = b""
        if not head:
            return None
        if len(head) < 8:
            raise TruncatedError
        body = b""
        if head[:4] == struct.pack("<I", SECTION):
            body = _read(self.file, 4)
            self.order = "<" if body == b"\x4d\x3c\x2b\x1a" else ">"
            self.interfaces = []
        kind, length = struct.unpack(self.order + "II", head)
        if not 12 + len(body) <= length <= LARGEST_BLOCK or length % 4:
            raise CaptureError(f"invalid pcapng block of {length} bytes")
        body += _read(self.file, length - 12 - len(body))
        if self.unpack("I", _read(self.file, 4))[0] != length:
            raise CaptureError("a pcapng block's two lengths differ")
        return kind, body

    def add_interface(self, body: bytes) -> None:
        """Note an interface description block.  CaptureError when its link type is not the first one's."""
        linktype, snaplen = self.unpack("HxxI", body)
        if len(self.interfaces) >= limits.MAX_INTERFACES:
            raise CaptureError(f"more than {limits.MAX_INTERFACES} interfaces")
        if self.linktype is None:
            self.linktype = linktype
        if linktype != self.linktype:
            raise CaptureError(
                f"an interface has a type {linktype} different from the type of the first interface ({self.linktype})"
            )
        options = dict(self._options(body[8:]))
        units = self._units(options.get(IF_TSRESOL, b"\x06"))
        offset = self.unpack("q", options[IF_TSOFFSET])[0] if IF_TSOFFSET in options else 0
        self.interfaces.append(Interface(linktype, snaplen or limits.MAX_SNAPLEN, units, offset))

    def _units(self, resolution: bytes) -> int:
        """Units of a time stamp per second, as the option says.  CaptureError where it makes no sense."""
        binary, power = (resolution[0] >= 0x80, resolution[0] & 0x7F) if len(resolution) == 1 else (False, 255)
        if power > (63 if binary else 19):
            raise CaptureError(f"invalid time stamp resolution {resolution[:8].hex()}")
        return 1 << power if binary else 10**power

    def _options(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        at = 0
        while at + 4 <= len(data):
            code, length = self.unpack("HH", data, at)
            if code == 0:
                return
            yield code, data[at + 4 : at + 4 + length]
            at += 4 + -(-length // 4) * 4

    def packet(self, kind: int, body: bytes) -> Packet:
        """The packet in an enhanced, simple or old packet block."""
        if kind == SIMPLE_PACKET:
            (wirelen,) = self.unpack("I", body)
            caplen = min(wirelen, self._interface(0).snaplen)
            return 0, wirelen, self._frame(body[4:], caplen)
        which, high, low, caplen, wirelen = self.unpack("IIIII" if kind == PACKET else "HxxIIII", body)
        return self._interface(which).stamp_ns(high, low), wirelen, self._frame(body[20:], caplen)

    def _interface(self, which: int) -> Interface:
        if which >= len(self.interfaces):
            raise CaptureError(f"a packet names interface {which}, which is not described")
        return self.interfaces[which]

    def _frame(self, data: bytes, caplen: int) -> bytes:
        if caplen > len(data) or caplen > limits.MAX_SNAPLEN:
            raise CaptureError(f"invalid packet capture length {caplen}")
        return data[:caplen]


def _open_pcapng(file: BinaryIO) -> tuple[int, Iterator[Packet]]:
    section = _Section(file)
    while section.linktype is None:
        block = section.block()
        if block is None or block[0] in (OLD_PACKET, SIMPLE_PACKET, PACKET):
            raise CaptureError("no interface is described")
        if block[0] == INTERFACE:
            section.add_interface(block[1])
    return section.linktype, _pcapng_packets(section)


def _pcapng_packets(section: _Section) -> Iterator[Packet]:
    while block := section.block():
        kind, body = block
        if kind == INTERFACE:
            section.add_interface(body)
        elif kind in (OLD_PACKET, SIMPLE_PACKET, PACKET):
            yield section.packet(kind, body)
