"""The configuration of one replica: what `replicas/replica.toml` says, checked, with paths made absolute.

`load(path)` gives a `Config` or raises ConfigError, one line a problem, each with the line of the file, the key, the
reason and what is allowed.  The models below are the reference for types, ranges and defaults; the commented example
is checked against them by a test.
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from ftnids import limits
from ftnids.errors import ConfigError, PeerError
from ftnids.peers.addresses import Address, parse
from ftnids.toml_lines import Key, lines_of

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, min_length=1, max_length=limits.MAX_NAME)]
_FilePath = Annotated[Path, Field(strict=False)]
_Cpus = Annotated[list[Annotated[int, Field(ge=0, lt=limits.MAX_CPUS)]], Field(max_length=limits.MAX_CPUS)]
_MB: Final = 1 << 20


class _Section(BaseModel):
    """A table of the file: unknown keys are errors, values keep the type they have in TOML."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_S = TypeVar("_S", bound=_Section)


class Replica(_Section):
    """Who this replica is, and where it keeps its files."""

    name: Name
    run_dir: _FilePath = Path("/run/ftnids")
    log_dir: _FilePath = Path("/var/log/ftnids")
    cpus: _Cpus = []
    user: str = Field(default="", max_length=limits.MAX_NAME)
    group: str = Field(default="", max_length=limits.MAX_NAME)


class Member(_Section):
    """One replica of the set, as all know it."""

    name: Name
    address: str
    public_key: str | None = None
    old_public_key: str | None = None  # accepted, too, while the member changes its key

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

    name: Name
    secret_file: _FilePath = Path("keys/cluster.secret")
    join_timeout_s: float = Field(default=5.0, ge=0, le=3600)
    wait_for_all: bool = False
    key_file: _FilePath | None = None
    member: list[Member] = Field(min_length=2, max_length=limits.MAX_MEMBERS)
    _secret_named: bool = PrivateAttr(False)

    def model_post_init(self, context: Any) -> None:
        """Note what the file itself says; a copy with other values would no longer know."""
        self._secret_named = "secret_file" in self.model_fields_set

    @property
    def secret_named(self) -> bool:
        """Whether the file says where the secret is, so that it must be there."""
        return self._secret_named


class Drop(_Section):
    """Fault injection after capture."""

    loss: float = Field(default=0.0, ge=0, le=1)
    burst: float = Field(default=1.0, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, le=(1 << 63) - 1)


