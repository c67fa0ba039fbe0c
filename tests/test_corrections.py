"""Corrections and cancellations landed on real stores: what they add to the sums, which wait, and what expires."""

import json
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from commands.roll_up import roll_up
from tests.support.batches import NEW_COMPANY, TOPIC, Lander, assert_books_agree, tick
from tests.support.pipeline import Pipeline
from tickledger.ledger import LandedBatch, utc_now
from tickledger.retry_policy import GaveUp

pytestmark = pytest.mark.integration

LOGISTICS, COAL = "Logistics & Deliveries", "Coal"


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def correction(number: int, revised_at: str = "2026-03-02 05:30:00", **changes: Any) -> dict[str, Any]:
    return tick(number, revision="correction", revised_at=revised_at, **changes)


def cancellation(number: int, revised_at: str = "2026-03-02 05:40:00", **changes: Any) -> dict[str, Any]:
    key = {name: value for name, value in tick(number, **changes).items() if name in ("ticker", "created_at", "id")}
    return key | {"revision": "cancellation", "revised_at": revised_at}


def books(batch: LandedBatch | None) -> tuple[int, int, int, int, int]:
    """(read, landed, corrections, dead letters, duplicates)"""
    assert batch is not None
    assert batch.ticks_read == batch.ticks_landed + batch.corrections + batch.dead_letters + batch.duplicates
    return batch.ticks_read, batch.ticks_landed, batch.corrections, batch.dead_letters, batch.duplicates


def sums(pipeline: Pipeline) -> list[tuple[int, str, int, int, int | None, int | None]]:
    """(batch, sector, ticks, volume, and of these what is corrected), by batch and sector."""
    rows = pipeline.rows(
        "SELECT batch_id, sector, ticks, total_volume, corrected_ticks, corrected_volume FROM aggregated_data"
        " ORDER BY batch_id, sector"
    )
    return [(batch, sector, *(None if one is None else int(one) for one in rest)) for batch, sector, *rest in rows]


def waiting(pipeline: Pipeline) -> list[tuple[int, int, int, int]]:
    """(partition, offset, tick, batch) of the revisions that wait."""
    return pipeline.rows(
        "SELECT kafka_partition, kafka_offset, tick_id, batch_id FROM waiting_revisions WHERE expired_at IS NULL"
        " ORDER BY kafka_partition, kafka_offset, position"
    )


