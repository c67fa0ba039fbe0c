"""The stream as a user runs it: spark-submit against a real broker and real stores, and what kills them."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from commands.reconcile import reconcile
from services.instance import Instance
from services.java import java_home
from services.server import free_port
from streaming.stream_ticks import TickStream
from tests.support import foreign_spark
from tests.support.browser import wait_until
from tests.support.pipeline import Pipeline, StreamProcess
from tickledger.ledger import LandedBatch, Ledger, SectorVolume
from tickledger.settings import PROJECT_ROOT, Settings
from tickledger.topic import describe_topic

pytestmark = pytest.mark.integration

BAD_MESSAGES: list[Any] = [
    b"not json",
    b"\xff\xfe",
    b"[]",
    b'{"id": 1}',
    None,
    b'["' + b"x" * 900_000 + b'"]',
    [{"id": 1}],
    [None],
]


def ticks(pipeline: Pipeline, number: int) -> list[dict[str, Any]]:
    """One round: one tick a company, of round `number`."""
    return round_of(companies(pipeline), number)


def companies(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    """(ticker, sector, shares) of every company."""
    return pipeline.rows("SELECT ticker, sector, shares FROM profile ORDER BY ticker")


def round_of(companies: list[tuple[Any, ...]], number: int) -> list[dict[str, Any]]:
    """One tick of each company, of round `number`."""
    made = datetime.now(UTC) - timedelta(hours=1) + timedelta(milliseconds=number)
    return [
        {
            "id": number * 100 + place,
            "created_at": made.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3],
            "volume": 100 + place,
            "market_cap": 500 * shares,
            "ticker": ticker,
            "price": 500,
            "sector": sector,
        }
        for place, (ticker, sector, shares) in enumerate(companies)
    ]


@pytest.fixture
def stream() -> Iterator[list[StreamProcess]]:
    """The streams that a test has started; what is left of them is killed after it."""
    started: list[StreamProcess] = []
    yield started
    for process in started:
        process.kill()
        print(f"--- a stream said:\n{process.output}")


class Load:
    """Sends rounds in the background until told to stop; `sent` counts the messages that Kafka acknowledged."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._companies = companies(pipeline)
        self._stop = threading.Event()
        self.sent = 0
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        number = 0
        while not self._stop.is_set():
            rounds = [round_of(self._companies, number + one) for one in range(20)]
            number += len(rounds)
            self._pipeline.send(rounds)
            self.sent += len(rounds)
            time.sleep(0.2)

    def stop(self) -> int:
        self._stop.set()
        self._thread.join()
        return self.sent


def assert_landed_once(pipeline: Pipeline, messages: int) -> None:
    """Every round of ten ticks is there once, in both stores and in the ledger."""
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert (books.messages, books.ticks_landed, books.duplicates) == (messages, messages * 10, 0)
    assert books.cassandra == books.mysql


def test_someone_elses_messages_are_all_accounted_for(pipeline: Pipeline, stream: list[StreamProcess]) -> None:
    good = [ticks(pipeline, number) for number in range(50)]
    mixed = ticks(pipeline, 1000)
    mixed[3]["volume"] = -1
    mixed[4]["ticker"] = "NOPE.JK"
    pipeline.send([*good[:25], *BAD_MESSAGES, mixed, *good[25:], good[0]])

    stream.append(StreamProcess(pipeline))
    pipeline.wait_until_landed(50 + len(BAD_MESSAGES) + 2)
    stream[0].wait_for("batch 1 ·")
    stream[0].process.send_signal(signal.SIGTERM)

    assert stream[0].wait() == 0, stream[0].output
    assert "stopped: every batch that was begun is in the ledger" in stream[0].output
    assert "Traceback" not in stream[0].output
    books = reconcile(pipeline.settings)
    assert books.differences == []
    assert (books.ticks_landed, books.dead_letters, books.duplicates) == (508, len(BAD_MESSAGES) + 2, 10)
    assert books.verdicts.get("unchecked", 0) == 0
    reasons = [row.reason for row in pipeline.cassandra.execute("SELECT reason FROM dead_letters")]
    assert Counter(reasons) == Counter(
        {"not_an_object": 2}
        | dict.fromkeys(["not_json", "bad_utf8", "empty_array", "not_an_array", "no_value"], 1)
        | dict.fromkeys(["missing_field", "out_of_range", "unknown_ticker"], 1)
    )
    sizes = [len(row.raw_value) for row in pipeline.cassandra.execute("SELECT raw_value FROM dead_letters")]
    assert max(sizes) == 900_002, "a large element keeps all its bytes"


