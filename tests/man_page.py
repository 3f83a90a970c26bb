"""Writes docs/man/ftnids.1 from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from ftnids import __version__
from ftnids.cli import COMMANDS, cli

PAGE: Final = Path(__file__).resolve().parent.parent / "docs/man/ftnids.1"
FILES: Final = (
    ("/etc/ftnids/NAME.toml", "the configuration of a replica, where the systemd unit ftnids@NAME looks for it"),
    ("/var/log/ftnids", "its log directory: status.json, alerts.jsonl, spool/, the logs of its IDS"),
    ("/run/ftnids", "its FIFO to the IDS"),
    ("/dev/shm/ftnids-*", "its ring, as large as [ring] says"),
)
ENVIRONMENT: Final = (
    ("FTNIDS_TABLE__KEY", "a key of the configuration, as FTNIDS_CAPTURE__SNAPLEN=1600"),
    ("FTNIDS_SNORT, FTNIDS_CRIU", "the programs, where they are not on PATH"),
    ("FTNIDS_IMPL", "c or python: which implementation of the core is used"),
    ("NOTIFY_SOCKET, WATCHDOG_USEC", "set by systemd, for Type=notify and the watchdog"),
)
STATUS: Final = (
    ("0", "it did what it was asked; of doctor: nothing fails"),
    ("1", "it could not; the reason is one line a fault on standard error"),
    ("2", "the command line is wrong, or what a command says of itself"),
)


def page() -> str:
    """The man page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield f'.TH FTNIDS 1 "" "ftnids {__version__}" "User Commands"'
    yield ".ad l"
    yield from (".SH NAME", "ftnids \\- network intrusion sensors that behave as one that never blinks")
    yield from (".SH SYNOPSIS", ".B ftnids", "COMMAND [OPTIONS]", ".SH COMMANDS")
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield from _command(name, command)
    for title, rows in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES), ("EXIT STATUS", STATUS)):
        yield f".SH {title}"
        for term, words in rows:
            yield from (".TP", f".B {_text(term)}", _text(words))
    yield from (".SH SEE ALSO", _text("suricata(1), snort(1), tcpdump(1), ethtool(8), and the pages in docs/"))


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"ftnids {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (f".SS ftnids {name} {_text(usage)}", *_paragraphs(command.help or ""))
    for parameter in command.params:
        record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
        if record is not None:
            yield from (".TP", f".B {_text(record[0])}", _text(record[1] or "\\&"))


def _paragraphs(words: str) -> Iterator[str]:
    for number, one in enumerate(re.split(r"\n\s*\n", words.strip())):
        if number:
            yield ".PP"
        yield _text(one)


def _text(words: str) -> str:
    """Words that troff shows as they are."""
    shown = " ".join(words.split()).replace("\\", "\\e").replace("-", "\\-").replace("\\e&", "\\&")
    return f"\\&{shown}" if shown[:1] in (".", "'") else shown


if __name__ == "__main__":
    PAGE.write_text(page())
