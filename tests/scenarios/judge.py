"""The same verdict for every scenario, per lineage.

1. Agreement: the streams of any two lives are equal as far as their views go together: bytes, order, timestamps.
2. Completeness: what a life captured as a member is in its lineage's stream; nothing is in it that was not on the link.
3. Alerts: each comes out once, and they are those of one IDS that is fed the agreed stream.

The truth is the lab's lossless tap, and what each replica's drop generator leaves of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ftnids.alerts.compare import compare
from ftnids.lab import causes, lives, reference, steady, summary
from ftnids.lab.lives import Life
from ftnids.lab.stage import Stage
from snort_adapter.launchers import launcher

SNAPLEN = 2_048  # more than any generated frame; the kernel's buffer holds more of shorter frames
UNREAD = 1_000  # packets that an IDS may have had no time for when its replica began anew


def judge(stage: Stage) -> list[Life]:
    """Assert that all promises held; the lives of all replicas, for what a scenario has to add."""
    assert stage.tap_missed == 0, "the tap or the link itself lost packets: there is no truth to judge by"
    told = lives.read_all(stage)
    assert not lives.disagreements(told)
    for life in told:
        assert not lives.pcap_faults(life, SNAPLEN, stage.hash_seed)
        assert (np.diff(life.stream.time_us) >= 0).all(), f"{life.name}: agreed times decrease"
    check_completeness(stage, told)
    check_alerts(stage, told)
    return told


def check_completeness(stage: Stage, told: list[Life]) -> None:
    """Nothing that a member captured is missing, and nothing came out that nobody sent."""
    truth = lives.Truth(stage, SNAPLEN)
    for life in told:
        counters = stage.status(life.replica)["counters"]
        if life.in_order:
            assert (counters["kernel_drops"], counters["ring_drops"]) == (0, 0), f"{life.name} dropped packets"
        agreed = lives.lineage(life, told)
        foreign = truth.foreign(agreed)
        assert not len(foreign), f"{life.name}: {len(foreign)} packets too many, {truth.traced(agreed, foreign[0])}"
        captured = truth.captured(life)
        if captured is not None:
            missing = truth.missing(agreed, captured)
            assert not len(missing), f"{life.name}: {len(missing)} packets captured and not agreed, first {missing[0]}"


def check_alerts(stage: Stage, told: list[Life]) -> None:
    """Each alert once in each output, and in that of the last lineage all that one IDS raises over its stream."""
    outputs = {life.replica: output(stage, life.replica) for life in told}
    for path in set(outputs.values()):
        ids = [alert["ftnids"]["id"] for alert in summary.read_alerts(path)]
        twice = len(ids) - len(set(ids))
        # Where a busy machine had two replicas believe each other dead, both rightly wrote to the one file.
        assert not twice or lives.forked(told), f"{path}: {twice} alerts came out twice"
    if stage.options.ids == "none":
        return
    end = max((life.end for life in told if life.in_order and life.views), default=0)
    from_start = [life for life in told if life.in_order and life.first == 0]
    witness = next((life for life in from_start if life.end == end), None)
    if witness is None:  # every IDS has begun in the middle or ended there, so that none can be asked to know all
        for life in from_start:
            check_part(stage, life)
        return
    raised = alone(stage, witness)
    assert raised, "the traffic raises no alert: nothing is shown"
    alerts = {alert["ftnids"]["id"]: alert for alert in summary.read_alerts(outputs[witness.replica])}
    assert compare(alerts.values(), raised).differences == [] or lives.forked(told)


def check_part(stage: Stage, life: Life) -> None:
    """What an IDS raises that was there from the start to where its replica left came out, and nothing else did."""
    raised = {alert["ftnids"]["id"]: alert["ftnids"]["seq"] for alert in alone(stage, life)}
    put_out = {alert["ftnids"]["id"]: alert["ftnids"] for alert in summary.read_alerts(output(stage, life.replica))}
    due = {one for one, seq in raised.items() if seq is not None and seq < life.end - UNREAD}
    assert due, "the traffic raises no alert: nothing is shown"
    assert due <= put_out.keys(), f"{life.name}: {len(due - put_out.keys())} alerts did not come out"
    warm = {
        one
        for one, facts in put_out.items()
        if facts["seq"] is not None and facts["seq"] < life.end and not facts.get("cold")
    }
    assert warm <= raised.keys(), f"{life.name}: {len(warm - raised.keys())} alerts too many"


def output(stage: Stage, replica: str) -> Path:
    """Where a replica puts alerts out."""
    return Path(stage.tables[replica]["alerts"]["output"])


def alone(stage: Stage, life: Life) -> list[dict[str, Any]]:
    """The alerts of one undisturbed IDS over what a life agreed on."""
    directory = stage.places.out / causes.REFERENCE / f"{life.replica}-{life.number}"
    directory.mkdir(parents=True)
    config = steady.ids_config(stage.options.ids, directory)
    voids = np.flatnonzero(life.stream.hash == lives.VOID) + life.first
    return reference.alerts_of(launcher(stage.options.ids, config=config), life.pcap, directory, voids.tolist())


def judge_branch(stage: Stage, life: Life) -> None:
    """The other branch of a fork: what its replica put out is what one IDS raises over what it agreed on, each once."""
    if stage.options.ids == "none":
        return
    assert life.first == 0
    alerts = summary.read_alerts(output(stage, life.replica))
    raised = {alert["ftnids"]["id"]: alert for alert in alone(stage, life)}
    fork = life.views[-1].seq
    end = life.end - UNREAD
    due = {
        a["ftnids"]["id"]
        for a in raised.values()
        if a["ftnids"]["seq"] is not None and fork <= a["ftnids"]["seq"] < end
    }
    put_out = {alert["ftnids"]["id"] for alert in alerts}
    assert due
    assert due <= put_out
    assert {
        alert["ftnids"]["id"] for alert in alerts if alert["ftnids"]["view"] == life.views[-1].number
    } <= raised.keys()
