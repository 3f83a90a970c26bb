"""The wheel carries what an installed replica needs: the native core, launchers, rules, configurations."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ftnids

ROOT = Path(__file__).resolve().parent.parent
NEWCOMER_SECONDS = 360  # what the script gives itself; a minute is usual
pytestmark = pytest.mark.timeout(NEWCOMER_SECONDS + 240)  # a busy machine takes minutes to compile


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where meson is
    done = subprocess.run(
        [*command, folder, ROOT], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob(f"ftnids-{ftnids.__version__}-*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_is_complete(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("ftnids/core/_core") and name.endswith(".so") for name in names)
    kept = [path for folder in ("ftnids", "snort_adapter", "replicas") for path in sorted((ROOT / folder).rglob("*"))]
    suffixes = {".py", ".pyi", ".yaml", ".config", ".rules", ".lua", ".toml"}
    wanted = [str(path.relative_to(ROOT)) for path in kept if path.suffix in suffixes]
    missing = [name for name in wanted if name not in names]
    assert not missing, f"not in the wheel: {missing}"


def newcomer(wheel: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    given = {"PYTHON": sys.executable, "NEWCOMER_SECONDS": str(NEWCOMER_SECONDS), "KEEP": str(folder)}
    command = [ROOT / "tests/newcomer.sh", wheel]
    return subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_newcomer(wheel: Path, tmp_path: Path, needs_root: None, needs_suricata: Path) -> None:
    """Install, init, two replicas on a hub, an attack: one alert; a replica is killed and comes back."""
    environment = os.environ | {
        "PYTHON": sys.executable,
        "NEWCOMER_SECONDS": str(NEWCOMER_SECONDS),
        "KEEP": str(tmp_path),
    }
    script = ROOT / "tests/newcomer.sh"
    done = subprocess.run([script, wheel], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("three attacks, three alerts: PASS\n")


def test_a_newcomer_who_fails_leaves_nothing(tmp_path: Path, needs_root: None, needs_suricata: Path) -> None:
    """A wheel that is none: the script says so and ends; the check for leaks does the rest."""
    wheel = tmp_path / "ftnids-0-py3-none-any.whl"
    wheel.write_text("no wheel")
    done = newcomer(wheel, tmp_path)
    assert done.returncode not in (0, -signal.SIGKILL)
    assert "FAILED" in done.stderr