def revisions(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """(tick, kind, volume, partition, offset, position) of what is stored."""
    rows = pipeline.cassandra.execute(
        "SELECT id, kind, volume, kafka_partition, kafka_offset, position FROM tick_revisions"
    )
    return sorted(map(tuple, rows), key=lambda row: row[3:])


def dead_letters(pipeline: Pipeline) -> list[tuple[int, int, int, str]]:
    """(partition, offset, position, reason) of what is stored."""
    rows = pipeline.cassandra.execute("SELECT kafka_partition, kafka_offset, position, reason FROM dead_letters")
    return sorted(map(tuple, rows))


def test_a_correction_adds_the_difference_and_leaves_the_tick_as_it_came(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    batch = lander.land((0, 1, [correction(1, volume=70)]))

    assert books(batch) == (1, 0, 1, 0, 0)
    assert sums(lander.pipeline) == [(1, LOGISTICS, 2, 200, None, None), (2, LOGISTICS, 0, -30, 0, -30)]
    assert [row.volume for row in lander.pipeline.cassandra.execute("SELECT volume FROM real_time_data")] == [100, 100]
    assert revisions(lander.pipeline) == [(1, "correction", 70, 0, 1, 0)]
    assert lander.pipeline.rows(
        "SELECT corrections, corrected_ticks, corrected_volume, volume, first_created_at IS NULL FROM landed_batches"
        " ORDER BY batch_id"
    ) == [(0, 0, 0, 200, 0), (1, 0, -30, 0, 1)]


def test_a_cancellation_takes_the_tick_away(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    batch = lander.land((1, 0, [tick(3), cancellation(1)]))

    assert books(batch) == (2, 1, 1, 0, 0)
    assert sums(lander.pipeline)[1] == (2, LOGISTICS, 0, 0, -1, -100)


def test_a_correction_that_changes_no_sum_still_says_of_which_ticks(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    lander.land((0, 1, [correction(1, price=10.1)]))

    assert sums(lander.pipeline)[1] == (2, LOGISTICS, 0, 0, 0, 0)


def test_a_tick_counts_once_in_each_sum_that_its_corrections_change(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2), tick(3)]))
    lander.pipeline.execute("UPDATE profile SET sector = 'Coal' WHERE ticker = 'TMAS.JK'")
    moved = correction(2, sector=COAL)
    lander.land((0, 1, [moved, moved | {"volume": 7}]), (1, 0, [cancellation(1), correction(3, sector=COAL, volume=1)]))
    lander.land((0, 2, [cancellation(3, "2026-03-02 05:45:00")]))

    assert lander.pipeline.rows(
        "SELECT batch_id, sector, corrected_ticks, changed_ticks FROM aggregated_data ORDER BY batch_id, sector"
    ) == [(1, LOGISTICS, None, None), (2, COAL, 2, 2), (2, LOGISTICS, -3, 3), (3, COAL, -1, 1)]


def test_one_that_says_what_holds_is_kept_and_changes_nothing(lander: Lander) -> None:
    lander.land((0, 0, [tick(1, price=0.1)]))
    batch = lander.land((0, 1, [correction(1, price=0.1)]))

    assert books(batch) == (1, 0, 1, 0, 0)
    assert len(sums(lander.pipeline)) == 1
    assert len(revisions(lander.pipeline)) == 1


def test_a_revision_that_comes_before_its_tick_waits_for_it(spark: SparkSession, lander: Lander) -> None:
    pipeline = lander.pipeline
    assert books(lander.land((0, 0, [tick(1), correction(2, volume=70)]))) == (2, 1, 1, 0, 0)
    assert waiting(pipeline) == [(0, 0, 2, 1)]
    lander.land((0, 1, [tick(3)]))
    # What waits is known after a start too.
    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 2, 1: 0}))
    batch = again.land((1, 0, [tick(2), tick(4)]))

    assert books(batch) == (2, 2, 0, 0, 0)
    assert sums(pipeline)[2] == (3, LOGISTICS, 2, 170, 0, -30)
    assert waiting(pipeline) == []


