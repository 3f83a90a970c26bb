"""ftnids: a set of network intrusion sensors that behaves as one that never blinks."""

__version__ = "0.1.0"
