"""What the page asks the two stores, each question a function that returns a DataFrame.

Every statement is a constant here and every value in it is bound, but for two lists of names: MySQL's columns, which
come with their types from the YAML of the dbt model that has them, and a :class:`Window`'s candle, from the list below.
Numbers arrive as int64 or float64 and moments as UTC timestamps, never as Decimal or without a zone, which charts would
misread. No answer grows with the age of the stores: each is cut by time or by number. All raise what the readers raise.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from dashboard.corrections import AFTER, BEFORE, QUOTED, correct_candles, corrected_ticks, held, revised
from dashboard.readers import CassandraReader, MySQLReader
from tickledger.contract import model_types
from tickledger.errors import ConfigurationError
from tickledger.exchange import QUERY, Exchange, exchange_of_rows
from tickledger.tick import DEAD_LETTER_BUCKET

UTC_TIME = "datetime64[ns, UTC]"
DAY = "datetime64[ns]"
#: Over how many seconds the present pace is averaged.
PACE_SECONDS = 30
#: Batches that the pace, the charts and the dead letters look at, the newest ones.
BATCHES_FOR_PACE, BATCHES_SHOWN, BATCHES_WITH_DEAD_LETTERS = 100, 120, 50
#: Ranges of offsets that were given up, the newest ones.
GIVEN_UP_SHOWN = 6
#: Corrected ticks of today, the newest ones.
CORRECTIONS_SHOWN = 6
#: Dead letters read of each bucket (10,000 offsets of a Kafka partition), the newest ones; and buckets.
LETTERS_A_BUCKET, BUCKETS = 500, 20
#: How long one answer may go on reading candles of earlier days, and for how long a past day is not read again.
BUDGET_SECONDS, PAST_DAY_STAYS = 1.0, timedelta(minutes=30)
#: Bytes of a raw value that are shown.
RAW_SHOWN = 300


@dataclass(frozen=True)
class Window:
    """A stretch of time up to now, cut into candles: at most 120 a ticker. `candle` is a duration of CQL."""

    length: timedelta
    candle: str

    @property
    def candle_length(self) -> pd.Timedelta:
        """How much time a candle covers."""
        return pd.Timedelta(self.candle)


#: The windows that a viewer may choose: the longer the window, the longer its candles.
WINDOWS = {
    "15 min": Window(timedelta(minutes=15), "15s"),
    "1 hour": Window(timedelta(hours=1), "1m"),
    "4 hours": Window(timedelta(hours=4), "3m"),
    "1 day": Window(timedelta(days=1), "15m"),
    "5 days": Window(timedelta(days=5), "1h"),
}


# MySQL: companies, aggregates and the ledger


def companies(reader: MySQLReader) -> pd.DataFrame:
    """The seed `profile`. One row per company: ticker, company_name, sector."""
    return _read(reader, "profile", "ORDER BY ticker", columns=("ticker", "company_name", "sector"))


def exchange(reader: MySQLReader) -> Exchange:
    """The seed `exchange`. Raises ConfigurationError too, if it is empty."""
    return exchange_of_rows(reader.rows(QUERY))


_TODAY = """
    SELECT traded.volume, traded.ticks, landed.batches, landed.checked, landed.warned, landed.failed,
           newest.landed_at, tick.made_at, pace.ticks / %(pace_seconds)s
    FROM (SELECT COALESCE(SUM(total_volume), 0) AS volume, COALESCE(SUM(ticks), 0) AS ticks
          FROM aggregated_data WHERE date = %(day)s) AS traded,
         (SELECT COUNT(*) AS batches, COALESCE(SUM(verdict <> 'unchecked'), 0) AS checked,
                 COALESCE(SUM(verdict = 'warned'), 0) AS warned, COALESCE(SUM(verdict = 'failed'), 0) AS failed
          FROM landed_batches WHERE last_created_at >= %(day_begins)s) AS landed,
         (SELECT MAX(landed_at) AS landed_at FROM landed_batches
          WHERE batch_id = (SELECT MAX(batch_id) FROM landed_batches)) AS newest,
         (SELECT MAX(last_created_at) AS made_at FROM landed_batches) AS tick,
         (SELECT COALESCE(SUM(ticks_landed), 0) AS ticks
          FROM (SELECT landed_at, ticks_landed FROM landed_batches ORDER BY batch_id DESC LIMIT %(batches)s) AS recent
          WHERE landed_at > UTC_TIMESTAMP(3) - INTERVAL %(pace_seconds)s SECOND) AS pace
