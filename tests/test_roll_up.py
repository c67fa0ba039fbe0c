"""Old batches' aggregates move into daily_volume: no total changes, whatever is asked and whenever it stops."""

import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pyspark.sql import SparkSession

from commands import roll_up as module
from commands.reconcile import reconcile
from commands.roll_up import roll_up
from expectations.checker import Checker, Verdict
from expectations.read_back import RolledUp
from tests.support.batches import Lander, assert_books_agree, counts, tick
from tests.support.pipeline import Pipeline, run_tickledger

pytestmark = pytest.mark.integration

OLD, OLDER = date(2026, 3, 2), date(2026, 3, 1)
LOGISTICS = "Logistics & Deliveries"
TOTALS = "SELECT date, sector, total_volume, ticks FROM volume_by_day ORDER BY date, sector"
DAYS = (
    "SELECT date, sector, total_volume, ticks, batches, first_batch_id, last_batch_id FROM daily_volume ORDER BY 1, 2"
)


def age(pipeline: Pipeline, batch_id: int, days: int, verdict: str = "passed") -> None:
    """Let a batch have landed this many days ago, and have been checked unless `verdict` says otherwise."""
    landed_at = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=days)
    checked_at = "NULL" if verdict == "unchecked" else "landed_at"
    pipeline.execute(
        f"UPDATE landed_batches SET landed_at = '{landed_at}', verdict = '{verdict}', checked_at = {checked_at}"
        f" WHERE batch_id = {batch_id}"
    )


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    """Four batches, of which the first three are checked and 90 days old; the second brings a late tick."""
    lander = Lander(spark, pipeline)
    lander.land((0, 0, [tick(1), tick(2)]), (1, 0, [tick(3, ticker="DWGL.JK", sector="Coal")]))
    lander.land((0, 1, [tick(4), tick(5, created_at="2026-03-01 12:00:00")]))
    lander.land((0, 2, [tick(6, volume=-1)]))
    lander.land((0, 3, [tick(7)]))
    for batch_id in (1, 2, 3):
        age(pipeline, batch_id, 90)
    return lander


def test_old_batches_move_and_every_total_stays(lander: Lander) -> None:
    pipeline = lander.pipeline
    before = pipeline.rows(TOTALS)

    done = run_tickledger(pipeline, "roll-up", "--keep-days", "30")

    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "batches 1 to 3: 4 rows of aggregated_data rolled up\n"
        "4 rows rolled up; what landed in the last 30 days stays by batch\n"
    )
    assert pipeline.rows(TOTALS) == before
    assert pipeline.rows(DAYS) == [
        (OLDER, LOGISTICS, 100, 1, 1, 2, 2),
        (OLD, "Coal", 100, 1, 1, 1, 1),
        (OLD, LOGISTICS, 300, 3, 2, 1, 2),
    ]
    assert pipeline.rows("SELECT DISTINCT batch_id FROM aggregated_data") == [(4,)]
    assert_books_agree(lander)
    again = run_tickledger(pipeline, "roll-up", "--keep-days", "30")
    assert again.stdout == "0 rows rolled up; what landed in the last 30 days stays by batch\n"


def test_later_batches_are_added_to_a_day_that_was_rolled_up_and_the_stream_goes_on(lander: Lander) -> None:
    pipeline = lander.pipeline
    roll_up(pipeline.settings, 30)
    assert counts(lander.land((0, 4, [tick(7), tick(8)]))) == (2, 1, 0, 1), "the books know what has landed"
    before = pipeline.rows(TOTALS)
    age(pipeline, 4, 90)

    assert roll_up(pipeline.settings, 30) == (1, "what landed in the last 30 days stays by batch")

    assert pipeline.rows(TOTALS) == before
    assert pipeline.rows(DAYS)[-1] == (OLD, LOGISTICS, 400, 4, 3, 1, 4)
    assert_books_agree(lander)


def _unchecked(lander: Lander) -> None:
    age(lander.pipeline, 2, 90, "unchecked")


def _doctored(lander: Lander) -> None:
    lander.pipeline.execute("UPDATE aggregated_data SET total_volume = 1 WHERE batch_id = 2 AND date = '2026-03-02'")


def _of_a_day_that_is_kept(lander: Lander) -> None:
    lander.pipeline.execute("UPDATE aggregated_data SET date = UTC_DATE() WHERE batch_id = 2 AND date = '2026-03-02'")


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (_unchecked, "batch 2 is unchecked and stays, with all after it: 'great_expectations checkpoint run"),
        (_doctored, "batch 2 is not in aggregated_data as the ledger has it and stays, with all after it"),
        (_of_a_day_that_is_kept, "batch 2 has ticks of the last 30 days and stays, with all after it"),
    ],
)
def test_a_batch_that_must_stay_keeps_those_after_it(lander: Lander, trouble: Any, why: str) -> None:
    trouble(lander)

    rows, said = roll_up(lander.pipeline.settings, 30)

    assert rows == 2
    assert said.startswith(why)
    assert lander.pipeline.rows("SELECT batch_id FROM landed_batches WHERE rolled_up_at IS NOT NULL") == [(1,)]


