"""A feed's description says what its messages become; what is wrong with one is told with its line."""

import json
import pickle
import re
import sys
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands.feed import PROFILE, outcomes, seeded_companies
from commands.main import main
from producer.feed_replay import FeedFile
from producer.market import Company as producer_company
from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import whole
from tests.support.poison import BAD_TICKS, GOOD, ODD_BUT_GOOD, UNREADABLE, message, mutated
from tickledger.decode import Decoded, Decoder
from tickledger.errors import ConfigurationError
from tickledger.feed import LABS_HEAD, LABS_TAIL, Feed, read_feed
from tickledger.feed_file import LINES_A_MESSAGE, file_messages
from tickledger.revisions import TickValues
from tickledger.settings import ENV_FILE_VARIABLE, PROJECT_ROOT, load_settings
from tickledger.tick import Tick, ms_to_datetime, parse_created_at

FEEDS = PROJECT_ROOT / "feeds"
SAMPLES = FEEDS / "samples"
#: A day after the samples were traded.
NOW_MS = parse_created_at("2024-08-27 02:00:00")
COMPANIES = seeded_companies(PROFILE)
SECTORS = {ticker: company.sector for ticker, company in COMPANIES.items()}
SHARES = {ticker: company.shares for ticker, company in COMPANIES.items()}


def ready(name: str) -> Feed:
    """A ready description."""
    return read_feed(FEEDS / f"{name}.yml")


def described(tmp_path: Path, text: str) -> Feed:
    """A description of these lines."""
    path = tmp_path / "feed.yml"
    path.write_text(text)
    return read_feed(path)


def decode(feed: Feed, value: bytes, message_ms: int = NOW_MS) -> Decoded:
    return Decoder(SECTORS, feed=feed, shares=SHARES).decode(value, message_ms)


def only_tick(feed: Feed, value: bytes) -> Tick:
    decoded = decode(feed, value)
    assert decoded.dead == []
    ((_, tick),) = decoded.ticks
    return tick


#: What each sample becomes, element by element.
OUTCOMES: dict[str, list[str]] = {
    "lab.jsonl": ["tick", "tick", "correction", "cancellation"],
    "one-object.jsonl": [
        *("tick", "tick", "correction", "cancellation", "unknown_ticker", "bad_revision", "bad_time", "wrong_type"),
    ],
    "finnhub.jsonl": ["tick", "tick", "wrong_type", "unknown_ticker", "no_ticks"],
    "binance.jsonl": ["tick", "tick", "wrong_type", "no_ticks"],
    "vendor-csv.csv": ["tick", "tick", "tick", "correction", "cancellation", "bad_time", "other_columns"],
}


@pytest.mark.parametrize("sample", OUTCOMES)
def test_each_sample_becomes_what_its_description_says(sample: str) -> None:
    with (SAMPLES / sample).open("rb") as stream:
        messages = file_messages(feed := ready(sample.partition(".")[0]), stream)
        found = [one for _, some in outcomes(feed, messages, COMPANIES, NOW_MS) for one in some]

    assert [one.reason or one.becomes for one in found] == OUTCOMES[sample]


def test_the_description_in_the_docs_holds(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (PROJECT_ROOT / "docs" / "feeds.md").read_text(), re.DOTALL)

    assert described(tmp_path, text).name == "mine"


def test_every_ready_description_has_a_sample() -> None:
    assert {path.stem for path in FEEDS.glob("*.yml")} == {name.partition(".")[0] for name in OUTCOMES}
    assert {path.name for path in SAMPLES.iterdir()} == {*OUTCOMES}


def test_a_tick_of_each_ready_feed_is_the_tick_that_was_traded() -> None:
    one = only_tick(ready("one-object"), (SAMPLES / "one-object.jsonl").read_bytes().splitlines()[0])
    binance = only_tick(ready("binance"), (SAMPLES / "binance.jsonl").read_bytes().splitlines()[0])

    assert (one.ticker, str(ms_to_datetime(one.created_ms)), one.id) == ("TMAS.JK", "2024-08-26 02:00:01.500000", 7001)
    assert (one.price, one.volume) == (Decimal("550.0000000000000000001"), 1200)
    assert one.market_cap == one.price * SHARES["TMAS.JK"]
    assert one.sector == SECTORS["TMAS.JK"]
    assert (binance.ticker, binance.created_ms, binance.id) == ("TMAS.JK", 1724637601500, 900001)
    assert (binance.price, binance.volume, binance.market_cap, binance.extra) == (550.25, 1146700, 0, '{"m":true}')


POISON = [
    *(value for value, _ in UNREADABLE.values()),
    *(value for value, *_ in BAD_TICKS.values()),
    *ODD_BUT_GOOD.values(),
]


