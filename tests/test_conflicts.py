"""Which copies of a landed tick say something else than it does."""

from decimal import Decimal

import pytest

from streaming.conflicts import conflict_rule, offsets_of_conflicts
from streaming.tick_columns import TickColumns
from streaming.tick_sink import VALUE_FIELDS, StoredTick
from tickledger.row_rules import RowRuleBroken
from tickledger.tick import OWN_FIELDS, Tick

TICK = Tick("TMAS.JK", 5, 1, volume=100, market_cap=1000, price=10.5, sector="Coal", trade_day=0)
#: As Cassandra's driver has it.
LANDED = StoredTick("TMAS.JK", 5, 1, 0, 3, (100, 1000, Decimal("10.5"), "Coal", *(None for _ in OWN_FIELDS)))


@pytest.mark.parametrize(
    ("copy", "computed", "differs"),
    [
        (TICK, (), []),
        (TICK._replace(price=10.50, market_cap=1000.0), (), []),
        (TICK._replace(volume=101), (), ["volume"]),
        (TICK._replace(price=10.25, sector="Energy"), (), ["price", "sector"]),
        # What a description takes from `profile` may have changed there since.
        (TICK._replace(market_cap=2000, sector="Energy"), ("market_cap", "sector"), []),
        (TICK._replace(market_cap=2000, volume=1), ("market_cap", "sector"), ["volume"]),
    ],
)
def test_a_copy_conflicts_by_what_a_feed_says(copy: Tick, computed: tuple[str, ...], differs: list[str]) -> None:
    stored = {LANDED[:3]: LANDED}
    assert offsets_of_conflicts(TickColumns.of([(copy, 7)]), stored, computed) == [7] * bool(differs)
    if not differs:
        conflict_rule(stored, computed)(copy)
        return
    with pytest.raises(RowRuleBroken, match="landed from partition 0, offset 3") as broken:
        conflict_rule(stored, computed)(copy)
    assert [part.split()[0] for part in broken.value.detail.split("; ")[:-1]] == differs


def test_a_field_that_is_null_says_nothing() -> None:
    """A field of one's own is null in rows from before it was there."""
    names = [field.name for field in VALUE_FIELDS]
    lacking = LANDED._replace(
        values=tuple(None if name == "sector" else LANDED.values[place] for place, name in enumerate(names))
    )
    assert offsets_of_conflicts(TickColumns.of([(TICK, 7)]), {LANDED[:3]: lacking}) == []
    conflict_rule({LANDED[:3]: lacking})(TICK)