def test_the_newest_row_stays_so_that_its_number_is_not_given_again(lander: Lander) -> None:
    age(lander.pipeline, 4, 90)
    newest = "SELECT MAX(processing_id) FROM aggregated_data"
    before = lander.pipeline.rows(newest)

    assert roll_up(lander.pipeline.settings, 30) == (4, "batch 4 has the newest row of aggregated_data and stays")

    assert lander.pipeline.rows(newest) == before


def test_an_empty_ledger_has_nothing_to_roll_up(pipeline: Pipeline) -> None:
    assert roll_up(pipeline.settings, 30) == (0, "nothing more has landed")


def test_one_that_dies_between_two_transactions_is_gone_on_from(
    lander: Lander, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCHES_A_STEP", 1)
    before = lander.pipeline.rows(TOTALS)

    def dies(line: str) -> None:
        raise KeyboardInterrupt(line)

    for batch_id in (1, 2):
        with pytest.raises(KeyboardInterrupt, match=f"batches {batch_id} to {batch_id}"):
            roll_up(lander.pipeline.settings, 30, dies)
        assert lander.pipeline.rows(TOTALS) == before
        assert_books_agree(lander)


def test_a_reader_never_sees_another_total(lander: Lander, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCHES_A_STEP", 1)
    before, seen, done = lander.pipeline.rows(TOTALS), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append(lander.pipeline.rows(TOTALS))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        roll_up(lander.pipeline.settings, 30)
    finally:
        done.set()
        reader.join()
    assert seen
    assert all(rows == before for rows in seen)


def test_reconcile_names_the_day_that_differs_among_what_was_rolled_up(lander: Lander) -> None:
    roll_up(lander.pipeline.settings, 30)
    lander.pipeline.execute("UPDATE daily_volume SET total_volume = 99 WHERE sector = 'Coal'")

    assert reconcile(lander.pipeline.settings).differences == [
        "rolled up, 2026-03-02, Coal: Cassandra has 1 tick of 100 shares, MySQL 1 of 99",
        "batches 1 to 3, rolled up: the ledger says 5 ticks of 500 shares, daily_volume 5 of 499",
    ]


def test_a_rolled_up_day_is_rebuilt_as_it_was(lander: Lander) -> None:
    pipeline = lander.pipeline
    roll_up(pipeline.settings, 30)
    days, totals = pipeline.rows(DAYS), pipeline.rows(TOTALS)
    pipeline.execute("UPDATE daily_volume SET total_volume = 99 WHERE sector = 'Coal'")
    pipeline.execute("DELETE FROM daily_volume WHERE sector <> 'Coal' AND date = '2026-03-02'")

    done = run_tickledger(pipeline, "rebuild", "--date", f"{OLD}")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "2026-03-02: 2 rows of its aggregates replaced by 3\n"
    assert (pipeline.rows(DAYS), pipeline.rows(TOTALS)) == (days, totals)
    assert_books_agree(lander)


def test_a_number_is_traced_through_what_was_rolled_up(lander: Lander) -> None:
    lander.pipeline.execute("INSERT INTO batch_findings VALUES (1, 'books.made_up', 'warning', '2', '1')")
    lander.pipeline.execute("UPDATE landed_batches SET verdict = 'warned' WHERE batch_id = 1")
    roll_up(lander.pipeline.settings, 30)

    done = run_tickledger(lander.pipeline, "trace", "--date", f"{OLD}", "--sector", LOGISTICS)

    assert done.returncode == 0, done.stderr
    assert "1-2, rolled up" in done.stdout
    assert "1 passed, 1 warned" in done.stdout
    assert "0:0-1 1:0-0" in done.stdout
    assert "books.made_up (warning) of 1" in done.stdout
    assert done.stdout.endswith(f"{OLD}, {LOGISTICS}: 400 shares from 3 batches\n")


def test_a_rolled_up_batch_keeps_its_verdict(lander: Lander) -> None:
    roll_up(lander.pipeline.settings, 30)
    checker = Checker(lander.pipeline.settings)
    try:
        with pytest.raises(RolledUp, match="batch 1 was rolled up into daily_volume"):
            checker.check(1)
        assert checker.since(datetime(2000, 1, 1)) == [4]
        # One that is rolled up after it was read back keeps its verdict too.
        with pytest.raises(RolledUp):
            checker._write(Verdict(2, "failed", ()))
        assert lander.pipeline.rows("SELECT DISTINCT verdict FROM landed_batches WHERE batch_id < 4") == [("passed",)]
    finally:
        checker.close()
