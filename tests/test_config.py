"""The configuration: the shipped example is the reference, and every mistake is named with its line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ftnids import config
from ftnids.errors import ConfigError
from ftnids.toml_lines import lines_of

EXAMPLE = Path(__file__).parents[1] / "replicas" / "replica.toml"
TEXT = EXAMPLE.read_text()
REQUIRED = {"replica.name", "cluster.name", "cluster.member", "capture.interface"}  # the example has one of its own
KEYS = {"public_key", "old_public_key"}
OPTIONAL = {
    "cluster.key_file",
    "capture.file",
    "alerts.redis.password_file",
    *(f"cluster.member.{key}" for key in KEYS),
}  # commented out in the example


def model_defaults(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Every key of the file with its default."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        annotation, default = field.annotation, field.get_default()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= model_defaults(annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = str(default) if isinstance(default, Path) else default
    return found


def file_values(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= file_values(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def test_the_example_shows_every_key_with_its_default() -> None:
    defaults, shown = model_defaults(config.Config), file_values(tomllib.loads(TEXT))
    assert set(defaults) == set(shown) | OPTIONAL - {f"cluster.member.{key}" for key in KEYS}
    assert {key: value for key, value in shown.items() if defaults[key] != value}.keys() == REQUIRED
    for key in OPTIONAL:
        assert re.search(rf"^# {key.rpartition('.')[2]} = ", TEXT, re.MULTILINE), key
    assert {key for member in tomllib.loads(TEXT)["cluster"]["member"] for key in member} | KEYS == set(
        config.Member.model_fields
    )


def test_the_example_loads() -> None:
    loaded = config.load(EXAMPLE)
    assert loaded.me == 0
    assert [member.name for member in loaded.cluster.member] == ["a", "b"]
    assert loaded.cluster.secret_file == EXAMPLE.parent / "keys/cluster.secret"
    assert loaded.in_log_dir(loaded.alerts.output) == Path("/var/log/ftnids/alerts.jsonl")
    assert loaded.in_log_dir(loaded.feed.hashes) is None
    assert loaded.loopback
    assert loaded.ring.arena_bytes == 256 << 20


def test_an_interface_may_have_injected_faults() -> None:
    text = changed(capture__clock_offset_us="clock_offset_us = -300", capture__jitter_us="jitter_us = 20")
    capture = config.parse_text(text, Path("x.toml")).capture
    assert (capture.interface, capture.clock_offset_us, capture.jitter_us) == ("eth1", -300, 20)


def changed(**lines: str) -> str:
    """The example with the line of a key replaced (`section__key="new line"`)."""
    text = TEXT
    for name, line in lines.items():
        section, key = name.rsplit("__", 1)
        pattern = rf"(?ms)(^\[\[?{re.escape(section.replace('__', '.'))}\]\]?.*?^){key} = [^\n]*"
        text, count = re.subn(pattern, rf"\g<1>{line}", text, count=1)
        assert count == 1, name
    return text


def problems(text: str) -> list[str]:
    """The lines of the error that `text` gives, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        config.parse_text(text, Path("x.toml"))
    return [line.removeprefix("x.toml:") for line in str(raised.value).splitlines()]


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


