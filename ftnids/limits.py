"""Every limit of ftnids, in one place.

Each line says what the limit bounds and what happens when it is reached.  Where an operator can
move it, the configuration key stands behind it in brackets.
"""

from typing import Final

# -- the set ---------------------------------------------------------------------------------
MAX_MEMBERS: Final = 16  # members of a cluster (holders are a bit mask); more is a configuration error
MAX_CPUS: Final = 4_096  # [replica.cpus, capture.cpus, feed.cpus]; numbers below it
MAX_NAME: Final = 64  # bytes of a replica or cluster name

# -- packets and the ring ---------------------------------------------------------------------
MAX_SNAPLEN: Final = 262_144  # bytes of one captured frame [capture.snaplen]; longer frames are cut, wire length kept
MAX_FILTER: Final = 65_536  # characters of a capture filter [capture.bpf]
MIN_RING_SLOTS: Final = 1_024
MAX_RING_SLOTS: Final = 1 << 26  # [ring.slots]; when full the capture drops and counts `ring_drops`
MIN_ARENA_BYTES: Final = 1 << 20
ALIGN_ARENA_BYTES: Final = 1 << 28  # frames of one file that `align` holds; a window is what fits
MAX_ARENA_BYTES: Final = 1 << 37  # [ring.arena_mb], [ring.recovered_mb]
MAX_INTERFACES: Final = 65_536  # of one section of a pcapng file; what comes after is not read, and that is said
MIN_CAPTURE_BUFFER: Final = 1 << 16  # bytes of kernel buffer [capture.buffer_mb]; what does not fit is a kernel drop
MAX_CAPTURE_BUFFER: Final = (1 << 31) - 1  # libpcap takes a C int
KERNEL_PACKETS: Final = 8_192  # a kernel buffer that holds fewer is warned of: 80 ms of 100,000 packets/s
CAPTURE_GUARD_NS: Final = 100_000  # a packet may show up this long after its stamp; a live watermark stays behind by it
CAPTURE_HOLD_NS: Final = 20_000_000  # the same where libpcap itself holds packets back: without immediate mode
CAPTURE_STALE_NS: Final = 3_000_000  # a watermark that old is brought up to now when packets wait for it
CAPTURE_RUN_PACKETS: Final = 65_536  # packets in one run of the capture thread
CAPTURE_RUN_MS: Final = 50  # and its length: how long stopping may take
CAPTURE_DROWSY_MS: Final = 10  # without a packet a link is quiet: the next one wakes the main loop
CAPTURE_PROMPT_MS: Final = 1  # the same where each packet is to be seen at once: provisional alerts
MAX_CLOCK_OFFSET_NS: Final = 10**15  # injected clock error: eleven days [capture.clock_offset_us]
MAX_DRIFT_PPM: Final = 1_000
MAX_JITTER_NS: Final = 10**10  # ten seconds [capture.jitter_us]
MAX_PPS: Final = 10**9  # packets/s of a replayed file [capture.pps]

