"""House rules, kept by tests: sizes, rooms, docstrings, names that must agree with each other."""

from __future__ import annotations

import ast
import importlib
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import ftnids
from bench import __main__ as benches
from bench import _readme as bench_page
from ftnids import cli, counters, limits
from ftnids.status.snapshot import Snapshot

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "ftnids"
NOT_OURS: Final = {"build", "dist", "__pycache__", "demo-out", "lab-out"}
SOURCES: Final = {".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".sh"}
TEXTS: Final = SOURCES | {"", ".md", ".toml", ".yaml", ".rules", ".lua", ".build", ".config", ".service", ".yml"}
MAX_FILE_LINES: Final = 500
MAX_FUNCTION_LINES: Final = 70

# Which other rooms a room may import.  Every room may import the shared names; the composition root, the lab and the
# commands, which know all rooms, are not in the table, and nothing in it may import them.
SHARED: Final = {"affinity", "errors", "limits", "counters", "log"}
ROOMS: Final[dict[str, set[str]]] = {
    "ftnids/core": set(),
    "ftnids/capture": {"ftnids.core"},
    "ftnids/sync": {"ftnids.core.aligner"},
    "ftnids/peers": {"ftnids.sync.messages"},
    "ftnids/feed": {"ftnids.core", "snort_adapter.launchers"},
    "ftnids/handover": {"ftnids.sync.messages", "ftnids.sync.actions"},
    "ftnids/alerts": {"ftnids.sync.messages"},
    "ftnids/status": {"ftnids.sync.messages"},
    "ftnids/doctor": {
        *("ftnids.core", "ftnids.capture", "ftnids.peers", "ftnids.config", "ftnids.privileges", "ftnids.rekey"),
        *("ftnids.feed.criu", "ftnids.outlets", "ftnids.alerts.sinks", "ftnids.status", "snort_adapter.launchers"),
    },
    "snort_adapter": {"ftnids.alerts.readers"},
}
# Anything that reaches a clock, a socket, a thread, a process, a file or a random source.
# fmt: off
IO_MODULES: Final = {
    "asyncio", "builtins", "concurrent", "ctypes", "datetime", "fcntl", "io", "logging", "mmap", "multiprocessing",
    "os", "pathlib", "psutil", "random", "secrets", "select", "selectors", "shutil", "signal", "socket", "ssl",
    "structlog", "subprocess", "sys", "tempfile", "threading", "time", "zmq",
}
# fmt: on
IO_CALLS: Final = {"open", "print", "input", "exec", "eval", "__import__"}


def files(*suffixes: str) -> Iterator[Path]:
    """Files of the repository that people wrote, by suffix; all of them without one."""
    for directory, folders, names in os.walk(ROOT):
        folders[:] = sorted(one for one in folders if one == ".ci" or not (one in NOT_OURS or one.startswith(".")))
        paths = (Path(directory, one) for one in sorted(names) if not one.startswith("."))
        yield from (path for path in paths if not suffixes or path.suffix in suffixes)


def name(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}" + (f":{line}" if line else "")


def modules(directory: Path = PACKAGE) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(directory.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a module imports, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: write imports from ftnids in full"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def test_files_are_short() -> None:
    long = [name(path) for path in files(*SOURCES) if len(path.read_text().splitlines()) >= MAX_FILE_LINES]
    assert not long, f"split these: {long}"


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{name(path, node.lineno)} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path, tree in (*modules(), *modules(ROOT / "tests"), *modules(ROOT / "bench"))
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno and node.end_lineno - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert not long, f"split these: {long}"


def is_public(node: ast.AST) -> bool:
    """A class, function or method that others may use; a property is an attribute, which its class explains."""
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
        return False
    return not any(ast.unparse(one).split(".")[-1] in {"property", "setter"} for one in node.decorator_list)


def test_public_names_have_docstrings() -> None:
    """Modules, classes, functions, and methods of classes that inherit nothing (else the base explains them)."""
    bare = []
    for path, tree in modules():
        own = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and not node.bases and is_public(node)]
        parents: list[ast.Module | ast.ClassDef] = [tree, *own]
        for node in (node for parent in parents for node in parent.body if is_public(node)):
            assert isinstance(node, ast.FunctionDef | ast.ClassDef)
            if ast.get_docstring(node) is None:
                bare.append(f"{name(path, node.lineno)} {node.name}")
        if tree.body and ast.get_docstring(tree) is None:
            bare.append(name(path))
    assert not bare, f"no docstring: {bare}"


def test_no_private_paths() -> None:
    private = re.compile(r"(?<![\w.$}])/(work|root|home)/\w|deb\.debian\.org|pypi\.org|file:///")
    found = [
        name(path, number)
        for path in files()
        if path != Path(__file__) and path.suffix in TEXTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if private.search(line)
    ]
    assert not found, f"paths or hosts of one machine: {found}"


def test_sync_and_handover_do_no_io() -> None:
    found = []
    for path, tree in (*modules(PACKAGE / "sync"), *modules(PACKAGE / "handover")):
        found += [f"{name(path, line)} {what}" for line, what in imported(tree) if what.split(".")[0] in IO_MODULES]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IO_CALLS:
                found.append(f"{name(path, node.lineno)} {node.func.id}()")
    assert not found, f"the protocol touches the world: {found}"


def test_rooms_do_not_reach_around() -> None:
    found = []
    for room, others in ROOMS.items():
        allowed = {room.replace("/", "."), "ftnids.__version__", *others, *(f"ftnids.{one}" for one in SHARED)}
        for path, tree in modules(ROOT / room):
            for line, what in imported(tree):
                ours = what.split(".")[0] in {"ftnids", "snort_adapter"}
                if ours and not any(f"{what}.".startswith(f"{one}.") for one in allowed):
                    found.append(f"{name(path, line)} {what}")
    assert not found, f"not allowed by the table of rooms: {found}"


def test_loggers_come_from_the_log() -> None:
    """structlog's own default is standard output, which belongs to the commands."""
    for path in sorted((ROOT / "ftnids").rglob("*.py")):
        assert path.name == "log.py" or "structlog.get_logger" not in path.read_text(), path


def test_limits_live_in_limits() -> None:
    """Module constants named like limits stand in limits.py alone, and each limit there bounds something."""
    limit = re.compile(r"^(MAX|MIN)_[A-Z_]+\b(?=\s*[:=])", re.MULTILINE)
    stray = [
        f"{name(path)} {found[0]}"
        for path in PACKAGE.rglob("*.py")
        if path.name != "limits.py"
        for found in limit.finditer(path.read_text())
    ]
    assert not stray, f"move to limits.py: {stray}"
    text = "\n".join(path.read_text() for path in files(".py", ".pyx", ".toml", ".build") if path.name != "limits.py")
    unused = [one for one in vars(limits) if one.isupper() and not re.search(rf"\b{one}\b", text)]
    assert not unused, f"limits that nothing keeps: {unused}"


def test_counters_are_where_they_are_promised() -> None:
    """Each counter is in the status record, explained in docs/counters.md, and nothing else is explained there."""
    assert set(Snapshot(name="a", state="running").counters) == set(counters.PER_REPLICA)
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/counters.md").read_text(), re.MULTILINE)
    assert explained == [*counters.PER_REPLICA, *counters.SET]


def test_changelog_has_this_version() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert ftnids.__version__ in headings


def test_dependencies_are_used_and_recorded() -> None:
    """Each run-time dependency is imported by the package, and the decision record says what each is for."""
    loaded = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = loaded["project"]
    extras = project["optional-dependencies"]
    developing = [*loaded["build-system"]["requires"], *extras["dev"], *extras["docs"]]
    needed, extra = (
        {re.split(r"[^\w-]", line)[0] for line in lines} for lines in (project["dependencies"], developing)
    )
    used = {what.split(".")[0] for _, tree in modules() for _, what in imported(tree)}
    import_names = {"pyzmq": "zmq", "pcapy-ng": "pcapy", "prometheus-client": "prometheus_client"}
    unused = [one for one in needed if import_names.get(one, one) not in used]
    assert not unused, f"nothing imports: {unused}"
    record = (ROOT / "docs/decisions/0003-dependencies.md").read_text()
    unrecorded = [one for one in sorted(needed | extra) if f"`{one}`" not in record]
    assert not unrecorded, f"docs/decisions/0003-dependencies.md gives no reason for: {unrecorded}"


def test_readme_commands_exist() -> None:
    """Every `make` target and `ftnids` command that README or CONTRIBUTING show is there; every command loads."""
    text = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = set(re.findall(r"(?:^|`|\$ )make (\w+)", text, re.MULTILINE))
    assert shown
    assert shown <= targets, f"no such make target: {shown - targets}"
    commands = set(re.findall(r"(?:^|`|/|\$ )ftnids (\w+)", text, re.MULTILINE))
    assert commands
    assert commands <= set(cli.COMMANDS), f"no such command: {commands - set(cli.COMMANDS)}"
    for command in cli.COMMANDS:
        assert importlib.import_module(f"ftnids.commands.{command}").command.help


def test_links_lead_somewhere() -> None:
    dead = [
        f"{name(path)}: {target}"
        for path in files(".md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
        if not (path.parent / target).exists()
    ]
    assert not dead, f"dead links: {dead}"


def test_decisions_are_numbered_once() -> None:
    records = sorted(path.name for path in (ROOT / "docs/decisions").glob("*.md"))
    numbers = [record[:4] for record in records]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", record) for record in records), records
    assert len(numbers) == len(set(numbers)), records


def test_the_page_of_the_benches_shows_their_results() -> None:
    page = bench_page.PAGE.read_text()
    assert page == bench_page.page(), "out of date: run `python -m bench._readme`"
    assert page.index("<!-- goals -->") < page.index("\n## "), "the page begins with the goals"
    results = {path.stem for path in (ROOT / "bench/results").glob("*.json")}
    shown = set(re.findall(r"<!-- results of ([a-z-]+) -->", page))
    assert results <= shown, f"measured, not on the page: {results - shown}"
    assert shown <= set(benches.NAMES), f"no such bench: {shown - set(benches.NAMES)}"
