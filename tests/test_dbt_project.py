"""The dbt project on a real server: what its contracts enforce, and that no dbt command touches a streamed row."""

import csv
import io
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import mysql.connector
import pytest

from tests.support.exchanges import JAKARTA, NEW_YORK, NEW_YORK_FACTS, SEEDED
from tests.support.hostile import HOSTILE
from tests.support.pipeline import Database
from tickledger.contract import SEEDS
from tickledger.contract_drift import mysql_differences
from tickledger.errors import ConfigurationError
from tickledger.exchange import Exchange, rows_of
from tickledger.settings import PROJECT_ROOT, Settings
from tickledger.stores import connect_mysql, fetch_rows

pytestmark = pytest.mark.integration

DBT_PROJECT = PROJECT_ROOT / "dbt_project"
STREAMED_TABLES = (
    "aggregated_data",
    "daily_volume",
    "filled_days",
    "company_hours",
    "landed_batches",
    "landed_offsets",
    "waiting_revisions",
    "skipped_offsets",
    "batch_findings",
    "profile_versions",
    "stream_lock",
)
VIEWS = tuple(path.stem for path in (DBT_PROJECT / "models" / "marts").glob("*.sql"))


class Client:
    """One connection with autocommit; a row goes in and comes out as a dict."""

    def __init__(self, settings: Settings) -> None:
        self._connection: Any = connect_mysql(settings, settings.dbt_mysql)
        self._connection.autocommit = True

    def query(self, sql: str) -> list[dict[str, Any]]:
        with self._connection.cursor(dictionary=True) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.with_rows else []

    def insert(self, table: str, **row: object) -> None:
        with self._connection.cursor() as cursor:
            names, places = ", ".join(row), ", ".join(["%s"] * len(row))
            cursor.execute(f"INSERT INTO {table} ({names}) VALUES ({places})", list(row.values()))

    def rows(self, table: str) -> list[dict[str, Any]]:
        return sorted(self.query(f"SELECT * FROM {table}"), key=repr)

    def definition(self, table: str) -> str:
        return str(self.query(f"SHOW CREATE TABLE {table}")[0]["Create Table"])

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def client(database: Database, dbt_template: list[str]) -> Iterator[Client]:
    """The seeded and built database, still without a streamed row."""
    client = Client(database.settings)
    for statement in dbt_template:
        client.query(statement)
    yield client
    client.close()


def succeed(database: Database, *args: str) -> str:
    result = database.dbt(*args)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def edited_project(folder: Path, edits: dict[str, Callable[[str], str]]) -> Path:
    """A copy of the dbt project with some files passed through a function that must change them."""
    project = folder / "dbt_project"
    ignored = shutil.ignore_patterns("target", "logs", "profiles.yml", ".user.yml")
    shutil.copytree(DBT_PROJECT, project, ignore=ignored)
    for name, edit in edits.items():
        before = (project / name).read_text()
        assert edit(before) != before
        (project / name).write_text(edit(before))
    return project


def within(project: Path) -> tuple[str, ...]:
    """The dbt options for a copy of the project, whose parse state must not mix with the project's own."""
    return "--project-dir", str(project), "--target-path", str(project / "target")


def with_column(lines: str) -> Callable[[str], str]:
    """An edit of a model's YAML that adds a column at the end."""
    return lambda text: text.rstrip("\n") + "\n" + lines


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


BATCH: dict[str, object] = {
    "batch_id": 1,
    "topic": "trading_data",
    "topic_id": "4T0kLdRBTdGzG2dWk6Ibuw",
    "messages": 2,
    "ticks_read": 5,
    "ticks_landed": 3,
    "dead_letters": 1,
    "duplicates": 1,
    "late_ticks": 0,
    "volume": 600,
    "first_created_at": "2024-08-25 07:04:45.123",
    "last_created_at": "2024-08-25 07:04:46.000",
    "landed_at": "2024-08-25 07:04:47.000",
    "landing_seconds": "0.512",
    "contract_hash": "f" * 64,
    "profile_version": "e" * 64,
    "verdict": "warned",
    "checked_at": "2024-08-25 07:04:48.000",
}
AGGREGATE: dict[str, object] = {
    "processing_id": 1,
    "processed_at": "2024-08-25 07:04:47.000",
    "sector": "Coal",
    "total_volume": 600,
    "date": "2024-08-25",
    "batch_id": 1,
    "ticks": 3,
    "first_created_at": "2024-08-25 07:04:45.123",
    "last_created_at": "2024-08-25 07:04:46.000",
}
OFFSETS: dict[str, object] = {"batch_id": 1, "kafka_partition": 0, "from_offset": 7, "until_offset": 9}
LOCK: dict[str, object] = {"part": "lock", "holder": "", "since": "2026-03-02 03:04:05.678"}
FINDING: dict[str, object] = {
    "batch_id": 1,
    "expectation": "market_cap_is_price_times_shares",
    "severity": "warning",
    "observed": "1 of 3",
    "expected": "0",
}
DAY: dict[str, object] = {
    "date": "2024-08-24",
    "sector": "Coal",
    "total_volume": 600,
    "ticks": 3,
    "batches": 1,
    "first_batch_id": 1,
    "last_batch_id": 1,
    "first_created_at": "2024-08-24 07:04:45.123",
    "last_created_at": "2024-08-24 07:04:46.000",
    "rolled_up_at": "2024-09-24 00:00:00.000",
}
FILLED: dict[str, object] = {"date": "2024-08-24", "filled_to_batch": 1, "filled_until": "2024-08-24 08:00:00.000"}
HOUR: dict[str, object] = {
    "date": "2024-08-24",
    "ticker": "DWGL.JK",
    "starts_at": "2024-08-24 07:00:00.000",
    "hour": 14,
    "ticks": 3,
    "volume": 600,
    "turnover": "6300.000001",
    "open": "10.5",
    "high": 11,
    "low": 10,
    "close": 10,
}
SKIP: dict[str, object] = {
    "kafka_partition": 0,
    "from_offset": 3,
    "until_offset": 5,
    "topic_offset": 5,
    "kind": "given_up",
    "reason": "retention",
    "topic": "trading_data",
    "topic_id": "Jw6R4TvlRdGCnPNGmMeWlw",
    "batch_id": 0,
    "skipped_at": "2024-08-25 07:04:40.000",
}
VERSION: dict[str, object] = {"profile_version": "e" * 64, "ticker": "DWGL.JK", "sector": "Coal", "shares": 1}
LANDED: dict[str, dict[str, object]] = {
    "landed_batches": BATCH,
    "aggregated_data": AGGREGATE,
    "landed_offsets": OFFSETS,
    "batch_findings": FINDING,
}
DEAD_BATCH = BATCH | {
    "batch_id": 2,
    "ticks_read": 1,
    "ticks_landed": 0,
    "duplicates": 0,
    "volume": 0,
    "first_created_at": None,
    "last_created_at": None,
    "verdict": "unchecked",
    "checked_at": None,
}