MISTAKES = [
    ("capture__snaplen", "snapln = 9", "capture.snapln: unknown key; did you mean snaplen?"),
    (
        "alerts__hold_ms",
        "zzz = 9",
        "alerts.zzz: unknown key; those here: output, eve_output, stdout, syslog, hold_ms",
    ),
    (
        "alerts__provisional",
        "provisional = true",
        'alerts.provisional: goes with feed.mode = "optimistic": only an IDS that is fed early raises such; use false',
    ),
    ("sync__k", "k = 0", "sync.k = 0: must be a whole number, 1 to 4096"),
    ("sync__k", "k = true", "sync.k = true: must be a whole number, 1 to 4096"),
    ("sync__k", 'k = "56"', 'sync.k = "56": must be a whole number, 1 to 4096'),
    ("sync__l", "l = 0", "sync.l = 0: must be a whole number, 1 to 1024"),
    ("sync__l", "l = 57", "sync.l = 57: an anchor is no longer than a cluster; at most sync.k = 56"),
    ("sync__report_ms", "report_ms = 11", "sync.report_ms = 11: at most half of sync.delay_ms = 20"),
    ("capture__drop__loss", "loss = 1.5", "capture.drop.loss = 1.5: must be a number, 0 to 1"),
    ("capture__pace", 'pace = "fast"', 'capture.pace = "fast": must be one of file, topspeed'),
    ("feed__ids", 'ids = "zeek"', 'feed.ids = "zeek": must be one of suricata, snort, none'),
    (
        "feed__mode",
        'mode = "optimistic"',
        'feed.mode = "optimistic": needs feed.checkpoint, because an IDS that is fed',
    ),
    ("feed__checkpoint", 'checkpoint = "vm"', 'feed.checkpoint = "vm": must be one of criu, fork, none'),
    ("feed__rules", "rules = 5", "feed.rules = 5: must be a list"),
    ("feed__rules", "rules = [5]", "feed.rules[1] = 5: must be a text"),
    ("replica__name", 'name = "c"', 'replica.name = "c": is no cluster.member; those are a, b'),
    ("replica__name", 'name = "a b"', 'replica.name = "a b": must be a text of 1 to 64 characters that begins'),
    ("replica__name", 'name = ""', 'replica.name = "": must be a text of 1 to 64 characters that begins'),
    ("capture__interface", 'file = ""\ninterface = "eth1"', "capture: set exactly one of interface and file (both"),
    ("capture__interface", "", "capture: set exactly one of interface and file (neither"),
    ("capture__from_start", "from_start = true", "capture.from_start is for a file: remove it"),
    ("capture__pps", "pps = 9", "capture.pps is for a file: remove it"),
    ("cluster__member__address", 'address = "127.0.0.1"', "cluster.member[1].address: '127.0.0.1' is no address"),
    ("cluster__member__name", 'name = "b"', 'cluster.member[2].name = "b": is there twice'),
    ("cluster__member__address", 'address = "tcp://127.0.0.1:5702"', "cluster.member[2].address"),
    ("cluster__name", "", "cluster.name is missing: must be a text"),
    ("alerts__redis__url", 'url = "redis://:pw@h/0"', "alerts.redis.url: has a password in it"),
    ("alerts__redis__url", 'url = "redis://h/0?password=pw"', "alerts.redis.url: has a password in it"),
    ("alerts__redis__url", 'url = "h:6379"', 'alerts.redis.url = "h:6379": must be redis://HOST:6379/0'),
    ("alerts__redis__url", 'url = "redis://[::/0"', "alerts.redis.url: Invalid IPv6 URL"),
    ("alerts__redis__mode", 'mode = "list"', 'alerts.redis.mode = "list": must be one of stream, lpush, rpush'),
    ("log__level", 'level = "loud"', 'log.level = "loud": must be one of debug, info, warning, error'),
]


@pytest.mark.parametrize(("key", "line", "problem"), MISTAKES, ids=[f"{key}-{line}" for key, line, _ in MISTAKES])
def test_every_mistake_is_named(key: str, line: str, problem: str) -> None:
    text = changed(**{key: line})
    shown = [shown.split(": ", 1) for shown in problems(text)]
    assert any(reason.startswith(problem) for _, reason in shown), shown


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ({"feed__ids": 'ids = "suricata"'}, None),
        (
            {
                "feed__ids": 'ids = "snort"',
                "feed__mode": 'mode = "optimistic"',
                "feed__checkpoint": 'checkpoint = "criu"',
            },
            None,
        ),
        ({}, "there is no IDS whose state could travel"),
        (
            {"feed__ids": 'ids = "snort"', "replica__user": 'user = "daemon"'},
            'CRIU needs root, and the replica becomes replica.user = "daemon"',
        ),
        (
            {
                "feed__ids": 'ids = "snort"',
                "feed__mode": 'mode = "optimistic"',
                "feed__checkpoint": 'checkpoint = "fork"',
            },
            'goes with feed.checkpoint = "criu"',
        ),
    ],
)
def test_a_state_that_travels_is_one_of_an_ids_that_criu_reaches(lines: dict[str, str], problem: str | None) -> None:
    text = changed(**lines, feed__state='state = "transfer"')
    if problem is None:
        assert config.parse_text(text, EXAMPLE).feed.state == "transfer"
        return
    with pytest.raises(ConfigError) as raised:
        config.parse_text(text, EXAMPLE)
    assert f'feed.state = "transfer": {problem}' in str(raised.value)
    assert '; use "cold"' in str(raised.value)


