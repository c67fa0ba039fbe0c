"""The benchmarks' own parts: what they write, count as wrong, and make up. No figure is measured here."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import orjson
import pandas as pd
import pytest
from pipeline import Pipeline

from benchmarks import growth_landing, growth_queries, report
from benchmarks.engines import Result, profile_of
from benchmarks.latency import rows_of
from benchmarks.looks import STAGES, Looks, Sent
from benchmarks.made_up_year import BATCHES_A_DAY, DAYS_OF_TICKS, Year, fill_ticks
from benchmarks.sink import Sink
from benchmarks.usage import Usage, program_of
from producer.companies import read_companies
from producer.market import Market
from tickledger.settings import PROJECT_ROOT, Settings


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the page, which the benchmarks write instead of the one in docs/."""
    copy = tmp_path / "performance.md"
    copy.write_text(report.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    for name, path in {"DOCS": tmp_path, "PAGE": copy, "FACTS": tmp_path / "performance.json"}.items():
        monkeypatch.setattr(report, name, path)
    return copy


def test_each_part_of_the_page_is_written_between_its_marks_and_the_words_around_it_stay(page: Path) -> None:
    before = page.read_text(encoding="utf-8")
    for figure in (1.25, 7.5):
        report.record_latency(pd.DataFrame(latency_rows(figure)), seconds=60)
        report.record_growth("days", pd.DataFrame({"question": ["today"], "1 days": [figure]}), [])
        report.record_growth("tickers", pd.DataFrame({"tickers": [10], "seconds": [float("inf")]}), ["x"], batch=1000)
        report.record_producer(pd.DataFrame({"way": ["a", "b"], "round": [1, 1], "pace": [10.0, 10 * figure]}), 5)
    after = page.read_text(encoding="utf-8")
    assert after.count("7.50 / 7.50 / 7.50") == len(STAGES)
    assert "| today | 7.500 |" in after
    assert "| 10 | no answer in time |" in after
    assert "| b | 75 | 75 to 75 | 7.5 |" in after
    assert "1.25" not in after.partition("<!-- latency")[2].partition("<!-- memory")[0]
    assert [line for line in before.splitlines() if line.startswith("#")] == [
        line for line in after.splitlines() if line.startswith("#")
    ]
    assert (page.parent / "performance-latency.svg").stat().st_size > 1000


def test_the_checks_cost_is_by_runs_that_count_and_their_last_verdict_is_told(page: Path) -> None:
    def run(engine: str, seconds: float, problem: str = "") -> Result:
        late = 3.5 if engine == "ours" else 0.0
        return Result(engine, 1, 500_000, 5, 10.0, 20.0, 45_000.0, 25_000.0, seconds, late, 25.0, 9.0, 1900.0, problem)

    runs = [run("ours", 2.2), run("ours", 9.0, "a row is missing"), run("ours-unchecked", 2.0)]
    report.record_backlog(runs, ticks=500_000, batch=100_000)

    said = page.read_text(encoding="utf-8").partition("<!-- backlog")[2].partition("<!-- end of backlog")[0]
    assert "| tickledger, checks on | 1 | 45,000 | 25,000 | 10.0 | 25.0 | 9.0 | 1.7 | 45,000 to 45,000 |" in said
    assert "| tickledger, checks on : tickledger, checks off | 1.00 | 1.00 |" in said
    assert "A batch takes 2.20 s with checks on and 2.00 s off: +10.0 %." in said
    assert "The last verdict comes 3.5 s after the last batch." in said
    assert report.checks_cost([one.as_dict() for one in runs[:2]]) == ""
    assert report.uncounted(runs) == []
    assert report.uncounted([run("ours", 2.2, "a row is missing"), *runs[1:]]) == ["ours"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--engines loop,lop", "--engines names lop; it should be some of ours"),
        ("--engines ours,loop --record", "--engines leaves out ours-unchecked; with --record it should be in it"),
        ("--profile --record", "--record is given with --profile; it should be left out"),
        ("--ticks 50000", "--ticks is 50,000; it should be at least two batches of 100,000"),
    ],
)
def test_a_run_that_would_make_no_sense_is_refused_before_it_starts(options: str, reason: str) -> None:
    command = [sys.executable, "-m", "benchmarks", *options.split()]
    environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT / "tests")}
    run = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert reason in run.stderr


