"""Alerts into a topic of Kafka, keyed by their id.

Kafka cannot leave out what it has: a record whose acknowledgement was lost is there twice, with the same key.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ftnids.alerts.outputs import id_in
from ftnids.alerts.redis_sink import library
from ftnids.alerts.sinks import Sink, SinkError
from ftnids.limits import SINK_WAIT_S


class Kafka(Sink):
    """The topic `topic` of the cluster that `servers` (HOST:PORT) are of."""

    def __init__(self, servers: Sequence[str], topic: str) -> None:
        self._kafka = library("kafka", "alerts.kafka.servers")
        self._servers, self._topic = list(servers), topic
        self._producer: Any = None

    def put(self, lines: Sequence[bytes]) -> int:
        taken = 0
        try:
            if self._producer is None:
                self._producer = self._kafka.KafkaProducer(
                    bootstrap_servers=self._servers,
                    client_id="ftnids",
                    acks="all",
                    retries=0,
                    max_in_flight_requests_per_connection=1,
                    max_block_ms=int(SINK_WAIT_S * 1000),
                    request_timeout_ms=int(SINK_WAIT_S * 1000),
                )
            sent = [self._producer.send(self._topic, key=_key(line), value=line.rstrip(b"\n")) for line in lines]
            for future in sent:
                future.get(timeout=SINK_WAIT_S)
                taken += 1
        except (self._kafka.errors.KafkaError, OSError) as error:
            self.close()
            if not taken:
                hint = "see alerts.kafka.servers and alerts.kafka.topic"
                raise SinkError(f"{', '.join(self._servers)}: {error or type(error).__name__}", hint) from None
        return taken

    def close(self) -> None:
        if self._producer is not None:
            with suppress(Exception):
                self._producer.close(timeout=0)
            self._producer = None


def _key(line: bytes) -> bytes:
    """The id, whatever the status: a compacted topic keeps the last one."""
    return id_in(line).encode()
