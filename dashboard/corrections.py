"""What corrections and cancellations make of the prices and figures that the page asks Cassandra for.

As a tick's price may show a moment before its batch has landed, so may its correction. Where a company has none on a
day, one question finds that out, and its answer is used as it is. All raise what the readers raise.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import pandas as pd

from dashboard.readers import CassandraReader
from tickledger.revisions import RevisionKind

#: Of a day that begins or ends with more cancelled ticks than this, the first or last price is not looked for.
MOST_CANCELLED = 50
#: Corrected ticks of a company that are looked at, those made last.
TICKS_A_COMPANY = 50

#: What is quoted of a tick, or of its correction.
QUOTED = "ticker, created_at, id, price, market_cap"

_REVISED = "SELECT ticker FROM tick_revisions WHERE ticker IN ? AND trade_date = ? PER PARTITION LIMIT 1"
#: Cassandra keeps the revisions of a tick in the order of :func:`tickledger.revisions.in_force`.
_IN_FORCE = f"""
    SELECT {QUOTED}, kind FROM tick_revisions WHERE ticker = ? AND trade_date = ? AND created_at = ? AND id = ?
    ORDER BY created_at DESC LIMIT 1
"""
#: The tick after another one, and the one before it.
AFTER, BEFORE = (
    f"SELECT {QUOTED} FROM real_time_data WHERE ticker = ? AND trade_date = ? AND (created_at, id) {way}"
    f" ORDER BY created_at {order} LIMIT 1"
    for way, order in (("> (?, ?)", "ASC"), ("< (?, ?)", "DESC"))
)
_REVISIONS = """
    SELECT ticker, created_at, id, kind, price, volume FROM tick_revisions
    WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?
"""
_TICK = """
    SELECT ticker, created_at, id, price, volume, sector FROM real_time_data
    WHERE ticker = ? AND trade_date = ? AND created_at = ? AND id = ?
"""
_TICKS = """
    SELECT ticker, created_at, id, price, volume FROM real_time_data
    WHERE ticker = ? AND trade_date = ? AND created_at >= ? AND created_at < ?
"""
_NEWEST = f"""
    SELECT ticker, created_at, id, kind, price, volume, sector, revised_at, kafka_partition, kafka_offset
    FROM tick_revisions WHERE ticker = ? AND trade_date = ?
    ORDER BY created_at DESC LIMIT {TICKS_A_COMPANY}
