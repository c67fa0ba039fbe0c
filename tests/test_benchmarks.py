"""The benchmarks' own parts: what they count as wrong, make up, write, and leave behind. No figure is measured here."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
import pytest

from benchmarks.__main__ import medians
from benchmarks.bench import show
from benchmarks.engines import Usage
from benchmarks.latency import delays
from benchmarks.load import fill, trade
from benchmarks.made_up_year import BATCHES_A_DAY, Year
from benchmarks.sink import Sink
from producer.companies import read_companies, read_ladder
from producer.market import Market
from tests.support.pipeline import Pipeline
from tickledger.settings import PROJECT_ROOT


def of_run(engine: str, pace: float, problem: str = "") -> dict[str, object]:
    return {"engine": engine, "round": 1, "ticks/s": pace, "MB": 1.0, "problem": problem}


def test_a_run_whose_rows_are_wrong_does_not_count() -> None:
    runs = [of_run("ours", 300.0), of_run("ours", 100.0), of_run("ours", 9e9, "a row is missing"), of_run("loop", 50.0)]
    ours, loop = medians(pd.DataFrame(runs)).to_dict("records")
    assert [ours[column] for column in ("engine", "ticks/s", "ticks/s, from", "to")] == ["ours", 200, 100, 300]
    assert (ours["ours, times"], loop["ours, times"]) == (1, 4)


def test_a_table_is_appended_to_the_file_that_is_named_and_only_there(tmp_path: Path) -> None:
    rows = pd.DataFrame({"engine": ["ours", "loop"], "ticks/s": [57_118.4, np.nan]})
    for name in ("a.md", "a.jsonl", "a.jsonl"):
        show("Engines", rows, tmp_path / "new" / name)
    assert "| engine | ticks/s |\n| --- | ---: |\n| ours | 57,118 |\n| loop | - |\n" in (
        tmp_path / "new" / "a.md"
    ).read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (tmp_path / "new" / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["rows"] for line in lines] == [
        [{"engine": "ours", "ticks/s": 57_118.4}, {"engine": "loop", "ticks/s": None}]
    ] * 2
    show("Engines", rows, None)
    assert len(list(tmp_path.rglob("*.*"))) == 2


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--engines loop,lop", "--engines names lop; it should be some of ours"),
        ("--engines ours --ticks 50000", "--ticks is 50,000; it should be at least two batches of 100,000"),
    ],
)
def test_a_run_that_would_make_no_sense_is_refused_before_it_starts(options: str, reason: str) -> None:
    command = [sys.executable, "-m", "benchmarks", *options.split()]
    run = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert reason in run.stderr


def test_latency_is_from_the_send_of_each_message_to_its_batch_in_the_ledger() -> None:
    sent = datetime(2026, 3, 2, 3, 4, 5, tzinfo=UTC)
    after = [sent.replace(tzinfo=None) + timedelta(seconds=seconds) for seconds in range(10)]
    # Two batches: messages 0 to 3, two a partition, then message 4 alone.
    ledger = [(0, 0, 2, after[1], "0.5", after[3]), (1, 0, 2, after[1], "0.5", after[3])]
    ledger.append((0, 2, 3, after[5], "0.25", after[9]))
    at = np.array([sent.timestamp() + number for number in range(6)])
    found = delays(at, ledger)
    assert found[:5].tolist() == [[1, 1.5, 3], [0, 0.5, 2], [-1, -0.5, 1], [-2, -1.5, 0], [1, 1.25, 5]]
    assert np.isnan(found[5]).all()


def test_cpu_counts_from_entry_to_exit_also_below_a_process() -> None:
    # They begin when told: what they have used before the first look does not count.
    code = "import time\ninput()\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(1)"
    below = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}])"
    processes = [subprocess.Popen([sys.executable, "-c", one], stdin=subprocess.PIPE) for one in (code, below)]
    with Usage(process.pid for process in processes) as usage:
        for process in processes:
            process.communicate(b"\n")
    assert 0.5 < usage.cpu_seconds < 2
    assert usage.peak_megabytes > 10


@pytest.mark.integration
def test_the_shared_sink_stores_each_tick_and_its_volume_once_however_often(pipeline: Pipeline) -> None:
    market = Market(read_companies(pipeline.settings), read_ladder(pipeline.settings), seed=1)
    ids, now = count(1), datetime.now(UTC)
    rounds = [trade(market, ids, now + timedelta(milliseconds=number)) for number in range(3)]
    messages = [(number % 2, number // 2, orjson.dumps(ticks)) for number, ticks in enumerate(rounds)]
    for _ in range(2):
        sink = Sink(pipeline.settings, 0)
        sink.land(messages)
        sink.close()
    ticks = [tick for ticks in rounds for tick in ticks]
    volume = sum(tick["volume"] for tick in ticks)
    assert pipeline.rows("SELECT SUM(total_volume), SUM(ticks) FROM aggregated_data") == [(volume, 30)]
    stored = pipeline.cassandra.execute("SELECT ticker, id, price, market_cap, volume FROM real_time_data")
    names = ("ticker", "id", "price", "market_cap", "volume")
    assert {(row.ticker, row.id, int(row.price), int(row.market_cap), row.volume) for row in stored} == {
        tuple(tick[name] for name in names) for tick in ticks
    }


@pytest.mark.integration
def test_a_topic_holds_what_its_load_says_spread_over_the_days(pipeline: Pipeline) -> None:
    load = fill(pipeline.settings, f"{pipeline.settings.kafka_topic}_load", 1_000, days=5)
    assert (load.messages, load.ticks) == (100, 1_000)
    assert len({day for day, _ in load.volumes}) in (5, 6)


@pytest.mark.integration
def test_made_up_days_are_as_many_as_asked_for_and_the_ledger_agrees(pipeline: Pipeline) -> None:
    year = Year(pipeline, 3, datetime.now(UTC).date())
    year.grow_to(1)
    batches, volume, ticks = pipeline.rows("SELECT COUNT(*), SUM(volume), SUM(ticks_landed) FROM landed_batches")[0]
    assert batches == BATCHES_A_DAY
    assert pipeline.rows("SELECT SUM(total_volume) FROM volume_today") == [(volume,)]
    assert pipeline.rows("SELECT COUNT(*), SUM(ticks) FROM aggregated_data") == [(BATCHES_A_DAY * 9, ticks)]
    assert pipeline.rows("SELECT MIN(batch_id), MAX(batch_id) FROM landed_offsets") == [
        (2 * BATCHES_A_DAY + 1, 3 * BATCHES_A_DAY)
    ]
