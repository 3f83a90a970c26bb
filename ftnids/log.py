"""Logging: structlog to stderr, one line an event.

An event has a name in snake case that stays the same (`peer_connected`), a level, and facts as keys; where an
operator can do something, the fact `hint` says what in one sentence.  `console` is for people, `json` is one
object a line for machines.  What the network or the traffic can repeat goes through a `Limiter`, so that a flood
of causes is no flood of lines.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TextIO

import structlog

from ftnids.limits import LOG_KEYS, LOG_REPEAT_S

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
FORMATS: Final = ("console", "json")


def configure(level: str = "info", form: str = "console", stream: TextIO | None = None) -> None:
    """Set up logging for the whole process: least `level`, `form` (console or json), `stream` (stderr)."""
    renderer: structlog.typing.Processor
    if form == "json":
        renderer = structlog.processors.JSONRenderer(default=str)
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=(stream or sys.stderr).isatty(), pad_event_to=24)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(room: str, **facts: Any) -> structlog.typing.FilteringBoundLogger:
    """The logger of a room (`peers`, `feed`, ...); `facts` go with every line."""
    if not structlog.is_configured():
        configure()  # structlog's own default is standard output, which belongs to the commands
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=room, **facts)
    return logger


class Limiter:
    """Lets an event of one key through once an interval, with the number of those held back since."""

    def __init__(self, interval_s: float = LOG_REPEAT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval, self._clock = interval_s, clock
        self._keys: OrderedDict[str, tuple[float, int]] = OrderedDict()  # key -> when let through last, held since

    def admit(self, key: str) -> int | None:
        """None: hold it back.  Else let it through; the number says how many were held back before it."""
        now = self._clock()
        last, held = self._keys.get(key, (-self._interval, 0))
        if now - last < self._interval:
            self._keys[key] = (last, held + 1)
            return None
        self._keys[key] = (now, 0)
        self._keys.move_to_end(key)
        while len(self._keys) > LOG_KEYS:
            self._keys.popitem(last=False)
        return held

    def log(
        self, logger: structlog.typing.FilteringBoundLogger, level: str, key: str, event: str, /, **facts: Any
    ) -> None:
        """Log `event` unless one of the same `key` was logged within the interval."""
        held = self.admit(key)
        if held is None:
            return
        if held:
            facts["suppressed"] = held
        logger.log(LEVELS[level], event, **facts)
