"""Launchers: how an IDS is found, checked and started on a pcap stream, or on a ring.

Each IDS is one class behind `IdsLauncher`.  The supervisor (`ftnids.feed.ids`) runs the command that
a launcher gives; `ftnids.alerts.readers` reads the file that the launcher names.  Nothing in here
starts an IDS for longer than a version or configuration check.
"""

from __future__ import annotations

import abc
import hashlib
import os
import re
import shutil
import stat
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from ftnids.alerts.readers import AlertReader as AlertReader  # for those who start an IDS
from ftnids.alerts.readers import EveReader, SnortJsonReader
from ftnids.errors import ConfigError, FeedError
from ftnids.limits import IDS_CHECK_S

HERE: Final = Path(__file__).resolve().parent
RULES: Final = HERE / "rules"
DAQ_FOLDER: Final = HERE / "daq" / "3"  # what is built for libdaq 3


class _Loaded:
    """A file as it was when it was read, once; `content` is for who makes this, and may be dropped."""

    def __init__(self, path: Path) -> None:
        self._stamp = self._look(path)  # first: a change meanwhile is noticed later
        self.content = path.read_bytes()
        self.digest = hashlib.sha256(self.content).digest()

    def differs(self, path: Path) -> bool:
        """Whether `path` holds something else now, or cannot be read."""
        try:
            return self._look(path) != self._stamp and hashlib.sha256(path.read_bytes()).digest() != self.digest
        except OSError:
            return True

    @staticmethod
    def _look(path: Path) -> tuple[int, int, int]:
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns


class IdsLauncher(abc.ABC):
    """One IDS program with the configuration and the rules that it is to run with.

    `binary` empty: found on the usual places; `config` empty: the minimal one shipped here;
    `rules` empty: the IDS's own event rules and ours.  FeedError when the program is not there,
    ConfigError when a named file is not.
    """

    name: ClassVar[str]
    alert_file: ClassVar[str]  # in the log directory
    cure: ClassVar[str]  # what to do when the program is missing
    shipped_config: ClassVar[Path]

    def __init__(self, binary: str = "", config: str = "", rules: Sequence[str | Path] = ()) -> None:
        self.binary = self._find(binary)
        self.version = self._version()
        self.config = _readable(config or self.shipped_config, "feed.ids_config")
        self.rules = [_readable(rule, "feed.rules") for rule in rules] or self._default_rules()
        self._loaded = {path: _Loaded(path) for path in [self.config, *self.rules]}
        merged = b"".join(b"# from %s\n%s\n" % (path.name.encode(), self._loaded[path].content) for path in self.rules)
        self._rules = zlib.compress(merged, 1)  # for a run that begins when other ones are in the files
        for loaded in self._loaded.values():
            loaded.content = b""

    @abc.abstractmethod
    def command(self, source: Path, log_dir: Path) -> list[str]:
        """The argument vector that reads the pcap stream or file `source` and logs into `log_dir`."""

    def ring_command(self, ring: str, log_dir: Path) -> list[str]:
        """The argument vector that reads the ring of that name and logs into `log_dir`; where `ring_fault` is ""."""
        raise NotImplementedError

    def ring_fault(self) -> str:
        """Why it cannot read a ring by itself, or ""."""
        return f"{self.name} reads pcap streams only"

    @abc.abstractmethod
    def check_command(self, log_dir: Path) -> list[str]:
        """The argument vector that tests configuration and rules, and ends."""

    @abc.abstractmethod
    def _candidates(self) -> list[str]:
        """Where the program may be, best first; a bare name is looked up on PATH."""

    @abc.abstractmethod
    def _default_rules(self) -> list[Path]:
        """The IDS's own event rules and ours."""

    @abc.abstractmethod
    def _parse_version(self, output: str) -> str | None:
        """The version in what the program says of itself, or None when it is another program."""

    def environment(self) -> Mapping[str, str]:
        """What the program's environment needs on top of ours."""
        return {}

    @abc.abstractmethod
    def reader(self, log_dir: Path) -> AlertReader:
        """A reader of the alerts that the IDS logs into `log_dir`."""

    @property
    def digest(self) -> str:
        """Hex digest over version, configuration and rules: equal on all replicas, or their alerts differ."""
        digest = hashlib.sha256(f"{self.name} {self.version}\n".encode())
        for path in [self.config, *self.rules]:
            digest.update(self._loaded[path].digest)
        return digest.hexdigest()

    def changed(self) -> list[Path]:
        """The files of configuration and rules that are not what they were when this launcher was made."""
        return [path for path, loaded in self._loaded.items() if loaded.differs(path)]

    def prepare(self, log_dir: Path) -> None:
        """Make `log_dir` (0700) and write the rules, as they were at first, into one file in it for the command."""
        log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (log_dir / "ids.rules").write_bytes(zlib.decompress(self._rules))

    def validate(self, log_dir: Path) -> None:
        """Let the IDS test its configuration and rules; FeedError carries its own first complaints."""
        self.prepare(log_dir)
        status, output = self._ask(self.check_command(log_dir))
        if status != 0:
            lines = [line.strip()[:_COMPLAINT_CHARS] for line in output.splitlines() if _COMPLAINT.search(line)]
            complaint = ", ".join(lines[:2]) or output.strip()[-_COMPLAINT_CHARS:]  # Suricata's second names the rule
            count = f"{len(self.rules)} rule file{'s' * (len(self.rules) != 1)}"
            raise FeedError(
                f"{self.name}: refuses {self.config} with {count}: {complaint}; correct feed.ids_config or feed.rules"
            )

    def _find(self, binary: str) -> Path:
        for candidate in [binary] if binary else self._candidates():
            if found := shutil.which(candidate):
                return Path(found).resolve()
        wanted = binary or self.name
        raise FeedError(f"{self.name}: no program {wanted!r} to run; {self.cure}, or name it in feed.ids_binary")

    def _version(self) -> str:
        _, output = self._ask([str(self.binary), "-V"])
        version = self._parse_version(output)
        if version is None:
            said = output.strip().splitlines()[:1] or ["nothing"]
            raise FeedError(f"{self.name}: {self.binary} -V says {said[0]!r}, which is no {self.name}; {self.cure}")
        return version

    def _ask(self, command: list[str]) -> tuple[int, str]:
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=IDS_CHECK_S,
                check=False,
            )
        except OSError as error:
            raise FeedError(f"{self.name}: cannot run {self.binary}: {error.strerror}; {self.cure}") from None
        except subprocess.TimeoutExpired:
            raise FeedError(f"{self.name}: {' '.join(command)} did not end within {IDS_CHECK_S:.0f} s") from None
        return done.returncode, done.stdout.decode(errors="replace")


