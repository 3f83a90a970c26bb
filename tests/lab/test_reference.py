"""The alerts of the reference IDS have the ids that the set's have."""

from __future__ import annotations

import json
from pathlib import Path

from ftnids.lab import reference
from snort_adapter.launchers import launcher
from tests.alerts.records import alert


def test_a_seq_without_a_packet_shifts_no_id(tmp_path: Path) -> None:
    """A branch of a fork may have decided a packet whose bytes it never got: its file then lacks that one."""
    ids = launcher("suricata")
    (tmp_path / ids.alert_file).write_text("".join(json.dumps(alert(1, packet=n)) + "\n" for n in (1, 2, 3)))
    assert [record["ftnids"]["seq"] for record in reference.read(ids, tmp_path)] == [0, 1, 2]
    assert [record["ftnids"]["seq"] for record in reference.read(ids, tmp_path, [1])] == [0, 2, 3]