def land(client: Client) -> None:
    """Two healthy batches, one with ticks and one of a single dead letter; and one before them, rolled up."""
    for table, row in LANDED.items():
        client.insert(table, **row | {"batch_id": 2})
    client.insert("landed_batches", **DEAD_BATCH | {"batch_id": 3})
    client.insert("landed_offsets", **OFFSETS | {"batch_id": 3, "from_offset": 9, "until_offset": 10})
    client.insert("landed_batches", **BATCH | {"verdict": "passed", "rolled_up_at": DAY["rolled_up_at"]})
    client.insert("landed_offsets", **OFFSETS | {"from_offset": 5, "until_offset": 7})
    client.insert("daily_volume", **DAY)
    client.insert("filled_days", **FILLED)
    client.insert("company_hours", **HOUR)
    client.insert("skipped_offsets", **SKIP)
    client.insert("profile_versions", **VERSION)


def test_one_command_seeds_makes_and_tests_everything(database: Database) -> None:
    output = succeed(database, "--warn-error", "build")
    found = {what: int(count) for count, what in re.findall(r"(\d+) (data tests|unit tests|exposures)", output)}
    tests = found["data tests"] + found["unit tests"]
    assert (found["data tests"] > 100, found["unit tests"] > 5) == (True, True)
    built, unbuilt = len(SEEDS) + len(STREAMED_TABLES) + len(VIEWS) + tests, found["exposures"]
    # The exposures are what there is nothing to do for.
    assert f"PASS={built} WARN=0 ERROR=0 SKIP=0 NO-OP={unbuilt} REUSED=0 TOTAL={built + unbuilt}" in output
    with closing(Client(database.settings)) as client:
        assert client.query("SELECT COUNT(*) AS companies, COUNT(DISTINCT sector) AS sectors FROM profile") == [
            {"companies": 10, "sectors": 9}
        ]
        land(client)
    output = succeed(database, "--warn-error", "test")
    assert f"PASS={tests} WARN=0 ERROR=0 SKIP=0 NO-OP=0 REUSED=0 TOTAL={tests}" in output


@pytest.mark.usefixtures("client")
def test_the_unit_tests_find_a_view_that_counts_otherwise(database: Database, tmp_path: Path) -> None:
    marts = "models/marts"
    wrong = edited_project(
        tmp_path,
        {
            f"{marts}/volume_today.sql": replaced("date =", "date <="),
            f"{marts}/volume_today_by_verdict.sql": replaced("date =", "date <="),
            f"{marts}/volume_today_against_average.sql": replaced("spans.days, 0", "spans.days + 1, 0"),
            f"{marts}/volume_by_day.sql": replaced("sum(ticks) as ticks\nfrom (", "max(ticks) as ticks\nfrom ("),
            f"{marts}/batch_health.sql": replaced("batches.duplicates /", "batches.dead_letters /"),
            f"{marts}/volume_by_hour.sql": replaced("count(*)", "count(distinct hour)"),
            f"{marts}/volume_by_company.sql": replaced("days.last_at", "days.first_at"),
            f"{marts}/corrections_by_day.sql": replaced("count(distinct batch_id)", "count(*)"),
            f"{marts}/volume_by_day_as_seen.sql": replaced("total_volume - coalesce(", "total_volume + coalesce("),
        },
    )

    done = database.dbt("test", "--select", "test_type:unit", *within(wrong))

    assert done.returncode == 1
    assert set(re.findall(r"FAIL 1 (\w+)::(\w+)", done.stdout)) == {
        ("batch_health", "a_batchs_shares_are_of_the_ticks_it_read"),
        ("corrections_by_day", "corrections_are_of_the_day_that_they_correct"),
        ("volume_by_company", "a_day_opens_with_its_first_hour_and_closes_so"),
        ("volume_by_day_as_seen", "a_day_is_told_as_seen_and_as_corrected"),
        ("volume_by_hour", "an_hour_adds_up_its_companies"),
        ("volume_by_day", "a_rolled_up_day_adds_up_with_later_batches"),
        ("volume_today", "volume_today_has_no_row_before_the_days_first_batch"),
        ("volume_today", "volume_today_is_of_the_trading_day_and_turns_with_it"),
        ("volume_today_against_average", "a_day_that_is_partly_rolled_up_counts_once"),
        ("volume_today_against_average", "a_sector_that_rested_counts_with_nothing"),
        ("volume_today_against_average", "the_first_day_has_no_average"),
        ("volume_today_by_verdict", "volume_today_is_split_by_the_verdict_of_its_batches"),
    }, done.stdout


def test_a_view_that_differs_from_its_contract_is_told_in_the_contracts_words(
    database: Database, client: Client, tmp_path: Path
) -> None:
    before = client.query("SHOW CREATE VIEW volume_by_day")
    wrong = edited_project(
        tmp_path,
        {
            "models/marts/volume_by_day.yml": lambda text: text.replace("decimal(64,0)", "decimal(30,0)").replace(
                "data_type: date", "data_type: bigint"
            ),
            "models/marts/volume_by_day.sql": replaced("as ticks\nfrom (", "as trades\nfrom ("),
        },
    )

    done = database.dbt("run", "--select", "volume_by_day", *within(wrong))

    assert done.returncode == 1
    for line in (
        "column date is date; the contract's bigint does not hold that",
        "column total_volume is decimal(64,0); the contract's decimal(30,0) does not hold that",
        "column ticks of the contract is not in the query",
        "column trades of the query is not in the contract",
    ):
        assert line in done.stdout
    assert client.query("SHOW CREATE VIEW volume_by_day") == before


