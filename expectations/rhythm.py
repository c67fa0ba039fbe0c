"""What the batches before a batch say of it: how old its newest tick is, and how its size compares. Pure functions.

Normal life is not a finding: the first batches, a stream that was away and catches up (large batches of old ticks),
ticks of past days, and ticks that are sent again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

#: Batches before this one that make up what is usual, and how many it takes at least.
USUAL_BATCHES = 20
FEWEST_USUAL_BATCHES = 10
#: How much faster than the clock created_at must move on for the stream to be catching up.
CATCHING_UP = 1.5
#: A gap between two batches of this many usual ones breaks the rhythm: the stream, or the market, was away.
BROKEN_RHYTHM = 5
#: The least seconds between two batches; below it a pace says little.
LEAST_SECONDS = 0.5
#: Fewer dead letters or duplicates than this are not worth a finding.
FEWEST_DEAD_LETTERS = 10
FEWEST_DUPLICATES = 20


@dataclass(frozen=True)
class Landing:
    """One landed batch that brought ticks of a day that was not past. Times in UTC; `newest` is its last created_at.

    `ticks` are its :func:`own_ticks`.
    """

    landed_at: datetime
    newest: datetime
    ticks: int


@dataclass(frozen=True)
class _Step:
    """From one batch to the next: seconds between their landings, and by how many created_at moved on."""

    gap: float
    progress: float
    ticks: int

    @property
    def pace(self) -> float:
        """Ticks a second of the clock, or of created_at if that moved faster: when catching up."""
        return self.ticks / max(self.gap, self.progress, LEAST_SECONDS)


def own_ticks(batch: dict[str, Any]) -> int:
    """The ticks that a batch read, without copies and past days, which may be a file that is replayed beside a feed."""
    return int(batch["ticks_read"] - batch["duplicates"] - batch["late_ticks"])


def minutes_behind(batch: dict[str, Any], before: Sequence[Landing], limit: float) -> float | None:
    """Minutes from the batch's newest created_at to its landing; None if a delay is expected.

    A delay is expected of the first batch, if nothing, nothing new or only ticks of past days landed, if the stream was
    away, and if it is catching up. `before` holds the earlier landings, oldest first.
    """
    newest = batch["last_created_at"]
    if newest is None or not before or batch["late_ticks"] == batch["ticks_landed"]:
        return None
    behind, last = batch["landed_at"] - newest, before[-1]
    gap = batch["landed_at"] - last.landed_at
    was_away = behind <= gap + timedelta(minutes=limit)
    catches_up = newest - last.newest >= CATCHING_UP * gap
    if newest <= max(one.newest for one in before) or was_away or catches_up:
        return None
    return round(behind.total_seconds() / 60, 1)


def minutes_ahead(batch: dict[str, Any]) -> float | None:
    """Minutes by which the batch's newest created_at lies after its landing; negative in normal life."""
    newest = batch["last_created_at"]
    # Less than zero by less than it shows would be told as -0.
    return None if newest is None else round((newest - batch["landed_at"]).total_seconds() / 60, 1) + 0.0


def pace_to_usual(batch: dict[str, Any], before: Sequence[Landing]) -> float | None:
    """The batch's :func:`own_ticks` a second, as a multiple of the median of the batches before.

    None if it does not compare: for the first batches, for one of past days alone, for one that brings no newer tick
    than the one before it (ticks that are sent again), and for one that comes much later than usual. Nor is a batch
    small that has ticks of past days beside its own: at midnight those are the feed's.
    """
    only_of_past_days = batch["late_ticks"] == batch["ticks_landed"]
    if batch["last_created_at"] is None or only_of_past_days or len(before) <= FEWEST_USUAL_BATCHES:
        return None
    steps = [_step(*pair) for pair in pairwise(before)]
    step = _step(before[-1], Landing(batch["landed_at"], batch["last_created_at"], own_ticks(batch)))
    if step.progress <= 0 or step.gap > BROKEN_RHYTHM * max(median(one.gap for one in steps), LEAST_SECONDS):
        return None
    ratio = round(step.pace / median(one.pace for one in steps), 3)
    return None if batch["late_ticks"] and ratio < 1 else ratio


def _step(before: Landing, after: Landing) -> _Step:
    gap = (after.landed_at - before.landed_at).total_seconds()
    return _Step(max(gap, 0), (after.newest - before.newest).total_seconds(), after.ticks)


def dead_letter_share(batch: dict[str, Any]) -> float | None:
    """Dead letters in the ticks read; None below :data:`FEWEST_DEAD_LETTERS`."""
    dead = batch["dead_letters"]
    return round(dead / batch["ticks_read"], 3) if dead >= FEWEST_DEAD_LETTERS else None


def duplicate_share(batch: dict[str, Any]) -> float | None:
    """Duplicates in the ticks read; None below :data:`FEWEST_DUPLICATES`, and if nothing new came with them.

    A file that is replayed a second time, or messages that are sent again, bring nothing but duplicates.
    """
    duplicates = batch["duplicates"]
    few = duplicates < FEWEST_DUPLICATES or not batch["ticks_landed"]
    return None if few else round(duplicates / batch["ticks_read"], 3)
