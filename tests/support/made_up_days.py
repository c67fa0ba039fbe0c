"""Made-up trading days straight into both stores, as the stream would have landed them: for measuring, and to look at.

    python -m tests.support.made_up_days --ticks 1000000   # a million ticks of the last 24 hours, into an empty ledger

Kafka and Spark have no part in it. The books agree afterwards; verdicts and findings are made up too.
"""

import json
import random
from argparse import ArgumentParser
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from producer.companies import read_companies, read_ladder
from producer.market import Market
from producer.tick_ids import tick_ids
from streaming.tick_columns import TickColumns
from streaming.tick_sink import TickSink
from tickledger.decode import Decoder
from tickledger.ledger import LandedBatch, Ledger, SectorVolume, utc_now
from tickledger.settings import Settings, load_settings
from tickledger.stores import connect_cassandra, connect_mysql
from tickledger.tick import Tick, datetime_to_ms, day_to_date

BATCHES_A_DAY = 240
#: Hours before the end in which nothing is traded: a gap to be seen as one.
REST = (1.8, 1.45)
#: What some messages hold that should not, each with a reason of its own.
BAD_MESSAGES: tuple[bytes, ...] = (
    b'{"id": 7, "ticker": "TMAS.JK"',
    b'[{"id": 8, "created_at": "2026-11-25 03:00:00", "volume": -5, "market_cap": 1, "ticker": "TMAS.JK",'
    b' "price": 550, "sector": "Logistics & Deliveries"}]',
    b'[{"id": 9, "created_at": "2026-11-25 03:00:00", "volume": 100, "market_cap": 1, "ticker": "<b>BOLD</b>",'
    b' "price": 550, "sector": "**Coal**"}]',
    b'[{"id": 10, "created_at": "yesterday", "volume": 100, "market_cap": 1, "ticker": "TMAS.JK", "price": 1,'
    b' "sector": "Logistics & Deliveries"}]',
)
FINDINGS = {
    "warned": (
        "raw_ticks.market_cap_is_price_times_shares",
        "warning",
        "1 of {ticks} ticks: market_cap 31,377,500,000,000 at price 551",
        "market_cap = price × shares, to a thousandth",
    ),
    "failed": (
        "books.cassandra_has_every_landed_tick",
        "critical",
        "{fewer} ticks in real_time_data",
        "{ticks} ticks, as landed_batches has it",
    ),
}


