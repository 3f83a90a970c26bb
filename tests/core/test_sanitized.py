"""The C core built with sanitizers: addresses, undefined behaviour, data races."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

import ftnids.core
from tests.core.helpers import some_packets, write_pcap

SOURCES = Path(ftnids.core.__file__).parent
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
RUNS = [("address,undefined", mode) for mode in ("attach", "threads", "capture", "parts")] + [("thread", "threads")]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Programs built so far, by sanitizer."""
    return {"": tmp_path_factory.mktemp("sanitized")}


def compiled(build: dict[str, Path], sanitizer: str) -> Path:
    """The torture program under one sanitizer; skips where there is no compiler, or none that can do it."""
    if sanitizer in build:
        return build[sanitizer]
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    program = build[""] / sanitizer
    checks = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    probe = [compiler, *checks, "-x", "c", "-", "-o", str(program)]
    if subprocess.run(probe, input="int main(void){return 0;}", text=True, capture_output=True).returncode:
        pytest.skip(f"{compiler} has no library for -fsanitize={sanitizer}")
    kernels = {"ftn_xxh3_baseline": [""]} | ({"ftn_xxh3_avx2": ["-mavx2"]} if platform.machine() == "x86_64" else {})
    flags = [*FLAGS, *checks, *(["-DFTN_HAVE_AVX2"] if len(kernels) == 2 else [])]
    objects = []
    for name, extra in kernels.items():
        objects.append(str(build[""] / f"{name}-{sanitizer}.o"))
        kernel = [str(SOURCES / "hash_kernel.c"), f"-DFTN_XXH3_NAME={name}", "-c", "-o", objects[-1]]
        subprocess.run([compiler, *flags, *filter(None, extra), *kernel], check=True)
    files = [SOURCES / name for name in ("segment.c", "export.c", "hash.c", "capture.c", "source.c")]
    files.append(Path(__file__).with_name("torture.c"))
    libraries = ["-lpcap", "-lpthread"]
    subprocess.run([compiler, *flags, *map(str, files), *objects, *libraries, "-o", str(program)], check=True)
    build[sanitizer] = program
    return program


@pytest.mark.parametrize(("sanitizer", "mode"), RUNS)
def test_torture(build: dict[str, Path], sanitizer: str, mode: str, seed: int, tmp_path: Path) -> None:
    program = compiled(build, sanitizer)
    path = write_pcap(tmp_path / "x.pcap", some_packets(200, seed, 3000), nano=True)
    command = [str(program), mode, str(seed), *([str(path)] if mode == "capture" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-4000:]
