"""What corrections put in force, as whoever reads the stores tells it: reconcile, rebuild, roll-up, hours and trace."""

import json
import re
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pyspark.sql import SparkSession

from commands.fill_hours import fill_hours
from commands.reconcile import Amount, reconcile
from commands.roll_up import roll_up
from expectations.checker import Checker
from tests.support.batches import NOON, Lander, assert_books_agree, tick
from tests.support.pipeline import Pipeline, run_tickledger
from tests.test_roll_up import age
from tickledger.revisions import Place

pytestmark = pytest.mark.integration

DAY = date(2026, 3, 2)
LOGISTICS, COAL = "Logistics & Deliveries", "Coal"
AGGREGATES = (
    "SELECT batch_id, date, sector, ticks, total_volume, corrected_ticks, corrected_volume, first_created_at,"
    " last_created_at, changed_ticks FROM aggregated_data ORDER BY 1, 2, 3"
)
DAYS = (
    "SELECT sector, ticks, total_volume, corrected_ticks, corrected_volume, batches, changed_ticks FROM daily_volume"
    " ORDER BY sector"
)
HOURS = "SELECT ticker, hour, ticks, volume, turnover, open, high, low, close FROM company_hours ORDER BY ticker, hour"
TOTALS = "SELECT date, sector, total_volume, ticks FROM volume_by_day ORDER BY date, sector"


def correction(number: int, revised_at: str = "2026-03-02 05:30:00", **changes: Any) -> dict[str, Any]:
    return tick(number, revision="correction", revised_at=revised_at, **changes)


def cancellation(number: int, revised_at: str = "2026-03-02 05:40:00", **changes: Any) -> dict[str, Any]:
    key = {name: value for name, value in tick(number, **changes).items() if name in ("ticker", "created_at", "id")}
    return key | {"revision": "cancellation", "revised_at": revised_at}


def moved(pipeline: Pipeline, sector: str = COAL) -> None:
    """Let TMAS.JK be of another sector from now on."""
    pipeline.execute(f"UPDATE profile SET sector = '{sector}' WHERE ticker = 'TMAS.JK'")


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    """Four batches: ticks of three hours; a correction, a cancellation and one ahead of its tick; that; and a move."""
    lander = Lander(spark, pipeline)
    later = {"created_at": "2026-03-02 06:00:00"}
    lander.land((0, 0, [tick(1, price=10), tick(2, price=99), tick(3, price=11), tick(4, **later)]))
    lander.land((0, 1, [correction(1, volume=70, price=12), cancellation(2), correction(5, volume=10)]))
    lander.land((1, 0, [tick(5, price=8), tick(6, price=9)]))
    moved(pipeline)
    lander.land(
        (0, 2, [correction(3, price=11, sector=COAL)]), (1, 1, [correction(1, "2026-03-02 05:00:00", sector=COAL)])
    )
    return lander


def changed(lander: Lander) -> list[tuple[Any, ...]]:
    """Batch, sector, ticks, volume, and of these what was corrected."""
    return [(row[0], *row[2:7]) for row in lander.pipeline.rows(AGGREGATES)]


def test_the_books_tell_corrections_and_agree(lander: Lander) -> None:
    assert changed(lander) == [
        (1, LOGISTICS, 4, 400, None, None),
        (2, LOGISTICS, -1, -130, -1, -130),
        (3, LOGISTICS, 2, 110, 0, -90),
        (4, COAL, 1, 100, 1, 100),
        (4, LOGISTICS, -1, -100, -1, -100),
    ]
    books = reconcile(lander.pipeline.settings)
    assert books.differences == []
    assert (books.ticks_read, books.ticks_landed, books.corrections, books.duplicates) == (11, 6, 5, 0)
    assert books.cassandra == books.mysql == Amount(5, 70 + 100 + 100 + 10 + 100)
    done = run_tickledger(lander.pipeline, "reconcile")
    assert "+ corrections" in done.stdout
    assert "wait" not in done.stdout


