"""Fields of one's own: a line in the definition, and they are checked, packed and read back; a bad one is one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from producer.replay import TickFile
from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import TickColumns, whole
from streaming.tick_packing import PACKED_COLUMNS, pack_rows, pack_tick, row_head
from tests.support.poison import GOOD
from tickledger.decode import DeadLetter, Decoder
from tickledger.errors import ConfigurationError
from tickledger.own_fields import check_own_fields
from tickledger.settings import PROJECT_ROOT
from tickledger.tick import OWN_FIELDS, Tick, TickField, parse_created_at

MESSAGE_MS = parse_created_at(GOOD["created_at"]) + 1000
QUERY = b"sixteen bytes.id"

#: Definitions of the line in tickledger/tick.py.
DEFINITIONS = {
    "every kind, optional": (
        'TickField("venue", "text", 0, 16, "", optional=True), TickField("lots", "whole", -9, 9, "", optional=True),'
        'TickField("fee", "decimal", -5, 10**30, "", optional=True),'
        'TickField("due_at", "time", 0, 0, "", optional=True),'
    ),
    "every kind, required": (
        'TickField("venue", "text", 1, 16, ""), TickField("lots", "whole", -9, 9, ""),'
        'TickField("fee", "decimal", -5, 10**30, ""), TickField("due_at", "time", 0, 0, ""),'
    ),
    "every kind, with defaults": (
        'TickField("venue", "text", 1, 16, "", optional=True, default="IDX"),'
        'TickField("lots", "whole", -9, 9, "", optional=True, default=1),'
        'TickField("fee", "decimal", -5, 10**30, "", optional=True, default=0.25),'
        'TickField("due_at", "time", 0, 0, "", optional=True, default="2024-08-27T00:00:00Z"),'
    ),
}
#: Tests that know nothing of them. With required ones, what they send is broken.
OTHERS = (
    "tests/test_decode.py",
    "tests/test_decode_columns.py",
    "tests/test_tick_packing.py",
    "tests/test_tick_columns.py",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_line_in_the_definition_is_enough(definition: str, tmp_path: Path) -> None:
    for name in ("tickledger", "streaming", "services", "tests", "expectations", "dbt_project", "producer", "commands"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    file, before = tmp_path / "tickledger" / "tick.py", "OWN_FIELDS: tuple[TickField, ...] = ()"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, f"OWN_FIELDS: tuple[TickField, ...] = ({definition})"))

    others = OTHERS if "optional" in definition and "default" not in definition else ()
    tests = [f"{__file__.replace(str(PROJECT_ROOT), '.')}", *others]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-k",
            "not test_a_line_in and not test_no_program",
            *tests,
        ],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


own = pytest.mark.skipif(not OWN_FIELDS, reason="there is no field of one's own")


@own
def test_at_once_and_one_by_one_agree_about_them() -> None:
    random = Random(7)
    values = [message(random) for _ in range(400)]

    ticks, dead = at_once(values)

    assert (ticks, dead) == one_by_one(values)
    assert {letter.reason for letter in dead.values()} >= {"wrong_type"}
    for place, field in enumerate(OWN_FIELDS):
        kinds = {type(tick.own[place]) for tick, _ in ticks}
        nullable = field.optional and field.default is None
        assert (type(None) in kinds) == nullable
        assert kinds > {type(None)} if nullable else kinds
        if field.kind == "time":
            assert kinds <= {int, type(None)}


@own
def test_a_message_of_before_they_were_there_lands_with_default_or_null() -> None:
    ticks, dead = at_once([json.dumps([GOOD]).encode()])

    if all(field.optional for field in OWN_FIELDS):
        assert dead == {}
        defaults = [
            parse_created_at(str(field.default)) if field.kind == "time" and field.default else field.default
            for field in OWN_FIELDS
        ]
        assert list(ticks[0][0].own) == defaults
    else:
        assert [letter.reason for letter in dead.values()] == ["missing_field"]


@own
@pytest.mark.parametrize("number", [1, 3, 5, 400])
def test_every_row_is_packed_with_its_own_values(number: int) -> None:
    random = Random(7)
    decoded = at_once([message(random, bad=0) for _ in range(number)])[0]
    # Of one company and day, with whole prices: what lands in a table of bytes.
    ticks = [(tick._replace(price=200, id=place), offset) for place, (tick, offset) in enumerate(decoded)]

    parts = list(pack_rows(QUERY, TickColumns.of(ticks), 3, most=200))

    assert sum(rows for rows, _ in parts) == len(ticks)
    found = [row for _, packed in parts for row in rows_of(packed)]
    assert sorted(found, key=repr) == sorted((pack_tick(tick, 3, offset) for tick, offset in ticks), key=repr)


@own
def test_a_file_may_lack_the_optional_ones(tmp_path: Path) -> None:
    file, empty = tmp_path / "ticks.csv", [field.name for field in OWN_FIELDS if field.optional][:1]
    names = [*GOOD, *empty]
    file.write_text(f"{','.join(names)}\n{','.join(map(str, GOOD.values()))}{',' * len(empty)}\n")

    if all(field.optional for field in OWN_FIELDS):
        assert [element for _, element in TickFile(file, print)] == [GOOD]
    else:
        with pytest.raises(ConfigurationError, match=f"should name the columns .*{OWN_FIELDS[0].name}"):
            TickFile(file, print)


def message(random: Random, bad: float = 0.05) -> bytes:
    """A message of a tick with some values, good or bad, of the fields of one's own."""
    element = dict(GOOD)
    for field in OWN_FIELDS:
        value = [None, [], "\ud7ff" * 99, 10**40][random.randrange(4)] if random.random() < bad else good(field, random)
        if value is not None or random.random() < 0.5:
            element[field.name] = value
    return json.dumps([element]).encode().replace(b"1" + b"0" * 40, b"1e40")


