"""Landing one micro-batch: the Spark job, the settling of duplicates and corrections, and the ledger's commit."""

import pickle
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from streaming.copies import second_look, winning_partitions
from streaming.landing_task import MOST_KEYS, REPORT_SCHEMA, LandingTask, PartitionReport, SectorSum, SumKey
from streaming.settle_revisions import RevisionSettler, Settled
from tickledger import fault_points
from tickledger.errors import ConfigurationError, LedgerMoved
from tickledger.ledger import (
    Corrected,
    LandedBatch,
    Ledger,
    LedgerHead,
    SectorVolume,
    Skip,
    SkipKind,
    sum_order,
    summed_by,
    utc_now,
)
from tickledger.retry_policy import RetryPolicy
from tickledger.settings import Settings
from tickledger.start_up import begun
from tickledger.tick import datetime_to_ms, day_to_date, ms_to_datetime
from tickledger.topic import TopicFacts

#: How Spark's Kafka source says so.
_TIME_UNREADABLE = re.compile(r"Record at topic (\S+) partition (\d+) offset (\d+) has timestamp value (-?\d+)")


@dataclass
class Progress:
    """How far the stream is, as the ledger has it; each landed batch moves it on."""

    head: LedgerHead
    recover_until: dict[int, int]

    def start_of(self, partition: int) -> int:
        """Where the next batch begins in a partition; one that was added while the stream runs begins at 0."""
        return self.head.ends.get(partition, 0)

    def ranges(self, reached: Mapping[int, int]) -> dict[int, tuple[int, int]]:
        """The ledger's offsets [from, until) up to where Kafka's own offsets have been read, without empty ones."""
        spans = {
            partition: (self.start_of(partition), end + self.head.shifts.get(partition, 0))
            for partition, end in sorted(reached.items())
        }
        return {partition: (start, until) for partition, (start, until) in spans.items() if until > start}


