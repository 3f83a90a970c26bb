"""Errors that reach the operator.

Every message is one line that names the thing, the limit or the fault, and the setting or the
step that cures it.  The command line prints `str(error)` and exits with `exit_status`; nothing
of this family is ever shown as a traceback.
"""


class FtnidsError(Exception):
    """Base of all errors that an operator can act on."""

    exit_status = 1


class UsageError(FtnidsError):
    """The command line asks for something that cannot be (exit status 2, as argparse and click do)."""

    exit_status = 2


class ConfigError(FtnidsError):
    """A configuration file or value is wrong."""


class RingError(FtnidsError):
    """A ring segment is foreign, corrupt, gone, or too small."""


class CaptureError(FtnidsError):
    """An interface or a capture file cannot be opened or read."""


class WireError(FtnidsError):
    """A message from the network is malformed; it is dropped and counted."""


class PeerError(FtnidsError):
    """The transport cannot be set up: address in use, bad key, missing secret."""


class FeedError(FtnidsError):
    """An IDS or a feed output cannot be started or written."""
