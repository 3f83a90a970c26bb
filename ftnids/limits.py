"""Every limit of ftnids, in one place.

Each line says what the limit bounds and what happens when it is reached.  Where an operator can
move it, the configuration key stands behind it in brackets.
"""

from typing import Final

# -- the set ---------------------------------------------------------------------------------
MAX_MEMBERS: Final = 16  # members of a cluster (holders are a bit mask); more is a configuration error
MAX_NAME: Final = 64  # bytes of a replica or cluster name

# -- packets and the ring ---------------------------------------------------------------------
MAX_SNAPLEN: Final = 262_144  # bytes of one captured frame [capture.snaplen]; longer frames are cut, wire length kept
MIN_RING_SLOTS: Final = 1_024
MAX_RING_SLOTS: Final = 1 << 26  # [ring.slots]; when full the capture drops and counts `ring_drops`
MIN_ARENA_BYTES: Final = 1 << 20
MAX_ARENA_BYTES: Final = 1 << 37  # [ring.arena_mb], [ring.recovered_mb]

# -- sync ---------------------------------------------------------------------------------------
MAX_CLUSTER: Final = 4_096  # k, packets [sync.k]
MAX_ANCHOR: Final = 1_024  # l, packets [sync.l]
MAX_DESYNC: Final = 64  # desync levels [sync.max_desync]; then the window is cut at the horizon
MAX_WINDOW: Final = 65_536  # packets of one member in one merge; more waits for the next round
HISTORY_PACKETS: Final = 65_536  # decided packets remembered for late duplicates and joins
MAX_PENDING: Final = 1 << 20  # reported, undecided packets per member; more are not taken until decided, and resent
MAX_UNSTABLE: Final = 262_144  # decided packets that not every member has acknowledged; then deciding waits
MAX_EARLY: Final = 65_536  # pushed packets kept here that overtook their decision; more are dropped and fetched
MAX_FETCH: Final = 4_096  # seqs in one FETCH
MAX_REPORTED: Final = 262_144  # packets that a member reports ahead of what is decided; then reporting waits
MAX_LOG_DECISIONS: Final = 65_536  # decisions kept for repair; a member that far behind leaves the view
REORDER_NS: Final = 500_000  # R [sync.reorder_us]
REORDER_PLACES: Final = 64  # [sync.reorder_places]
TOLERANCE_FLOOR_NS: Final = 6_000  # added to twice the largest residual of the clock fit
MAX_TOLERANCE_NS: Final = 50_000_000  # a wider clock fit is refused, the previous one kept and counted

# -- peers ----------------------------------------------------------------------------------------
MAX_MESSAGE_BYTES: Final = 8 << 20  # of one wire message; larger ones are dropped and counted
MAX_REPORT_PACKETS: Final = 65_536  # packets in one REPORT
MAX_DECISION_PACKETS: Final = 65_536  # packets in one DECISION
MAX_BYTES_PACKETS: Final = 16_384  # packets in one BYTES
MAX_BYTES_DATA: Final = 4 << 20  # bytes of frames in one BYTES, unless a single frame is larger
MAX_MESSAGE_VALUES: Final = 8 << 20  # array elements that one message may unfold to
MAX_DIGEST: Final = 64  # bytes of a digest in JOIN and HISTORY
MAX_TEXT: Final = 4_096  # bytes of a configuration, a reason or an IDS version in a message
MAX_STATUS_BYTES: Final = 1 << 20  # of one status snapshot
SEND_QUEUE_MESSAGES: Final = 4_096  # per peer; what does not fit is dropped, counted and resent by the protocol
RECEIVE_QUEUE_MESSAGES: Final = 4_096

# -- alerts -----------------------------------------------------------------------------------------
MAX_ALERT_BYTES: Final = 1 << 20  # one EVE or alert_json line; longer ones are skipped and counted
MAX_ALERT_BATCH: Final = 4 << 20  # bytes of records in one ALERT message
ALERT_TABLE: Final = 262_144  # alert ids remembered for de-duplication; the oldest go first
