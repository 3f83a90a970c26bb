"""The configuration of one replica: what `replicas/replica.toml` says, checked, with paths made absolute.

`load(path)` gives a `Config` or raises ConfigError, one line a problem, each with the line of the file, or with what
else the value came from, the key, the reason and what is allowed.  The models below are the one place that says what
each key is: type, range, default and description.  `replicas/replica.toml`, what `ftnids init` writes and
docs/configuration.md are made from them.
"""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from ftnids import limits
from ftnids.errors import ConfigError
from ftnids.peers.addresses import Address, parse
from ftnids.settings import sources
from ftnids.settings.checks import crosschecked
from ftnids.settings.sources import Override
from ftnids.settings.words import Schema, dotted, explained
from ftnids.toml_lines import Key, Lines, lines_of

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, min_length=1, max_length=limits.MAX_NAME)]
_FilePath = Annotated[Path, Field(strict=False)]
_PathText = Annotated[str, Field(json_schema_extra={"format": "path"})]
_Cpus = Annotated[list[Annotated[int, Field(ge=0, lt=limits.MAX_CPUS)]], Field(max_length=limits.MAX_CPUS)]
_MB: Final = 1 << 20


class _Section(BaseModel):
    """A table of the file: unknown keys are errors, values keep the type they have in TOML."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_S = TypeVar("_S", bound=_Section)


class Replica(_Section):
    """Who this replica is, and where it keeps its files."""

    name: Name = Field(description="one of the members below")
    run_dir: _FilePath = Field(default=Path("/run/ftnids"), description="FIFO to an IDS that reads a pcap stream")
    log_dir: _FilePath = Field(
        default=Path("/var/log/ftnids"),
        description="status.json, alerts, IDS logs, agreed.pcap and hashes.txt when asked for",
    )
    cpus: _Cpus = Field(default=[], description="CPUs that the replica runs on; [] any")
    user: str = Field(
        default="",
        max_length=limits.MAX_NAME,
        description='started as root, go on as this user once the capture is open; "" stays as started',
    )
    group: str = Field(default="", max_length=limits.MAX_NAME, description='"" is the user\'s own')


class Member(_Section):
    """One replica of the set; at least two, in the same order on every replica."""

    name: Name = Field(description="what its replica.name is")
    address: str = Field(description="where its peers reach it", examples=["tcp://192.0.2.1:5701"])
    public_key: str | None = Field(
        default=None, description="Z85, 40 characters; what ftnids keygen printed", examples=["..."]
    )
    old_public_key: str | None = Field(
        default=None,
        description="accepted, too, while the member changes its key (docs/security.md)",
        examples=["..."],
    )

    @property
    def public_keys(self) -> list[str]:
        """The keys that are accepted as this member's, the one to try first in front."""
        return [key for key in (self.public_key, self.old_public_key) if key is not None]

    @property
    def parsed(self) -> Address:
        """The address, taken apart."""
        return parse(self.address)


class Cluster(_Section):
    """The set."""

    name: Name = Field(description="the same on every replica")
    secret_file: _FilePath = Field(
        default=Path("keys/cluster.secret"),
        description="mode 0600; between loopback addresses line and file may go",
    )
    join_timeout_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="the first replica waits this long for its peers, then goes on with those that came",
    )
    wait_for_all: bool = Field(default=False, description="true: never start without all members (the lab)")
    key_file: _FilePath | None = Field(
        default=None,
        description="this replica's secret CURVE key, mode 0600; required when an address is not loopback, else it may "
        "come from the secret",
        examples=["keys/a.key_secret"],
    )
    member: list[Member] = Field(
        min_length=2, max_length=limits.MAX_MEMBERS, description="the replicas, each a [[cluster.member]]"
    )
    _secret_named: bool = PrivateAttr(False)

    def model_post_init(self, context: Any) -> None:
        """Note what the file itself says; a copy with other values would no longer know."""
        self._secret_named = "secret_file" in self.model_fields_set

    @property
    def secret_named(self) -> bool:
        """Whether the file says where the secret is, so that it must be there."""
        return self._secret_named


class Drop(_Section):
    """Fault injection, after capture."""

    loss: float = Field(default=0.0, ge=0, le=1, description="share of the packets that is dropped")
    burst: float = Field(default=1.0, ge=1, le=1_000_000, description="mean run length of losses")
    seed: int = Field(default=0, ge=0, le=(1 << 63) - 1, description="of the choice")


