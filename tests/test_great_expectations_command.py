"""The `great_expectations` command as a user types it: what it prints and how it exits."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from expectations.suites import raw_ticks
from tests.support.healthy_batch import land_ticks
from tests.support.pipeline import Pipeline


def great_expectations(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("great_expectations")), *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("checkpoint", "list"), "landed_batch  raw_ticks, aggregates, books, books_by_sector"),
        (("suite", "list"), "suite            critical  warning\n"),
        (("--version",), "great_expectations 1."),
        (("--help",), "checkpoint"),
        (("checkpoint", "run", "--help"), "--unchecked"),
        (("docs", "build", "--help"), "--output"),
    ],
)
def test_what_there_is_to_run_is_listed(arguments: tuple[str, ...], shown: str) -> None:
    done = great_expectations(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout


def test_lists_are_json_for_programs() -> None:
    suites = json.loads(great_expectations("suite", "list", "--json").stdout)
    severities = [one["severity"] for one in raw_ticks()]
    counts = {severity: severities.count(severity) for severity in ("critical", "warning")}
    assert all(counts.values())
    assert {"suite": "raw_ticks"} | counts in suites
    assert json.loads(great_expectations("checkpoint", "list", "--json").stdout) == [
        {"checkpoint": "landed_batch", "suites": ["raw_ticks", "aggregates", "books", "books_by_sector"]}
    ]


def test_help_does_not_load_great_expectations() -> None:
    code = "import sys, expectations.command; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nope",), "error: there is no checkpoint 'nope'; there is landed_batch\n"),
        (
            ("landed_batch", "--batch", "1", "--unchecked"),
            "error: --batch, --unchecked and --since exclude each other\n",
        ),
    ],
)
def test_what_cannot_run_is_one_line(arguments: tuple[str, ...], line: str) -> None:
    done = great_expectations("checkpoint", "run", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.integration
def test_healthy_and_failed_batches(pipeline: Pipeline, tmp_path: Path) -> None:
    env = pipeline.environment | {"FEED_RULES": "market_cap_is_price_times_shares"}
    run = ("checkpoint", "run", "landed_batch")
    for batch_id in (1, 2):
        ticks = land_ticks(pipeline, batch_id)

    newest = great_expectations(*run, env=env)
    assert (newest.returncode, newest.stderr) == (0, "")
    assert "books.ticks_are_in_cassandra" in newest.stdout
    assert re.search(r"held .*newest_tick_is_fresh .*minutes_behind does not apply", newest.stdout)
    assert re.search(r"held .*newest_tick_is_not_of_the_future .*minutes_ahead = 0 ", newest.stdout)
    last = newest.stdout.splitlines()[-1]
    held = re.fullmatch(r"batch 2: passed, (\d+) of \1 expectations held", last)
    assert held, last
    but_one = f"batch 2: warned, {int(held[1]) - 1} of {held[1]} expectations held\n"

    pipeline.cassandra.execute(
        "UPDATE real_time_data SET market_cap = 1"
        " WHERE ticker = %s AND trade_date = %s AND created_at = %s AND id = %s",
        ticks[0].key,
    )
    warned = great_expectations(*run, "--batch", "2", env=env)
    assert warned.returncode == 0
    assert warned.stdout.endswith(but_one)

    pipeline.execute("UPDATE landed_batches SET volume = volume + 1 WHERE batch_id = 1")
    unchecked = great_expectations(*run, "--unchecked", "--json", env=env)
    assert (unchecked.returncode, unchecked.stderr) == (1, "")
    (verdict,) = json.loads(unchecked.stdout)
    assert (verdict["batch_id"], verdict["verdict"]) == (1, "failed")
    assert [one["expectation"] for one in verdict["results"] if not one["held"]] == ["books.volume_is_aggregated"]
    assert pipeline.rows("SELECT batch_id, verdict FROM landed_batches ORDER BY batch_id") == [
        (1, "failed"),
        (2, "warned"),
    ]

    # Batch 2 landed a minute after batch 1.
    since = great_expectations(*run, "--since", "2026-03-02 05:02:00", env=env)
    assert since.returncode == 0
    assert since.stdout.endswith(but_one)
    assert "batch 1" not in since.stdout
    none_left = great_expectations(*run, "--unchecked", env=env)
    assert (none_left.returncode, none_left.stdout) == (0, "No batch to check.\n")

    docs = great_expectations("docs", "build", "--batch", "1", "--output", str(tmp_path / "docs"), env=env)
    assert (docs.returncode, docs.stderr) == (0, "")
    assert docs.stdout == f"open {(tmp_path / 'docs' / 'index.html').as_uri()}\n"
    pages = {path.parts[-4:] for path in (tmp_path / "docs" / "validations").rglob("*.html")}
    assert {page[1] for page in pages} == {"batch 1"}
    shown = "".join(path.read_text() for path in (tmp_path / "docs").rglob("*books.html"))
    assert "read = landed + corrections + dead letters + duplicates" in shown
    assert pipeline.rows("SELECT verdict FROM landed_batches WHERE batch_id = 1") == [("failed",)]


@pytest.mark.integration
def test_empty_ledger_unknown_batch_and_store_down_exit_2_with_one_line(pipeline: Pipeline) -> None:
    env = pipeline.environment
    run = ("checkpoint", "run", "landed_batch")
    empty = great_expectations(*run, env=env)
    assert (empty.returncode, empty.stderr) == (2, "error: the ledger is empty: no batch has landed yet\n")

    land_ticks(pipeline)
    unknown = great_expectations(*run, "--batch", "7", env=env)
    assert (unknown.returncode, unknown.stderr) == (2, "error: the ledger has no batch 7\n")

    down = great_expectations(*run, env=env | {"MYSQL_PORT": "1"})
    assert down.returncode == 2
    assert down.stderr.startswith("error: MySQL at 127.0.0.1:1 (MYSQL_HOST, MYSQL_PORT) does not answer")
    assert down.stderr.count("\n") == 1