def test_reconcile_names_what_of_corrections_differs(lander: Lander) -> None:
    pipeline = lander.pipeline
    pipeline.execute("UPDATE aggregated_data SET corrected_volume = -80 WHERE batch_id = 3")
    pipeline.cassandra.execute(
        "DELETE FROM tick_revisions"
        " WHERE ticker = 'TMAS.JK' AND trade_date = '2026-03-02' AND created_at = %s AND id = 3",
        (NOON + timedelta(milliseconds=3),),
    )
    assert reconcile(pipeline.settings).differences == [
        "batch 3, 2026-03-02, Logistics & Deliveries, by corrections: Cassandra has 0 ticks of -90 shares,"
        " MySQL 0 of -80",
        "batch 4, 2026-03-02, Coal: Cassandra has 0 ticks of 0 shares, MySQL 1 of 100",
        "batch 4, 2026-03-02, Coal, by corrections: Cassandra has 0 ticks of 0 shares, MySQL 1 of 100",
        "batch 4, 2026-03-02, Logistics & Deliveries: Cassandra has 0 ticks of 0 shares, MySQL -1 of -100",
        "batch 4, 2026-03-02, Logistics & Deliveries, by corrections: Cassandra has 0 ticks of 0 shares,"
        " MySQL -1 of -100",
        "batch 3, by corrections: the ledger says 0 ticks of -90 shares, aggregated_data 0 of -80",
        "batch 4: the ledger says 2 corrections, Cassandra has 1",
    ]


def test_a_correction_that_waits_is_told_and_counts_where_the_ledger_has_it(lander: Lander) -> None:
    pipeline = lander.pipeline
    lander.land((0, 3, [tick(7, sector=COAL), correction(8, sector=COAL)]))
    books = reconcile(pipeline.settings)
    assert (books.differences, books.corrections) == ([], 6)
    assert re.fullmatch(r"1 correction waits for its tick, the oldest since \d{4}-.* UTC", books.waiting[0])
    assert books.waiting[0] in run_tickledger(pipeline, "reconcile").stdout

    expired = "UPDATE waiting_revisions SET expired_at = UTC_TIMESTAMP(3)"
    as_dead = "UPDATE landed_batches SET corrections = corrections - 1, dead_letters = dead_letters + 1"
    pipeline.execute(expired)
    pipeline.execute(f"{as_dead} WHERE batch_id = 5")
    # Its row is in Cassandra, its dead letter not yet; then both are; then its row is gone.
    dead = Place(0, 3, 1)
    for change in (None, _bury, _forget, _forgotten):
        if change:
            change(pipeline, dead)
        books = reconcile(pipeline.settings)
        assert (books.differences, books.corrections, books.dead_letters) == ([], 5, 1)


def _bury(pipeline: Pipeline, place: Place) -> None:
    pipeline.cassandra.execute(
        "INSERT INTO dead_letters (topic, kafka_partition, offset_bucket, kafka_offset, position, reason)"
        " VALUES (%s, %s, 0, %s, %s, 'no_tick_to_correct')",
        (pipeline.settings.kafka_topic, *place),
    )


def _forget(pipeline: Pipeline, _place: Place) -> None:
    of_tick = "ticker = 'TMAS.JK' AND trade_date = '2026-03-02' AND created_at = %s AND id = 8"
    pipeline.cassandra.execute(f"DELETE FROM tick_revisions WHERE {of_tick}", (NOON + timedelta(milliseconds=8),))


def _forgotten(pipeline: Pipeline, _place: Place) -> None:
    pipeline.execute("DELETE FROM waiting_revisions")


def test_a_rebuilt_day_is_what_it_was_corrections_and_all(lander: Lander) -> None:
    pipeline = lander.pipeline
    before = pipeline.rows(AGGREGATES)
    pipeline.execute("UPDATE aggregated_data SET total_volume = 1, corrected_volume = NULL WHERE batch_id = 3")
    pipeline.execute("DELETE FROM aggregated_data WHERE batch_id = 2")

    done = run_tickledger(pipeline, "rebuild", "--date", f"{DAY}")

    assert done.stdout == "2026-03-02: 4 rows of its aggregates replaced by 5\n", done.stderr
    assert pipeline.rows(AGGREGATES) == before
    assert_books_agree(lander)


