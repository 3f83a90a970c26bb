"""Builds the C targets: with libFuzzer for `make fuzz`, or with a main of our own that replays inputs."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
CORE: Final = ROOT / "ftnids/core"
TARGETS: Final = ROOT / "fuzz/targets"
RING: Final = ("segment.c", "export.c", "hash.c")
SOURCES: Final = {  # what each target runs, besides itself
    "attach": RING,
    "pcap": (*RING, "capture.c", "source.c"),
    "merge": ("correct.c", "merge.c", "merge_order.c", "merge_pairs.c", "merge_reorder.c", "merge_survey.c"),
}
# A sanitised build at -O1 warns of what the compiler of the real build, which has -Werror, sees through.
FLAGS: Final = ("-std=c11", "-D_GNU_SOURCE", "-g", "-O1", "-Wall", "-Wextra", "-Wno-maybe-uninitialized", f"-I{CORE}")
CHECKS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
KERNELS: Final = {"ftn_xxh3_baseline": ()} | ({"ftn_xxh3_avx2": ("-mavx2",)} if platform.machine() == "x86_64" else {})


class BuildError(Exception):
    """The compiler refused; the message is what it said."""


def build(target: str, compiler: str, folder: Path, *, fuzzer: bool) -> Path:
    """Build `target` into `folder`; BuildError with the compiler's words when that fails."""
    engine = ("-fsanitize=fuzzer",) if fuzzer else ()
    flags = (*FLAGS, *CHECKS, *(("-DFTN_HAVE_AVX2",) if len(KERNELS) > 1 else ()))
    sources = [TARGETS / f"{target}.c", *(CORE / name for name in SOURCES[target])]
    sources += [] if fuzzer else [TARGETS / "replay.c"]
    objects: list[Path] = []
    if "hash.c" in SOURCES[target]:
        for name, extra in KERNELS.items():
            objects.append(folder / f"{target}-{name}.o")
            kernel = (CORE / "hash_kernel.c", f"-DFTN_XXH3_NAME={name}", "-c", "-o", objects[-1])
            _run(compiler, *flags, *extra, *kernel)
    libraries = ("-lm", *(("-lpcap",) if "source.c" in SOURCES[target] else ()))
    program = folder / target
    _run(compiler, *flags, *engine, *sources, *objects, *libraries, "-o", program)
    return program


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(done.stderr[-4000:])
