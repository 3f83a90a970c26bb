"""IDS logs in, one stream of alerts out."""

from ftnids.alerts.compare import Comparison, compare
from ftnids.alerts.dedup import Deduplicator
from ftnids.alerts.identity import Identifier
from ftnids.alerts.outputs import JsonLines, Output, split
from ftnids.alerts.readers import AlertReader, EveReader, Record, SnortJsonReader
from ftnids.alerts.spooled import Spooled

__all__ = [
    "AlertReader",
    "Comparison",
    "Deduplicator",
    "EveReader",
    "Identifier",
    "JsonLines",
    "Output",
    "Record",
    "SnortJsonReader",
    "Spooled",
    "compare",
    "split",
]