def test_nothing_that_people_read_is_emptied(database: Database, client: Client) -> None:
    before = (client.query("SHOW CREATE VIEW volume_by_day"), client.rows("profile"))

    refused = [database.dbt(command, "--empty") for command in ("run", "seed")]

    assert [done.returncode for done in refused] == [1, 1]
    assert "--empty would leave" in refused[0].stdout
    assert (client.query("SHOW CREATE VIEW volume_by_day"), client.rows("profile")) == before


def test_dbt_tells_whether_the_stream_lands(database: Database, client: Client) -> None:
    def freshness() -> tuple[int, list[str]]:
        done = database.dbt("--warn-error", "source", "freshness")
        return done.returncode, re.findall(r"1 of 1 (\w+(?: STALE)?) freshness of kafka.trading_data", done.stdout)

    client.insert("landed_batches", **BATCH)
    assert freshness() == (1, ["START", "ERROR STALE"])
    landed_at = client.query("SELECT UTC_TIMESTAMP(3) - INTERVAL 119 MINUTE AS landed_at")[0]
    client.insert("landed_batches", **BATCH | {"batch_id": 2} | landed_at)
    assert freshness() == (0, ["START", "PASS"])


def test_the_tests_find_what_is_wrong_with_the_books(database: Database, client: Client) -> None:
    land(client)
    client.insert("landed_batches", **BATCH | {"batch_id": 5})
    client.insert("landed_offsets", **OFFSETS | {"batch_id": 9, "from_offset": 11, "until_offset": 12})
    client.query("UPDATE daily_volume SET last_batch_id = 8")
    client.query("UPDATE landed_batches SET rolled_up_at = NULL WHERE batch_id = 1")
    output = database.dbt("test").stdout
    assert set(re.findall(r"(?:FAIL \d+|ERROR) (\w+)", output)) == {
        "aggregates_add_up_to_their_batch",  # batches 1 and 5 have none
        "batch_ids_are_dense",  # 4 is missing
        "days_add_up_to_the_ledger",  # the ledger has batch 5, no day has its volume
        "every_batch_has_offsets",  # batch 5 has none
        "offsets_are_contiguous",  # offset 10 is in no batch
        "relationships_daily_volume_last_batch_id__batch_id__ref_landed_batches_",  # 8 is no batch
        "relationships_landed_offsets_batch_id__batch_id__ref_landed_batches_",  # 9 is no batch
        "rolled_up_days_add_up_to_their_batches",  # daily_volume has batch 1, the ledger says it was not rolled up
        "verdicts_follow_findings",  # batch 5 warned of nothing
    }


def test_the_server_refuses_rows_that_break_a_contract(client: Client) -> None:
    rows = LANDED | {"daily_volume": DAY, "filled_days": FILLED, "company_hours": HOUR}
    rows |= {"skipped_offsets": SKIP, "profile_versions": VERSION}
    for table, row in rows.items():
        client.insert(table, **row)
    nullable = {"first_created_at", "last_created_at", "profile_version", "checked_at"}
    bad: list[tuple[str, dict[str, object]]] = [
        (table, {column: None})
        for table, row in rows.items()
        for column in row
        if table != "landed_batches" or column not in nullable
    ]
    bad += [("landed_batches", {column: -1}) for column in ("batch_id", "messages", "late_ticks", "volume")]
    bad += [("company_hours", {column: -1}) for column in ("hour", "ticks", "volume", "turnover")]
    bad += [("landed_batches", {column: -1, "ticks_read": 3}) for column in ("dead_letters", "duplicates")]
    bad += [
        ("landed_batches", {"ticks_landed": -1, "ticks_read": 1}),
        ("landed_batches", {"ticks_landed": -3, "ticks_read": -1}),
        ("landed_batches", {"batch_id": 0}),
        ("landed_batches", {"messages": 0}),
        ("landed_batches", {"ticks_read": 6}),
        ("landed_batches", {"verdict": "Passed"}),
        ("landed_batches", {"batch_id": 1}),
        ("aggregated_data", {"processing_id": 1, "sector": "Beverages"}),
        ("aggregated_data", {}),
        ("landed_offsets", {"until_offset": 7}),
        ("landed_offsets", {"from_offset": -1}),
        ("landed_offsets", {"kafka_partition": -1}),
        ("landed_offsets", {"batch_id": 1}),
        ("batch_findings", {"severity": "severe"}),
        ("batch_findings", {"batch_id": 1}),
        ("daily_volume", {"batches": 0}),
        ("daily_volume", {"sector": "Coal"}),
        ("filled_days", {"date": FILLED["date"]}),
        ("company_hours", {"hour": 24}),
        ("company_hours", {"ticks": 0}),
        ("company_hours", {"ticker": "DWGL.JK"}),
        ("skipped_offsets", {"until_offset": 6, "topic_offset": 6}),
        ("skipped_offsets", {"topic_offset": 11}),
        ("skipped_offsets", {"topic_offset": -1}),
        ("skipped_offsets", {"kafka_partition": -1}),
        ("skipped_offsets", {"batch_id": -1}),
        ("skipped_offsets", {"kind": "forgotten"}),
        ("skipped_offsets", {"from_offset": 3}),
        ("profile_versions", {"ticker": "DWGL.JK"}),
    ]
    fresh_key: dict[str, dict[str, object]] = {
        "aggregated_data": {"processing_id": 2},
        "daily_volume": {"sector": "Beverages"},
        "filled_days": {"date": "2024-08-25"},
        "company_hours": {"ticker": "ALTO.JK"},
        "skipped_offsets": {"from_offset": 6, "until_offset": 10, "topic_offset": 10},
        "profile_versions": {"ticker": "TMAS.JK"},
    }
    accepted = []
    for table, change in bad:
        try:
            client.insert(table, **rows[table] | fresh_key.get(table, {"batch_id": 2}) | change)
        except mysql.connector.Error:
            continue
        accepted.append((table, change))
        client.query(f"DELETE FROM {table}")
    assert accepted == []
    # The same rows without their fault are taken.
    client.insert("aggregated_data", **AGGREGATE | {"processing_id": 2, "sector": "Beverages"})
    client.insert("daily_volume", **DAY | {"sector": "Beverages"})
    client.insert("filled_days", **FILLED | {"date": "2024-08-25"})
    client.insert("company_hours", **HOUR | {"ticker": "ALTO.JK"})
    for table in ("landed_batches", "landed_offsets", "batch_findings"):
        client.insert(table, **LANDED[table] | {"batch_id": 2})