class Capture(_Section):
    """Where packets come from: exactly one of interface and file."""

    interface: str | None = Field(
        default=None, min_length=1, max_length=15, description="capture there", examples=["eth1"]
    )
    file: _FilePath | None = Field(default=None, description="read this pcap or pcapng file", examples=["x.pcap"])
    bpf: str = Field(
        default="", max_length=limits.MAX_FILTER, description="a tcpdump filter; the same on every replica"
    )
    snaplen: int = Field(
        default=65535, ge=1, le=limits.MAX_SNAPLEN, description="bytes kept of a frame; the same on every replica"
    )
    promiscuous: bool = Field(default=True, description="take frames to other hosts, too")
    buffer_mb: int = Field(
        default=64, ge=1, le=limits.MAX_CAPTURE_BUFFER // _MB, description="kernel capture buffer, in MB"
    )
    cpus: _Cpus = Field(default=[], description="CPUs of the capture thread; [] those of the replica")
    clock_offset_us: int = Field(
        default=0,
        ge=-limits.MAX_CLOCK_OFFSET_NS // 1000,
        le=limits.MAX_CLOCK_OFFSET_NS // 1000,
        description="fault injection: this replica's clock is ahead by that much",
    )
    jitter_us: int = Field(
        default=0,
        ge=0,
        le=limits.MAX_JITTER_NS // 1000,
        description="fault injection: 0 to this much is added to each capture time",
    )
    pace: Literal["file", "topspeed"] = Field(
        default="file", description='of a file: "file" its own pace, "topspeed" flat out'
    )
    pps: int = Field(
        default=0, ge=0, le=limits.MAX_PPS, description="of a file: packets/s, overrides pace when above 0"
    )
    from_start: bool = Field(
        default=False,
        description="of a file: all replicas begin at packet 0 of the same file, by its time",
    )
    drop: Drop = Drop()


class Ring(_Section):
    """The shared-memory ring."""

    slots: int = Field(
        default=262_144,
        ge=limits.MIN_RING_SLOTS,
        le=limits.MAX_RING_SLOTS,
        description="packets; rounded up to a power of two",
    )
    arena_mb: int = Field(
        default=256,
        ge=limits.MIN_ARENA_BYTES // _MB,
        le=limits.MAX_ARENA_BYTES // _MB,
        description="room for captured frames, in MB",
    )
    recovered_mb: int = Field(
        default=64,
        ge=limits.MIN_ARENA_BYTES // _MB,
        le=limits.MAX_ARENA_BYTES // _MB,
        description="room for frames that peers sent, in MB",
    )
    group: str = Field(default="", description='group that may read the shared-memory segment; "" none')

    @property
    def arena_bytes(self) -> int:
        """Bytes of captured frames that the ring holds."""
        return self.arena_mb * _MB

    @property
    def recovered_bytes(self) -> int:
        """Bytes of recovered frames that the ring holds."""
        return self.recovered_mb * _MB


class Sync(_Section):
    """The protocol's parameters; the same on every replica."""

    k: int = Field(default=56, ge=1, le=limits.MAX_CLUSTER, description="packets in a cluster")
    l: int = Field(  # noqa: E741 - the paper's name
        default=8, ge=1, le=limits.MAX_ANCHOR, description="contiguous common packets that make an anchor; at most k"
    )
    delay_ms: int = Field(
        default=20,
        ge=2,
        le=10_000,
        description="T: a captured packet is to be stable within this time; an aim, on an idle host",
    )
    reorder_us: int = Field(
        default=limits.REORDER_NS // 1000,
        ge=0,
        le=limits.MAX_TOLERANCE_NS // 1000,
        description="R: how far apart packets may be that replicas saw in different order",
    )
    reorder_places: int = Field(
        default=limits.REORDER_PLACES, ge=0, le=limits.MAX_WINDOW, description="the same, in packets"
    )
    max_desync: int = Field(
        default=16, ge=1, le=limits.MAX_DESYNC, description="the window grows by k this often, then it is cut"
    )
    report_ms: int = Field(
        default=2,
        ge=1,
        le=1_000,
        description="between reports, at least; at most half of delay_ms; more where there is time",
    )
    failure_ms: int = Field(
        default=300, ge=100, le=60_000, description="a member that is silent for this long leaves the view"
    )
    aligner: Literal["default", "difflib"] = Field(
        default="default", description='"difflib" is the reference: slow, for comparison'
    )