"""


def today(reader: MySQLReader, exchange: Exchange) -> pd.DataFrame:
    """The figures of the current trading day. One row.

    volume (shares) and ticks are of ticks made today; batches, checked, warned and failed count the batches whose
    newest tick was made today; landed_at is when the newest batch of all landed and made_at when the newest landed
    tick was made, NaT if none has landed; ticks_a_second is what landed in the last 30 s, by second.
    """
    day = exchange.day_of(datetime.now(UTC))
    values = {"day": day, "day_begins": exchange.begin_of(day)}
    rows = reader.rows(_TODAY, values | {"pace_seconds": PACE_SECONDS, "batches": BATCHES_FOR_PACE})
    whole = dict.fromkeys(("ticks", "batches", "checked", "warned", "failed"), "int64")
    return _frame(rows, volume="float64", **whole, landed_at=UTC_TIME, made_at=UTC_TIME, ticks_a_second="float64")


_LANDED_ENDS = """
    SELECT kafka_partition, MAX(until_offset) - MAX(shift) FROM (
        SELECT kafka_partition, MAX(until_offset) AS until_offset, 0 AS shift
        FROM landed_offsets GROUP BY kafka_partition
        UNION ALL SELECT kafka_partition, MAX(until_offset), MAX(until_offset - topic_offset)
        FROM skipped_offsets GROUP BY kafka_partition) AS ends
    GROUP BY kafka_partition
"""


def landed_ends(reader: MySQLReader) -> pd.DataFrame:
    """Where the ledger ends, in Kafka's own offsets. One row per Kafka partition: kafka_partition, topic_offset."""
    return _frame(reader.rows(_LANDED_ENDS), kafka_partition="int64", topic_offset="int64")


def newest_given_up(reader: MySQLReader, limit: int = GIVEN_UP_SHOWN) -> pd.DataFrame:
    """What was lost before it landed and given up, newest first. One row per Kafka partition and range.

    All columns of the table `skipped_offsets`.
    """
    of_kind = "WHERE kind = 'given_up' ORDER BY skipped_at DESC, kafka_partition LIMIT %(limit)s"
    return _read(reader, "skipped_offsets", of_kind, {"limit": limit})


def volume_by_verdict(reader: MySQLReader) -> pd.DataFrame:
    """The view `volume_today_by_verdict`. One row per sector and verdict: sector, verdict, total_volume (shares).

    Batches of one verdict may take more by corrections than they bring. That is taken from the sector's other parts,
    the largest first: no bar has a part below zero.
    """
    columns = ("sector", "verdict", "total_volume")
    frame = _read(reader, "volume_today_by_verdict", "ORDER BY sector, verdict", columns=columns)
    below = frame[frame.total_volume < 0]
    if below.empty:
        return frame
    frame = frame.drop(below.index).sort_values("total_volume", ascending=False)
    taken = frame.sector.map(below.groupby("sector").total_volume.sum()).fillna(0).abs()
    before = frame.groupby("sector").total_volume.cumsum() - frame.total_volume
    # What is left to be taken from a part, once the larger ones are gone.
    frame["total_volume"] -= (taken - before).clip(0).clip(upper=frame.total_volume)
    return frame[frame.total_volume > 0].sort_values(["sector", "verdict"]).reset_index(drop=True)


def average_day(reader: MySQLReader) -> pd.DataFrame:
    """The view `volume_today_against_average`. One row per sector, none where no earlier day has volume.

    sector, total_volume (shares, today), average_volume (shares a day) over the last `days` trading days before today.
    """
    return _read(reader, "volume_today_against_average", "WHERE average_volume IS NOT NULL ORDER BY sector")


def newest_batches(reader: MySQLReader, limit: int = BATCHES_SHOWN) -> pd.DataFrame:
    """The ledger's newest batches, newest first, from `batch_health`. One row per landed batch.

    All columns of the view: landing_seconds in s, volume in shares; findings counts the expectations that did not hold.
    """
    return _read(reader, "batch_health", "ORDER BY batch_id DESC LIMIT %(limit)s", {"limit": limit})