def good(field: TickField, random: Random) -> Any:
    if field.optional and random.random() < 0.3:
        return None
    if field.kind == "text":
        return "ü" * random.randint(field.minimum, field.maximum)
    if field.kind == "time":
        return f"2024-08-{random.randint(1, 30):02}T07:04:45.250Z"
    number = random.choice([field.minimum, field.maximum, 0, 7])
    return number if field.kind == "whole" else random.choice([number, 0.125, -1.5])


def at_once(values: list[bytes]) -> tuple[list[tuple[Tick, int]], dict[tuple[int, int], DeadLetter]]:
    times = whole([MESSAGE_MS] * len(values))
    decoded = ColumnDecoder(SECTORS).decode(whole(range(len(values))), times, values)
    return list(zip(decoded.ticks.ticks(), decoded.ticks.offset.tolist(), strict=True)), decoded.dead


SECTORS = {GOOD["ticker"]: GOOD["sector"]}


def one_by_one(values: list[bytes]) -> tuple[list[tuple[Tick, int]], dict[tuple[int, int], DeadLetter]]:
    each = [Decoder(SECTORS).decode(value, MESSAGE_MS) for value in values]
    ticks = [(tick, offset) for offset, one in enumerate(each) for _, tick in one.ticks]
    return ticks, {(offset, letter.position): letter for offset, one in enumerate(each) for letter in one.dead}


def rows_of(packed: bytes) -> Iterator[list[bytes | None]]:
    """The values of packed rows."""
    at = 0
    while at < len(packed):
        assert packed[at:].startswith(row_head(QUERY))
        at += len(row_head(QUERY))
        row: list[bytes | None] = []
        for _ in PACKED_COLUMNS:
            length = int.from_bytes(packed[at : at + 4], "big", signed=True)
            row.append(packed[at + 4 : at + 4 + length] if length >= 0 else None)
            at += 4 + max(length, 0)
        yield row


def field(name: str = "venue", kind: Any = "text", minimum: int = 1, maximum: int = 16, **more: Any) -> TickField:
    return TickField(name, kind, minimum, maximum, "", **more)


BAD: dict[str, tuple[Iterable[TickField], str]] = {
    "a keyword of CQL": ([field("token")], "'token' .* a keyword of CQL"),
    "a keyword of SQL": ([field("rank")], "'rank' .* a keyword of SQL"),
    "one of the tick's own": ([field("price")], "'price' .* there is a field"),
    "one that a file's header may mean too": ([field("marketcap")], "'marketcap' .* there is a field"),
    "what landing adds": ([field("kafka_offset")], "'kafka_offset' .* there is a field"),
    "a column of the checks": ([field("price_ratio")], "'price_ratio' .* there is a field"),
    "one twice": ([field(), field()], "'venue' .* there is a field"),
    "capitals": ([field("Venue")], "'Venue' .* lower-case"),
    "what is no name": ([field("venue; --")], "lower-case"),
    "bounds the wrong way round": ([field(minimum=17)], "minimum 17 is above its maximum 16"),
    "a text longer than a request takes": ([field(maximum=10_000)], "bounds should lie from 0 to 4000"),
    "a number beyond bigint": ([field(kind="whole", maximum=2**63)], "bounds should lie from"),
    "a default of a required one": ([field(default="IDX")], "has a default, so it should be optional"),
    "a default that is too long": ([field(optional=True, default="I" * 17)], "default does not fit: .* 1 to 16"),
    "a default of another kind": ([field(optional=True, default=1)], "default does not fit: venue is a number"),
    "a fraction for a whole one": ([field(kind="whole", optional=True, default=1.5)], "default does not fit"),
    "a default that is no time": ([field(kind="time", optional=True, default="today")], "default does not fit"),
}


@pytest.mark.parametrize(("fields", "said"), BAD.values(), ids=BAD)
def test_a_bad_definition_is_one_line(fields: Iterable[TickField], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as told:
        check_own_fields(fields)
    assert "\n" not in str(told.value)


def test_no_program_begins_with_a_bad_definition(tmp_path: Path) -> None:
    shutil.copytree(PROJECT_ROOT / "tickledger", tmp_path / "tickledger")
    shutil.copytree(PROJECT_ROOT / "producer", tmp_path / "producer")
    file = tmp_path / "tickledger" / "tick.py"
    file.write_text(
        file.read_text().replace(
            "OWN_FIELDS: tuple[TickField, ...] = ()", 'OWN_FIELDS = (TickField("select", "text", 1, 16, ""),)'
        )
    )

    done = subprocess.run(
        [sys.executable, "-m", "producer", "trading_data"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: field 'select' of tickledger/tick.py: its name is a keyword of CQL\n"
