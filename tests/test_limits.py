"""docs/limits.md says what is in force: its list is that of limits.py, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from ftnids import config, limits
from tests import limits_page

PACKAGE: Final = Path(limits.__file__).parent
TEXT: Final = limits_page.PAGE.read_text().split(limits_page.BEGIN)[0]
TABLES: Final = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| what |"))
]
NOT_IN_TABLES: Final = {  # no queue, window or table: sizes that settings may have, spans of time, and tools
    *(name for name in vars(limits) if name.startswith(("MIN_", "LAB_", "SIMULATE_", "CAPTURE_"))),
    *(name for name in vars(limits) if name.endswith(("_S", "_NS", "_MS", "_A_SECOND"))),
}


def words(column: int) -> set[str]:
    """What stands in backticks in one column of the tables."""
    return {word for row in TABLES for word in re.findall(r"`([^`]+)`", row[column])}


def test_the_list_is_that_of_the_constants() -> None:
    assert limits_page.PAGE.read_text() == limits_page.page(), "out of date: run `python -m tests.limits_page`"
    listed = re.findall(r"^\| `(\w+)` \|", limits_page.rows(), re.MULTILINE)
    assert listed == [name for name in vars(limits) if name.isupper()]


def test_every_row_is_whole_and_names_what_exists() -> None:
    assert all(len(row) == 5 and row[0] and row[1] for row in TABLES)
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*") if path.suffix in {".py", ".pyx", ".c"})
    settings = {
        f"{section}.{key}"
        for section, field in config.Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for key in field.annotation.model_fields
    }
    for word in words(1) | words(2) | words(4):
        known = word in vars(limits) if word.isupper() else word in settings or re.search(rf"\b{word}\b", source)
        assert known, f"{word} is no limit, setting or event"
    for word in words(3):
        assert re.search(rf"\b{word}\b", source), f"{word} is counted nowhere"


def test_every_limit_of_something_that_could_grow_is_explained() -> None:
    explained = words(1) | words(2) | words(4)
    sizes = {name for name in vars(limits) if name.isupper()} - NOT_IN_TABLES
    missing = sorted(sizes - explained - ONE_VALUE)
    assert not missing, f"docs/limits.md: no row for {missing}; or name them in ONE_VALUE, where they bound one value"


# Bounds of one value: of a setting, of a field of a message, of one step of work.  The list at the end has them.
ONE_VALUE: Final = {
    *("MAX_MEMBERS", "MAX_CPUS", "MAX_NAME", "MAX_FILTER", "MAX_DRIFT_PPM", "MAX_PPS", "MAX_CLUSTER", "MAX_ANCHOR"),
    *("REORDER_PLACES", "FULL", "MAX_FETCH", "MAX_LOG_SENT", "MAX_LOG_PACKETS", "MAX_REPORT_PACKETS"),
    *("MAX_DECISION_PACKETS", "MAX_BYTES_PACKETS", "MAX_BYTES_DATA", "MAX_DIGEST", "MAX_TEXT", "MAX_SHARED_TEXT"),
    *("MAX_STATUS_BYTES", "LARGE_MESSAGE", "PEER_EVENTS", "MAX_ALERT_BATCH", "FEED_BATCH", "IDS_LAST_WORDS"),
    *("CRIU_PIDS", "AHEAD_TOLERANCE_US", "IMAGE_CHUNK", "MAX_PID", "MAX_SEQ", "SPECULATION_TRIALS"),
}