@pytest.mark.parametrize("value", POISON)
def test_the_labs_description_says_what_is_done_without_one(value: bytes | None) -> None:
    sectors, message_ms = {GOOD["ticker"]: GOOD["sector"]}, parse_created_at(GOOD["created_at"]) + 1000

    by_it = Decoder(sectors, feed=ready("lab")).decode(value, message_ms)
    without = Decoder(sectors).decode(value, message_ms)

    assert by_it.ticks == without.ticks
    # null and no value are one to a description.
    reasons = [letter.reason.replace("null_field", "missing_field") for letter in without.dead]
    assert [letter.reason for letter in by_it.dead] == reasons
    assert [(letter.position, letter.raw_value) for letter in by_it.dead] == [
        (letter.position, letter.raw_value) for letter in without.dead
    ]


def sample_messages(name: str) -> list[bytes]:
    """The messages of a ready feed's sample."""
    (path,) = SAMPLES.glob(f"{name}.*")
    with path.open("rb") as stream:
        return [one.value for one in file_messages(ready(name), stream)]


@pytest.mark.parametrize("name", ["lab", "one-object", "finnhub", "binance", "vendor-csv"])
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_messages_at_once_become_what_they_become_alone(name: str, seeds: list[int]) -> None:
    feed, good = ready(name), sample_messages(name)
    values = [mutated(Random(seed), good[seed % len(good)]) if seed % 3 else good[seed % len(good)] for seed in seeds]

    decoder = ColumnDecoder(SECTORS, feed=feed, shares=SHARES)
    at_once = decoder.decode(whole(range(len(values))), whole([NOW_MS] * len(values)), values)

    alone = [decode(feed, value) for value in values]
    found = list(zip(at_once.ticks.ticks(), at_once.ticks.offset.tolist(), strict=True))
    assert found == [(tick, offset) for offset, one in enumerate(alone) for _, tick in one.ticks]
    assert at_once.dead == {(offset, dead.position): dead for offset, one in enumerate(alone) for dead in one.dead}
    assert at_once.revisions == {(offset, at): one for offset, some in enumerate(alone) for at, one in some.revisions}


@pytest.mark.parametrize("name", ["lab", "one-object", "finnhub", "binance", "vendor-csv"])
def test_what_a_dead_letter_keeps_can_be_sent_again(name: str) -> None:
    feed = ready(name)
    dead = [letter for value in sample_messages(name) for letter in decode(feed, value).dead]
    assert dead or name == "lab"

    for letter in dead:
        again = letter.raw_value if letter.position < 0 else feed.message_of(letter.raw_value)
        (found,) = decode(feed, again).dead
        assert (found.reason, found.detail) == (letter.reason, letter.detail)


@pytest.mark.parametrize("name", ["lab", "one-object", "finnhub", "binance", "vendor-csv"])
def test_a_person_may_say_that_a_tick_corrects_another_whatever_marks_one_in_its_feed(name: str) -> None:
    decoder = Decoder(SECTORS, feed=ready(name), shares=SHARES)
    value = sample_messages(name)[0]
    before = decoder.decode(value, NOW_MS)
    last, tick = before.ticks[-1]

    after = decoder.decode(decoder.as_corrections(value, {last}), NOW_MS)

    assert after.ticks == before.ticks[:-1]
    assert after.dead == before.dead
    assert len(after.revisions) == len(before.revisions) + 1
    one = dict(after.revisions)[last]
    assert (one.kind, one.ticker, one.created_ms, one.id) == ("correction", tick.ticker, tick.created_ms, tick.id)
    assert (one.values, one.extra) == (TickValues(*tick[3:7], tick.own), tick.extra)
    assert one.revised_ms == NOW_MS


def test_what_a_person_says_is_newer_than_what_the_copy_said_of_its_own_time() -> None:
    decoder = Decoder(SECTORS)
    value = json.dumps([GOOD | {"revised_at": "2024-08-26 00:00:00"}]).encode()

    ((_, one),) = decoder.decode(decoder.as_corrections(value, {0}), NOW_MS).revisions

    assert one.revised_ms == NOW_MS


BASE = """\
name: some
messages: object
fields:
  ticker: s
  created_at: {path: t, time: epoch_ms}
  id: i
  volume: v
  market_cap: {constant: 0}
  price: p
  sector: from_profile
"""
ELEMENT = {"s": "TMAS.JK", "t": 1724637601500, "i": 7, "v": 100, "p": 550}


def tick_with(tmp_path: Path, line: str, instead_of: str, **changes: Any) -> Tick:
    """The tick of an element with changes, read with one line of the description changed."""
    assert instead_of in BASE
    return only_tick(described(tmp_path, BASE.replace(instead_of, line)), json.dumps(ELEMENT | changes).encode())


