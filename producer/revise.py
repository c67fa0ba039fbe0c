"""Corrections and cancellations of a share of the ticks, sent some rounds after them. Pure and seeded."""

from collections import deque
from random import Random
from typing import Any

from producer.market import LOT_SHARES
from tickledger.revisions import RevisionKind
from tickledger.row_rules import REVISED_AT_FIELD, REVISION_FIELD

#: How many rounds later a tick is revised, drawn once for each round, so that they go in order.
LEAST_ROUNDS, MOST_ROUNDS = 2, 20
#: Of the revised ticks so many were not traded at all; of the others the volume was another one.
CANCELLED = 0.25


class Reviser:
    """Adds to each round what it says of earlier ones: of a `share` of all ticks, once each."""

    def __init__(self, share: float, seed: int | None = None) -> None:
        self._share = share
        # Not the market's own: the same seed makes the same prices and volumes with and without corrections.
        self._random = Random(seed)
        self._round = 0
        self._due: deque[tuple[int, dict[str, Any]]] = deque()

    def revise(self, ticks: list[dict[str, Any]], revised_at: str) -> list[dict[str, Any]]:
        """The round's ticks, and behind them what is due by now; `revised_at` is spelt as created_at is."""
        self._round += 1
        wait = self._random.randint(LEAST_ROUNDS, MOST_ROUNDS)
        self._due.extend((self._round + wait, tick) for tick in ticks if self._random.random() < self._share)
        revised = []
        while self._due and self._due[0][0] <= self._round:
            revised.append(self._revision(self._due.popleft()[1], revised_at))
        return ticks + revised

    def _revision(self, tick: dict[str, Any], revised_at: str) -> dict[str, Any]:
        if self._random.random() < CANCELLED:
            key = {name: tick[name] for name in ("id", "created_at", "ticker")}
            return key | {REVISION_FIELD: RevisionKind.CANCELLATION, REVISED_AT_FIELD: revised_at}
        lots = max(1, round(tick["volume"] / LOT_SHARES * self._random.uniform(0.1, 1.5)))
        return tick | {
            "volume": lots * LOT_SHARES,
            REVISION_FIELD: RevisionKind.CORRECTION,
            REVISED_AT_FIELD: revised_at,
        }