@pytest.mark.parametrize(
    ("ids", "checkpoint", "problem"),
    [
        ("suricata", "fork", 'feed.checkpoint = "fork": goes with feed.ids = "snort"'),
        ("none", "criu", 'feed.checkpoint = "criu": there is no IDS to set back'),
        ("snort", "fork", None),
        ("snort", "criu", None),
        ("suricata", "criu", None),
    ],
)
def test_what_reads_ahead_can_be_set_back(ids: str, checkpoint: str, problem: str | None) -> None:
    lines = {"feed__mode": 'mode = "optimistic"', "feed__ids": f'ids = "{ids}"'}
    text = changed(**lines, feed__checkpoint=f'checkpoint = "{checkpoint}"')
    if problem is None:
        assert config.parse_text(text, EXAMPLE).feed.mode == "optimistic"
    else:
        (shown,) = problems(text)
        assert problem in shown


def test_lines_are_those_of_the_mistakes() -> None:
    text = changed(sync__k="k = 0", capture__drop__loss="loss = 2.0", log__level='level = "x"')
    expected = [line_of(text, part) for part in ("loss = 2.0", "k = 0", 'level = "x"')]
    assert [int(problem.split(":")[0]) for problem in problems(text)] == expected


def test_off_loopback_needs_curve() -> None:
    text = TEXT.replace("tcp://127.0.0.1:5702", "tcp://192.0.2.7:5702")
    shown = "\n".join(problems(text))
    assert "cluster.key_file is missing: CURVE is required, because tcp://192.0.2.7:5702 is not loopback" in shown
    assert "cluster.member[1].public_key is missing" in shown
    assert "cluster.member[2].public_key is missing" in shown
    curved = text.replace('# key_file = "keys/a', 'key_file = "keys/a')
    keyed = re.sub(r"(address = .*570(\d).*)", r'\1\npublic_key = "k\2"', curved)
    assert config.parse_text(keyed, EXAMPLE).cluster.key_file == EXAMPLE.parent / "keys/a.key_secret"
    (shown,) = problems(re.sub(r"(address = .*)", r'\1\npublic_key = "k"', curved))
    assert "cluster.member[2].public_key: is that of a and b; every replica needs a pair of its own" in shown


def test_public_keys_without_a_key_file_are_refused() -> None:
    """On loopback they would be left aside without a word."""
    for key in KEYS:
        text = TEXT.replace('address = "tcp://127.0.0.1:5702"', f'address = "tcp://127.0.0.1:5702"\n{key} = "k"')
        (shown,) = problems(text)
        assert f"cluster.member[2].{key}: goes with cluster.key_file, which is missing" in shown


OUTPUTS = [
    ({"alerts__eve_output": 'eve_output = "alerts.jsonl"'}, "alerts.eve_output", "is what alerts.output writes, too"),
    ({"feed__hashes": 'hashes = "./x/../eve.jsonl"'}, "feed.hashes", "is what alerts.eve_output writes, too"),
    ({"feed__hashes": 'hashes = "h"', "feed__agreed_pcap": 'agreed_pcap = "h"'}, "feed.hashes", "feed.agreed_pcap"),
    ({"alerts__output": 'output = "status.json"'}, "alerts.output", "is where the status is written"),
    ({"alerts__output": 'output = "../replica.toml"'}, "alerts.output", "is a file that is read"),
    ({"feed__hashes": 'hashes = "../keys/cluster.secret"'}, "feed.hashes", "is a file that is read"),
    ({"feed__rules": 'rules = ["a.rules"]', "feed__hashes": 'hashes = "../a.rules"'}, "feed.hashes", "that is read"),
    ({"feed__agreed_pcap": 'agreed_pcap = "link"'}, "feed.agreed_pcap", "is what alerts.output writes, too"),
    ({"feed__agreed_pcap": 'agreed_pcap = "hard"'}, "feed.agreed_pcap", "is what alerts.output writes, too"),
]


