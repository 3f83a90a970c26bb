# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The C core as Python sees it: one mapped ring, one capture source, the packet hash.

Thin on purpose: arguments are checked by `ftnids.core.ring` and `ftnids.core.capture`, which serve this and the
pure-Python core alike.  What takes long runs without the GIL, and keeps the mapping alive while it does.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

import numpy as np

from ftnids.core.packets import PacketBatch
from ftnids.errors import CaptureError, RingError

IMPL = "c"


cdef extern from "hash.h" nogil:
    struct ftn_hasher:
        pass
    void ftn_hasher_init(ftn_hasher *hasher, uint64_t seed)
    uint64_t ftn_hash_frame(const ftn_hasher *hasher, const uint8_t *data, uint32_t caplen, uint32_t wirelen)


cdef extern from "ring.h" nogil:
    struct ftn_store_counters:
        uint64_t head, next, dropped, rejected, tail
    struct ftn_header:
        ftn_store_counters captured, recovered
        int64_t watermark_ns
        uint64_t agreed, stable, fed, speculative, epoch
        uint32_t ended
    struct ftn_description:
        uint64_t seed
        uint32_t linktype, snaplen
    struct ftn_ring:
        ftn_header *header
        ftn_description is_ "is"
    const char *ftn_attach(ftn_ring *ring, void *base, size_t mapped)
    uint64_t load_u64 "ftn_load_acquire"(uint64_t counter)
    uint32_t load_u32 "ftn_load_acquire"(uint32_t counter)
    int64_t load_i64 "ftn_load_acquire"(int64_t counter)
    void store_u64 "ftn_store_release"(uint64_t counter, uint64_t value)


cdef extern from "segment.h" nogil:
    struct ftn_batch:
        size_t count
        uint64_t *hash
        uint32_t *caplen
        uint32_t *wirelen
        uint8_t *data
        size_t bytes
    size_t ftn_gather_bytes(const ftn_ring *ring, const int64_t *refs, size_t count, size_t *bad)
    void ftn_gather(const ftn_ring *ring, const int64_t *refs, ftn_batch *batch)
    void ftn_store_recovered(ftn_ring *ring, const ftn_hasher *hasher, const ftn_batch *batch, int64_t *refs)
    void ftn_set_stable(ftn_ring *ring, uint64_t seq)
    void ftn_set_end(ftn_ring *ring)
    void ftn_set_speculative(ftn_ring *ring, uint64_t seq)
    void ftn_retract(ftn_ring *ring, uint64_t seq)
    void ftn_wake(ftn_ring *ring)
    uint64_t ftn_wait_stable(ftn_ring *ring, uint64_t seq, int64_t timeout_ns)
    uint64_t ftn_wait_news(ftn_ring *ring, uint64_t seq, uint64_t ahead, int64_t timeout_ns)
    uint64_t ftn_export_pcap(ftn_ring *ring, int fd, uint64_t first, uint64_t last, int *error)


cdef extern from "capture.h" nogil:
    struct ftn_drop:
        uint64_t seed, index, first, after_kept, after_dropped
        bint dropping
    struct ftn_skew:
        int64_t offset_ns, jitter_ns, drift
        uint64_t seed
    struct ftn_clock:
        uint64_t steps
    enum ftn_pace:
        FTN_TOPSPEED, FTN_FILE_PACE, FTN_PPS
    struct ftn_capture:
        void *pcap
        uint32_t linktype, snaplen
        int64_t guard_ns, interval_ns
        ftn_clock clock
        ftn_skew skew
        ftn_drop drop
        ftn_pace pace
        uint64_t captured, kernel_drops, ring_drops, injected_drops, left_to_peers, captured_bytes
        char *warning
        char *error
    struct ftn_live_options:
        const char *interface
        const char *bpf
        int snaplen, buffer_bytes
        bint promiscuous, immediate
    int ftn_open_live(ftn_capture *c, const ftn_live_options *options)
    int ftn_open_file(ftn_capture *c, const char *path, const char *bpf, uint32_t snaplen)
    void ftn_close(ftn_capture *c)
    long ftn_capture_run(ftn_capture *c, ftn_ring *ring, const ftn_hasher *hasher, long limit, int64_t timeout_ns)
    int64_t ftn_capture_clock_ns(const ftn_capture *c)
    void ftn_look(const ftn_capture *c)
    void ftn_set_share(ftn_capture *c, uint32_t mine, uint32_t shares)
    void ftn_update_stats(ftn_capture *c)
    enum:
        FTN_END, FTN_FAILED


