"""Landing batches with Spark, Cassandra and MySQL: counts, duplicates, retries. No Kafka: the frames are made here."""

import json
import threading
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from pyspark.sql import DataFrame, SparkSession

from streaming import land_batch
from streaming.conflicts import CONFLICT
from streaming.copies import Winners, second_look
from streaming.landing_task import LandingTask
from streaming.tick_columns import TickColumns
from streaming.tick_sink import COMPANIES_A_BATCH, TickSink
from tests.support.batches import NEW_COMPANY, NOON, TOPIC, Lander, assert_books_agree, counts, tick
from tests.support.exchanges import JAKARTA, NEW_YORK, NEW_YORK_FACTS, SEEDED, put_exchange
from tests.support.pipeline import Pipeline
from tests.support.poison import BAD_TICKS, ODD_BUT_GOOD, UNREADABLE, mutated
from tickledger.errors import ConfigurationError, LedgerMoved, StoreUnavailable
from tickledger.ledger import BatchClashes, LandedBatch, Ledger, LedgerHead, SectorVolume
from tickledger.retry_policy import GaveUp, RetryPolicy
from tickledger.tick import MS_A_DAY, Tick, datetime_to_ms

pytestmark = pytest.mark.integration

#: A moment at which the poison corpus may have been sent.
GOOD_AT = datetime(2024, 8, 25, 7, 4, 46, tzinfo=UTC)


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def test_a_batch_lands_in_both_stores_and_in_the_ledger(lander: Lander) -> None:
    coal = {"ticker": "DWGL.JK", "sector": "Coal"}
    batch = lander.land((0, 0, [tick(1), tick(1, volume=50, **coal)]), (1, 0, [tick(2)]), (1, 1, b"nope"))

    assert counts(batch) == (4, 3, 1, 0)
    assert lander.pipeline.rows(
        "SELECT batch_id, date, sector, ticks, total_volume FROM aggregated_data ORDER BY sector"
    ) == [
        (1, NOON.date(), "Coal", 1, 50),
        (1, NOON.date(), "Logistics & Deliveries", 2, 200),
    ]
    assert lander.pipeline.rows(
        "SELECT kafka_partition, from_offset, until_offset FROM landed_offsets ORDER BY kafka_partition"
    ) == [(0, 0, 1), (1, 0, 2)]
    (dead,) = lander.pipeline.cassandra.execute(
        "SELECT raw_value, reason, kafka_partition, kafka_offset FROM dead_letters"
    )
    assert tuple(dead) == (b"nope", "not_json", 1, 1)
    assert_books_agree(lander)


def test_batch_ids_are_dense_and_ranges_follow_each_other(lander: Lander) -> None:
    for number in range(3):
        lander.land((0, 2 * number, [tick(number)]))

    assert lander.pipeline.rows("SELECT batch_id, from_offset, until_offset FROM landed_offsets ORDER BY batch_id") == [
        (1, 0, 1),
        (2, 1, 3),
        (3, 3, 5),
    ]


def test_every_poison_message_has_its_fate_in_the_stores(lander: Lander) -> None:
    poison = [value for value, _ in UNREADABLE.values()] + [value for value, *_ in BAD_TICKS.values()]
    messages = [(number % 2, number, value) for number, value in enumerate([*poison, *ODD_BUT_GOOD.values()])]

    batch = lander.land(*messages, message_at=GOOD_AT)

    # All the odd ones spell the same tick, but two another price and one another market capitalisation.
    assert counts(batch) == (len(messages), 1, len(poison) + 3, len(ODD_BUT_GOOD) - 4)
    stored = {
        (row.kafka_partition, row.kafka_offset): (row.raw_value, row.reason)
        for row in lander.pipeline.cassandra.execute("SELECT * FROM dead_letters")
        if row.reason != CONFLICT
    }
    assert stored == {
        (number % 2, number): (value or b"", reason) for number, (value, reason) in enumerate(UNREADABLE.values())
    } | {
        (number % 2, number): (value[1:-1], reason)
        for number, (value, reason, _) in enumerate(BAD_TICKS.values(), start=len(UNREADABLE))
    }
    assert_books_agree(lander)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_mutated_messages_never_stop_landing_and_are_all_accounted_for(lander: Lander, seed: int) -> None:
    random = Random(seed)
    for batch_number in range(3):
        good = [json.dumps([tick(1000 * batch_number + 10 * one + two) for two in range(3)]) for one in range(100)]
        messages = [
            (one % 2, 100 * batch_number + one, mutated(random, text.encode())) for one, text in enumerate(good)
        ]

        batch = lander.land(*messages)

        read, landed, dead, duplicates = counts(batch)
        assert read == landed + dead + duplicates >= len(messages)
    assert_books_agree(lander)


