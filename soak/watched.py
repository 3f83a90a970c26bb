"""A replica as `ftnids run` runs it, which counts what it holds as the packets go by.

`python -m soak.watched replica.toml EVERY SAMPLES [--plant]`: after every EVERY agreed packets a line of JSON goes to
the file SAMPLES.  `--plant` makes it leak, so that the soak can be seen to find that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ftnids import log
from ftnids.config import Config, load
from ftnids.replica import Replica
from soak.census import census, memory_bytes


class Watched(Replica):
    """A replica that notes the sizes of everything in it."""

    def __init__(self, config: Config, every: int, samples: Path, plant: bool) -> None:
        super().__init__(config)
        self._every, self._due, self._samples = every, every, samples
        self._leak: list[int] | None = [] if plant else None

    def _turn(self) -> None:
        super()._turn()
        stable = self.ring.stable
        if self._leak is not None:
            self._leak += [0] * (stable // 100 - len(self._leak))
        if stable >= self._due:
            self._due = stable + self._every
            line = json.dumps({"packets": stable, "memory": memory_bytes(), "sizes": census(self)})
            with self._samples.open("a") as out:
                out.write(line + "\n")


def main() -> int:
    """Run one replica to the end of its stream."""
    path, every, samples, *options = sys.argv[1:]
    config = load(Path(path))
    log.configure(config.log.level, config.log.format)
    return Watched(config, int(every), Path(samples), "--plant" in options).run()


if __name__ == "__main__":
    sys.exit(main())
