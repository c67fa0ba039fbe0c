"""The checks of a landed batch: each doctored fact is found, named and nothing else; and the suites are fresh."""

import json
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from expectations import read_back
from expectations.checker import Checker, CheckFailedToRun
from expectations.read_back import UnknownBatch
from expectations.read_corrections import COMPANIES_A_READ
from expectations.suites import PROJECT_FOLDER, books, raw_ticks, stale_files, write_project
from streaming import check_landed
from streaming.check_landed import BatchChecks
from tests.support.healthy_batch import (
    COMPANIES,
    NOON,
    SECONDS,
    StoredTick,
    dead_offset,
    land_dead_letters,
    land_ticks,
    store_dead_letter,
    store_tick,
)
from tests.support.pipeline import Pipeline
from tickledger.errors import StoreUnavailable
from tickledger.ledger import LandedBatch
from tickledger.retry_policy import RetryPolicy
from tickledger.settings import FEED_RULES
from tickledger.tick import DEAD_LETTER_BUCKET

Doctor = Callable[[Pipeline, int, list[StoredTick]], None]

TICK_KEY = "ticker = %s AND trade_date = %s AND created_at = %s AND id = %s"
TICKS_AND_VOLUME = {"books_by_sector.ticks_agree", "books_by_sector.volume_agrees"}


def test_committed_suites_are_fresh() -> None:
    assert stale_files() == {}