def test_an_empty_batch_leaves_no_row(lander: Lander) -> None:
    assert lander.land() is None
    assert lander.ledger.head().batch_id == 0


def test_only_dead_letters_still_make_a_row(lander: Lander) -> None:
    assert counts(lander.land((0, 0, b"[]"))) == (1, 0, 1, 0)
    assert_books_agree(lander)


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param([[(0, 0, [tick(1), tick(1)])]], id="in one message"),
        pytest.param([[(0, 0, [tick(1)]), (0, 1, [tick(1)])]], id="in two messages of one partition"),
        pytest.param([[(0, 0, [tick(1)]), (1, 0, [tick(1)])]], id="in two partitions of one batch"),
        pytest.param(
            [[(0, 0, [tick(1)]), (1, 0, [tick(1)]), (1, 1, [tick(1)])]], id="twice in the second partition of a batch"
        ),
        pytest.param(
            [[(0, 0, [tick(1), tick(1)]), (1, 0, [tick(1), tick(1)])]], id="twice in both partitions of one batch"
        ),
        pytest.param([[(0, 0, [tick(1)])], [(0, 1, [tick(1)])]], id="in two batches"),
        pytest.param([[(1, 0, [tick(1)])], [(0, 0, [tick(1)])]], id="in two batches and partitions"),
    ],
)
def test_a_tick_sent_again_counts_once(lander: Lander, copies: list[list[tuple[int, int, Any]]]) -> None:
    batches = [lander.land(*messages) for messages in copies]

    read, landed, dead, duplicates = map(sum, zip(*map(counts, batches), strict=True))
    assert (landed, dead, duplicates) == (1, 0, read - 1)
    assert_books_agree(lander)


@pytest.mark.usefixtures("copies_found")
def test_of_two_copies_the_first_one_stays(lander: Lander) -> None:
    lander.land((1, 0, [tick(1, volume=7)]), (0, 0, [tick(1, volume=5)]))
    lander.land((0, 1, [tick(1, volume=9)]))

    rows = list(lander.pipeline.cassandra.execute("SELECT volume, kafka_partition, kafka_offset FROM real_time_data"))
    assert [tuple(row) for row in rows] == [(5, 0, 0)]
    assert_books_agree(lander)


