"""From the configuration to the protocol's settings, with what all members of a set must have in common."""

from __future__ import annotations

import hashlib
from typing import Final

from ftnids import __version__
from ftnids.config import Config
from ftnids.peers import wire
from ftnids.sync.settings import MS, Settings, Timers

FIRST_SYNC: Final = frozenset(  # keys of [sync] that the first release has; one that is added later is not listed
    ("k", "l", "delay_ms", "reorder_us", "reorder_places", "max_desync", "report_ms", "failure_ms", "aligner")
)
FILE_FAILURE_MS: Final = 5_000  # replicas that replay files compete for the processor: silence means less


def settings(config: Config, incarnation: int, linktype: int, agreed_slots: int) -> Settings:
    """The settings of this replica's engine; members whose `digest` differs do not form a set."""
    cluster, capture, sync = config.cluster, config.capture, config.sync
    chosen = sync.model_dump(exclude_defaults=True)
    shared = {
        "cluster.member": " ".join(f"{m.name}={m.address}" for m in cluster.member),
        "capture.bpf": capture.bpf,
        "capture.snaplen": capture.snaplen,
        "capture.from_start": capture.from_start,
        "link type": linktype,
        # Replicas of an older release do not know a newer key, and are of one mind with a newer one at its default.
        **{f"sync.{key}": value for key, value in sync.model_dump().items() if key in FIRST_SYNC or key in chosen},
    }
    text = "\n".join(f"{key} = {value}" for key, value in shared.items())
    return Settings(
        me=config.me,
        members=len(cluster.member),
        incarnation=incarnation,
        k=sync.k,
        l=sync.l,
        max_desync=sync.max_desync,
        reorder_ns=sync.reorder_us * 1000,
        reorder_places=sync.reorder_places,
        aligner=sync.aligner,
        wait_for_all=cluster.wait_for_all,
        live=capture.interface is not None,
        from_start=capture.from_start,
        digest=hashlib.blake2b(text.encode(), digest_size=16).digest(),
        config=text,
        protocol=wire.PROTOCOL,
        software=__version__,
        agreed_slots=agreed_slots,
        timers=Timers(
            delay=sync.delay_ms * MS,
            report=sync.report_ms * MS,
            failure=max(sync.failure_ms, FILE_FAILURE_MS if capture.from_start else 0) * MS,
            join=int(cluster.join_timeout_s * 1000) * MS,
        ),
    )


def spoken(view: int) -> dict[str, int]:
    """For the status: the protocol versions that this replica speaks, and the one of its `view`."""
    return {"oldest": wire.oldest(), "newest": wire.PROTOCOL, "view": view}