class Feed(_Section):
    """What the agreed stream goes to."""

    mode: Literal["pessimistic", "optimistic"] = Field(
        default="pessimistic",
        description='"optimistic": the IDS runs ahead of agreement, and is set back where that was wrong',
    )
    checkpoint: Literal["criu", "fork", "none"] = Field(
        default="none", description='how it is set back: "fork" goes with Snort, "criu" with every IDS'
    )
    speculate: Literal["auto", "always"] = Field(
        default="auto", description='when it runs ahead: "auto" while that pays, measured all the time'
    )
    state: Literal["cold", "transfer"] = Field(
        default="cold",
        description='how the IDS of a replica that joins a running set begins: "transfer" with the state of another '
        "replica's, which gives its own in turn; needs root and CRIU",
    )
    ids: Literal["suricata", "snort", "none"] = Field(default="none", description="the IDS; without one, no alerts")
    ids_binary: str = Field(default="", description='"" finds it on PATH (Snort also through FTNIDS_SNORT)')
    ids_config: _PathText = Field(default="", description='its configuration; "" is the minimal one that is shipped')
    rules: list[_FilePath] = Field(default=[], description="rule files; [] is the ones that are shipped")
    cpus: _Cpus = Field(default=[], description="CPUs of the IDS; [] any")
    agreed_pcap: str = Field(default="", description="also write the agreed stream to this file (relative to log_dir)")
    hashes: str = Field(
        default="", description="also write seq, hash, time of every stable packet to this file (relative to log_dir)"
    )


class Redis(_Section):
    """Alerts into Redis, too, each id once; needs pip install 'ftnids[redis]'."""

    url: str = Field(
        default="", description='redis://HOST:6379/0, rediss://... or unix:///PATH; "" for none; never with a password'
    )
    password_file: _FilePath | None = Field(
        default=None, description="holds the password, mode 0600", examples=["keys/redis.password"]
    )
    key: str = Field(default="ftnids", min_length=1, max_length=limits.MAX_TEXT, description="the stream or list")
    mode: Literal["stream", "lpush", "rpush"] = Field(
        default="stream", description='"stream": field eve of each entry; else a list, pushed left or right'
    )
    maxlen: int = Field(
        default=1_000_000, ge=0, description="about how many entries a stream keeps; 0 all; a list keeps all"
    )


class Kafka(_Section):
    """Alerts into Kafka, too, keyed by their id; needs pip install 'ftnids[kafka]'."""

    servers: list[str] = Field(default=[], description='as ["kafka1:9092", "kafka2:9092"]; [] for none')
    topic: str = Field(default="ftnids", min_length=1, max_length=limits.MAX_TEXT, description="where alerts go")


class Alerts(_Section):
    """Where the set's alerts go; the coordinator writes them."""

    output: str = Field(default="alerts.jsonl", description='JSON lines (relative to log_dir); "" for none')
    eve_output: str = Field(
        default="eve.jsonl", description='other EVE records, the coordinator\'s copy (relative to log_dir); "" for none'
    )
    stdout: bool = Field(default=False, description="JSON lines on standard output, too")
    syslog: bool = Field(default=False, description="one readable line an alert to the local syslog, too")
    hold_ms: int = Field(
        default=500,
        ge=0,
        le=60_000,
        description="wait this long for the other replicas' copy of an alert before it goes out",
    )
    provisional: bool = Field(
        default=False,
        description="also put out what the leading replica's IDS raises on packets that are not stable, marked so, and "
        "what becomes of it",
    )
    rotate_mb: int = Field(
        default=0, ge=0, le=1 << 20, description="rename output and eve_output when they are that large, in MB; 0 never"
    )
    rotate_keep: int = Field(default=4, ge=1, le=1_000, description="renamed files that stay: NAME.1 to NAME.4")
    spool_mb: int = Field(
        default=256,
        ge=1,
        le=1 << 20,
        description="what each other output may be behind, in MB of log_dir/spool; then the oldest alerts are lost",
    )
    redis: Redis = Redis()
    kafka: Kafka = Kafka()


class Metrics(_Section):
    """The page for Prometheus."""

    listen: str = Field(default="", description='as "127.0.0.1:9477": metrics at http://127.0.0.1:9477/metrics; "" off')

    @property
    def address(self) -> Address | None:
        """Where the page is; None where it is off."""
        return parse(f"tcp://{self.listen}") if self.listen else None