class Capture(_Section):
    """Where packets come from: an interface or a file."""

    interface: str | None = Field(default=None, min_length=1, max_length=15)
    file: _FilePath | None = None
    bpf: str = Field(default="", max_length=limits.MAX_FILTER)
    snaplen: int = Field(default=65535, ge=1, le=limits.MAX_SNAPLEN)
    promiscuous: bool = True
    buffer_mb: int = Field(default=64, ge=1, le=limits.MAX_CAPTURE_BUFFER // _MB)
    pace: Literal["file", "topspeed"] = "file"
    pps: int = Field(default=0, ge=0, le=limits.MAX_PPS)
    clock_offset_us: int = Field(
        default=0, ge=-limits.MAX_CLOCK_OFFSET_NS // 1000, le=limits.MAX_CLOCK_OFFSET_NS // 1000
    )
    cpus: _Cpus = []
    jitter_us: int = Field(default=0, ge=0, le=limits.MAX_JITTER_NS // 1000)
    from_start: bool = False
    drop: Drop = Drop()


class Ring(_Section):
    """The shared-memory ring."""

    slots: int = Field(default=262_144, ge=limits.MIN_RING_SLOTS, le=limits.MAX_RING_SLOTS)
    arena_mb: int = Field(default=256, ge=limits.MIN_ARENA_BYTES // _MB, le=limits.MAX_ARENA_BYTES // _MB)
    recovered_mb: int = Field(default=64, ge=limits.MIN_ARENA_BYTES // _MB, le=limits.MAX_ARENA_BYTES // _MB)
    group: str = ""

    @property
    def arena_bytes(self) -> int:
        """Bytes of captured frames that the ring holds."""
        return self.arena_mb * _MB

    @property
    def recovered_bytes(self) -> int:
        """Bytes of recovered frames that the ring holds."""
        return self.recovered_mb * _MB


class Sync(_Section):
    """The protocol's parameters; the same on all replicas."""

    k: int = Field(default=56, ge=1, le=limits.MAX_CLUSTER)
    l: int = Field(default=8, ge=1, le=limits.MAX_ANCHOR)  # noqa: E741 - the paper's name
    delay_ms: int = Field(default=20, ge=2, le=10_000)
    reorder_us: int = Field(default=limits.REORDER_NS // 1000, ge=0, le=limits.MAX_TOLERANCE_NS // 1000)
    reorder_places: int = Field(default=limits.REORDER_PLACES, ge=0, le=limits.MAX_WINDOW)
    max_desync: int = Field(default=16, ge=1, le=limits.MAX_DESYNC)
    report_ms: int = Field(default=2, ge=1, le=1_000)
    failure_ms: int = Field(default=300, ge=100, le=60_000)
    aligner: Literal["default", "difflib"] = "default"


class Feed(_Section):
    """What the agreed stream goes to.  `agreed_pcap` and `hashes` are relative to the log directory."""

    mode: Literal["pessimistic", "optimistic"] = "pessimistic"
    ids: Literal["suricata", "snort", "none"] = "none"
    ids_binary: str = ""
    ids_config: str = ""
    rules: list[_FilePath] = []
    cpus: _Cpus = []
    agreed_pcap: str = ""
    hashes: str = ""


class Alerts(_Section):
    """Where alerts go.  Files are relative to the log directory."""

    output: str = "alerts.jsonl"
    eve_output: str = "eve.jsonl"
    stdout: bool = False
    syslog: bool = False
    hold_ms: int = Field(default=500, ge=0, le=60_000)


class Metrics(_Section):
    """The page for Prometheus."""

    listen: str = ""  # "" is off

    @property
    def address(self) -> Address | None:
        """Where the page is; None where it is off."""
        return parse(f"tcp://{self.listen}") if self.listen else None


class Log(_Section):
    """Logging, to stderr."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


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

    @property
    def source(self) -> Path:
        """The file that this was read from."""
        return self._source

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


def load(path: Path) -> Config:
    """The configuration in the file `path`.  ConfigError, one line a problem, if it is wrong."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is no UTF-8 text") from None
    return parse_text(text, path)


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


def parse_text(text: str, path: Path) -> Config:
    """The configuration in `text`; `path` is the file that errors name and relative paths start from."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is no TOML: {error}") from None
    lines = lines_of(text)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        problems = [(tuple(detail["loc"]), _explained(detail)) for detail in error.errors()]
    else:
        config = _absolute(config, path.absolute().parent)
        config._source = path.absolute()
        problems = list(_crosschecked(config))
        if not problems:
            return config
    shown = sorted((lines.find(key), f"{_dotted(key)}{reason}") for key, reason in problems)
    raise ConfigError("\n".join(f"{path}:{line}: {problem}" for line, problem in shown))


# -- one value at a time ----------------------------------------------------------------------------

_TYPES: Final = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "a text",
    "array": "a list",
    "object": "a table",
}


def _explained(detail: ErrorDetails) -> str:
    """What is wrong with one value, and what is allowed."""
    key, kind, value = tuple(detail["loc"]), detail["type"], detail["input"]
    if kind == "extra_forbidden":
        keys = list(_schema(key[:-1])["properties"])
        near = difflib.get_close_matches(str(key[-1]), keys, n=1, cutoff=0.5)
        return f": unknown key; did you mean {near[0]}?" if near else f": unknown key; those here: {', '.join(keys)}"
    allowed = _allowed(_schema(key))
    if kind == "missing":
        return f" is missing: must be {allowed}"
    shown = f": {len(value)} of them" if isinstance(value, (list, dict)) else f" = {_toml(value)}"
    return f"{shown}: must be {allowed}"


def _schema(key: Key) -> dict[str, Any]:
    """The JSON schema of what stands at `key`."""
    whole = Config.model_json_schema()
    node: dict[str, Any] = whole
    for part in key:
        node = node["items"] if isinstance(part, int) else node["properties"][part]
        node = node.get("anyOf", [node])[0]
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _allowed(schema: dict[str, Any]) -> str:
    """In words, which values a schema allows."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    words = _TYPES[schema["type"]]
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words += f", {low} to {high}"
    elif low is not None:
        words += f", {low} or more"
    if "minItems" in schema:
        words += f" of {schema['minItems']} to {schema['maxItems']}"
    if "maxLength" in schema:
        words += f" of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    if "pattern" in schema:
        words += " that begins with a letter or digit and has only letters, digits and . _ - in it"
    return words


def _toml(value: object) -> str:
    """A value, roughly as it stands in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, str) else str(value)


def _dotted(key: Key) -> str:
    """A key in one piece; the members of a list count from 1."""
    return "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


# -- values against each other ------------------------------------------------------------------------


def _crosschecked(config: Config) -> Iterator[tuple[Key, str]]:
    """Every conflict between values that are right by themselves: the key to blame, and the reason."""
    yield from _check_members(config)
    yield from _check_outputs(config)
    capture, sync, feed = config.capture, config.sync, config.feed
    if (capture.interface is None) == (capture.file is None):
        both = "both are set" if capture.file else "neither is set"
        yield ("capture",), f": set exactly one of interface and file ({both})"
    if capture.interface is not None:
        for name in ("pps", "from_start"):
            if getattr(capture, name):
                yield ("capture", name), " is for a file: remove it, or set capture.file in place of interface"
    try:
        _ = config.metrics.address
    except PeerError:
        wrong = f' = "{config.metrics.listen}": is no address: write HOST:PORT, an IPv6 host in brackets'
        yield ("metrics", "listen"), wrong
    if sync.l > sync.k:
        yield ("sync", "l"), f" = {sync.l}: an anchor is no longer than a cluster; at most sync.k = {sync.k}"
    if sync.report_ms * 2 > sync.delay_ms:
        yield ("sync", "report_ms"), f" = {sync.report_ms}: at most half of sync.delay_ms = {sync.delay_ms}"
    if feed.mode == "optimistic":
        yield (
            ("feed", "mode"),
            ' = "optimistic": needs checkpoints, which this version does not have; use "pessimistic"',
        )


def _check_members(config: Config) -> Iterator[tuple[Key, str]]:
    """Names and addresses differ, this replica is one of them, and CURVE is set where it must be."""
    members = config.cluster.member
    names = [member.name for member in members]
    if config.replica.name not in names:
        yield ("replica", "name"), f' = "{config.replica.name}": is no cluster.member; those are {", ".join(names)}'
    addresses: dict[str, Address] = {}
    for place, member in enumerate(members):
        key: Key = ("cluster", "member", place)
        if member.name in names[:place]:
            yield (*key, "name"), f' = "{member.name}": is there twice'
        if member.address in addresses:
            yield (*key, "address"), f' = "{member.address}": is there twice'
        try:
            addresses[member.address] = parse(member.address)
        except PeerError as error:
            yield (*key, "address"), f": {error}"
    exposed = [text for text, address in addresses.items() if not address.loopback]
    if not exposed and config.cluster.key_file is None:
        for place, member in enumerate(members):
            if member.public_keys:
                why = "goes with cluster.key_file, which is missing; set both or neither"
                yield ("cluster", "member", place, "public_key" if member.public_key else "old_public_key"), f": {why}"
        return
    why = f"CURVE is required, because {exposed[0]} is not loopback" if exposed else "cluster.key_file asks for CURVE"
    if config.cluster.key_file is None:
        yield ("cluster", "key_file"), f" is missing: {why}; make keys with ftnids keygen"
    for place, member in enumerate(members):
        if member.public_key is None:
            yield ("cluster", "member", place, "public_key"), f" is missing: {why}; make keys with ftnids keygen"
    yield from _check_keys(members)


def _check_keys(members: list[Member]) -> Iterator[tuple[Key, str]]:
    """No two members have one key, and none has it twice."""
    owners: dict[str, str] = {}
    for place, member in enumerate(members):
        for name in ("public_key", "old_public_key"):
            if (key := getattr(member, name)) is None:
                continue
            if key in owners:
                twice = f"{owners[key]} and {member.name}" if owners[key] != member.name else f"{member.name} twice"
                why = f": is that of {twice}; every replica needs a pair of its own (ftnids keygen)"
                yield ("cluster", "member", place, name), why
            owners.setdefault(key, member.name)


def _check_outputs(config: Config) -> Iterator[tuple[Key, str]]:
    """No two outputs write one file, and none writes what is read."""
    cluster, feed = config.cluster, config.feed
    taken: dict[object, str] = {}
    read = [config.capture.file, cluster.secret_file, cluster.key_file, *map(Path, filter(None, [feed.ids_config]))]
    for path in (config.source, *filter(None, read), *feed.rules):
        taken[_file(path)] = "is a file that is read"
    taken[_file(config.replica.log_dir / "status.json")] = "is where the status is written"
    for key in (("alerts", "output"), ("alerts", "eve_output"), ("feed", "agreed_pcap"), ("feed", "hashes")):
        name = getattr(getattr(config, key[0]), key[1])
        output = config.in_log_dir(name)
        if output is None or (file := _file(output)) is None:
            continue
        if why := taken.get(file):
            yield key, f" = {_toml(name)}: {why}; name another file"
        taken.setdefault(file, f"is what {_dotted(key)} writes, too")


def _file(path: Path) -> object:
    """What tells a file from others, however links lead to it; None for what is no file, as /dev/null."""
    try:
        found = path.stat()
    except OSError:  # not there yet
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


# -- paths ----------------------------------------------------------------------------------------


def _absolute(config: Config, base: Path) -> Config:
    """`config` with every relative path made absolute, starting from `base`."""
    feed = config.feed
    # An IDS may be named as on PATH; with a slash in it, it is a path.
    binary = str(base / feed.ids_binary) if "/" in feed.ids_binary else feed.ids_binary
    ids_config = str(base / feed.ids_config) if feed.ids_config else ""
    changed = {
        "replica": _rebased(config.replica, base, "run_dir", "log_dir"),
        "cluster": _rebased(config.cluster, base, "secret_file", "key_file"),
        "capture": _rebased(config.capture, base, "file"),
        "feed": feed.model_copy(
            update={"ids_binary": binary, "ids_config": ids_config, "rules": [base / rule for rule in feed.rules]}
        ),
    }
    return config.model_copy(update=changed)


def _rebased(section: _S, base: Path, *names: str) -> _S:
    """A copy of `section` whose paths `names` start from `base`."""
    paths = {name: getattr(section, name) for name in names}
    return section.model_copy(update={name: base / path for name, path in paths.items() if path is not None})
