"""Which offsets the ledger accounts for: what is no message, what retention took, what was given up."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import InvalidTimestampError
from pyspark.sql import SparkSession
from typer.testing import CliRunner, Result

from commands.doctor import examine
from commands.main import app
from commands.reconcile import reconcile
from dashboard import queries
from dashboard.readers import MySQLReader
from services.kafka_topic import create_topic
from streaming.stream_ticks import ScratchDamaged, TickStream, planned_offsets
from tests.support.batches import NOON, TOPIC, Lander, assert_books_agree, counts, tick
from tests.support.pipeline import Pipeline, StreamProcess, run_tickledger
from tests.test_stream import run_stream, ticks
from tickledger.errors import ConfigurationError, LedgerMoved
from tickledger.ledger import Ledger, Skip, SkipKind, StreamLock
from tickledger.start_up import check_continuity, starting_offsets
from tickledger.topic import LagMeter, describe_topic

pytestmark = pytest.mark.integration

#: A stream that starts beside much else takes minutes.
SECONDS_TO_LAND = 400


@pytest.mark.parametrize(
    "plan",
    ["", '["ticks"]', '{"ticks": 3}', '{"ticks": {"0": {"1": 2}}}', '{"ticks": {"first": 2}}', '{"ticks": {"0"'],
)
def test_a_plan_of_spark_that_is_not_whole_is_damaged(tmp_path: Path, plan: str) -> None:
    (tmp_path / "offsets").mkdir()
    (tmp_path / "offsets" / "0").write_text(plan)
    with pytest.raises(ScratchDamaged):
        planned_offsets(tmp_path, 0)


@pytest.fixture
def stream(pipeline: Pipeline) -> Iterator[Callable[..., StreamProcess]]:
    """Starts the stream; what is left of it is killed after the test."""
    started: list[StreamProcess] = []

    def start(*, once: bool = False, **environment: str) -> StreamProcess:
        started.append(StreamProcess(pipeline, once=once, environment=environment))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        print(f"--- a stream said:\n{one.output}")


def lag(pipeline: Pipeline) -> int | None:
    """The lag as the page, the ledger and the stream's figures have it."""
    meter = LagMeter(pipeline.settings)
    try:
        return meter.behind(Ledger(pipeline.settings).head().topic_offsets)
    finally:
        meter.close()


def skipped(pipeline: Pipeline) -> list[tuple[int, int, int, str]]:
    return pipeline.rows(
        "SELECT kafka_partition, from_offset, until_offset, kind FROM skipped_offsets"
        " ORDER BY kafka_partition, from_offset"
    )


def test_markers_and_aborted_messages_are_not_messages(
    pipeline: Pipeline, stream: Callable[..., StreamProcess]
) -> None:
    pipeline.send_in_transaction([ticks(pipeline, 1), ticks(pipeline, 2)], 0)
    pipeline.send_in_transaction([ticks(pipeline, 3)], 0, commit=False)
    pipeline.send_in_transaction([ticks(pipeline, 4)], 1)
    once = stream(once=True)
    assert once.wait(SECONDS_TO_LAND) == 0
    assert lag(pipeline) == 0
    assert pipeline.rows("SELECT messages, messages_behind FROM landed_batches") == [(3, 0)]
    assert pipeline.rows("SELECT kafka_partition, from_offset, until_offset FROM landed_offsets ORDER BY 1") == [
        (0, 0, 5),
        (1, 0, 2),
    ]

    # Nothing but what was aborted: no batch, and the ledger is past it before retention is.
    pipeline.send_in_transaction([ticks(pipeline, 5)], 1, commit=False)
    running = stream()
    wait_until(lambda: skipped(pipeline) == [(1, 2, 4, "nothing_to_read")])
    assert lag(pipeline) == 0
    assert [fact for fact in examine(pipeline.settings) if fact.what in ("ledger", "lag") and not fact.good] == []
    pipeline.delete_records({0: -1, 1: -1})
    topic = describe_topic(pipeline.settings)
    assert topic.begins == topic.ends == {0: 5, 1: 4}
    check_continuity(pipeline.settings, Ledger(pipeline.settings).head(), topic)
    pipeline.send([ticks(pipeline, 6)], 1)
    running.wait_for("batch 2 ·", seconds=SECONDS_TO_LAND)
    running.process.terminate()
    assert running.wait(SECONDS_TO_LAND) == 0
    books = reconcile(pipeline.settings)
    assert (books.differences, books.messages, books.ticks_landed) == ([], 4, 40)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_TO_LAND
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def tickledger(pipeline: Pipeline, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=pipeline.environment)