def hash_frame(const uint8_t[::1] frame not None, uint64_t seed, wirelen=None):
    """The packet hash of `frame`, of which `wirelen` bytes (default: all) were on the link."""
    cdef ftn_hasher hasher
    cdef uint32_t caplen = <uint32_t>frame.shape[0]
    cdef uint32_t length = caplen if wirelen is None else wirelen
    cdef uint8_t nothing = 0
    ftn_hasher_init(&hasher, seed)
    return ftn_hash_frame(&hasher, &frame[0] if caplen else &nothing, caplen, length)


cdef class Handle:
    """One mapped ring.  RingError with the reason when `memory` is no sound ring."""

    cdef ftn_ring ring
    cdef ftn_hasher hasher
    cdef const uint8_t[::1] memory
    cdef bint writable

    def __cinit__(self, memory, bint writable):
        cdef const char *fault
        self.memory = memory
        self.writable = writable
        fault = ftn_attach(&self.ring, <void *>&self.memory[0], self.memory.shape[0])
        if fault != NULL:
            raise RingError(fault.decode())
        ftn_hasher_init(&self.hasher, self.ring.is_.seed)

    cdef int _check_writable(self) except -1:
        if not self.writable:
            raise RingError("attached read-only")
        return 0

    @property
    def head(self):
        return load_u64(self.ring.header.captured.head)

    @property
    def tail(self):
        return load_u64(self.ring.header.captured.tail)

    @tail.setter
    def tail(self, uint64_t value):
        self._check_writable()
        store_u64(self.ring.header.captured.tail, value)

    @property
    def watermark_ns(self):
        return load_i64(self.ring.header.watermark_ns)

    @property
    def ring_drops(self):
        return load_u64(self.ring.header.captured.dropped)

    @property
    def recovered_head(self):
        return load_u64(self.ring.header.recovered.head)

    @property
    def recovered_tail(self):
        return load_u64(self.ring.header.recovered.tail)

    @recovered_tail.setter
    def recovered_tail(self, uint64_t value):
        self._check_writable()
        store_u64(self.ring.header.recovered.tail, value)

    @property
    def recovered_rejected(self):
        return load_u64(self.ring.header.recovered.rejected)

    @property
    def recovered_no_room(self):
        return load_u64(self.ring.header.recovered.dropped)

    @property
    def agreed(self):
        return load_u64(self.ring.header.agreed)

    @agreed.setter
    def agreed(self, uint64_t value):
        self._check_writable()
        store_u64(self.ring.header.agreed, value)

    @property
    def stable(self):
        return load_u64(self.ring.header.stable)

    @stable.setter
    def stable(self, uint64_t value):
        self._check_writable()
        ftn_set_stable(&self.ring, value)

    @property
    def ended(self):
        return load_u32(self.ring.header.ended) != 0

    def set_end(self):
        self._check_writable()
        ftn_set_end(&self.ring)

    @property
    def speculative(self):
        return load_u64(self.ring.header.speculative)

    @speculative.setter
    def speculative(self, uint64_t value):
        self._check_writable()
        ftn_set_speculative(&self.ring, value)

    @property
    def epoch(self):
        return load_u64(self.ring.header.epoch)

    def retract(self, uint64_t seq):
        self._check_writable()
        ftn_retract(&self.ring, seq)

    def wake(self):
        self._check_writable()
        ftn_wake(&self.ring)

    @property
    def fed(self):
        return load_u64(self.ring.header.fed)

    @fed.setter
    def fed(self, uint64_t value):
        self._check_writable()
        store_u64(self.ring.header.fed, value)

    def gather(self, const int64_t[::1] refs not None):
        cdef size_t count = refs.shape[0], bad = 0
        cdef ftn_batch batch
        cdef uint64_t[::1] hash
        cdef uint32_t[::1] caplen, wirelen
        arrays = np.empty(count, np.uint64), np.empty(count, np.uint32), np.empty(count, np.uint32)
        if count == 0:
            return PacketBatch(*arrays, b"")
        batch.bytes = ftn_gather_bytes(&self.ring, &refs[0], count, &bad)
        if batch.bytes == <size_t>-1:
            raise IndexError(bad)
        data = PyBytes_FromStringAndSize(NULL, batch.bytes)
        hash, caplen, wirelen = arrays
        batch.count = count
        batch.hash, batch.caplen, batch.wirelen = &hash[0], &caplen[0], &wirelen[0]
        batch.data = <uint8_t *>PyBytes_AS_STRING(data)
        ftn_gather(&self.ring, &refs[0], &batch)
        return PacketBatch(*arrays, data)

    def store_recovered(self, const uint64_t[::1] hash not None, const uint32_t[::1] caplen not None,
                        const uint32_t[::1] wirelen not None, bytes data not None):
        cdef ftn_batch batch
        cdef int64_t[::1] out
        self._check_writable()
        refs = np.empty(hash.shape[0], np.int64)
        if hash.shape[0] == 0:
            return refs
        out = refs
        batch.count = hash.shape[0]
        batch.hash, batch.caplen, batch.wirelen = <uint64_t *>&hash[0], <uint32_t *>&caplen[0], <uint32_t *>&wirelen[0]
        batch.data, batch.bytes = <uint8_t *>PyBytes_AS_STRING(data), len(data)
        with nogil:
            ftn_store_recovered(&self.ring, &self.hasher, &batch, &out[0])
        return refs

    def wait_stable(self, uint64_t seq, int64_t timeout_ns):
        cdef uint64_t stable
        with nogil:
            stable = ftn_wait_stable(&self.ring, seq, timeout_ns)
        return stable

    def wait_news(self, uint64_t seq, uint64_t ahead, int64_t timeout_ns):
        with nogil:
            ftn_wait_news(&self.ring, seq, ahead, timeout_ns)

    def export_pcap(self, int fd, uint64_t first, uint64_t last):
        cdef int error = 0
        cdef uint64_t seq
        with nogil:
            seq = ftn_export_pcap(&self.ring, fd, first, last, &error)
        return seq, error