def latency_rows(seconds: float, problem: str = "") -> list[dict[str, object]]:
    figures = dict.fromkeys(("p50", "p95", "p99", "longest"), seconds) | {"look": 0.05, "messages": 10}
    row = {"trigger": 0.0, "rate": 100, "achieved": 100.0, "problem": problem}
    return [row | figures | {"stage": stage} for stage in STAGES]


def test_a_pace_that_was_not_held_does_not_count_on_the_page(page: Path) -> None:
    rows = pd.DataFrame(latency_rows(1.0) + [row | {"rate": 900} for row in latency_rows(2.0, "not held")])
    report.record_latency(rows, seconds=60)
    assert page.read_text(encoding="utf-8").count("does not count: not held") == len(STAGES)
    assert "2.00 / 2.00 / 2.00" not in page.read_text(encoding="utf-8")


def sent_at(pace: float, messages: int) -> Sent:
    """Messages of two ticks, `pace` ticks a second, each looked for."""
    sent = Sent()
    for number in range(messages):
        tick = {"ticker": "A", "created_at": "2026-03-02 03:04:05.678", "id": number, "volume": 100}
        sent.add([tick, tick], probe=True)
        sent.at[number] = 2 * number / pace
    return sent


def looks_after(sent: Sent, delays: list[float]) -> Looks:
    looks = Looks(Settings.model_construct(), sent, 0.05)
    for stage in STAGES:
        looks.seen[stage] = {number: sent.at[number] + delay for number, delay in enumerate(delays)}
    return looks


def test_latency_is_from_the_send_to_the_look_and_a_message_never_seen_is_a_problem() -> None:
    sent = sent_at(100, 101)
    rows = rows_of(sent, looks_after(sent, [0.01 * number for number in range(101)]), range(101), 100, 2)
    assert [row["stage"] for row in rows] == list(STAGES)
    assert rows[0]["p50"] == pytest.approx(0.5)
    assert rows[0]["p95"] == pytest.approx(0.95)
    assert rows[0]["achieved"] == pytest.approx(100)
    assert not any(row["problem"] for row in rows)
    missed = rows_of(sent, looks_after(sent, [0.1] * 100), range(101), 100, 2)
    assert missed[0]["problem"] == "1 messages were never seen"


@pytest.mark.integration
def test_each_store_may_be_asked_for_what_a_look_needs(pipeline: Pipeline) -> None:
    sent = sent_at(100, 2)
    with Looks(pipeline.settings, sent, 0.01) as looks:
        time.sleep(1)
    assert not looks.problem
    assert not any(looks.seen.values())
    assert all(looks.resolution(stage) < 1 for stage in STAGES)


def test_a_pace_that_the_producer_could_not_hold_is_a_problem() -> None:
    sent = sent_at(90, 50)
    (row, *_) = rows_of(sent, looks_after(sent, [0.1] * 50), range(50), 100, 2)
    assert "not held: 90 ticks/s" in row["problem"]


def test_volumes_are_known_by_partition_for_any_number_of_landed_messages() -> None:
    assert sent_at(100, 5).volumes == [[0, 200, 400, 600], [0, 200, 400]]


def test_what_grows_faster_than_its_work_is_named() -> None:
    rows = pd.DataFrame({"ticks": [10, 100], "work": [10, 100], "seconds": [1.0, 15.0], "check alone": [1.0, 9.0]})
    (line,) = growth_landing.faster_than_work(rows, "ticks")
    assert line.startswith("seconds, from 10 to 100 ticks: 15.0 times")
    (line,) = growth_landing.faster_than_work(rows.assign(work=10, seconds=1.0), "ticks")
    assert line == "check alone, from 10 to 100 ticks: 9.0 times for 1 times the work"
    answers = pd.DataFrame({"question": ["a", "b", "c"], "1": [0.1, 0.1, 0.001], "2": [0.11, 0.2, 0.01]})
    assert [line[0] for line in growth_queries.faster_than_work(answers, ["1", "2"], work=1)] == ["b"]
    assert not list(growth_queries.faster_than_work(answers, ["1", "2"], work=10))
    assert not list(growth_queries.faster_than_work(answers, ["1"], work=1))


