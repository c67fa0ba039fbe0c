"""Copies of landed ticks that say something else than what landed, without a mark that they correct it.

Pure functions, no server needed.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from streaming.tick_columns import TickColumns, TickKey
from streaming.tick_packing import unpack_decimal
from streaming.tick_sink import VALUE_FIELDS, StoredTick
from tickledger.decode import OneMoreRule
from tickledger.row_rules import RowRuleBroken, quote
from tickledger.tick import Tick, datetime_to_ms

CONFLICT = "conflicts_with_landed"


def offsets_of_conflicts(
    ticks: TickColumns, stored: Mapping[TickKey, StoredTick], computed: Collection[str] = ()
) -> list[int]:
    """The messages of ticks that say something else than what is stored under their key.

    A field that is null on either side says nothing: it may not have been there yet. Nor do fields that are `computed`
    from `profile`, which may have changed since.
    """
    landed = list(map(stored.get, ticks.keys()))
    if None in landed:
        ticks = ticks.take([place for place, one in enumerate(landed) if one is not None])
    kept_columns = zip(*[one.values for one in landed if one is not None], strict=True)
    said_columns = (ticks.volume, ticks.market_cap, ticks.price, ticks.sector, *ticks.own)
    differing: set[int] = set()
    for field, said, kept in zip(VALUE_FIELDS, said_columns, kept_columns, strict=False):
        if field.name in computed:
            continue
        mine, theirs = _as_kept(said.tolist()), _as_said(kept)
        # Whole columns first: hardly any differs.
        if mine != theirs:
            pairs = enumerate(zip(mine, theirs, strict=True))
            differing.update(place for place, (one, other) in pairs if _differ(one, other))
    return sorted(set(ticks.offset[sorted(differing)].tolist()))


def conflict_rule(stored: Mapping[TickKey, StoredTick], computed: Collection[str] = ()) -> OneMoreRule:
    """The rule that a tick which is stored says what is stored, as :func:`offsets_of_conflicts` has it."""

    def rule(tick: Tick) -> None:
        landed = stored.get((tick.ticker, tick.created_ms, tick.id))
        if landed is not None and (differences := list(_differences(tick, landed, computed))):
            place = f"partition {landed.partition}, offset {landed.offset}"
            raise RowRuleBroken(CONFLICT, f"{'; '.join(differences)}; the tick landed from {place}")

    return rule


def says_otherwise(tick: Tick, landed: StoredTick, computed: Collection[str] = ()) -> bool:
    """Whether a tick says something else than the landed one of its key."""
    return any(True for _ in _differences(tick, landed, computed))


def _differ(said: Any, kept: Any) -> bool:
    return said != kept and said is not None and kept is not None


def _differences(tick: Tick, landed: StoredTick, computed: Collection[str] = ()) -> Iterator[str]:
    said = (tick.volume, tick.market_cap, tick.price, tick.sector, *tick.own)
    for field, value, mine, theirs in zip(
        VALUE_FIELDS, said, _as_kept(said), map(_unpacked, landed.values), strict=True
    ):
        if field.name not in computed and _differ(mine, theirs):
            yield f"{field.name} is {quote(value)}, landed was {_spelt(theirs)}"


def _as_kept(said: Sequence[Any]) -> Sequence[Any]:
    """Values of ticks as Cassandra has them: of a float, the shortest decimal that reads back as the same one."""
    if float not in set(map(type, said)):
        return said
    decimals = {one: Decimal(repr(one)) for one in set(said) if type(one) is float}
    return [decimals.get(one, one) for one in said]


def _as_said(kept: Sequence[Any]) -> Sequence[Any]:
    """What Cassandra has of a field, as ticks do: times in milliseconds, and numbers unpacked."""
    if set(map(type, kept)) <= {int, str}:
        return list(kept)
    # Prices and the like are often the same.
    known = {one: _unpacked(one) for one in set(kept)}
    return [known[one] for one in kept]


def _unpacked(value: Any) -> Any:
    if isinstance(value, datetime):
        return datetime_to_ms(value)
    return unpack_decimal(value) if isinstance(value, bytes) else value


def _spelt(value: Any) -> str:
    return format(value, "f") if isinstance(value, Decimal) else quote(value)