"""

#: ticker, created_at, id
Key = tuple[str, datetime, int]


def revised(reader: CassandraReader, tickers: Sequence[str], day: date) -> set[str]:
    """Which of some companies have a correction of a tick of a trading day."""
    return {row.ticker for row in reader.rows(_REVISED, [(list(tickers), day)])}


def held(reader: CassandraReader, day: date, ticks: Sequence[Any], among: set[str], onward: str) -> list[Any]:
    """What holds of some ticks, one a company, with the columns :data:`QUOTED`.

    In place of one that was cancelled, the first one :data:`AFTER` or :data:`BEFORE` it that was not. `among` are the
    companies that have a correction.
    """
    found, open_ = [one for one in ticks if one.ticker not in among], [one for one in ticks if one.ticker in among]
    for _ in range(MOST_CANCELLED):
        if not open_:
            break
        keys = [(one.ticker, day, one.created_at, one.id) for one in open_]
        newest = {row.ticker: row for row in reader.rows(_IN_FORCE, keys)}
        cancelled = [one for one in open_ if one.ticker in newest and _cancels(newest[one.ticker])]
        found += [newest.get(one.ticker, one) for one in open_ if one not in cancelled]
        asked = [(one.ticker, day, one.created_at, one.id) for one in cancelled]
        open_ = list(reader.rows(onward, asked))
    return found


def correct_candles(
    reader: CassandraReader,
    day: date,
    spans: Sequence[tuple[str, date, datetime, datetime]],
    candles: pd.DataFrame,
    length: pd.Timedelta,
) -> pd.DataFrame:
    """Candles of ticks as they came, made what they are of ticks as they hold.

    `spans` are the companies, days and times (UTC) that were read. A candle of which an open, high, low or close goes
    is read again, tick by tick; of all others only the corrected ticks are.
    """
    newest = {_key(row): row for row in reader.rows(_REVISIONS, list(spans))}
    if not newest:
        return candles
    rows = {(row["ticker"], row["start"]): row for row in candles.to_dict("records")}
    again = set()
    for tick in reader.rows(_TICK, [(key[0], day, *key[1:]) for key in newest]):
        place, now = (tick.ticker, _start(tick.created_at, length)), newest[_key(tick)]
        candle = rows.get(place)
        if candle is None or float(tick.price) in (candle["open"], candle["high"], candle["low"], candle["close"]):
            again.add(place)
            continue
        candle["volume"] -= tick.volume
        if _cancels(now):
            candle["ticks"] -= 1
        else:
            candle["volume"] += now.volume
            candle["high"], candle["low"] = (choose(candle[name], float(now.price)) for name, choose in _BOUNDS)
    return _read_again(reader, day, rows, again, newest, candles, length)


_BOUNDS = (("high", max), ("low", min))


def _read_again(
    reader: CassandraReader,
    day: date,
    rows: dict[tuple[str, pd.Timestamp], dict[Any, Any]],
    again: set[tuple[str, pd.Timestamp]],
    newest: dict[Key, Any],
    candles: pd.DataFrame,
    length: pd.Timedelta,
) -> pd.DataFrame:
    for ticker, start in sorted(again):
        begin = start.tz_localize(None).to_pydatetime()
        span = (ticker, day, begin, begin + length.to_pytimedelta())
        ticks = [newest.get(_key(tick), tick) for tick in reader.rows(_TICKS, [span])]
        whole = [(float(tick.price), tick.volume) for tick in ticks if not _cancels(tick)]
        rows.pop((ticker, start), None)
        if whole:
            prices = [price for price, _ in whole]
            sums = {"volume": sum(volume for _, volume in whole), "ticks": len(whole)}
            ends = {"open": prices[0], "close": prices[-1], "high": max(prices), "low": min(prices)}
            rows[ticker, start] = {"ticker": ticker, "start": start} | ends | sums
    ordered = [rows[place] for place in sorted(rows)]
    return pd.DataFrame(ordered, columns=list(candles.columns)).astype(candles.dtypes.to_dict())


def corrected_ticks(reader: CassandraReader, tickers: Sequence[str], day: date) -> list[dict[str, Any]]:
    """The corrected ticks of a trading day, of each company those made last. One row per tick, in no order.

    ticker, created_at, id and sector of the tick as it came; its volume and price then, and now (None if it was
    cancelled); revised_at, kafka_partition and kafka_offset of what holds.
    """
    companies = sorted(revised(reader, tickers, day))
    # Backwards, the one in force comes first.
    newest: dict[Key, Any] = {}
    for row in reader.rows(_NEWEST, [(ticker, day) for ticker in companies]):
        newest.setdefault(_key(row), row)
    found = []
    for tick in reader.rows(_TICK, [(key[0], day, *key[1:]) for key in newest]):
        now = newest[_key(tick)]
        gone = _cancels(now)
        found.append(
            {
                "ticker": tick.ticker,
                "created_at": tick.created_at,
                "id": tick.id,
                "sector": tick.sector,
                "volume": tick.volume,
                "price": float(tick.price),
                "volume_now": None if gone else now.volume,
                "price_now": None if gone else float(now.price),
                "sector_now": None if gone else now.sector,
                "revised_at": now.revised_at,
                "kafka_partition": now.kafka_partition,
                "kafka_offset": now.kafka_offset,
            }
        )
    return found


def _cancels(row: Any) -> bool:
    """Whether a row is a cancellation; one of a tick is not."""
    return getattr(row, "kind", None) == RevisionKind.CANCELLATION


def _key(row: Any) -> Key:
    return row.ticker, row.created_at, row.id


def _start(moment: datetime, length: pd.Timedelta) -> pd.Timestamp:
    since = moment - datetime(1970, 1, 1)
    return pd.Timestamp(moment - since % length.to_pytimedelta(), tz="UTC")
