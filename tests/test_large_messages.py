"""Large and many dead letters: nothing ends the stream, and no command of ours ends a Cassandra with a heap of 1 GB."""

import hashlib
import json
import os
import threading
import time
from collections import Counter

import psutil
import pytest
from kafka import KafkaProducer
from pyspark.sql import SparkSession

from commands.reconcile import reconcile
from expectations.read_back import ReadBack
from services.instance import Instance
from streaming import tick_sink
from streaming.tick_sink import TickSink
from tests.support.batches import Lander, assert_books_agree, counts, tick
from tests.support.pipeline import Pipeline, StreamProcess, run_tickledger
from tests.support.poison import nested
from tickledger.decode import DeadLetter
from tickledger.errors import ConfigurationError
from tickledger.stores import connect_cassandra
from tickledger.tick import MOST_RAW_BYTES, TOO_LARGE_TO_KEEP, WHOLE_MESSAGE

pytestmark = pytest.mark.integration


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def test_thousands_of_large_dead_letters_bring_no_store_down(lander: Lander) -> None:
    pipeline, sink = lander.pipeline, TickSink(lander.pipeline.cassandra)
    for offset in range(1, 6_001):
        letter = DeadLetter(WHOLE_MESSAGE, os.urandom(100_000), "noise", "noise")
        sink.write_dead(pipeline.settings.kafka_topic, 0, offset, letter)
    sink.drain()
    # The ledger's range spans them all.
    lander.land((0, 0, b"nope"), (0, 6_001, b"nope"))

    listed = run_tickledger(pipeline, "dead-letters", "list", "--limit", "1")
    assert "6,002 dead letters, 6,002 of them not replayed" in listed.stdout, listed.stderr
    replayed = run_tickledger(pipeline, "dead-letters", "replay", "--reason", "not_json")
    assert replayed.stdout == "sent 0 ticks again; still not valid: 2\n", replayed.stderr
    assert reconcile(pipeline.settings).differences == ["batch 1: the ledger says 2 dead letters, Cassandra has 6,002"]
    # What a start reads after an attempt died.
    assert len(list(sink.dead_positions(pipeline.settings.kafka_topic, 0, 0, 10_000))) == 6_002
    session = connect_cassandra(pipeline.settings)
    try:
        books = ReadBack(pipeline.settings, session).frames(1)["books"]
    finally:
        session.cluster.shutdown()
    assert books["dead_letters_in_cassandra"].tolist() == [6_002]


def test_a_connection_that_has_no_room_is_waited_for(
    services: Instance, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bounded, the bytes in flight find room on this machine whatever Cassandra does; on a bridge they do not.
    monkeypatch.setattr(tick_sink, "BYTES_IN_FLIGHT", 2**30)
    sink = TickSink(pipeline.cassandra)
    cassandra = psutil.Process(services.server("cassandra").pid)
    cassandra.suspend()
    going_on = threading.Timer(3, cassandra.resume)
    going_on.start()
    try:
        # Together far more than a socket holds.
        for offset in range(40):
            sink.write_dead("topic", 0, offset, DeadLetter(WHOLE_MESSAGE, os.urandom(900_000), "noise", "noise"))
            # The driver's thread must meet the full socket before the last request is sent.
            time.sleep(0.02)
        sink.drain()
    finally:
        going_on.join()

    assert len(list(sink.dead_positions("topic", 0, 0, 100))) == 40


def test_a_refused_request_is_no_store_that_is_away(pipeline: Pipeline) -> None:
    sink = TickSink(pipeline.cassandra)
    pipeline.alter_cassandra("DROP TABLE dead_letters")

    with pytest.raises(ConfigurationError, match=r"Cassandra refuses a request: .*dead_letters"):
        list(sink.dead_positions("topic", 0, 0, 100))


def test_of_a_value_that_is_too_large_for_cassandra_the_beginning_is_kept(lander: Lander) -> None:
    value = b"x" * 17_000_000

    assert counts(lander.land((0, 0, value), (0, 1, [tick(1)]))) == (2, 1, 1, 0)

    (row,) = lander.pipeline.cassandra.execute("SELECT raw_value, reason, detail FROM dead_letters")
    assert (row.raw_value, row.reason) == (value[:MOST_RAW_BYTES], TOO_LARGE_TO_KEEP)
    assert f"{lander.pipeline.settings.kafka_topic} 0/0" in row.detail
    assert hashlib.sha256(value).hexdigest() in row.detail
    assert "17,000,000 bytes" in row.detail
    assert "not_json" in row.detail
    replayed = run_tickledger(lander.pipeline, "dead-letters", "replay", "--all")
    assert replayed.stdout == "sent 0 ticks again; still not valid: 0; too large to be sent: 1\n"
    assert_books_agree(lander)


def test_a_topic_of_large_and_odd_messages_lands(pipeline: Pipeline) -> None:
    large = json.dumps({"ticks": ["x" * 900_000]}).encode()
    bomb = b"[" + b"0," * 499_999 + b"0]"
    odd = [nested(1_010), nested(500, b'[{"a":', b"}]", b"0"), b"x" * 20_000_000, bomb, bomb, bomb]
    producer = KafkaProducer(
        bootstrap_servers=pipeline.settings.kafka_bootstrap_servers,
        acks="all",
        compression_type="gzip",
        max_request_size=2**25,
        batch_size=0,
    )
    values = [large] * int(os.environ.get("LARGE_MESSAGES", "200")) + odd + [json.dumps([tick(1)]).encode()]
    for future in [producer.send(pipeline.settings.kafka_topic, value) for value in values]:
        future.get(timeout=60)
    producer.close()

    stream = StreamProcess(pipeline, once=True)
    try:
        assert stream.wait(570) == 0, stream.output
    finally:
        stream.kill()

    assert "does not answer" not in stream.output
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert (books.messages, books.ticks_landed) == (len(values), 1)
    reasons = Counter(row.reason for row in pipeline.cassandra.execute("SELECT reason FROM dead_letters"))
    assert reasons == {
        "not_an_array": len(values) - len(odd) - 1,
        "not_an_object": 1,
        "missing_field": 1,
        TOO_LARGE_TO_KEEP: 1,
        "too_many_broken": 3,
    }