def test_of_two_in_one_batch_the_newer_one_holds_in_whichever_partition(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    newer, older = correction(1, volume=70), correction(1, "2026-03-02 05:20:00", volume=10)
    batch = lander.land((0, 1, [newer, older]), (1, 0, [cancellation(1, "2026-03-02 05:10:00"), cancellation(2)]))

    assert books(batch) == (4, 0, 4, 0, 0)
    assert sums(lander.pipeline)[1:] == [(2, LOGISTICS, -1, -130, -1, -130)]
    # Of an older one that comes late nothing changes; a newer one counts against what held.
    lander.land((0, 2, [cancellation(1, "2026-03-02 05:25:00")]))
    lander.land((1, 1, [correction(1, "2026-03-02 05:50:00", volume=90)]))
    assert sums(lander.pipeline)[2:] == [(4, LOGISTICS, 0, 20, 0, 20)]
    assert len(revisions(lander.pipeline)) == 6


def test_a_tick_and_its_cancellation_may_share_a_message(lander: Lander) -> None:
    batch = lander.land((0, 0, [tick(1), cancellation(1), tick(2)]))

    assert books(batch) == (3, 2, 1, 0, 0)
    assert sums(lander.pipeline) == [(1, LOGISTICS, 1, 100, -1, -100)]


def test_a_tick_moves_with_its_company_to_another_sector(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    lander.pipeline.execute("UPDATE profile SET sector = %s WHERE ticker = 'TMAS.JK'", (COAL,))
    lander.land((0, 1, [correction(1, sector=COAL, volume=30)]))

    assert sums(lander.pipeline)[1:] == [(2, COAL, 1, 30, 1, 30), (2, LOGISTICS, -1, -100, -1, -100)]


def test_a_duplicate_of_what_was_cancelled_brings_it_not_back(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    lander.land((0, 1, [cancellation(1)]))

    assert books(lander.land((1, 0, [tick(1)]))) == (1, 0, 0, 0, 1)
    assert sums(lander.pipeline)[1:] == [(2, LOGISTICS, -1, -100, -1, -100)]


def test_a_correction_of_a_day_that_was_rolled_up_counts_in_its_own_batch(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    lander.land((0, 1, [tick(2)]))
    lander.pipeline.execute("UPDATE landed_batches SET verdict = 'passed', landed_at = '2026-03-02 06:00:00'")
    assert roll_up(lander.pipeline.settings, keep_days=1)[0] == 1
    lander.land((0, 2, [cancellation(1)]))

    assert sums(lander.pipeline) == [(2, LOGISTICS, 1, 100, None, None), (3, LOGISTICS, -1, -100, -1, -100)]


@pytest.mark.parametrize("cut", ["as before", "in two"])
def test_a_batch_that_died_before_its_commit_comes_to_the_same(
    spark: SparkSession, pipeline: Pipeline, cut: str
) -> None:
    first = Lander(spark, pipeline)
    first.land((0, 0, [tick(1), tick(2)]))
    messages = [(0, 1, [correction(1, volume=70), correction(9)]), (0, 2, [cancellation(1), cancellation(2), tick(3)])]
    first.die(*messages)

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 3, 1: 0}))
    for some in [messages] if cut == "as before" else [[one] for one in messages]:
        again.land(*some)

    expected = {
        "as before": [(2, LOGISTICS, -1, -100, -2, -200)],
        "in two": [(2, LOGISTICS, 0, -30, 0, -30), (3, LOGISTICS, -1, -70, -2, -170)],
    }
    assert sums(pipeline)[1:] == expected[cut]
    assert waiting(pipeline) == [(0, 1, 9, 2)]


def test_what_a_dead_attempt_left_of_a_later_message_counts_nowhere(spark: SparkSession, pipeline: Pipeline) -> None:
    first = Lander(spark, pipeline)
    first.land((0, 0, [tick(1)]))
    first.die((0, 1, [cancellation(1), tick(2)]))

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 2, 1: 0}))
    again.land((1, 0, [correction(1, volume=70), cancellation(2)]))
    assert sums(pipeline)[1:] == [(2, LOGISTICS, 0, -30, 0, -30)]
    assert waiting(pipeline) == [(1, 0, 2, 2)]
    again.land((0, 1, [cancellation(1), tick(2)]))
    assert sums(pipeline)[2:] == [(3, LOGISTICS, -1, -70, -2, -170)]
    assert waiting(pipeline) == []


def test_a_profile_that_changed_after_a_death_decides_anew(spark: SparkSession, pipeline: Pipeline) -> None:
    new = {"ticker": "NEW.JK", "sector": COAL}
    messages = [(0, 0, [tick(1), tick(2, **new), correction(1, volume=70), correction(2, **new, volume=70)])]
    Lander(spark, pipeline).die(*messages)
    assert [(row[0], row[5]) for row in revisions(pipeline)] == [(1, 2)]
    pipeline.execute(NEW_COMPANY)
    pipeline.execute("DELETE FROM profile WHERE ticker = 'TMAS.JK'")

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 1, 1: 0}))

    assert books(again.land(*messages)) == (4, 1, 1, 2, 0)
    assert sums(pipeline) == [(1, COAL, 1, 70, 0, -30)]
    assert [(row[0], row[5]) for row in revisions(pipeline)] == [(2, 3)]
    assert dead_letters(pipeline) == [(0, 0, 0, "unknown_ticker"), (0, 0, 2, "unknown_ticker")]