def test_the_workers_compare_the_ticks_of_tickers_that_meet(lander: Lander, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def look(messages: DataFrame, task: LandingTask, tickers: Collection[str] | None) -> Winners:
        asked.append(tickers)
        return second_look(messages, task, tickers)

    monkeypatch.setattr(land_batch, "second_look", look)
    # Half of them a partition: the second one sends no keys.
    monkeypatch.setattr(land_batch, "MOST_KEYS", 6)
    coal = {"ticker": "DWGL.JK", "sector": "Coal"}
    batch = lander.land(
        (0, 0, [tick(1), tick(2)]), (1, 0, [tick(1, **coal), tick(9, **coal), tick(2), "nope"]), (1, 1, [tick(3)])
    )

    assert (counts(batch), asked) == ((7, 5, 1, 1), [{"TMAS.JK"}])
    # These do not meet.
    lander.land((0, 1, [tick(one) for one in range(4, 9)]), (1, 2, [tick(one, **coal) for one in range(4, 9)]))
    assert len(asked) == 1
    assert_books_agree(lander)


def test_ticks_of_the_same_time_with_other_ids_all_land(lander: Lander) -> None:
    many = [tick(1, id=number) for number in range(500)]

    assert counts(lander.land((0, 0, many))) == (500, 500, 0, 0)
    assert counts(lander.land((0, 1, [*many, tick(1, id=1000)]))) == (501, 1, 0, 500)
    assert_books_agree(lander)


def test_late_ticks_land_under_their_own_day(lander: Lander) -> None:
    batch = lander.land((0, 0, [tick(1), tick(2, created_at="2026-03-01 23:59:59.999")]))

    assert batch is not None
    assert batch.late_ticks == 2, "both days are over"
    assert [str(row[0]) for row in lander.pipeline.rows("SELECT date FROM aggregated_data ORDER BY date")] == [
        "2026-03-01",
        "2026-03-02",
    ]
    assert_books_agree(lander)


def test_ticks_land_under_the_trading_day_of_the_exchange(spark: SparkSession, pipeline: Pipeline) -> None:
    """New York's evening session crosses midnight UTC, in winter by an hour; summer time began on 2026-03-08."""
    put_exchange(pipeline, NEW_YORK, NEW_YORK_FACTS)
    lander = Lander(spark, pipeline)
    made = {
        "2026-03-07 00:59:59.999": "2026-03-06",
        "2026-03-07 04:59:59.999": "2026-03-06",
        "2026-03-07 05:00:00": "2026-03-07",
        "2026-03-08 04:59:59.999": "2026-03-07",
        "2026-03-09 03:59:59.999": "2026-03-08",
        "2026-03-09 04:00:00": "2026-03-09",
    }
    ticks = [tick(number, created_at=at) for number, at in enumerate(made)]
    # The last message takes the way of one that holds a bad element.
    messages = [(0, 0, ticks[:3]), (1, 0, [*ticks[3:], 7])]

    batch = lander.land(*messages, message_at=datetime(2026, 3, 9, 5, tzinfo=UTC))

    assert counts(batch) == (7, 6, 1, 0)
    assert [
        (str(day), int(landed))
        for day, landed in pipeline.rows("SELECT date, ticks FROM aggregated_data ORDER BY date")
    ] == [("2026-03-06", 2), ("2026-03-07", 2), ("2026-03-08", 1), ("2026-03-09", 1)]
    stored = pipeline.cassandra.execute("SELECT id, trade_date FROM real_time_data")
    assert {row.id: str(row.trade_date) for row in stored} == dict(enumerate(made.values()))
    assert counts(lander.land((0, 1, ticks), message_at=datetime(2026, 3, 9, 5, tzinfo=UTC))) == (6, 0, 0, 6)
    assert_books_agree(lander)


def test_no_batch_lands_by_other_trading_days_than_the_exchanges(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    put_exchange(lander.pipeline, NEW_YORK, NEW_YORK_FACTS)

    with pytest.raises(ConfigurationError, match="table 'exchange' has other trading days than those that this stream"):
        lander.land((0, 1, [tick(2)]))

    put_exchange(lander.pipeline, JAKARTA, SEEDED)
    assert counts(lander.land((0, 1, [tick(2)]))) == (1, 1, 0, 0)
    assert_books_agree(lander)


def test_a_batch_that_died_before_its_commit_lands_once(spark: SparkSession, pipeline: Pipeline) -> None:
    died = Lander(spark, pipeline)
    died.die((0, 0, [tick(1), tick(2)]), (0, 1, [tick(3)]))
    assert died.ledger.head().batch_id == 0

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 2, 1: 0}))

    assert counts(again.land((0, 0, [tick(1), tick(2)]))) == (2, 2, 0, 0)
    assert counts(again.land((0, 1, [tick(3)]))) == (1, 1, 0, 0)
    assert_books_agree(again)