def served(address: str) -> dict[str, float]:
    """The figures that a stream serves, by name and labels' values."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value for one in families for sample in one.samples
    }


def test_live_figures_are_served_and_kept_in_the_ledger(pipeline: Pipeline, stream: list[StreamProcess]) -> None:
    address = f"127.0.0.1:{free_port()}"
    rounds = [ticks(pipeline, number) for number in range(60)]
    pipeline.send([*rounds[:50], b"{"])
    stream.append(StreamProcess(pipeline, environment={"STREAM_METRICS_ADDRESS": address}))
    stream[0].wait_for("batch 1 ·")
    pipeline.send(rounds[49:])
    stream[0].wait_for("batch 2 ·")
    figures = served(address)
    stream[0].process.send_signal(signal.SIGTERM)
    assert stream[0].wait() == 0, stream[0].output

    counted = {"batches": 2, "messages": 62, "ticks_landed": 600, "dead_letters": 1, "duplicates": 10}
    assert {name: figures[f"tickledger_{name}_total"] for name in counted} == counted
    assert sum(count for name, count in figures.items() if name.startswith("tickledger_verdicts_total ")) == 2
    assert figures["tickledger_newest_batch_id"] == 2
    assert figures["tickledger_messages_behind"] == 0
    columns = "waiting_seconds, job_seconds, commit_seconds, check_seconds, messages_behind, landing_seconds"
    first, second = pipeline.rows(f"SELECT {columns} FROM batch_health ORDER BY batch_id")
    assert first[0] is None
    assert second[0] > 0
    for batch in (first, second):
        _, job, commit, check, behind, landing = batch
        assert 0 < job < landing
        assert commit > 0
        assert check > 0
        assert behind == 0
    noted = float(first[1] + second[1])
    assert figures["tickledger_phase_seconds_sum job"] == pytest.approx(noted, abs=0.002)


def test_ctrl_c_under_load_finishes_the_batch_and_the_next_start_goes_on(
    pipeline: Pipeline, stream: list[StreamProcess]
) -> None:
    load = Load(pipeline)
    stream.append(StreamProcess(pipeline))
    stream[0].wait_for("batch 2 ·")
    os.killpg(stream[0].process.pid, signal.SIGINT)
    code = stream[0].wait()
    messages = load.stop()
    assert code == 0, stream[0].output
    assert reconcile(pipeline.settings).differences == []

    stream.append(StreamProcess(pipeline))
    pipeline.wait_until_landed(messages)

    assert_landed_once(pipeline, messages)


def test_a_stream_killed_while_checks_wait_checks_in_the_end_all_that_landed(
    pipeline: Pipeline, stream: list[StreamProcess]
) -> None:
    backlog = {"STREAM_TRIGGER_SECONDS": "0", "STREAM_MAX_OFFSETS_PER_TRIGGER": "10"}
    pipeline.send([ticks(pipeline, number) for number in range(200)])
    stream.append(StreamProcess(pipeline, environment=backlog))
    stream[0].wait_for("batch 2 ·")
    stream[0].kill()
    (said,) = [line for line in stream[0].lines if line.startswith("batch 2 ·") and "caught up" not in line]
    assert said.endswith(" · check waits")
    assert pipeline.rows("SELECT COUNT(*) > 0 FROM landed_batches WHERE verdict = 'unchecked'") == [(1,)]

    stream.append(StreamProcess(pipeline, environment=backlog))
    pipeline.wait_until_landed(200)
    deadline = time.monotonic() + 120
    while Ledger(pipeline.settings).unchecked() and time.monotonic() < deadline:
        time.sleep(0.5)
    stream[1].process.send_signal(signal.SIGTERM)
    assert stream[1].wait() == 0, stream[1].output

    assert_landed_once(pipeline, 200)
    assert pipeline.rows("SELECT DISTINCT verdict FROM landed_batches") == [("passed",)]


def test_a_failed_batch_that_is_caught_up_ends_a_stream_that_stops_on_it_with_1(
    pipeline: Pipeline, stream: list[StreamProcess]
) -> None:
    pipeline.send([ticks(pipeline, 1)])
    # Landed as the ledger says, but Cassandra has none of it.
    topic, noon = describe_topic(pipeline.settings), datetime(2026, 3, 2, 5)
    ranges = {partition: (0, end) for partition, end in topic.ends.items() if end}
    sectors = [SectorVolume(noon.date(), "Coal", 10, 100, noon, noon)]
    Ledger(pipeline.settings).commit(
        LandedBatch(1, pipeline.settings.kafka_topic, topic.topic_id, ranges, 1, 10, 0, 0, 0, sectors, noon, 0.5)
    )

    stream.append(StreamProcess(pipeline, once=True, environment={"CHECKS_STOP_ON_FAILED": "true"}))

    assert stream[0].wait() == 1, stream[0].output
    assert [line for line in stream[0].lines if line.startswith("error: ")] == [
        "error: batch 1 failed its checks (CHECKS_STOP_ON_FAILED is true);"
        " see 'great_expectations checkpoint run landed_batch --batch 1'"
    ]


def test_a_batch_that_begins_while_the_query_stops_does_not_keep_it_from_stopping(test_settings: Settings) -> None:
    stream = TickStream(test_settings, once=False)
    late: Any = threading.Thread(target=lambda: stream._on_batch(None, 1), daemon=True)  # type: ignore[arg-type]

    class Query:
        """Stops as Spark's does: only after the batch that it has just handed over has returned."""

        def stop(self) -> None:
            late.start()
            late.join(10)
            assert not late.is_alive()

    stream._stopping.set()
    stream._stop(Query())  # type: ignore[arg-type]


