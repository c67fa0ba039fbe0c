"""A batch is bounded by its bytes: a micro-batch that holds more lands as several, each tick once."""

import json
from dataclasses import replace
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from commands.reconcile import reconcile
from streaming.land_batch import rooms
from streaming.landing_task import PartitionReport
from tests.support.batches import NEW_COMPANY, TOPIC, Lander, assert_books_agree, tick
from tests.support.pipeline import Pipeline, StreamProcess
from tickledger.fault_points import VARIABLE
from tickledger.ledger import LandedBatch

Message = tuple[int, int, list[dict[str, Any]]]


def arrow(values: list[bytes | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(values, pa.binary())], names=["value"])


@pytest.mark.parametrize("seed", range(20))
def test_the_same_messages_are_taken_however_spark_hands_them_over(seed: int) -> None:
    random = Random(seed)
    values = [None if random.random() < 0.1 else bytes(random.randrange(300)) for _ in range(200)]
    sizes = [len(value or b"") for value in values]
    room = random.choice([0, 10, 1_000, 10_000, 10**6])
    wanted = max(1, next((n for n in range(len(values)) if sum(sizes[: n + 1]) > room), len(values)))
    report, taken, at = PartitionReport(0), 0, 0
    while at < len(values):
        portion = arrow(values[at : at + random.randrange(1, 40)])
        at += len(portion)
        part = report.taken(portion, room)
        report.messages += len(part)
        taken += len(part)

    assert (taken, report.left) == (wanted, wanted < len(values))
    assert report.value_bytes == sum(sizes[:wanted])


def test_partitions_share_the_room_half_equally_and_half_by_their_offsets() -> None:
    assert rooms({0: (10, 40), 3: (0, 10)}, 4) == {0: 2.5e6, 3: 1.5e6}
    assert rooms({}, 4) == {}


def size_of(*messages: Message) -> int:
    return sum(len(json.dumps(value)) for *_, value in messages)


def land_all(lander: Lander, *messages: Message) -> list[LandedBatch]:
    """Land a micro-batch as the stream does: what the last batch has left is read again."""
    batches = []
    while rest := [one for one in messages if one[1] >= lander.start_of(one[0])]:
        batch = lander.land(*rest)
        assert batch is not None
        batches.append(batch)
    return batches


@pytest.mark.integration
def test_a_large_micro_batch_lands_as_several_batches(spark: SparkSession, pipeline: Pipeline) -> None:
    lander = Lander(spark, pipeline, stream_max_megabytes_per_batch=0.004)
    messages: list[Message] = [
        (number % 2, number // 2, [tick(10 * number + one) for one in range(random)])
        for number, random in enumerate(Random(1).choices([1, 5, 9], k=40))
    ]
    # Copies of earlier ticks, in the other partition.
    messages += [(1, 20, messages[0][2]), (0, 20, messages[37][2])]

    batches = land_all(lander, *messages)

    assert len(batches) > 5
    for batch in batches:
        parts = [
            [one for one in messages if one[0] == p and one[1] in range(*span)] for p, span in batch.ranges.items()
        ]
        assert sum(map(len, parts)) == batch.messages
        # A partition's first message lands whatever its size.
        assert sum(size_of(*part) for part in parts if len(part) > 1) <= 4_000
    copies = len(messages[0][2]) + len(messages[37][2])
    assert sum(batch.duplicates for batch in batches) == copies
    assert sum(batch.ticks_landed for batch in batches) == sum(len(one[2]) for one in messages) - copies
    assert_books_agree(lander)


@pytest.mark.integration
def test_a_message_that_is_larger_than_a_batch_lands_alone(spark: SparkSession, pipeline: Pipeline) -> None:
    lander = Lander(spark, pipeline, stream_max_megabytes_per_batch=0.000001)

    batches = land_all(lander, *((0, number, [tick(10 * number + one) for one in range(9)]) for number in range(3)))

    assert [(batch.messages, batch.ticks_landed) for batch in batches] == [(1, 9)] * 3
    assert_books_agree(lander)


@pytest.mark.integration
def test_what_a_dead_batch_wrote_is_decided_anew_by_batches_that_end_elsewhere(
    spark: SparkSession, pipeline: Pipeline
) -> None:
    """An attempt wrote all; the batches that land it again are smaller, and the profile is another by then."""
    messages: list[Message] = [
        (0, number, [tick(number), tick(number, ticker="NEW.JK", sector="Coal")]) for number in range(9)
    ]
    pipeline.execute(NEW_COMPANY)
    Lander(spark, pipeline).die(*messages)
    pipeline.execute("DELETE FROM profile WHERE ticker = 'NEW.JK'")

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 9, 1: 0}), stream_max_megabytes_per_batch=0.001)
    batches = land_all(again, *messages)

    assert [batch.messages for batch in batches] == [3, 3, 3]
    assert (sum(one.ticks_landed for one in batches), sum(one.dead_letters for one in batches)) == (9, 9)
    assert_books_agree(again)


@pytest.mark.integration
def test_the_stream_lands_a_large_micro_batch_in_parts_also_when_it_is_killed_between_them(pipeline: Pipeline) -> None:
    rounds: list[list[dict[str, Any]]] = [[tick(500 * number + one) for one in range(500)] for number in range(30)]
    pipeline.send(rounds[:15], 0)
    pipeline.send_in_transaction([tick(99_999)], 0, commit=False)
    pipeline.send_in_transaction(rounds[15:], 1)
    limit = {"STREAM_MAX_MEGABYTES_PER_BATCH": "0.2"}
    first = StreamProcess(pipeline, once=True, environment=limit | {VARIABLE: "after_commit:both:3"})
    try:
        first.wait(200)
    finally:
        first.kill()
    assert pipeline.rows("SELECT COUNT(*) FROM landed_batches") == [(3,)], first.output

    second = StreamProcess(pipeline, once=True, environment=limit)
    try:
        assert second.wait(200) == 0, second.output
    finally:
        second.kill()

    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert (books.messages, books.ticks_landed, books.duplicates, books.dead_letters) == (30, 15_000, 0, 0)
    sizes = pipeline.rows("SELECT messages, ticks_landed FROM landed_batches")
    assert len(sizes) >= 10
    assert max(messages for messages, _ in sizes) <= 3
    assert pipeline.rows("SELECT COUNT(*) FROM landed_batches WHERE verdict = 'failed'") == [(0,)]