def test_a_profile_that_changed_after_a_death_decides_anew(spark: SparkSession, pipeline: Pipeline) -> None:
    messages = [(0, 0, [tick(1), tick(2, ticker="NEW.JK", sector="Coal")])]
    died = Lander(spark, pipeline)
    died.die(*messages)
    pipeline.execute(NEW_COMPANY)
    pipeline.execute("DELETE FROM profile WHERE ticker = 'TMAS.JK'")

    again = Lander(spark, pipeline, topic=replace(TOPIC, ends={0: 1, 1: 0}))

    assert counts(again.land(*messages)) == (2, 1, 1, 0)
    assert [row.ticker for row in pipeline.cassandra.execute("SELECT ticker FROM real_time_data")] == ["NEW.JK"]
    assert [row.reason for row in pipeline.cassandra.execute("SELECT reason FROM dead_letters")] == ["unknown_ticker"]
    assert_books_agree(again)


def test_committing_the_same_batch_again_changes_nothing(lander: Lander) -> None:
    batch = lander.land((0, 0, [tick(1)]))
    assert batch is not None

    lander.ledger.commit(batch)

    assert lander.pipeline.rows("SELECT COUNT(*) FROM landed_batches") == [(1,)]
    assert lander.pipeline.rows("SELECT SUM(total_volume) FROM aggregated_data") == [(100,)]


def test_the_ledger_refuses_a_batch_that_another_stream_has_landed(spark: SparkSession, pipeline: Pipeline) -> None:
    first, second = Lander(spark, pipeline), Lander(spark, pipeline)
    first.land((0, 0, [tick(1)]))

    with pytest.raises(LedgerMoved, match="another stream"):
        second.land((0, 0, [tick(1)]))

    assert_books_agree(first)


def test_a_batch_that_stands_in_its_own_way_is_told_from_one_that_another_stream_has_landed(pipeline: Pipeline) -> None:
    """A profile filled by hand, not by `dbt seed`, may hold sectors that MySQL's padding makes one."""
    ledger, noon = Ledger(pipeline.settings), NOON.replace(tzinfo=None)
    sector = SectorVolume(noon.date(), "Coal", 1, 100, noon, noon)
    mine = LandedBatch(1, "topic", "id", {0: (0, 2)}, 2, 2, 0, 0, 0, [sector], noon, 0.5)

    with pytest.raises(BatchClashes, match=r"batch 1 .*no other stream has landed it.*Coal"):
        ledger.commit(replace(mine, sectors=[sector, replace(sector, sector="Coal ")]))
    assert ledger.head() == LedgerHead()

    ledger.commit(replace(mine, ticks_read=1))
    with pytest.raises(LedgerMoved, match="another stream has landed a batch"):
        ledger.commit(replace(mine, ticks_read=1, landed_at=noon + timedelta(seconds=1)))