@pytest.mark.parametrize("store", ["mysql", "cassandra", "kafka"])
def test_a_server_killed_under_load_is_waited_for(
    pipeline: Pipeline, stream: list[StreamProcess], services: Instance, store: str
) -> None:
    load = Load(pipeline) if store != "kafka" else None
    if load is None:
        pipeline.send([ticks(pipeline, number) for number in range(100)])
    stream.append(StreamProcess(pipeline))
    stream[0].wait_for("batch 1 ·")

    services.server(store).kill()
    try:
        if load is not None:
            stream[0].wait_for("waiting: ")
        else:
            time.sleep(5)
    finally:
        services.server(store).start()
        services.server(store).wait_until_ready()
    if load is None:
        pipeline.send([ticks(pipeline, number) for number in range(100, 200)])
    messages = load.stop() if load is not None else 200
    pipeline.wait_until_landed(messages, seconds=180)
    stream[0].process.send_signal(signal.SIGTERM)

    assert stream[0].wait() == 0, stream[0].output
    assert "Traceback" not in stream[0].output
    assert_landed_once(pipeline, messages)


def test_a_store_that_stays_down_ends_the_stream_with_nothing_committed(
    pipeline: Pipeline, stream: list[StreamProcess], services: Instance
) -> None:
    stream.append(StreamProcess(pipeline, environment={"STREAM_STORE_RETRY_SECONDS": "3"}))
    stream[0].wait_for("landing ")
    services.server("cassandra").kill()
    try:
        pipeline.send([ticks(pipeline, 1)])
        code = stream[0].wait()
    finally:
        services.server("cassandra").start()
        services.server("cassandra").wait_until_ready()

    assert code == 1, stream[0].output
    assert any(line.startswith("error: Cassandra") and "gave up" in line for line in stream[0].lines), stream[0].output
    assert "Traceback" not in stream[0].output
    assert pipeline.rows("SELECT COUNT(*) FROM landed_batches") == [(0,)]


def test_a_scratch_folder_that_is_cleaned_up_under_the_stream_is_made_again(
    pipeline: Pipeline, stream: list[StreamProcess]
) -> None:
    # So that what a task returns goes through a file, as that of a batch of many ticks does.
    small = ("--conf", "spark.task.maxDirectResultSize=1", "--conf", "spark.memory.storageFraction=0")
    stream.append(StreamProcess(pipeline, *small))
    pipeline.send([ticks(pipeline, number) for number in range(10)])
    stream[0].wait_for("batch 1 ·")
    for folder in pipeline.settings.stream_scratch_dir.iterdir():
        shutil.rmtree(folder)
    pipeline.send([ticks(pipeline, number) for number in range(10, 20)])
    pipeline.wait_until_landed(20)
    stream[0].process.send_signal(signal.SIGTERM)

    assert stream[0].wait() == 0, stream[0].output
    assert "going on from the ledger" in stream[0].output
    assert "Traceback" not in stream[0].output
    assert_landed_once(pipeline, 20)


def test_a_second_stream_is_told_no(pipeline: Pipeline, stream: list[StreamProcess]) -> None:
    stream.append(StreamProcess(pipeline))
    stream[0].wait_for("landing ")

    stream.append(StreamProcess(pipeline))

    assert stream[1].wait() == 1
    assert "another stream lands into" in stream[1].output


