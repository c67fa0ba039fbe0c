"""Values packed by hand are the driver's own."""

from decimal import Decimal

from cassandra.cqltypes import DecimalType, lookup_casstype
from hypothesis import given
from hypothesis import strategies as st

from streaming.tick import RAW_TABLE, TICK_FIELDS, Tick, cassandra_tables, day_to_date, ms_to_datetime
from streaming.tick_sink import pack_decimal, pack_tick

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
    read = [kind.deserialize(value, PROTOCOL) for kind, value in zip(types, packed, strict=True)]
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


def test_the_tables_hold_every_field_of_the_tick() -> None:
    (raw,) = [statement for statement in cassandra_tables("trading") if RAW_TABLE in statement]

    for field in TICK_FIELDS:
        assert f"{field.name} {field.cassandra_type}" in raw