def test_corrections_roll_up_and_later_ones_are_added(lander: Lander) -> None:
    pipeline = lander.pipeline
    lander.land((0, 3, [tick(7, sector=COAL)]))
    before = pipeline.rows(TOTALS)
    for batch_id in range(1, 5):
        age(pipeline, batch_id, 90)
    pipeline.execute("UPDATE landed_batches SET corrected_volume = 5 WHERE batch_id = 3")
    assert roll_up(pipeline.settings, 30)[1].startswith("batch 3 is not in aggregated_data as the ledger has it")
    pipeline.execute("UPDATE landed_batches SET corrected_volume = -90 WHERE batch_id = 3")
    roll_up(pipeline.settings, 30)

    assert pipeline.rows(DAYS) == [(COAL, 1, 100, 1, 100, 1, 1), (LOGISTICS, 4, 280, -2, -320, 4, 4)]
    assert pipeline.rows(TOTALS) == before
    assert_books_agree(lander)

    # Of a day that was rolled up, and again once its batch is.
    lander.land((0, 4, [cancellation(4, created_at="2026-03-02 06:00:00")]))
    assert changed(lander)[-1] == (6, LOGISTICS, -1, -100, -1, -100)
    assert_books_agree(lander)
    age(pipeline, 5, 90)
    age(pipeline, 6, 90)
    lander.land((0, 5, [tick(8, sector=COAL)]))
    roll_up(pipeline.settings, 30)
    days = [(COAL, 2, 200, 1, 100, 2, 1), (LOGISTICS, 3, 180, -3, -420, 5, 5)]
    assert pipeline.rows(DAYS) == days
    assert_books_agree(lander)

    pipeline.execute("UPDATE daily_volume SET total_volume = 9, corrected_ticks = NULL")
    assert len(reconcile(pipeline.settings).differences) == 6
    assert run_tickledger(pipeline, "rebuild", "--date", f"{DAY}").returncode == 0
    assert pipeline.rows(DAYS) == days
    assert_books_agree(lander)


def test_hours_are_of_what_holds_and_summed_again_once_corrected(lander: Lander) -> None:
    pipeline = lander.pipeline
    fill_hours(pipeline.settings)
    second = ("TMAS.JK", 13, 1, 100, 1050, *[Decimal("10.5")] * 4)
    assert pipeline.rows(HOURS) == [
        ("TMAS.JK", 12, 4, 280, 2945, 12, 12, 9, 9),
        second,
    ]
    assert reconcile(pipeline.settings).days_by_hour == 1
    assert_books_agree(lander)

    # Only a price changes: no tick and no share.
    lander.land((0, 3, [correction(6, price=14, sector=COAL, volume=100)]))
    assert changed(lander)[-2:] == [(5, COAL, 1, 100, 1, 100), (5, LOGISTICS, -1, -100, -1, -100)]
    lander.land((0, 4, [correction(6, "2026-03-02 05:31:00", price=13, sector=COAL)]))
    assert changed(lander)[-1] == (6, COAL, 0, 0, 0, 0)
    (filled,) = fill_hours(pipeline.settings)
    assert (filled.hours, filled.ticks, filled.volume, filled.to_batch) == (1, 4, 280, 6)
    assert pipeline.rows(HOURS)[0] == ("TMAS.JK", 12, 4, 280, 2945 + 400, 12, 13, Decimal("10.5"), 13)

    # An hour without a tick that holds has no row.
    lander.land((0, 5, [cancellation(4, created_at="2026-03-02 06:00:00")]))
    (filled,) = fill_hours(pipeline.settings)
    assert (filled.hours, filled.ticks) == (1, 0)
    assert len(pipeline.rows(HOURS)) == 1
    assert_books_agree(lander)
    assert reconcile(pipeline.settings).days_by_hour == 1


