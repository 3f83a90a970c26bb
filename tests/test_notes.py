"""Notes of the protocol are told with members' names."""

from __future__ import annotations

from ftnids import notes

NAMES = ["a", "b", "c"]


def test_members_have_names() -> None:
    facts = {"member": 1, "members": [0, 2], "asked": 2, "reason": "member 1 is in view 2", "seq": 1}
    assert notes.named(facts, NAMES) == {
        "member": "b",
        "members": ["a", "c"],
        "asked": "c",
        "reason": "member b is in view 2",
        "seq": 1,
    }


def test_what_names_no_member_stays() -> None:
    assert notes.text("member 7 says that members 0 and 1 differ", NAMES) == "member 7 says that members 0 and 1 differ"