def test_a_revision_whose_tick_never_comes_is_a_dead_letter_by_then(spark: SparkSession, pipeline: Pipeline) -> None:
    lander = Lander(spark, pipeline, corrections_wait_days=0)
    first = lander.land((0, 0, [correction(1, volume=70, price=0.1), cancellation(2), tick(3)]))
    assert books(first) == (3, 1, 2, 0, 0)
    # However late it is by the clock: by the ticks that have landed, nothing has waited yet.
    now = utc_now()
    later = tick(4, created_at=(now + timedelta(hours=1)).isoformat(" ", "milliseconds"))
    lander.land((1, 0, [later]), message_at=now.replace(tzinfo=UTC))
    assert len(waiting(pipeline)) == 2
    third = lander.land((0, 1, [tick(2)]))

    assert books(third) == (1, 1, 0, 0, 0)
    assert pipeline.rows("SELECT corrections, dead_letters FROM landed_batches ORDER BY batch_id") == [
        (1, 1), (0, 0), (0, 0)
    ]  # fmt: skip
    assert sums(pipeline)[2:] == [(3, LOGISTICS, 0, 0, -1, -100)]
    assert pipeline.rows("SELECT * FROM waiting_revisions") == []
    assert [row[0] for row in revisions(pipeline)] == [2]
    assert dead_letters(pipeline) == [(0, 0, 0, "no_tick_to_correct")]
    (letter,) = pipeline.cassandra.execute("SELECT raw_value FROM dead_letters")
    assert json.loads(letter.raw_value) == correction(1, "2026-03-02 05:30:00.000", volume=70, price=0.1)
    # A tick that comes after all lands as it came.
    lander.land((0, 2, [tick(1)]))
    assert sums(pipeline)[3:] == [(4, LOGISTICS, 1, 100, None, None)]


