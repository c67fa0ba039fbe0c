"""Corrections and cancellations of ticks: which values of a tick are in force, and what each batch changes of its sums.

A revision never rewrites its tick. The stores keep both, and whoever reads them asks here. Pure functions, no server
needed.
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple


class RevisionKind(StrEnum):
    """What a feed says of a tick that it has sent, in the field `revision`."""

    #: The tick was traded with these values.
    CORRECTION = "correction"
    #: The tick was not traded.
    CANCELLATION = "cancellation"


class TickValues(NamedTuple):
    """What of a tick a correction may change: all but its key. `volume` in shares, money in the exchange's currency."""

    volume: int
    market_cap: Any
    price: Any
    sector: str
    own: tuple[Any, ...] = ()


class Revision(NamedTuple):
    """One correction or cancellation of the tick (ticker, created_ms, id), which may not have come yet.

    `revised_ms` is when the feed made it, in milliseconds since 1970-01-01 UTC; `trade_day` is the tick's, in days
    since then. A cancellation has no `values`. `extra` is a tick's.
    """

    kind: RevisionKind
    ticker: str
    created_ms: int
    id: int
    trade_day: int
    revised_ms: int
    values: TickValues | None
    extra: str | None = None


class Place(NamedTuple):
    """Where in Kafka an element stands: its message's partition and offset, its position in the message."""

    partition: int
    offset: int
    position: int


class LandedTick(NamedTuple):
    """A tick as it came, and the batch that landed it."""

    batch_id: int
    values: TickValues


class LandedRevision(NamedTuple):
    """A revision's values, None if it cancels; the batch that landed it; when it was made, and its place."""

    batch_id: int
    values: TickValues | None
    revised_ms: int
    place: Place


class Change(NamedTuple):
    """What revisions of one tick change of a batch's sums: one row per batch and values that come or go.

    `ticks` is 1 where these values come into force and -1 where they go; `volume` in shares has the same sign. `values`
    say by which sector, and fields of one's own, it is summed.
    """

    batch_id: int
    ticks: int
    volume: int
    values: TickValues


def in_force(tick: LandedTick | None, revisions: Iterable[LandedRevision]) -> TickValues | None:
    """The values that hold of a tick: those of its newest revision, or its own. None if it is cancelled or not landed.

    The newest revision is the one made last, whenever it came; of several made at once, the one at the last place.
    """
    if tick is None:
        return None
    newest = max(revisions, key=_age, default=None)
    return tick.values if newest is None else newest.values


def changes(tick: LandedTick | None, revisions: Iterable[LandedRevision]) -> Iterator[Change]:
    """What the revisions of one tick change of the sums, batch by batch, beside the tick itself, which landing sums.

    The changes of batches 1 to n, and the tick if it landed by then, add up to what is in force after batch n. A
    revision that came before its tick changes the sums of the tick's batch. No tick, no change.
    """
    if tick is None:
        return
    landed_in = partial(_landed_in, tick)
    newest: list[LandedRevision] = []
    before: TickValues | None = tick.values
    for batch_id, some in groupby(sorted(revisions, key=landed_in), key=landed_in):
        newest = [max((*newest, *some), key=_age)]
        after = in_force(tick, newest)
        if before != after:
            if before is not None:
                yield Change(batch_id, -1, -before.volume, before)
            if after is not None:
                yield Change(batch_id, 1, after.volume, after)
        before = after


def _landed_in(tick: LandedTick, revision: LandedRevision) -> int:
    """The batch that the revision first counts in."""
    return max(tick.batch_id, revision.batch_id)


def _age(revision: LandedRevision) -> tuple[int, Place]:
    return revision.revised_ms, revision.place
