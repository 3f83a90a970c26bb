"""Runs a program that dies when its parent does: `python tether.py PARENT_PID [--cpus=0,1] PROGRAM ARGUMENT ...`.

The kernel is asked for SIGKILL at the parent's death, which holds through exec; a supervisor that is itself
killed with SIGKILL leaves no orphan.  A file of its own, so that nothing runs between fork and exec
in a process with threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if program[0].startswith("--cpus="):
        os.sched_setaffinity(0, map(int, program.pop(0).removeprefix("--cpus=").split(",")))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)
    try:
        os.execv(program[0], program)
    except OSError as error:
        sys.exit(f"cannot run {program[0]}: {error.strerror}")
