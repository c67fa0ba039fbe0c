"""Dead letters listed and replayed, a day rebuilt, a number traced: on real stores, with their commands."""

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from pyspark.sql import SparkSession

from commands.dead_letters import read_dead_letters, replay
from commands.reconcile import reconcile
from tests.support.batches import NEW_COMPANY, NOON, Lander, assert_books_agree, counts, tick
from tests.support.pipeline import Pipeline, connect_root, run_tickledger

pytestmark = pytest.mark.integration

NEW = {"ticker": "NEW.JK", "sector": "Coal"}


def topic_values(pipeline: Pipeline) -> list[Any]:
    """Every message that stands in the topic, as JSON."""
    consumer = KafkaConsumer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers, consumer_timeout_ms=3000)
    consumer.assign([TopicPartition(pipeline.settings.kafka_topic, partition) for partition in (0, 1)])
    consumer.seek_to_beginning()
    values = [json.loads(message.value) for message in consumer]
    consumer.close()
    return values


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def test_a_replayed_tick_lands_once_and_its_neighbours_not_again(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2, **NEW), tick(3, volume=-1)]))
    lander.pipeline.execute(NEW_COMPANY)

    done = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "sent 1 tick again; still not valid: 1\n"
    (message,) = topic_values(lander.pipeline)
    assert [one["id"] for one in message] == [2]
    assert counts(lander.land((0, 1, message))) == (1, 1, 0, 0)
    assert counts(lander.land((0, 2, message))) == (1, 0, 0, 1), "a replay that was repeated"
    again = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")
    assert again.stdout.startswith("sent 0 ticks again"), "what was replayed is not sent again"
    assert_books_agree(lander)


def test_of_a_message_kept_whole_what_has_become_valid_lands_and_the_rest_dies_by_itself(lander: Lander) -> None:
    unknown = [tick(number, **NEW) for number in range(2, 103)]
    lander.land((0, 0, [tick(1, price=-1), tick(0), *unknown]))
    early = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")
    assert early.stdout == "sent 0 ticks again; still not valid: 1\n"
    lander.pipeline.execute(NEW_COMPANY)

    done = run_tickledger(lander.pipeline, "dead-letters", "replay", "--reason", "unknown_ticker")

    assert done.stdout == "sent 102 ticks again; still not valid: 0\n", done.stderr
    (message,) = topic_values(lander.pipeline)
    assert counts(lander.land((0, 1, message))) == (103, 101, 1, 1)
    waiting = read_dead_letters(lander.pipeline.cassandra, replayed=False)
    assert [(one.offset, one.position, one.reason) for one in waiting] == [(1, 0, "out_of_range")]
    again = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")
    assert again.stdout.startswith("sent 0 ticks again; still not valid: 1")
    assert_books_agree(lander)


def test_a_replay_that_died_before_it_took_note_sends_again_and_counts_once(lander: Lander) -> None:
    pipeline = lander.pipeline
    lander.land((0, 0, [tick(2, **NEW)]))
    pipeline.execute(NEW_COMPANY)
    letters = list(read_dead_letters(pipeline.cassandra))

    for _ in range(2):
        assert replay(pipeline.settings, letters, pipeline.cassandra).sent == 1

    batches = [lander.land((0, 1 + number, message)) for number, message in enumerate(topic_values(pipeline))]
    assert [counts(batch) for batch in batches] == [(1, 1, 0, 0), (1, 0, 0, 1)]


def test_one_that_is_still_not_valid_stays_with_its_newest_reason(lander: Lander) -> None:
    lander.land((0, 0, [tick(2, ticker="NEW.JK", sector="Beverages")]))
    lander.pipeline.execute(NEW_COMPANY)

    run_tickledger(lander.pipeline, "dead-letters", "replay", "--reason", "unknown_ticker")

    (letter,) = read_dead_letters(lander.pipeline.cassandra)
    assert (letter.reason, letter.replayed_at) == ("wrong_sector", None)
    assert topic_values(lander.pipeline) == []


def test_what_says_something_else_is_replayed_as_a_correction_only(lander: Lander) -> None:
    lander.land((0, 0, [tick(1), tick(2)]), (0, 1, [tick(1, volume=7), tick(3, **NEW)]))

    plain = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")
    other = run_tickledger(lander.pipeline, "dead-letters", "replay", "--as-correction", "--reason", "not_json")
    done = run_tickledger(lander.pipeline, "dead-letters", "replay", "--as-correction")

    assert plain.stdout == "sent 0 ticks again; still not valid: 2\n", plain.stderr
    assert other.returncode == 2
    assert done.stdout == "sent 0 ticks and 1 correction again; still not valid: 0\n", done.stderr
    (message,) = topic_values(lander.pipeline)
    assert message == [tick(1, volume=7, revision="correction", revised_at=None)]
    lander.land((0, 2, message))
    query = "SELECT ticks, total_volume FROM aggregated_data ORDER BY batch_id"
    assert [tuple(map(int, row)) for row in lander.pipeline.rows(query)] == [(2, 200), (0, -93)]