def batch(reader: MySQLReader, batch_id: int) -> pd.DataFrame:
    """One batch as :func:`newest_batches` has it; no row if it has not landed."""
    return _read(reader, "batch_health", "WHERE batch_id = %(batch_id)s", {"batch_id": batch_id})


def batch_offsets(reader: MySQLReader, batch_id: int) -> pd.DataFrame:
    """What a batch covers. One row per Kafka partition: kafka_partition, from_offset, until_offset, offsets."""
    columns = ("kafka_partition", "from_offset", "until_offset")
    of_batch = "WHERE batch_id = %(batch_id)s ORDER BY kafka_partition"
    frame = _read(reader, "landed_offsets", of_batch, {"batch_id": batch_id}, columns=columns)
    return frame.assign(offsets=frame.until_offset - frame.from_offset)


def batch_findings(reader: MySQLReader, batch_id: int) -> pd.DataFrame:
    """What the checks of a batch found wrong. One row per expectation that did not hold, the critical ones first."""
    of_batch = "WHERE batch_id = %(batch_id)s ORDER BY severity, expectation"
    columns = ("severity", "expectation", "observed", "expected")
    return _read(reader, "batch_findings", of_batch, {"batch_id": batch_id}, columns=columns)


def newest_batch_with_findings(reader: MySQLReader) -> pd.DataFrame:
    """The number of the newest batch for which an expectation did not hold, as batch_id; no row if all held."""
    rows = reader.rows("SELECT MAX(batch_id) FROM batch_findings")
    return _frame([row for row in rows if row[0] is not None], batch_id="int64")


def ranges_with_dead_letters(reader: MySQLReader, batches: int = BATCHES_WITH_DEAD_LETTERS) -> pd.DataFrame:
    """The offsets of the newest batches that had dead letters. One row per batch and Kafka partition, newest first."""
    rows = reader.rows(
        "SELECT offsets.kafka_partition, offsets.from_offset, offsets.until_offset"
        " FROM (SELECT batch_id FROM landed_batches WHERE dead_letters > 0 ORDER BY batch_id DESC LIMIT %(batches)s)"
        " AS newest INNER JOIN landed_offsets AS offsets ON offsets.batch_id = newest.batch_id"
        " ORDER BY newest.batch_id DESC, offsets.kafka_partition",
        {"batches": batches},
    )
    return _frame(rows, **dict.fromkeys(("kafka_partition", "from_offset", "until_offset"), "int64"))


def volume_by_day(reader: MySQLReader, first: date, last: date) -> pd.DataFrame:
    """The view `volume_by_day` from one day to another, both included. One row per date and sector with a tick.

    date, sector, total_volume (shares), ticks.
    """
    between = "WHERE date BETWEEN %(first)s AND %(last)s ORDER BY date, sector"
    return _read(reader, "volume_by_day", between, {"first": first, "last": last})


#: What the types of dbt's YAML, without their lengths, become in a DataFrame.
_FRAME_TYPES = {
    "bigint": "int64", "int": "int64", "decimal": "float64", "varchar": "str", "date": DAY, "datetime": UTC_TIME,
}  # fmt: skip


