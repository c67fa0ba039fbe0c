"""A feed that is described lands as the lab's does: exactly once, with its corrections, and nothing is dropped."""

from collections import Counter
from decimal import Decimal

import pytest

from commands.dead_letters import read_dead_letters, replay
from commands.reconcile import reconcile
from tests.support.pipeline import Pipeline, StreamProcess
from tickledger.feed import read_feed
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

FEED = PROJECT_ROOT / "feeds" / "one-object.yml"
SAMPLE = (PROJECT_ROOT / "feeds" / "samples" / "one-object.jsonl").read_bytes().splitlines()


def land(pipeline: Pipeline) -> str:
    """Land what is in the topic as the description says, then stop; what the stream said."""
    stream = StreamProcess(pipeline, once=True, environment={"FEED_FILE": str(FEED)})
    try:
        assert stream.wait() == 0, stream.output
    finally:
        stream.kill()
    assert "Traceback" not in stream.output
    return stream.output


def test_a_described_feed_lands_once_with_its_corrections_and_its_unknown_fields(pipeline: Pipeline) -> None:
    # The same trade twice, and in other words without a mark that they correct it.
    conflict = SAMPLE[0].replace(b'"1200"', b'"1300"')
    pipeline.send([*SAMPLE[:2], b"{}", None, b'{"symbol": [', *SAMPLE[2:]], partition=0)
    pipeline.send([b"[]", SAMPLE[1]], partition=1)
    land(pipeline)
    pipeline.send([conflict, SAMPLE[1]], partition=1)
    land(pipeline)

    books = reconcile(pipeline.settings)
    assert books.differences == []
    reasons = Counter(row.reason for row in pipeline.cassandra.execute("SELECT reason FROM dead_letters"))
    assert reasons == Counter(
        [
            *("unknown_ticker", "bad_revision", "bad_time", "wrong_type", "missing_field"),
            *("no_value", "not_json", "not_an_object", "conflicts_with_landed"),
        ]
    )
    assert (books.ticks_landed, books.duplicates, books.dead_letters) == (2, 2, 9)
    columns = "ticker, id, volume, price, extra"
    rows = {row.id: tuple(row) for row in pipeline.cassandra.execute(f"SELECT {columns} FROM real_time_data")}
    assert rows[7001] == ("TMAS.JK", 7001, 1200, Decimal("550.0000000000000000001"), None)
    assert rows[7002] == ("DWGL.JK", 7002, 300, Decimal("97.125"), '{"traded":{"side":"B"},"venue":"XIDX"}')
    kinds = {row.id: row.kind for row in pipeline.cassandra.execute("SELECT id, kind FROM tick_revisions")}
    assert kinds == {7001: "correction", 7002: "cancellation"}
    sums = pipeline.rows("SELECT SUM(ticks), SUM(total_volume) FROM aggregated_data")
    assert sums == [(1, 1000)], "one was corrected from 1,200 to 1,000, one of 300 cancelled"


def test_what_died_is_sent_again_as_the_feed_writes_it(pipeline: Pipeline) -> None:
    settings = pipeline.settings.model_copy(update={"feed_file": read_feed(FEED)})
    pipeline.send([SAMPLE[0], SAMPLE[4]])
    land(pipeline)
    pipeline.send([SAMPLE[0].replace(b'"1200"', b'"1300"')])
    land(pipeline)
    pipeline.execute("INSERT INTO profile (ticker, company_name, sector, shares) VALUES ('GOTO.JK', 'GoTo', 'Coal', 7)")

    letters = list(read_dead_letters(pipeline.cassandra))
    assert {letter.reason for letter in letters} == {"unknown_ticker", "conflicts_with_landed"}
    done = replay(settings, letters, pipeline.cassandra, as_correction=True)
    land(pipeline)

    assert (done.sent, done.ticks, done.corrections, done.still_dead) == (2, 1, 1, 0)
    assert reconcile(pipeline.settings).differences == []
    assert pipeline.rows("SELECT SUM(ticks), SUM(total_volume) FROM aggregated_data") == [(2, 1305)]