cdef class Source:
    """One libpcap source.  CaptureError with the reason when it cannot be opened or read."""

    cdef ftn_capture capture
    cdef bint running

    @staticmethod
    def live(str interface, int snaplen, bint promiscuous, int buffer_bytes, str bpf, bint immediate, int64_t guard_ns):
        cdef Source self = Source.__new__(Source)
        cdef ftn_live_options options
        cdef bytes name = interface.encode(), expression = bpf.encode()
        options.interface, options.bpf = name, expression
        options.snaplen, options.buffer_bytes = snaplen, buffer_bytes
        options.promiscuous, options.immediate = promiscuous, immediate
        self.capture.guard_ns = guard_ns
        if ftn_open_live(&self.capture, &options) != 0:
            raise CaptureError(self._text(self.capture.error))
        return self

    @staticmethod
    def file(bytes path, uint32_t snaplen, str bpf):
        cdef Source self = Source.__new__(Source)
        cdef bytes expression = bpf.encode()
        if ftn_open_file(&self.capture, path, expression, snaplen) != 0:
            raise CaptureError(self._text(self.capture.error))
        return self

    cdef str _text(self, const char *text):
        return text.decode(errors="replace")

    def set_pace(self, str pace, int64_t interval_ns):
        self.capture.pace = {"topspeed": FTN_TOPSPEED, "file": FTN_FILE_PACE, "pps": FTN_PPS}[pace]
        self.capture.interval_ns = interval_ns

    def set_skew(self, int64_t offset_ns, int64_t drift, int64_t jitter_ns, uint64_t seed):
        self.capture.skew.offset_ns, self.capture.skew.drift = offset_ns, drift
        self.capture.skew.jitter_ns, self.capture.skew.seed = jitter_ns, seed

    def set_drop(self, uint64_t seed, uint64_t first, uint64_t after_kept, uint64_t after_dropped):
        self.capture.drop.seed, self.capture.drop.first = seed, first
        self.capture.drop.after_kept, self.capture.drop.after_dropped = after_kept, after_dropped
        self.capture.drop.index, self.capture.drop.dropping = 0, False

    def set_share(self, uint32_t mine, uint32_t shares):
        ftn_set_share(&self.capture, mine, shares)

    def look(self):
        if self.capture.pcap != NULL:
            ftn_look(&self.capture)

    def run(self, Handle ring not None, long max_packets, int64_t timeout_ns):
        cdef long done
        if self.capture.pcap == NULL or self.running:
            raise CaptureError("closed, or already running in another thread")
        ring._check_writable()
        self.running = True
        with nogil:
            done = ftn_capture_run(&self.capture, &ring.ring, &ring.hasher, max_packets, timeout_ns)
        self.running = False
        if done == FTN_FAILED:
            raise CaptureError(self._text(self.capture.error))
        return done

    @property
    def linktype(self):
        return self.capture.linktype

    @property
    def captured(self):
        return self.capture.captured

    @property
    def captured_bytes(self):
        return self.capture.captured_bytes

    @property
    def kernel_drops(self):
        return self.capture.kernel_drops

    @property
    def ring_drops(self):
        return self.capture.ring_drops

    @property
    def injected_drops(self):
        return self.capture.injected_drops

    @property
    def left_to_peers(self):
        return self.capture.left_to_peers

    @property
    def clock_steps(self):
        return self.capture.clock.steps

    @property
    def warning(self):
        return self._text(self.capture.warning)

    @property
    def clock_ns(self):
        return ftn_capture_clock_ns(&self.capture)

    def close(self):
        if self.running:
            raise CaptureError("close while run() is under way in another thread")
        if self.capture.pcap != NULL:
            ftn_update_stats(&self.capture)
            ftn_close(&self.capture)

    def __dealloc__(self):
        ftn_close(&self.capture)