def test_a_profile_has_the_slowest_functions_or_the_phases_of_spark() -> None:
    said = ["hello", "   ncalls  tottime", *(f"line {number}" for number in range(100))]
    assert profile_of("\n".join(said), lines=3) == ["   ncalls  tottime", "line 0", "line 1"]
    assert profile_of('{"at": 1}\nphases {"addBatch": [1]}') == ['phases {"addBatch": [1]}']


@pytest.mark.integration
def test_the_shared_sink_stores_each_tick_and_its_volume_once_however_often(pipeline: Pipeline) -> None:
    market, ids = Market(read_companies(pipeline.settings), seed=1), count(1)
    now = datetime.now(UTC)
    rounds = [market.trade(f"{now:%Y-%m-%d %H:%M:%S}.{number:03d}", ids) for number in range(3)]
    messages = [(number % 2, number // 2, orjson.dumps(ticks)) for number, ticks in enumerate(rounds)]
    for _ in range(2):
        sink = Sink(pipeline.settings, 0)
        sink.land(messages)
        sink.close()
    volume = sum(tick["volume"] for ticks in rounds for tick in ticks)
    assert pipeline.rows("SELECT SUM(total_volume), SUM(ticks) FROM aggregated_data") == [(volume, 30)]
    stored = pipeline.cassandra.execute("SELECT ticker, id, price, market_cap, volume FROM real_time_data")
    sent = {
        (tick["ticker"], tick["id"], tick["price"], tick["market_cap"], tick["volume"])
        for ticks in rounds
        for tick in ticks
    }
    assert {(row.ticker, row.id, int(row.price), int(row.market_cap), row.volume) for row in stored} == sent


@pytest.mark.integration
def test_made_up_days_and_ticks_are_as_many_as_asked_for_and_the_ledger_agrees(pipeline: Pipeline) -> None:
    today = datetime.now(UTC).date()
    said: list[str] = []
    year = Year(pipeline, 3, today)
    year.grow_to(1, said.append)
    assert len(said) == 1
    assert year.rows == BATCHES_A_DAY * 9
    (batches, volume) = pipeline.rows("SELECT COUNT(*), SUM(volume) FROM landed_batches")[0]
    assert batches == BATCHES_A_DAY
    assert pipeline.rows("SELECT SUM(total_volume) FROM volume_today") == [(volume,)]
    assert pipeline.rows("SELECT MIN(batch_id), MAX(batch_id) FROM landed_offsets") == [
        (2 * BATCHES_A_DAY + 1, 3 * BATCHES_A_DAY)
    ]
    fill_ticks(pipeline.settings, 500, today)
    fill_ticks(pipeline.settings, 1000, today, skip=500)
    rows = list(pipeline.cassandra.execute("SELECT DISTINCT ticker, trade_date FROM real_time_data"))
    assert len(rows) == 10 * DAYS_OF_TICKS
    assert pipeline.cassandra.execute("SELECT COUNT(*) FROM real_time_data").one()[0] == 1000


def test_what_a_command_line_runs_is_named_for_people() -> None:
    named = {
        "java -Xmx1g -cp a:b org.apache.spark.deploy.SparkSubmit streaming/stream_ticks.py --once": "SparkSubmit",
        "java -cp x kafka.Kafka server.properties": "Kafka",
        "python streaming/stream_ticks.py": "stream_ticks.py",
        "python -m pyspark.daemon pyspark.worker": "pyspark.daemon",
        "/usr/sbin/mariadbd --no-defaults": "mariadbd",
        "": "",
    }
    assert {line: program_of(line.split()) for line in named} == named


def test_cpu_is_told_by_program_however_many_processes_ran_it() -> None:
    # They begin when told: what they have used before the first look does not count.
    code = "import time\ninput()\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(1)"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(2)]
    usage = Usage(process.pid for process in processes).start()
    for process in processes:
        process.communicate(b"\n")
    usage.stop()
    assert usage.cpu_by_program() == {Path(sys.executable).name: pytest.approx(usage.cpu_seconds)}
    assert 0.5 < usage.cpu_seconds < 2
