"""Corrections and cancellations landed on real stores: what they add to the sums, which wait, and what expires."""

from dataclasses import replace
from typing import Any

import pytest
from pyspark.sql import SparkSession

from tests.support.batches import TOPIC, Lander, tick
from tests.support.pipeline import Pipeline
from tickledger.ledger import LandedBatch

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
    return [(batch, sector, *(None if one is None else int(one) for one in rest)) for batch, sector, *rest in rows]  # type: ignore[misc]


def waiting(pipeline: Pipeline) -> list[tuple[int, int, int, int]]:
    """(partition, offset, tick, batch) of the revisions that wait."""
    return pipeline.rows(  # type: ignore[return-value]
        "SELECT kafka_partition, kafka_offset, tick_id, batch_id FROM waiting_revisions WHERE expired_at IS NULL"
        " ORDER BY kafka_partition, kafka_offset, position"
    )


def revisions(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """(tick, kind, volume, partition, offset, position) of what is stored."""
    rows = pipeline.cassandra.execute(
        "SELECT id, kind, volume, kafka_partition, kafka_offset, position FROM tick_revisions"
    )
    return sorted(map(tuple, rows), key=lambda row: row[3:])


def test_a_correction_adds_the_difference_and_leaves_the_tick_as_it_came(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    batch = lander.land((0, 1, [correction(1, volume=70)]))

    assert books(batch) == (1, 0, 1, 0, 0)
    assert sums(lander.pipeline) == [(1, LOGISTICS, 2, 200, None, None), (2, LOGISTICS, 0, -30, 0, -30)]
    assert [row.volume for row in lander.pipeline.cassandra.execute("SELECT volume FROM real_time_data")] == [100, 100]
    assert revisions(lander.pipeline) == [(1, "correction", 70, 0, 1, 0)]
    assert lander.pipeline.rows(
        "SELECT corrections, corrected_ticks, corrected_volume, volume, first_created_at FROM landed_batches"
        " ORDER BY batch_id"
    ) == [(0, 0, 0, 200, lander.pipeline.rows("SELECT first_created_at FROM aggregated_data")[0][0]), (1, 0, -30, 0, None)]


def test_a_cancellation_takes_the_tick_away(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    batch = lander.land((1, 0, [tick(3), cancellation(1)]))

    assert books(batch) == (2, 1, 1, 0, 0)
    assert sums(lander.pipeline)[1] == (2, LOGISTICS, 0, 0, -1, -100)


def test_a_correction_that_changes_no_sum_still_says_of_which_ticks(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]))
    lander.land((0, 1, [correction(1, price=10.1)]))

    assert sums(lander.pipeline)[1] == (2, LOGISTICS, 0, 0, 0, 0)


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
