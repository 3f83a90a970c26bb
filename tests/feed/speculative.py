"""A ring that lives in this process, part of which is only guessed."""

from __future__ import annotations

from .fake_ring import FakeRing, Packet


class SpeculativeRing(FakeRing):
    """`FakeRing` whose packets beyond `stable` are what `guess` said, until they are decided.

    A packet that is guessed wrong stands for one that another replica had and this one lacked, or the reverse.
    """

    def __init__(self, packets: list[Packet]) -> None:
        super().__init__(packets)
        self.truth, self.true_refs = packets, self.refs.copy()
        self.packets = list(packets)
        self.refs = self.refs.copy()
        self.agreed_slots = 1 << 16
        self.speculative = 0

    @property
    def agreed(self) -> int:
        return self.stable if not self.ended else len(self.truth)

    def guess(self, upto: int, wrong: tuple[int, ...] = ()) -> None:
        """All below `upto` may be read; at the seqs in `wrong` stands something else."""
        with self._news:
            for seq in wrong:
                self.packets[seq] = Packet(self.truth[seq].time_us, b"wrong" * 20)
                self.refs[seq] = self.true_refs[(seq + 1) % len(self.truth)]
            self.speculative = upto
            self._news.notify_all()

    def decide(self, upto: int, *, end: bool = False) -> None:
        """All below `upto` is stable, and as it should be."""
        with self._news:
            self.packets[:upto] = self.truth[:upto]
            self.refs[:upto] = self.true_refs[:upto]
            self.stable, self.ended = upto, end
            self.speculative = max(self.speculative, upto)
            self._news.notify_all()

    def wait_news(self, stable: int, ahead: int, timeout_s: float) -> int:
        with self._news:
            self._news.wait_for(lambda: self.stable > stable or self.speculative > ahead or self.ended, timeout_s)
            return self.speculative

    def wait_stable(self, seq: int, timeout_s: float) -> int:
        with self._news:
            self._news.wait_for(lambda: self.stable > seq or self.ended, timeout_s)
            return self.stable

    export_ahead = FakeRing.export_pcap
    ahead_entries = FakeRing.agreed_entries