@pytest.mark.parametrize(
    ("time", "value", "expected"),
    [
        ("time: epoch_s", 1724637601, "2024-08-26 02:00:01"),
        ("time: epoch_s", 1724637601.567, "2024-08-26 02:00:01.567"),
        ("time: epoch_ms", "1724637601567", "2024-08-26 02:00:01.567"),
        ("time: epoch_us", 1724637601567999, "2024-08-26 02:00:01.567"),
        ("time: epoch_ns", 1724637601567999999, "2024-08-26 02:00:01.567"),
        ("time: iso", "2024-08-26T09:00:01.567+07:00", "2024-08-26 02:00:01.567"),
        ("zone: Asia/Jakarta", "2024-08-26 09:00:01.567", "2024-08-26 02:00:01.567"),
        ("zone: Asia/Jakarta", "2024-08-26T02:00:01.567Z", "2024-08-26 02:00:01.567"),
        ('time: "%Y%m%d-%H:%M:%S.%f"', "20240826-02:00:01.567000123", "2024-08-26 02:00:01.567"),
        ('time: "%m/%d/%Y %I:%M:%S %p", zone: America/New_York', "07/15/2024 10:00:01 PM", "2024-07-16 02:00:01"),
        ('time: "%Y-%m-%d %H:%M:%S %z"', "2024-08-26 09:00:01 +0700", "2024-08-26 02:00:01"),
    ],
)
def test_a_time_is_read_as_it_is_written(tmp_path: Path, time: str, value: Any, expected: str) -> None:
    tick = tick_with(tmp_path, f"{{path: t, {time}}}", "{path: t, time: epoch_ms}", t=value)

    assert tick.created_ms == parse_created_at(expected)


@pytest.mark.parametrize(
    ("time", "value", "reason", "says"),
    [
        ("time: epoch_ms", "soon", "bad_time", "it should be a number of ms since 1970"),
        ("time: epoch_ms", True, "bad_time", "created_at is True"),
        ("time: epoch_s", 1724637601500, "out_of_range", "from 1970 to 2199"),
        ("time: epoch_s", -1, "out_of_range", "from 1970 to 2199"),
        ("time: epoch_ns", 1e300, "out_of_range", "from 1970 to 2199"),
        ("zone: America/New_York", "2024-11-03 01:30:00", "bad_time", "America/New_York showed that time twice"),
        ("zone: America/New_York", "2024-03-10 02:30:00", "bad_time", "America/New_York showed that time never"),
        ("zone: Asia/Jakarta", "9" * 500, "bad_time", "created_at is '999"),
        ('time: "%d/%m/%Y %H:%M"', "2024-08-26", "bad_time", "does not match format"),
        ('time: "%d/%m/%Y %H:%M"', 7, "wrong_type", "created_at is a number (7)"),
        ("time: epoch_ms", None, "missing_field", "created_at is missing"),
    ],
)
def test_a_time_that_is_none_is_a_dead_letter(tmp_path: Path, time: str, value: Any, reason: str, says: str) -> None:
    feed = described(tmp_path, BASE.replace("time: epoch_ms", time))

    (letter,) = decode(feed, json.dumps(ELEMENT | {"t": value}).encode()).dead

    assert letter.reason == reason
    assert says in letter.detail


@pytest.mark.parametrize(
    ("line", "instead_of", "changes", "name", "expected"),
    [
        ("price: {path: p, number: text}", "price: p", {"p": "550.50"}, "price", 550.5),
        ("price: {path: p, number: text}", "price: p", {"p": " 7 "}, "price", 7),
        ("price: {path: p, number: text}", "price: p", {"p": 550.5}, "price", 550.5),
        ("price: {path: p, number: text, decimal_point: ','}", "price: p", {"p": "550,5"}, "price", 550.5),
        ("price: {path: p, number: text}", "price: p", {"p": "0.1234567890123456789"}, "price",
         Decimal("0.1234567890123456789")),
        ("price: {path: p, times: 100}", "price: p", {"p": 5.505}, "price", 550.5),
        ("volume: {path: v, times: 1000}", "volume: v", {"v": 0.014}, "volume", 14),
        ("volume: {path: v, number: text}", "volume: v", {"v": "100.0"}, "volume", 100),
        ("id: {path: i, number: text}", "id: i", {"i": "9223372036854775807"}, "id", 2**63 - 1),
        ("ticker: {path: s, values: {TMAS: TMAS.JK}}", "ticker: s", {"s": "TMAS"}, "ticker", "TMAS.JK"),
        ("ticker: {path: s, values: {7: TMAS.JK}}", "ticker: s", {"s": 7}, "ticker", "TMAS.JK"),
        ("ticker: {first_of: [x, s]}", "ticker: s", {"x": ""}, "ticker", "TMAS.JK"),
        ("ticker: a.b", "ticker: s", {"a": {"b": "TMAS.JK"}}, "ticker", "TMAS.JK"),
        ("market_cap: {constant: 12.5}", "market_cap: {constant: 0}", {}, "market_cap", 12.5),
        ("sector: {constant: Coal}", "sector: from_profile", {"s": "DWGL.JK"}, "sector", "Coal"),
    ],
)  # fmt: skip
def test_a_value_is_read_as_it_is_written(
    tmp_path: Path, line: str, instead_of: str, changes: dict[str, Any], name: str, expected: Any
) -> None:
    tick = tick_with(tmp_path, line, instead_of, **changes)

    assert getattr(tick, name) == expected
    assert type(getattr(tick, name)) is type(expected)


