"""`ftnids doctor`: what this host lacks, why it matters, what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ftnids.config import Capture, Config, load
from ftnids.doctor import Finding, Level, examine
from ftnids.doctor.finding import ok, warn
from ftnids.errors import UsageError

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command("doctor")
@click.option("-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="Check for this replica.")
@click.option("-i", "--interface", metavar="NAME", help="Check this capture interface [the configured one].")
@click.option(
    "--sample", metavar="FILE", type=click.Path(path_type=Path), help="Only capture for 2 s into this new pcap file."
)
@click.option(
    "--against",
    nargs=2,
    metavar="A B",
    type=click.Path(path_type=Path),
    help="Only compare the samples (or other captures of one time) of two replicas.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(
    path: Path | None, interface: str | None, sample: Path | None, against: tuple[Path, Path] | None, as_json: bool
) -> int:
    """Check this host and say what to do.  Exit status 0 when nothing fails, 1 otherwise.  Changes nothing.

    Where the replica of -c runs, it is asked, and its ring is followed for two seconds: whether its port brings the
    same frames as its peers' ports, whose recovered packets no drop explains, how far their clocks are apart.

    Whether two replicas see the same frames before they run: let each take a --sample within the same ten seconds,
    bring the files together, and compare them with --against.
    """
    config = load(path) if path else None
    capture = interface or (config.capture.interface if config else None)
    if sample is not None:
        findings = _sample(config, capture, sample)
    else:
        findings = _compared(*against) if against else examine(config, capture)
    failed = any(finding.level == Level.FAIL for finding in findings)
    if as_json:
        shown = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": not failed, "interface": capture, "findings": shown}, indent=2))
    else:
        for finding in findings:
            click.echo(_text(finding))
        if capture is None and not against:
            click.echo("No capture interface checked: name one with -i, or a configuration with -c.")
    return int(failed)


def _sample(config: Config | None, interface: str | None, path: Path) -> list[Finding]:
    """Take a sample; what came of it."""
    from ftnids.doctor import sample

    if interface is None:
        raise UsageError("--sample: name the interface with -i, or a configuration with -c")
    count = sample.take(config.capture if config else Capture(), interface, path)
    what, why = f"{path}: {count} frames of {interface}", "to compare with that of another replica"
    return [ok("sample", what, why) if count else warn("sample", what, why, "sample while there is traffic")]


def _compared(first: Path, second: Path) -> list[Finding]:
    from ftnids.doctor import frames

    return frames.compare(frames.read(first), frames.read(second))


def _text(finding: Finding) -> str:
    """One finding, in one line or three."""
    line = f"{click.style(f'{finding.level:4}', fg=_COLOURS[finding.level])}  {finding.what}"
    if finding.level == Level.OK:
        return line
    return f"{line}\n      why: {finding.why}\n      do:  {finding.do}"
