"""The image: its steps, run for real where this machine can, and what stands beside it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ftnids.config import Config, parse_text
from ftnids.settings import sources, text
from tests import image

ROOT = image.ROOT
COMPOSE = ROOT / "replicas/container/compose.yaml"


def test_the_dockerfile_is_understood() -> None:
    found = image.stages((ROOT / "Dockerfile").read_text())
    assert [(one.name, one.image) for one in found] == [(name, image.BASE) for name in ("build", "snort", "final")]
    copies = [rest for stage in found for word, rest in stage.steps if word == "COPY"]
    assert copies == [". /src", "--from=build /opt/ftnids /opt/ftnids", "--from=snort /opt/snort /opt/snort"]
    with pytest.raises(ValueError, match="ADD: no instruction"):
        image.stages("FROM x\nADD y z\n")


def test_the_settings_of_the_compose_file_are_keys() -> None:
    environment = dict(re.findall(r"^ +(FTNIDS_\w+): (\S+)$", COMPOSE.read_text(), re.MULTILINE))
    found = parse_text(text.example(), Path("x.toml"), sources.of_environment(environment))
    assert isinstance(found, Config)
    assert found.replica.user == "ftnids"
    assert len(found.overrides) == 3


def test_compose_reads_its_file() -> None:
    docker = shutil.which("docker")
    asked = [docker or "docker", "compose", "-f", str(COMPOSE), "--project-directory", str(ROOT), "config", "-q"]
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("needs docker compose (no engine)")
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_its_steps_make_a_replica(tmp_path: Path, needs_root: None) -> None:
    """In Debian 13 root directories: what the Dockerfile says, then the command that it leaves."""
    if os.environ.get("FTNIDS_IMAGE", "") != "1":
        pytest.skip("takes minutes, 3 GB and the network: FTNIDS_IMAGE=1 runs it")
    root = image.build(tmp_path, image.mirror())
    environment = {"PATH": f"/opt/ftnids/bin:{image.PATH}"}
    assert "ftnids, version" in image.inside(root, "ftnids -V", environment)
    report = json.loads(image.inside(root, "ftnids doctor --json || true", environment))
    levels = {one["name"]: one["level"] for one in report["findings"]}
    assert {levels[name] for name in ("python", "libpcap", "core", "suricata")} == {"ok"}