@pytest.mark.parametrize("text", ["", "NaN", "1e", "0x10", "١٢", "1_000", "1,000", "1" * 200, "--1"])
def test_a_text_that_is_no_number_is_a_dead_letter(tmp_path: Path, text: str) -> None:
    feed = described(tmp_path, BASE.replace("price: p", "price: {path: p, number: text}"))

    (letter,) = decode(feed, json.dumps(ELEMENT | {"p": text}).encode()).dead

    assert letter.reason in ("wrong_type", "missing_field", "out_of_range")


def test_an_id_of_what_a_trade_is_made_of_is_the_same_each_time(tmp_path: Path) -> None:
    feed = described(tmp_path, BASE.replace("id: i", "id: {digest_of: [s, t, p]}"))

    one, same, other = (
        only_tick(feed, json.dumps(ELEMENT | {"i": i, "p": p}).encode()).id for i, p in [(1, 5), (2, 5), (1, 6)]
    )

    assert one == same != other
    assert 0 <= one < 2**63


@pytest.mark.parametrize(
    ("unknown_fields", "extra"), [("keep", '{"a":{"y":2},"side":"B"}'), ("ignore", None), ("refuse", "dead")]
)
def test_a_field_that_nobody_described_is_kept_ignored_or_refused(
    tmp_path: Path, unknown_fields: str, extra: str | None
) -> None:
    text = BASE.replace("price: p", "price: a.p") + f"unknown_fields: {unknown_fields}\nignored: [p]\n"
    decoded = decode(described(tmp_path, text), json.dumps(ELEMENT | {"a": {"p": 5, "y": 2}, "side": "B"}).encode())

    if extra == "dead":
        assert [(letter.reason, letter.detail) for letter in decoded.dead] == [
            ("unknown_field", "the feed's description does not name 'a', 'side'")
        ]
    else:
        assert [tick.extra for _, tick in decoded.ticks] == [extra]


def test_what_stands_around_the_ticks_is_kept_with_each_or_read(tmp_path: Path) -> None:
    text = BASE.replace("ticker: s", "ticker: /about.symbol") + "ticks: rows.new\n"
    element = {name: value for name, value in ELEMENT.items() if name != "s"}
    value = {"about": {"symbol": "TMAS.JK", "lot": 1}, "rows": {"new": [element, element | {"i": 8}]}, "seq": 4}

    decoded = decode(described(tmp_path, text), json.dumps(value).encode())

    assert [(tick.ticker, tick.id, tick.extra) for _, tick in decoded.ticks] == [
        ("TMAS.JK", 7, '{"/":{"about":{"lot":1},"seq":4}}'), ("TMAS.JK", 8, '{"/":{"about":{"lot":1},"seq":4}}')
    ]  # fmt: skip


def test_an_envelope_keeps_a_dead_letter_as_a_message_of_its_own(tmp_path: Path) -> None:
    feed = described(tmp_path, BASE + "ticks: data\n")
    value = (
        b'{"a": [1, {"data": [0]}], "data": [7], "data": [ '
        + b", ".join(json.dumps(ELEMENT | {"i": i}).encode() for i in (1, -1, 2))
        + b' ], "z": "]"}'
    )

    decoded = decode(feed, value)

    assert [tick.id for _, tick in decoded.ticks] == [1, 2]
    (letter,) = decoded.dead
    assert json.loads(letter.raw_value) == {"a": [1, {"data": [0]}], "data": [ELEMENT | {"i": -1}], "z": "]"}


@pytest.mark.parametrize("around", [10, 2_000_000])
def test_a_message_that_is_mostly_envelope_is_kept_within_bounds(tmp_path: Path, around: int) -> None:
    feed = described(tmp_path, BASE + "ticks: data\nignored: [/x]\n")
    value = json.dumps({"x": "x" * around, "data": [ELEMENT | {"v": -1}] * 20 + [ELEMENT] * 60}).encode()

    decoded = decode(feed, value)

    assert sum(len(letter.raw_value) for letter in decoded.dead) <= 2 * len(value) + 10_000
    assert [letter.reason for letter in decoded.dead] == (
        ["out_of_range"] * 20 if around == 10 else ["too_many_broken"]
    )


@pytest.mark.parametrize("messages", ["array", "object", "lines", "csv"])
def test_a_message_of_too_many_values_is_not_read(tmp_path: Path, messages: str) -> None:
    feed = described(tmp_path, BASE.replace("object", messages))
    value = {
        "array": b"[" + b"0," * 1_000_001 + b"0]",
        "object": b'{"data": [' + b"0," * 1_000_001 + b"0]}",
        "lines": b"0\n" * 1_000_001,
        "csv": b"s,t,i,v,p\n" + b"0,\n" * 500_001,
    }[messages]

    (letter,) = decode(feed, value).dead

    assert (letter.position, letter.reason) == (-1, "too_many_values")


