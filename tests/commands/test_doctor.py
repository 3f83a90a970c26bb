"""`ftnids doctor`: every finding in both its states, and what the command prints."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ftnids import config
from ftnids.commands import doctor as doctor_command
from ftnids.commands.doctor import command
from ftnids.doctor import Finding, Level, frames, host, interface, programs, sample, setting
from ftnids.errors import CaptureError, UsageError
from ftnids.peers import keys

EXAMPLE = Path(__file__).parents[2] / "replicas" / "replica.toml"
LINK = "ftnids-doctor"  # a network namespace, and the name of nothing else


def program(path: Path, text: str, status: int = 0) -> Path:
    """A program that prints `text` whatever it is asked."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
    path.chmod(0o755)
    return path


def example(tmp_path: Path, **changes: str) -> config.Config:
    """The example configuration with some values replaced, beside an empty `keys` directory."""
    text = EXAMPLE.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return config.parse_text(text, tmp_path / "replica.toml")


def is_advice(finding: Finding, level: Level, what: str, do: str) -> None:
    """The finding says all four things."""
    assert finding.level == level, finding
    assert what in finding.what
    assert finding.why
    assert do in finding.do


# -- programs ---------------------------------------------------------------------------------------


def test_suricata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    program(tmp_path / "suricata", "This is Suricata version 7.0.10 RELEASE")
    (found,) = programs.ids("suricata", wanted=True)
    assert found.level == Level.OK
    assert "7.0.10" in found.what
    (missing,) = programs.ids("suricata", wanted=True, binary=str(tmp_path / "none"))
    is_advice(missing, Level.FAIL, "suricata", "install")


def test_a_missing_ids_that_nobody_asked_for_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTNIDS_SNORT", str(tmp_path / "none"))
    (missing,) = programs.ids("snort", wanted=False)
    is_advice(missing, Level.WARN, "snort", "FTNIDS_SNORT")


def test_snort_and_its_daq(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "  ''''    Version 3.9.1.0\n           Using DAQ version 3.0.21"
    monkeypatch.setenv("FTNIDS_SNORT", str(program(tmp_path / "snort", text)))
    snort, daq = programs.ids("snort", wanted=True)
    assert (snort.level, daq.level) == (Level.OK, Level.OK)
    assert "3.9.1.0" in snort.what
    assert "3.0.21" in daq.what


@pytest.mark.parametrize(
    ("text", "status", "level", "what"),
    [
        ("Version: 4.1.1\nLooks good.", 0, Level.OK, "criu 4.1.1"),
        ("Version: 3.17.1\nError (criu/vdso.c:1): Unexpected rt vDSO area bounds", 1, Level.WARN, "older than 4.1"),
        ("Version: 4.1\nError (criu/vdso.c:1): Unexpected rt vDSO area bounds", 0, Level.OK, "criu 4.1 "),
        ("no such thing", 0, Level.WARN, "no such thing"),
    ],
)
def test_criu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, status: int, level: Level, what: str) -> None:
    monkeypatch.setenv("FTNIDS_CRIU", str(program(tmp_path / "criu", text, status)))
    finding = programs.criu()
    assert finding.level == level
    assert what in finding.what
    assert bool(finding.do) == (level != Level.OK)


def test_criu_that_cannot_be_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTNIDS_CRIU", str(tmp_path / "none"))
    is_advice(programs.criu(), Level.WARN, "no program", "FTNIDS_CRIU")


@pytest.mark.parametrize(
    ("core", "level"), [({"IMPL": "c"}, Level.OK), ({"IMPL": "python"}, Level.WARN), ({}, Level.FAIL)]
)
def test_core(monkeypatch: pytest.MonkeyPatch, core: dict[str, str], level: Level) -> None:
    module = types.ModuleType("ftnids.core")
    vars(module).update(core)
    monkeypatch.setitem(sys.modules, "ftnids.core", module)
    assert programs.core().level == level


def test_a_core_that_cannot_be_loaded_is_a_finding() -> None:
    """Nothing else is lost: the doctor is for hosts where something is wrong."""
    asked = [sys.executable, "-m", "ftnids", "doctor", "-i", "lo", "--json"]
    environment = {**os.environ, "FTNIDS_IMPL": "none"}
    done = subprocess.run(asked, cwd=EXAMPLE.parents[1], env=environment, capture_output=True, text=True, check=False)
    levels = {finding["name"]: finding["level"] for finding in json.loads(done.stdout)["findings"]}
    assert (done.returncode, levels["core"], levels["frames"], levels["python"]) == (1, "fail", "warn", "ok")


