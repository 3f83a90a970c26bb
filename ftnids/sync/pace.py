"""How long reports may wait, so that few turns do all the work and the delay promise still holds.

Theory of operation.  From capture to stable a packet waits for a report, for the next one where its time is near the
horizon, and for four messages: report, decision, bytes, acknowledgement.  What the messages leave of the promised
delay is the time for which reports may gather packets.  How long messages take is learnt from the round trips of
heartbeats.  A round trip is also long where a replica is busy, and then more reports would make it longer: the busier
one of the two is, the longer reports wait.
"""

from __future__ import annotations

from ftnids.sync.settings import Timers

UP, DOWN = 4, 32  # a slower trip moves the estimate by one part in four of the difference, a faster one by one in 32
LIGHT, HEAVY = 250, 500  # of 1000: a load that changes nothing, and one at which reports wait the longest


def slow_trip_ns(before_ns: int, trip_ns: int) -> int:
    """How long slow round trips take, after one more of them: about nine in ten are faster."""
    return before_ns + (trip_ns - before_ns) // (UP if trip_ns > before_ns else DOWN)


def interval_ns(timers: Timers, trip_ns: int, load: int) -> int:
    """The time between reports, where a slow round trip takes `trip_ns`, and the busier replica has `load` of 1000."""
    longest = max(timers.report, 2 * timers.delay // 5)
    wanted = min(longest, max(timers.report, timers.delay - timers.delay // 3 - 2 * trip_ns))
    heavy = min(max(load - LIGHT, 0), HEAVY - LIGHT)
    return wanted + (longest - wanted) * heavy // (HEAVY - LIGHT)
