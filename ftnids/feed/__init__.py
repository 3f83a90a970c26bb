"""The agreed stream to files and to an IDS."""

from ftnids.feed.archives import put_aside
from ftnids.feed.daq import DaqIds
from ftnids.feed.fifo import FifoIds
from ftnids.feed.ids import Ids, Run
from ftnids.feed.sinks import Discard, Feed, Hashes, PcapFile, Sink

__all__ = ["DaqIds", "Discard", "Feed", "FifoIds", "Hashes", "Ids", "PcapFile", "Run", "Sink", "put_aside"]