def test_json_lines_land_line_by_line(tmp_path: Path) -> None:
    feed = described(tmp_path, BASE.replace("object", "lines"))
    good = json.dumps(ELEMENT).encode()

    decoded = decode(feed, good + b"\r\n\n{\n7\n" + good.replace(b'"i": 7', b'"i": 8') + b"\n")

    assert [(position, tick.id) for position, tick in decoded.ticks] == [(0, 7), (3, 8)]
    assert [(letter.position, letter.reason, letter.raw_value) for letter in decoded.dead] == [
        (1, "not_json", b"{"), (2, "not_an_object", b"7")
    ]  # fmt: skip


CSV = BASE.replace("object", "csv").replace("id: i", "id: {path: i, number: text}")


def test_csv_lands_row_by_row_whatever_its_quotes(tmp_path: Path) -> None:
    feed = described(tmp_path, CSV)
    value = '\ufeffp,s,t,i,v,"no, te"\r\n5,TMAS.JK,1724637601500,1,10,"a\r\nb"\n5,TMAS.JK,1724637601500,2,x,"a\nb"\n\n'
    decoded = decode(feed, value.encode())

    assert [(tick.id, tick.extra) for _, tick in decoded.ticks] == [(1, '{"no, te":"a\\r\\nb"}')]
    (letter,) = decoded.dead
    assert letter.raw_value.decode() == 'p,s,t,i,v,"no, te"\r\n5,TMAS.JK,1724637601500,2,x,"a\nb"\n'


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"s,t,i,v\n", "other_columns"),
        (b"s,t,i,v,p,p\n", "other_columns"),
        (b"s,t,i,v,p\n", "no_ticks"),
        (b"", "other_columns"),
        (b"\xff,t\n", "bad_utf8"),
        (None, "no_value"),
    ],
)
def test_csv_without_its_columns_is_one_dead_letter(tmp_path: Path, value: bytes, reason: str) -> None:
    assert [letter.reason for letter in decode(described(tmp_path, CSV), value).dead] == [reason]


def test_columns_may_stand_in_the_description(tmp_path: Path) -> None:
    feed = described(tmp_path, CSV + "csv: {delimiter: '|', columns: [s, t, i, v, p]}\n")

    for header in (b"", b"s|t|i|v|p\n"):
        assert only_tick(feed, header + b"TMAS.JK|1724637601500|7|100|550").price == 550


def test_a_file_is_cut_into_messages_between_rows(tmp_path: Path) -> None:
    feed, path = described(tmp_path, CSV), tmp_path / "rows.csv"
    # The last line of the first 500 opens a quote that the next one ends.
    notes = {LINES_A_MESSAGE - 1: "x\ny"}
    rows = [f'5,TMAS.JK,1724637601500,{number},10,"{notes.get(number, "")}"\n' for number in range(1_300)]
    path.write_text("p,s,t,i,v,note\n" + "".join(rows))

    with path.open("rb") as stream:
        messages = list(file_messages(feed, stream))

    assert messages[0].line == 2
    assert len(messages) == 2
    ticks = [tick.id for one in messages for _, tick in decode(feed, one.value).ticks]
    assert ticks == list(range(1_300))


