"""From the configuration to the protocol's settings, with what all members of a set must have in common."""

from __future__ import annotations

import hashlib
from typing import Final

from ftnids.config import Config
from ftnids.sync.settings import MS, Settings, Timers

FILE_FAILURE_MS: Final = 5_000  # replicas that replay files compete for the processor: silence means less


def settings(config: Config, incarnation: int, linktype: int, agreed_slots: int) -> Settings:
    """The settings of this replica's engine; members whose `digest` differs do not form a set."""
    cluster, capture, sync = config.cluster, config.capture, config.sync
    shared = {
        "cluster.member": " ".join(f"{m.name}={m.address}" for m in cluster.member),
        "capture.bpf": capture.bpf,
        "capture.snaplen": capture.snaplen,
        "capture.from_start": capture.from_start,
        "link type": linktype,
        **{f"sync.{key}": value for key, value in sync.model_dump().items()},
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
        agreed_slots=agreed_slots,
        timers=Timers(
            delay=sync.delay_ms * MS,
            report=sync.report_ms * MS,
            failure=max(sync.failure_ms, FILE_FAILURE_MS if capture.from_start else 0) * MS,
            join=int(cluster.join_timeout_s * 1000) * MS,
        ),
    )
