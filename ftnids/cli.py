"""The command line: `ftnids COMMAND`.  Commands load when they are called, so that `ftnids -V` is quick."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
from pathlib import Path
from typing import Any, Final, TextIO

import click

from ftnids import __version__
from ftnids.errors import FtnidsError

STDOUT: Final = "standard output"
COMMANDS: Final = {
    "align": "Merge lossy captures of one link into one agreed stream, offline.",
    "run": "Run one replica in the foreground.",
    "top": "Watch the whole set, in a terminal.",
    "status": "Say how the set is, once; the exit status says it, too.",
    "alerts": "Show the set's alerts; -f goes on.",
    "lab": "Run the whole system on this machine: hub, replicas, loss, an IDS, a result table.",
    "simulate": "Run the protocol under simulated weather, one seed a run.",
    "doctor": "Check this host and say what to do.",
    "init": "Write a commented cluster of two replicas to begin with.",
    "keygen": "Write a cluster secret and the CURVE key pairs.",
}


class LazyGroup(click.Group):
    """A click group whose commands are the modules of `ftnids.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ftnids.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="ftnids")
def cli() -> None:
    """A set of network intrusion sensors that behaves as one that never blinks."""


class _Stdout(io.FileIO):
    """Standard output that says its name when it cannot be written; the kernel's errors name no file."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


def _stdout(old: TextIO) -> TextIO:
    raw = io.BufferedWriter(_Stdout(old.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=old.encoding, errors=old.errors, line_buffering=old.isatty())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error that an operator can act on is one line on stderr."""
    own = sys.__stdout__
    if own is None:  # it was closed
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    elif sys.stdout is own:  # else it is a test's
        sys.stdout = _stdout(own)
    try:
        status = cli.main(arguments, prog_name="ftnids", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Abort:
        print("ftnids: interrupted", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EPIPE, errno.EIO):
            raise
        if error.filename == STDOUT:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it ends
        print(f"ftnids: cannot write to {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    except FtnidsError as error:
        print(f"ftnids: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    sys.exit(status if isinstance(status, int) else 0)
