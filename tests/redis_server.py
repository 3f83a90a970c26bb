"""A real redis-server for tests, to be killed."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
from pathlib import Path
from typing import Any, Final

OPTIONS: Final = ["--port", "0", "--save", ""]
READY: Final = b"eady to accept connections"


class Server:
    """A redis-server on a socket in `directory`, where its data are, too."""

    def __init__(self, binary: Path, directory: Path, *options: str) -> None:
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = [str(binary), "--unixsocket", str(self.socket), "--dir", str(directory), *OPTIONS, *options]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, on the data that the one before left on disk."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not any(READY in line for line in self._process.stdout):
            self.kill()
            raise AssertionError("redis-server does not start")

    def kill(self) -> None:
        """End it as a power cut does its processes."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def client(self) -> Any:
        """A client of the library."""
        return importlib.import_module("redis").Redis.from_url(self.url)

    def ids(self, key: str) -> list[str]:
        """The ids in a stream, in order."""
        with self.client() as client:
            return [json.loads(fields[b"eve"])["ftnids"]["id"] for _, fields in client.xrange(key)]
