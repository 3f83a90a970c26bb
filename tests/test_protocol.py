"""What members of a set must have in common, across releases."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftnids import protocol
from ftnids.config import Config, Sync, load
from tests.two import two

FIRST = """\
cluster.member = a=tcp://127.0.0.1:5701 b=tcp://127.0.0.1:5702
capture.bpf = {bpf}
capture.snaplen = 65535
capture.from_start = False
link type = 1
sync.k = 56
sync.l = 8
sync.delay_ms = 20
sync.reorder_us = {reorder_us}
sync.reorder_places = {reorder_places}
sync.max_desync = 16
sync.report_ms = 2
sync.failure_ms = 300
sync.aligner = default"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "a.toml"
    path.write_text(two())
    return load(path)


def test_the_text_that_is_compared_is_that_of_the_first_release(config: Config) -> None:
    """Else a replica of the release before is refused, and there is no rolling upgrade."""
    sync = config.sync
    text = protocol.settings(config, 1, 1, 1 << 18).config
    assert text == FIRST.format(bpf="", reorder_us=sync.reorder_us, reorder_places=sync.reorder_places)


def test_a_later_setting_counts_where_it_is_chosen(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if `max_desync` had been added after the first release."""
    monkeypatch.setattr(protocol, "FIRST_SYNC", protocol.FIRST_SYNC - {"max_desync"})
    assert "sync.max_desync" not in protocol.settings(config, 1, 1, 1 << 18).config
    chosen = config.model_copy(update={"sync": Sync(max_desync=17)})
    assert "sync.max_desync = 17" in protocol.settings(chosen, 1, 1, 1 << 18).config
