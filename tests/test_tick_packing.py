"""Values packed by hand are the driver's own, and so are rows of them."""

from decimal import Decimal
from io import BytesIO
from typing import Any

import pytest
from cassandra import ConsistencyLevel
from cassandra.cqltypes import DecimalType, lookup_casstype
from cassandra.protocol import BatchMessage
from cassandra.query import BatchType
from hypothesis import given
from hypothesis import strategies as st

from streaming.tick_columns import TickColumns
from streaming.tick_packing import PackedRows, pack_decimal, pack_rows, pack_tick
from tickledger.tick import MOST_EXTRA, RAW_TABLE, TICK_FIELDS, Tick, cassandra_tables, day_to_date, ms_to_datetime

PROTOCOL = 5


@given(st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_packed_decimal_reads_back_as_the_same_number(value: int | float) -> None:
    read = DecimalType.deserialize(pack_decimal(value), PROTOCOL)

    assert read == Decimal(repr(value))


def test_a_packed_tick_reads_back_field_by_field() -> None:
    tick = Tick("TMAS.JK", 1_724_569_485_123, 2**62, 275_674, 4_932_000, 550.25, "Logistics & Deliveries", 19_960)

    packed = pack_tick(tick, 3, 2**40)

    types = [
        lookup_casstype(f"org.apache.cassandra.db.marshal.{name}")
        for name in (
            "UTF8Type",
            "TimestampType",
            "LongType",
            "LongType",
            "DecimalType",
            "DecimalType",
            "UTF8Type",
            "SimpleDateType",
            "Int32Type",
            "LongType",
        )
    ]
    # Behind them stand the fields of one's own.
    pairs = zip(types, packed[: len(types)], strict=True)
    read = [kind.deserialize(value, PROTOCOL) for kind, value in pairs if value is not None]
    assert read == [
        tick.ticker,
        ms_to_datetime(tick.created_ms),
        tick.id,
        tick.volume,
        Decimal(4_932_000),
        Decimal("550.25"),
        tick.sector,
        day_to_date(tick.trade_day),
        3,
        2**40,
    ]


def sent(queries: Any, protocol: int) -> bytes:
    """The body of the request that the driver makes of a batch."""
    body = BytesIO()
    BatchMessage(BatchType.UNLOGGED, queries, ConsistencyLevel.LOCAL_ONE, timestamp=5).send_body(body, protocol)
    return body.getvalue()


def some_ticks(prices: list[int | float]) -> list[tuple[Tick, int]]:
    """Ticks of one company and day, each with the offset of its message."""
    return [
        (Tick("TMAS.JK", 1_724_569_485_123 + n, 2**62 + n, n, 70_000 + n, price, "Coal", 19_960), n // 2)
        for n, price in enumerate(prices)
    ]


#: Prices that go into a table of bytes, and such that need their row's own scale or more than 64 bits.
PRICES: dict[str, list[int | float]] = {
    "as long": [200, 201, 202, 203, 204],
    "of any scale": [200, 200.5, 0.25, 1e22, 201],
    "of more than 64 bits": [2**64 - 1, 1, 2, 3, 4],
    "below zero": [-300, 1, 2, 3, 4],
}


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("prices", PRICES.values(), ids=PRICES)
def test_packed_rows_are_sent_as_the_driver_sends_them(prices: list[int | float], protocol: int) -> None:
    ticks, query = some_ticks(prices), b"sixteen bytes.id"

    parts = list(pack_rows(query, TickColumns.of(ticks), 3, most=2))

    assert [rows for rows, _ in parts] == [2, 2, 1]
    packed = PackedRows(query, len(ticks), b"".join(part for _, part in parts))
    by_the_driver = [(True, query, pack_tick(tick, 3, offset)) for tick, offset in ticks]
    assert sent(packed, protocol) == sent(by_the_driver, protocol)


def test_smaller_numbers_beside_a_large_one_are_the_same_numbers() -> None:
    ticks, query = some_ticks([0, 1, 127, 128, 2**63 - 1]), b"sixteen bytes.id"

    ((_, packed),) = pack_rows(query, TickColumns.of(ticks), 3, most=10)

    length = len(packed) // len(ticks)
    rows = [packed[start : start + length] for start in range(0, len(packed), length)]
    found = [values_of(row)[5] for row in rows]
    assert [DecimalType.deserialize(value, PROTOCOL) for value in found] == [tick.price for tick, _ in ticks]


def values_of(row: bytes) -> list[bytes]:
    """The values of a row with a query id of sixteen bytes."""
    values, at = [], 1 + 2 + 16 + 2
    while at < len(row):
        length = int.from_bytes(row[at : at + 4], "big")
        values.append(row[at + 4 : at + 4 + length])
        at += 4 + length
    return values


def test_the_tables_hold_every_field_of_the_tick() -> None:
    (raw,) = [statement for statement in cassandra_tables("trading") if RAW_TABLE in statement]

    for field in TICK_FIELDS:
        assert f"{field.name} {field.cassandra_type}" in raw


@given(st.decimals(allow_nan=False, allow_infinity=False, places=30, min_value=-(10**15), max_value=10**15))
def test_a_decimal_of_many_digits_keeps_them(value: Decimal) -> None:
    assert DecimalType.deserialize(pack_decimal(value), PROTOCOL) == value


@pytest.mark.parametrize("number", [2, 9])
def test_fields_that_nobody_described_are_packed_beside_their_tick(number: int) -> None:
    ticks, query = some_ticks([200] * number), b"sixteen bytes.id"
    extras = [None, '{"side":"B"}', '{"side":"Ü"}', '{"venue":7}']
    ticks = [(tick._replace(extra=extras[place % 4]), offset) for place, (tick, offset) in enumerate(ticks)]

    packed = b"".join(rows for _, rows in pack_rows(query, TickColumns.of(ticks), 3, most=200))

    by_the_driver = [(True, query, pack_tick(tick, 3, offset)) for tick, offset in ticks]
    sent_so = sent(PackedRows(query, number, packed), PROTOCOL)
    assert len(sent_so) == len(sent(by_the_driver, PROTOCOL))
    for tick, _ in ticks:
        assert (tick.extra or "").encode() in sent_so


@pytest.mark.parametrize("number", [2, 9])
def test_ticks_beside_others_with_extra_fields_are_packed_as_if_alone(number: int) -> None:
    ticks, query = some_ticks([200] * number), b"sixteen bytes.id"
    with_one = TickColumns.of([*ticks, (ticks[0][0]._replace(extra='{"side":"B"}'), 9)])

    assert list(pack_rows(query, with_one.take(range(number)), 3, 200)) == list(
        pack_rows(query, TickColumns.of(ticks), 3, 200)
    )


def test_a_batch_of_long_extra_fields_is_as_large_as_cassandra_takes() -> None:
    ticks, query = some_ticks([200] * 50), b"sixteen bytes.id"
    ticks = [(tick._replace(extra="ü" * MOST_EXTRA), offset) for tick, offset in ticks]

    parts = list(pack_rows(query, TickColumns.of(ticks), 3, most=200))

    assert sum(rows for rows, _ in parts) == 50
    assert max(len(packed) for _, packed in parts) < 50 * 1024
