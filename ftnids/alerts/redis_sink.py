"""Alerts into a stream or a list of Redis, each id once.

Records go in by a script, which Redis runs as a whole or not at all: it notes each id beside the target and leaves out
what it has noted before.  So it does no harm to hand a record over again, which happens when an answer is lost, when a
replica is killed before it notes the answer, and when another replica takes over from one that died.  Redis that was
killed comes back with what its disk held, notes and records of the same moment; then everything that is kept is
handed over again, and what Redis had lost goes in.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ftnids.alerts.outputs import names_in
from ftnids.alerts.sinks import ForgetfulError, Sink, SinkError
from ftnids.errors import ConfigError
from ftnids.limits import REDIS_IDS, SINK_WAIT_S, SPOOL_KEPT_BYTES

SCRIPT: Final = b"""
local new = 0
for i = 5, #ARGV, 2 do
  if redis.call('ZADD', KEYS[2], 'NX', ARGV[3] + new, ARGV[i]) == 1 then
    new = new + 1
    if ARGV[1] ~= 'stream' then
      redis.call(ARGV[1], KEYS[1], ARGV[i + 1])
    elseif ARGV[2] == '0' then
      redis.call('XADD', KEYS[1], '*', 'eve', ARGV[i + 1])
    else
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'eve', ARGV[i + 1])
    end
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[4] - 1)
return new
"""


def library(name: str, setting: str) -> Any:
    """The module `name` of an extra.  ConfigError, naming `setting`, when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(f"{setting}: needs a Python package that is not here: pip install 'ftnids[{name}]'") from None


def password(path: Path, setting: str) -> str:
    """What a password file holds.  ConfigError when it cannot be read, or others may read it."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{setting} {path}: others may read it: chmod 600 {path}")
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no text"
        raise ConfigError(f"{setting} {path}: {reason}") from None


class Redis(Sink):
    """The target `key` on the server at `url`: `mode` is stream, lpush or rpush; `maxlen` (0: none) is of a stream."""

    keep_bytes = SPOOL_KEPT_BYTES

    def __init__(self, url: str, *, key: str, mode: str, maxlen: int, secret: str = "") -> None:
        self._redis = library("redis", "alerts.redis.url")
        self._place = urlsplit(url).netloc.rpartition("@")[2] or url
        self._keys = (key, f"{{{key}}}:ids")  # on one node of a cluster
        self._mode, self._maxlen = mode, maxlen
        self._life = ""  # of the server: its run id
        self._connection: Any = None
        options: dict[str, Any] = {"password": secret} if secret else {}
        try:
            self._pool = self._redis.ConnectionPool.from_url(
                url,
                socket_timeout=SINK_WAIT_S,
                socket_connect_timeout=SINK_WAIT_S,
                retry=self._redis.retry.Retry(self._redis.backoff.NoBackoff(), 0),
                client_name="ftnids",
                **options,
            )
        except ValueError as error:
            raise ConfigError(f"alerts.redis.url: {error}") from None

    def put(self, lines: Sequence[bytes]) -> int:
        try:
            if self._connection is None:
                self._connect()
            # Records of one moment keep their order among the notes, of which the oldest go first.
            arguments: list[Any] = [self._mode, self._maxlen, time.time_ns() // 1000, REDIS_IDS]
            for line in lines:
                arguments += (*names_in(line), line.rstrip(b"\n"))
            self._ask("EVAL", SCRIPT, 2, *self._keys, *arguments)
        except self._redis.RedisError as error:
            self.close()
            raise SinkError(f"{self._place}: {_reason(error)}", self._hint(error)) from None
        except OSError as error:
            self.close()
            raise SinkError(f"{self._place}: {error.strerror or error}") from None
        return len(lines)

    def _connect(self) -> None:
        """Connect; ForgetfulError where the server is not the one from before."""
        self._connection = self._pool.make_connection()
        self._connection.connect()
        try:
            text = self._ask("INFO", "server")
        except self._redis.exceptions.NoPermissionError:  # then every connection may be to another server
            raise ForgetfulError from None
        match = re.search(r"^run_id:(\w+)", text.decode() if isinstance(text, bytes) else str(text), re.MULTILINE)
        if match is None or match[1] != self._life:
            self._life = match[1] if match else ""
            raise ForgetfulError

    def _ask(self, *command: Any) -> Any:
        self._connection.send_command(*command)
        return self._connection.read_response()

    def _hint(self, error: Exception) -> str:
        errors = self._redis.exceptions
        if isinstance(error, errors.AuthenticationError):
            return "see alerts.redis.password_file, and the user in alerts.redis.url"
        if "WRONGTYPE" in str(error):
            return f"{self._keys[0]} is of another kind there: set another alerts.redis.key, or remove it"
        if isinstance(error, errors.ResponseError):
            return "see the log of the Redis server"
        return "start the Redis server, or see alerts.redis.url"

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.disconnect()
            self._connection = None


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