def test_python_and_libpcap() -> None:
    assert programs.python().level == Level.OK
    assert programs.libpcap().level == Level.OK


# -- host and settings ----------------------------------------------------------------------------------


def test_capabilities(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapPrm:\t{(1 << 64) - 1:016x}\nCapEff:\t{1 << 12 | 1 << 21:016x}\n")
    levels = {found.name: found.level for found in host.capabilities(capturing=True, status=status)}
    assert levels == {
        "cap_net_raw": Level.FAIL,
        "cap_net_admin": Level.OK,
        "cap_sys_admin": Level.OK,
        "cap_checkpoint_restore": Level.WARN,
    }
    net_raw = host.capabilities(capturing=False, status=status)[0]
    is_advice(net_raw, Level.WARN, "CAP_NET_RAW is not held", "AmbientCapabilities=CAP_NET_RAW")


def test_shared_memory(tmp_path: Path) -> None:
    assert host.shared_memory(None).level == Level.OK
    huge = example(tmp_path, **{"arena_mb = 256": "arena_mb = 131072"})
    is_advice(host.shared_memory(huge), Level.FAIL, "MB free", "remount,size=")
    is_advice(host.shared_memory(None, tmp_path / "none"), Level.FAIL, "No such file", "mount -t tmpfs")


def test_a_ring_that_is_there_needs_no_more_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the replica's own, or a killed one's, which the next one replaces."""
    full = types.SimpleNamespace(f_blocks=1_000, f_bavail=0, f_frsize=4_096)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    loaded = example(tmp_path, **{"arena_mb = 256": "arena_mb = 1", "recovered_mb = 64": "recovered_mb = 1"})
    loaded = loaded.model_copy(update={"ring": loaded.ring.model_copy(update={"slots": 1_024})})
    assert host.shared_memory(loaded, tmp_path).level == Level.FAIL
    (tmp_path / f"ftnids-{loaded.ring_name}").write_bytes(bytes(3 << 20))
    assert host.shared_memory(loaded, tmp_path).level == Level.OK


def test_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        loaded = example(tmp_path, **{"127.0.0.1:5701": f"127.0.0.1:{port}"})
        taken.listen()
        is_advice(setting.port(loaded), Level.FAIL, "Address already in use", "stop what listens there")
    assert setting.port(loaded).level == Level.OK
    member = [one.model_copy(update={"address": "tcp://192.0.2.1:5701"}) for one in loaded.cluster.member]
    away = loaded.model_copy(update={"cluster": loaded.cluster.model_copy(update={"member": member})})
    is_advice(setting.port(away), Level.FAIL, "Cannot assign requested address", "no such address")


def test_keys(tmp_path: Path) -> None:
    loaded = example(tmp_path)
    is_advice(setting.secrets(loaded), Level.FAIL, "No such file", "ftnids keygen")
    silent = example(tmp_path, **{'secret_file = "keys/cluster.secret" #': "#"})
    is_advice(setting.secrets(silent), Level.WARN, "is not there", "ftnids keygen")
    public = keys.generate(tmp_path / "keys", ["a", "b"])
    assert setting.secrets(loaded).level == Level.OK
    (tmp_path / "keys/cluster.secret").chmod(0o644)
    is_advice(setting.secrets(loaded), Level.FAIL, "mode 0644 lets others read it", "chmod 600")
    (tmp_path / "keys/cluster.secret").chmod(0o600)
    curve = {
        '# key_file = "keys/a': 'key_file = "keys/a',
        'address = "tcp://127.0.0.1:5701"': f'address = "tcp://127.0.0.1:5701"\npublic_key = "{public["a"]}"',
        'address = "tcp://127.0.0.1:5702"': f'address = "tcp://127.0.0.1:5702"\npublic_key = "{public["b"]}"',
    }
    assert "the key pair fits" in setting.secrets(example(tmp_path, **curve)).what
    curve['# key_file = "keys/a'] = 'secret_file = "keys/cluster.secret"\nkey_file = "keys/b'
    curve['secret_file = "keys/cluster.secret" #'] = "#"
    is_advice(setting.secrets(example(tmp_path, **curve)), Level.FAIL, "is not the secret key", "compare them")


def test_user(tmp_path: Path, needs_root: None) -> None:
    is_advice(setting.user(example(tmp_path)), Level.WARN, "started as root it stays root", "set replica.user")
    changes = {'user = ""': 'user = "nobody"', '"/run/ftnids"': '"run"', '"/var/log/ftnids"': '"log"'}
    nobody = example(tmp_path, **changes)
    found = setting.user(nobody)
    assert found.level == Level.OK
    assert found.what.endswith("goes on as nobody and keeps no capability")
    keys.generate(tmp_path / "keys", ["a"])
    is_advice(setting.user(nobody), Level.FAIL, "cluster.secret does not belong to nobody", "chown -R nobody")
    shutil.chown(tmp_path / "keys/cluster.secret", "nobody")
    low = setting.user(example(tmp_path, **changes, **{"127.0.0.1:5701": "127.0.0.1:571"}))
    assert "keeps CAP_NET_BIND_SERVICE (a rejoin listens at port 571 again)" in low.what
    is_advice(
        setting.user(example(tmp_path, **{'user = ""': 'user = "nemo-x"'})), Level.FAIL, "no such user", "useradd"
    )


def test_a_user_who_may_not_run_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, needs_root: None
) -> None:
    """As `run -T` finds; without an IDS nothing is started."""
    python = tmp_path / "python"  # pytest's directories are their user's alone
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(python))
    changes = {'user = ""': 'user = "nobody"', '"/run/ftnids"': '"run"', '"/var/log/ftnids"': '"log"'}
    assert setting.user(example(tmp_path, **changes)).level == Level.OK
    found = setting.user(example(tmp_path, **changes, **{'ids = "none"': 'ids = "suricata"'}))
    is_advice(found, Level.FAIL, f"may not run {python}", "install ftnids where that user can read it")


# -- the interface ----------------------------------------------------------------------------------


def test_an_interface_that_is_not_there() -> None:
    for name in ("nowhere", "../x", "a" * 16):
        (finding,) = interface.examine(name, config.Capture())
        is_advice(finding, Level.FAIL, "there is no interface", "lo")
        assert "down" not in finding.why


def test_a_root_directory_without_sys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(interface, "SYS", tmp_path / "none")
    (finding,) = interface.examine("lo", config.Capture())
    is_advice(finding, Level.FAIL, "is not there, which tells of interfaces", "mount -t sysfs")


def test_the_loopback_interface_is_for_trials() -> None:
    """Nobody should take its address away."""
    found = [one for one in interface.examine("lo", config.Capture()) if one.name in ("interface", "frames", "buffer")]
    assert [one.level for one in found] == [Level.OK, Level.WARN, Level.WARN]
    is_advice(found[1], Level.WARN, "the loopback interface", "name the interface of a tap or a SPAN port")
    is_advice(found[2], Level.WARN, "kernel buffer", "a smaller capture.snaplen, or capture.buffer_mb = ")
    assert not any(word in one.do for one in found for word in ("flush", "disable_ipv6", "ethtool"))


@contextlib.contextmanager
def namespace() -> Iterator[None]:
    """A network namespace with a veth pair, `cap` and its peer, as a host would have them."""
    commands = [
        f"ip netns add {LINK}",
        f"ip -n {LINK} link add cap type veth peer name far",
        f"ip -n {LINK} link set far up",
    ]
    try:
        for line in commands:
            subprocess.run(line.split(), check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", LINK], check=False, capture_output=True)


def inside(line: str) -> None:
    subprocess.run(["ip", "netns", "exec", LINK, "sh", "-c", line], check=True, capture_output=True)


def examined() -> tuple[int, list[dict[str, Any]]]:
    """Exit status of the command, run in the namespace, and its findings on the interface."""
    asked = ["ip", "netns", "exec", LINK, sys.executable, "-m", "ftnids", "doctor", "-i", "cap", "--json"]
    done = subprocess.run(asked, cwd=EXAMPLE.parents[1], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0), done.stderr
    return done.returncode, [one for one in report["findings"] if one["name"] in ("interface", "frames", "buffer")]


@pytest.mark.usefixtures("needs_root")
def test_the_advice_for_an_interface_cures_it() -> None:
    """Doing what the doctor says, and nothing else, leaves nothing to say about the interface."""
    with namespace():
        status, (down, *_) = examined()
        assert (status, down["level"]) == (1, "fail")
        inside(down["do"])
        inside("ip address add 192.0.2.1/24 dev cap")
        inside("ethtool -K cap gro on")
        _, (up, *faults, buffer) = examined()
        assert up["level"] == "ok"
        assert {fault["level"] for fault in faults} == {"warn"}
        assert all(
            any(part in fault["do"] for fault in faults) for part in ("gro off", "address flush", "disable_ipv6")
        )
        assert (buffer["name"], buffer["level"]) == ("buffer", "warn")
        for command in (*(fault["do"] for fault in faults), buffer["do"].partition(", or ")[0]):
            inside(command)
        _, found = examined()
        assert [one["level"] for one in found] == ["ok", "ok", "ok"]


# -- the command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "status"), [(Level.OK, 0), (Level.WARN, 0), (Level.FAIL, 1)])
def test_the_exit_status_is_that_of_the_worst_finding(
    monkeypatch: pytest.MonkeyPatch, level: Level, status: int
) -> None:
    findings = [Finding(Level.OK, "a", "all well", "it matters"), Finding(level, "b", "this", "it matters", "that")]
    monkeypatch.setattr(doctor_command, "examine", lambda config, capture: findings)
    plain = CliRunner().invoke(command, [], standalone_mode=False)
    assert plain.return_value == status
    assert "ok    all well" in plain.output
    assert ("do:  that" in plain.output) == (level != Level.OK)
    as_json = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    assert as_json.return_value == status
    report = json.loads(as_json.output)
    assert report["ok"] == (status == 0)
    assert report["findings"][1] == {"level": level, "name": "b", "what": "this", "why": "it matters", "do": "that"}


def test_it_needs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No configuration, no interface, no programs on PATH: still an answer, and one JSON object alone."""
    monkeypatch.setenv("PATH", str(tmp_path))
    result = CliRunner().invoke(command, ["--json"], standalone_mode=False)
    names = [finding["name"] for finding in json.loads(result.output)["findings"]]
    assert {"python", "libpcap", "core", "suricata", "snort", "criu"} <= set(names)


def test_the_interface_is_the_configured_one(tmp_path: Path) -> None:
    path = tmp_path / "replica.toml"
    path.write_text(EXAMPLE.read_text().replace('interface = "eth1"', 'interface = "nowhere"'))
    result = CliRunner().invoke(command, ["-c", str(path), "--json"], standalone_mode=False)
    report = json.loads(result.output)
    assert report["interface"] == "nowhere"
    assert {"interface", "port", "keys"} <= {finding["name"] for finding in report["findings"]}
    assert result.return_value == 1


# -- host, once more: what costs, not what fails ------------------------------------------------------


def test_huge_pages(tmp_path: Path) -> None:
    setting, mounts = tmp_path / "shmem_enabled", tmp_path / "mounts"
    setting.write_text("always within_size advise [never] deny force\n")
    mounts.write_text("tmpfs /dev/shm tmpfs rw,relatime 0 0\n")
    small, large = config.Ring(), config.Ring(arena_mb=2_048)

    def level(ring: config.Ring) -> Finding:
        loaded = example(tmp_path).model_copy(update={"ring": ring})
        return host.huge_pages(loaded, mounts, setting)

    assert level(small).level == Level.OK
    is_advice(level(large), Level.WARN, "gives no huge pages", "remount,huge=within_size /dev/shm")
    mounts.write_text("tmpfs /dev/shm tmpfs rw,huge=within_size 0 0\n")
    assert level(large).level == Level.OK
    setting.write_text("always within_size advise never [deny] force\n")
    assert level(large).level == Level.WARN
    assert "no huge pages for shared memory" in host.huge_pages(None, mounts, tmp_path / "none").what


@pytest.mark.parametrize(
    ("kernel", "level", "what"),
    [
        ((False, 1_200), Level.OK, "synchronised, to 1200 us"),
        ((True, 16_000_000), Level.WARN, "nothing keeps"),
        ((False, -1), Level.OK, "does not tell"),
    ],
)
def test_clock(monkeypatch: pytest.MonkeyPatch, kernel: tuple[bool, int], level: Level, what: str) -> None:
    assert host.clock().level in (Level.OK, Level.WARN)  # whatever it is here
    monkeypatch.setattr(host, "_kernel_clock", lambda: kernel)
    found = host.clock()
    assert (found.level, what in found.what) == (level, True)
    assert ("chrony" in found.do) == (level != Level.OK)


def test_socket_buffers(tmp_path: Path) -> None:
    for name, size in (("rmem_max", 212_992), ("wmem_max", 1 << 20)):
        (tmp_path / name).write_text(f"{size}\n")
    found = host.socket_buffers(tmp_path)
    is_advice(found, Level.WARN, "net.core.rmem_max is 212992", "sysctl -w net.core.rmem_max=262144")
    assert "wmem" not in found.do
    (tmp_path / "rmem_max").write_text("262144\n")
    assert host.socket_buffers(tmp_path).level == Level.OK
    assert host.socket_buffers(tmp_path / "none").level == Level.OK


def test_peers(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        loaded = example(tmp_path, **{"127.0.0.1:5702": f"127.0.0.1:{port}"})
        (refused,) = setting.peers(loaded)
        is_advice(refused, Level.WARN, "b at tcp://127.0.0.1", "start b, if it is not running; else see firewalls")
        listening.listen()
        (found,) = setting.peers(loaded)
        assert (found.level, found.what) == (Level.OK, f"b answers at tcp://127.0.0.1:{port}")
    members = loaded.cluster.member
    lost = [members[0], members[1].model_copy(update={"address": "tcp://no.such.host.invalid:5702"})]
    cluster = loaded.cluster.model_copy(update={"member": lost})
    (unknown,) = setting.peers(loaded.model_copy(update={"cluster": cluster}))
    is_advice(unknown, Level.FAIL, "b: ", "correct the address in cluster.member")


def test_receivers_of_alerts(tmp_path: Path) -> None:
    loaded = example(tmp_path)
    assert setting.receivers(loaded) == []
    redis = loaded.alerts.redis.model_copy(update={"url": f"unix://{tmp_path}/none"})

    def found(**changes: Any) -> list[Finding]:
        alerts = loaded.alerts.model_copy(update=changes)
        return setting.receivers(loaded.model_copy(update={"alerts": alerts}))

    stdout, gone = found(redis=redis, stdout=True)
    assert (stdout.level, stdout.what) == (Level.OK, "alerts.stdout answers")
    is_advice(gone, Level.WARN, "alerts.redis: ", "start the Redis server")
    (secret,) = found(redis=redis.model_copy(update={"password_file": tmp_path / "none"}))
    is_advice(secret, Level.FAIL, "alerts.redis.password_file", "correct [alerts]")
    clear = found(redis=redis.model_copy(update={"url": "redis://no.such.host.invalid/0"}))
    is_advice(clear[-1], Level.WARN, "as plain text", "rediss://")


def test_what_is_not_promiscuous() -> None:
    assert interface.promiscuous("lo", config.Capture()).level == Level.OK
    found = interface.promiscuous("lo", config.Capture(promiscuous=False))
    is_advice(found, Level.WARN, "lo takes only frames to this host", "capture.promiscuous = true")


def test_the_queue_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interface.queue("lo") == []
    monkeypatch.setattr(interface, "receive_queue", lambda name: (4_096, 512))
    (short,) = interface.queue("eth1")
    is_advice(short, Level.WARN, "512 frames, of 4096", "ethtool -G eth1 rx 4096")
    monkeypatch.setattr(interface, "receive_queue", lambda name: (4_096, 4_096))
    assert [one.level for one in interface.queue("eth1")] == [Level.OK]


# -- samples --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_root")
def test_a_sample_is_what_the_interface_brings(tmp_path: Path) -> None:
    """On loopback, where this test is the traffic."""
    path, stop = tmp_path / "sample.pcap", threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:

        def traffic() -> None:
            while not stop.wait(0.01):
                sender.sendto(b"ftnids-doctor", ("127.0.0.1", 9))

        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            settings = config.Capture(bpf="udp port 9", snaplen=100, buffer_mb=1)
            count = sample.take(settings, "lo", path, now=sample.EVERY_S - 0.1)
        finally:
            stop.set()
            thread.join()
    taken = frames.read(path)
    assert len(taken.frames) == count > 10
    assert path.stat().st_mode & 0o777 == 0o600
    assert all(frame.data.endswith(b"ftnids-doctor") for frame in taken.frames)
    with pytest.raises(CaptureError, match="cannot be written: File exists; name a new file"):
        sample.take(settings, "lo", path, now=0)


def test_a_sample_wants_an_interface(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sample: name the interface with -i"):
        CliRunner().invoke(command, ["--sample", str(tmp_path / "x")], standalone_mode=False, catch_exceptions=False)