@pytest.mark.parametrize(("lines", "key", "why"), OUTPUTS, ids=[" ".join(lines.values()) for lines, _, _ in OUTPUTS])
def test_no_two_outputs_are_one_file(tmp_path: Path, lines: dict[str, str], key: str, why: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log/alerts.jsonl").touch()
    (tmp_path / "log/link").symlink_to("alerts.jsonl")
    (tmp_path / "log/hard").hardlink_to(tmp_path / "log/alerts.jsonl")
    path = tmp_path / "replica.toml"
    path.write_text(changed(replica__log_dir='log_dir = "log"', **lines))
    with pytest.raises(ConfigError) as raised:
        config.load(path)
    (problem,) = str(raised.value).splitlines()
    assert problem.startswith(f"{path}:{line_of(path.read_text(), lines[key.replace('.', '__')])}: {key} = ")
    assert why in problem


def test_outputs_may_all_go_nowhere() -> None:
    text = changed(alerts__output='output = "/dev/null"', alerts__eve_output='eve_output = "/dev/null"')
    config.parse_text(text, Path("x.toml"))


def test_members_are_counted() -> None:
    one = TEXT[: TEXT.rindex("[[cluster.member]]")] + TEXT[TEXT.index("[capture]") :]
    assert "cluster.member: 1 of them: must be a list of 2 to 16" in problems(one)[0]
    many = "".join(f'[[cluster.member]]\nname = "m{n}"\naddress = "tcp://127.0.0.1:{6000 + n}"\n' for n in range(15))
    assert any("cluster.member: 17 of them: must be a list of 2 to 16" in line for line in problems(TEXT + many))


def test_files_that_are_none() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: No such file"):
        config.load(Path("nowhere.toml"))
    assert "is no TOML" in problems("k = = 5")[0]
    assert problems("") == [
        "1: capture is missing: must be a table",
        "1: cluster is missing: must be a table",
        "1: replica is missing: must be a table",
    ]


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    text = changed(
        capture__interface='file = "x.pcap"',
        replica__log_dir='log_dir = "log"',
        feed__rules='rules = ["r/a.rules", "/etc/b.rules"]',
        feed__ids_binary='ids_binary = "suricata"',
    )
    (tmp_path / "a.toml").write_text(text)
    loaded = config.load(tmp_path / "a.toml")
    assert loaded.capture.file == tmp_path / "x.pcap"
    assert loaded.replica.log_dir == tmp_path / "log"
    assert loaded.feed.rules == [tmp_path / "r/a.rules", Path("/etc/b.rules")]
    assert loaded.feed.ids_binary == "suricata"


LINES = '''\
top = 1
# [comment]
"quoted key" = """
[not.a.table]
x = 1
"""
[a]  # comment
list = [
  "]", # ] comment
  1,
]
b.c = 'x = "y"'
[[m.n]]
x = { y = 1, z = [1, 2] }
[[ m . n ]]
x = 2
[m.n.sub]
deep = 3
'''


def test_lines_of_keys() -> None:
    lines = lines_of(LINES)
    for key, line in {
        ("top",): 1,
        ("quoted key",): 3,
        ("a",): 7,
        ("a", "list"): 8,
        ("a", "b", "c"): 12,
        ("m", "n", 0): 13,
        ("m", "n", 0, "x"): 14,
        ("m", "n", 0, "x", "y"): 14,
        ("m", "n", 1): 15,
        ("m", "n", 1, "x"): 16,
        ("m", "n", 1, "sub", "deep"): 18,
        ("m", "n", 1, "sub", "other"): 17,
        ("nowhere",): 1,
    }.items():
        assert lines.find(key) == line, key


def test_criu_needs_a_replica_that_stays_root() -> None:
    lines = {"feed__mode": 'mode = "optimistic"', "feed__ids": 'ids = "suricata"', "replica__user": 'user = "nobody"'}
    (shown,) = problems(changed(**lines, feed__checkpoint='checkpoint = "criu"'))
    assert 'feed.checkpoint = "criu": CRIU needs root, and the replica becomes replica.user = "nobody"' in shown
