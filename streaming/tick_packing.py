"""Ticks as the bytes that Cassandra's native protocol carries: the rows of an unlogged batch of one prepared upsert.

Layouts: Cassandra's native protocol, version 5, sections 4.1.7 (BATCH) and 6 (values).
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from cassandra.query import UNSET_VALUE
from numpy.typing import NDArray

from streaming.tick_columns import TickColumns, numbers, objects, places_by
from tickledger.tick import CORE_FIELDS, EXTRA_COLUMN, LANDING_COLUMNS, OWN_FIELDS, FieldKind, Tick

_pack_bigint = struct.Struct(">q").pack
_pack_int = struct.Struct(">i").pack
_pack_short = struct.Struct(">H").pack
_pack_date = struct.Struct(">I").pack
#: So few are packed one by one sooner than as a table.
FEW_TICKS = 4
#: Bytes of rows with extra fields that one batch takes, and about those of a row without them. Cassandra refuses a
#: batch of over 50 KiB.
BATCH_BYTES, ROW_BYTES = 40_000, 200
#: The columns of a packed row, in their order.
PACKED_COLUMNS = (
    *(field.name for field in CORE_FIELDS),
    *(name for name, _ in LANDING_COLUMNS),
    *(field.name for field in OWN_FIELDS),
    EXTRA_COLUMN,
)
_VALUES = len(PACKED_COLUMNS)
_NULL = _pack_int(-1)
#: Leaves the column alone. A null would be stored, as a deletion.
_UNSET = _pack_int(-2)


def pack_decimal(value: int | float | Decimal) -> bytes:
    """A number as Cassandra's `decimal`: a four-byte scale and the unscaled value in two's complement.

    A float becomes the shortest decimal that reads back as the same float, which is what the message said up to
    15 digits.
    """
    if type(value) is int:
        unscaled, scale = value, 0
    else:
        sign, digits, exponent = (value if type(value) is Decimal else Decimal(repr(value))).as_tuple()
        if not isinstance(exponent, int):
            raise ValueError(f"{value} is not a finite number")
        unscaled = int("".join(map(str, digits))) * (-1 if sign else 1)
        unscaled, scale = (unscaled * 10**exponent, 0) if exponent > 0 else (unscaled, -exponent)
    return _pack_int(scale) + unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)


def unpack_decimal(packed: bytes) -> int | Decimal:
    """The number that :func:`pack_decimal` has packed, or Cassandra."""
    scale, unscaled = int.from_bytes(packed[:4], "big", signed=True), int.from_bytes(packed[4:], "big", signed=True)
    return Decimal(f"{unscaled}e{-scale}") if scale else unscaled


_PACK: dict[FieldKind, Callable[[Any], bytes]] = {
    "whole": _pack_bigint,
    "decimal": pack_decimal,
    "text": str.encode,
    "time": _pack_bigint,
}
# A kind that there is not is told by `check_own_fields`.
_PACK_OWN = tuple(_PACK[field.kind] for field in OWN_FIELDS if field.kind in _PACK)


def pack_tick(tick: Tick, partition: int, offset: int) -> list[Any]:
    """A tick as the values of the prepared upsert: bytes, None, or what the driver takes for a column left alone."""
    values: list[Any] = [
        tick.ticker.encode(),
        _pack_bigint(tick.created_ms),
        _pack_bigint(tick.id),
        _pack_bigint(tick.volume),
        pack_decimal(tick.market_cap),
        pack_decimal(tick.price),
        tick.sector.encode(),
        *_landing_values(tick.trade_day, partition),
        _pack_bigint(offset),
    ]
    values += [None if value is None else pack(value) for pack, value in zip(_PACK_OWN, tick.own, strict=True)]
    return [*values, UNSET_VALUE if tick.extra is None else tick.extra.encode()]


def _landing_values(trade_day: int, partition: int) -> tuple[bytes, bytes]:
    return _pack_date(trade_day + 2**31), _pack_int(partition)


class PackedRows:
    """Rows of one table, in the place of a `BatchStatement`'s list of statements and their values.

    The driver writes a batch value by value, in Python, which takes longer than all else that it does. It asks for the
    number of statements, and then for each; here it gets one whose only value is what is left of all rows.
    """

    def __init__(self, query_id: bytes, rows: int, packed: bytes) -> None:
        self._query_id = query_id
        self._rows = rows
        self._packed = packed

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[tuple[bool, bytes, "_Values"]]:
        return iter([(True, self._query_id, _Values(self._packed[len(row_head(self._query_id)) :]))])


class _Values:
    """The values of a statement, of which the driver writes the first one's length, and then all there is."""

    def __init__(self, packed: bytes) -> None:
        self._first = _FirstValue(packed[4:])
        self._first.length = int.from_bytes(packed[:4], "big")

    def __len__(self) -> int:
        return _VALUES

    def __iter__(self) -> Iterator[bytes]:
        return iter([self._first])


class _FirstValue(bytes):
    length: int

    def __len__(self) -> int:
        return self.length


