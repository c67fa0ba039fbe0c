"""The producer as users run it: `python -m producer`, against a real broker; and reading files, which needs none."""

import contextlib
import csv
import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from confluent_kafka import Producer as ConfluentProducer
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from producer.bad_rows import FIRST_ROWS
from producer.companies import LOOK_SECONDS
from producer.pace import rounds
from producer.replay import MAX_TICKS_A_MESSAGE, TickFile, messages_in_time
from tests.support.batches import NEW_COMPANY
from tests.support.pipeline import Pipeline
from tests.support.poison import nested
from tickledger.counted import counted
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.settings import PROJECT_ROOT
from tickledger.tick import parse_created_at

HEADER = "ticker,created_at,id,volume,market_cap,price,sector"
COAL = {"ticker": "DWGL.JK", "sector": "Coal", "volume": 100, "price": 540, "market_cap": 5_005_800_000_000}


def tick(number: int, created_at: str = "2026-03-02 03:04:05.000", **changes: Any) -> dict[str, Any]:
    return {"id": number, "created_at": created_at} | COAL | changes


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def read(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The ticks, and of each bad row what was kept of it."""
    told: list[str] = []
    file = TickFile(path, told.append)
    ticks = [one for _, one in file]
    kept = [json.loads(line) for line in file.bad.file.read_text().splitlines()] if file.bad.counts else []
    assert (file.ticks, file.bad.counts.total()) == (len(ticks), len(kept))
    assert len(told) == 1 + min(len(kept), FIRST_ROWS)
    return ticks, [f"{one['place']}: {one['detail']}" for one in kept]


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


ROW = "DWGL.JK,2026-03-02 03:04:05.000,1,100,5005800000000,540,Coal"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "header", [HEADER, "Ticker,Created At,ID,Volume,MarketCap,PRICE,Sector", HEADER.replace(",", " , ")]
)
def test_a_csv_is_read_with_its_own_delimiter_and_spelling_of_the_columns(
    tmp_path: Path, header: str, delimiter: str
) -> None:
    path = write_lines(tmp_path / "a.csv", "", *(text.replace(",", delimiter) for text in (header, ROW)))
    assert read(path) == ([tick(1)], [])


def test_numbers_are_read_as_pandas_writes_them(tmp_path: Path) -> None:
    frame = pd.DataFrame([tick(1), tick(2, price=540.5)]).astype({"volume": float, "market_cap": float, "id": float})
    frame.to_csv(tmp_path / "a.csv")
    frame.to_json(tmp_path / "a.json", orient="records")
    frame.to_json(tmp_path / "b.json", orient="records", indent=2)
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    assert "100.0" in (tmp_path / "a.csv").read_text()
    for path in tmp_path.iterdir():
        ticks, bad = read(path)
        assert (ticks, bad) == ([tick(1), tick(2, price=540.5)], [])
        assert {type(one[name]) for one in ticks for name in ("id", "volume", "market_cap")} == {int}


def test_a_float_that_has_lost_digits_is_no_id(tmp_path: Path) -> None:
    _, (bad,) = read(write_lines(tmp_path / "a.jsonl", tick(1, id=float(2**62))))
    assert "id is a number (4.611686018427388e+18); it should be a whole number" in bad


def test_a_float_that_may_have_been_its_neighbour_is_no_id(tmp_path: Path) -> None:
    """2⁵³ + 1 is read as 2⁵³."""
    path = tmp_path / "a.jsonl"
    rows = [json.dumps(tick(1)).replace('"id": 1', f'"id": {2**53 + more}.0') for more in (-1, 1)]
    path.write_text("\n".join(rows))
    ticks, (bad,) = read(path)
    assert [one["id"] for one in ticks] == [2**53 - 1]
    assert "id is a number (9007199254740992.0); it should be a whole number" in bad


LAYOUTS: dict[str, Callable[[list[Any]], str]] = {
    "an array": json.dumps,
    "an array laid out": lambda ticks: json.dumps(ticks, indent=2),
    "an array in an object": lambda ticks: json.dumps({"more": {"a": []}, "ticks": ticks}),
    "an array in an object laid out": lambda ticks: json.dumps({"more": 1, "ticks": ticks}, indent="\t"),
    "an object a tick, laid out": lambda ticks: "\n".join(json.dumps(one, indent=2) for one in ticks),
    "an array a line": lambda ticks: "\n".join(json.dumps([one]) for one in ticks),
    "an array of arrays": lambda ticks: json.dumps([[one] for one in ticks], indent=1),
    "an array, a tick a line": lambda ticks: "[\n" + ",\n".join(json.dumps(one) for one in ticks) + "\n]",
    "lines": lambda ticks: "\r\n".join(json.dumps(one) for one in ticks),
}


@pytest.mark.parametrize("begins", ["", "\ufeff", "\n"], ids=["", "byte order mark", "empty line"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_json_is_read_in_every_layout(tmp_path: Path, layout: Callable[[list[Any]], str], begins: str) -> None:
    ticks = [tick(1), tick(2, price=540.5), tick(3)]
    plain, packed = tmp_path / "a.json", tmp_path / "a.json.gz"
    plain.write_text(begins + layout(ticks))
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read(plain) == read(packed) == (ticks, [])


def test_keys_of_json_may_be_spelt_as_columns_are(tmp_path: Path) -> None:
    spelt = {name.title().replace("_", " "): value for name, value in tick(1).items()}
    assert read(write_lines(tmp_path / "a.jsonl", spelt)) == ([tick(1)], [])


def test_a_document_is_read_up_to_where_it_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([tick(number) for number in range(1000)], indent=1)[:-50_000])
    ticks, (bad,) = read(path)
    assert len(ticks) > 500
    assert [one["id"] for one in ticks] == list(range(len(ticks)))
    assert re.match(rf"element {len(ticks) + 1}: it is no JSON", bad)


@pytest.mark.parametrize(
    "layout",
    [
        '{{"ticks":[{0}]}}\n{1}\n[{2}]\n',
        '{1}\n{{"ticks":[{0},{2}]}}\n',
        '{{"morning":[{0}]}}\n{{"afternoon":[{1}],"page":2,"night":[{2}]}}',
        '{{\n"ticks":[\n{0},\n{1}],\n"late":[{2}]}}',
        "[\n{0}\n]\n{1}\n{2}",
        "[{0}][{1}]{2}",
        "{0},\n{1},\n{2}\n",
        "[{0},\n{1},\n{2}]",
        '{{"page":1,\n"more":[[{0},{1}],{2}]}}',
    ],
)
def test_no_tick_of_json_is_left_out_however_values_are_mixed(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(layout.format(*(json.dumps(tick(number)) for number in range(3))))
    ticks, bad = read(path)
    assert (sorted(one["id"] for one in ticks), bad) == ([0, 1, 2], [])


@pytest.mark.parametrize("begins", ["[\n", ""])
def test_half_a_character_costs_its_row_alone(tmp_path: Path, begins: str) -> None:
    path = tmp_path / "a.json"
    rows = [json.dumps(tick(number)) for number in range(3)]
    rows[1] = rows[1].replace('.JK"', '\\ud83d"')
    path.write_text(begins + (",\n" if begins else "\n").join(rows) + ("\n]" if begins else ""))
    ticks, (bad,) = read(path)
    assert [one["id"] for one in ticks] == [0, 2]
    assert bad.startswith("element 2: a text holds half of a character" if begins else "line 2: ")


def test_a_point_that_may_part_thousands_is_no_number(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(line.replace(",", ";") for line in (HEADER, ROW, ROW.replace("540", "1.500"))))
    ticks, (bad,) = read(path)
    assert len(ticks) == 1
    assert re.match(r"line 3: price is '1.500', which is another number", bad)


def test_a_line_that_is_too_long_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    one = json.dumps(tick(1))
    path.write_text("\n".join([one, "[" + ",".join([one] * 130_000) + "]", one]))
    ticks, (bad,) = read(path)
    assert len(ticks) == 2
    assert bad == "line 2: it is longer than 16,777,216 characters"


@pytest.mark.parametrize("value", ["9" * 4000, '"\\udc00"', '"\\ud800"', str(2**64), "1e400", "[" * 900 + "]" * 900])
def test_a_document_is_read_past_a_value_that_no_tick_can_have(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.json"
    path.write_text("[\n" + ",\n".join([json.dumps(tick(1)), f'{{"id": {value}}}', json.dumps(tick(3))]) + "\n]")
    ticks, bad = read(path)
    assert [one["id"] for one in ticks if "ticker" in one] == [1, 3]
    assert len(ticks) + len(bad) == 3


@pytest.mark.parametrize("value", ["9" * 5000, "1e99999999999999999999", '"\n"', "'"])
def test_a_value_that_no_program_reads_ends_a_document_in_one_line(tmp_path: Path, value: str) -> None:
    path = tmp_path / "a.json"
    path.write_text("[\n" + json.dumps(tick(1)) + f",\n{value}\n]")
    ticks, (bad,) = read(path)
    assert ticks == [tick(1)]
    assert re.match(r"element 2: it is no JSON, nor can be read what follows: \S", bad)
    assert len(bad) < 200


def test_a_document_that_soon_breaks_is_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + ",\n".join([*(json.dumps(tick(number)) for number in range(20)), "oops"]) + "]")
    told: list[str] = []
    list(TickFile(path, told.append))
    assert told[0] == f"{path}: a JSON document"


def test_a_file_that_ends_in_the_middle_of_its_gzip_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\n".join([HEADER, *[ROW] * 20_000]).encode(), 0)[:-10])
    with pytest.raises(TickledgerError, match=r"a\.csv\.gz cannot be read to its end: Compressed file ended before"):
        read(path)


def test_the_sample_is_of_the_companies_of_the_seed() -> None:
    with (PROJECT_ROOT / "dbt_project" / "seeds" / "profile.csv").open() as seed:
        profile = {row["ticker"]: (row["sector"], int(row["shares"])) for row in csv.DictReader(seed)}
    ticks = [one for _, one in TickFile(PROJECT_ROOT / "producer" / "sample.csv", lambda _line: None)]
    assert len(ticks) == 60
    assert [(one["sector"], one["market_cap"]) for one in ticks] == [
        (profile[one["ticker"]][0], one["price"] * profile[one["ticker"]][1]) for one in ticks
    ]


def test_rows_that_are_bad_alike_are_summed_up(tmp_path: Path) -> None:
    told: list[str] = []
    path = write_lines(tmp_path / "a.jsonl", *[tick(number, volume="many") for number in range(2000)], tick(1), "{")
    file = TickFile(path, told.append)
    assert len(list(file)) == 1
    assert told[0] == f"{path}: JSON lines"
    assert [line.split(": ")[0] for line in told[1:]] == [f"{path}, line {number}" for number in range(1, 6)]
    assert file.bad.summary() == f"2,000 wrong_type, 1 not_json; they stand in {path}.bad.jsonl"


def test_bad_rows_that_cannot_be_kept_are_still_counted(tmp_path: Path) -> None:
    told: list[str] = []
    path = write_lines(tmp_path / "a.jsonl", "{not json", tick(1))
    (tmp_path / "a.jsonl.bad.jsonl").mkdir()
    file = TickFile(path, told.append)
    assert len(list(file)) == 1
    assert told[1] == f"the bad rows are not kept: {path}.bad.jsonl cannot be written: Is a directory"
    assert file.bad.summary() == "1 not_json"


def test_a_bad_row_that_is_nested_deeply_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([nested(1_010, b'{"a":', b"}", b"1"), json.dumps(tick(1)).encode()]))
    file = TickFile(path, lambda _line: None)
    assert [one for _, one in file] == [tick(1)]
    (kept,) = map(json.loads, file.bad.file.read_text().splitlines())
    assert (kept["place"], kept["reason"]) == ("line 1", "missing_field")


@pytest.mark.parametrize(
    ("lines", "last", "detail"),
    [(1_000, 1_000, "it has 7 values for 8 columns"), (4_000, 2_200, "field larger than field limit")],
    ids=["a row", "longer than a field may be"],
)
def test_a_quote_that_is_not_closed_is_told_with_all_of_its_lines(
    tmp_path: Path, lines: int, last: int, detail: str
) -> None:
    path = tmp_path / "a.csv"
    good = "DWGL.JK,2026-03-02 03:04:05.000,1,100,5005800000000,540,Coal,"
    path.write_text("\n".join([f"{HEADER},note", good, good.replace("Coal", '"Coal'), *[good] * (lines - 3), ""]))
    told: list[str] = []
    file = TickFile(path, told.append)
    list(file)
    place, _, why = told[1].removeprefix(f"{path}, ").partition(": ")
    assert re.fullmatch(r"lines 3 to \d+", place)
    assert int(place.split()[-1]) <= last
    assert why.startswith(detail)
    assert why.endswith("; a quote that line 3 opens makes one row of them")


@pytest.mark.slow
def test_a_large_file_is_read_in_bounded_memory(tmp_path: Path) -> None:
    ticks = [
        tick(number, f"2026-03-02 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.{number % 997:03}")
        for number in range(10_000)
    ]
    frame = pd.DataFrame(ticks)
    frame.to_csv(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text(json.dumps(ticks))
    (tmp_path / "b.json").write_text(json.dumps({"ticks": ticks}))
    del frame, ticks
    for path in tmp_path.iterdir():
        tracemalloc.start()
        count = sum(1 for _ in TickFile(path, lambda _line: None))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 10_000
        # Its ticks as objects take over 8 MB.
        assert peak < 5e6, path


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
        b"DWGL.JK,2026-03-02 03:04:05.000,5,100,1,540,Coal, Oil\n",
        b"x" * 200_000 + b"\n",
    ]
    path.write_bytes(b"".join([f"{HEADER}\n{good.format(1)}".encode(), *bad, good.format(6).encode()]))
    ticks, reports = read(path)
    assert [one["id"] for one in ticks] == [1, 6]
    assert [report.split(":")[0] for report in reports] == [f"line {number}" for number in range(3, 9)]
    assert "it has 3 values for 7 columns" in reports[1]
    assert "not UTF-8" in reports[2]
    assert "it has 8 values for 7 columns" in reports[4]


def test_what_only_the_profile_can_judge_is_sent(tmp_path: Path) -> None:
    stranger = tick(1, ticker="NOBODY.JK", sector="Dreams")
    assert read(write_lines(tmp_path / "a.jsonl", stranger)) == ([stranger], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 200_000, "its first line should name the columns ticker, created_at"),
        (b"\x89PNG\r\n\x1a\n\xff\x00", "its first line should name the columns ticker, created_at"),
        (b"\x1c\n", "its first line should name the columns ticker"),
        (b" \n", "it is empty and should hold ticks as CSV or JSON"),
        (
            b"Ticker;Created;ID;Volume;Market Cap;Price\n",
            "its first line should name the columns created_at, sector, and is"
            " 'Ticker', 'Created', 'ID', 'Volume', 'Market Cap', 'Price'",
        ),
        (f"{HEADER},Price\n".encode(), "its columns 'price' and 'Price' could both be price"),
        (HEADER.encode("utf-16"), "it is UTF-16 and should be UTF-8"),
        (gzip.compress(b"x" * 9999)[:20], "it cannot be read: Compressed file ended"),
        (gzip.compress(b"")[:2] + b"no gzip", "it cannot be read: "),
    ],
    ids=range(9),
)
def test_a_file_that_cannot_be_one_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
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
    assert [len(message) for message, _ in messages] == [MAX_TICKS_A_MESSAGE, 2]
    assert messages[-1][1] < 5


def test_ticks_that_are_due_together_share_a_message() -> None:
    moments = [f"2026-03-02 03:00:00.{ms:03}" for ms in (0, 1, 20, 21, 40, 41)]
    messages = in_time(moments, 1.0, threading.Event())
    assert [ids for ids, _ in messages] == [[0], [1, 2], [3, 4], [5]]
    assert all(at >= 0.02 * number for number, (_, at) in enumerate(messages)), "none goes ahead of its time"
    assert [ids for ids, _ in in_time(moments, 10.0, threading.Event())] == [[0], [1, 2, 3, 4, 5]]


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
    assert out.splitlines()[-1] == f"sent {counted(sent, 'message')}, {10 * sent:,} ticks, {10 * sent:,} acknowledged"


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
    done = producer(pipeline, "replay", str(path), pipeline.settings.kafka_topic)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["sent 2 messages, 3 ticks, 3 acknowledged"]
    found, report, error = done.stderr.splitlines()
    assert found == f"{path}: JSON lines"
    assert report.startswith(f"{path}, line 3: ")
    kept = f"1 not_json; they stand in {path}.bad.jsonl"
    assert error == f"error: 1 of 4 rows of {path} were bad and not sent: {kept}"
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
@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_watch_reads_whatever_compression_others_use(pipeline: Pipeline, codec: str) -> None:
    send_compressed(pipeline, codec)
    done = producer(pipeline, "watch", pipeline.settings.kafka_topic, "--from-beginning", "--messages", "1")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert done.stdout.rstrip().endswith(f"  0  0  {LONG_VALUE}")


@integration
def test_watch_prints_the_bare_number_of_a_time_that_no_calendar_has(pipeline: Pipeline) -> None:
    """Such as that of a producer that counts microseconds, which Kafka takes where the topic does."""
    topic = pipeline.settings.kafka_topic
    pipeline.configure_topic(message_timestamp_after_max_ms=str(2**63 - 1))
    client = KafkaProducer(bootstrap_servers=pipeline.settings.kafka_bootstrap_servers)
    with contextlib.closing(client):
        client.send(topic, b"[]", partition=0, timestamp_ms=1_772_420_645_000_000).get(timeout=30)
    done = producer(pipeline, "watch", topic, "--from-beginning", "--messages", "1")
    assert (done.returncode, done.stdout) == (0, "1772420645000000 ms  0  0  []\n"), done.stderr


@integration
def test_watch_names_a_codec_that_is_missing(pipeline: Pipeline, tmp_path: Path) -> None:
    send_compressed(pipeline, "zstd")
    (tmp_path / "zstandard.py").write_text("raise ImportError")
    words = ("watch", pipeline.settings.kafka_topic, "--from-beginning", "--messages", "1")
    done = producer(pipeline, *words, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert re.search(r"\nerror: a message of ticks_\w+ cannot be read: .*zstd.*\n$", done.stderr), done.stderr


#: Long enough to be sent compressed.
LONG_VALUE = json.dumps(["of another producer"] * 100)


def send_compressed(pipeline: Pipeline, codec: str) -> None:
    # librdkafka: what others write is not to be written by the library that reads it.
    other = ConfluentProducer(
        {"bootstrap.servers": pipeline.settings.kafka_bootstrap_servers, "compression.type": codec}
    )
    other.produce(pipeline.settings.kafka_topic, LONG_VALUE.encode(), partition=0)
    assert other.flush(30) == 0


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
    assert_one_error_line(producer(pipeline, topic), "'dbt seed'")
    pipeline.execute("DROP TABLE profile")
    assert_one_error_line(producer(pipeline, topic), "'dbt seed'")
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