class Suricata(IdsLauncher):
    """Suricata 7, one packet thread: the other run modes give other alerts from run to run."""

    name = "suricata"
    alert_file = "eve.json"
    cure = "install suricata 7 (Debian 12: apt-get install -t bookworm-backports suricata)"
    shipped_config = HERE / "suricata" / "suricata.yaml"
    event_rule_folders: ClassVar = ("/etc/suricata/rules", "/usr/share/suricata/rules")

    def command(self, source: Path, log_dir: Path) -> list[str]:
        return [*self._common(log_dir), "--runmode", "single", "-k", "none", "-r", str(source)]

    def reader(self, log_dir: Path) -> AlertReader:
        return EveReader(log_dir / self.alert_file)

    def check_command(self, log_dir: Path) -> list[str]:
        return [*self._common(log_dir), "-T"]

    def _common(self, log_dir: Path) -> list[str]:
        command = [str(self.binary), "-c", str(self.config), "-l", str(log_dir), "-S", str(log_dir / "ids.rules")]
        if self.config == self.shipped_config:
            folder = self.config.parent
            command += ["--set", f"classification-file={folder / 'classification.config'}"]
            command += ["--set", f"reference-config-file={folder / 'reference.config'}"]
        return command

    def _candidates(self) -> list[str]:
        return ["suricata", "/usr/bin/suricata", "/usr/local/bin/suricata"]

    def _default_rules(self) -> list[Path]:
        for folder in self.event_rule_folders:
            if found := sorted(Path(folder).glob("*-events.rules")):
                return [*found, RULES / "suricata.rules"]
        return [RULES / "suricata.rules"]

    def _parse_version(self, output: str) -> str | None:
        match = re.search(r"This is Suricata version (\S+)", output)
        return match and match[1]