def test_the_server_refuses_a_bad_profile(client: Client) -> None:
    good: dict[str, object] = {"ticker": "NEW.JK", "company_name": "PT New Tbk", "sector": "Coal", "shares": 1}
    bad: list[dict[str, object]] = [{"ticker": "TMAS.JK"}, {"shares": 0}]
    bad += [{column: None} for column in good]
    for change in bad:
        with pytest.raises(mysql.connector.Error):
            client.insert("profile", **good | change)
    client.insert("profile", **good)


def test_no_dbt_command_touches_a_streamed_row(database: Database, client: Client) -> None:
    land(client)
    before = {table: (client.rows(table), client.definition(table)) for table in STREAMED_TABLES}
    for command in (["run"], ["run", "--full-refresh"], ["build", "--full-refresh"]):
        succeed(database, *command)
        assert {table: (client.rows(table), client.definition(table)) for table in STREAMED_TABLES} == before, command


def test_volume_today_sums_the_current_trading_day(client: Client) -> None:
    today = client.query("SELECT UTC_DATE() AS today")[0]["today"]
    for processing_id, (date, sector) in enumerate([(today, "Coal"), (today, "Coal"), ("2024-08-25", "Coal")]):
        client.insert(
            "aggregated_data",
            **AGGREGATE | {"processing_id": processing_id, "batch_id": processing_id, "date": date, "sector": sector},
        )
    assert [(row["sector"], int(row["total_volume"])) for row in client.rows("volume_today")] == [("Coal", 1200)]


def aggregate(client: Client, number: int, days_ago: int, sector: str, volume: int, batch_id: int = 1) -> None:
    """Insert a row of aggregated_data, of three ticks on a day before today."""
    day = client.query(f"SELECT UTC_DATE() - INTERVAL {days_ago} DAY AS day")[0]["day"]
    changes: dict[str, object] = {"processing_id": number, "date": day, "sector": sector, "total_volume": volume}
    client.insert("aggregated_data", **AGGREGATE | changes | {"batch_id": batch_id})


def test_volume_by_day_sums_each_day_and_sector(client: Client) -> None:
    aggregate(client, 1, 0, "Coal", 600)
    aggregate(client, 2, 0, "Coal", 30, batch_id=2)
    aggregate(client, 3, 0, "Beverages", 5)
    aggregate(client, 4, 1, "Coal", 7)
    client.query(
        "INSERT INTO daily_volume SELECT UTC_DATE() - INTERVAL 1 DAY, 'Coal', 40, 2, 1, 1, 1, NOW(), NOW(), NOW(),"
        " NULL, NULL, NULL"
    )
    today = client.query("SELECT UTC_DATE() AS today")[0]["today"]
    found = {
        (row["date"] == today, row["sector"]): (row["total_volume"], row["ticks"])
        for row in client.rows("volume_by_day")
    }
    assert found == {(True, "Coal"): (630, 6), (True, "Beverages"): (5, 3), (False, "Coal"): (47, 5)}


@pytest.mark.parametrize("exchange", [JAKARTA, NEW_YORK], ids=lambda one: one.currency)
@pytest.mark.parametrize("view", ["volume_by_day", "volume_today_against_average", "volume_today"])
def test_a_sum_over_days_reads_an_index_and_no_row(client: Client, view: str, exchange: Exchange) -> None:
    facts = client.rows("exchange")[0]
    client.query("DELETE FROM exchange")
    for from_at, day_shift_seconds in rows_of(exchange):
        client.insert("exchange", **facts | {"from_at": from_at, "day_shift_seconds": day_shift_seconds})
    for days_ago in range(5):
        aggregate(client, days_ago, days_ago, "Coal", 600)
    for doubling in range(1, 10):
        client.query(
            f"INSERT INTO aggregated_data SELECT processing_id + {5 * 2 ** (doubling - 1)}, processed_at, sector,"
            f" total_volume, date, batch_id + {2 ** (doubling - 1)}, ticks, first_created_at, last_created_at,"
            " corrected_volume, corrected_ticks, changed_ticks FROM aggregated_data"
        )
    client.query("ANALYZE TABLE aggregated_data")
    if client.query("SHOW VARIABLES LIKE 'explain_format'"):
        client.query("SET explain_format = 'TRADITIONAL'")
    steps = client.query(f"EXPLAIN SELECT * FROM {view} WHERE sector = 'Coal' ORDER BY sector")
    reads = [step["Extra"] or "" for step in steps if step["table"] == "aggregated_data"]
    assert reads
    assert all("Using index" in extra and "condition" not in extra for extra in reads), steps


def test_volume_today_by_verdict_tells_what_failed_or_unchecked_batches_brought(client: Client) -> None:
    for number, verdict in enumerate(("passed", "passed", "failed", "unchecked"), start=1):
        client.insert("landed_batches", **BATCH | {"batch_id": number, "verdict": verdict})
        aggregate(client, number, 0, "Coal", 10**number, batch_id=number)
    aggregate(client, 9, 1, "Coal", 5, batch_id=3)
    found = {
        (row["sector"], row["verdict"]): (row["total_volume"], row["ticks"])
        for row in client.rows("volume_today_by_verdict")
    }
    assert found == {("Coal", "passed"): (110, 6), ("Coal", "failed"): (1000, 3), ("Coal", "unchecked"): (10000, 3)}


