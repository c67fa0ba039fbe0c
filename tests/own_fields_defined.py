"""Fields of one's own that are defined: checked, packed, replayed. test_own_fields.py runs this where some are."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cassandra.query import UNSET_VALUE

from producer.replay import TickFile
from streaming.decode_columns import ColumnDecoder
from streaming.tick_columns import TickColumns, whole
from streaming.tick_packing import PACKED_COLUMNS, pack_rows, pack_tick, row_head
from tests.support.poison import GOOD
from tickledger.decode import DeadLetter, Decoder
from tickledger.errors import ConfigurationError
from tickledger.tick import OWN_FIELDS, Tick, TickField, parse_created_at

MESSAGE_MS = parse_created_at(GOOD["created_at"]) + 1000
QUERY = b"sixteen bytes.id"


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


def rows_of(packed: bytes) -> Iterator[list[Any]]:
    """The values of packed rows."""
    at = 0
    while at < len(packed):
        assert packed[at:].startswith(row_head(QUERY))
        at += len(row_head(QUERY))
        row: list[Any] = []
        for _ in PACKED_COLUMNS:
            length = int.from_bytes(packed[at : at + 4], "big", signed=True)
            row.append(packed[at + 4 : at + 4 + length] if length >= 0 else (UNSET_VALUE if length == -2 else None))
            at += 4 + max(length, 0)
        yield row