class Filler:
    """Lands one batch after another, with a market that trades."""

    def __init__(self, settings: Settings, seed: int = 5) -> None:
        self._settings = settings
        self._ledger = Ledger(settings)
        self._mysql = connect_mysql(settings, settings.dbt_mysql)
        self._session = connect_cassandra(settings)
        self._sink = TickSink(self._session)
        companies = read_companies(settings)
        self._market = Market(companies, read_ladder(settings), seed)
        self._ids, self._random = tick_ids(), random.Random(seed)
        self._days = self._ledger.exchange().days
        self._decoder = Decoder({company.ticker: company.sector for company in companies})
        self.companies = len(companies)
        self._offsets = {0: 0, 1: 0}
        self._batch_id = 0
        self.landed = 0

    @classmethod
    def behind(cls, settings: Settings) -> "Filler":
        """One that goes on where the ledger ends."""
        head, filler = Ledger(settings).head(), cls(settings)
        filler._batch_id, filler._offsets = head.batch_id, {0: 0, 1: 0} | head.ends
        return filler

    def land(self, moments: list[datetime], landed_at: datetime, *, bad: int = 0, verdict: str = "passed") -> None:
        """Land a batch of one round a moment and some messages that nobody can land."""
        begins = dict(self._offsets)
        groups: dict[tuple[date, str], list[Tick]] = defaultdict(list)
        sent: dict[int, list[tuple[Tick, int]]] = {0: [], 1: []}
        for number, moment in enumerate(moments):
            for tick in self._trade(moment):
                groups[day_to_date(tick.trade_day), tick.sector].append(tick)
                sent[number % 2].append((tick, self._offsets[number % 2]))
            self._offsets[number % 2] += 1
        for partition, ticks in sent.items():
            for some in TickColumns.of(ticks).by_company_and_day():
                self._sink.write(some, partition)
        for _ in range(bad):
            raw = self._random.choice(BAD_MESSAGES)
            for dead in self._decoder.decode(raw, datetime_to_ms(landed_at)).dead:
                self._sink.write_dead(self._settings.kafka_topic, 0, self._offsets[0], dead)
            self._offsets[0] += 1
        self._sink.drain()
        self._batch_id += 1
        self._commit(groups, begins, len(moments), bad, landed_at)
        self.landed += len(moments) * self.companies
        if verdict != "unchecked":
            self._judge(verdict, landed_at, len(moments) * self.companies)

    def _trade(self, moment: datetime) -> list[Tick]:
        at = datetime_to_ms(moment)
        day, rows = self._days.day_of(at), self._market.trade("", self._ids)
        return [
            Tick(row["ticker"], at, row["id"], row["volume"], row["market_cap"], row["price"], row["sector"], day)
            for row in rows
        ]

    def _commit(
        self,
        groups: dict[tuple[date, str], list[Tick]],
        begins: dict[int, int],
        rounds: int,
        bad: int,
        landed_at: datetime,
    ) -> None:
        ranges = {one: (begins[one], end) for one, end in self._offsets.items() if end > begins[one]}
        sectors = [
            SectorVolume(
                date=day,
                sector=sector,
                ticks=len(ticks),
                volume=sum(tick.volume for tick in ticks),
                first_created_at=_moment(min(tick.created_ms for tick in ticks)),
                last_created_at=_moment(max(tick.created_ms for tick in ticks)),
            )
            for (day, sector), ticks in groups.items()
        ]
        took = round(self._random.lognormvariate(-0.6, 0.25), 3)
        batch = LandedBatch(
            batch_id=self._batch_id,
            topic=self._settings.kafka_topic,
            topic_id="00000000-0000-0000-0000-000000000001",
            ranges=ranges,
            messages=rounds + bad,
            ticks_read=rounds * self.companies + bad,
            dead_letters=bad,
            duplicates=0,
            late_ticks=0,
            sectors=sectors,
            landed_at=landed_at,
            landing_seconds=took,
            days=self._days,
            phases={"waiting": max(2 - took, 0), "job": 0.8 * took},
        )
        self._ledger.commit(batch)

    def _judge(self, verdict: str, landed_at: datetime, ticks: int) -> None:
        cursor: Any = self._mysql.cursor()
        checked = landed_at + timedelta(seconds=1)
        cursor.execute(
            "UPDATE landed_batches SET verdict = %s, checked_at = %s, commit_seconds = 0.012, check_seconds = 0.31,"
            " messages_behind = 0 WHERE batch_id = %s",
            (verdict, checked, self._batch_id),
        )
        if verdict in FINDINGS:
            cursor.execute(
                "INSERT INTO batch_findings (batch_id, expectation, severity, observed, expected)"
                " VALUES (%s, %s, %s, %s, %s)",
                (self._batch_id, *(text.format(ticks=ticks, fewer=ticks - 1) for text in FINDINGS[verdict])),
            )
        self._mysql.commit()

    def land_day(self, end: datetime, day: int, ticks: int) -> None:
        """Land the ticks of the 24 hours up to `end`, which is `day` days ago."""
        count = max(round(ticks / self.companies * (0.8 + 0.4 * random.Random(day).random() if day else 1)), 1)
        step, rest = timedelta(days=1) / count, [end - timedelta(hours=hours) for hours in REST]
        moments = [end - step * (count - number) for number in range(count)]
        for place in range(BATCHES_A_DAY):
            batch = moments[place * count // BATCHES_A_DAY : (place + 1) * count // BATCHES_A_DAY]
            kept = [moment for moment in batch if day or not rest[0] <= moment < rest[1]]
            if kept:
                self.land(kept, batch[-1].replace(microsecond=0), **_fate(f"{day}-{place}"))

    def land_live(self, end: datetime) -> None:
        """Land a round of the two seconds up to `end`, as a running stream lands them."""
        moments = [end - timedelta(milliseconds=self._random.randrange(2_000))]
        fate = _fate(str(self._batch_id))
        newest = utc_now() - end < timedelta(seconds=3)
        self.land(moments, end, **fate | ({"verdict": "unchecked"} if newest else {}))

    def close(self) -> None:
        """Close both connections."""
        self._mysql.close()
        self._session.cluster.shutdown()


def fill(settings: Settings, *, ticks: int, earlier_days: int = 0, seed: int = 5, live_seconds: int = 0) -> int:
    """Land `ticks` ticks of the last 24 hours, evenly but for a rest, and as many on each earlier day, into an empty
    ledger; then `live_seconds` more as a stream lands them, in batches of 2 s. Returns how many landed.
    """
    filler = Filler(settings, seed)
    try:
        for day in range(earlier_days, -1, -1):
            filler.land_day(utc_now() - timedelta(days=day, seconds=live_seconds), day, ticks)
        for second in range(live_seconds, 0, -2):
            filler.land_live(utc_now() - timedelta(seconds=second))
        return filler.landed
    finally:
        filler.close()


def _fate(seed: str) -> dict[str, Any]:
    """Which batches are found wrong, and which messages are bad: the same in every run."""
    chance = random.Random(seed)
    verdict = chance.choices(("passed", "warned", "failed"), (92, 5, 3))[0]
    return {"verdict": verdict, "bad": chance.choice((0, 0, 0, 0, 0, 0, 0, 1, 2, 3))}


def _moment(created_ms: int) -> datetime:
    return datetime.fromtimestamp(created_ms / 1000, UTC).replace(tzinfo=None)


def main() -> None:
    """Fill the stores that the settings name, whose ledger must be empty."""
    parser = ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--ticks", type=int, default=200_000, help="ticks of the last 24 hours")
    parser.add_argument("--earlier-days", type=int, default=0, help="days before, with about as many ticks each")
    arguments = parser.parse_args()
    settings = load_settings()
    head = Ledger(settings).head()
    if head.batch_id:
        parser.error(f"MYSQL_DATABASE is {settings.mysql_database!r}; it should be one whose ledger is empty")
    landed = fill(settings, ticks=arguments.ticks, earlier_days=arguments.earlier_days)
    print(json.dumps({"landed_ticks": landed}))


if __name__ == "__main__":
    main()
