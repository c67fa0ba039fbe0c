"""Reads one landed batch back from both stores, as the data frames that the suites expect. Writes nothing."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Session
from cassandra.concurrent import execute_concurrent_with_args
from cassandra.protocol import NumpyProtocolHandler
from cassandra.query import tuple_factory
from mysql.connector.abstracts import MySQLConnectionAbstract

from expectations.read_corrections import (
    COMPANIES_A_READ,
    Changed,
    CorrectionsReader,
    CorrectionsView,
    Slice,
    corrections_view,
)
from expectations.rhythm import (
    USUAL_BATCHES,
    Landing,
    dead_letter_share,
    duplicate_share,
    minutes_ahead,
    minutes_behind,
    own_ticks,
    pace_to_usual,
)
from expectations.suites import MOST_MINUTES_BEHIND, PRICE_WINDOW, length_of
from tickledger.decode import TOO_MANY_BROKEN
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.exchange import read_exchange
from tickledger.ledger import Company
from tickledger.settings import Settings
from tickledger.stores import cassandra_errors, mysql
from tickledger.tick import (
    DEAD_LETTER_BUCKET,
    DEAD_LETTER_TABLE,
    RAW_TABLE,
    TICK_FIELDS,
    day_to_date,
)
from tickledger.trading_days import TradingDays
from tickledger.unknown_fields import fields_changed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Slices that are asked for at the same time; more would take the processor from the batch that lands meanwhile.
READS_IN_FLIGHT = 2
#: Some 2 MB; pages of the driver's usual 5,000 rows cost Cassandra and the driver a third more.
ROWS_PER_PAGE = 20_000
#: Where a company's newest price is of a later batch, one of the next is hardly ever.
PRICES_PER_PAGE = 200

#: What is read of a tick, and as which kind; its day is the slice's.
_READ_COLUMNS = {field.name: field.kind for field in TICK_FIELDS} | {
    "kafka_partition": "whole",
    "kafka_offset": "whole",
}
#: Numbers that Cassandra turns into floats and milliseconds itself: the driver has arrays for no others.
_READ_AS = {"decimal": "CAST({0} AS double) AS {0}", "time": "to_unix_timestamp({0}) AS {0}"}


#: How many batches back a check looks for usual ones: the days of a long replay are none, and must not be read again.
BATCHES_LOOKED_AT = 1_000
#: Batches of past days alone say nothing of the feed.
_BATCHES_BEFORE = (
    "SELECT landed_at, last_created_at, ticks_read, duplicates, late_ticks FROM landed_batches"
    f" WHERE batch_id BETWEEN %(batch)s - {BATCHES_LOOKED_AT} AND %(batch)s - 1 AND late_ticks < ticks_landed"
    " ORDER BY batch_id DESC LIMIT %(most)s"
)

#: Of the newest batch before it that has a tick.
_FIELDS_BEFORE = (
    "SELECT unknown_fields FROM landed_batches"
    f" WHERE batch_id BETWEEN %(batch)s - {BATCHES_LOOKED_AT} AND %(batch)s - 1 AND unknown_fields IS NOT NULL"
    " ORDER BY batch_id DESC LIMIT 1"
)

#: Where each partition that had landed anything ended with a batch: offsets only grow. Read backwards from the newest.
_ENDS_THEN = (
    "SELECT kafka_partition, (SELECT o.until_offset FROM landed_offsets o WHERE o.kafka_partition = p.kafka_partition"
    " AND o.batch_id <= %s ORDER BY o.until_offset DESC LIMIT 1) AS until_offset"
    " FROM (SELECT DISTINCT kafka_partition FROM landed_offsets) p"
)

_VERSION_AFTER = (
    "SELECT profile_version FROM landed_batches"
    " WHERE batch_id > %s AND profile_version IS NOT NULL ORDER BY batch_id LIMIT 1"
)

#: A page of rows: its columns by name, missing values masked.
Page: TypeAlias = "dict[str, np.ma.MaskedArray[Any, Any]]"
#: By company and day: when a tick was made, in milliseconds since 1970-01-01 UTC, and its price.
LastTicks: TypeAlias = dict[tuple[str, date], tuple[int, float]]
_NO_TICK = (0, math.nan)


class UnknownBatch(TickledgerError):
    """The ledger has no batch of that number. Exit code 2."""

    exit_code = 2


class RolledUp(TickledgerError):
    """The batch's aggregates are no longer kept by batch, so it cannot be checked again. Exit code 2."""

    exit_code = 2

    def __init__(self, batch_id: int) -> None:
        super().__init__(
            f"batch {batch_id} was rolled up into daily_volume and cannot be checked again; its verdict stays"
        )
        self.batch_id = batch_id

    def __reduce__(self) -> tuple[type["RolledUp"], tuple[int]]:
        return RolledUp, (self.batch_id,)


