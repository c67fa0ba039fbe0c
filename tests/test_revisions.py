"""Which values of a tick are in force, and what each batch changes of its sums."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.batches import tick
from tickledger.decode import Decoded, Decoder
from tickledger.revisions import LandedRevision, LandedTick, Place, RevisionKind, TickValues, changes, in_force
from tickledger.tick import parse_created_at

SECTORS = {"TMAS.JK": "Logistics & Deliveries"}
MESSAGE_MS = parse_created_at("2026-03-02 06:00:00")


def decoded(*elements: Any) -> Decoded:
    return Decoder(SECTORS).decode(json.dumps(elements).encode(), MESSAGE_MS)


def values(volume: int, sector: str = "Coal") -> TickValues:
    return TickValues(volume, 1000, 10, sector)


def revision(batch_id: int, what: TickValues | None, revised_ms: int, offset: int = 0) -> LandedRevision:
    return LandedRevision(batch_id, what, revised_ms, Place(0, offset, 0))


def test_a_correction_says_all_of_a_tick_and_when_it_was_made() -> None:
    found = decoded(tick(1, revision="correction", revised_at="2026-03-02T05:30:00Z", volume=700))
    assert (found.ticks, found.dead) == ([], [])
    [(position, one)] = found.revisions
    assert (position, one.kind, one.ticker, one.id) == (0, RevisionKind.CORRECTION, "TMAS.JK", 1)
    assert one.revised_ms == parse_created_at("2026-03-02 05:30:00")
    assert one.values == TickValues(700, 1000, 10.5, "Logistics & Deliveries")


def test_a_cancellation_needs_the_key_alone_and_may_be_of_a_company_that_has_left() -> None:
    key = {"ticker": "GONE.JK", "id": 1, "created_at": "2026-03-02 05:00:00"}
    [(_, one)] = decoded(key | {"revision": "cancellation"}).revisions
    assert (one.kind, one.ticker, one.values, one.revised_ms) == ("cancellation", "GONE.JK", None, MESSAGE_MS)


def test_no_mark_is_no_revision() -> None:
    found = decoded(tick(1), tick(2, revision=None))
    assert (len(found.ticks), found.revisions, found.dead) == (2, [], [])


@pytest.mark.parametrize(
    ("reason", "changed"),
    [
        ("bad_revision", {"revision": "amended"}),
        ("bad_revision", {"revision": ["correction"]}),
        ("bad_revision", {"revision": True}),
        ("bad_time", {"revision": "cancellation", "revised_at": "yesterday"}),
        ("wrong_type", {"revision": "cancellation", "revised_at": 5}),
        ("out_of_range", {"revision": "correction", "revised_at": "2026-03-04 06:00:00"}),
        ("out_of_range", {"revision": "correction", "volume": -1}),
        ("null_field", {"revision": "cancellation", "id": None}),
        ("unknown_ticker", {"revision": "correction", "ticker": "NEW.JK"}),
        ("wrong_sector", {"revision": "correction", "sector": "Coal"}),
    ],
)
def test_a_bad_revision_is_a_dead_letter(reason: str, changed: dict[str, Any]) -> None:
    found = decoded(tick(1, **changed), tick(2))
    assert [letter.reason for letter in found.dead] == [reason]
    assert len(found.ticks) == 1
    # What another profile may have let in can be found again.
    assert len(found.dead[0].revisions) == (reason in ("unknown_ticker", "wrong_sector"))
    assert found.dead[0].ticks == ()


def test_the_newest_revision_is_in_force_whenever_it_came() -> None:
    traded = LandedTick(1, values(100))
    assert in_force(traded, []) == values(100)
    newer, older = revision(2, values(70), revised_ms=20), revision(3, values(50), revised_ms=10)
    assert in_force(traded, [newer, older]) == values(70)
    assert in_force(traded, [newer, older, revision(4, None, revised_ms=30)]) is None
    # Made at once, the later message is the newer one.
    assert in_force(traded, [revision(2, values(1), 10, offset=5), revision(2, values(2), 10, offset=6)]) == values(2)
    assert in_force(None, [newer]) is None


@pytest.mark.parametrize(
    ("case", "tick_batch", "revisions", "expected"),
    [
        ("cancelled later", 1, [(3, None, 1)], [(3, -1, -100, "Coal")]),
        ("corrected", 1, [(2, values(70), 1)], [(2, -1, -100, "Coal"), (2, 1, 70, "Coal")]),
        ("moved", 1, [(2, values(100, "Energy"), 1)], [(2, -1, -100, "Coal"), (2, 1, 100, "Energy")]),
        ("in its own batch", 2, [(2, values(70), 1)], [(2, -1, -100, "Coal"), (2, 1, 70, "Coal")]),
        ("before its tick", 5, [(2, values(70), 1)], [(5, -1, -100, "Coal"), (5, 1, 70, "Coal")]),
        ("the same again", 1, [(2, values(70), 1), (3, values(70), 2)], [(2, -1, -100, "Coal"), (2, 1, 70, "Coal")]),
        ("cancelled twice", 1, [(2, None, 1), (3, None, 2)], [(2, -1, -100, "Coal")]),
        ("traded after all", 1, [(2, None, 1), (3, values(90), 2)], [(2, -1, -100, "Coal"), (3, 1, 90, "Coal")]),
        ("an older one late", 1, [(2, None, 9), (3, values(90), 2)], [(2, -1, -100, "Coal")]),
        ("says what holds", 1, [(2, values(100), 1)], []),
    ],
)
def test_a_batch_changes_the_sums_by_what_comes_and_goes(
    case: str, tick_batch: int, revisions: list[tuple[int, TickValues | None, int]], expected: list[Any]
) -> None:
    found = changes(LandedTick(tick_batch, values(100)), [revision(*one) for one in revisions])
    assert [(one.batch_id, one.ticks, one.volume, one.values.sector) for one in found] == expected, case


def test_without_its_tick_a_revision_changes_nothing() -> None:
    assert list(changes(None, [revision(1, None, 1)])) == []


_some_values = st.builds(values, st.integers(0, 3), st.sampled_from(["Coal", "Energy"]))


@given(
    st.integers(1, 4),
    _some_values,
    st.lists(st.tuples(st.integers(1, 4), st.none() | _some_values, st.integers(0, 3)), max_size=6),
)
def test_the_sums_up_to_each_batch_are_what_is_in_force_then(
    tick_batch: int, own: TickValues, said: list[tuple[int, TickValues | None, int]]
) -> None:
    traded = LandedTick(tick_batch, own)
    revisions = [revision(*one, offset=place) for place, one in enumerate(said)]
    found = list(changes(traded, revisions))
    for newest in range(1, 5):
        sums: Counter[str] = Counter()
        if tick_batch <= newest:
            sums[own.sector] += own.volume
        for one in found:
            if one.batch_id <= newest:
                sums[one.values.sector] += one.volume
        holds = in_force(traded, [one for one in revisions if one.batch_id <= newest]) if tick_batch <= newest else None
        assert +sums == Counter({holds.sector: holds.volume} if holds and holds.volume else {})


def test_a_revision_without_a_time_of_its_own_needs_a_message_of_our_days() -> None:
    raw = json.dumps([tick(1, revision="correction")]).encode()
    # Kafka takes any time, and Cassandra's driver none after the year 9999.
    [letter] = Decoder(SECTORS).decode(raw, parse_created_at("2199-12-31 00:00:00") * 40).dead
    assert letter.reason == "out_of_range"


@pytest.mark.parametrize("depth", [900, 1000, 1015, 1022])
def test_a_mark_that_is_nested_deep_is_a_dead_letter(depth: int) -> None:
    raw = b'[{"revision": ' + b"[" * depth + b"]" * depth + b"}]"
    assert [letter.reason for letter in Decoder(SECTORS).decode(raw, MESSAGE_MS).dead] == ["bad_revision"]