class BatchLander:
    """Lands micro-batches one after the other, each exactly once, and says one line if a store is away.

    `confirm_topic` raises if the topic is not the one that the stream began with (TopicWatch.confirm).
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        topic: TopicFacts,
        retry_policy: RetryPolicy,
        confirm_topic: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._topic_id = topic.topic_id
        self._retry_policy = retry_policy
        self._confirm_topic = confirm_topic
        self._companies = ledger.companies()
        self._days = ledger.exchange().days
        self._revisions = RevisionSettler(settings, ledger)
        head = ledger.head()
        #: What the ledger skips as it begins, until its first batch has landed.
        self._before = [] if head.topic else _before_the_ledger(topic)
        self.progress = Progress(begun(settings, head, topic), {})
        self.progress.recover_until = {one: end for one, (_, end) in self.progress.ranges(topic.ends).items()}
        self._ended: float | None = None
        # A stream may have died between the ledger, which calls them dead letters, and Cassandra.
        retry_policy.call(self._revisions.bury)

    def land(self, frame: DataFrame, reached: Mapping[int, int]) -> LandedBatch | None:
        """Land one micro-batch of the Kafka source, or its beginning, and return what went into the ledger.

        `reached` is where the micro-batch ends in each partition, in Kafka's own offsets: the batch covers all up to
        there, whatever of it could be read, or as much as STREAM_MAX_MEGABYTES_PER_BATCH lets in. If nothing could
        be read, the ledger skips it, and None is returned. `progress` says how far the ledger is.

        Raises GaveUp if a store stayed away, LedgerMoved if somebody else landed, TopicChanged if the
        messages may come from another topic of the same name.
        """
        started = time.monotonic()
        waiting = None if self._ended is None else started - self._ended
        self._companies = self._retry_policy.call(self._ledger.companies) or self._companies
        fault_points.reached("before_cassandra")
        job_started = time.monotonic()
        ranges = self.progress.ranges(reached)
        reports = self._retry_policy.call(lambda: self.run(frame, ranges))
        job_seconds = time.monotonic() - job_started
        fault_points.reached("between_stores")
        self._retry_policy.call(self._confirm_topic)
        self._skip(self._before)
        self._before = []
        if not reports:
            self._skip([_nothing_to_read(*one, reached) for one in ranges.items()])
            return None
        ranges, landed_at = self._ranges_of(reports, ranges), utc_now()
        settled = self._retry_policy.call(
            lambda: self._revisions.settle(reports, self.progress.head, ranges, landed_at)
        )
        batch = self._batch(reports, ranges, settled, landed_at)
        seconds = {"waiting": waiting, "job": job_seconds}
        batch = replace(batch, landing_seconds=time.monotonic() - started, phases=seconds)
        commit_started = time.monotonic()
        self._retry_policy.call(lambda: self._ledger.commit(batch))
        self._ended = time.monotonic()
        self._advance(batch)
        self._revisions.landed(settled, landed_at)
        self._retry_policy.call(self._revisions.bury)
        return replace(batch, phases={**batch.phases, "commit": self._ended - commit_started})

    def run(self, frame: DataFrame, ranges: Mapping[int, tuple[int, int]]) -> list[PartitionReport]:
        """Write what of a micro-batch goes into the next batch to Cassandra; the ledger knows nothing of it yet."""
        newest = self.progress.head.newest_created_at
        task = LandingTask(
            settings=self._settings,
            sectors={ticker: company.sector for ticker, company in self._companies.items()},
            shares={ticker: company.shares for ticker, company in self._companies.items()},
            days=self._days,
            ends=self.progress.head.ends,
            not_landed=self.progress.head.not_landed,
            recover_until=self.progress.recover_until,
            newest_landed_ms=None if newest is None else datetime_to_ms(newest),
            today=self._days.day_of(datetime_to_ms(utc_now())),
            room=rooms(ranges, self._settings.stream_max_megabytes_per_batch),
            summed_by=summed_by(),
            awaited=self._revisions.awaited(),
            most_keys=MOST_KEYS // max(len(ranges), 1),
        )
        reports = run_task(frame := in_ledger_offsets(frame, self.progress.head.shifts), task)
        if winners := winning_partitions(reports, lambda tickers: second_look(messages_of(frame), task, tickers)):
            # Rare: the same tick in two partitions of one batch. The second pass leaves the losing copies out, and
            # its upserts put the winners' rows over theirs; what the first one made dead letters of is decided anew.
            ends = {partition: until for partition, (_, until) in ranges.items()}
            task = replace(task, winners=winners, recover_until=task.recover_until | ends)
            run_task(frame, task)
            # Now each winner stands in Cassandra, and the third one can tell which of the copies say something else.
            reports = run_task(frame, replace(task, winners_stand=True))
        return reports

    def _skip(self, skips: list[Skip]) -> None:
        if skips:
            self._retry_policy.call(lambda: self._ledger.skip(self.progress.head, skips))
            ends = {skip.kafka_partition: skip.until_offset for skip in skips}
            self.progress.head = replace(self.progress.head, ends=self.progress.head.ends | ends)

    def _ranges_of(
        self, reports: list[PartitionReport], ranges: dict[int, tuple[int, int]]
    ) -> dict[int, tuple[int, int]]:
        """The ranges of the batch's offsets, as far as its tasks came. Raises LedgerMoved if they went elsewhere."""
        for report in reports:
            start, until = ranges.get(report.partition, (self.progress.start_of(report.partition),) * 2)
            if not start <= report.first_offset <= report.last_offset < until:
                raise LedgerMoved(
                    f"partition {report.partition} brought offsets {report.first_offset} to {report.last_offset};"
                    f" the batch covers {start} to {until - 1}"
                )
            if report.left:
                ranges = ranges | {report.partition: (start, report.last_offset + 1)}
        return ranges

    def _batch(
        self,
        reports: list[PartitionReport],
        ranges: dict[int, tuple[int, int]],
        settled: Settled,
        landed_at: datetime,
    ) -> LandedBatch:
        return LandedBatch(
            batch_id=self.progress.head.batch_id + 1,
            topic=self._settings.kafka_topic,
            topic_id=self._topic_id,
            ranges=ranges,
            messages=sum(report.messages for report in reports),
            ticks_read=sum(report.ticks_read for report in reports),
            dead_letters=sum(report.dead_letters for report in reports),
            duplicates=sum(report.duplicates for report in reports),
            late_ticks=sum(report.late_ticks for report in reports),
            sectors=sector_volumes(reports, settled.corrected),
            landed_at=landed_at,
            landing_seconds=0,
            companies=self._companies,
            days=self._days,
            corrections=sum(len(report.revisions) for report in reports),
            unknown_fields=frozenset[str]().union(*(report.unknown_fields for report in reports)),
            waiting=settled.waiting,
            found=settled.found,
            expired=settled.expired,
        )

    def _advance(self, batch: LandedBatch) -> None:
        head = self.progress.head
        created = [sector.last_created_at for sector in batch.sectors if sector.last_created_at is not None]
        if head.newest_created_at is not None:
            created.append(head.newest_created_at)
        self.progress.head = replace(
            head,
            batch_id=batch.batch_id,
            ends=head.ends | {partition: until for partition, (_, until) in batch.ranges.items()},
            newest_created_at=max(created, default=None),
        )


