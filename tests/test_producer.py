"""The producer as users run it: `python -m producer`, against a real broker; and reading files, which needs none."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batches import NEW_COMPANY
from kafka import KafkaConsumer, TopicPartition
from pipeline import Pipeline

from producer.companies import LOOK_SECONDS
from producer.pace import rounds
from producer.replay import MAX_TICKS_A_MESSAGE, TickFile, messages_in_time
from producer.watch import _printable
from tickledger.errors import ConfigurationError
from tickledger.tick import parse_created_at

HEADER = "ticker,created_at,id,volume,market_cap,price,sector"
COAL = {"ticker": "DWGL.JK", "sector": "Coal", "volume": 100, "price": 540, "market_cap": 5_005_800_000_000}


def tick(number: int, created_at: str = "2026-03-02 03:04:05.000", **changes: Any) -> dict[str, Any]:
    return {"id": number, "created_at": created_at} | COAL | changes


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    reports: list[str] = []
    file = TickFile(path, reports.append)
    ticks = [one for _, one in file]
    assert (file.ticks, file.bad) == (len(ticks), len(reports))
    return ticks, [report.removeprefix(f"{path}, ") for report in reports]


# Files


def test_a_csv_and_a_json_file_of_the_same_ticks_read_alike(tmp_path: Path) -> None:
    ticks = [tick(1, price=540.5), tick(2)]
    rows = [",".join(str(one[name]) for name in HEADER.split(",")) for one in ticks]
    assert read(write_lines(tmp_path / "a.csv", HEADER, *rows)) == (ticks, [])
    assert read(write_lines(tmp_path / "a.jsonl", *ticks)) == (ticks, [])
    assert read(write_lines(tmp_path / "a.json", ticks)) == (ticks, [])


def test_a_csv_may_have_other_columns_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    row = 'x,DWGL.JK,2026-03-02 03:04:05.000,1,100,5005800000000,540,"Coal"'
    path.write_bytes(f"\ufeffmore,{HEADER}\r\n{row}\r\n".encode())
    assert read(path) == ([tick(1)], [])


def test_bad_lines_of_json_are_left_out_and_told_with_their_number(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "a.jsonl",
        tick(1),
        "",
        "{not json",
        7,
        tick(2, volume="many"),
        [tick(3), tick(4, created_at="yesterday"), tick(5)],
        tick(6, volume=-1),
    )
    ticks, reports = read(path)
    assert [one["id"] for one in ticks] == [1, 3, 5]
    assert [report.split(":")[0] for report in reports] == ["line 3", "line 4", "line 5", "line 6", "line 7"]
    assert "volume is a text ('many'); it should be a whole number" in reports[2]
    assert "created_at is 'yesterday'" in reports[3]


def test_bad_lines_of_csv_are_left_out_and_told_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    good = "DWGL.JK,2026-03-02 03:04:05.000,{},100,5005800000000,540,Coal\n"
    bad = [
        b"DWGL.JK,2026-03-02 03:04:05.000,2,1e,5005800000000,540,Coal\n",
        b"DWGL.JK,2026-03-02 03:04:05.000,3\n",
        b"DWGL.JK,2026-03-02 03:04:05.000,4,100,5005800000000,540,Co\xffal\n",
        b"DWGL.JK,2026-03-02 03:04:05.000,5,100,NaN,540,Coal\n",
        b"x" * 200_000 + b"\n",
    ]
    path.write_bytes(b"".join([f"{HEADER}\n{good.format(1)}".encode(), *bad, good.format(6).encode()]))
    ticks, reports = read(path)
    assert [one["id"] for one in ticks] == [1, 6]
    assert [report.split(":")[0] for report in reports] == [f"line {number}" for number in range(3, 8)]
    assert "not UTF-8" in reports[2]


def test_what_only_the_profile_can_judge_is_sent(tmp_path: Path) -> None:
    stranger = tick(1, ticker="NOBODY.JK", sector="Dreams")
    assert read(write_lines(tmp_path / "a.jsonl", stranger)) == ([stranger], [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "its name should end in .csv or .jsonl, .ndjson, .json"),
        ("a.csv", "x" * 200_000, "its first line should name the columns ticker, created_at"),
        ("a.csv", "", "its first line should name the columns ticker, created_at"),
        ("a.csv", "ticker,created_at,id,volume,market_cap,price\n", "its first line should name the columns sector"),
    ],
)
def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read(path)


# Pace


def in_time(created_at: list[str], speed: float | None, stopping: threading.Event) -> list[tuple[list[int], float]]:
    ticks = ((parse_created_at(at), tick(number, at)) for number, at in enumerate(created_at))
    started = time.monotonic()
    return [
        ([one["id"] for one in message], time.monotonic() - started)
        for message in messages_in_time(ticks, speed, stopping)
    ]


def test_ticks_of_one_created_at_share_a_message_and_keep_their_distance() -> None:
    moments = ["2026-03-02 03:00:00", "2026-03-02T03:00:00Z", "2026-03-02 03:00:01", "2026-03-02 02:59:59"]
    (first, at_once), (second, later), (third, behind) = in_time(moments, 4.0, threading.Event())
    assert (first, second, third) == ([0, 1], [2], [3])
    assert at_once < 0.2
    assert 0.25 <= later < 1
    assert behind - later < 0.2, "older ticks follow at once"


def test_as_fast_as_possible_does_not_wait_and_bounds_a_message() -> None:
    moments = ["2026-03-02 03:00:00"] * (MAX_TICKS_A_MESSAGE + 1) + ["2026-03-03 03:00:00"]
    messages = in_time(moments, None, threading.Event())
    assert [len(message) for message, _ in messages] == [MAX_TICKS_A_MESSAGE, 1, 1]
    assert messages[-1][1] < 5


def test_a_stop_ends_the_wait_for_the_next_message() -> None:
    stopping = threading.Event()
    timer = threading.Timer(0.3, stopping.set)
    timer.start()
    started = time.monotonic()
    assert len(in_time(["2026-03-02 03:00:00", "2026-03-02 04:00:00"], 1.0, stopping)) == 1
    assert time.monotonic() - started < 5
    timer.join()


def test_rounds_come_at_their_rate_and_end_at_their_number() -> None:
    started = time.monotonic()
    assert list(rounds(20, 5, threading.Event())) == [0, 1, 2, 3, 4]
    assert time.monotonic() - started >= 4 / 20
    assert len(list(rounds(0, 10_000, threading.Event()))) == 10_000


def test_rounds_that_were_held_up_are_not_all_made_up_for() -> None:
    ahead = rounds(10, None, threading.Event())
    next(ahead)
    time.sleep(2.5)
    started = time.monotonic()
    while time.monotonic() - started < 0.05:
        made_up = next(ahead)
    # One second's worth, the one that was due, and one more that may come due meanwhile.
    assert made_up <= 13


# What is shown


def test_a_value_is_shown_as_one_line_that_no_terminal_obeys() -> None:
    assert _printable(None) == "(no value)"
    assert _printable("[1, “ü”]".encode()) == "[1, “ü”]"
    assert _printable(b"a\nb\x1b[31m\xff") == "a\\nb\\x1b[31m\\xff"


# The command, on a real broker

integration = pytest.mark.integration


def producer(pipeline: Pipeline, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "producer", *arguments],
        env=pipeline.environment | changes,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def start(pipeline: Pipeline, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "producer", *arguments],
        env=pipeline.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def consumer_of(pipeline: Pipeline) -> tuple[KafkaConsumer, list[TopicPartition]]:
    consumer = KafkaConsumer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers, enable_auto_commit=False)
    keys = [TopicPartition(pipeline.settings.kafka_topic, partition) for partition in (0, 1)]
    consumer.assign(keys)
    return consumer, keys


def count_messages(pipeline: Pipeline) -> int:
    """How many messages the topic holds now."""
    consumer, keys = consumer_of(pipeline)
    with contextlib.closing(consumer):
        return sum(consumer.end_offsets(keys).values())


def messages_of(pipeline: Pipeline) -> list[Any]:
    """Every record of the topic, to which nobody sends any more."""
    consumer, keys = consumer_of(pipeline)
    with contextlib.closing(consumer):
        consumer.seek_to_beginning(*keys)
        expected = sum(consumer.end_offsets(keys).values())
        records: list[Any] = []
        deadline = time.monotonic() + 30
        while len(records) < expected and time.monotonic() < deadline:
            for found in consumer.poll(timeout_ms=500).values():
                records += found
    assert len(records) == expected
    return records


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def assert_one_error_line(done: "subprocess.CompletedProcess[str]", pattern: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.search(pattern, line), line
    assert line.startswith("error: ")


@integration
def test_a_round_is_one_message_with_a_tick_of_every_company(pipeline: Pipeline, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    summary = tmp_path / "totals.json"
    topic = pipeline.settings.kafka_topic
    done = producer(pipeline, topic, "--rounds", "30", "--rounds-per-second", "0", "--summary", str(summary))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "sent 30 messages, 300 ticks, 300 acknowledged"
    assert json.loads(summary.read_text()) == {
        "messages": 30,
        "ticks": 300,
        "acknowledged_messages": 30,
        "acknowledged_ticks": 300,
    }
    records = messages_of(pipeline)
    assert Counter(record.partition for record in records) == {0: 15, 1: 15}
    profile = {
        ticker: (sector, shares)
        for ticker, sector, shares in pipeline.rows("SELECT ticker, sector, shares FROM profile")
    }
    ids = set()
    for record in records:
        ticks = json.loads(record.value)
        assert {one["ticker"] for one in ticks} == set(profile)
        for one in ticks:
            sector, shares = profile[one["ticker"]]
            assert (one["sector"], one["market_cap"]) == (sector, one["price"] * shares)
            assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", one["created_at"])
            made = datetime.fromisoformat(one["created_at"]).replace(tzinfo=UTC)
            assert -0.001 <= (made - before).total_seconds() < 120
            ids.add(one["id"])
    assert len(ids) == 300


@integration
def test_a_seed_repeats_prices_but_never_ids(pipeline: Pipeline) -> None:
    topic = pipeline.settings.kafka_topic
    options = ("--rounds", "1", "--seed", "5")
    assert producer(pipeline, topic, *options).returncode == 0
    assert producer(pipeline, "send", topic, *options).returncode == 0
    (first, *more_first), (second, *more_second) = sorted(
        [[(one["id"], one["price"], one["volume"]) for one in json.loads(r.value)] for r in messages_of(pipeline)]
    )
    assert [values for _, *values in (first, *more_first)] == [values for _, *values in (second, *more_second)]
    assert first[0] != second[0]


@integration
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("rate", ["0", "0.01"])
def test_a_stop_flushes_and_exits_0(pipeline: Pipeline, number: signal.Signals, rate: str) -> None:
    process = start(pipeline, pipeline.settings.kafka_topic, "--rounds-per-second", rate)
    wait_for(lambda: count_messages(pipeline) > 0)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    sent = count_messages(pipeline)
    assert out.splitlines()[-1] == f"sent {sent:,} messages, {10 * sent:,} ticks, {10 * sent:,} acknowledged"


@integration
def test_a_company_seeded_meanwhile_trades_without_a_restart(pipeline: Pipeline) -> None:
    process = start(pipeline, pipeline.settings.kafka_topic, "--rounds-per-second", "20")
    wait_for(lambda: count_messages(pipeline) > 0)
    pipeline.execute(NEW_COMPANY)
    time.sleep(LOOK_SECONDS + 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0

    companies = [{one["ticker"] for one in json.loads(record.value)} for record in messages_of(pipeline)]
    assert [len(tickers) for tickers in companies if "NEW.JK" not in tickers] != []
    assert {len(tickers) for tickers in companies if "NEW.JK" in tickers} == {11}


@integration
def test_a_replay_keeps_ids_and_tells_of_bad_lines(pipeline: Pipeline, tmp_path: Path) -> None:
    ticks = [tick(1), tick(2), tick(3, "2026-03-02 03:04:06.000")]
    path = write_lines(tmp_path / "ticks.jsonl", *ticks[:2], "{broken", ticks[2])
    done = producer(pipeline, "replay", str(path), pipeline.settings.kafka_topic, "--as-fast-as-possible")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["sent 2 messages, 3 ticks, 3 acknowledged"]
    report, error = done.stderr.splitlines()
    assert report.startswith(f"{path}, line 3: ")
    assert error == f"error: 1 of 4 ticks of {path} were bad and not sent"
    sent = [json.loads(record.value) for record in messages_of(pipeline)]
    assert sorted(sent, key=len) == [ticks[2:], ticks[:2]]


@integration
def test_watch_prints_what_arrives(pipeline: Pipeline) -> None:
    topic = pipeline.settings.kafka_topic
    pipeline.send([[1]], partition=1)
    process = start(pipeline, "watch", topic, "--messages", "2")
    assert process.stderr is not None
    assert process.stderr.readline() == f"watching {topic}, 2 partitions; Ctrl-C ends\n"
    pipeline.send([[2], b"\xff"], partition=1)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [line.split("  ")[1:] for line in out.splitlines()] == [["1", "1", "[2]"], ["1", "2", "\\xff"]]
    done = producer(pipeline, "watch", topic, "--from-beginning", "--messages", "1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  1  0  \[1\]", done.stdout.strip())


@integration
def test_ctrl_c_ends_watch_quietly(pipeline: Pipeline) -> None:
    process = start(pipeline, "watch", pipeline.settings.kafka_topic)
    assert process.stderr is not None
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


@integration
def test_what_only_the_user_can_mend_is_one_line_and_exit_2(pipeline: Pipeline) -> None:
    topic = pipeline.settings.kafka_topic
    assert_one_error_line(producer(pipeline, f"{topic}_2"), f"TOPIC is '{topic}_2'; it should be a topic of ")
    unreachable = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    assert_one_error_line(producer(pipeline, topic, **unreachable), r"Kafka at 127\.0\.0\.1:1 .* does not answer")
    assert_one_error_line(producer(pipeline, topic, PRODUCER_MYSQL_PASSWORD="wrong"), "PRODUCER_MYSQL_USER is 't")
    pipeline.execute("DELETE FROM profile")
    assert_one_error_line(producer(pipeline, topic), "run 'dbt seed'")
    pipeline.execute("DROP TABLE profile")
    assert_one_error_line(producer(pipeline, topic), "run 'dbt seed'")
    assert count_messages(pipeline) == 0


@integration
def test_an_unknown_topic_is_not_created(pipeline: Pipeline) -> None:
    name = f"{pipeline.settings.kafka_topic}_typo"
    producer(pipeline, name, "--rounds", "1")
    assert producer(pipeline, "watch", name).returncode == 2
    consumer = KafkaConsumer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers)
    assert name not in consumer.topics()
    consumer.close()


def test_every_command_explains_itself() -> None:
    for words in ([], ["send"], ["replay"], ["watch"]):
        done = subprocess.run(
            [sys.executable, "-m", "producer", *words, "--help"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0
        assert "python -m producer" in done.stdout
