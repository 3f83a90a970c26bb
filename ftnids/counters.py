"""The counters' names: one name each, in summaries, status, metrics and logs."""

from typing import Final

PER_REPLICA: Final = (
    "captured",  # packets in this replica's capture stream
    "captured_bytes",  # of these, as they were on the link
    "captured_before",  # of these, before this replica was in a view
    "kernel_drops",  # dropped by the kernel or the interface before libpcap saw them
    "ring_drops",  # dropped because the ring was full
    "injected_drops",  # dropped by fault injection
    "left_to_peers",  # not kept while the ring was filling, because a peer keeps them
    "recovered",  # agreed packets whose bytes came from a peer
    "lost",  # seqs decided void: no survivor has the bytes
    "agreed",  # packets of the agreed stream that are stable here
    "ambiguous",
    "late",
    "clamped",
    "desync_level",
    "max_desync",
    "checkpoints",
    "rollbacks",
    "states_received",  # times that its IDS began with another replica's state
    "states_sent",  # images of its IDS that another replica got whole
    "states_failed",  # transfers of either kind that came to nothing
    "alerts",  # alerts that this replica's IDS raised
    "delay_p50_ms",  # capture to stable
    "delay_p99_ms",
    "delay_max_ms",
)

SET: Final = (
    "alerts_out",
    "alerts_suppressed",
    "alerts_diverging",
    "alerts_unconfirmed",  # raised by restarted IDSs alone, and not put out
    "alerts_hurried",  # put out before their time: more waited for the other replicas than the table holds
    "alerts_provisional",
    "alerts_retracted",
)
