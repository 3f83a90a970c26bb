"""The launchers: what they find, what they refuse, and that the shipped rules catch what they say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from ftnids.alerts.identity import Identifier
from ftnids.alerts.readers import Record
from ftnids.errors import ConfigError, FeedError
from snort_adapter import launchers
from snort_adapter.launchers import LAUNCHERS, RULES, IdsLauncher, Suricata, launcher

from .traffic import conversation, datagram, dns_query, get, write_pcap

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
ATTACKS = {
    8400001: conversation(1031, get("/cgi-bin/view?file=../../../../etc/passwd"), OK),
    8400002: conversation(1032, get("/cgi-bin/status", "() { :; }; /bin/sh -c id"), OK),
    8400003: conversation(1033, get("/items?id=1%20UNION%20SELECT%20name,password%20FROM%20users"), OK),
    8400004: conversation(1034, get("/scripts/..%255c../winnt/system32/cmd.exe?/c+dir"), OK),
    8400005: [datagram(53, dns_query("x7.canary.ftnids.test"))],
    8400006: [datagram(9999, b"FTNIDS-CANARY 1")],
}
HARMLESS = [
    *conversation(1041, get("/union/station?select=no"), OK),
    *conversation(1042, get("/passwd"), OK),
    datagram(53, dns_query("www.example.test")),
    datagram(9999, b"nothing to see"),
]


@pytest.fixture(params=sorted(LAUNCHERS))
def ids(request: pytest.FixtureRequest) -> IdsLauncher:
    """Each IDS that this machine has, as it is by default."""
    binary = request.getfixturevalue(f"needs_{request.param}")
    return launcher(request.param, str(binary))


def run(ids: IdsLauncher, source: Path, log_dir: Path) -> list[Record]:
    """All records of the IDS over a capture file."""
    ids.prepare(log_dir)
    done = subprocess.run(
        ids.command(source, log_dir), env={**os.environ, **ids.environment()}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    reader = ids.reader(log_dir)
    records = reader.poll(final=True)
    reader.close()
    assert (reader.invalid, reader.lines.overlong) == (0, 0)
    return records


def ours(records: list[Record]) -> list[Record]:
    return [r for r in records if r["event_type"] == "alert" and 8_400_000 <= r["alert"]["signature_id"] < 8_400_100]


def test_shipped_configuration_and_rules_are_accepted(ids: IdsLauncher, tmp_path: Path) -> None:
    ids.validate(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{64}", ids.digest)


def test_shipped_rules_catch_the_attacks_and_nothing_else(ids: IdsLauncher, tmp_path: Path) -> None:
    write_pcap(tmp_path / "in.pcap", [*HARMLESS, *(one for frames in ATTACKS.values() for one in frames)])
    caught = [record["alert"]["signature_id"] for record in ours(run(ids, tmp_path / "in.pcap", tmp_path / "log"))]
    assert sorted(caught) == sorted(ATTACKS)


def test_alerts_say_where_in_the_stream_they_are(ids: IdsLauncher, tmp_path: Path) -> None:
    write_pcap(tmp_path / "in.pcap", [*HARMLESS, *ATTACKS[8400006], *HARMLESS])
    (record,) = ours(run(ids, tmp_path / "in.pcap", tmp_path / "log"))
    identified = Identifier("a", base_seq=1000).identify(record)
    assert identified["ftnids"]["seq"] == 1000 + len(HARMLESS)
    assert identified["timestamp"] == f"2023-11-14T22:13:20.{len(HARMLESS):03d}000+0000"
    assert (record["src_ip"], record["dest_ip"], record["dest_port"]) == ("192.0.2.1", "198.51.100.2", 9999)


def test_bad_rule_is_refused_in_the_words_of_the_ids(ids: IdsLauncher, tmp_path: Path) -> None:
    rule = tmp_path / "bad.rules"
    rule.write_text('alert tcp any any -> any any (msg:"x"; nonsense:1; sid:1; rev:1;)\n')
    with pytest.raises(FeedError, match=rf"^{ids.name}: refuses .*nonsense.*correct feed.ids_config or feed.rules$"):
        launcher(ids.name, str(ids.binary), rules=[rule]).validate(tmp_path / "log")


def test_reads_a_fifo_as_a_file(ids: IdsLauncher, tmp_path: Path) -> None:
    source, fifo = tmp_path / "in.pcap", tmp_path / "in.fifo"
    write_pcap(source, [one for frames in ATTACKS.values() for one in frames])
    os.mkfifo(fifo)
    with subprocess.Popen(["/bin/sh", "-c", 'exec cat "$0" > "$1"', source, fifo]) as writer:
        piped = run(ids, fifo, tmp_path / "fifo")
    assert writer.returncode == 0
    assert ours(piped) == ours(run(ids, source, tmp_path / "file"))


def test_snort_file_is_not_cut_at_its_default_length(tmp_path: Path, needs_snort: Path) -> None:
    write_pcap(tmp_path / "in.pcap", [datagram(9999, b"FTNIDS-CANARY" + bytes(4000))])
    assert len(ours(run(launcher("snort", str(needs_snort)), tmp_path / "in.pcap", tmp_path / "log"))) == 1


@pytest.mark.parametrize("name", sorted(LAUNCHERS))
def test_missing_program_is_one_line_with_the_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LAUNCHERS[name], "_candidates", lambda _: ["no-such-program"])
    with pytest.raises(FeedError, match=rf"^{name}: no program '{name}' to run; (install|build) .*feed\.ids_binary$"):
        launcher(name)
    with pytest.raises(FeedError, match=r"no program '/no/ids' to run"):
        launcher(name, "/no/ids")


@pytest.mark.parametrize("name", sorted(LAUNCHERS))
def test_another_program_is_told_apart(name: str) -> None:
    with pytest.raises(FeedError, match=rf"^{name}: .*/true -V says .*, which is no {name}; "):
        launcher(name, "/bin/true")


def test_unknown_ids_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feed.ids: no IDS 'zeek'; known are suricata, snort and none"):
        launcher("zeek")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"config": "/no/conf"}, "feed.ids_config: cannot read /no/conf"),
        ({"rules": ["/no"]}, "feed.rules: cannot read"),
        ({"rules": ["/dev/zero"]}, "feed.rules: /dev/zero is no regular file"),
        ({"rules": ["/dev"]}, "feed.rules: cannot read /dev: Is a directory"),
        ({"config": "/dev/zero"}, "feed.ids_config: /dev/zero is no regular file"),
    ],
)
def test_missing_files_are_refused(
    options: dict[str, str], complaint: str, monkeypatch: pytest.MonkeyPatch, needs_suricata: Path
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Suricata(str(needs_suricata), **options)


def test_digest_tells_rules_apart(tmp_path: Path, needs_suricata: Path) -> None:
    def make(text: str) -> str:
        (tmp_path / "x.rules").write_text(text)
        return launcher("suricata", str(needs_suricata), rules=[tmp_path / "x.rules"]).digest

    assert make("# one\n") == make("# one\n") != make("# two\n")


def test_rules_that_change_wait_for_the_next_launcher(tmp_path: Path, needs_suricata: Path) -> None:
    """An IDS that dies and is started again runs what the other replicas' run."""
    rules = tmp_path / "x.rules"
    rules.write_text("# one\n")
    made = launcher("suricata", str(needs_suricata), rules=[rules])
    digest = made.digest
    assert made.changed() == []
    rules.write_text("# two\n")
    assert made.changed() == [rules]
    made.prepare(tmp_path / "run")
    assert (tmp_path / "run/ids.rules").read_text() == "# from x.rules\n# one\n\n"
    assert made.digest == digest
    rules.unlink()
    assert made.changed() == [rules]
    rules.write_text("# one\n")  # another file of the same content
    assert made.changed() == []


def test_hanging_check_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "sleepy"
    program.write_text("#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    monkeypatch.setattr(launchers, "IDS_CHECK_S", 0.2)
    with pytest.raises(FeedError, match=r"sleepy -V did not end within"):
        Suricata(str(program))


@pytest.mark.parametrize("name", sorted(LAUNCHERS))
def test_shipped_rules_are_numbered_and_say_what_they_are(name: str) -> None:
    lines = [line for line in (RULES / f"{name}.rules").read_text().splitlines() if line.startswith("alert")]
    sids = [int(match[1]) for line in lines if (match := re.search(r"\bsid:(\d+);", line))]
    assert sids == sorted(ATTACKS)
    assert all(re.search(r'\(msg:"FTNIDS .+"; .*classtype:[\w-]+; sid:\d+; rev:\d+;\)$', line) for line in lines)