def row_head(query_id: bytes) -> bytes:
    """What comes before a row's values: that the statement is prepared, which it is, and how many values follow."""
    return b"\x01" + _pack_short(len(query_id)) + query_id + _pack_short(_VALUES)


def pack_rows(query_id: bytes, ticks: TickColumns, partition: int, most: int) -> Iterator[tuple[int, bytes]]:
    """Ticks of one company and day as rows of a batch, at most `most` at once: how many, and their bytes."""
    head = row_head(query_id)
    if ticks.extra is not None and not any(extras := ticks.extra.tolist()):
        # Others of their messages have some.
        ticks = replace(ticks, extra=None)
    elif ticks.extra is not None:
        longest = max(len(one.encode()) for one in extras if one is not None)
        most = max(1, min(most, BATCH_BYTES // (ROW_BYTES + longest)))
    for alike, last in _alike(ticks) if ticks.own or ticks.extra is not None else ((ticks, ()),):
        table = None if len(alike) <= FEW_TICKS else _table(head, alike, last, partition)
        for start in range(0, len(alike), most):
            if table is not None:
                part = table[start : start + most]
                yield len(part), part.tobytes()
                continue
            part_of = alike.take(slice(start, start + most))
            rows = zip(part_of.ticks(), part_of.offset.tolist(), strict=True)
            values = [head + b"".join(map(_sized, pack_tick(tick, partition, offset))) for tick, offset in rows]
            yield len(values), b"".join(values)


def _alike(ticks: TickColumns) -> Iterator[tuple[TickColumns, Sequence[NDArray[Any]]]]:
    """The ticks whose last values are equally long, and so their rows; and these values, packed, by column.

    They are those of the fields of one's own, and the extra ones if there are any.
    """
    if len(ticks) <= FEW_TICKS:
        yield ticks, ()
        return
    packed = [objects(_packed_own(pack, column)) for pack, column in zip(_PACK_OWN, ticks.own, strict=True)]
    if ticks.extra is not None:
        packed.append(objects([_UNSET if one is None else _sized(one.encode()) for one in ticks.extra.tolist()]))
    lengths = list(zip(*(map(len, column) for column in packed), strict=True))
    for _, places in places_by(lengths):
        yield ticks.take(places), [column[places] for column in packed]


def _sized(value: Any) -> bytes:
    if type(value) is bytes:
        return _pack_int(len(value)) + value
    return _NULL if value is None else _UNSET


def _table(head: bytes, ticks: TickColumns, last: Sequence[NDArray[Any]], partition: int) -> NDArray[np.uint8] | None:
    """One row of bytes per tick, all as long; None if a decimal is not whole, negative, or of over 64 bits.

    `last` are their last values, packed, those of a column equally long. They share ticker and day, and so the sector,
    which the row rules hold against `profile`: those three are written once for all, nothing else is.
    """
    market_cap, price = _decimals(ticks.market_cap), _decimals(ticks.price)
    if market_cap is None or price is None:
        return None
    landing = map(_sized, _landing_values(int(ticks.trade_day[0]), partition))
    parts: list[bytes | NDArray[np.uint8]] = [
        head + _sized(ticks.ticker[0].encode()),
        *_bigints(ticks.created_ms),
        *_bigints(ticks.id),
        *_bigints(ticks.volume),
        *market_cap,
        *price,
        _sized(ticks.sector[0].encode()) + b"".join(landing),
        *_bigints(ticks.offset),
        *map(_as_table, last),
    ]
    if ticks.extra is None:
        parts.append(_UNSET)
    columns = [np.frombuffer(part, np.uint8) if isinstance(part, bytes) else part for part in parts]
    table, at = np.empty((len(ticks), sum(column.shape[-1] for column in columns)), np.uint8), 0
    for column in columns:
        table[:, at : at + column.shape[-1]] = column
        at += column.shape[-1]
    return table


def _packed_own(pack: Callable[[Any], bytes], values: NDArray[Any]) -> list[bytes]:
    """The values of a field of one's own, each with its length."""
    return [_sized(None if value is None else pack(value)) for value in values.tolist()]


def _as_table(packed: NDArray[Any]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(packed.tolist()), np.uint8).reshape(len(packed), -1)


def _bigints(values: NDArray[np.int64]) -> tuple[bytes, NDArray[np.uint8]]:
    return _pack_int(8), _big_endian(values)


def _decimals(values: NDArray[Any]) -> tuple[bytes, NDArray[np.uint8]] | None:
    """Whole numbers as decimals, all with the bytes that the largest one needs."""
    values = numbers(values.tolist()) if values.dtype == object else values
    if values.dtype == object or values.min() < 0:
        return None
    width = int(values.max()).bit_length() // 8 + 1
    return _pack_int(4 + width) + _pack_int(0), _big_endian(values)[:, 8 - width :]


def _big_endian(values: NDArray[np.int64]) -> NDArray[np.uint8]:
    return values.astype(">i8").view(np.uint8).reshape(-1, 8)