# -- sync ---------------------------------------------------------------------------------------
MAX_CLUSTER: Final = 4_096  # k, packets [sync.k]
MAX_ANCHOR: Final = 1_024  # l, packets [sync.l]
MAX_DESYNC: Final = 64  # desync levels [sync.max_desync]; then the window is cut at the horizon
MAX_WINDOW: Final = 65_536  # packets of one member in one merge; more waits for the next round
MAX_SUMMARIES: Final = 1_024  # clusters of one member, not in step, looked at in one round; more wait
MAX_CANDIDATES: Final = 128  # places at which one cluster is looked for; the nearest first, then it is asked for
HISTORY_PACKETS: Final = 65_536  # decided packets remembered for late duplicates and joins
MAX_PENDING: Final = 1 << 20  # reported, undecided packets per member; more are not taken until decided, and resent
MAX_UNSTABLE: Final = 262_144  # decided packets that not every member has acknowledged; then deciding waits (counted),
# and of a live set the member that lags leaves the view
PINNED: Final = 500  # of 1000: how much of a live replica's ring may wait for other members; then the one that lags
# leaves the view [ring.slots, ring.arena_mb]
FEED_AHEAD: Final = 8_192  # packets, or a quarter of the agreed index: a member whose feed lags by the whole index
# while another is that far ahead leaves the view [ring.slots]
FULL: Final = 900  # of 1000: a ring that full makes a file source wait for the set
MAX_EARLY: Final = 65_536  # pushed packets kept here that overtook their decision; more are dropped and fetched
MAX_EARLY_REPORTS: Final = 64  # reports of one member kept while an earlier one is missing; more are resent
MAX_FETCH: Final = 4_096  # seqs in one FETCH
MAX_REPORTED: Final = 262_144  # packets that a member reports ahead of what is decided; then reporting waits
MAX_LOG_DECISIONS: Final = 65_536  # decisions kept for repair; then deciding waits (counted), and of a live set the
# member that lags leaves the view
MAX_LOG_SENT: Final = 4_096  # decisions in one PROPOSE or PROMISE; the rest goes with the next
MAX_LOG_PACKETS: Final = 131_072  # packets of them, unless a single decision has more
MAX_AHEAD: Final = 16_384  # decisions kept while an earlier one is missing; more are dropped, counted and asked for
MAX_NACKS: Final = 8  # gaps among the decisions that a member asks for at once; the others follow
MAX_MARKS: Final = 1_024  # stretches that wait for the local feed, freed one by one; more are freed in larger ones
REORDER_NS: Final = 500_000  # R [sync.reorder_us]
REORDER_PLACES: Final = 64  # [sync.reorder_places]
TOLERANCE_FLOOR_NS: Final = 6_000  # added to twice the largest residual of the clock fit
MAX_TOLERANCE_NS: Final = 50_000_000  # a wider clock fit is refused, the previous one kept and counted
START_TOLERANCE_NS: Final = 1_000_000  # while a clock fit has few samples
CLOCK_SAMPLES: Final = 8_192  # samples of a member's clock kept between fits; the oldest go (no fewer than the packets
# that a view change keeps waiting)
CLOCK_SAMPLED: Final = 4_096  # packets of one window that may train a clock; of more, all of every so many hashes

# -- peers ----------------------------------------------------------------------------------------
MAX_MESSAGE_BYTES: Final = 8 << 20  # of one wire message; larger ones are dropped and counted
MAX_REPORT_PACKETS: Final = 65_536  # packets in one REPORT
MAX_DECISION_PACKETS: Final = 65_536  # packets in one DECISION
MAX_BYTES_PACKETS: Final = 16_384  # packets in one BYTES
MAX_BYTES_DATA: Final = 4 << 20  # bytes of frames in one BYTES, unless a single frame is larger
MAX_MESSAGE_VALUES: Final = 8 << 20  # array elements that one message may unfold to
MAX_DIGEST: Final = 64  # bytes of a digest in JOIN and HISTORY
MAX_TEXT: Final = 4_096  # bytes of a reason or an IDS version in a message
MAX_SHARED_TEXT: Final = 1 << 17  # bytes of what all members must share, readable, with its capture filter
MAX_STATUS_BYTES: Final = 1 << 20  # of one status snapshot
LARGE_MESSAGE: Final = 1 << 16  # bytes from which on messages wait in the queue of large ones
SEND_QUEUE_BYTES: Final = 64 << 20  # of large messages, per peer; what does not fit is dropped, counted and resent
SEND_QUEUE_MESSAGES: Final = 4_096  # per peer; what does not fit is dropped, counted and resent by the protocol
RECEIVE_QUEUE_MESSAGES: Final = 16  # per connection, before they are looked at; more wait in the kernel, then there
RECEIVE_BUFFER_BYTES: Final = 1 << 18  # of kernel buffer for each connection; then the sender's queue fills
RECEIVE_BATCH: Final = 256  # messages handed out at once; the rest is handed out next time
RECEIVE_BATCH_BYTES: Final = 16 << 20  # the same in bytes
CONNECTIONS: Final = 128  # waiting to be accepted; more are refused by the kernel
MAX_STRANGERS: Final = 16  # connections that no member has spoken on yet; further ones are cut and counted
STRANGER_S: Final = 3.0  # for a member to speak on its new connection; then it is cut (members speak every 20 ms)
CONNECTIONS_A_MEMBER: Final = 2  # the oldest of more is cut; two, because one may be dying while the next comes
KNOCKS: Final = 64  # connections accepted at once, from members' hosts and from others each; then the door closes
KNOCKS_A_SECOND: Final = 32  # in the long run
DOOR_CLOSED_S: Final = 1.0  # for which the kernel then drops further connection requests, counted as door_closed
PEER_EVENTS: Final = 64  # events of connections looked at before messages are; the rest waits for the next look
BAD_MESSAGES: Final = 64  # of one member at once (another version, another cluster, malformed); then it is cut off
BAD_MESSAGES_A_SECOND: Final = 8  # in the long run
SHUT_OUT_S: Final = 10.0  # for which a member that sent too many is not let in again
RENEW_LINGER_S: Final = 1.0  # for what is queued at a connection that ends because its key was renewed