def test_it_lands_on_a_standalone_master_that_crashes_and_comes_back(
    pipeline: Pipeline, stream: list[StreamProcess]
) -> None:
    pipeline.send([ticks(pipeline, number) for number in range(100)])
    with StandaloneCluster(pipeline) as cluster:
        stream.append(StreamProcess(pipeline, "--master", cluster.url, "--conf", cluster.secret))
        pipeline.wait_until_landed(100, seconds=180)
        assert foreign_spark.ask(cluster.port, "master").startswith("refused: ")
        cluster.crash_and_restart_the_master()
        wait_until(cluster.is_whole, "the new master does not find worker and application again")
        pipeline.send([ticks(pipeline, number) for number in range(100, 200)])
        pipeline.wait_until_landed(200, seconds=180)
        stream[0].process.send_signal(signal.SIGTERM)
        assert stream[0].wait() == 0, stream[0].output

    assert_landed_once(pipeline, 200)


class StandaloneCluster:
    """A Spark master, set up as docker-compose.yml does it, and one worker, on free loopback ports."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._folder = pipeline.settings.stream_scratch_dir / "cluster"
        (self._folder / "master").mkdir(parents=True)
        compose = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())
        options = compose["services"]["spark-master"]["environment"]["SPARK_MASTER_OPTS"]
        password = secrets.token_hex(12)
        self.secret = f"spark.authenticate.secret={password}"
        self._environment = pipeline.environment | {
            "SPARK_LOCAL_IP": "127.0.0.1",
            "SPARK_PASSWORD": password,
            "TICKLEDGER_IN_CONTAINER": "1",
            "JAVA_HOME": str(java_home()),
            "TMPDIR": str(self._folder),
            "SPARK_NO_DAEMONIZE": "1",
            "SPARK_MASTER_OPTS": options.replace("/var/lib/spark", str(self._folder / "master")),
        }
        self._worker_ui = free_port()
        self.port: int
        self.url: str
        self._master_ui: int
        self._master: subprocess.Popen[bytes]
        self._worker: subprocess.Popen[bytes]

    def _start(self, name: str, *arguments: str) -> "subprocess.Popen[bytes]":
        script = str(Path(sys.executable).with_name("spark-class"))
        command = ["containers/spark", script, f"org.apache.spark.deploy.{name}", "--host", "127.0.0.1", *arguments]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=PROJECT_ROOT
        )

    def _start_master(self) -> "subprocess.Popen[bytes]":
        return self._start("master.Master", "--port", str(self.port), "--webui-port", str(self._master_ui))

    def crash_and_restart_the_master(self) -> None:
        """SIGKILL it; another takes its place with what it kept on disk."""
        self._master.kill()
        self._master.wait()
        self._master = self._start_master()

    def _state(self) -> dict[str, Any]:
        """What the master says of itself; nothing while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._master_ui}/json/", timeout=5) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def _is_at_its_port(self, seconds: float = 60) -> bool:
        """Whether the master comes up at the port that it was given, which somebody else may have taken meanwhile."""
        deadline = time.monotonic() + seconds
        while not (state := self._state()) and time.monotonic() < deadline and self._master.poll() is None:
            time.sleep(0.5)
        return bool(state) and state["url"] == self.url

    def is_whole(self) -> bool:
        """Whether the master has its worker and an application that runs."""
        if not (state := self._state()):
            return False
        running = [one for one in state["activeapps"] if one["state"] == "RUNNING"]
        return (state["status"], state["aliveworkers"], len(running)) == ("ALIVE", 1, 1)

    def __enter__(self) -> "StandaloneCluster":
        for _ in range(3):
            self.port, self._master_ui = free_port(), free_port()
            self.url = f"spark://127.0.0.1:{self.port}"
            self._master = self._start_master()
            if self._is_at_its_port():
                break
            self._master.kill()
            self._master.wait()
        self._worker = self._start(
            "worker.Worker", "--webui-port", str(self._worker_ui), "--cores", "2", "--memory", "1g",
            "--work-dir", str(self._folder / "worker"), self.url,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._worker, self._master):
            process.terminate()
            process.wait(30)


def test_the_help_says_what_the_exit_codes_mean(pipeline: Pipeline) -> None:
    done = run_stream(pipeline, {}, "--help")

    assert done.returncode == 0
    assert "Exit code 1" in done.stdout


def run_stream(pipeline: Pipeline, changes: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The stream up to where it would start Spark; plain Python is enough for what must fail before."""
    return subprocess.run(
        [sys.executable, "streaming/stream_ticks.py", *arguments],
        cwd=PROJECT_ROOT,
        env=pipeline.environment | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