def test_a_death_before_the_dead_letter_is_written_leaves_it_to_the_next_start(
    spark: SparkSession, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lander = Lander(spark, pipeline, corrections_wait_days=0)
    now = utc_now()
    later = tick(3, created_at=(now + timedelta(hours=1)).isoformat(" ", "milliseconds"))
    lander.land((0, 0, [correction(1), later]), message_at=now.replace(tzinfo=UTC))
    monkeypatch.setattr(lander._lander._revisions, "bury", lambda: None)
    lander.land((0, 1, [tick(2)]))
    assert (dead_letters(pipeline), waiting(pipeline), len(revisions(pipeline))) == ([], [], 1)

    Lander(spark, pipeline)

    assert dead_letters(pipeline) == [(0, 0, 0, "no_tick_to_correct")]
    assert (pipeline.rows("SELECT * FROM waiting_revisions"), revisions(pipeline)) == ([], [])


def test_without_revisions_the_driver_asks_cassandra_nothing(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    lander.land((0, 1, [tick(1)]))

    assert lander._lander._revisions._store is None


def test_a_store_that_stays_away_while_settling_is_given_up(
    spark: SparkSession, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lander = Lander(spark, pipeline, retry_seconds=1)
    closed = pipeline.settings.model_copy(update={"cassandra_port": 9})
    monkeypatch.setattr(lander._lander._revisions, "_settings", closed)

    with pytest.raises(GaveUp, match="Cassandra"):
        lander.land((0, 0, [cancellation(1)]))

    assert lander.ledger.head().batch_id == 0


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param([[(0, 0, [tick(1), tick(1, volume=7)])]], id="in one message"),
        pytest.param([[(0, 0, [tick(1)]), (0, 1, [tick(1, volume=7)])]], id="in two messages of one partition"),
        pytest.param([[(0, 0, [tick(1)]), (1, 0, [tick(1, volume=7)])]], id="in two partitions of one batch"),
        pytest.param([[(0, 0, [tick(1)])], [(0, 1, [tick(1, volume=7)])]], id="in two batches"),
        pytest.param([[(1, 0, [tick(1)])], [(0, 0, [tick(1, volume=7)])]], id="in two batches and partitions"),
    ],
)
def test_a_copy_that_says_something_else_is_a_dead_letter(
    lander: Lander, copies: list[list[tuple[int, int, Any]]]
) -> None:
    *_, batch = [lander.land(*messages) for messages in copies]

    assert batch is not None
    assert (batch.dead_letters, batch.duplicates) == (1, 0)
    assert sums(lander.pipeline) == [(1, LOGISTICS, 1, 100, None, None)]
    (letter,) = lander.pipeline.cassandra.execute("SELECT raw_value, reason, detail FROM dead_letters")
    assert letter.reason == "conflicts_with_landed"
    landed_from = copies[0][0]
    assert letter.detail == (
        f"volume is 7, landed was 100; the tick landed from partition {landed_from[0]}, offset {landed_from[1]}"
    )
    assert json.loads(letter.raw_value) == tick(1, volume=7)


def test_each_field_of_a_copy_is_compared(lander: Lander) -> None:
    landed = tick(1, price=0.1, market_cap=10**18)
    lander.land((0, 0, [landed, tick(2)]))
    same = [landed, landed | {"market_cap": 1e18}, landed | {"price": 1e-1}]
    other = [landed | {"price": 0.1000001}, landed | {"market_cap": 10**18 + 1}, landed | {"volume": 101}]
    batch = lander.land((0, 1, [*same, *other, tick(3)]))

    assert books(batch) == (7, 1, 0, 3, 3)
    details = [row.detail for row in lander.pipeline.cassandra.execute("SELECT detail FROM dead_letters")]
    assert [detail.partition(",")[0] for detail in details] == [
        "price is 0.1000001", f"market_cap is {10**18 + 1}", "volume is 101"
    ]  # fmt: skip


@pytest.mark.usefixtures("copies_found")
def test_a_tick_in_two_partitions_is_corrected_once_by_what_came_before_and_with_it(lander: Lander) -> None:
    """The corrections stand in the partition whose copy loses; the first one has waited since the batch before."""
    lander.land((1, 0, [correction(1, volume=30)]))
    batch = lander.land(
        (0, 0, [tick(1), tick(2)]),
        (1, 1, [tick(1), correction(2, volume=40), tick(2)]),
    )

    assert books(batch) == (5, 2, 1, 0, 2)
    assert waiting(lander.pipeline) == []
    assert sums(lander.pipeline) == [(2, LOGISTICS, 2, 70, 0, -130)]
    assert_books_agree(lander)


@pytest.mark.usefixtures("copies_found")
def test_of_copies_in_both_partitions_each_is_told_what_the_winner_says(lander: Lander) -> None:
    """The lower partition's first tick lands, also where the other one holds a copy of what lost."""
    batch = lander.land(
        (0, 0, [tick(1), tick(1, volume=7)]),
        (1, 0, [tick(1, volume=7), tick(1), tick(2)]),
        (1, 1, [tick(1, volume=7), tick(2, volume=8)]),
    )

    assert books(batch) == (7, 2, 0, 4, 1)
    assert dead_letters(lander.pipeline) == [
        (0, 0, 1, "conflicts_with_landed"),
        (1, 0, 0, "conflicts_with_landed"),
        (1, 1, 0, "conflicts_with_landed"),
        (1, 1, 1, "conflicts_with_landed"),
    ]
    stored = lander.pipeline.cassandra.execute("SELECT id, volume, kafka_partition FROM real_time_data")
    assert sorted(map(tuple, stored)) == [(1, 100, 0), (2, 100, 1)]


def test_a_message_of_many_conflicts_is_kept_whole(lander: Lander) -> None:
    many = [tick(number) for number in range(300)]
    lander.land((0, 0, many))
    batch = lander.land(
        (0, 1, [*(one | {"volume": 7} for one in many), tick(400), tick(1)]), (0, 2, [tick(2, volume=7)])
    )

    assert books(batch) == (4, 1, 0, 2, 1)
    assert dead_letters(lander.pipeline) == [(0, 1, -1, "too_many_broken"), (0, 2, 0, "conflicts_with_landed")]


def test_what_a_dead_attempt_called_a_conflict_may_land(spark: SparkSession, pipeline: Pipeline) -> None:
    """The batch that died saw both partitions; now the one that had lost lands first."""
    messages = [(0, 0, [tick(1)]), (1, 0, [tick(1, volume=7)])]
    Lander(spark, pipeline).die(*messages)
    assert dead_letters(pipeline) == [(1, 0, 0, "conflicts_with_landed")]

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 1, 1: 1}))
    again.land(messages[1])
    again.land(messages[0])

    assert sums(pipeline) == [(1, LOGISTICS, 1, 7, None, None)]
    assert dead_letters(pipeline) == [(0, 0, 0, "conflicts_with_landed")]


def test_a_tick_stays_that_landed_beside_a_copy_that_cannot(spark: SparkSession, pipeline: Pipeline) -> None:
    """The stream begins with what its topic holds, where an attempt that died may have left rows."""
    begins = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 1, 1: 0}))
    batch = begins.land((0, 0, [tick(1), tick(1), tick(1, sector="Coal")]))

    assert books(batch) == (3, 1, 0, 1, 1)
    assert sums(pipeline) == [(1, LOGISTICS, 1, 100, None, None)]
    assert_books_agree(begins)