@dataclass(frozen=True)
class LedgerView:
    """What MySQL says of one batch. `ranges` maps a partition to its offsets [from, until).

    `landed` are those of the batch and all before it; a row beyond them came later. `companies` is the profile under
    which the batch landed, `days` are the exchange's.
    """

    batch: dict[str, Any]
    ranges: dict[int, tuple[int, int]]
    landed: dict[int, tuple[int, int]]
    aggregate_columns: tuple[str, ...]
    aggregates: list[dict[str, Any]]
    companies: dict[str, Company]
    days: TradingDays
    #: The landings before, oldest first.
    before: list[Landing]
    corrections: CorrectionsView
    #: The fields that nobody described, of the newest batch before that has a tick, as the ledger keeps them.
    fields_before: str | None = None

    def slices(self) -> Iterator[Slice]:
        """Where the batch's ticks must be: every company on every day of which the batch has landed some.

        A sector's own rows bound the times. Sectors without a row are looked up between the day's first and last
        created_at, so that a missing row is noticed.
        """
        own: dict[tuple[date, str], tuple[datetime, datetime]] = {}
        for row in filter(_has_landed_some, self.aggregates):
            key, times = (row["date"], row["sector"]), (row["first_created_at"], row["last_created_at"])
            first, last = own.get(key, times)
            own[key] = min(first, times[0]), max(last, times[1])
        for day in sorted({day for day, _ in own}):
            bounds = [times for (of, _), times in own.items() if of == day]
            whole_day = (min(first for first, _ in bounds), max(last for _, last in bounds))
            within: dict[tuple[datetime, datetime], list[str]] = {}
            for ticker, company in self.companies.items():
                within.setdefault(own.get((day, company.sector), whole_day), []).append(ticker)
            for times, tickers in within.items():
                for start in range(0, len(tickers), COMPANIES_A_READ):
                    yield Slice(tickers[start : start + COMPANIES_A_READ], day, *times)


