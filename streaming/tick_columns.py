"""Ticks as columns, thousands at once: the shape in which landing judges, counts and packs them."""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from itertools import pairwise, repeat
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tickledger.tick import MAX_BIGINT, OWN_FIELDS, Tick, summed_value

#: What makes a tick one tick: (ticker, created_at in milliseconds, id).
TickKey = tuple[str, int, int]
#: Odd numbers without a pattern in their bits; what they multiply is spread over all of 64 bits.
_SPREAD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)


@dataclass(frozen=True)
class TickColumns:
    """Valid ticks, one array a field of :class:`Tick`, and the offset of the message that brought each.

    All arrays are of one length, in the order of the messages. `ticker` and `sector` are arrays of objects; so are
    `market_cap` and `price` if some are not whole numbers, or too large for 64 bits, and those of `own`, one a field of
    :data:`tickledger.tick.OWN_FIELDS`. `extra` is None where no tick has any. The rest are 64-bit integers.
    """

    ticker: NDArray[Any]
    created_ms: NDArray[np.int64]
    id: NDArray[np.int64]
    volume: NDArray[np.int64]
    market_cap: NDArray[Any]
    price: NDArray[Any]
    sector: NDArray[Any]
    trade_day: NDArray[np.int64]
    offset: NDArray[np.int64]
    own: tuple[NDArray[Any], ...] = ()
    extra: NDArray[Any] | None = None

    @classmethod
    def of(cls, ticks: Iterable[tuple[Tick, int]]) -> "TickColumns":
        """The columns of single ticks, each with its offset."""
        rows = [(*tick, offset) for tick, offset in ticks]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in fields(cls)]
        ticker, created_ms, id_, volume, market_cap, price, sector, trade_day, own, extra, offset = columns
        return cls(
            objects(ticker), whole(created_ms), whole(id_), whole(volume), numbers(market_cap), numbers(price),
            objects(sector), whole(trade_day), whole(offset), tuple(map(objects, zip(*own, strict=True))),
            objects(extra) if any(extra) else None,
        )  # fmt: skip

    def __len__(self) -> int:
        """The number of ticks."""
        return len(self.ticker)

    def take(self, rows: Any) -> "TickColumns":
        """Some of the ticks: by their places, or by a mask."""
        own = tuple([column[rows] for column in self.own]) if self.own else ()
        extra = None if self.extra is None else self.extra[rows]
        return TickColumns(*[column[rows] for column in self._columns()], own, extra)  # type: ignore[call-arg]

    def merged(self, other: "TickColumns") -> "TickColumns":
        """These ticks and others, in the order of their messages."""
        if not len(self):
            return other
        pairs = zip(self._columns(), other._columns(), strict=True)
        own = tuple(map(np.concatenate, zip(self.own, other.own, strict=True)))
        extras = [one.extra if one.extra is not None else objects([None] * len(one)) for one in (self, other)]
        extra = np.concatenate(extras) if not self.extra is other.extra is None else None
        both = TickColumns(*map(np.concatenate, pairs), own=own, extra=extra)  # type: ignore[arg-type,misc]
        return both.take(np.argsort(both.offset, kind="stable"))

    def keys(self) -> list[TickKey]:
        """The key of each tick."""
        return list(zip(self.ticker.tolist(), self.created_ms.tolist(), self.id.tolist(), strict=True))

    def companies(self) -> tuple[list[str], NDArray[np.int32]]:
        """The tickers, each once, and for each tick the place of its own among them."""
        tickers = self.ticker.tolist()
        numbered = {ticker: number for number, ticker in enumerate(dict.fromkeys(tickers))}
        return list(numbered), np.fromiter(map(numbered.__getitem__, tickers), np.int32, len(tickers))

    def by_company_and_day(self) -> Iterator["TickColumns"]:
        """The ticks of each company and trading day, which share one of Cassandra's partitions."""
        _, company = self.companies()
        order = np.lexsort((self.trade_day, company))
        company, day = company[order], self.trade_day[order]
        starts = np.flatnonzero((np.diff(company, prepend=-1) != 0) | (np.diff(day, prepend=0) != 0)).tolist()
        # Sorted once and cut: a group may be a single tick, and there may be hundreds of thousands of them.
        ordered = self.take(order)
        for start, end in pairwise([*starts, len(order)]):
            yield ordered.take(slice(start, end))

    def by_own(self, names: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], "TickColumns"]]:
        """The ticks by their values of some fields of one's own."""
        fields_of_it = [self.own[place] for place, field in enumerate(OWN_FIELDS) if field.name in names]
        values = [summed_value(one) for one in zip(*(column.tolist() for column in fields_of_it), strict=True)]
        for one, places in places_by(values):
            yield one, self.take(places)

    def _columns(self) -> tuple[NDArray[Any], ...]:
        return _COLUMNS_OF(self)

    def ticks(self) -> Iterator[Tick]:
        """The ticks one by one."""
        own = zip(*(column.tolist() for column in self.own), strict=True) if self.own else repeat((), len(self))
        extra = repeat(None, len(self)) if self.extra is None else self.extra.tolist()
        columns = (column.tolist() for column in self._columns()[:-1])
        return (Tick(*row) for row in zip(*columns, own, extra, strict=True))