# -- log ------------------------------------------------------------------------------------------
LOG_REPEAT_S: Final = 10.0  # a warning with the same key is logged this often, with the number held back
LOG_KEYS: Final = 1_024  # keys of warnings remembered; the oldest go first

ARCHIVES: Final = 4  # agreed.pcap and hashes.txt of earlier runs that are kept; more are removed and said
SMALL_ARCHIVE: Final = 1_000  # packets; streams of fewer are removed before larger ones

# -- alerts -----------------------------------------------------------------------------------------
MAX_LOG_LINE: Final = 16 << 20  # bytes of one line of an IDS's log; longer ones are skipped and counted
MAX_ALERT_BYTES: Final = 1 << 18  # of one record; a longer one keeps its main fields only, which is counted
MAX_RECORD_DEPTH: Final = 64  # levels of one record of an IDS's log; a deeper one is skipped and counted
MAX_ALERT_BATCH: Final = 4 << 20  # bytes of records in one ALERT message
ALERT_TABLE: Final = 262_144  # alert ids remembered for de-duplication; the oldest go first
ALERT_READ_BYTES: Final = 1 << 18  # of an IDS's log taken in one look; the rest waits for the next
ALERT_WAITING_BYTES: Final = 64 << 20  # of alerts that the coordinator has not taken; then the IDS's log is read no
# further, which is said; nothing is lost
ALERT_KEPT_BYTES: Final = 64 << 20  # of alerts that the coordinator took lately, kept in case it dies; the oldest go
ALERT_BACKLOG: Final = 65_536  # records held back by an output that cannot be written; more are lost, counted and said
ALERT_BACKLOG_BYTES: Final = 256 << 20  # and their bytes
ALERT_LOOKUP_BYTES: Final = 32 << 20  # of an output, the newest, in which ids that are out already are looked up
SPOOL_SEGMENT_BYTES: Final = 4 << 20  # of one file of a spool, or a quarter of it
SPOOL_BATCH: Final = 256  # records handed to a receiver at once
SPOOL_BATCH_BYTES: Final = 1 << 20  # the same in bytes, unless a single record is larger
SPOOL_KEPT_BYTES: Final = 32 << 20  # of a spool, kept when delivered, for a receiver that may forget what it took
SINK_WAIT_S: Final = 2.0  # for a receiver of alerts to answer; then it counts as down
SINK_BACKOFF_S: Final = 5.0  # longest pause before a receiver that is down is tried again
SINK_CLOSE_S: Final = 2.0  # for a receiver to take what is left when the replica ends; the rest waits in the spool
SYSLOG_BYTES: Final = 4_096  # of one line to syslog; longer ones are cut
REDIS_IDS: Final = 262_144  # ids that Redis notes beside the alerts, to leave out repeats; the oldest go
ALERT_LOOK_BACK: Final = 4 << 20  # bytes of an output, the newest, in which `alerts -f` finds what it begins with
ALERT_STRETCHES: Final = 64  # stretches of an output that others wrote, not looked at yet; more are taken for one
PROVISIONAL_OPEN: Final = 4_096  # provisional alerts that wait for another word, and lines of an IDS's log that may
# still be taken back; further alerts come when they are confirmed
PROVISIONAL_BYTES: Final = 4 << 20  # and their bytes; the journal of them is made anew at twice that
PROVISIONAL_S: Final = 30.0  # and alerts.hold_ms, after which a provisional alert counts as retracted
COLD_S: Final = 600  # of agreed time for which an IDS started in mid-stream may lack the memory of older flows
STALL_MS: Final = 300  # a coordinator that did nothing for so long may have been replaced [sync.failure_ms]
DOUBT_MS: Final = 500  # for which it then puts no alerts out; after that it looks them up first
LEAVER_MS: Final = 5_000  # the same of a new coordinator, while the last one leaves in order and puts its last ones out
DIVERGENCE_MS: Final = 5_000  # a replica whose IDS is past a packet for that long and raised no alert never will