def test_stale_suites_are_noticed_and_mended(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(PROJECT_FOLDER, folder)
    changed, added, removed = (Path("expectations", f"{name}.json") for name in ("raw_ticks", "books", "mine"))
    (folder / changed).write_text((folder / changed).read_text().replace("volume", "volumes"))
    (folder / added).unlink()
    (folder / removed).write_text("{}")

    expected = {changed: "changed", added: "added", removed: "removed"}
    assert stale_files(folder) == expected
    assert write_project(folder) == expected
    assert stale_files(folder) == {}


def set_tick(assignment: str, *values: Any) -> Doctor:
    """Change the first tick's row in Cassandra."""

    def doctor(pipeline: Pipeline, _: int, ticks: list[StoredTick]) -> None:
        pipeline.cassandra.execute(f"UPDATE real_time_data SET {assignment} WHERE {TICK_KEY}", (*values, *ticks[0].key))

    return doctor


def set_row(statement: str) -> Doctor:
    """Change the batch's rows in MySQL; the statement ends before AND batch_id."""

    def doctor(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
        pipeline.execute(f"{statement} AND batch_id = %s", (batch_id,))

    return doctor


def lose_tick(pipeline: Pipeline, _: int, ticks: list[StoredTick]) -> None:
    pipeline.cassandra.execute(f"DELETE FROM real_time_data WHERE {TICK_KEY}", ticks[0].key)


def add_tick_of_a_landed_message(pipeline: Pipeline, _: int, ticks: list[StoredTick]) -> None:
    store_tick(pipeline, replace(ticks[0], id=ticks[0].id + 500, volume=0))


def add_tick_of_a_later_message(pipeline: Pipeline, _: int, ticks: list[StoredTick]) -> None:
    store_tick(pipeline, replace(ticks[0], id=ticks[0].id + 500, offset=10_000_000))


def lose_dead_letter(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
    offset = dead_offset(batch_id)
    pipeline.cassandra.execute(
        "DELETE FROM dead_letters"
        " WHERE topic = %s AND kafka_partition = 0 AND offset_bucket = %s AND kafka_offset = %s",
        (pipeline.settings.kafka_topic, offset // DEAD_LETTER_BUCKET, offset),
    )


def add_dead_letter(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
    store_dead_letter(pipeline, 1, dead_offset(batch_id))


def put_tick_under_another_day(pipeline: Pipeline, batch_id: int, ticks: list[StoredTick]) -> None:
    late = min((tick for tick in ticks if tick.sector == "Coal"), key=lambda tick: tick.created_at)
    lose_tick(pipeline, batch_id, [late])
    wrong_day = late.created_at.date() + timedelta(days=1)
    pipeline.cassandra.execute(
        "INSERT INTO real_time_data (ticker, trade_date, created_at, id, volume, market_cap, price, sector,"
        " kafka_partition, kafka_offset) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(late.ticker, wrong_day, *late.key[2:]),
            *(late.volume, late.market_cap, late.price, late.sector, late.partition, late.offset),
        ),
    )
    pipeline.execute(
        "UPDATE aggregated_data SET first_created_at = %s WHERE date = %s AND sector = 'Coal' AND batch_id = %s",
        (late.created_at, wrong_day, batch_id),
    )


def put_tick_back(*fields: str) -> Doctor:
    """Replace the third tick by one that has these fields of the first, as if it had come so."""

    def doctor(pipeline: Pipeline, batch_id: int, ticks: list[StoredTick]) -> None:
        lose_tick(pipeline, batch_id, [ticks[2]])
        taken = {field: getattr(ticks[0], field) for field in fields}
        store_tick(pipeline, replace(ticks[2], **taken))

    return doctor


def land_dead_letters_too(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
    for number in range(20):
        store_dead_letter(pipeline, 1, dead_offset(batch_id) + number)
    set_row("UPDATE landed_batches SET dead_letters = dead_letters + 20, ticks_read = ticks_read + 20 WHERE 1")(
        pipeline, batch_id, []
    )


def keep_the_dead_message_whole(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
    store_dead_letter(pipeline, 0, dead_offset(batch_id), "too_many_broken")


def land_three_hours_late(pipeline: Pipeline, batch_id: int, _: list[StoredTick]) -> None:
    """Let the batch and the one before it land late: a late one alone would be a stream that was away."""
    pipeline.execute(
        "UPDATE landed_batches SET landed_at = landed_at + INTERVAL 3 HOUR WHERE batch_id IN (%s, %s)",
        (batch_id, batch_id - 1),
    )


def nothing(pipeline: Pipeline, batch_id: int, ticks: list[StoredTick]) -> None:
    """Leave the batch healthy."""


COAL_TODAY = "WHERE sector = 'Coal' AND date = '2026-03-02'"
#: What is done to a healthy batch → the verdict and every finding that it must have.
CASES: dict[str, tuple[Doctor, str, set[str]]] = {
    "nothing": (nothing, "passed", set()),
    "a tick is lost": (lose_tick, "failed", {"books.ticks_are_in_cassandra", *TICKS_AND_VOLUME}),
    "a tick too many": (
        add_tick_of_a_landed_message,
        "failed",
        {"books.ticks_are_in_cassandra", "books_by_sector.ticks_agree", "raw_ticks.one_tick_a_symbol_and_round"},
    ),
    "a tick that has not landed yet": (add_tick_of_a_later_message, "passed", set()),
    "a tick under another day": (
        put_tick_under_another_day,
        "failed",
        {"raw_ticks.trade_date_is_of_created_at", *TICKS_AND_VOLUME},
    ),
    "another volume": (set_tick("volume = %s", 101), "failed", {"books_by_sector.volume_agrees"}),
    "no volume": (
        set_tick("volume = null"),
        "failed",
        {"raw_ticks.volume_is_not_null", "books_by_sector.volume_agrees"},
    ),
    "a negative volume": (
        set_tick("volume = %s", -1),
        "failed",
        {"raw_ticks.volume_is_in_bounds", "books_by_sector.volume_agrees"},
    ),
    "no price": (set_tick("price = null"), "failed", {"raw_ticks.price_is_not_null"}),
    "a negative price": (
        set_tick("price = %s", -1),
        "failed",
        {"raw_ticks.price_is_in_bounds", "raw_ticks.market_cap_is_price_times_shares"},
    ),
    "another market_cap": (
        set_tick("market_cap = %s", 4932000),
        "warned",
        {"raw_ticks.market_cap_is_price_times_shares"},
    ),
    "no market_cap": (set_tick("market_cap = null"), "failed", {"raw_ticks.market_cap_is_not_null"}),
    "a price that jumps": (
        set_tick("price = %s, market_cap = %s", Decimal("826"), Decimal("826") * COMPANIES[0][2]),
        "warned",
        {"raw_ticks.price_does_not_jump"},
    ),
    "a price that moves by less": (
        set_tick("price = %s, market_cap = %s", Decimal("825"), Decimal("825") * COMPANIES[0][2]),
        "passed",
        set(),
    ),
    "an id that is there twice": (put_tick_back("id"), "warned", {"raw_ticks.id_is_unique"}),
    "two ticks of a symbol in a round": (
        put_tick_back("offset"),
        "warned",
        {"raw_ticks.one_tick_a_symbol_and_round"},
    ),
    "ticks that are three hours old": (land_three_hours_late, "warned", {"books.newest_tick_is_fresh"}),
    "ticks of the future": (
        set_row("UPDATE landed_batches SET landed_at = landed_at - INTERVAL 6 MINUTE WHERE 1"),
        "warned",
        {"books.newest_tick_is_not_of_the_future"},
    ),
    "many dead letters": (land_dead_letters_too, "warned", {"books.dead_letters_are_few"}),
    "a message with many broken elements": (
        keep_the_dead_message_whole,
        "warned",
        {"books.no_message_is_kept_whole"},
    ),
    "many duplicates": (
        set_row("UPDATE landed_batches SET duplicates = duplicates + 20, ticks_read = ticks_read + 20 WHERE 1"),
        "warned",
        {"books.duplicates_are_few"},
    ),
    "another sector": (set_tick("sector = %s", "Chemicals"), "failed", {"raw_ticks.sector_is_the_profiles"}),
    "no sector": (
        set_tick("sector = null"),
        "failed",
        {"raw_ticks.sector_is_not_null", "raw_ticks.sector_is_the_profiles"},
    ),
    "an empty sector": (
        set_tick("sector = ''"),
        "failed",
        {"raw_ticks.sector_has_a_fitting_length", "raw_ticks.sector_is_the_profiles"},
    ),
    "another aggregated volume": (
        set_row(f"UPDATE aggregated_data SET total_volume = total_volume + 1 {COAL_TODAY}"),
        "failed",
        {"books.volume_is_aggregated", "books_by_sector.volume_agrees"},
    ),
    "another count of aggregated ticks": (
        set_row(f"UPDATE aggregated_data SET ticks = ticks + 1 {COAL_TODAY}"),
        "failed",
        {"books.ticks_are_aggregated", "books_by_sector.ticks_agree"},
    ),
    "an aggregate is lost": (
        set_row(f"DELETE FROM aggregated_data {COAL_TODAY}"),
        "failed",
        {"books.ticks_are_aggregated", "books.volume_is_aggregated", *TICKS_AND_VOLUME},
    ),
    "an aggregate of another sector": (
        set_row(f"UPDATE aggregated_data SET sector = 'Chemicals' {COAL_TODAY}"),
        "failed",
        TICKS_AND_VOLUME,
    ),
    "an aggregate of a sector that nobody knows": (
        set_row(f"UPDATE aggregated_data SET sector = 'Airlines' {COAL_TODAY}"),
        "failed",
        {"aggregates.sector_is_a_profiles", *TICKS_AND_VOLUME},
    ),
    "another volume in the ledger": (
        set_row("UPDATE landed_batches SET volume = volume + 1 WHERE 1"),
        "failed",
        {"books.volume_is_aggregated"},
    ),
    "another last created_at in the ledger": (
        set_row("UPDATE landed_batches SET last_created_at = last_created_at - INTERVAL 1 SECOND WHERE 1"),
        "failed",
        {"books.last_created_at_agrees"},
    ),
    "another first created_at in the ledger": (
        set_row("UPDATE landed_batches SET first_created_at = null WHERE 1"),
        "failed",
        {"books.first_created_at_agrees"},
    ),
    "more messages than offsets": (
        set_row("UPDATE landed_batches SET messages = 201 WHERE 1"),
        "failed",
        {"books.messages_fit_the_offsets"},
    ),
    "ticks that nobody accounts for": (
        set_row("UPDATE landed_batches SET ticks_read = ticks_read + 1 WHERE 1"),
        "failed",
        {"books.read_is_accounted_for"},
    ),
    "a dead letter is lost": (lose_dead_letter, "failed", {"books.dead_letters_are_in_cassandra"}),
    "a dead letter too many": (add_dead_letter, "failed", {"books.dead_letters_are_in_cassandra"}),
    # The last one: the batch behind it would lack the field again.
    "a field that nobody described": (
        set_row("UPDATE landed_batches SET unknown_fields = '[\"side\"]' WHERE 1"),
        "warned",
        {"books.unknown_fields_are_as_before"},
    ),
}


#: What the stream's line of a batch is made from.
LANDED = LandedBatch(0, "", "", {}, 20, 17, 1, 1, 0, [], datetime(2026, 3, 2), 0.5)


@pytest.fixture
def checker(pipeline: Pipeline) -> Iterator[Checker]:
    """A checker on the test's own stores, with the rules of our own producer's feed."""
    checker = Checker(pipeline.settings.model_copy(update={"feed_rules": FEED_RULES}))
    yield checker
    checker.close()


def findings_of(pipeline: Pipeline, batch_id: int) -> list[tuple[Any, ...]]:
    return pipeline.rows(
        "SELECT expectation, severity, observed, expected FROM batch_findings WHERE batch_id = %s ORDER BY expectation",
        (batch_id,),
    )


def verdict_of(pipeline: Pipeline, batch_id: int) -> str:
    return str(pipeline.rows("SELECT verdict FROM landed_batches WHERE batch_id = %s", (batch_id,))[0][0])


@pytest.mark.integration
def test_each_doctored_fact_is_found_and_nothing_else(pipeline: Pipeline, checker: Checker) -> None:
    _allow_books_that_do_not_balance(pipeline)
    for batch_id, (doctor, _, _) in enumerate(CASES.values(), start=1):
        doctor(pipeline, batch_id, land_ticks(pipeline, batch_id))

    found = {}
    for batch_id, case in enumerate(CASES, start=1):
        verdict = checker.check(batch_id)
        found[case] = verdict.verdict, {finding.expectation for finding in verdict.findings}
        assert verdict_of(pipeline, batch_id) == verdict.verdict
        assert {row[0] for row in findings_of(pipeline, batch_id)} == found[case][1]

    assert found == {case: (verdict, findings) for case, (_, verdict, findings) in CASES.items()}


@pytest.mark.integration
@pytest.mark.parametrize("many", [False, True], ids=["too small", "too large"])
def test_a_batch_of_an_unusual_size_is_found(pipeline: Pipeline, checker: Checker, many: bool) -> None:
    for batch_id in range(1, 13):
        land_ticks(pipeline, batch_id)
    land_ticks(pipeline, 13, seconds=tuple(range(8)))
    assert [checker.check(batch_id).verdict for batch_id in (12, 13)] == ["passed", "passed"]
    # Of the batches before it only the ledger's count is read.
    change = (
        "duplicates = 0, dead_letters = 0, late_ticks = 0, ticks_landed = 1, ticks_read = 1"
        if many
        else "dead_letters = dead_letters + 600, ticks_read = ticks_read + 600"
    )
    pipeline.execute(f"UPDATE landed_batches SET {change} WHERE batch_id <= 12")

    found = checker.check(13)

    assert (found.verdict, [one.expectation for one in found.findings]) == ("warned", ["books.size_is_usual"])


@pytest.mark.integration
def test_old_days_that_are_replayed_beside_a_producer_warn_of_nothing(pipeline: Pipeline, checker: Checker) -> None:
    old = tuple(range(-86_400 * 20, -86_400 * 20 + 95))
    for batch_id in range(1, 13):
        land_ticks(pipeline, batch_id, seconds=(0,))
    # 3 ticks of the producer's with 285 of the file's, the file's alone, and the producer's again.
    for batch_id, seconds in ((13, (0, *old)), (14, old), (15, old), (16, (0,)), (17, (0, *old))):
        land_ticks(pipeline, batch_id, seconds=seconds)

    assert {batch_id: checker.check(batch_id).verdict for batch_id in range(12, 18)} == dict.fromkeys(
        range(12, 18), "passed"
    )


def _allow_books_that_do_not_balance(pipeline: Pipeline) -> None:
    names = pipeline.rows(
        "SELECT constraint_name FROM information_schema.check_constraints"
        " WHERE constraint_schema = DATABASE() AND check_clause LIKE '%%ticks_landed%%duplicates%%'"
    )
    pipeline.execute(f"ALTER TABLE landed_batches DROP CONSTRAINT `{names[0][0]}`")


@pytest.mark.integration
def test_finding_shows_what_was_observed_and_expected(pipeline: Pipeline, checker: Checker) -> None:
    ticks = land_ticks(pipeline)
    set_tick("market_cap = %s", 1)(pipeline, 1, ticks)
    lose_dead_letter(pipeline, 1, ticks)

    checker.check(1)

    assert findings_of(pipeline, 1) == [
        (
            "books.dead_letters_are_in_cassandra",
            "critical",
            "dead_letters_in_cassandra = 0, dead_letters = 1",
            "every dead letter is in dead_letters",
        ),
        (
            "raw_ticks.market_cap_is_price_times_shares",
            "warning",
            "differs in 1 of 15 rows: ticker DWGL.JK, created_at 2026-03-02 05:01:00, id 1000,"
            " market_cap_error 5.103135e+12",
            "market_cap is price × shares, give or take 1",
        ),
    ]


@pytest.mark.integration
def test_checking_again_replaces_the_findings(pipeline: Pipeline, checker: Checker) -> None:
    ticks = land_ticks(pipeline)
    set_tick("volume = %s", 7)(pipeline, 1, ticks)
    assert checker.check(1) == checker.check(1)
    assert len(findings_of(pipeline, 1)) == 1

    set_tick("volume = %s", ticks[0].volume)(pipeline, 1, ticks)
    assert checker.check(1).verdict == "passed"
    assert findings_of(pipeline, 1) == []
    assert verdict_of(pipeline, 1) == "passed"


@pytest.mark.integration
def test_a_batch_is_judged_by_the_profile_of_its_landing(pipeline: Pipeline, checker: Checker) -> None:
    """Seen again after the seed has changed, even if it was never checked before, or is not healthy."""
    land_ticks(pipeline, 1)
    doctored = land_ticks(pipeline, 2)
    lose_tick(pipeline, 2, doctored)
    before = [checker.check(batch_id) for batch_id in (1, 2)]
    land_ticks(pipeline, 3)

    pipeline.execute("DELETE FROM profile WHERE ticker = 'MIKA.JK'")
    pipeline.execute("UPDATE profile SET sector = 'Mining' WHERE ticker = 'DWGL.JK'")
    pipeline.execute("UPDATE profile SET shares = 2 * shares WHERE ticker = 'HEAL.JK'")
    land_ticks(
        pipeline, 4, companies=[("DWGL.JK", "Mining", 9_270_000_000), ("HEAL.JK", COMPANIES[1][1], 30_720_000_000)]
    )

    assert [checker.check(batch_id) for batch_id in (1, 2)] == before
    assert [one.verdict for one in before] == ["passed", "failed"]
    assert [checker.check(batch_id).verdict for batch_id in (3, 4)] == ["passed", "passed"]
    assert pipeline.rows(
        "SELECT first_batch, companies FROM (SELECT profile_version, MIN(batch_id) AS first_batch FROM landed_batches"
        " GROUP BY profile_version) b JOIN (SELECT profile_version, COUNT(*) AS companies FROM profile_versions"
        " GROUP BY profile_version) v USING (profile_version) ORDER BY first_batch"
    ) == [(1, 10), (4, 9)]


@pytest.mark.integration
def test_a_batch_from_before_versions_were_kept_is_judged_by_the_nearest(pipeline: Pipeline, checker: Checker) -> None:
    for batch_id in (1, 2):
        land_ticks(pipeline, batch_id)
    pipeline.execute("UPDATE landed_batches SET profile_version = NULL WHERE batch_id = 1")
    pipeline.execute("DELETE FROM profile WHERE ticker = 'MIKA.JK'")
    assert checker.check(1).verdict == "passed"

    pipeline.execute("UPDATE landed_batches SET profile_version = NULL")
    assert checker.check(1).verdict == "failed"
    pipeline.execute(
        "INSERT INTO profile SELECT ticker, 'Mika', sector, shares FROM profile_versions WHERE ticker = 'MIKA.JK'"
    )
    assert checker.check(1).verdict == "passed"


@pytest.mark.integration
def test_several_trades_of_a_symbol_in_a_message_with_ids_counted_by_symbol_warn_of_nothing(
    pipeline: Pipeline, checker: Checker
) -> None:
    ticks = land_ticks(pipeline)
    for place, tick in enumerate(ticks):
        lose_tick(pipeline, 1, [tick])
        # Of other shares than the profile's, too.
        changed = replace(tick, id=place % len(SECONDS), offset=ticks[0].offset, market_cap=2 * tick.market_cap)
        store_tick(pipeline, changed)
    usual = Checker(pipeline.settings)
    assert usual.check(1).verdict == "passed"
    usual.close()

    asked = {one.expectation for one in checker.check(1).findings}
    assert asked == {f"raw_ticks.{rule}" for rule in FEED_RULES if rule != "size_is_usual"}


def test_every_rule_of_a_feed_is_a_warning_of_the_suites() -> None:
    warnings = {one["meta"]["name"] for one in (*raw_ticks(), *books()) if one["severity"] == "warning"}
    assert set(FEED_RULES) < warnings


@pytest.mark.integration
def test_batches_that_overlap_in_time_are_told_apart(pipeline: Pipeline, checker: Checker) -> None:
    first = land_ticks(pipeline, 1)
    second = land_ticks(pipeline, 2, seconds=(-59, -58, 0))
    overlap = [tick for tick in second if tick.created_at < max(tick.created_at for tick in first)]

    assert overlap
    assert [checker.check(batch_id).verdict for batch_id in (1, 2)] == ["passed", "passed"]


def set_prices(pipeline: Pipeline, ticks: Iterable[StoredTick], factor: int) -> None:
    for tick in ticks:
        store_tick(pipeline, replace(tick, price=factor * tick.price, market_cap=factor * tick.market_cap))


@pytest.mark.integration
def test_a_price_is_compared_with_what_had_landed_by_then(pipeline: Pipeline, checker: Checker) -> None:
    """Two ticks of the next batch were made shortly before this one's first and between its ticks."""
    land_ticks(pipeline, 1)
    set_prices(pipeline, [tick for tick in land_ticks(pipeline, 2) if tick.ticker == "DWGL.JK"], 2)
    before = checker.check(2)
    set_prices(pipeline, land_ticks(pipeline, 3, seconds=(-62, -58)), 7)

    assert checker.check(2) == before
    assert [one.expectation for one in before.findings] == ["raw_ticks.price_does_not_jump"]
    assert before.findings[0].observed.startswith("differs in 2 of 15 rows"), "one on each day"
    assert checker.check(3).verdict == "warned"


@pytest.mark.integration
def test_of_a_day_that_others_share_a_check_holds_its_own_rows_and_those_beside(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    frame = read_back._tick_frame

    def counted(*arguments: Any) -> Any:
        held.append(sum(len(page["price"]) for pages in arguments[2] for page in pages))
        return frame(*arguments)

    monkeypatch.setattr(read_back, "ROWS_PER_PAGE", 10)
    monkeypatch.setattr(read_back, "_tick_frame", counted)
    others = land_ticks(pipeline, 1, seconds=tuple(range(60)))
    first_and_last = land_ticks(pipeline, 2, seconds=(-61, 0))
    set_prices(pipeline, [tick for tick in first_and_last if tick.ticker == "MIKA.JK"][-1:], 2)
    checker = Checker(pipeline.settings)
    found = checker.check(2)
    checker.close()

    assert [one.observed.partition(":")[0] for one in found.findings] == ["differs in 1 of 6 rows"]
    assert held[0] <= 2 * len(first_and_last) + len(others) / 10 + len(COMPANIES)


@pytest.mark.integration
def test_each_price_is_compared_with_the_companys_own_where_many_companies_are_read_at_once(
    pipeline: Pipeline, checker: Checker
) -> None:
    sectors = ("Coal", "Healthcare Providers")
    companies = [
        (f"T{number:03}.JK", sectors[number % 2], 1_000 + number) for number in range(2 * COMPANIES_A_READ + 6)
    ]
    for company in companies:
        pipeline.execute(
            "INSERT INTO profile (ticker, company_name, sector, shares) VALUES (%s, %s, %s, %s)", (company[0], *company)
        )
    land_ticks(pipeline, 1, companies=companies)
    ticks = land_ticks(pipeline, 2, companies=companies)
    # Their first and last ones of each answer: twice the price of a minute ago in batch 1, on the day itself alone.
    dearer = {
        companies[place][0] for place in (0, 1, 2 * COMPANIES_A_READ - 2, 2 * COMPANIES_A_READ, len(companies) - 1)
    }
    for tick in ticks:
        if tick.ticker in dearer and tick.created_at > NOON:
            store_tick(pipeline, replace(tick, price=2 * tick.price, market_cap=2 * tick.market_cap))

    found = checker.check(2).findings

    assert [one.expectation for one in found] == ["raw_ticks.price_does_not_jump"]
    assert found[0].observed.startswith(f"differs in {len(dearer)} of {len(ticks)} rows: ticker T000.JK, ")
    assert checker.check(1).verdict == "passed"


@pytest.mark.integration
def test_batch_of_dead_letters_alone_passes_if_they_are_there(pipeline: Pipeline, checker: Checker) -> None:
    land_dead_letters(pipeline)
    assert checker.check(1).verdict == "passed"

    pipeline.cassandra.execute("TRUNCATE dead_letters", timeout=60)
    assert [one.expectation for one in checker.check(1).findings] == ["books.dead_letters_are_in_cassandra"]


@pytest.mark.integration
def test_newest_and_unchecked_follow_the_ledger(pipeline: Pipeline, checker: Checker) -> None:
    assert (checker.newest(), checker.unchecked()) == (None, [])
    for batch_id in (1, 2, 3):
        land_ticks(pipeline, batch_id)
    checker.check(2)

    assert (checker.newest(), checker.unchecked()) == (3, [1, 3])
    assert pipeline.rows("SELECT batch_id FROM landed_batches WHERE checked_at IS NOT NULL") == [(2,)]
    with pytest.raises(UnknownBatch, match="no batch 4"):
        checker.check(4)


@pytest.mark.integration
def test_checker_works_on_a_background_thread(pipeline: Pipeline) -> None:
    land_ticks(pipeline)

    def check() -> str:
        checker = Checker(pipeline.settings)
        try:
            return checker.check(1).verdict
        finally:
            checker.close()

    with ThreadPoolExecutor(max_workers=1) as thread:
        assert thread.submit(check).result() == "passed"


@pytest.mark.integration
def test_broken_project_leaves_the_batch_unchecked(pipeline: Pipeline, tmp_path: Path) -> None:
    land_ticks(pipeline)
    project = tmp_path / "project"
    with pytest.raises(CheckFailedToRun, match="no Great Expectations project"):
        Checker(pipeline.settings, project)

    write_project(project)
    suite = project / "expectations" / "books.json"
    document = json.loads(suite.read_text())
    document["expectations"][0]["kwargs"]["column_A"] = "no_such_column"
    suite.write_text(json.dumps(document))
    checker = Checker(pipeline.settings, project)
    with pytest.raises(CheckFailedToRun, match="no_such_column"):
        checker.check(1)
    checker.close()

    suite.write_text("{")
    with pytest.raises(CheckFailedToRun, match=r"python -m expectations\.suites"):
        Checker(pipeline.settings, project)
    assert verdict_of(pipeline, 1) == "unchecked"


@pytest.fixture
def checks_of(pipeline: Pipeline) -> Callable[..., BatchChecks]:
    """The stream's checks, with some settings of their own; `stopped` takes what would stop the stream."""

    def make(stopped: list[Exception] | None = None, **settings: Any) -> BatchChecks:
        changed = pipeline.settings.model_copy(update={"stream_max_offsets_per_trigger": 100, **settings})
        return BatchChecks(changed, RetryPolicy(30, threading.Event()), ([] if stopped is None else stopped).append)

    return make


def lines_of(said: str) -> list[tuple[int, str]]:
    """Each line's batch, and whether it was printed as landed, as caught up, or both in one."""
    parts = [line.split(" · ") for line in said.splitlines() if line.startswith("batch ")]
    return [
        (
            int(line[0].split()[1]),
            "caught up" if line[1] == "caught up" else "waits" if line[-1] == "check waits" else "checked",
        )
        for line in parts
    ]


def land_all(pipeline: Pipeline, checks: BatchChecks, lags: dict[int, int]) -> None:
    for batch_id, lag in lags.items():
        land_ticks(pipeline, batch_id)
        checks.landed(replace(LANDED, batch_id=batch_id), partial(int, lag))


@pytest.mark.integration
def test_each_batch_is_checked_at_once_and_what_an_earlier_stream_left_is_caught_up(
    pipeline: Pipeline, checks_of: Callable[..., BatchChecks], capsys: pytest.CaptureFixture[str]
) -> None:
    for batch_id in (1, 2, 3):
        land_ticks(pipeline, batch_id)
    checks = checks_of()
    checks.begin()
    land_all(pipeline, checks, {4: 99, 5: 0})
    checks.close()

    assert sorted(lines_of(capsys.readouterr().out)) == [
        *((batch_id, "caught up") for batch_id in (1, 2, 3)),
        (4, "checked"),
        (5, "checked"),
    ]
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("passed",)]


@pytest.mark.integration
def test_while_a_backlog_lands_checks_wait_and_follow_once_it_has(
    pipeline: Pipeline, checks_of: Callable[..., BatchChecks], capsys: pytest.CaptureFixture[str]
) -> None:
    land_ticks(pipeline, 1)
    checks = checks_of()
    checks.begin(messages_behind=400)
    lags = {2: 300, 3: 200, 4: 100, 5: 99}
    land_all(pipeline, checks, lags)
    checks.close()

    assert lines_of(capsys.readouterr().out) == [
        *((batch_id, "waits") for batch_id in (2, 3, 4, 5)),
        *((batch_id, "caught up") for batch_id in (2, 3, 4, 5, 1)),
    ]
    assert pipeline.rows(
        "SELECT batch_id, messages_behind, verdict, check_seconds > 0 FROM landed_batches"
        " WHERE batch_id > 1 ORDER BY batch_id"
    ) == [(batch_id, lag, "passed", 1) for batch_id, lag in lags.items()]


@pytest.mark.integration
def test_only_so_many_batches_wait(
    monkeypatch: pytest.MonkeyPatch,
    pipeline: Pipeline,
    checks_of: Callable[..., BatchChecks],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(check_landed, "MOST_WAITING", 2)
    checks = checks_of()
    checks.begin(messages_behind=1_000)
    land_all(pipeline, checks, dict.fromkeys((1, 2, 3, 4), 1_000))
    checks.close()

    assert lines_of(capsys.readouterr().out) == [
        *((1, "waits"), (2, "waits")),
        *((1, "caught up"), (3, "waits")),
        *((2, "caught up"), (4, "waits")),
        *((3, "caught up"), (4, "caught up")),
    ]


@pytest.mark.integration
def test_checks_never_wait_where_a_failed_batch_stops_the_stream(
    pipeline: Pipeline, checks_of: Callable[..., BatchChecks], capsys: pytest.CaptureFixture[str]
) -> None:
    stopped: list[Exception] = []
    checks = checks_of(stopped, checks_stop_on_failed=True)
    checks.begin(messages_behind=1_000)
    land_all(pipeline, checks, dict.fromkeys((1, 2, 3), 1_000))
    checks.close()

    assert lines_of(capsys.readouterr().out) == [(batch_id, "checked") for batch_id in (1, 2, 3)]
    assert stopped == []


@pytest.mark.integration
@pytest.mark.parametrize("stops", [True, False])
def test_a_failed_batch_stops_the_stream_also_where_it_is_caught_up(
    pipeline: Pipeline, checks_of: Callable[..., BatchChecks], stops: bool
) -> None:
    land_ticks(pipeline)
    pipeline.execute("UPDATE landed_batches SET volume = volume + 1")
    stopped: list[Exception] = []
    checks = checks_of(stopped, checks_stop_on_failed=stops)
    checks.begin()
    checks.close()

    assert verdict_of(pipeline, 1) == "failed"
    assert [str(error).partition(";")[0] for error in stopped] == (
        ["batch 1 failed its checks (CHECKS_STOP_ON_FAILED is true)"] if stops else []
    )


@pytest.mark.integration
def test_what_a_stopped_stream_has_no_time_to_check_stays_for_the_next_start(
    pipeline: Pipeline, checks_of: Callable[..., BatchChecks], capsys: pytest.CaptureFixture[str]
) -> None:
    checks = checks_of()
    checks.begin(messages_behind=1_000)
    land_all(pipeline, checks, dict.fromkeys((1, 2, 3), 1_000))
    checks.close(seconds=0)

    said = capsys.readouterr().out
    assert lines_of(said) == [(batch_id, "waits") for batch_id in (1, 2, 3)]
    assert said.endswith("left unchecked until the next start: 3 batches\n")
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("unchecked",)]

    checks = checks_of()
    checks.begin()
    checks.close()
    assert lines_of(capsys.readouterr().out) == [(batch_id, "caught up") for batch_id in (1, 2, 3)]
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("passed",)]


BROKEN_SUITES: dict[str, tuple[dict[str, Any] | None, str]] = {
    "a file that cannot be read": (None, "cannot be read"),
    "a suite that names a missing column": ({"kwargs": {"column": "no_such_column"}}, "no_such_column"),
    "Great Expectations failing inside itself": (
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "messages", "regex": "("}},
        "cannot run",
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("case", BROKEN_SUITES)
def test_broken_checks_leave_batches_landed_and_unchecked_and_are_told_once(
    pipeline: Pipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, reason = BROKEN_SUITES[case]
    for batch_id in (1, 2):
        land_ticks(pipeline, batch_id)
    write_project(tmp_path)
    suite = tmp_path / "expectations" / "books.json"
    document = json.loads(suite.read_text())
    document["expectations"][0] |= {"type": "expect_column_values_to_not_be_null"} | (change or {})
    suite.write_text(json.dumps(document) if change else "{")

    checks = BatchChecks(pipeline.settings, RetryPolicy(5, threading.Event()), lambda _: None, project=tmp_path)
    checks.begin()
    checks.close()

    assert [verdict_of(pipeline, batch_id) for batch_id in (1, 2)] == ["unchecked", "unchecked"]
    said = capsys.readouterr().out.splitlines()
    (told,) = [line for line in said if "stay" in line]
    assert reason in told


@pytest.mark.integration
def test_store_that_does_not_answer_is_said_to_be_unavailable(pipeline: Pipeline) -> None:
    land_ticks(pipeline)
    with pytest.raises(StoreUnavailable, match="Cassandra"):
        Checker(pipeline.settings.model_copy(update={"cassandra_port": 1}))
    checker = Checker(pipeline.settings.model_copy(update={"mysql_port": 1}))
    with pytest.raises(StoreUnavailable, match="MySQL"):
        checker.check(1)
    checker.close()
    assert verdict_of(pipeline, 1) == "unchecked"