class Log(_Section):
    """Logging, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="the least that is said")
    format: Literal["console", "json"] = Field(default="console", description='"json": one object a line')


class Config(_Section):
    """One replica's configuration."""

    replica: Replica
    cluster: Cluster
    capture: Capture
    ring: Ring = Ring()
    sync: Sync = Sync()
    feed: Feed = Feed()
    alerts: Alerts = Alerts()
    metrics: Metrics = Metrics()
    log: Log = Log()
    _source: Path = PrivateAttr(Path())
    _overrides: tuple[Override, ...] = PrivateAttr(())

    @property
    def source(self) -> Path:
        """The file that this was read from."""
        return self._source

    @property
    def overrides(self) -> tuple[Override, ...]:
        """What did not come from the file."""
        return self._overrides

    @property
    def cpus(self) -> dict[str, list[int]]:
        """CPUs by the key that names them."""
        return {"replica.cpus": self.replica.cpus, "capture.cpus": self.capture.cpus, "feed.cpus": self.feed.cpus}

    @property
    def me(self) -> int:
        """This replica's place in the member list."""
        return [member.name for member in self.cluster.member].index(self.replica.name)

    @property
    def loopback(self) -> bool:
        """Whether no replica is on another host."""
        return all(member.parsed.loopback for member in self.cluster.member)

    @property
    def ring_name(self) -> str:
        """The name of this replica's ring."""
        return f"{self.cluster.name}-{self.replica.name}"

    @property
    def secret_optional(self) -> bool:
        """Whether a public value may stand in for a secret that is not there."""
        return self.loopback and not self.cluster.secret_named

    def in_log_dir(self, name: str) -> Path | None:
        """The path of a log file setting; None when it is empty."""
        return self.replica.log_dir / name if name else None


def load(path: Path, overrides: Sequence[Override] | None = None) -> Config:
    """The configuration in the file `path`, with `overrides` over it (those of the environment unless they are given).

    ConfigError, one line a problem, if it is wrong.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text") from None
    return parse_text(text, path, sources.of_environment(os.environ) if overrides is None else overrides)


def make_directories(replica: Replica) -> None:
    """Make the replica's directories where they are missing.  ConfigError when one cannot be made or written."""
    for key in ("log_dir", "run_dir"):
        path: Path = getattr(replica, key)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            reason = "" if os.access(path, os.W_OK | os.X_OK) else "may not be written by this user"
        except OSError as error:
            reason = f"cannot be made: {error.strerror}"
        if reason:
            raise ConfigError(f"replica.{key} {path}: {reason}; name another directory, or change its owner")


def parse_text(text: str, path: Path, overrides: Sequence[Override] = ()) -> Config:
    """The configuration in `text`; `path` is the file that errors name and relative paths start from."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    try:
        config = Config.model_validate(sources.applied(tree, overrides, schema()))
    except ValidationError as error:
        problems = [(tuple(detail["loc"]), explained(schema(), detail)) for detail in error.errors()]
    else:
        config = _absolute(config, path.absolute().parent)
        config._source, config._overrides = path.absolute(), tuple(overrides)
        problems = list(crosschecked(config))
        if not problems:
            return config
    raise ConfigError("\n".join(_named(problems, lines_of(text), path, overrides)))


@functools.cache
def schema() -> Schema:
    """The JSON schema of the whole configuration."""
    return Config.model_json_schema()


def _named(problems: Sequence[tuple[Key, str]], lines: Lines, path: Path, overrides: Sequence[Override]) -> list[str]:
    """The problems as lines, in the order of the file, each with where its value came from."""
    shown = []
    for key, reason in problems:
        source, line = sources.blamed(key, overrides, lines), lines.find(key)
        others = "; ".join(sources.mentioned(reason, overrides))
        said = f"{dotted(key)}{reason}" + (f" ({others})" if others else "")
        shown.append((0 if source else line, f"{source or f'{path}:{line}'}: {said}"))
    return [said for _, said in sorted(shown)]


# -- paths ----------------------------------------------------------------------------------------


def _absolute(config: Config, base: Path) -> Config:
    """`config` with every relative path made absolute, starting from `base`."""
    feed = config.feed
    # An IDS may be named as on PATH; with a slash in it, it is a path.
    binary = str(base / feed.ids_binary) if "/" in feed.ids_binary else feed.ids_binary
    ids_config = str(base / feed.ids_config) if feed.ids_config else ""
    redis = _rebased(config.alerts.redis, base, "password_file")
    changed = {
        "replica": _rebased(config.replica, base, "run_dir", "log_dir"),
        "cluster": _rebased(config.cluster, base, "secret_file", "key_file"),
        "capture": _rebased(config.capture, base, "file"),
        "alerts": config.alerts.model_copy(update={"redis": redis}),
        "feed": feed.model_copy(
            update={"ids_binary": binary, "ids_config": ids_config, "rules": [base / rule for rule in feed.rules]}
        ),
    }
    return config.model_copy(update=changed)


def _rebased(section: _S, base: Path, *names: str) -> _S:
    """A copy of `section` whose paths `names` start from `base`."""
    paths = {name: getattr(section, name) for name in names}
    return section.model_copy(update={name: base / path for name, path in paths.items() if path is not None})