# -- feed -------------------------------------------------------------------------------------------
FEED_BATCH: Final = 1_024  # packets handed to one sink in one go; a sink that fails repeats at most these
FEED_WAIT_S: Final = 0.1  # longest sleep of a sink without news; bounds how long a stop or an IDS's death goes unseen
AHEAD_TOLERANCE_US: Final = 1_000  # a packet that an IDS was fed early may turn out to have another time by so much
AHEAD_SPAN: Final = 4_096  # packets an IDS is fed beyond a checkpoint; then it waits until they are stable
FEED_LOOK_S: Final = 0.005  # between two looks at an IDS that reads the ring by itself and is behind
IDS_CHECK_S: Final = 60.0  # for an IDS to test its configuration
IDS_START_S: Final = 60.0  # for an IDS to load its rules and open its input; then it is killed and counts as dead
IDS_END_S: Final = 20.0  # for an IDS to end by itself after the stream ended; then SIGTERM
IDS_TERM_S: Final = 5.0  # after SIGTERM; then SIGKILL
IDS_BACKOFF_S: Final = 30.0  # longest pause before an IDS that keeps dying is started again
IDS_LAST_WORDS: Final = 4_096  # bytes of a dead IDS's output that are looked at for the report
IDS_VOIDS: Final = 65_536  # seqs without a packet that one run of an IDS remembers; the older half is then only
# counted, so that ids of alerts on packets from before may differ from other replicas'
IDS_RUNS: Final = 8  # runs of an IDS whose log folders stay, the current one included; older ones are removed and said
SPECULATION_TRIALS: Final = 4  # checkpoints after which it is judged whether speculating pays
SPECULATION_JUDGE_S: Final = 1.0  # at least, between two judgements of an IDS that takes its checkpoints itself
SPECULATION_PAUSE_S: Final = 30.0  # for which an IDS gets stable packets only, where it does not
CRIU_CHECK_S: Final = 20.0  # for CRIU to check the kernel, or to say its version
CRIU_DUMP_S: Final = 20.0  # for CRIU to write an image of an IDS; then it is killed, and there is no checkpoint
CRIU_RESTORE_S: Final = 20.0  # for CRIU to restore an IDS; then it is killed, and the IDS starts cold
CRIU_AGAIN_S: Final = 2.0  # in which a restore that met a pid in use is tried again; then the IDS is started cold
CRIU_PIDS: Final = 1_000  # pids between those of an IDS and those that CRIU's own processes get
IMAGES: Final = 2  # checkpoints of an IDS on disk; the oldest goes before a new one is made
IMAGE_CHUNK: Final = 1 << 18  # bytes of an image in one piece
MAX_STATE_CHUNK: Final = IMAGE_CHUNK + 64  # such a piece with its head
MAX_IMAGE_BYTES: Final = 4 << 30  # of an image for another replica; of a larger one it starts cold
MAX_IMAGE_FILES: Final = 1_024  # in an image, and arguments of its IDS
MAX_IMAGE_LOGS: Final = 256  # log files of an IDS whose state is transferred
MAX_IMAGE_MAPPED: Final = 512  # programs and libraries in it
MAX_IMAGE_VOIDS: Final = 8_192  # of the void seqs that it was given none for, the newest; the others are counted
MAX_LOG_BYTES: Final = 1 << 40  # of a log of such an IDS
MAX_MANIFEST: Final = 1 << 20  # bytes of an image's description
MAX_PID: Final = 1 << 22  # the kernel's own limit
MAX_SEQ: Final = 1 << 62  # a number of a packet that another replica names
STATE_LOOK_S: Final = (
    1.5  # for a set that runs to be heard, before a replica that may get its IDS's state starts it cold
)
STATE_WAIT_S: Final = 30.0  # for another replica's image to be here; then the IDS starts cold
STATE_FILL: Final = 750  # of 1000: a ring that full of what the IDS has to catch up with waits no longer for an image:
# it starts cold [ring.slots, ring.arena_mb]
STATE_DONORS: Final = 3  # replicas that a joiner tries; then it starts cold
STATE_ASK_S: Final = 0.5  # between two messages of a transfer that are not answered
STATE_BUSY_S: Final = 1.0  # before a replica that gives its state to another one is asked again
STATE_REST_S: Final = 2.0  # between two images that a replica takes for others: its feed pauses for each
STATE_SILENCE_S: Final = 10.0  # without a word from the other side of a transfer; then it is over
STATE_WINDOW: Final = 16  # pieces of an image on their way, and as many not written yet; no more are sent
STATE_TURN: Final = 2  # pieces sent in one turn of the main loop
STATE_DELAY_S: Final = 0.03  # a piece that takes so much longer than the fastest halves what is on its way: other
# messages wait behind it
STATE_READ: Final = 32  # pieces that a donor has read and that are not acknowledged
KEEPER_S: Final = 10.0  # for the keeper of an IDS's namespaces to answer; then there is none, and the IDS starts cold
KEEPER_STATUSES: Final = 64  # exit statuses in an IDS's namespaces that nobody has asked for; the oldest go