def test_a_message_of_many_conflicts_is_replayed_with_a_mark_on_each(lander: Lander) -> None:
    many = [tick(number) for number in range(200)]
    lander.land((0, 0, many))
    lander.land((0, 1, [*(tick(number, volume=7) for number in range(150)), *many[150:], tick(200, **NEW)]))

    done = run_tickledger(lander.pipeline, "dead-letters", "replay", "--as-correction")

    assert done.stdout == "sent 50 ticks and 150 corrections again; still not valid: 0\n", done.stderr
    (message,) = topic_values(lander.pipeline)
    batch = lander.land((0, 2, message))
    assert counts(batch) == (201, 0, 1, 50)
    assert batch is not None
    assert (batch.corrections, batch.corrected_volume) == (150, -93 * 150)


def test_the_list_shows_place_reason_and_bytes(lander: Lander) -> None:
    lander.land((1, 7, [tick(1), tick(2, volume=-5)]), (1, 8, b"nope"))

    shown = run_tickledger(lander.pipeline, "dead-letters", "list").stdout
    as_json = run_tickledger(lander.pipeline, "dead-letters", "list", "--reason", "not_json", "--json").stdout

    assert "volume is -5; it should be from 0" in shown
    assert "1/7, element 1" in shown
    assert "2 dead letters, 2 of them not replayed" in shown
    (line,) = as_json.splitlines()
    assert (json.loads(line)["raw_value"], json.loads(line)["offset"]) == ("nope", 8)


def test_replaying_nothing_in_particular_is_refused(pipeline: Pipeline) -> None:
    done = run_tickledger(pipeline, "dead-letters", "replay")

    assert done.returncode == 2
    assert done.stderr == "error: nothing is chosen; name --reason, --since or --all\n"


def test_a_rebuilt_day_is_what_it_was(lander: Lander) -> None:
    yesterday = {"created_at": "2026-03-01 12:00:00"}
    lander.land((0, 0, [tick(1), tick(2), tick(3, **yesterday)]), (1, 0, [tick(4, ticker="DWGL.JK", sector="Coal")]))
    lander.land((0, 1, [tick(5)]))
    query = "SELECT batch_id, date, sector, ticks, total_volume, first_created_at FROM aggregated_data ORDER BY 1, 2, 3"
    before = lander.pipeline.rows(query)
    lander.pipeline.execute("UPDATE aggregated_data SET total_volume = 1 WHERE batch_id = 1 AND date = '2026-03-02'")
    lander.pipeline.execute("DELETE FROM aggregated_data WHERE batch_id = 2")
    assert len(reconcile(lander.pipeline.settings).differences) > 0

    done = run_tickledger(lander.pipeline, "rebuild", "--date", f"{NOON:%Y-%m-%d}")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "2026-03-02: 2 rows of its aggregates replaced by 3\n"
    assert lander.pipeline.rows(query) == before
    assert_books_agree(lander)
    assert counts(lander.land((0, 2, [tick(6)]))) == (1, 1, 0, 0), "the stream goes on"


def test_reconcile_names_the_batch_that_differs(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    lander.land((0, 1, [tick(2)]))
    lander.pipeline.execute("UPDATE aggregated_data SET total_volume = 99 WHERE batch_id = 2")

    done = run_tickledger(lander.pipeline, "reconcile")

    assert done.returncode == 1
    assert "batch 2, 2026-03-02, Logistics & Deliveries: Cassandra has 1 tick of 100 shares" in done.stdout
    assert "batch 1," not in done.stdout


def test_a_number_is_traced_to_its_batches(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]), (1, 0, [tick(2)]))
    lander.land((0, 1, [tick(3)]))

    done = run_tickledger(lander.pipeline, "trace", "--date", f"{NOON:%Y-%m-%d}", "--sector", "Logistics & Deliveries")

    assert done.returncode == 0, done.stderr
    assert "0:0-0 1:0-0" in done.stdout
    assert "300 shares from 2 batches" in done.stdout
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    for asked, meant in {"Coal": "", "coal": ". Coal?", "logistics": ". Logistics & Deliveries?", "x": ""}.items():
        nothing = run_tickledger(lander.pipeline, "trace", "--sector", asked)
        said = f"error: --sector is {asked!r}; nothing of it has landed for {today}{meant}\n"
        assert (nothing.returncode, nothing.stderr) == (2, said)


def test_a_trace_names_every_offset_however_many(lander: Lander) -> None:
    lander.land((0, 0, [tick(1)]))
    columns = "batch_id, kafka_partition, from_offset, until_offset"
    rows = ", ".join(f"(1, {100 + number}, 5, 9)" for number in range(200))
    lander.pipeline.execute(f"INSERT INTO landed_offsets ({columns}) VALUES {rows}")

    on = ("--date", f"{NOON:%Y-%m-%d}", "--sector", "Logistics & Deliveries", "--json")
    with closing(connect_root(lander.pipeline.settings)) as root:
        # MySQL's default; MariaDB's is a million.
        root.cursor().execute("SET GLOBAL group_concat_max_len = 1024")
        try:
            (row,) = json.loads(run_tickledger(lander.pipeline, "trace", *on).stdout)
        finally:
            root.cursor().execute("SET GLOBAL group_concat_max_len = DEFAULT")

    assert row["offsets"].split() == ["0:0-0", *(f"{100 + number}:5-8" for number in range(200))]