def test_volume_today_stands_beside_the_average_of_the_last_trading_days(client: Client) -> None:
    def averages() -> dict[str, tuple[Any, ...]]:
        rows = client.rows("volume_today_against_average")
        return {row["sector"]: (row["total_volume"], row["average_volume"], row["days"]) for row in rows}

    aggregate(client, 1, 0, "Coal", 600)
    assert averages() == {"Coal": (600, None, 0)}
    # Machinery rested on one of the two days, Beverages rest today; days without any tick are not trading days.
    aggregate(client, 2, 1, "Coal", 100)
    aggregate(client, 3, 9, "Coal", 200)
    aggregate(client, 4, 9, "Machinery", 9)
    aggregate(client, 5, 9, "Beverages", 1)
    assert averages() == {
        "Coal": (600, 150, 2),
        "Machinery": (0, Decimal("4.5"), 2),
        "Beverages": (0, Decimal("0.5"), 2),
    }
    for number in range(10, 30):
        aggregate(client, number, number, "Coal", 0)
    # Of 22 trading days before today the newest 20 count.
    assert averages()["Coal"] == (600, 15, 20)
    # A day that was rolled up counts as it did, even if a late tick came after.
    client.query("DELETE FROM aggregated_data WHERE processing_id IN (2, 3)")
    for days_ago, volume in ((1, 100), (9, 80)):
        day = client.query(f"SELECT UTC_DATE() - INTERVAL {days_ago} DAY AS day")[0]["day"]
        client.insert("daily_volume", **DAY | {"date": day, "total_volume": volume})
    aggregate(client, 3, 9, "Coal", 120)
    assert averages()["Coal"] == (600, 15, 20)


def test_batch_health_gives_shares_of_what_was_read(client: Client) -> None:
    land(client)
    client.insert("landed_batches", **DEAD_BATCH | {"batch_id": 4, "ticks_read": 0, "dead_letters": 0})
    health = {row["batch_id"]: row for row in client.rows("batch_health")}
    shares = ("dead_letter_share", "duplicate_share", "late_share", "findings")
    assert [health[2][name] for name in shares] == [Decimal("0.2"), Decimal("0.2"), 0, 1]
    assert [health[3][name] for name in shares] == [1, 0, 0, 0]
    assert [health[4][name] for name in shares] == [None, None, None, 0]
    nothing_corrected = dict.fromkeys(("corrections", "corrected_ticks", "corrected_volume"), 0)
    for row in (row | nothing_corrected for row in client.rows("landed_batches")):
        assert {name: health[row["batch_id"]][name] for name in row if name in health[1]} == {
            name: value for name, value in row.items() if name in health[1]
        }


@pytest.mark.usefixtures("client")
def test_dbts_docs_describe_every_column_of_every_table_and_view(database: Database) -> None:
    succeed(database, "docs", "generate")
    target = database.profiles / "target"
    nodes = json.loads((target / "manifest.json").read_text())["nodes"]
    catalog = json.loads((target / "catalog.json").read_text())["nodes"]
    assert {node.split(".")[-1] for node in catalog} == {*STREAMED_TABLES, *VIEWS, *SEEDS}
    for node, found in catalog.items():
        described = {name for name, column in nodes[node]["columns"].items() if column["description"]}
        assert described == set(found["columns"]), node
        assert nodes[node]["description"]


NULLABLE_COLUMN = """\
      - name: spark_version
        description: Version of Spark that landed the batch.
        data_type: varchar(16)
        constraints:
          - {type: check, expression: spark_version <> '', warn_unsupported: false}
"""


def test_an_added_nullable_column_reaches_the_live_table(database: Database, client: Client, tmp_path: Path) -> None:
    land(client)
    before = client.rows("landed_batches")
    wider = edited_project(tmp_path, {"models/landed/landed_batches.yml": with_column(NULLABLE_COLUMN)})
    for _ in range(2):  # the second run finds nothing to do
        succeed(database, "run", *within(wider))
    assert client.rows("landed_batches") == [row | {"spark_version": None} for row in before]
    with pytest.raises(mysql.connector.Error):
        client.insert("landed_batches", **DEAD_BATCH | {"batch_id": 4, "spark_version": ""})
    # The narrower contract does not take the column away again.
    refusal = database.dbt("run", "--full-refresh")
    assert refusal.returncode == 1
    assert "column spark_version is not in the contract any more" in refusal.stdout
    assert "spark_version" in client.rows("landed_batches")[0]


def test_a_change_that_landed_rows_cannot_follow_is_refused(database: Database, client: Client, tmp_path: Path) -> None:
    land(client)
    before = {table: (client.rows(table), client.definition(table)) for table in STREAMED_TABLES}
    required = NULLABLE_COLUMN.replace(
        "- {type: check", "- {type: not_null, warn_unsupported: false}\n          - {type: check"
    )
    changed = edited_project(
        tmp_path,
        {
            "models/landed/aggregated_data.yml": replaced("decimal(20,0)", "decimal(30,0)"),
            "models/landed/landed_batches.yml": with_column(required),
            "models/landed/landed_offsets.yml": replaced("until_offset > from_offset", "until_offset >= from_offset"),
            "models/landed/profile_versions.yml": lambda text: text[: text.index("      - name: shares")],
        },
    )
    for command in (["run"], ["run", "--full-refresh"]):
        refusal = database.dbt(*command, *within(changed))
        assert refusal.returncode == 1
        for reason in (
            "column total_volume is decimal(20,0) NOT NULL",
            "new column spark_version is NOT NULL",
            "the table lacks CHECK",
            "column shares is not in the contract any more",
            "stop the stream, and back the table up",
            "modify column `total_volume` decimal(30,0) NOT NULL",
            "drop column `shares`",
        ):
            assert reason in refusal.stdout
    assert {table: (client.rows(table), client.definition(table)) for table in STREAMED_TABLES} == before


#: A check that the contracts had before there were corrections, and what it stands beside.
FORMER_CHECK = (
    "        constraints: *not_null\n        data_tests: [not_null]\n      - name: {next}\n",
    "        constraints:\n          - {{type: not_null, warn_unsupported: false}}\n"
    "          - {{type: check, expression: {check}, warn_unsupported: false}}\n"
    "        data_tests: [not_null]\n      - name: {next}\n",
)


def _before_corrections(text: str, checks: dict[str, str]) -> str:
    """A model's YAML as it was: without the columns of corrections, with checks on the columns before those named."""
    text = text[: text.index("      - name: corrected_volume\n")]
    for before, check in checks.items():
        now, then = (part.format(next=before, check=check) for part in FORMER_CHECK)
        assert text.count(now) == 1
        text = text.replace(now, then)
    return text


