"""An IDS that says the same of the same packets each time, without which the lab could not compare.

Suricata's flow manager is a thread of its own.  It gives up idle flows by packet time, but at moments that its
scheduling decides; a packet that comes then belongs to the old flow in one run and to a new one in the
next, and a few alerts in ten thousand differ between two runs over one file.  In the lab no flow is
ever idle for too long, in the replicas' IDSs and in the reference alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from ftnids.lab.writing import writing
from snort_adapter.launchers import Suricata

PROTOCOLS: Final = ("default", "tcp", "udp", "icmp")
STATES: Final = ("new", "established", "closed", "bypassed")
FOREVER_S: Final = 86_400  # longer than the traffic of any lab


def ids_config(ids: str, directory: Path) -> str:
    """The configuration file for IDS `ids` in the lab, written into `directory`; "" for the shipped one."""
    if ids != "suricata":
        return ""
    shipped = Suricata.shipped_config
    files = {"classification-file": "classification.config", "reference-config-file": "reference.config"}
    path = directory / "suricata.yaml"
    lines = ["%YAML 1.1", "---", f"include: {json.dumps(str(shipped))}"]
    lines += [f"{key}: {json.dumps(str(shipped.with_name(name)))}" for key, name in files.items()]
    lines.append("flow-timeouts:")
    for protocol in PROTOCOLS:
        lines.append(f"  {protocol}:")
        lines += [f"    {prefix}{state}: {FOREVER_S}" for state in STATES for prefix in ("", "emergency-")]
    with writing(path):
        path.write_text("\n".join(lines) + "\n")
    return str(path)
