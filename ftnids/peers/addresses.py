"""Peer addresses: `tcp://host:port`, where host is a name, an IPv4 address or an IPv6 address in brackets."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from ftnids.errors import PeerError

_FORM = re.compile(r"tcp://(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%\w+)?)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address.  `host` has no brackets."""

    host: str
    port: int

    @property
    def numeric(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address; None when it is a name."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    @property
    def loopback(self) -> bool:
        """Whether nothing from another host can come here.  Names other than `localhost` count as no."""
        return self.host == "localhost" if self.numeric is None else self.numeric.is_loopback

    @property
    def wildcard(self) -> bool:
        """Whether this is every address of the host (0.0.0.0 or ::)."""
        return self.numeric is not None and self.numeric.is_unspecified

    @property
    def endpoint(self) -> str:
        """The address as ZeroMQ writes it."""
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    def resolved(self) -> Address:
        """This address with a number for its name (a listener needs one).  PeerError if the name is unknown."""
        if self.numeric is not None:
            return self
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise PeerError(f"{self.endpoint}: {error.strerror}: correct the address in cluster.member") from None
        return Address(str(found[0][4][0]), self.port)


def parse(text: str) -> Address:
    """The address in `text`.  PeerError, in one line, if it is none."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise PeerError(f"{text!r} is no address: write tcp://HOST:PORT, an IPv6 host in brackets")
    address = Address(match["v6"] or match["host"], int(match["port"]))
    if not 0 < address.port < 65536:
        raise PeerError(f"{text!r}: port {address.port} is not in 1 to 65535")
    if match["v6"] and address.numeric is None:
        raise PeerError(f"{text!r}: {match['v6']} is no IPv6 address")
    if re.fullmatch(r"[0-9.]+", address.host) and address.numeric is None:
        raise PeerError(f"{text!r}: {address.host} is no IPv4 address")
    return address
