"""A configuration of two replicas on loopback, for tests of what it says otherwise."""

from __future__ import annotations

from typing import Final

TWO: Final = """
[replica]
name = "a"
{replica}
[cluster]
name = "test"
{cluster}
[[cluster.member]]
name = "a"
address = "tcp://127.0.0.1:{port}"
[[cluster.member]]
name = "b"
address = "tcp://127.0.0.1:5702"
[capture]
interface = "lo"
"""


def two(replica: str = "", cluster: str = "", port: int = 5701) -> str:
    """The TOML of replica a; `replica` and `cluster` are more lines of those tables."""
    return TWO.format(replica=replica, cluster=cluster, port=port)