class Snort(IdsLauncher):
    """Snort 3, which reads the ring through our DAQ module where that is built, else a pcap stream.

    From a pcap stream it reads packets one by one: by default it waits for a batch of 64 before it looks at the first.
    """

    name = "snort"
    alert_file = "alert_json.txt"
    cure = "build Snort 3, and name it in FTNIDS_SNORT"
    shipped_config = HERE / "snort" / "snort.lua"

    def command(self, source: Path, log_dir: Path) -> list[str]:
        return [*self._common(log_dir), "--daq-batch-size", "1", "-k", "none", "-r", str(source)]

    def ring_command(self, ring: str, log_dir: Path) -> list[str]:
        daq = ["--daq-dir", str(DAQ_FOLDER), "--daq", "ftnids", "--daq-var", f"log={log_dir / self.alert_file}"]
        return [*self._common(log_dir), *daq, "-k", "none", "-i", ring]

    def ring_fault(self) -> str:
        """Whether the module is there and this Snort's libdaq loads it."""
        if not any(DAQ_FOLDER.glob("daq_*.so")):
            return "the DAQ module is not built, because libdaq 3 was not found (make build, with FTNIDS_SNORT set)"
        _, output = self._ask([str(self.binary), "--daq-dir", str(DAQ_FOLDER), "--daq-list"])
        if re.search(r"^ftnids\(v", output, re.MULTILINE):
            return ""
        said = [line.strip() for line in output.splitlines() if "ftnids" in line]
        return f"its libdaq does not load {DAQ_FOLDER}: {said[0] if said else 'it does not say why'}"

    def reader(self, log_dir: Path) -> AlertReader:
        return SnortJsonReader(log_dir / self.alert_file)

    def environment(self) -> Mapping[str, str]:
        libraries = [str(path) for path in self._library_folders()]
        return {"LD_LIBRARY_PATH": ":".join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])}

    def check_command(self, log_dir: Path) -> list[str]:
        return [*self._common(log_dir), "-T"]

    def _common(self, log_dir: Path) -> list[str]:
        command = [str(self.binary), "-q", "-U", "-s", "65535", "-c", str(self.config)]  # -s: it takes 1518 bytes else
        command += ["-l", str(log_dir), "-R", str(log_dir / "ids.rules")]
        for folder in self._library_folders():
            if (folder / "daq").is_dir():
                command += ["--daq-dir", str(folder / "daq")]
        return command

    def _library_folders(self) -> list[Path]:
        """A Snort in a prefix of its own has its libdaq beside it."""
        binary: Path | None = getattr(self, "binary", None)
        return [] if binary is None else [p for p in [binary.parent.parent / "lib"] if (p / "libdaq.so.3").exists()]

    def _candidates(self) -> list[str]:
        named = os.environ.get("FTNIDS_SNORT")
        return [named] if named else ["snort", "/usr/local/bin/snort"]

    def _default_rules(self) -> list[Path]:
        return [RULES / "snort.rules"]

    def _parse_version(self, output: str) -> str | None:
        match = re.search(r"Version (3\.\S+)", output)
        return match and match[1]


LAUNCHERS: Final[Mapping[str, type[IdsLauncher]]] = {kind.name: kind for kind in (Suricata, Snort)}

_COMPLAINT_CHARS: Final = 300  # of one that is shown
_COMPLAINT: Final = re.compile(r"^E: |error|FATAL|ERROR", re.IGNORECASE)


def launcher(name: str, binary: str = "", config: str = "", rules: Sequence[str | Path] = ()) -> IdsLauncher:
    """The launcher of the IDS `name`; ConfigError for an IDS that is not known here."""
    if name not in LAUNCHERS:
        raise ConfigError(f"feed.ids: no IDS {name!r}; known are {', '.join(LAUNCHERS)} and none")
    return LAUNCHERS[name](binary, config, rules)


def _readable(path: str | Path, key: str) -> Path:
    resolved = Path(path).resolve()
    try:
        mode = resolved.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a directory is refused below
            raise ConfigError(f"{key}: {path} is no regular file; name one")
        resolved.open("rb").close()
    except OSError as error:
        raise ConfigError(f"{key}: cannot read {path}: {error.strerror}") from None
    return resolved
