"""Known data for the page, written into the stores as the stream writes them."""

from contextlib import closing
from datetime import date, datetime

from tests.support.pipeline import Pipeline
from tickledger.contract import CONTRACT_TABLES


def land(
    pipeline: Pipeline,
    batch_id: int,
    at: datetime,
    volumes: dict[str, int],
    verdict: str = "passed",
    *,
    day: date | None = None,
) -> None:
    """Write what the stream writes for a batch of one tick a sector."""
    with closing(pipeline.mysql()) as connection:
        cursor = connection.cursor()
        for place, (sector, volume) in enumerate(volumes.items()):
            cursor.execute(
                "INSERT INTO aggregated_data (processing_id, processed_at, sector, total_volume, date, batch_id, ticks,"
                " first_created_at, last_created_at) VALUES (%s, %s, %s, %s, %s, %s, 1, %s, %s)",
                (batch_id * 100 + place, at, sector, volume, day or at.date(), batch_id, at, at),
            )
        cursor.execute(
            "INSERT INTO landed_batches (batch_id, topic, topic_id, messages, ticks_read, ticks_landed, dead_letters,"
            " duplicates, late_ticks, volume, first_created_at, last_created_at, landed_at, landing_seconds,"
            " contract_hash, verdict, checked_at)"
            " VALUES (%s, 'ticks', 'id', 1, %s, %s, 3, 1, 0, %s, %s, %s, %s, 0.75, 'hash', %s, %s)",
            (batch_id, len(volumes) + 4, len(volumes), sum(volumes.values()), at, at, at, verdict, at),
        )
        connection.commit()


def tick(
    pipeline: Pipeline, ticker: str, at: datetime, price: str, tick_id: int = 1, *, day: date | None = None
) -> None:
    """Write one tick as the stream writes it."""
    pipeline.cassandra.execute(
        "INSERT INTO real_time_data (ticker, trade_date, created_at, id, volume, market_cap, price, sector,"
        f" kafka_partition, kafka_offset) VALUES (%s, %s, %s, %s, 100, 1, {price}, 'Coal', 0, 0)",
        (ticker, day or at.date(), at, tick_id),
    )


def revision(
    pipeline: Pipeline,
    ticker: str,
    at: datetime,
    price: str | None,
    tick_id: int = 1,
    *,
    volume: int = 100,
    revised_at: datetime | None = None,
    offset: int = 0,
) -> None:
    """Write a correction of a tick as the stream writes it; with no price a cancellation."""
    kind, values = (
        ("correction", f"{volume}, 1, {price}, 'Coal'") if price else ("cancellation", "null, null, null, null")
    )
    pipeline.cassandra.execute(
        "INSERT INTO tick_revisions (volume, market_cap, price, sector, ticker, trade_date, created_at, id, revised_at,"
        f" kafka_partition, kafka_offset, position, kind) VALUES ({values}, %s, %s, %s, %s, %s, 0, %s, 0, %s)",
        (ticker, at.date(), at, tick_id, revised_at or at, offset, kind),
    )


def empty(pipeline: Pipeline) -> None:
    """Take out of both stores what has landed."""
    for table in CONTRACT_TABLES:
        pipeline.execute(f"DELETE FROM {table}")
    for table in ("real_time_data", "tick_revisions", "dead_letters"):
        pipeline.cassandra.execute(f"TRUNCATE {table}")