class ReadBack:
    """Reads batches on one Cassandra session and, for each batch, a MySQL connection of its own.

    The session must serve nothing else: it returns pages of numpy arrays from here on.
    Every method raises StoreUnavailable where a store does not answer (the same call may succeed later) and
    ConfigurationError where a table or column is not there.
    """

    def __init__(self, settings: Settings, session: Session) -> None:
        self._settings = settings
        self._session = session
        # A page becomes one array a column, not an object a value; the factory hands it on as it is.
        session.client_protocol_handler = _arrays()
        self._profile = session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)
        prices = (
            f"SELECT {_selected('ticker', 'created_at', 'price', 'kafka_partition', 'kafka_offset')} FROM {RAW_TABLE}"
        )
        with cassandra_errors():
            self._ticks_in_slice = session.prepare(
                f"SELECT {_selected(*_READ_COLUMNS)} FROM {RAW_TABLE}"
                " WHERE ticker IN ? AND trade_date = ? AND created_at >= ? AND created_at <= ?"
            )
            self._ticks_in_slice.fetch_size = ROWS_PER_PAGE
            self._price_before = session.prepare(
                f"{prices} WHERE ticker IN ? AND trade_date = ? AND created_at >= ? AND created_at < ?"
                " ORDER BY created_at DESC PER PARTITION LIMIT 1"
            )
            # Cassandra takes ORDER BY beside IN only where it need not page.
            self._price_before.fetch_size = None
            self._prices_before = session.prepare(
                f"{prices} WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?"
                " ORDER BY created_at DESC"
            )
            self._prices_before.fetch_size = PRICES_PER_PAGE
            # COUNT(*) would read whole rows into Cassandra's memory, raw values and all.
            self._count_dead = session.prepare(
                f"SELECT COUNT(reason) AS count FROM {DEAD_LETTER_TABLE} WHERE topic = ? AND kafka_partition = ?"
                " AND offset_bucket = ? AND kafka_offset >= ? AND kafka_offset < ?"
            )
            # Within one partition of Cassandra's, of which the reasons are read anyway.
            self._corrections = CorrectionsReader(session, self._read)
            self._count_whole = session.prepare(
                f"{self._count_dead.query_string} AND reason = '{TOO_MANY_BROKEN}' ALLOW FILTERING"
            )

    def frames(self, batch_id: int) -> "dict[str, pd.DataFrame]":
        """The batch's frame for each suite. Raises UnknownBatch where the ledger has no such batch, or RolledUp."""
        ledger = self._ledger(batch_id)
        ticks = self._ticks(ledger)
        with cassandra_errors():
            changed = self._corrections.changed(ledger.corrections, ticks)
        return {
            "raw_ticks": ticks,
            "aggregates": _aggregates(ledger),
            "books": _frame([_books(ledger, len(ticks), *self._dead_letters(ledger))]),
            "books_by_sector": _books_by_sector(ledger, ticks, changed),
        }

    def _ledger(self, batch_id: int) -> LedgerView:
        with mysql(self._settings) as connection:
            batches, _ = _select(connection, "SELECT * FROM landed_batches WHERE batch_id = %s", (batch_id,))
            if not batches:
                raise UnknownBatch(f"the ledger has no batch {batch_id}")
            if batches[0].get("rolled_up_at"):
                raise RolledUp(batch_id)
            ranges, _ = _select(connection, "SELECT * FROM landed_offsets WHERE batch_id = %s", (batch_id,))
            query = "SELECT * FROM aggregated_data WHERE batch_id = %s ORDER BY date, sector"
            aggregates, columns = _select(connection, query, (batch_id,))
            ends, _ = _select(connection, _ENDS_THEN, (batch_id,))
            companies, days = _companies(connection, batches[0]), read_exchange(connection).days
            # A table from before the column lacks it until dbt adds it.
            known = "unknown_fields" in batches[0]
            fields = _select(connection, _FIELDS_BEFORE, {"batch": batch_id})[0] if known else []
            before, _ = _select(connection, _BATCHES_BEFORE, {"batch": batch_id, "most": USUAL_BATCHES + 1})
            own = {r["kafka_partition"]: (r["from_offset"], r["until_offset"]) for r in ranges}
            until = {r["kafka_partition"]: r["until_offset"] for r in ends if r["until_offset"]}
            corrections = corrections_view(connection, batch_id, own, until, aggregates)
        return LedgerView(
            batch=batches[0],
            ranges=own,
            landed={partition: (0, end) for partition, end in until.items()},
            aggregate_columns=columns,
            aggregates=aggregates,
            companies=companies,
            days=days,
            before=[Landing(b["landed_at"], b["last_created_at"], own_ticks(b)) for b in reversed(before)],
            corrections=corrections,
            fields_before=fields[0]["unknown_fields"] if fields else None,
        )

    def _ticks(self, ledger: LedgerView) -> "pd.DataFrame":
        slices = list(ledger.slices())
        # Without their end, unlike other slices: the tick there is a slice's own first one.
        earlier = [one._replace(first=one.first - PRICE_WINDOW, last=one.first) for one in slices]
        with cassandra_errors():
            before = self._last_ticks(ledger, earlier)
            # Page by page: the day of one late tick may hold a million others.
            found = [[_needed(ledger, page) for page in pages] for pages in self._read(self._ticks_in_slice, slices)]
        return _tick_frame(ledger, slices, found, before)

    def _last_ticks(self, ledger: LedgerView, slices: list[Slice]) -> LastTicks:
        """The last tick of each company and day in some slices, of those that had landed with the batch."""
        last: LastTicks = {}
        later: list[tuple[str, date, datetime, datetime]] = []
        for one, pages in zip(slices, self._read(self._price_before, slices), strict=True):
            for page in pages:
                last |= _prices(one.trade_date, page, _within(ledger.landed, page))
                later += [(str(ticker), *one[1:]) for ticker in page["ticker"][~_within(ledger.landed, page)]]
        for (_, day, *_), pages in zip(later, self._read(self._prices_before, later), strict=True):
            for page in pages:
                landed = _within(ledger.landed, page)
                if landed.any():
                    first = landed.argmax()
                    last |= _prices(day, page, slice(first, first + 1))
                    break
        return last

    def _dead_letters(self, ledger: LedgerView) -> tuple[int, int]:
        """The batch's dead letters, and how many of them are messages of which too many elements were broken."""
        wanted = [
            (ledger.batch["topic"], partition, bucket, start, until)
            for partition, (start, until) in ledger.ranges.items()
            for bucket in range(start // DEAD_LETTER_BUCKET, (until - 1) // DEAD_LETTER_BUCKET + 1)
        ]
        with cassandra_errors():
            dead = self._sum(self._count_dead, wanted)
            return dead, self._sum(self._count_whole, wanted) if dead else 0

    def _sum(self, count: Any, wanted: list[Any]) -> int:
        return sum(int(page["count"][0]) for pages in self._read(count, wanted) for page in pages)

    def _read(self, statement: Any, parameters: list[Any]) -> Iterator[Any]:
        results = execute_concurrent_with_args(
            self._session,
            statement,
            parameters,
            concurrency=READS_IN_FLIGHT,
            results_generator=True,
            execution_profile=self._profile,
        )
        return (found for _, found in results)


def _companies(connection: MySQLConnectionAbstract, batch: dict[str, Any]) -> dict[str, Company]:
    """The profile under which a batch landed; for one that names none, the nearest that is known."""
    version = batch.get("profile_version")
    if not version:
        later, _ = _select(connection, _VERSION_AFTER, (batch["batch_id"],))
        version = later[0]["profile_version"] if later else None
    source = "profile_versions WHERE profile_version = %s" if version else "profile"
    query = f"SELECT ticker, sector, shares FROM {source}"
    rows, _ = _select(connection, query, (version,) if version else ())
    return {row["ticker"]: Company(row["sector"], int(row["shares"])) for row in rows}


def _tick_frame(ledger: LedgerView, slices: list[Slice], found: list[list[Page]], before: LastTicks) -> "pd.DataFrame":
    """The batch's ticks among the rows :func:`_needed` of each slice; `before` are the ticks before a slice's first.

    Numbers are numpy's own and texts and days are categories, which are judged ten times as fast as objects.
    """
    import numpy as np
    import pandas as pd
    from pandas.api.types import union_categoricals

    counts = [sum(len(page["price"]) for page in pages) for pages in found]
    read = {name: _column(name, [page[name] for pages in found for page in pages]) for name in _READ_COLUMNS}
    tickers, trade_dates = read["ticker"], pd.Categorical([one.trade_date for one in slices]).repeat(counts)
    # Rows come a company and day after the other, each by created_at.
    starts = _changes(tickers.codes, trade_dates.codes)
    last = [before.get(key, _NO_TICK) for key in zip(tickers[starts], trade_dates[starts], strict=True)]
    companies = [ledger.companies[ticker] for ticker in tickers.categories]
    value = read["price"] * np.array([float(company.shares) for company in companies])[tickers.codes]
    frame = pd.DataFrame(
        {
            "trade_date": trade_dates,
            **read,
            "created_at": read["created_at"].astype("datetime64[ms]"),
            "profile_sector": pd.Categorical([company.sector for company in companies]).take(tickers.codes),
            "market_cap_error": _beyond_rounding(read["market_cap"], value),
            "price_ratio": _price_ratios(read["created_at"], read["price"], starts, last),
        },
        copy=False,
    )
    for field in TICK_FIELDS:
        if field.kind == "text":
            frame[length_of(field.name)] = _lengths(frame[field.name])
    trade_days: Any = ledger.days.days_of(read["created_at"])
    codes, days = pd.factorize(trade_days)
    frame["created_on"] = pd.Categorical.from_codes(codes, pd.Index([day_to_date(int(day)) for day in days]))
    for left, right in (("sector", "profile_sector"), ("trade_date", "created_on")):
        # Categories can be compared only where both columns have the same.
        both = union_categoricals([frame[left], frame[right]]).categories
        for name in (left, right):
            frame[name] = frame[name].cat.set_categories(both)
    mine = _within(ledger.ranges, {name: frame[name].to_numpy() for name in ("kafka_partition", "kafka_offset")})
    return frame[mine].reset_index(drop=True)


def _prices(day: date, page: Page, rows: Any) -> LastTicks:
    """Some rows of a page, at most one a company."""
    columns = (page["ticker"][rows], page["created_at"][rows], page["price"].filled(math.nan)[rows])
    return {(str(ticker), day): (int(moment), float(price)) for ticker, moment, price in zip(*columns, strict=True)}


def _needed(ledger: LedgerView, page: Page) -> Page:
    """The batch's rows of a page, and before each of them the one with whose price its own is compared.

    That is no row which had not landed by then. The page's last one may stand before a row of the next page.
    """
    landed = _rows(page, _within(ledger.landed, page))
    mine = _within(ledger.ranges, landed)
    needed = mine.copy()
    needed[:-1] |= mine[1:]
    needed[-1:] = True
    return _rows(landed, needed)


def _rows(page: dict[str, Any], rows: Any) -> Page:
    return {name: column[rows] for name, column in page.items()}


def _within(ranges: dict[int, tuple[int, int]], page: dict[str, Any]) -> "np.ndarray[Any, Any]":
    """Whether each row of a page is of a message within these ranges of offsets, by partition."""
    import numpy as np

    partitions, offsets = page["kafka_partition"], page["kafka_offset"]
    within = np.zeros(len(offsets), dtype=bool)
    for partition, (start, until) in ranges.items():
        # A row whose place is missing is in no range.
        within |= np.ma.filled((partitions == partition) & (offsets >= start) & (offsets < until), False)
    return within


def _changes(*codes: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """The rows at which one of the columns has another code than in the row before; the first row too."""
    import numpy as np

    changed = np.ones(len(codes[0]), dtype=bool)
    changed[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in codes])
    return np.flatnonzero(changed)


def _column(name: str, pages: "list[np.ndarray[Any, Any]]") -> Any:
    """One column as numpy's own numbers, or as a category of texts. Whole numbers stay whole beside a missing one."""
    import numpy as np
    import pandas as pd

    values: Any = np.ma.concatenate(pages) if pages else np.ma.array([])
    if _READ_COLUMNS[name] == "text":
        # As objects even where there are none, to be compared with other texts.
        return pd.Categorical(values.data.astype(object))
    if _READ_COLUMNS[name] == "decimal":
        return values.astype("float64").filled(np.nan)
    return np.where(values.mask, None, values.data) if values.mask.any() else values.data.astype("int64")


def _lengths(texts: "pd.Series[Any]") -> "np.ndarray[Any, Any]":
    """The length of each text of a category, in characters. NaN where it is missing."""
    import numpy as np

    # A missing one has the code -1.
    return np.array([*(len(text) for text in texts.cat.categories), np.nan])[texts.cat.codes]


def _beyond_rounding(market_cap: "np.ndarray[Any, Any]", value: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """How far market_cap is from price × shares, in the currency, less what their rounding to float64 may account for.

    That is 0.25 at 10¹⁵ and grows with the amount. NaN where either is missing.
    """
    import numpy as np

    return np.maximum(np.abs(market_cap - value) - 2 * np.spacing(value), 0)


def _price_ratios(
    created_ms: "np.ndarray[Any, Any]",
    prices: "np.ndarray[Any, Any]",
    starts: "np.ndarray[Any, Any]",
    before: list[tuple[int, float]],
) -> "np.ndarray[Any, Any]":
    """For each row the larger of its price and that of the row before it, as a multiple of the smaller.

    A company's rows of a day begin at each of `starts`, and `before` is the tick before them. NaN where the tick before
    is missing or older than PRICE_WINDOW, or a price is missing or not above zero.
    """
    import numpy as np

    moments = np.insert(created_ms, starts, [created for created, _ in before])
    prices = np.insert(prices, starts, [price for _, price in before])
    lower, higher = np.minimum(prices[1:], prices[:-1]), np.maximum(prices[1:], prices[:-1])
    comparable = (np.diff(moments) <= PRICE_WINDOW.total_seconds() * 1000) & (lower > 0)
    ratios = np.divide(higher, lower, out=np.full(len(lower), np.nan), where=comparable)
    # The ticks before have served; a ratio stands at the place before its row.
    return np.delete(ratios, (starts + np.arange(len(starts)))[1:] - 1)


def _books(ledger: LedgerView, ticks: int, dead_letters: int, kept_whole: int) -> dict[str, Any]:
    """One row per batch: what the ledger says beside what the stores hold. Volume in shares.

    Ticks and volume are those that the batch landed; what its corrections change is told apart.
    """
    batch, aggregates = ledger.batch, ledger.aggregates
    corrected_ticks = sum(row.get("corrected_ticks") or 0 for row in aggregates)
    corrected_volume = int(sum(row.get("corrected_volume") or 0 for row in aggregates))
    parts = ("ticks_landed", "corrections", "dead_letters", "duplicates")
    return {
        "ticks_read": batch["ticks_read"],
        "ticks_accounted_for": sum(batch.get(part) or 0 for part in parts),
        "ticks_landed": batch["ticks_landed"],
        "ticks_in_cassandra": ticks,
        "ticks_in_aggregates": sum(row["ticks"] for row in aggregates) - corrected_ticks,
        "volume": int(batch["volume"]),
        "volume_in_aggregates": int(sum(row["total_volume"] for row in aggregates)) - corrected_volume,
        "corrected_ticks": batch.get("corrected_ticks") or 0,
        "corrected_ticks_in_aggregates": corrected_ticks,
        "corrected_volume": int(batch.get("corrected_volume") or 0),
        "corrected_volume_in_aggregates": corrected_volume,
        "dead_letters": batch["dead_letters"],
        "dead_letters_in_cassandra": dead_letters,
        "first_created_at": batch["first_created_at"],
        "first_in_aggregates": _time_in_aggregates(ledger, "first_created_at"),
        "last_created_at": batch["last_created_at"],
        "last_in_aggregates": _time_in_aggregates(ledger, "last_created_at"),
        "messages": batch["messages"],
        "offsets_covered": sum(until - start for start, until in ledger.ranges.values()),
        "minutes_behind": minutes_behind(batch, ledger.before, MOST_MINUTES_BEHIND),
        "minutes_ahead": minutes_ahead(batch),
        "pace_to_usual": pace_to_usual(batch, ledger.before),
        "dead_letter_share": dead_letter_share(batch),
        "messages_kept_whole": kept_whole,
        "duplicate_share": duplicate_share(batch),
        "fields_changed": fields_changed(ledger.fields_before, batch.get("unknown_fields")),
    }


def _has_landed_some(row: dict[str, Any]) -> bool:
    """Whether a row of `aggregated_data` has ticks that its batch landed, and not only what it corrects."""
    return row.get("corrected_ticks") is None or bool(row["ticks"] - row["corrected_ticks"])


def _time_in_aggregates(ledger: LedgerView, name: str) -> datetime | None:
    """The first or last created_at of the aggregates of what the batch landed; None of those that only correct.

    A row of both has the times of the corrected ticks too: those of the ledger may then lie between.
    """
    rows = [row for row in ledger.aggregates if _has_landed_some(row)]
    found: datetime | None = (min if name.startswith("first") else max)((row[name] for row in rows), default=None)
    said: datetime | None = ledger.batch[name]
    if found is None or said is None or all(row.get("corrected_ticks") is None for row in rows):
        return found
    lies_between = found <= said if name.startswith("first") else found >= said
    return said if lies_between else found


def _aggregates(ledger: LedgerView) -> "pd.DataFrame":
    """The batch's rows of `aggregated_data` as they are, and `profile_sector`: the sector, if `profile` has it.

    What is corrected may be of a sector that it has no longer.
    """
    sectors = {company.sector for company in ledger.companies.values()}
    rows = [
        row | {"profile_sector": row["sector"] if row["sector"] in sectors or not _has_landed_some(row) else None}
        for row in ledger.aggregates
    ]
    return _frame(rows, (*ledger.aggregate_columns, "profile_sector"))


def _books_by_sector(ledger: LedgerView, ticks: "pd.DataFrame", changed: Changed) -> "pd.DataFrame":
    """One row per date and sector that either store has. Volume in shares, as corrected by the batch.

    The sector is the profile's: a tick that names another one is a finding of its own and does not move volumes.
    """
    import pandas as pd

    sums: dict[tuple[date, str], list[int]] = {}
    for row in ledger.aggregates:
        amounts = sums.setdefault((row["date"], row["sector"]), [0, 0, 0, 0])
        amounts[1] += row["ticks"]
        amounts[3] += int(row["total_volume"])
    # A missing volume is a finding of the raw ticks.
    volumes = ticks.assign(volume=pd.to_numeric(ticks["volume"]).fillna(0))
    of_sector = volumes.groupby(["trade_date", "profile_sector"], observed=True)["volume"]
    for (day, sector), count, volume in of_sector.agg(["size", "sum"]).itertuples(name=None):
        amounts = sums.setdefault((day, sector), [0, 0, 0, 0])
        amounts[0], amounts[2] = count, int(volume)
    for key, (count, volume) in changed.items():
        amounts = sums.setdefault(key, [0, 0, 0, 0])
        amounts[0] += count
        amounts[2] += volume
    names = ("ticks_in_cassandra", "ticks_in_aggregates", "volume_in_cassandra", "volume_in_aggregates")
    rows = [{"date": day, "sector": sector} | dict(zip(names, sums[day, sector], strict=True)) for day, sector in sums]
    return _frame(rows, ("date", "sector", *names))


def _arrays() -> Any:
    """The driver's handler that decodes to numpy. Raises ConfigurationError where the driver was built without it."""
    if NumpyProtocolHandler is None:
        raise ConfigurationError(
            "cassandra-driver is built without its extensions; it should be the wheel that 'make setup' installs"
        )
    from cassandra import numpy_parser

    # As of 3.30.1 its own calls a method that numpy 2 has no longer, and hides the error: every page comes out empty.
    numpy_parser.make_native_byteorder = lambda column: column.astype(column.dtype.newbyteorder("="))
    return NumpyProtocolHandler


def _selected(*columns: str) -> str:
    return ", ".join(_READ_AS.get(_READ_COLUMNS[name], "{0}").format(name) for name in columns)


def _frame(rows: Sequence[Any], columns: tuple[str, ...] | None = None) -> "pd.DataFrame":
    import pandas as pd

    # As objects: whole numbers stay whole beside a missing value, times keep no zone, days stay days.
    return pd.DataFrame(rows, columns=list(columns) if columns else None, dtype=object)


def _select(
    connection: MySQLConnectionAbstract, query: str, values: tuple[Any, ...] | dict[str, Any] = ()
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    cursor: Any = connection.cursor()
    cursor.execute(query, values)
    columns = tuple(column[0] for column in cursor.description)
    rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    cursor.close()
    return rows, columns
