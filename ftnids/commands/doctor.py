"""`ftnids doctor`: what this host lacks, why it matters, what to do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from ftnids.config import load
from ftnids.doctor import Finding, Level, examine

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command("doctor")
@click.option("-c", "--config", "path", metavar="FILE", type=click.Path(path_type=Path), help="Check for this replica.")
@click.option("-i", "--interface", metavar="NAME", help="Check this capture interface [the configured one].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def command(path: Path | None, interface: str | None, as_json: bool) -> int:
    """Check this host and say what to do.  Exit status 0 when nothing fails, 1 otherwise.  Changes nothing."""
    config = load(path) if path else None
    capture = interface or (config.capture.interface if config else None)
    findings = examine(config, capture)
    failed = any(finding.level == Level.FAIL for finding in findings)
    if as_json:
        shown = [dataclasses.asdict(finding) for finding in findings]
        click.echo(json.dumps({"ok": not failed, "interface": capture, "findings": shown}, indent=2))
    else:
        for finding in findings:
            click.echo(_text(finding))
        if capture is None:
            click.echo("No capture interface checked: name one with -i, or a configuration with -c.")
    return int(failed)


def _text(finding: Finding) -> str:
    """One finding, in one line or three."""
    line = f"{click.style(f'{finding.level:4}', fg=_COLOURS[finding.level])}  {finding.what}"
    if finding.level == Level.OK:
        return line
    return f"{line}\n      why: {finding.why}\n      do:  {finding.do}"
