"""The newest alerts that this replica put out, short, for who watches."""

from __future__ import annotations

import contextlib
import ipaddress
from collections import OrderedDict
from collections.abc import Sequence

from ftnids.alerts.outputs import Output
from ftnids.alerts.readers import Record
from ftnids.limits import STATUS_ALERTS, STATUS_TEXT

Short = dict[str, str | int | float | None]


def short(record: Record) -> Short:
    """An alert in a few fields, each a text, a number or null, however strange the record is."""
    alert, identity = record.get("alert", {}), record.get("ftnids", {})
    shortened: Short = {
        "time": _text(record.get("timestamp", "")),
        "id": _text(identity.get("id", "")),
        "status": _text(identity.get("status", "")),
        "until": _text(identity.get("until", "")),
        "sid": _text(":".join(str(alert.get(key, "?")) for key in ("gid", "signature_id", "rev"))),
        "signature": _text(alert.get("signature", "")),
        "severity": _number(alert.get("severity")),
        "proto": _text(record.get("proto", "")),
        "from": _end(record.get("src_ip"), record.get("src_port")),
        "to": _end(record.get("dest_ip"), record.get("dest_port")),
        "seq": _number(identity.get("seq")),
        "replicas": _text(",".join(map(str, identity.get("replicas", [])))),
        "silent": _text(",".join(map(str, identity.get("silent", [])))),
    }
    return shortened


def _text(value: object) -> str:
    return str(value)[:STATUS_TEXT]


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _end(address: object, port: object) -> str:
    if address is None:
        return ""
    host = _text(address)
    with contextlib.suppress(ValueError):
        host = ipaddress.ip_address(host).compressed  # Suricata writes IPv6 addresses at full length
    if not isinstance(port, int):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Recent(Output):
    """The newest STATUS_ALERTS alerts by their ids; one that changes its status stays in its place."""

    def __init__(self) -> None:
        self._alerts: OrderedDict[str, Short] = OrderedDict()

    def write(self, records: Sequence[Record]) -> None:
        for record in records[-STATUS_ALERTS:]:
            alert = short(record)
            self._alerts[str(alert["id"])] = alert
            while len(self._alerts) > STATUS_ALERTS:
                self._alerts.popitem(last=False)

    def alerts(self) -> list[Short]:
        """Oldest first; the caller's own list."""
        return list(self._alerts.values())

    def close(self) -> None:
        """They stay."""
