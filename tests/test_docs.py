"""The documentation is true where a machine can tell: its commands, its site, its drawings, its figures of memory.

Every command of every `sh` block of README, docs/ and replicas/ is looked at.  `ftnids` commands that end by themselves
are run, in a sandbox; of the others the options are looked up; blocks that begin with `# on ...` are run by
test_deployment.py; what is left is in NEEDS_A_HOST, with the reason.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import click
import pytest

from bench import __main__ as benches
from ftnids import cli, config
from ftnids.core.layout import Description, StorePlace
from ftnids.lab import generate
from ftnids.settings import sources
from tests import drawings, pages
from tests.pages import ROOT, Block

NEEDS_A_HOST: Final = {
    "curl": "asks a web server behind the reader's link; tests/newcomer.sh sends the same request",
    "kill": "ends a replica that runs; tests/newcomer.sh does that",
    "cmp": "compares what two replicas wrote; tests/lab does",
    "socat": "reads the socket of a replica that runs; tests/status does",
    "head": "as socat",
    "python3 -m json.tool": "as socat",
    "python3 -m venv": "makes the reader's environment; tests/newcomer.sh makes one",
    "/opt/ftnids/bin/pip": "installs into it; as above",
    "PATH=/opt/ftnids/bin:$PATH": "goes on with it; as above",
    "systemctl": "needs systemd; tests/test_service.py looks at the units",
    "useradd": "makes a user of the reader's host",
    "chown": "gives files to that user",
    "echo": "prints",
}
# What ends by itself, and with which exit status in the sandbox, where no replica runs.
RUN: Final = {"init": {0}, "keygen": {0}, "align": {0}, "status": {2}, "alerts": {0}, "doctor": {0, 1}, "run": {0}}
FILES: Final = ("install", "cp", "mv", "sed")  # run with another /etc
LOOKED_UP: Final = {  # runs for long, or for ever
    "lab": "tests/lab runs it",
    "simulate": "tests/commands runs it",
    "top": "tests/status runs it in a terminal",
}


def forever(words: list[str]) -> bool:
    """Whether this `ftnids` command does not end by itself, or is shown without what it needs."""
    return (words[1] == "run" and "-T" not in words) or "-f" in words


def shell() -> Iterator[tuple[Block, list[str]]]:
    """Every command of the blocks that test_deployment.py does not run."""
    for block in pages.blocks():
        if not block.role:
            for words in block.commands():
                yield block, words


def options_exist(words: list[str]) -> str:
    """What is wrong with an `ftnids` command as it is written, or ""."""
    if len(words) < 2 or words[1].startswith("-"):
        return ""
    if words[1] not in cli.COMMANDS:
        return f"no such command: {words[1]}"
    command = importlib.import_module(f"ftnids.commands.{words[1]}").command
    try:
        command.make_parser(click.Context(command)).parse_args(words[2:])
    except click.UsageError as error:
        return "" if "requires an argument" in str(error) else error.format_message()
    return ""


def fault(words: list[str]) -> str:
    """What is wrong with a command that is not run, or ""."""
    if words[0] == "ftnids":
        return options_exist(words)
    if words[0] == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return "" if words[1] in targets else f"no such target: {words[1]}"
    if words[:2] in (["python", "-m"], [".venv/bin/python", "-m"]):
        module = words[2]
        if module == "bench" and len(words) > 3:
            return "" if words[3] in benches.NAMES else f"no such bench: {words[3]}"
        return "" if importlib.util.find_spec(module) else f"no such module: {module}"
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        wanted = re.findall(r"ftnids\[(\w+)\]", " ".join(words))
        return "" if set(wanted) <= set(extras) else f"no such extra: {wanted}"
    if words[0].startswith(("scripts/", "tests/")):
        return "" if os.access(ROOT / words[0], os.X_OK) else f"no such program: {words[0]}"
    if words[0] in FILES:
        return ""
    known = any(" ".join(words).startswith(start) for start in NEEDS_A_HOST)
    return "" if known else "say in NEEDS_A_HOST why it is not run"


def test_commands_in_blocks_exist() -> None:
    wrong = [f"{block.where}: {' '.join(words)}: {why}" for block, words in shell() if (why := fault(words))]
    assert not wrong, "\n".join(wrong)


def test_commands_in_the_text_exist() -> None:
    found = list(pages.inline())
    assert len(found) > 40
    wrong = [f"{where}: {' '.join(words)}: {why}" for where, words in found if len(words) > 1 and (why := fault(words))]
    assert not wrong, "\n".join(wrong)


def test_the_list_of_what_is_not_run_is_short_and_used() -> None:
    shown = [" ".join(words) for _, words in shell()] + [" ".join(words) for _, words in pages.inline()]
    unused = [start for start in NEEDS_A_HOST if not any(command.startswith(start) for command in shown)]
    assert not unused, f"nothing shows: {unused}"
    left_out = {words[1] for _, words in shell() if words[0] == "ftnids" and words[1] not in RUN}
    assert left_out <= set(LOOKED_UP)


# -- what can be run, is ------------------------------------------------------------------------------
def ftnids(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as it is shown, on an interface and addresses that are there."""
    here = ["lo" if word == "eth1" else word.replace("192.0.2.", "127.0.0.") for word in words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FTNIDS_FEED__IDS": "none"}
    command = [sys.executable, "-m", "ftnids", *here]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    """A folder with what the pages take as there: replica.toml with its keys, two captures, a replica's alerts."""
    made = ftnids(tmp_path, ["init", "there", "-i", "lo", "--ids", "none"])
    assert made.returncode == 0, made.stderr
    shutil.copy(tmp_path / "there/replica-a.toml", tmp_path / "replica.toml")
    shutil.copytree(tmp_path / "there/keys", tmp_path / "keys")
    for folder in ("log-a", "set/log-a"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "alerts.jsonl").touch()
    for name in ("a", "b"):
        generate.write(tmp_path / f"{name}.pcap", 1, 20, 20, 1.0)
    return tmp_path


def runnable() -> list[Path]:
    found = {block.page for block, words in shell() if words[0] == "ftnids" and words[1] in RUN and not forever(words)}
    return sorted(found)


@pytest.mark.parametrize("page", runnable(), ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_run(page: Path, sandbox: Path) -> None:
    """In the page's order, in one folder: what one command makes, the next one uses."""
    for block, words in shell():
        if block.page == page and words[0] == "ftnids" and words[1] in RUN and not forever(words):
            done = ftnids(sandbox, words[1:])
            said = f"{block.where}: {' '.join(words)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            assert done.returncode in RUN[words[1]], said
            assert "Traceback" not in done.stderr, said


def test_files_of_the_systemd_page_are_a_configuration(sandbox: Path) -> None:
    """Its file commands, with another /etc: what the unit then starts is valid."""
    assert ftnids(sandbox, ["init", "set", "-i", "lo", "--ids", "none"]).returncode == 0
    (sandbox / "etc/systemd/system").mkdir(parents=True)
    (sandbox / "replicas").symlink_to(ROOT / "replicas")
    script = []
    for block, words in shell():
        if block.page == ROOT / "replicas/systemd/README.md" and words[0] in FILES:
            here = [word if word.startswith("s|") else re.sub("^/etc/", "etc/", word) for word in words]
            script.append(" ".join(word if "*" in word and word[0] != "s" else shlex.quote(word) for word in here))
    assert len(script) == 5
    subprocess.run(["sh", "-eu", "-c", "\n".join(script)], cwd=sandbox, check=True)
    loaded = config.load(sandbox / "etc/ftnids/a.toml", [])
    assert str(loaded.replica.run_dir) == "/run/ftnids/a"
    assert (sandbox / "etc/systemd/system/ftnids@.service").is_file()


@pytest.mark.parametrize("block", list(pages.blocks("toml")), ids=lambda block: block.where)
def test_settings_that_are_shown_are_settings(block: Block) -> None:
    """Each TOML block, as values over those of replicas/replica.toml."""
    given = [
        sources.Override(block.where, (table, key), json.dumps(value))
        for table, keys in tomllib.loads(block.text).items()
        for key, value in keys.items()
    ]
    assert given
    config.load(ROOT / "replicas/replica.toml", given)


# -- the site, the drawings, figures ----------------------------------------------------------------------
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="needs mkdocs (pip install 'ftnids[docs]')", exc_type=ImportError)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "mkdocs.yml", "-d", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    for page in ("index.html", "quickstart.html", "faq.html", "repository/replicas/span/index.html", "packet.svg"):
        assert (tmp_path / "site" / page).is_file(), page
    dead = [
        f"{html.relative_to(tmp_path)}: {link}"
        for html in (tmp_path / "site").rglob("*.html")
        for link in re.findall(r'(?:href|src)="([^"#:?]+)[#?"]', html.read_text())
        if html.name != "404.html" and not (html.parent / unquote(link)).exists()
    ]
    assert not dead, dead


@pytest.mark.parametrize("name", list(drawings.DRAWINGS))
def test_drawings_are_what_their_script_draws(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == drawings.DRAWINGS[name](), "run python -m tests.drawings"


def test_the_ring_is_as_large_as_the_questions_say() -> None:
    ring = config.load(ROOT / "replicas/replica.toml", []).ring
    stores = [StorePlace(ring.slots, size) for size in (ring.arena_bytes, ring.recovered_bytes)]
    size = Description(1, 65535, 0, stores[0], stores[1], ring.slots).place().total_bytes
    said = re.search(r"about (\d+) MiB of /dev/shm", (ROOT / "docs/faq.md").read_text())
    assert said
    assert round(size / 2**20) == int(said[1])
