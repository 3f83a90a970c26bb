"""`ftnids run -T`: each thing that a start would refuse is a line of its own, and nothing is made."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner, Result

from ftnids.cli import cli
from ftnids.core import pcap_header
from ftnids.errors import ConfigError
from ftnids.peers import keys

ROOT: Final = Path(__file__).resolve().parent.parent
NOBODY: Final = "nobody"
TOML: Final = """
[replica]
name = "a"
run_dir = "run"
log_dir = "log"
[cluster]
name = "check"
secret_file = "keys/cluster.secret"
key_file = "keys/a.key_secret"
[[cluster.member]]
name = "a"
address = "tcp://127.0.0.1:5701"
public_key = "{a}"
[[cluster.member]]
name = "b"
address = "tcp://127.0.0.1:5702"
public_key = "{b}"
[capture]
interface = "lo"
bpf = "tcp port 80 and inbound"
[ring]
[feed]
[alerts]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the configuration of a replica that could start, and what it names."""
    made = keys.generate(tmp_path / "keys", ["a", "b"])
    (tmp_path / "a.toml").write_text(TOML.format(**made))
    for name in ("run", "log"):
        (tmp_path / name).mkdir()
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    """Replace a part of the configuration."""
    text = (folder / "a.toml").read_text()
    assert text.count(old) == 1
    (folder / "a.toml").write_text(text.replace(old, new))


def check(folder: Path) -> Result:
    return CliRunner().invoke(cli, ["run", "-c", str(folder / "a.toml"), "-T"], standalone_mode=False)


def faults(folder: Path) -> list[str]:
    """What is said, without the name of the file."""
    error = check(folder).exception
    assert isinstance(error, ConfigError), error
    assert error.exit_status == 1
    return [line.removeprefix(f"{folder / 'a.toml'}: ") for line in str(error).splitlines()]


def test_all_is_well(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    result = check(folder)
    assert result.return_value == 0
    assert result.stdout == f"{folder}/a.toml: the configuration of replica a is valid, and what it names is there\n"
    assert sorted(folder.rglob("*")) == before


def test_it_can_be_asked_beside_the_running_replica(folder: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        change(folder, "127.0.0.1:5701", f"127.0.0.1:{listening.getsockname()[1]}")
        assert check(folder).return_value == 0


def test_directories_that_a_start_would_make_may_be_missing(folder: Path) -> None:
    for name in ("run", "log"):
        (folder / name).rmdir()
    assert check(folder).return_value == 0
    assert not (folder / "log").exists()


def unsafe(folder: Path) -> None:
    (folder / "keys/cluster.secret").chmod(0o644)


def gone(folder: Path) -> None:
    (folder / "keys/cluster.secret").unlink()


def keyless(folder: Path) -> None:
    (folder / "keys/a.key_secret").unlink()


def foreign_ring(folder: Path) -> None:
    Path("/dev/shm/ftnids-check-a").write_text("thesis")


def setting(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: change(folder, old, new)


FAULTS: Final = [
    (unsafe, "cluster.secret_file .*mode 0644 lets others read it: chmod 600"),
    (gone, "cluster.secret_file .*No such file or directory"),
    (keyless, "cluster.key_file .*No such file or directory"),
    (foreign_ring, "ring check-a: /dev/shm/ftnids-check-a is there and no ring of ftnids"),
    (setting("keys/a.key", "keys/b.key"), "cluster.key_file .*is not the secret key of this replica's public_key"),
    (setting('"lo"', '"nowhere"'), 'capture.interface = "nowhere": there is no interface nowhere; name one of'),
    (setting("tcp port 80 and", "port 80 porridge"), r"capture\.bpf: bad filter: .*; try it with tcpdump -d"),
    (setting("127.0.0.1:5701", "192.0.2.1:5701"), "tcp://192.0.2.1:5701: Cannot assign requested address: correct"),
    (setting('"run"', '"a.toml"'), "replica.run_dir .*a.toml: is no directory that user id"),
    (setting('"log"', '"a.toml/log"'), "replica.log_dir .*a.toml/log: cannot be made: .*a.toml is no directory"),
    (setting('"log"', '"/proc/x"'), "replica.log_dir /proc/x: cannot be made: /proc may not be written"),
    (setting('"run"', '"/proc"'), "replica.run_dir /proc: is no directory that user id"),
    (setting('interface = "lo"', 'interface = "lo"\ncpus = [4095]'), "capture.cpus: CPU 4095 is not there for this"),
    (setting("[ring]", '[ring]\ngroup = "nemo"'), 'ring.group = "nemo": there is no such group'),
    (setting("[feed]", '[feed]\nhashes = "x/h"'), "feed.hashes .*log/x is no directory that user id"),
    (setting("[alerts]", '[alerts]\noutput = "."'), "alerts.output .*log: is no file that user id"),
    (setting("[feed]", '[feed]\nids = "suricata"\nids_binary = "./no"'), "suricata: no program '.*no' to run"),
    (setting('name = "a"\nrun', 'name = "a"\nuser = "nemo"\nrun'), 'replica.user = "nemo": there is no such user'),
    (setting('interface = "lo"', 'file = "no.pcap"'), "capture.file .*no.pcap: cannot be opened: No such file"),
    (setting('name = "check"', f'name = "{"c" * 64}"'), "ring name .*: must be 1 to 64 bytes"),
]


@pytest.mark.parametrize(("spoil", "fault"), FAULTS, ids=[fault for _, fault in FAULTS])
def test_each_fault_is_one_line(folder: Path, spoil: Callable[[Path], None], fault: str) -> None:
    try:
        spoil(folder)
        (found,) = faults(folder)
    finally:
        Path("/dev/shm/ftnids-check-a").unlink(missing_ok=True)
    assert re.match(fault, found), found


def test_all_faults_are_told_at_once(folder: Path) -> None:
    unsafe(folder)
    keyless(folder)
    change(folder, '"lo"', '"nowhere"')
    assert [line.split()[0] for line in faults(folder)] == [
        "capture.interface",
        "cluster.secret_file",
        "cluster.key_file",
    ]


def test_a_file_is_read_with_its_filter(folder: Path) -> None:
    change(folder, 'interface = "lo"', 'file = "x.pcap"')
    (folder / "x.pcap").write_bytes(b"thesis" * 100)
    assert "x.pcap: " in faults(folder)[0]
    (folder / "x.pcap").write_bytes(pcap_header(1, 65535))
    change(folder, "80 and inbound", "porridge")
    assert "bad filter" in faults(folder)[0]
    change(folder, "porridge", "80")
    assert check(folder).return_value == 0
    (folder / "x.pcap").unlink()
    os.mkfifo(folder / "x.pcap")
    assert check(folder).return_value == 0, "nobody writes it yet"


def test_rules_are_tried(folder: Path, needs_suricata: Path) -> None:
    (folder / "bad.rules").write_text('alert http any any -> any any (msg:"no end"; content:"x)\n')
    change(folder, "[feed]", '[feed]\nids = "suricata"\nrules = ["bad.rules"]')
    (found,) = faults(folder)
    assert found.startswith("suricata: refuses")
    (folder / "bad.rules").unlink()
    (found,) = faults(folder)
    assert re.match("feed.rules: cannot read .*bad.rules: No such file", found)


def test_an_ids_that_is_tried_leaves_nothing(folder: Path, needs_suricata: Path) -> None:
    change(folder, "[feed]", '[feed]\nids = "suricata"')
    before = sorted(folder.rglob("*"))
    assert check(folder).return_value == 0
    assert sorted(folder.rglob("*")) == before


def test_a_state_that_cannot_travel_is_told(
    folder: Path, needs_suricata: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, "[feed]", '[feed]\nids = "suricata"\nstate = "transfer"')
    monkeypatch.setenv("FTNIDS_CRIU", str(folder / "none"))
    (found,) = faults(folder)
    assert found.startswith(f'feed.state = "transfer": no program {folder / "none"} to run; ')
    assert found.endswith('; or use "cold"')


def test_a_missing_secret_that_may_be_missing_is_a_warning(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(folder, 'secret_file = "keys/cluster.secret"\n', "")
    gone(folder)
    result = check(folder)
    assert result.return_value == 0
    assert "no_cluster_secret" in result.stderr


@pytest.fixture
def open_folder(needs_root: None) -> Iterator[Path]:
    """A directory that other users may enter; pytest's own are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = keys.generate(Path(name) / "keys", ["a", "b"])
        (Path(name) / "keys").chmod(0o755)
        (Path(name) / "a.toml").write_text(TOML.format(**made))
        change(Path(name), 'name = "a"\nrun', f'name = "a"\nuser = "{NOBODY}"\nrun')
        yield Path(name)


