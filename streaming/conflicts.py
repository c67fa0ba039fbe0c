"""Copies of landed ticks that say something else than what landed, without a mark that they correct it.

Pure functions, no server needed.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from streaming.tick_columns import TickColumns, TickKey
from streaming.tick_sink import StoredTick
from tickledger.decode import OneMoreRule
from tickledger.revisions import TickValues
from tickledger.row_rules import RowRuleBroken, quote
from tickledger.tick import TICK_FIELDS, Tick

CONFLICT = "conflicts_with_landed"
_NAMES = [field.name for field in TICK_FIELDS if field.name not in ("ticker", "created_at", "id")]


def offsets_of_conflicts(ticks: TickColumns, stored: Mapping[TickKey, StoredTick]) -> list[int]:
    """The messages of ticks that say something else than what is stored under their key."""
    keys = ticks.keys()
    places = np.flatnonzero([key in stored for key in keys])
    copies = ticks.take(places)
    found = zip(places.tolist(), copies.ticks(), copies.offset.tolist(), strict=True)
    return sorted({offset for place, tick, offset in found if says_otherwise(tick, stored[keys[place]])})


def conflict_rule(stored: Mapping[TickKey, StoredTick]) -> OneMoreRule:
    """The rule that a tick which is stored says what is stored."""

    def rule(tick: Tick) -> None:
        landed = stored.get((tick.ticker, tick.created_ms, tick.id))
        if landed is not None and (differences := list(_differences(_values_of(tick), landed.values))):
            place = f"partition {landed.partition}, offset {landed.offset}"
            raise RowRuleBroken(CONFLICT, f"{'; '.join(differences)}; the tick landed from {place}")

    return rule


def says_otherwise(tick: Tick, landed: StoredTick) -> bool:
    """Whether a tick says something else than the landed one of its key."""
    said, values = _values_of(tick), landed.values
    return not (all(map(_equal, said[:-1], values[:-1])) and all(map(_equal, said.own, values.own)))


def _values_of(tick: Tick) -> TickValues:
    return TickValues(tick.volume, tick.market_cap, tick.price, tick.sector, tick.own)


def _differences(said: TickValues, landed: TickValues) -> Iterator[str]:
    for name, one, other in zip(_NAMES, (*said[:-1], *said.own), (*landed[:-1], *landed.own), strict=True):
        if not _equal(one, other):
            yield f"{name} is {_spelt(one)}, landed was {_spelt(other)}"


def _equal(said: Any, landed: Any) -> bool:
    # Cassandra keeps the shortest decimal that reads back as the same float.
    return bool((Decimal(repr(said)) if type(said) is float else said) == landed)


def _spelt(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else quote(value)
