"""Landing one micro-batch: the Spark job, the settling of duplicates between partitions, and the ledger's commit."""

import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from streaming.landing_task import REPORT_SCHEMA, LandingTask, PartitionReport, SectorSum
from streaming.tick_columns import TickKey
from tickledger import fault_points
from tickledger.errors import ConfigurationError, LedgerMoved, StoreUnavailable
from tickledger.ledger import LandedBatch, Ledger, LedgerHead, SectorVolume, utc_now
from tickledger.patience import Patience
from tickledger.settings import Settings
from tickledger.tick import datetime_to_ms, day_to_date, ms_to_datetime, trade_day_of
from tickledger.topic import TopicFacts


@dataclass
class Progress:
    """How far the stream is, as the ledger has it; each landed batch moves it on."""

    head: LedgerHead
    starts: dict[int, int]
    recover_until: dict[int, int]

    def start_of(self, partition: int) -> int:
        """Where the next batch begins in a partition; one that was added while the stream runs begins at 0."""
        return self.head.ends.get(partition, self.starts.get(partition, 0))


class BatchLander:
    """Lands micro-batches one after the other, each exactly once, and says one line where a store is away.

    `confirm_topic` raises where the topic is not the one that the stream began with (TopicWatch.confirm).
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        topic: TopicFacts,
        patience: Patience,
        confirm_topic: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._topic_id = topic.topic_id
        self._patience = patience
        self._confirm_topic = confirm_topic
        self._sectors = ledger.sectors()
        self.progress = Progress(ledger.head(), topic.begins, topic.ends)
        self._ended: float | None = None

    def land(self, frame: DataFrame) -> LandedBatch | None:
        """Land one micro-batch of the Kafka source and return what went into the ledger; None where it was empty.

        Raises GaveUp where a store stayed away, LedgerMoved where somebody else landed, TopicChanged where the
        messages may come from another topic of the same name.
        """
        started = time.monotonic()
        waiting = None if self._ended is None else started - self._ended
        self._sectors = self._patience.wait_for(self._ledger.sectors) or self._sectors
        fault_points.reached("before_cassandra")
        job_started = time.monotonic()
        reports = self._patience.wait_for(lambda: self._run(frame))
        if not reports:
            return None
        job_seconds = time.monotonic() - job_started
        fault_points.reached("between_stores")
        self._patience.wait_for(self._confirm_topic)
        batch = replace(self._batch(reports, started), waiting_seconds=waiting, job_seconds=job_seconds)
        commit_started = time.monotonic()
        self._patience.wait_for(lambda: self._ledger.commit(batch))
        self._ended = time.monotonic()
        self._advance(batch)
        return replace(batch, commit_seconds=self._ended - commit_started)

    def _run(self, frame: DataFrame) -> list[PartitionReport]:
        newest = self.progress.head.newest_created_at
        task = LandingTask(
            settings=self._settings,
            sectors=self._sectors,
            ends=self.progress.head.ends,
            recover_until=self.progress.recover_until,
            newest_landed_ms=None if newest is None else datetime_to_ms(newest),
            today=trade_day_of(datetime_to_ms(utc_now())),
        )
        reports = run_task(frame, task)
        if losers := losing_keys(reports):
            # Rare: the same tick in two partitions of one batch. The second pass leaves the losing copies out, and
            # its upserts put the winners' rows over theirs.
            reports = run_task(frame, replace(task, losers=losers))
        return reports

    def _batch(self, reports: list[PartitionReport], started: float) -> LandedBatch:
        for report in reports:
            if report.first_offset < self.progress.start_of(report.partition):
                raise LedgerMoved(
                    f"partition {report.partition} brought offset {report.first_offset} again,"
                    f" landed up to {self.progress.start_of(report.partition)}"
                )
        return LandedBatch(
            batch_id=self.progress.head.batch_id + 1,
            topic=self._settings.kafka_topic,
            topic_id=self._topic_id,
            ranges={one.partition: (self.progress.start_of(one.partition), one.last_offset + 1) for one in reports},
            messages=sum(report.messages for report in reports),
            ticks_read=sum(report.ticks_read for report in reports),
            dead_letters=sum(report.dead_letters for report in reports),
            duplicates=sum(report.duplicates for report in reports),
            late_ticks=sum(report.late_ticks for report in reports),
            sectors=sector_volumes(reports),
            landed_at=utc_now(),
            landing_seconds=time.monotonic() - started,
        )

    def _advance(self, batch: LandedBatch) -> None:
        head = self.progress.head
        created = [sector.last_created_at for sector in batch.sectors]
        if head.newest_created_at is not None:
            created.append(head.newest_created_at)
        self.progress.head = LedgerHead(
            batch_id=batch.batch_id,
            topic=batch.topic,
            topic_id=batch.topic_id,
            ends=head.ends | {partition: until for partition, (_, until) in batch.ranges.items()},
            newest_created_at=max(created, default=None),
        )


def run_task(frame: DataFrame, task: LandingTask) -> list[PartitionReport]:
    """Run the task over a micro-batch as one Spark job; one report per Kafka partition that brought messages.

    Raises StoreUnavailable or ConfigurationError where a worker met one.
    """
    messages = frame.select("partition", "offset", F.unix_millis("timestamp").alias("time_ms"), "value")
    rows = messages.mapInArrow(task, REPORT_SCHEMA).collect()
    reports: list[PartitionReport] = [pickle.loads(row.report) for row in rows]
    for report in reports:
        if report.misconfigured:
            raise ConfigurationError(report.misconfigured)
        if report.unavailable:
            raise StoreUnavailable(report.unavailable)
    return sorted(reports, key=lambda report: report.partition)


def losing_keys(reports: list[PartitionReport]) -> dict[int, frozenset[TickKey]]:
    """The ticks that each partition must leave to a lower one that brought them too; empty where there are none."""
    if len(reports) < 2:
        return {}
    fingerprints = np.concatenate([report.keys.fingerprints() for report in reports])
    if len(np.unique(fingerprints)) == len(fingerprints):
        return {}
    losers: dict[int, frozenset[TickKey]] = {}
    winners: set[TickKey] = set()
    for report in reports:
        keys = report.keys.keys()
        if common := winners & keys:
            losers[report.partition] = frozenset(common)
        winners |= keys
    return losers


def sector_volumes(reports: list[PartitionReport]) -> list[SectorVolume]:
    """The tasks' sums added up: one row per date and sector, ordered by both."""
    totals: dict[tuple[int, str], SectorSum] = {}
    for report in reports:
        for key, part in report.sums.items():
            totals.setdefault(key, SectorSum()).merge(part)
    return [
        SectorVolume(
            day_to_date(trade_day),
            sector,
            one.ticks,
            one.volume,
            ms_to_datetime(one.first_ms),
            ms_to_datetime(one.last_ms),
        )
        for (trade_day, sector), one in sorted(totals.items())
    ]
