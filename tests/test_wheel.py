"""The wheel carries what an installed replica needs: the native core, launchers, rules, configurations."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import ftnids

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w"]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where meson is
    done = subprocess.run(
        [*command, tmp_path, ROOT], env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob(f"ftnids-{ftnids.__version__}-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("ftnids/core/_core") and name.endswith(".so") for name in names)
    kept = [path for folder in ("ftnids", "snort_adapter", "replicas") for path in sorted((ROOT / folder).rglob("*"))]
    suffixes = {".py", ".pyi", ".yaml", ".config", ".rules", ".lua", ".toml"}
    wanted = [str(path.relative_to(ROOT)) for path in kept if path.suffix in suffixes]
    missing = [name for name in wanted if name not in names]
    assert not missing, f"not in the wheel: {missing}"