def _before_the_ledger(topic: TopicFacts) -> list[Skip]:
    reason = "deleted by retention before the ledger began"
    return [
        Skip(partition, 0, begin, begin, SkipKind.BEFORE_THE_LEDGER, reason)
        for partition, begin in sorted(topic.begins.items())
        if begin
    ]


def _nothing_to_read(partition: int, span: tuple[int, int], reached: Mapping[int, int]) -> Skip:
    return Skip(partition, *span, reached[partition], SkipKind.NOTHING_TO_READ, "markers, aborted or compacted away")


def rooms(ranges: Mapping[int, tuple[int, int]], megabytes: float) -> dict[int, float]:
    """The bytes of a batch that each partition may fill: one half is shared equally, the other by their offsets.

    So a few large messages beside many small ones find room too.
    """
    offsets = sum(until - start for start, until in ranges.values())
    return {
        partition: megabytes * 1e6 * ((until - start) / offsets + 1 / len(ranges)) / 2
        for partition, (start, until) in ranges.items()
    }


def in_ledger_offsets(frame: DataFrame, shifts: Mapping[int, int]) -> DataFrame:
    """The messages with the ledger's offsets, which differ from Kafka's after a topic was recreated."""
    for partition, shift in shifts.items():
        shifted = F.when(F.col("partition") == partition, F.col("offset") + shift).otherwise(F.col("offset"))
        frame = frame.withColumn("offset", shifted)
    return frame


def messages_of(frame: DataFrame) -> DataFrame:
    """A micro-batch as tasks take it."""
    return frame.select("partition", "offset", F.unix_millis("timestamp").alias("time_ms"), "value")


def run_task(frame: DataFrame, task: LandingTask) -> list[PartitionReport]:
    """Run the task over a micro-batch as one Spark job; one report per Kafka partition that brought messages.

    Raises what a worker met of a store: StoreUnavailable, ConfigurationError, TickledgerError. ConfigurationError also
    if a message has a time that Spark cannot read.
    """
    try:
        rows = messages_of(frame).mapInArrow(task, REPORT_SCHEMA).collect()
    except (Py4JJavaError, PySparkException) as error:
        if found := _TIME_UNREADABLE.search(str(error)):
            topic, partition, offset, time_ms = found.groups()
            raise ConfigurationError(
                f"KAFKA_TOPIC {topic!r}, partition {partition}: the message at Kafka's offset {offset} says that it was"
                f" sent at {time_ms} ms since 1970, which Spark cannot read; docs/runbook.md, 'Go on without what is"
                " lost', says how to go on, 'tickledger doctor' whether the topic takes more of them"
            ) from None
        raise
    reports: list[PartitionReport] = [pickle.loads(row.report) for row in rows]  # noqa: S301  # our own workers wrote it
    for report in reports:
        if report.error:
            raise report.error
    return sorted(reports, key=lambda report: report.partition)


def sector_volumes(
    reports: list[PartitionReport], corrected: Mapping[SumKey, Corrected] | None = None
) -> list[SectorVolume]:
    """The tasks' sums added up, and what is corrected: one row per date, sector, and what else they are summed by."""
    totals: dict[SumKey, SectorSum] = {}
    for report in reports:
        for key, part in report.sums.items():
            totals.setdefault(key, SectorSum()).merge(part)
    corrected = corrected or {}
    keys = sorted(totals.keys() | corrected.keys(), key=sum_order)
    return [_sector_volume(key, totals.get(key), corrected.get(key)) for key in keys]


def _sector_volume(key: SumKey, landed: SectorSum | None, corrected: Corrected | None) -> SectorVolume:
    trade_day, sector, own = key
    day = day_to_date(trade_day)
    if landed is None:
        return SectorVolume(day, sector, 0, 0, None, None, own, corrected)
    first, last = ms_to_datetime(landed.first_ms), ms_to_datetime(landed.last_ms)
    return SectorVolume(day, sector, landed.ticks, landed.volume, first, last, own, corrected)