def _read(
    reader: MySQLReader,
    model: str,
    rest: str,
    values: Mapping[str, Any] | None = None,
    *,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Rows of a table or view of the dbt project: all its columns or some, named and typed as its YAML says.

    Raises ConfigurationError if the YAML lacks a column that is asked for.
    """
    types = model_types(model)
    if unknown := sorted(set(columns).difference(types)):
        raise ConfigurationError(
            f"the contract of {model!r} has no {', '.join(unknown)}, which dashboard/queries.py reads"
        )
    names = columns or tuple(types)
    rows = reader.rows(f"SELECT {', '.join(names)} FROM {model} {rest}", values)
    return _frame(rows, **{name: _FRAME_TYPES[types[name].partition("(")[0]] for name in names})


# Cassandra: prices and dead letters

#: Cassandra cuts the candles, so that no more rows travel than a chart can show. Its first row of a group is the oldest
#: or, backwards, the newest tick of the candle.
_CANDLES = """
    SELECT ticker, floor(created_at, {candle}) AS start, price, max(price) AS high, min(price) AS low,
           sum(volume) AS volume, count(*) AS ticks
    FROM real_time_data WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?
    GROUP BY ticker, trade_date, floor(created_at, {candle}) ORDER BY created_at ASC LIMIT 500
"""
_CLOSES = """
    SELECT ticker, floor(created_at, {candle}) AS start, price
    FROM real_time_data WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?
    GROUP BY ticker, trade_date, floor(created_at, {candle}) ORDER BY created_at DESC LIMIT 500
"""


@dataclass(frozen=True)
class Candles:
    """Candles of some tickers in a window that ends before `until`, and how far each day was read. Times are UTC.

    `rows` has one row per ticker and candle with a tick in it, oldest first: ticker, start, open, high, low, close
    (in the currency), volume (shares) and ticks; the times without a tick have no row. `of_day` has the same by trading
    day: a candle in which one ends and another begins is in both. `read` says up to when a day was read last, `whole`
    when it was read as a whole last, and `to_come` how many days are left for the next answer.
    """

    until: datetime
    rows: pd.DataFrame = field(default_factory=pd.DataFrame)
    of_day: dict[date, pd.DataFrame] = field(default_factory=dict)
    read: dict[date, datetime] = field(default_factory=dict)
    whole: dict[date, datetime] = field(default_factory=dict)
    to_come: int = 0


def candles(
    reader: CassandraReader,
    exchange: Exchange,
    tickers: Sequence[str],
    window: Window,
    until: datetime,
    known: Candles | None = None,
) -> Candles:
    """The candles of some tickers in a window that ends before `until` (UTC, without a zone).

    Reads only the partitions (ticker, trade_date) of the window, day by day from the newest back, for about a second.

    `known` is the earlier answer to the same question. What it lacks is read first of all; of today only the newest two
    candles are read again, and a whole day once a candle's length (a past one: half an hour) has gone by, so a late
    tick shows that much later.
    """
    begin, before = floor(until - window.length, window), known or Candles(until)
    days = _days(exchange, begin, until)
    read, whole = dict(before.read), dict(before.whole)
    of_day = {day: before.of_day[day] for day in days if day in before.of_day}
    deadline, answered, to_come = time.monotonic() + BUDGET_SECONDS, 0, 0
    for day in reversed(days):
        first, end = max(begin, exchange.begin_of(day)), min(until, exchange.begin_of(day + timedelta(days=1)))
        stale = window.candle_length.to_pytimedelta() if end == until else PAST_DAY_STAYS
        is_whole = day in whole and until - whole[day] < stale
        if is_whole and read[day] >= end:
            continue
        if answered and time.monotonic() > deadline:
            to_come += day not in whole
            continue
        since = max(first, floor(read[day], window) - window.candle_length) if is_whole else first
        parts = [_candles_of_day(reader, tickers, window, day, since, end)]
        if is_whole:
            parts.append(of_day[day][of_day[day].start < _utc(floor(since, window))])
        of_day[day] = pd.concat([part for part in parts if not part.empty] or parts[:1])
        answered, read[day] = answered + 1, end
        whole[day] = whole[day] if is_whole else until
    return Candles(until, _of_all_days(of_day, begin), of_day, read, whole, to_come)


def _of_all_days(of_day: dict[date, pd.DataFrame], begin: datetime) -> pd.DataFrame:
    """The candles of the days together, from `begin` on; one that has ticks of two days becomes whole."""
    days = [of_day[day] for day in sorted(of_day)]
    frame = pd.concat([one for one in days if not one.empty] or days[:1])
    frame = frame[frame.start >= _utc(begin)].sort_values(["ticker", "start"], kind="stable", ignore_index=True)
    if not frame.duplicated(["ticker", "start"]).any():
        return frame
    whole = {"open": "first", "high": "max", "low": "min", "volume": "sum", "ticks": "sum", "close": "last"}
    return frame.groupby(["ticker", "start"], as_index=False).agg(whole)


def _candles_of_day(
    reader: CassandraReader, tickers: Sequence[str], window: Window, day: date, since: datetime, end: datetime
) -> pd.DataFrame:
    parameters = [(ticker, day, since, end) for ticker in tickers]
    opened = [tuple(row) for row in reader.rows(_CANDLES.format(candle=window.candle), parameters)]
    closed = [tuple(row) for row in reader.rows(_CLOSES.format(candle=window.candle), parameters)]
    numbers = dict.fromkeys(("open", "high", "low"), "float64") | dict.fromkeys(("volume", "ticks"), "int64")
    frame = _frame(opened, ticker="str", start=UTC_TIME, **numbers).merge(
        _frame(closed, ticker="str", start=UTC_TIME, close="float64"), on=["ticker", "start"]
    )
    return correct_candles(reader, day, parameters, frame, window.candle_length)


def floor(moment: datetime, window: Window) -> datetime:
    """The start of the candle in which a moment lies (UTC, without a zone), as Cassandra's floor() has it."""
    return moment - (moment - datetime(1970, 1, 1)) % window.candle_length.to_pytimedelta()


_FIRST, _LAST = (
    f"SELECT {QUOTED} FROM real_time_data WHERE ticker = ? AND trade_date = ? ORDER BY created_at {order} LIMIT 1"
    for order in ("ASC", "DESC")
)


def quotes(reader: CassandraReader, tickers: Sequence[str], day: date) -> pd.DataFrame:
    """How some companies stand on a trading day. One row per company with a tick on it that holds.

    ticker, created_at of the newest tick, first_price, price and market_cap (in the currency), and change, the share by
    which the price differs from the day's first (NaN if that was zero).
    """
    keys = [(ticker, day) for ticker in tickers]
    among = revised(reader, tickers, day)
    opening = held(reader, day, reader.rows(_FIRST, keys), among, AFTER)
    newest = held(reader, day, reader.rows(_LAST, keys), among, BEFORE)
    first = _frame([(one.ticker, one.price) for one in opening], ticker="str", first_price="float64")
    last = [(one.ticker, one.created_at, one.price, one.market_cap) for one in newest]
    frame = _frame(last, ticker="str", created_at=UTC_TIME, price="float64", market_cap="float64").merge(first)
    base = frame.first_price.where(frame.first_price != 0)
    return frame.assign(change=frame.price / base - 1)


def corrections(reader: CassandraReader, tickers: Sequence[str], day: date) -> pd.DataFrame:
    """The ticks of a trading day that were corrected or cancelled last. One row per tick, the newest correction first.

    All columns of :func:`dashboard.corrections.corrected_ticks`; at most the newest :data:`CORRECTIONS_SHOWN`.
    """
    rows = sorted(corrected_ticks(reader, tickers, day), key=lambda row: row["revised_at"], reverse=True)
    text, number = dict.fromkeys(("ticker", "sector"), "str"), dict.fromkeys(("price", "price_now"), "float64")
    whole = dict.fromkeys(("id", "volume", "volume_now", "kafka_partition", "kafka_offset"), "int64")
    types = text | number | whole | {"sector_now": "object", "created_at": UTC_TIME, "revised_at": UTC_TIME}
    return _frame([tuple(row[name] for name in types) for row in rows[:CORRECTIONS_SHOWN]], **types)


_BATCH_OF = """
    SELECT batch_id FROM landed_offsets WHERE kafka_partition = %(partition)s AND until_offset > %(offset)s
    AND from_offset <= %(offset)s ORDER BY until_offset LIMIT 1
"""


def batches_of(reader: MySQLReader, messages: pd.DataFrame) -> pd.DataFrame:
    """Which batches have landed some messages. One row per message that has landed.

    kafka_partition, kafka_offset and batch_id. `messages` has the first two, and one row or more per message.
    """
    places = messages[["kafka_partition", "kafka_offset"]].drop_duplicates().astype("int64")
    rows = [
        (partition, offset, batch_id)
        for partition, offset in places.itertuples(index=False, name=None)
        for (batch_id,) in reader.rows(_BATCH_OF, {"partition": int(partition), "offset": int(offset)})
    ]
    return _frame(rows, **dict.fromkeys(("kafka_partition", "kafka_offset", "batch_id"), "int64"))


_DEAD_LETTERS = """
    SELECT kafka_partition, kafka_offset, position, reason, detail, dead_at FROM dead_letters
    WHERE topic = ? AND kafka_partition = ? AND offset_bucket = ? AND kafka_offset >= ? AND kafka_offset < ?
    ORDER BY kafka_offset DESC LIMIT {limit}
"""


def dead_letters(reader: CassandraReader, topic: str, ranges: pd.DataFrame) -> pd.DataFrame:
    """The dead letters in some ranges of offsets, newest first. One row per dead letter, without its raw value.

    kafka_partition, kafka_offset, position (-1 for a whole message), reason, detail, dead_at. At most 500 of each
    bucket, and 20 buckets: the first ones of `ranges`, which has one row per range as
    :func:`ranges_with_dead_letters` gives them.
    """
    buckets: dict[tuple[int, int], tuple[int, int]] = {}
    for partition, begin, end in ranges[["kafka_partition", "from_offset", "until_offset"]].itertuples(index=False):
        for bucket in range((end - 1) // DEAD_LETTER_BUCKET, begin // DEAD_LETTER_BUCKET - 1, -1):
            low, high = buckets.get((partition, bucket), (begin, end))
            buckets[partition, bucket] = min(low, begin), max(high, end)
    parameters = [(topic, *place, *span) for place, span in list(buckets.items())[:BUCKETS]]
    found = reader.rows(_DEAD_LETTERS.format(limit=LETTERS_A_BUCKET), parameters)
    rows = [(*row[:4], row.detail or "", row.dead_at) for row in found]
    whole = dict.fromkeys(("kafka_partition", "kafka_offset", "position"), "int64")
    frame = _frame(rows, **whole, reason="str", detail="str", dead_at=UTC_TIME)
    return frame.sort_values("dead_at", ascending=False, ignore_index=True)


_RAW_VALUE = """
    SELECT kafka_partition, kafka_offset, position, raw_value FROM dead_letters
    WHERE topic = ? AND kafka_partition = ? AND offset_bucket = ? AND kafka_offset = ? AND position = ?
"""


def raw_values(reader: CassandraReader, topic: str, letters: pd.DataFrame) -> pd.DataFrame:
    """The beginnings of some dead letters' raw values, for people. One row per dead letter, in no order.

    kafka_partition, kafka_offset, position and raw_value: the first 300 bytes as text; what is not UTF-8 or not
    printable is written as an escape.
    """
    keys = letters[["kafka_partition", "kafka_offset", "position"]].itertuples(index=False)
    parameters = [(topic, one[0], one[1] // DEAD_LETTER_BUCKET, one[1], one[2]) for one in keys]
    # One after the other: each may have 15 MiB, and all at once would be more than a node, or the page, has to spare.
    rows = [(*row[:3], printable(row[3])) for one in parameters for row in reader.rows(_RAW_VALUE, [one])]
    return _frame(rows, **dict.fromkeys(("kafka_partition", "kafka_offset", "position"), "int64"), raw_value="str")


def printable(raw: bytes | None) -> str:
    """The beginning of a raw value as one line of text."""
    text = (raw or b"")[:RAW_SHOWN].decode("utf-8", errors="backslashreplace")
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return shown + ("…" if raw and len(raw) > RAW_SHOWN else "")


def _days(exchange: Exchange, since: datetime, until: datetime) -> list[date]:
    first, last = (exchange.day_of(moment.replace(tzinfo=UTC)) for moment in (since, until))
    return [first + timedelta(days=n) for n in range((last - first).days + 1)]


def _utc(moment: datetime) -> pd.Timestamp:
    return pd.Timestamp(moment, tz="UTC")


def _frame(rows: Sequence[tuple[Any, ...]], **types: str) -> pd.DataFrame:
    """Rows as a DataFrame with these columns and types, which hold for no rows too.

    Whole numbers of which one is missing are float64, and NaN stands for it.
    """
    frame = pd.DataFrame(list(rows), columns=list(types))
    for name in [name for name, kind in types.items() if kind == UTC_TIME]:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    lacking = {name: "float64" for name, kind in types.items() if kind == "int64" and frame[name].isna().any()}
    return frame.astype(types | lacking)