def test_a_batch_keeps_the_profile_that_it_landed_under(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    lander.pipeline.execute(NEW_COMPANY)
    lander.land((0, 1, [tick(2)]))
    lander.land((0, 2, [tick(3)]))
    lander.pipeline.execute("DELETE FROM profile WHERE ticker = 'NEW.JK'")
    lander.land((0, 3, [tick(4)]))

    companies = lander.pipeline.rows(
        "SELECT batch_id, COUNT(*), SUM(ticker = 'NEW.JK') FROM landed_batches JOIN profile_versions USING"
        " (profile_version) GROUP BY batch_id ORDER BY batch_id"
    )
    assert companies == [(1, 10, 0), (2, 11, 1), (3, 11, 1), (4, 10, 0)]
    assert lander.pipeline.rows("SELECT COUNT(*) FROM profile_versions") == [(21,)]


def test_the_ledger_refuses_a_range_that_does_not_follow(lander: Lander) -> None:
    batch = lander.land((0, 0, [tick(1)]))
    assert batch is not None

    with pytest.raises(LedgerMoved, match="partition 0 ends at offset 1"):
        lander.ledger.commit(replace(batch, batch_id=2, ranges={0: (0, 2)}))


def test_a_batch_of_many_partitions_keeps_the_range_of_each(pipeline: Pipeline) -> None:
    """More than one statement takes."""
    ledger, ranges = Ledger(pipeline.settings), {one: (0, one + 1) for one in range(1_030)}

    ledger.commit(LandedBatch(1, "topic", "id", ranges, 1, 0, 0, 0, 0, [], NOON.replace(tzinfo=None), 0.5))

    assert ledger.head().ends == {one: until for one, (_, until) in ranges.items()}


def test_a_company_seeded_now_lands_in_the_next_batch(lander: Lander) -> None:
    new = {"ticker": "NEW.JK", "sector": "Coal"}
    assert counts(lander.land((0, 0, [tick(1, **new)]))) == (1, 0, 1, 0)

    lander.pipeline.execute(
        "INSERT INTO profile (ticker, company_name, sector, shares) VALUES ('NEW.JK', 'N', 'Coal', 1)"
    )

    assert counts(lander.land((0, 1, [tick(2, **new)]))) == (1, 1, 0, 0)


def test_an_empty_profile_is_never_adopted(lander: Lander) -> None:
    lander.pipeline.execute("DELETE FROM profile")

    assert counts(lander.land((0, 0, [tick(1)]))) == (1, 1, 0, 0)


def test_a_store_that_stays_away_is_given_up_with_nothing_in_the_ledger(
    spark: SparkSession, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    lander = Lander(spark, pipeline, retry_seconds=1)
    closed = pipeline.settings.model_copy(update={"cassandra_port": 9})
    monkeypatch.setattr(lander._lander, "_settings", closed)

    with pytest.raises(GaveUp, match="Cassandra"):
        lander.land((0, 0, [tick(1)]))

    assert lander.ledger.head().batch_id == 0


def test_retries_end_when_the_stream_is_asked_to_stop() -> None:
    stopping = threading.Event()
    calls = []

    def away() -> None:
        calls.append(1)
        stopping.set()
        raise StoreUnavailable("away")

    with pytest.raises(GaveUp, match="away"):
        RetryPolicy(60, stopping).call(away)
    assert len(calls) == 1


def test_few_ticks_of_many_companies_travel_together(pipeline: Pipeline) -> None:
    day = 20_000
    ticks = [
        Tick(f"T{company:02}.JK", day * MS_A_DAY + second, 100 * company + second, 5, 1_000, 10, "Coal", day)
        for company in range(2 * COMPANIES_A_BATCH + 5)
        for second in range(3)
    ]
    session = pipeline.cassandra
    with patch.object(session, "execute_async", wraps=session.execute_async) as sent:
        sink = TickSink(session)
        for some in TickColumns.of((tick, 7) for tick in ticks).by_company_and_day():
            sink.write(some, 1)
        sink.drain()
    assert sent.call_count == 3
    stored = pipeline.cassandra.execute(
        "SELECT ticker, created_at, id, volume, market_cap, price, sector, kafka_partition, kafka_offset"
        " FROM real_time_data"
    )
    assert sorted((row.ticker, datetime_to_ms(row.created_at), *row[2:]) for row in stored) == [
        (*tick[:7], 1, 7) for tick in ticks
    ]


def test_a_large_batch_agrees_in_every_store(lander: Lander) -> None:
    messages = [
        (number % 2, number // 2, [tick(number * 10 + one, id=number * 10 + one) for one in range(10)])
        for number in range(2000)
    ]

    assert counts(lander.land(*messages)) == (20_000, 20_000, 0, 0)
    assert_books_agree(lander)