# -- status -----------------------------------------------------------------------------------------
STATUS_DEAD_S: Final = 3.5  # without a status from a member, which comes every second; then it is shown as dead
STATUS_VIEWERS: Final = 16  # at one status socket; more are refused
STATUS_VIEWER_S: Final = 5.0  # for a viewer to take one line; then it is dropped
STATUS_ALERTS: Final = 50  # of the newest alerts in a status; older ones go
STATUS_TEXT: Final = 200  # characters of a text of such an alert; longer ones are cut
METRICS_REQUESTS: Final = 8  # for the metrics, at once; more are refused
METRICS_REQUEST: Final = 8_192  # bytes of one; a longer one is dropped
METRICS_S: Final = 5.0  # for one, from its connection to the end of the answer; then it is dropped
TOP_SAMPLES: Final = 600  # snapshots of each replica that `top` remembers for rates and sparklines; the oldest go
TOP_ALERTS: Final = 1_000  # alerts that `top` remembers; the oldest go
DELAY_NOTES: Final = 65_536  # turns of the main loop remembered to measure delays; without the oldest they read shorter

# -- the doctor -------------------------------------------------------------------------------------
SAMPLE_PACKETS: Final = 65_536  # frames of one sample; it ends there, and of a file the first ones are read
SAMPLE_BYTES: Final = 64 << 20  # and room for them; what does not fit is not in the sample

# -- simulate ---------------------------------------------------------------------------------------
SIMULATE_MAX_SEED: Final = 1 << 31

# -- the lab ----------------------------------------------------------------------------------------
LAB_COMMAND_SECONDS: Final = 20  # one set-up command (ip, tc); then the lab gives up and cleans up
LAB_READY_SECONDS: Final = 60  # for all replicas to be ready, IDSs included; then the lab ends with the reason
LAB_STALL_SECONDS: Final = 60  # without any progress, beyond the longest gap of the traffic; then the lab ends
LAB_SETTLE_SECONDS: Final = 10  # for the last captured packets to show up in the replicas' status
LAB_SCAN_PACKETS: Final = 512  # packets of a capture file that the lab holds at once
LAB_SCAN_BYTES: Final = 256 << 20  # arena for them; at least LAB_SCAN_PACKETS * MAX_SNAPLEN
LAB_SEND_BATCH: Final = 64  # frames handed to the kernel in one call of the replay
LAB_TAP_PACKETS: Final = 65_536  # packets that the tap holds before they are written
LAB_TAP_BUFFER: Final = 128 << 20  # bytes of kernel buffer of the lossless tap; what it drops is counted and said
LAB_MAX_SEED: Final = 1 << 48
LAB_MAX_PPS: Final = 10_000_000
LAB_MAX_CLOCK_US: Final = 1_000_000  # of a replica's clock offset and jitter
LAB_STOP_SECONDS: Final = 10  # for a process to end after SIGTERM; then it is killed and the lab says so
LAB_REFERENCE_SECONDS: Final = 3_600  # for the IDS over all that was captured; then the lab ends with an error