def test_files_are_judged_as_the_replicas_user(open_folder: Path) -> None:
    """Root could read them all; nobody, as whom the replica goes on, must."""
    command = [sys.executable, "-m", "ftnids", "run", "-T", "-c", str(open_folder / "a.toml")]
    (open_folder / "log").mkdir(0o700)

    def said() -> list[str]:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == bool(done.stderr)
        return done.stderr.removeprefix("ftnids: ").splitlines()

    uid = pwd.getpwnam(NOBODY).pw_uid
    log_dir, secret, key = said()
    assert f"replica.log_dir {open_folder}/log: is no directory that user id {uid} may write" in log_dir
    assert "cluster.secret: Permission denied" in secret
    assert "a.key_secret: Permission denied" in key
    for path in (open_folder / "log", *(open_folder / "keys").glob("*secret*")):
        shutil.chown(path, NOBODY)
    assert said() == []


def test_receivers_of_alerts_that_cannot_be_are_faults(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, asked = (folder / "a.toml").read_text(), ["run", "-c", str(folder / "a.toml"), "-T"]
    redis = '[alerts.redis]\nurl = "redis://127.0.0.1:1/0"\npassword_file = "keys/redis"\n'
    (folder / "a.toml").write_text(f"{text}stdout = true\nsyslog = true\n{redis}")
    with pytest.raises(ConfigError, match=r"alerts.redis.password_file .*/keys/redis: No such file"):
        CliRunner().invoke(cli, asked, standalone_mode=False, catch_exceptions=False)
    monkeypatch.setitem(sys.modules, "kafka", None)
    (folder / "a.toml").write_text(f'{text}[alerts.kafka]\nservers = ["k:9092"]\n')
    with pytest.raises(ConfigError, match=r"alerts.kafka.servers: needs a Python package"):
        CliRunner().invoke(cli, asked, standalone_mode=False, catch_exceptions=False)