def test_tables_from_before_corrections_take_them(database: Database, tmp_path: Path) -> None:
    older = edited_project(
        tmp_path,
        {
            "models/landed/aggregated_data.yml": lambda text: _before_corrections(
                text, {"date": "total_volume >= 0", "first_created_at": "ticks > 0"}
            ),
            "models/landed/daily_volume.yml": lambda text: _before_corrections(
                text, {"ticks": "total_volume >= 0", "batches": "ticks > 0"}
            ),
            "models/landed/landed_batches.yml": lambda text: text[: text.index("      - name: corrections\n")].replace(
                " + coalesce(corrections, 0)", ""
            ),
        },
    )
    succeed(database, "seed", *within(older))
    succeed(database, "run", "--select", "landed", *within(older))
    with closing(Client(database.settings)) as client:
        land(client)
        tables = ("aggregated_data", "daily_volume", "landed_batches")
        before = {table: client.rows(table) for table in tables}
        for refused in ({"total_volume": -1}, {"ticks": 0}):
            with pytest.raises(mysql.connector.Error):
                client.insert("aggregated_data", **AGGREGATE | refused)

        assert "ALTERED" in succeed(database, "run")

        new = dict.fromkeys(tables, ("corrected_ticks", "corrected_volume", "changed_ticks"))
        new["landed_batches"] = "corrected_ticks", "corrected_volume", "corrections"
        after = {table: client.rows(table) for table in tables}
        assert after == {table: [row | dict.fromkeys(new[table]) for row in rows] for table, rows in before.items()}
        assert list(mysql_differences(database.settings)) == []
        assert "ALTERED" not in succeed(database, "run", "--select", "landed")
        corrected = {"ticks": -1, "total_volume": -100, "corrected_ticks": -1, "corrected_volume": -100}
        client.insert("aggregated_data", **AGGREGATE | corrected | {"processing_id": 2, "batch_id": 3})
        client.insert("landed_batches", **DEAD_BATCH | {"batch_id": 4, "ticks_read": 2, "corrections": 1})
        with pytest.raises(mysql.connector.Error):
            client.insert("landed_batches", **DEAD_BATCH | {"batch_id": 5, "ticks_read": 2, "corrections": 2})


def test_an_alter_gives_up_while_a_transaction_holds_the_table(
    database: Database, client: Client, tmp_path: Path
) -> None:
    wider = edited_project(tmp_path, {"models/landed/landed_batches.yml": with_column(NULLABLE_COLUMN)})
    command = ["run", "--select", "landed_batches", *within(wider), "--vars", "lock_wait_seconds: 1"]
    client.query("START TRANSACTION")
    client.query("SELECT * FROM landed_batches")
    refusal = database.dbt(*command)
    assert refusal.returncode == 1
    assert "Lock wait timeout exceeded" in refusal.stdout
    client.query("COMMIT")
    succeed(database, *command)


@contextmanager
def polled(settings: Settings, sql: str) -> Iterator[list[list[dict[str, Any]] | str]]:
    """Run a query over and over in a thread; the list fills with its results and errors."""
    seen: list[list[dict[str, Any]] | str] = []
    stop = threading.Event()

    def poll() -> None:
        reader = Client(settings)
        while not stop.is_set():
            try:
                seen.append(reader.query(sql))
            except mysql.connector.Error as error:
                seen.append(str(error))
        reader.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def test_a_reader_never_sees_an_empty_or_missing_profile(database: Database, client: Client, tmp_path: Path) -> None:
    count = "SELECT COUNT(*) AS companies, COUNT(DISTINCT sector) AS sectors FROM profile"
    without_coal = edited_project(tmp_path, {"seeds/profile.csv": replaced(",Coal,", ",Beverages,")})
    with polled(database.settings, count) as seen:
        succeed(database, "seed", *within(without_coal))
        succeed(database, "seed")
        succeed(database, "seed", "--full-refresh", *within(without_coal))
    assert len(seen) > 100
    assert {repr(rows) for rows in seen} == {repr([{"companies": 10, "sectors": sectors}]) for sectors in (8, 9)}
    tables = client.query("SELECT table_name AS name FROM information_schema.tables WHERE table_schema = DATABASE()")
    assert {row["name"] for row in tables} == {*STREAMED_TABLES, *VIEWS, *SEEDS}


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        ("ticker,company_name,sector,shares\n", "holds no row"),
        (
            f"ticker,company_name,sector,shares\nA.JK,{'x' * 131_073},Coal,1\n",
            "longer than the maximum length of 131072",
        ),
    ],
    ids=["no row", "a value too long to read"],
)
def test_a_seed_that_holds_nothing_or_cannot_be_read_is_refused_and_the_profile_stays(
    database: Database, client: Client, tmp_path: Path, seed: str, says: str
) -> None:
    before = client.rows("profile")
    refusal = database.dbt(
        "seed", "--full-refresh", *within(edited_project(tmp_path, {"seeds/profile.csv": lambda _: seed}))
    )
    assert refusal.returncode == 1
    assert says in refusal.stdout
    assert "Traceback" not in refusal.stdout + refusal.stderr
    assert client.rows("profile") == before


#: Ticker, sector and shares of a row, and what is said of it; row 1 is TMAS.JK of the sector Coal.
UNCLEAR_ROWS = (
    ("A.JK", "Coal ", "1", 'sector is "Coal "; it should begin and end with no space'),
    (" B.JK", "Coal", "1", 'ticker is " B.JK"; it should begin and end with no space'),
    ("C.JK", "Co\u200bal", "1", r'sector is "Co\u200bal"; it should hold no character that cannot be seen'),
    ("D.JK", "Co\u00a0al", "1", r'sector is "Co\u00a0al"; it should hold no character that cannot be seen'),
    ("E\x07.JK", "Coal", "1", r'ticker is "E\u0007.JK"; it should hold no character that cannot be seen'),
    ("L\u3164.JK", "Coal", "1", r'ticker is "L\u3164.JK"; it should hold no character that cannot be seen'),
    ("M.JK", "Co\ufe0fal", "1", r'sector is "Co\ufe0fal"; it should hold no character that cannot be seen'),
    ("F.JK", "Coal", "10.7", 'shares is "10.7"; it should be a whole number above 0'),
    ("G.JK", "Coal", "1e9", 'shares is "1e9"; it should be a whole number'),
    ("H.JK", "Coal", "0", 'shares is "0"; it should be a whole number above 0'),
    (
        "I.JK",
        "Coal",
        "9" * 19,
        'shares is "9999999999999999999"; it should be a whole number above 0, of at most 18 digits',
    ),
    ("J.JK", "", "1", "sector is empty"),
    ("K.JK", "C" * 65, "1", "sector has 65 characters; it should be of type varchar(64)"),
    ("TMAS.JK", "Coal", "1", 'ticker "TMAS.JK" stands in row 1 too'),
)
LOOK_ALIKES = (
    ("tmas.JK", "Coal", "1", 'ticker "tmas.JK" is all but "TMAS.JK" of row 1'),
    ("B.JK", "coal", "1", 'sector "coal" is all but "Coal" of row 1'),
    ("C.JK", "Co\u00e1l", "1", r'sector "Co\u00e1l" is all but "Coal" of row 1'),
    ("D.JK", "\uff23oal", "1", r'sector "\uff23oal" is all but "Coal" of row 1'),
)


