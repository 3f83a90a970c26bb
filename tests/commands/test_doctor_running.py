"""`ftnids doctor -c` beside replicas that run: what their ports bring, and their clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doctor import hub

LOSS = 0.05
AHEAD_US = 500_000


def tagged(frame: bytes) -> bytes:
    return frame[:12] + b"\x81\x00\x00\x2a" + frame[12:]


@pytest.mark.usefixtures("needs_root")
def test_a_set_is_well_until_one_port_brings_tags(tmp_path: Path) -> None:
    """Loss is no fault, a clock that is off is told; then r1's port begins to bring VLAN tags."""

    def adjust(name: str, tables: dict[str, Any]) -> None:
        tables["capture"]["clock_offset_us"] = AHEAD_US if name == "r1" else 0

    changes: dict[str, hub.Change] = {}
    with hub.running(tmp_path, adjust, LOSS) as stage, hub.sending(stage, hub.frames(tmp_path / "x.pcap"), changes):
        stage.agree(1, "r0")
        status, well = hub.doctor(stage, "r0")
        changes["r1"] = tagged
        tagged_status, ill = hub.doctor(stage, "r0")
    assert status == 0, [one for found in well.values() for one in found if one["level"] == "fail"]
    assert [one["level"] for name in ("port", "set", "recovered", "same_frames") for one in well[name]] == ["ok"] * 4
    assert "is taken by this replica, which runs (pid " in well["port"][0]["what"]
    assert "none of these came to it in another form" in well["same_frames"][0]["what"]
    (clock,) = well["clock_offset"]
    assert clock["level"] == "warn"
    assert "the capture clock of r1 is 0.50" in clock["what"]
    assert "ahead of that of r0" in clock["what"]
    assert tagged_status == 1
    (same,) = ill["same_frames"]
    assert same["level"] == "fail"
    assert "the frames of r1 have VLAN tags that those of r0 lack" in same["what"]
    assert {one["level"] for one in ill["recovered"]} == {"warn"}