@pytest.mark.parametrize("indent", [None, 2])
def test_a_document_over_lines_is_one_message(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "one.json"
    path.write_text(json.dumps(ELEMENT, indent=indent) + "\n")

    with path.open("rb") as stream:
        (message_,) = file_messages(described(tmp_path, BASE), stream)

    assert json.loads(message_.value) == ELEMENT


#: Descriptions that are none: their text, the line that is wrong, and what is said of it.
WRONG: dict[str, tuple[str, int, str]] = {
    "an unknown key": (BASE + "tick: data\n", 11, "'tick' is unknown; it should be one of name, messages, ticks"),
    "an unknown option": (BASE.replace("id: i", "id: {path: i, kind: x}"), 6, "'fields.id.kind' is unknown"),
    "an unknown field": (BASE + "  pricee: p\n", 11, "'pricee' is no field of a tick; these are ticker, created_at"),
    "a field that is missing": (BASE.replace("  price: p\n", ""), 3, "fields lacks price, which each tick has"),
    "two ticks paths": (BASE + "ticks: a\nticks: b\n", 12, "ticks is there twice, first in line 11"),
    "a list of ticks paths": (BASE + "ticks: [a, b]\n", 11, "ticks: Input should be a valid string"),
    "ticks in an array": (BASE.replace("object", "array") + "ticks: a\n", 11, "ticks is a path in an object"),
    "a cycle": (BASE + "ignored: &a [*a]\n", 11, "the alias *a should be written out"),
    "a cycle of fields": (BASE.replace("id: i", "id: &a {path: i, values: *a}"), 6, "the alias *a should be written"),
    "no YAML": (BASE + "a: [\n", 12, "this is no YAML"),
    "no YAML in the middle": ("name: some\n\tmessages: array\n", 2, "this is no YAML"),
    "a control character": (BASE + "a: \x07\n", 11, "this is no YAML"),
    "a list": ("- a\n", 1, "the description: "),
    "nothing": ("", 1, "the description: "),
    "no name": (BASE.replace("name: some\n", ""), 1, "name is missing"),
    "another kind of message": (BASE.replace("object", "xml"), 2, "messages: Input should be 'array', 'object'"),
    "two sources": (BASE.replace("id: i", "id: {path: i, constant: 7}"), 6, "fields.id should have one of path"),
    "no source": (BASE.replace("id: i", "id: {number: text}"), 6, "fields.id should have one of path"),
    "an id for all": (BASE.replace("id: i", "id: {constant: 7}"), 6, "an id should be of each tick's own"),
    "a constant of another type": (
        BASE.replace("constant: 0", 'constant: "0"'),
        8,
        "fields.market_cap is a constant: market_cap is a text ('0'); it should be a number",
    ),
    "a constant out of range": (BASE.replace("constant: 0", "constant: -1"), 8, "it should be from 0 to"),
    "a price from the profile": (BASE.replace("price: p", "price: from_profile"), 9, "which is for sector"),
    "a time for a number": (
        BASE.replace("price: p", "price: {path: p, time: iso}"),
        9,
        "fields.price.time is for a time",
    ),
    "a unit that is none": (BASE.replace("epoch_ms", "epoch_h"), 5, "it should be iso, epoch_s, epoch_ms"),
    "a format without a day": (BASE.replace("epoch_ms", '"%H:%M"'), 5, "which does not say day, hour and minute"),
    "a format that is none": (BASE.replace("epoch_ms", '"%Q %d"'), 5, "fields.created_at.time is '%Q %d'"),
    "a format with a day twice": (BASE.replace("epoch_ms", '"%d %d"'), 5, "fields.created_at.time is '%d %d'"),
    "a zone that is none": (BASE.replace("epoch_ms", "iso, zone: Asia/Jakata"), 5, "it should be as in Asia/Jakarta"),
    "a zone for an epoch": (BASE.replace("epoch_ms", "epoch_ms, zone: UTC"), 5, "has nothing to do with epoch_ms"),
    "an empty part of a path": (BASE.replace("price: p", "price: a..p"), 9, "it should be names with a point"),
    "around nothing": (BASE.replace("price: p", "price: /p"), 9, "there is none"),
    "a mark for two things": (
        BASE + "revision:\n  path: r\n  corrections: [C]\n  cancellations: [C]\n",
        14,
        "'C' marks two things",
    ),
    "a mark for nothing": (BASE + "revision: {path: r}\n", 11, "should name what marks corrections"),
    "a rule that no feed has": (BASE + "rules: [prices_rise]\n", 11, "rules.0: Input should be 'id_is_unique'"),
    "csv for JSON": (BASE + "csv: {delimiter: ';'}\n", 11, "csv says how lines are parted, and messages is object"),
    "a column that is not there": (
        CSV + "csv: {columns: [s, t, i, v]}\n",
        9,
        "reads 'p', which is none of csv.columns",
    ),
    "a tag": (BASE + "ignored: !!python/object:os.system x\n", 11, "is not read"),
    "a number without end": (BASE.replace("constant: 0", "constant: " + "9" * 5_000), 8, "is no value"),
    "a key that is a list": (BASE + "[a]: b\n", 11, "a key should be a text"),
}


@pytest.mark.parametrize(("text", "line", "says"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_description_is_told_with_its_line(
    tmp_path: Path, text: str, line: int, says: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        described(tmp_path, text)

    assert f"feed.yml, line {line}: " in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_description_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"name: \xff")
    (tmp_path / "long").write_bytes(b"#" * 300_000)
    (tmp_path / "deep").write_text("[" * 5_000)

    for name, says in {"nowhere": "No such file", "latin": "not UTF-8", "long": "has over", "deep": "too deep"}.items():
        with pytest.raises(ConfigurationError, match=says):
            read_feed(tmp_path / name)


def test_settings_with_a_feed_reach_workers() -> None:
    feed = ready("vendor-csv")

    assert pickle.loads(pickle.dumps(feed)) == feed  # noqa: S301  # our own
    assert hash(feed) == hash(ready("vendor-csv")) != hash(ready("binance"))


def test_a_tick_of_a_company_that_is_seeded_later_is_known_by_its_dead_letter() -> None:
    (unknown,) = [one for value in sample_messages("one-object") for one in decode(ready("one-object"), value).dead
                  if one.reason == "unknown_ticker"]  # fmt: skip

    assert [tick.id for tick in unknown.ticks] == [7003]


def test_the_message_as_such_is_a_message() -> None:
    assert decode(ready("lab"), message()).dead == []


def tried(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `tickledger feed`, in this process and without any settings."""
    monkeypatch.setattr(sys, "argv", ["tickledger", "feed", *arguments])
    monkeypatch.setenv(ENV_FILE_VARIABLE, "/nowhere/.env")
    monkeypatch.setenv("COLUMNS", "240")
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0), *capsys.readouterr()


def test_trying_shows_what_messages_would_become(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = tried(["try", str(FEEDS / "binance.yml"), str(SAMPLES / "binance.jsonl")], capsys, monkeypatch)

    assert (code, err) == (1, "error: 2 dead letters: 1 wrong_type, 1 no_ticks\n")
    assert "binance: 4 messages would become 2 ticks, 2 dead letters" in out
    assert "fields that nobody described, kept in the column extra: 2 m" in out


def test_trying_prints_a_line_of_json_for_each_element(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (SAMPLES / "lab.jsonl").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, err = tried(["try", str(FEEDS / "lab.yml"), "-", "--json"], capsys, monkeypatch)

    found = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [(one["line"], one["position"], one["becomes"]) for one in found] == [
        (1, 0, "tick"), (1, 1, "tick"), (2, 0, "correction"), (3, 0, "cancellation")
    ]  # fmt: skip
    assert found[1]["extra"] == '{"board":"RG"}'


def test_a_bad_description_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.yml").write_text(BASE + "\x1b[31m: 7\n")
    (tmp_path / "worse.yml").write_text(BASE + '"a\\e[31m\\nb": 7\n')

    for name, line in {"bad.yml": 11, "worse.yml": 11}.items():
        code, out, err = tried(["try", str(tmp_path / name), str(SAMPLES / "lab.jsonl")], capsys, monkeypatch)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"{name}, line {line}: " in err
        assert "\x1b" not in err


def test_the_ready_descriptions_are_listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = tried(["list"], capsys, monkeypatch)

    assert code == 0
    assert [f"feeds/{path.name}" in out for path in FEEDS.glob("*.yml")] == [True] * 5


def test_the_settings_file_names_a_feed_whose_rules_hold_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = (PROJECT_ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(
        example.replace("FEED_FILE=none", "FEED_FILE=feeds/one-object.yml").replace(
            "FEED_RULES=none", "FEED_RULES=size_is_usual"
        )
    )
    (tmp_path / "bad.yml").write_text(BASE + "tick: a\n")

    settings_of_it = load_settings(tmp_path / ".env")

    assert settings_of_it.feed_file == ready("one-object")
    assert settings_of_it.feed_rules == ("size_is_usual", "id_is_unique")
    assert pickle.loads(pickle.dumps(settings_of_it)) == settings_of_it  # noqa: S301  # our own
    assert hash(settings_of_it)
    monkeypatch.setenv("FEED_FILE", str(tmp_path / "bad.yml"))
    with pytest.raises(ConfigurationError, match=r"^FEED_FILE: .*bad.yml, line 11: 'tick' is unknown"):
        load_settings(tmp_path / ".env")
    monkeypatch.setenv("FEED_FILE", "none")
    assert load_settings(tmp_path / ".env").feed_file is None


def test_made_up_ticks_are_not_sent_to_a_topic_of_another_feed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = (PROJECT_ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(example.replace("FEED_FILE=none", "FEED_FILE=feeds/binance.yml"))
    monkeypatch.setenv(ENV_FILE_VARIABLE, str(tmp_path / ".env"))
    monkeypatch.setattr(sys, "argv", ["tickledger", "produce", "trading_data"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "error: TOPIC is 'trading_data', whose messages are of the feed 'binance'" in capsys.readouterr().err
    assert ready("lab").reads_the_labs


@pytest.mark.parametrize("name", ["one-object", "vendor-csv", "binance", "lab"])
def test_a_file_is_replayed_by_its_description(tmp_path: Path, name: str) -> None:
    (sample,) = SAMPLES.glob(f"{name}.*")
    path = tmp_path / sample.name
    path.write_bytes(sample.read_bytes())
    companies = {ticker: producer_company(ticker, one.sector, one.shares) for ticker, one in COMPANIES.items()}
    feed = ready(name)

    named = FeedFile(path, feed, companies, lambda _: None)
    elements = [element for _, element in named]
    as_it_is = FeedFile(path, feed, companies, lambda _: None, as_it_is=True)
    values = [value for _, value in as_it_is]

    # The ledger judges what depends on the profile.
    lands = [one for one in OUTCOMES[sample.name] if one in ("tick", "correction", "cancellation", "unknown_ticker")]
    assert (named.ticks, as_it_is.ticks) == (len(lands), len(lands))
    assert named.bad.counts.total() == len(OUTCOMES[sample.name]) - len(lands)
    by_name = Decoder(SECTORS).decode(orjson.dumps(elements), NOW_MS)
    as_they_are = [decode(feed, value) for value in values]
    assert [tick for _, tick in by_name.ticks] == [tick for one in as_they_are for _, tick in one.ticks]
    assert [one for _, one in by_name.revisions] == [one for some in as_they_are for _, one in some.revisions]


def test_what_stands_around_all_ticks_of_a_message_is_measured_once() -> None:
    trade = {"p": 1, "s": "TMAS.JK", "t": NOW_MS, "v": 1}
    value = orjson.dumps({"type": "trade", "data": [trade] * 5_000, "around": "x" * 5_000_000})
    decoded = decode(ready("finnhub"), value)
    assert {letter.reason for letter in decoded.dead} == {"too_many_broken"}
    assert "too_much_extra, " in decoded.dead[0].detail


@pytest.mark.parametrize(
    ("name", "value"),
    [("vendor-csv", b"a\r" * 1_100_000), ("one-object", b"[" + b"{}," * 1_100_000 + b"{}]")],
)
def test_however_values_are_parted_a_message_of_too_many_is_not_read(name: str, value: bytes) -> None:
    assert [letter.reason for letter in decode(ready(name), value).dead] == ["too_many_values"]


def test_lines_share_the_bound_of_a_message(tmp_path: Path) -> None:
    lines = described(tmp_path, (FEEDS / "one-object.yml").read_text().replace("messages: object", "messages: lines"))
    line = b"[" + b"{}," * 300_000 + b"{}]\n"
    assert [letter.reason for letter in decode(lines, line * 4).dead] == ["too_many_values"]


@pytest.mark.parametrize("depth", [900, 1015, 1022])
@pytest.mark.parametrize("field", ["T", "p", "s", "t"])
def test_a_value_that_is_nested_deep_is_a_dead_letter(field: str, depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    sample = (SAMPLES / "binance.jsonl").read_bytes().splitlines()[0]
    value = re.sub(rb'"%s": *("[^"]*"|[^,}]*)' % field.encode(), b'"%s": %s' % (field.encode(), deep), sample)
    assert len(decode(ready("binance"), value).dead) == 1


def test_a_quote_that_nobody_closes_costs_its_own_line(tmp_path: Path) -> None:
    text = BASE.replace("object", "csv").replace("unknown_fields: keep", "unknown_fields: ignore")
    header, rows = b"s,t,i,v,p,note\n", [b"TMAS.JK,1724637601500,%d,100,550,x\n" % number for number in range(6)]
    rows[2] = rows[2].replace(b",x", b',"late print')
    decoded = decode(described(tmp_path, text), header + b"".join(rows))
    assert [tick.id for _, tick in decoded.ticks] == [0, 1, 3, 4, 5]
    assert [letter.reason for letter in decoded.dead] == ["not_csv"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("volume: {path: v, number: text}", "1.000"),
        ("volume: {path: v, number: text}", "1.000.000"),
        ("volume: {path: v, number: text, decimal_point: ','}", "1.000"),
    ],
)
def test_a_number_that_may_be_thousands_is_a_dead_letter(tmp_path: Path, line: str, text: str) -> None:
    feed = described(tmp_path, BASE.replace("volume: v", line))
    assert [one.reason for one in decode(feed, json.dumps(ELEMENT | {"v": text}).encode()).dead] == ["wrong_type"]
    timed = described(tmp_path, BASE.replace("volume: v", line.replace("number", "times: 1, number")))
    assert len(decode(timed, json.dumps(ELEMENT | {"v": "1.000"}).encode()).dead) == ("decimal_point" in line)


@pytest.mark.parametrize("directive", ["%Z", "%c", "%x %X"])
def test_a_time_is_read_alike_on_every_machine(tmp_path: Path, directive: str) -> None:
    time = f'created_at: {{path: t, time: "%Y-%m-%d %H:%M {directive}"}}'
    with pytest.raises(ConfigurationError, match="which each machine reads in its own way"):
        described(tmp_path, BASE.replace("created_at: {path: t, time: epoch_ms}", time))


@pytest.mark.parametrize("name", ["lab", "one-object", "finnhub", "binance", "vendor-csv"])
def test_what_the_lab_writes_can_be_sent_through_any_feed(name: str) -> None:
    """An expired correction is kept so, and sent again."""
    value = LABS_HEAD + json.dumps(GOOD | {"revision": "correction"}).encode() + b', {"id": 1}' + LABS_TAIL
    decoded = decode(ready(name), value)
    assert [one.kind for _, one in decoded.revisions] == ["correction"]
    # What dies again can be sent again.
    assert [letter.reason for letter in decoded.dead] == ["missing_field"]
    again = decode(ready(name), Decoder(SECTORS, feed=ready(name), shares=SHARES).message_of(decoded.dead[0].raw_value))
    assert [letter.reason for letter in again.dead] == ["missing_field"]