@pytest.mark.parametrize("bad", [UNCLEAR_ROWS, LOOK_ALIKES], ids=["unclear rows", "look-alikes"])
def test_a_seed_whose_rows_cannot_be_told_apart_is_refused_with_their_names(
    database: Database, client: Client, tmp_path: Path, bad: tuple[tuple[str, str, str, str], ...]
) -> None:
    before, tables = client.rows("profile"), client.query("SHOW TABLES")
    good = ["TMAS.JK,PT A,Coal,1"]
    rows = good + [f'"{ticker}",PT A,"{sector}",{shares}' for ticker, sector, shares, _ in bad]

    refusal = database.dbt("seed", *within(seed_of(tmp_path, rows)))

    assert refusal.returncode == 1
    said = [line.strip() for line in refusal.stdout.splitlines() if line.strip().startswith("- row ")]
    for number, ((*_, expected), line) in enumerate(zip(bad, sorted(said, key=_row_of), strict=True), start=2):
        assert line.startswith(f"- row {number}: {expected}")
    assert (client.rows("profile"), client.query("SHOW TABLES")) == (before, tables)


def test_no_company_is_named_by_what_cannot_be_seen(database: Database, client: Client, tmp_path: Path) -> None:
    before = client.rows("profile")
    refusal = database.dbt("seed", *within(seed_of(tmp_path, ["A.JK,PT\u202eA,Coal,1"])))
    assert refusal.returncode == 1
    assert r'row 1: company_name is "PT\u202eA"; it should hold no character that cannot be seen' in refusal.stdout
    assert client.rows("profile") == before


def test_the_columns_of_a_seed_are_told_as_plain_text(database: Database, tmp_path: Path) -> None:
    seed, names = io.StringIO(), [*HOSTILE.values(), "ticker", "company_name", "sector", "shares"]
    csv.writer(seed).writerows([names, ["1"] * len(names)])
    hostile = edited_project(tmp_path, {"seeds/profile.csv": lambda _: seed.getvalue()})
    refusal = database.dbt("--no-use-colors", "seed", *within(hostile))
    assert refusal.returncode == 1
    assert "has the columns" in refusal.stdout
    assert [line for line in refusal.stdout.split("\n") if not line.isprintable()] == []


def _row_of(line: str) -> int:
    return int(line.removeprefix("- row ").partition(":")[0])


def seed_of(folder: Path, rows: list[str]) -> Path:
    """A copy of the project whose seed has these rows."""
    text = "\n".join(["ticker,company_name,sector,shares", *rows]) + "\n"
    return edited_project(folder, {"seeds/profile.csv": lambda _: text})


def test_a_seed_with_names_of_any_script_and_numbers_for_tickers_is_taken_as_it_is(
    database: Database, client: Client, tmp_path: Path
) -> None:
    rows = ["0700,\u817e\u8baf,\u79d1\u6280,1", "700,Caf\u00e9 SA,Caf\u00e9s & more,2", "TRUE,True Car,Coal,3"]
    succeed(database, "seed", *within(seed_of(tmp_path, rows)))
    assert [",".join(map(str, row.values())) for row in client.query("SELECT * FROM profile ORDER BY shares")] == rows


def exchange_seed(folder: Path, **changes: str) -> Path:
    """A copy of the project whose exchange differs from the seed's."""
    facts, text = SEEDED | changes, io.StringIO()
    csv.writer(text).writerows([facts.keys(), facts.values()])
    return edited_project(folder, {"seeds/exchange.csv": lambda _: text.getvalue()})


def test_an_exchange_that_does_not_hold_is_refused_a_line_each_and_nothing_changes(
    database: Database, client: Client, tmp_path: Path
) -> None:
    before, tables = client.rows("exchange"), client.query("SHOW TABLES")
    bad = {"time_zone": "Asia/Jakata", "currency": "IDX", "sessions": "Mon-Fri 09:00-12:00; Fri 11:00-16:00"}

    refusal = database.dbt("--no-use-colors", "seed", *within(exchange_seed(tmp_path, **bad)))

    assert refusal.returncode == 1
    assert [line.strip() for line in refusal.stdout.splitlines() if line.strip().startswith("- ")] == [
        "- time_zone is 'Asia/Jakata'; it should be a time zone of the tz database, such as Asia/Jakarta",
        "- sessions is 'Mon-Fri 09:00-12:00; Fri 11:00-16:00'; it should be sessions that do not overlap, as 'Mon-Fri"
        " 09:00-12:00' and 'Fri 11:00-16:00' do",
        "- currency is 'IDX'; it should be a currency's code by ISO 4217, such as IDR",
    ]
    assert "Traceback" not in refusal.stdout + refusal.stderr
    assert (client.rows("exchange"), client.query("SHOW TABLES")) == (before, tables)


def test_there_is_one_exchange(database: Database, client: Client, tmp_path: Path) -> None:
    two = edited_project(tmp_path, {"seeds/exchange.csv": lambda text: text + text.splitlines()[1] + "\n"})
    refusal = database.dbt("seed", *within(two))
    assert refusal.returncode == 1
    assert "holds 2 rows; it should hold one" in refusal.stdout
    assert len(client.rows("exchange")) == 1


@pytest.mark.parametrize("command", ["seed", "run"])
def test_nothing_is_made_beside_half_a_restore(database: Database, client: Client, command: str) -> None:
    client.query("CREATE TABLE restoring (part int PRIMARY KEY)")
    client.query("DROP TABLE landed_batches")

    refusal = database.dbt(command)

    assert refusal.returncode == 1
    assert "is not through: run 'tickledger services restore' with its backup again" in " ".join(refusal.stdout.split())
    assert not client.query("SHOW TABLES LIKE 'landed_batches'")