def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    """Lands frames made by hand, into a ledger of the pipeline's real topic."""
    return Lander(spark, pipeline, topic=describe_topic(pipeline.settings))


def test_what_retention_took_of_a_partition_without_a_row_is_named_and_can_be_given_up(
    spark: SparkSession, pipeline: Pipeline
) -> None:
    pipeline.send([[tick(0)]], 0)
    lander(spark, pipeline).land((0, 0, [tick(0)]))
    pipeline.send([[tick(number)] for number in range(1, 11)], 1)
    pipeline.delete_records({1: 6})

    refused = run_stream(pipeline, {}, "--once")
    assert refused.returncode == 2
    assert "partition 1: retention deleted 6 messages before landing (offsets 0 to 5)" in refused.stderr
    assert "'tickledger give-up'" in refused.stderr

    named = tickledger(pipeline, "give-up")
    assert (named.exit_code, skipped(pipeline)) == (1, [])
    assert "partition 1: offsets 0 to 5: to be given up" in named.stdout
    assert tickledger(pipeline, "give-up", "--yes").exit_code == 1, "without a reason nothing is given up"
    done = tickledger(pipeline, "give-up", "--reason", "[away] over Christmas", "--yes")
    assert (done.exit_code, skipped(pipeline)) == (0, [(1, 0, 6, "given_up")])

    again = lander(spark, pipeline)
    assert starting_offsets(again.ledger.head(), describe_topic(pipeline.settings)) == {0: 1, 1: 6}
    again.land(*((1, number - 1, [tick(number)]) for number in range(7, 11)))
    assert lag(pipeline) == 0
    books = reconcile(pipeline.settings)
    assert (books.differences, books.messages) == ([], 5)
    assert "nothing to give up" in tickledger(pipeline, "give-up", "--reason", "again", "--yes").stdout
    told = "partition 1, offsets 0 to 5: [away] over Christmas"
    assert told in " ".join(tickledger(pipeline, "reconcile").stdout.split())
    traced = tickledger(pipeline, "trace", "--sector", tick(0)["sector"], "--date", str(NOON.date()))
    assert told in traced.stdout
    with closing(MySQLReader(pipeline.settings)) as reader:
        (lost,) = queries.newest_given_up(reader).to_dict("records")
    assert (lost["kafka_partition"], lost["from_offset"], lost["until_offset"], lost["batch_id"]) == (1, 0, 6, 1)


def test_what_retention_took_before_the_ledger_began_is_noted_and_no_loss(
    spark: SparkSession, pipeline: Pipeline
) -> None:
    pipeline.send([[tick(number)] for number in range(4)], 1)
    pipeline.delete_records({1: 4})
    pipeline.send([[tick(4)]], 0)
    lander(spark, pipeline).land((0, 0, [tick(4)]))
    assert skipped(pipeline) == [(1, 0, 4, "before_the_ledger")]
    assert lag(pipeline) == 0

    pipeline.send([[tick(number)] for number in range(5, 8)], 1)
    pipeline.delete_records({1: 6})

    with pytest.raises(ConfigurationError, match=r"partition 1: retention deleted 2 messages .* \(offsets 4 to 5\)"):
        TickStream(pipeline.settings, once=True).check_start_up()


