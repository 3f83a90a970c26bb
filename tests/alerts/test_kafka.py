"""The Kafka output, with a library that is made up: what it hands over, and what it makes of refusals."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from ftnids.alerts.kafka_sink import Kafka
from ftnids.alerts.outputs import as_line
from ftnids.alerts.sinks import SinkError
from ftnids.errors import ConfigError

from .records import identified


class KafkaError(Exception):
    """As the library's."""


class Future:
    def __init__(self, error: Exception | None) -> None:
        self._error = error

    def get(self, timeout: float) -> None:
        assert timeout > 0
        if self._error is not None:
            raise self._error


class Broker:
    """All producers of one made-up library: what they were made with, what came, and from when on it is refused."""

    def __init__(self) -> None:
        self.options: dict[str, Any] = {}
        self.came: list[tuple[str, bytes, bytes]] = []
        self.room = 1_000
        self.down = False
        self.closed = 0

    def producer(self, **options: Any) -> Broker:
        if self.down:
            raise KafkaError("NoBrokersAvailable")
        self.options = options
        return self

    def send(self, topic: str, key: bytes, value: bytes) -> Future:
        if len(self.came) >= self.room:
            return Future(KafkaError("no leader"))
        self.came.append((topic, key, value))
        return Future(None)

    def close(self, timeout: float) -> None:
        self.closed += 1


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    made = Broker()
    library = types.ModuleType("kafka")
    vars(library).update(KafkaProducer=made.producer, errors=types.SimpleNamespace(KafkaError=KafkaError))
    monkeypatch.setitem(sys.modules, "kafka", library)
    return made


def lines(count: int) -> list[bytes]:
    return [as_line(identified(str(n))) for n in range(count)]


def test_records_go_out_in_order_keyed_by_their_id(broker: Broker) -> None:
    target = Kafka(["k1:9092", "k2:9092"], "alerts")
    assert target.put(lines(3)) == 3
    assert [(topic, key) for topic, key, _ in broker.came] == [("alerts", b"0"), ("alerts", b"1"), ("alerts", b"2")]
    assert [value + b"\n" for *_, value in broker.came] == lines(3)
    assert (broker.options["bootstrap_servers"], broker.options["acks"]) == (["k1:9092", "k2:9092"], "all")
    target.close()
    assert broker.closed == 1


def test_every_status_of_an_alert_has_one_key(broker: Broker) -> None:
    """So that a compacted topic keeps the last one."""
    provisional = identified("1")
    provisional["ftnids"]["status"] = "provisional"
    Kafka(["k1:9092"], "alerts").put([as_line(provisional), as_line(identified("1")), b"no record\n"])
    assert [key for _, key, _ in broker.came[:2]] == [b"1", b"1"]
    assert len(broker.came[2][1]) == 24


def test_what_is_not_acknowledged_is_not_taken(broker: Broker) -> None:
    target = Kafka(["k1:9092"], "alerts")
    broker.room = 2
    assert target.put(lines(3)) == 2
    with pytest.raises(SinkError, match="k1:9092: no leader") as refused:
        target.put(lines(3)[2:])
    assert "alerts.kafka" in refused.value.hint
    broker.down = True
    with pytest.raises(SinkError, match="NoBrokersAvailable"):
        target.put(lines(1))
    broker.down, broker.room = False, 1_000
    assert target.put(lines(3)[2:]) == 1


def test_without_the_library_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kafka", None)
    with pytest.raises(ConfigError, match=r"alerts.kafka.servers: needs .* pip install 'ftnids\[kafka\]'"):
        Kafka(["k1:9092"], "alerts")