@pytest.mark.parametrize("trace", ["stream_lock", "landed_batches"])
def test_trading_days_that_a_stream_has_landed_by_cannot_be_changed(
    database: Database, client: Client, tmp_path: Path, trace: str
) -> None:
    before = client.rows("exchange")
    client.insert(trace, **(BATCH if trace == "landed_batches" else LOCK))

    refusal = database.dbt("seed", *within(exchange_seed(tmp_path / "days", trading_day_begins="00:00")))

    assert refusal.returncode == 1
    assert "time_zone is 'Asia/Jakarta' and trading_day_begins is '00:00'; they should leave" in refusal.stdout
    assert client.rows("exchange") == before
    refusal = database.dbt("seed", *within(exchange_seed(tmp_path / "currency", currency="USD")))
    assert "currency is 'USD'; it should be 'IDR', in which prices have landed" in refusal.stdout
    # What moves no tick to another day may change.
    succeed(database, "seed", *within(exchange_seed(tmp_path / "name", name="Another", sessions="Sat 10:00-11:00")))
    assert [row["name"] for row in client.rows("exchange")] == ["Another"]
    # A ledger that is older than the table counted by UTC dates.
    client.query("DROP TABLE exchange")
    assert database.dbt("seed", *within(exchange_seed(tmp_path / "again", time_zone="Asia/Tokyo"))).returncode == 1
    assert client.query("SHOW TABLES LIKE 'exchange'") == []
    succeed(database, "seed")
    assert client.rows("exchange") == before


#: UTC, and New York's date then: in an evening session over midnight UTC, and around its changes of the clock.
NEW_YORK_DAYS = (
    ("2026-03-07 00:59:59", "2026-03-06"),
    ("2026-03-07 04:59:59", "2026-03-06"),
    ("2026-03-08 05:00:00", "2026-03-08"),
    ("2026-03-09 03:59:59", "2026-03-08"),
    ("2026-03-09 04:00:00", "2026-03-09"),
    ("2026-11-02 04:59:59", "2026-11-01"),
    ("2026-11-02 05:00:00", "2026-11-02"),
)


def test_todays_views_are_of_the_exchanges_day_in_winter_and_in_summer(
    database: Database, client: Client, tmp_path: Path
) -> None:
    succeed(database, "seed", *within(exchange_seed(tmp_path, **NEW_YORK_FACTS)))
    client.insert("landed_batches", **BATCH)
    days = {day for _, day in NEW_YORK_DAYS}
    for number, day in enumerate(sorted(days), start=1):
        volume = int(day.replace("-", ""))
        client.insert("aggregated_data", **AGGREGATE | {"processing_id": number, "date": day, "total_volume": volume})
    for moment, day in NEW_YORK_DAYS:
        # The server's clock, for this connection.
        client.query(f"SET timestamp = TIMESTAMPDIFF(SECOND, '1970-01-01', '{moment}')")
        (today,) = client.rows("volume_today")
        (verdicts,) = client.rows("volume_today_by_verdict")
        (beside,) = client.rows("volume_today_against_average")
        assert {one["total_volume"] for one in (today, verdicts, beside)} == {int(day.replace("-", ""))}, moment
        assert beside["days"] == sum(one < day for one in days)


def test_a_reader_never_misses_the_view(database: Database, client: Client, tmp_path: Path) -> None:
    client.insert("aggregated_data", **AGGREGATE)
    all_days = edited_project(tmp_path, {"models/marts/volume_today.sql": replaced("date = {{ today() }}", "1 = 1")})
    with polled(database.settings, "SELECT sector FROM volume_today") as seen:
        succeed(database, "run", *within(all_days))
        succeed(database, "run", "--full-refresh")
    assert len(seen) > 100
    assert {repr(rows) for rows in seen} == {repr([]), repr([{"sector": "Coal"}])}


def test_texts_compare_exactly_whatever_the_databases_default(database: Database) -> None:
    client = Client(database.settings)
    client.query(f"ALTER DATABASE {database.settings.mysql_database} CHARACTER SET latin1 COLLATE latin1_swedish_ci")
    succeed(database, "seed")
    succeed(database, "run")
    assert client.query("SELECT ticker FROM profile WHERE ticker = 'tmas.jk'") == []
    names = ["naïve – π", "Naïve – π"]
    for name in names:
        client.insert("batch_findings", **FINDING | {"expectation": name})
    assert sorted(row["expectation"] for row in client.rows("batch_findings")) == sorted(names)
    client.close()


def test_a_table_made_anew_a_view_and_a_swapped_profile_keep_their_grants(database: Database, tmp_path: Path) -> None:
    def read(account: str, table: str) -> None:
        with closing(connect_mysql(database.settings, getattr(database.settings, account))) as connection:
            fetch_rows(connection, f"SELECT * FROM {table}")

    with pytest.raises(ConfigurationError, match="'dbt seed' and 'dbt run' make its tables and grant them"):
        read("producer_mysql", "profile")
    # dbt makes these for the first time.
    succeed(database, "seed")
    succeed(database, "run")
    read("producer_mysql", "profile")
    read("dashboard_mysql", "volume_today")
    read("mysql", "batch_findings")

    with closing(database.connect()) as connection:
        for role in ("role_stream", "role_dashboard"):
            connection.cursor().execute(f"REVOKE SELECT ON batch_findings FROM {role}")
        for gone in ("DROP TABLE batch_findings", "DROP VIEW volume_today"):
            connection.cursor().execute(gone)
    with pytest.raises(mysql.connector.Error, match="denied"):
        read("mysql", "batch_findings")
    without_coal = edited_project(tmp_path, {"seeds/profile.csv": replaced(",Coal,", ",Beverages,")})
    succeed(database, "seed", *within(without_coal))
    succeed(database, "run", "--full-refresh")
    for account, table in (
        *(("producer_mysql", "profile"), ("mysql", "profile"), ("dashboard_mysql", "profile")),
        *(("mysql", "batch_findings"), ("dashboard_mysql", "volume_today"), ("dashboard_mysql", "batch_health")),
    ):
        read(account, table)