def places_by(values: Sequence[Hashable]) -> Iterator[tuple[Any, NDArray[np.intp]]]:
    """Each different value, in the order of its first place, and all its places."""
    numbered = {one: number for number, one in enumerate(dict.fromkeys(values))}
    number_of = np.array([numbered[one] for one in values])
    order = np.argsort(number_of, kind="stable")
    ends = np.searchsorted(number_of[order], np.arange(1, len(numbered) + 1))
    return zip(numbered, np.split(order, ends[:-1]), strict=True)


#: All but those of `own`, and `extra`.
_COLUMNS_OF = attrgetter(*(column.name for column in fields(TickColumns) if column.name not in ("own", "extra")))


@dataclass
class KeyColumns:
    """Keys of ticks, some thousands a part: its tickers, each tick's place among them, created_at and id.

    20 bytes per tick, and cheaper to send than a set.
    """

    parts: list[tuple[list[str], NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]] = field(default_factory=list)

    def add(self, ticks: TickColumns) -> None:
        """Add the keys of ticks."""
        if len(ticks):
            self.parts.append((*ticks.companies(), ticks.created_ms, ticks.id))

    def __len__(self) -> int:
        """The number of keys."""
        return sum(len(ids) for *_, ids in self.parts)

    def fingerprints(self) -> NDArray[np.uint64]:
        """A number for each key. Equal keys have equal numbers, as long as the process lives; others hardly ever do."""
        numbers = [
            (created_ms.view(np.uint64) * _SPREAD[0] + id_.view(np.uint64)) * _SPREAD[1]
            ^ np.array([hash(ticker) & MAX_BIGINT for ticker in tickers], np.uint64)[company]
            for tickers, company, created_ms, id_ in self.parts
        ]
        return np.concatenate(numbers) if numbers else np.empty(0, np.uint64)

    def keys(self) -> set[TickKey]:
        """The keys themselves."""
        return {
            (tickers[place], *one)
            for tickers, company, created_ms, id_ in self.parts
            for place, *one in zip(company.tolist(), created_ms.tolist(), id_.tolist(), strict=True)
        }


def objects(values: Sequence[Any]) -> NDArray[Any]:
    """An array of objects, whatever they are."""
    array = np.empty(len(values), object)
    array[:] = values
    return array


def whole(values: Sequence[int]) -> NDArray[np.int64]:
    """An array of 64-bit integers."""
    return np.array(values, np.int64)


def numbers(values: Sequence[int | float | Decimal]) -> NDArray[Any]:
    """An array of 64-bit integers if all values are that, else of objects: a float would lose digits."""
    if set(map(type, values)) <= {int} and max(values, default=0) <= MAX_BIGINT:
        return whole(values)  # type: ignore[arg-type]
    return objects(values)