def test_until_its_first_batch_a_ledger_takes_the_topic_as_it_is(spark: SparkSession, pipeline: Pipeline) -> None:
    """A stream that has started, `give-up` and the next start agree on what retention took in between."""
    started = TickStream(pipeline.settings, once=True)
    started.check_start_up()
    pipeline.send([[tick(number)] for number in range(3)], 1)
    pipeline.delete_records({1: 2})

    assert started._topic_going_on().begins == {0: 0, 1: 2}
    assert "nothing to give up" in tickledger(pipeline, "give-up").stdout
    TickStream(pipeline.settings, once=True).check_start_up()
    lander(spark, pipeline).land((1, 2, [tick(2)]))
    assert skipped(pipeline) == [(1, 0, 2, "before_the_ledger")]


def test_nothing_is_given_up_beside_a_stream(pipeline: Pipeline) -> None:
    lock = StreamLock(pipeline.settings)
    lock.hold()
    refused = tickledger(pipeline, "give-up", "--reason", "why not", "--yes")
    lock.release()

    assert isinstance(refused.exception, LedgerMoved)


def test_a_topic_that_was_created_anew_goes_on_once_the_old_one_is_given_up(
    spark: SparkSession, pipeline: Pipeline, stream: Callable[..., StreamProcess]
) -> None:
    before = [ticks(pipeline, number) for number in range(5)]
    lander(spark, pipeline).land(
        *((0, place, message) for place, message in enumerate([*before, b"{"])), message_at=datetime.now(UTC)
    )
    pipeline.create_topic_anew()
    pipeline.send([before[4], ticks(pipeline, 5), b"["], 0)
    pipeline.send([ticks(pipeline, 6)], 1)
    with pytest.raises(ConfigurationError, match="was recreated"):
        TickStream(pipeline.settings, once=True).check_start_up()

    done = tickledger(pipeline, "give-up", "--reason", "the disk is gone", "--yes")

    assert done.exit_code == 0
    assert "partition 0: all from offset 6 on; Kafka's offset 0 is 1000000000 in the ledger: given up" in done.stdout
    assert stream(once=True).wait(SECONDS_TO_LAND) == 0
    assert lag(pipeline) == 0
    books = reconcile(pipeline.settings)
    assert (books.differences, books.messages, books.ticks_landed, books.duplicates) == ([], 10, 70, 10)
    letters = pipeline.cassandra.execute("SELECT kafka_offset, raw_value FROM dead_letters")
    assert sorted(tuple(row) for row in letters) == [(5, b"{"), (1_000_000_002, b"[")]
    assert [fact for fact in examine(pipeline.settings) if fact.what in ("ledger", "lag") and not fact.good] == []
    TickStream(pipeline.settings, once=True).check_start_up()


def test_an_end_that_a_broker_tells_too_soon_is_asked_for_again(spark: SparkSession, pipeline: Pipeline) -> None:
    pipeline.send([[tick(1)], [tick(2)]], 0)
    landed = lander(spark, pipeline)
    landed.land((0, 0, [tick(1)]), (0, 1, [tick(2)]))
    topic = describe_topic(pipeline.settings)

    check_continuity(pipeline.settings, landed.ledger.head(), replace(topic, ends={0: 1, 1: 0}))

    beyond = replace(landed.ledger.head(), ends={0: 3, 1: 0})
    with pytest.raises(ConfigurationError, match="partition 0 ends at offset 2, before the ledger's 3"):
        check_continuity(pipeline.settings, beyond, topic)