def test_a_trace_shows_each_correction_of_the_day_and_sector(lander: Lander) -> None:
    asked = ("--date", f"{DAY}", "--sector")
    shown = run_tickledger(lander.pipeline, "trace", *asked, LOGISTICS)
    assert shown.returncode == 0, shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert "2026-03-02, Logistics & Deliveries: 280 shares from 4 batches" in lines
    at = "2026-03-02 05:00:00.00"
    assert lines[-6:] == [
        "batch correction of made at (UTC) place from → to",
        f"2 TMAS.JK, {at}1, id 1 2026-03-02 05:30:00 0/1/0 volume 100 → 70, price 10 → 12",
        f"2 TMAS.JK, {at}2, id 2 2026-03-02 05:40:00 0/1/1 volume 100 at 99 → cancelled",
        f"2 TMAS.JK, {at}5, id 5 2026-03-02 05:30:00 0/1/2 volume 100 → 10, price 8 → 10.5",
        f"4 TMAS.JK, {at}3, id 3 2026-03-02 05:30:00 0/2/0 sector Logistics & Deliveries → Coal",
        f"4 TMAS.JK, {at}1, id 1 2026-03-02 05:00:00 1/1/0 changes nothing",
    ]
    rows = json.loads(run_tickledger(lander.pipeline, "trace", *asked, COAL, "--json").stdout)
    assert [(row["batch"], row["ticks"], row["volume"]) for row in rows] == [(2, 0, "0"), (4, 1, "100")]
    assert [(one["id"], one["kind"], one["position"]) for one in rows[1]["corrections"]] == [
        (3, "correction", 0),
        (1, "correction", 0),
    ]
    ((first,),) = [row["corrections"] for row in rows[:1]]
    assert (first["before"]["volume"], first["after"]["volume"]) == (100, 70)

    for batch_id in range(1, 5):
        age(lander.pipeline, batch_id, 90)
    lander.land((0, 3, [tick(7, sector=COAL), correction(8, sector=COAL)]))
    roll_up(lander.pipeline.settings, 30)
    assert run_tickledger(lander.pipeline, "trace", *asked, COAL).stdout.rstrip().endswith("waits for its tick")
    rows = json.loads(run_tickledger(lander.pipeline, "trace", *asked, LOGISTICS, "--json").stdout)
    assert [(row["batch"], len(row["corrections"])) for row in rows] == [("1-4, rolled up", 5)]


def grave(checker: Checker, batch_id: int) -> list[str]:
    """The critical expectations that do not hold of a batch."""
    return [one.expectation for one in checker.check(batch_id).findings if one.severity == "critical"]


def test_checks_find_corrections_in_both_stores(lander: Lander) -> None:
    pipeline = lander.pipeline
    # One alone, of a company that has left, in a sector that has left with it.
    lander.land((0, 3, [tick(7, ticker="DWGL.JK", sector=COAL)]))
    moved(pipeline, "Energy")
    pipeline.execute("DELETE FROM profile WHERE ticker = 'DWGL.JK'")
    lander.land((0, 4, [cancellation(7, ticker="DWGL.JK")]))
    # One that changes nothing, and one that waits.
    lander.land((0, 5, [cancellation(7, "2026-03-02 05:45:00", ticker="DWGL.JK"), correction(9, sector="Energy")]))
    checker = Checker(pipeline.settings)
    try:
        assert [grave(checker, batch_id) for batch_id in range(1, 8)] == [[]] * 7
        assert changed(lander)[-1] == (6, COAL, -1, -100, -1, -100)

        pipeline.execute("UPDATE aggregated_data SET total_volume = 0, corrected_volume = -200 WHERE batch_id = 3")
        assert grave(checker, 3) == ["books.corrected_volume_is_aggregated", "books_by_sector.volume_agrees"]
        pipeline.execute("UPDATE landed_batches SET corrected_ticks = 1 WHERE batch_id = 4")
        assert grave(checker, 4) == ["books.corrected_ticks_are_aggregated"]
        pipeline.cassandra.execute("TRUNCATE tick_revisions")
        assert grave(checker, 6) == ["books_by_sector.ticks_agree", "books_by_sector.volume_agrees"]
        nulls = "corrections = NULL, corrected_ticks = NULL, corrected_volume = NULL"
        pipeline.execute(f"UPDATE landed_batches SET {nulls} WHERE batch_id = 1")
        assert grave(checker, 1) == []
    finally:
        checker.close()