def test_what_a_dead_batch_left_of_lost_messages_hides_no_tick_that_is_sent_again(
    spark: SparkSession, pipeline: Pipeline
) -> None:
    first = Lander(spark, pipeline)
    first.land((0, 0, [tick(9)]))
    first.die((0, 1, [tick(1)]), (0, 2, [tick(2)]))
    skip = Skip(0, 1, 3, 3, SkipKind.GIVEN_UP, "retention")
    first.ledger.skip(first.ledger.head(), [skip])
    first.ledger.skip(first.ledger.head(), [skip])

    again = Lander(spark, pipeline, topic=TOPIC)

    assert counts(again.land((0, 3, [tick(1), tick(9)]))) == (2, 1, 0, 1)
    assert_books_agree(again)


def test_partitions_that_are_added_beside_the_stream_land(
    pipeline: Pipeline, stream: Callable[..., StreamProcess]
) -> None:
    running = stream()
    pipeline.send([ticks(pipeline, 1)], 0)
    running.wait_for("batch 1 ·", seconds=SECONDS_TO_LAND)
    pipeline.add_partitions(4)
    pipeline.send([ticks(pipeline, 2)], 3)
    running.wait_for("batch 2 ·", seconds=SECONDS_TO_LAND)
    pipeline.send([ticks(pipeline, 3)], 2)
    running.wait_for("batch 3 ·", seconds=SECONDS_TO_LAND)
    running.process.terminate()

    assert running.wait(SECONDS_TO_LAND) == 0
    assert "Error" not in running.output
    assert "Traceback" not in running.output
    assert "the query ended" not in running.output
    assert lag(pipeline) == 0
    assert pipeline.rows("SELECT DISTINCT messages_behind FROM landed_batches") == [(0,)]
    books = reconcile(pipeline.settings)
    assert (books.differences, books.messages) == ([], 3)


def test_lag_counts_partitions_that_the_page_does_not_know_yet(pipeline: Pipeline) -> None:
    meter = LagMeter(pipeline.settings, pipeline.settings.dashboard_kafka)
    with closing(meter):
        assert meter.behind({0: 0, 1: 0}) == 0
        pipeline.add_partitions(3)
        pipeline.send([[tick(1)]], 2)
        wait_until(lambda: meter.behind({0: 0, 1: 0}) == 1)


def test_a_message_of_a_time_that_spark_cannot_read_is_refused_or_can_be_given_up(
    pipeline: Pipeline, stream: Callable[..., StreamProcess]
) -> None:
    """Kafka's own limit of a topic takes it, and the stream ends at it; the one that the set-up gives does not."""
    pipeline.configure_topic(message_timestamp_before_max_ms=None)
    pipeline.send([[tick(1)]], 0)
    send_at(pipeline, -9 * 10**18)
    pipeline.send([[tick(2)], [tick(3)]], 0)

    first = stream(once=True, STREAM_MAX_OFFSETS_PER_TRIGGER="1")
    assert first.wait(SECONDS_TO_LAND) == 2, first.output
    (line,) = [line for line in first.lines if line.startswith("error:")]
    assert "partition 0: the message at Kafka's offset 1 says that it was sent at -9000000000000000000 ms" in line
    assert Ledger(pipeline.settings).head().ends == {0: 1}

    with closing(KafkaAdminClient(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers)) as admin:
        create_topic(admin, pipeline.settings)
    with pytest.raises(InvalidTimestampError):
        send_at(pipeline, -9 * 10**18)
    pipeline.delete_records({0: 2})
    given_up = run_tickledger(pipeline, "give-up", "--reason", "no such time", "--yes")
    assert given_up.returncode == 0, given_up.stderr
    assert stream(once=True).wait(SECONDS_TO_LAND) == 0
    books = reconcile(pipeline.settings)
    assert (books.differences, books.ticks_landed) == ([], 3)


def send_at(pipeline: Pipeline, timestamp_ms: int) -> None:
    """Send a tick in a message that says when it was sent."""
    with closing(KafkaProducer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers, retries=0)) as producer:
        value = json.dumps([tick(9)]).encode()
        producer.send(pipeline.settings.kafka_topic, value, partition=0, timestamp_ms=timestamp_ms).get(timeout=30)
