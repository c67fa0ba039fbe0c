"""Land the topic's ticks: `SPARK_CONF_DIR=. spark-submit streaming/stream_ticks.py`. Wiring only.

Reads the settings, asks the ledger where to begin, starts one Structured Streaming query and stops it in order.
"""

import contextlib
import errno
import json
import math
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from py4j.clientserver import ClientServer
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf
from pyspark.errors import PySparkException
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.streaming.query import StreamingQuery

from streaming.check_landed import SECONDS_AT_THE_END, BatchChecks
from streaming.land_batch import BatchLander
from streaming.metrics import Metrics
from streaming.workers_code import refuse_other_code
from tickledger import fault_points
from tickledger.command_line import run_app
from tickledger.counted import counted
from tickledger.errors import ConfigurationError, StoreUnavailable, TickledgerError
from tickledger.folder import folder_problem
from tickledger.ledger import LandedBatch, Ledger, LedgerHead, StreamLock
from tickledger.plain_text import plain
from tickledger.retry_policy import GaveUp, RetryPolicy
from tickledger.secured import spark_kafka_options
from tickledger.settings import Settings, load_settings
from tickledger.start_up import begun, check_continuity, check_tables, starting_offsets
from tickledger.stopping import stop_on_signals
from tickledger.stores import check_writable
from tickledger.topic import LagMeter, TopicFacts, TopicWatch, describe_topic

SCRATCH_PREFIX = "stream-"
#: A query that dies this often in a row without landing a batch is not going to recover.
MOST_DEATHS = 5


class SparkDied(TickledgerError):
    """The JVM is gone; nothing of the batch in flight is in the ledger. Exit code 1."""


class ScratchDamaged(TickledgerError):
    """Somebody deleted or changed what Spark has written to its checkpoint; a new one replaces it."""


class TickStream:
    """One run of the stream: from its start-up checks to its orderly end."""

    def __init__(self, settings: Settings, *, once: bool) -> None:
        self._settings = settings
        self._once = once
        self._stopping = threading.Event()
        #: With --once: nothing asked it to stop before all had landed.
        self._landed_all = False
        self._landing = threading.Lock()
        self._failure: BaseException | None = None
        self._retry_policy = RetryPolicy(settings.stream_store_retry_seconds, self._stopping)
        self._ledger = Ledger(settings)
        self._lock = StreamLock(settings)
        self._lag = LagMeter(settings)
        self._lander: BatchLander | None = None
        self._deaths = 0
        #: Asked with the first batch: before it there may be no worker.
        self._code_is_ours = False

    def run(self) -> None:
        """Land batches until asked to stop. Raises TickledgerError."""
        head, topic = self.check_start_up()
        self._lock.hold()
        self._checks = BatchChecks(self._settings, self._retry_policy, self._fail, self._metrics)
        blocks = _new_scratch(self._settings.stream_scratch_dir)
        try:
            spark = spark_session(self._settings, blocks)
        except Py4JJavaError as error:
            raise ConfigurationError(_why_no_spark(error)) from None
        except (Py4JError, OSError) as error:
            raise SparkDied(f"Spark does not start ({type(error).__name__}); its own reason stands above") from None
        self._block_folders = _block_folders(blocks)
        try:
            self._handle_signals(spark)
            self._announce(head, topic)
            while not self._stopping.is_set():
                self._run_query(spark, topic)
                if not self._stopping.is_set():
                    topic = self._retry_policy.call(self._topic_going_on)
        except (Py4JError, OSError) as error:
            raise SparkDied(
                f"Spark's JVM ended ({type(error).__name__}); the next start goes on from the ledger"
            ) from None
        finally:
            self._stopping.set()
            # Nothing lands any more: the next stream may begin while the last checks end.
            self._lock.release()
            self._checks.close(math.inf if self._landed_all else SECONDS_AT_THE_END)
            self._metrics.close()
            self._lag.close()
            with contextlib.suppress(Py4JError, OSError):
                spark.stop()
            shutil.rmtree(blocks, ignore_errors=True)
        if self._failure is not None:
            raise self._failure
        print("stopped: every batch that was begun is in the ledger", flush=True)

    def check_start_up(self) -> tuple[LedgerHead, TopicFacts]:
        """The ledger's end, and the topic that goes on there.

        What must hold before Spark starts: metrics' port, scratch folder, a MySQL that takes writes, tables, topic,
        profile, exchange.
        Raises TickledgerError.
        """
        if problem := folder_problem():
            raise ConfigurationError(problem)
        self._metrics = Metrics(self._settings)
        _new_scratch(self._settings.stream_scratch_dir).rmdir()
        check_writable(self._settings)
        check_tables(self._settings)
        head = self._ledger.head()
        topic = self._topic_going_on()
        if not self._ledger.sectors():
            raise ConfigurationError("table 'profile' is empty; run 'dbt seed' in dbt_project/")
        self._ledger.exchange()
        return begun(self._settings, head, topic), topic

    def _topic_going_on(self) -> TopicFacts:
        """The topic as it is now, if it goes on where the ledger ends; one that has not begun takes any."""
        head = self._ledger.head()
        topic = describe_topic(self._settings)
        check_continuity(self._settings, head, topic)
        return topic

    def _announce(self, head: LedgerHead, topic: TopicFacts) -> None:
        print(
            f"landing {self._settings.kafka_topic}: ledger at batch {head.batch_id},"
            f" {counted(topic.behind(head.topic_offsets), 'message')} behind,"
            f" a micro-batch every {self._settings.stream_trigger_seconds:g} s",
            flush=True,
        )

    def _run_query(self, spark: SparkSession, topic: TopicFacts) -> None:
        watch = TopicWatch(self._settings, topic.topic_id)
        self._lander = BatchLander(self._settings, self._ledger, topic, self._retry_policy, watch.confirm)
        self._topic = topic
        self._checks.begin(self._behind())
        if self._stop_once_landed():
            return
        self._scratch = self._retry_policy.call(lambda: _new_scratch(self._settings.stream_scratch_dir))
        for folder in self._block_folders:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            query = self._start_query(spark, topic)
            while query.isActive and not self._stopping.wait(0.2):
                pass
            self._stop(query)
            self._count_death(query.exception())
        except Py4JJavaError as error:
            self._count_death(error.java_exception.toString())
        finally:
            watch.close()
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _stop(self, query: StreamingQuery) -> None:
        """Stop a query once its batch in flight has ended."""
        with self._landing:
            pass
        # Spark may hand over another batch before it stops, and waits for that one: the lock must be free again.
        query.stop()

    def _start_query(self, spark: SparkSession, topic: TopicFacts) -> StreamingQuery:
        assert self._lander is not None
        start = starting_offsets(self._lander.progress.head, topic)
        source = (
            spark.readStream.format("kafka")
            .options(**self._source_options())
            .option("subscribe", self._settings.kafka_topic)
            .option("startingOffsets", json.dumps({self._settings.kafka_topic: start}))
            .option("maxOffsetsPerTrigger", self._settings.stream_max_offsets_per_trigger)
            .load()
        )
        return (
            source.writeStream.foreachBatch(self._on_batch)
            .option("checkpointLocation", str(self._scratch))
            .trigger(processingTime=f"{int(self._settings.stream_trigger_seconds * 1000)} milliseconds")
            .start()
        )

    def _on_batch(self, frame: DataFrame, spark_batch_id: int) -> None:
        with self._landing:
            if self._stopping.is_set():
                return
            try:
                self._land(frame, planned_offsets(self._scratch, spark_batch_id)[self._settings.kafka_topic])
            except (PySparkException, Py4JJavaError, ScratchDamaged):
                # These, as Kafka's failures inside the batch, end the query; a new one begins where the ledger ends.
                raise
            except BaseException as error:
                self._fail(error)

    def _land(self, frame: DataFrame, reached: dict[int, int]) -> None:
        """Land a micro-batch: as one batch, or as several where it holds more bytes than one takes."""
        if not self._code_is_ours:
            refuse_other_code(frame.sparkSession)
            self._code_is_ours = True
        batch = self._land_batch(frame, reached)
        while (until := self._next_part(batch, reached)) and not self._stopping.is_set():
            batch = self._land_batch(self._read(frame.sparkSession, until), until)

    def _land_batch(self, frame: DataFrame, reached: dict[int, int]) -> LandedBatch | None:
        assert self._lander is not None
        self._retry_policy.call(self._lock.hold)
        batch = self._lander.land(frame, reached)
        self._deaths = 0
        if batch is None:
            self._metrics.behind(self._lag_now())
        else:
            self._metrics.landed(batch)
            # Asked when checks get to it: by then later batches may have landed.
            self._checks.landed(batch, self._lag_now)
        self._stop_once_landed()
        return batch

    def _next_part(self, batch: LandedBatch | None, reached: dict[int, int]) -> dict[int, int]:
        """Where to read on until, in each partition of a micro-batch of which the last batch has left something.

        Twice as far as that batch came: what does not go into the next one is read in vain.
        """
        assert self._lander is not None
        ends = self._lander.progress.head.topic_offsets
        came = {partition: until - start for partition, (start, until) in batch.ranges.items()} if batch else {}
        return {
            partition: min(end, start + 2 * came.get(partition, end))
            for partition, end in reached.items()
            if (start := ends.get(partition, 0)) < end
        }

    def _read(self, spark: SparkSession, until: dict[int, int]) -> DataFrame:
        """The messages of some partitions from the ledger's end on."""
        assert self._lander is not None
        ends, topic = self._lander.progress.head.topic_offsets, self._settings.kafka_topic
        return (
            spark.read.format("kafka")
            .options(**self._source_options())
            # As the streaming source's, for which the account has the right.
            .option("groupIdPrefix", "spark-kafka-source")
            .option("assign", json.dumps({topic: list(until)}))
            .option("startingOffsets", json.dumps({topic: {one: ends.get(one, 0) for one in until}}))
            .option("endingOffsets", json.dumps({topic: until}))
            .load()
        )

    def _source_options(self) -> dict[str, str]:
        return {
            "kafka.bootstrap.servers": self._settings.kafka_bootstrap_servers,
            "kafka.isolation.level": "read_committed",
            "failOnDataLoss": "true",
            # Kafka's client for ends of partitions may ask a broker that has died until this is over; Spark then takes
            # another client. The usual minute would be a pause in landing.
            "kafka.request.timeout.ms": "10000",
            "kafka.default.api.timeout.ms": "15000",
            # What Spark holds of a partition at once, uncompressed: the usual 500 messages may be half a gigabyte.
            "kafka.max.poll.records": "8",
            **spark_kafka_options(self._settings),
        }

    def _lag_now(self) -> int | None:
        """Messages that have not landed; None if Kafka does not say."""
        assert self._lander is not None
        return self._lag.behind(self._lander.progress.head.topic_offsets)

    def _behind(self) -> int:
        """Messages up to the ends that the topic had when the query began, which have not landed."""
        assert self._lander is not None
        return self._topic.behind(self._lander.progress.head.topic_offsets)

    def _stop_once_landed(self) -> bool:
        """With --once: stop where all has landed."""
        if self._once and not self._behind():
            self._landed_all = True
            self._stopping.set()
        return self._landed_all

    def _count_death(self, cause: object) -> None:
        if cause is None or self._stopping.is_set():
            return
        self._deaths += 1
        reason = plain(_root_cause(str(cause)))
        if self._deaths >= MOST_DEATHS:
            raise GaveUp(f"the query ended {self._deaths} times without landing a batch: {reason}")
        print(f"the query ended ({reason}); going on from the ledger", flush=True)
        self._stopping.wait(2**self._deaths)

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    def _handle_signals(self, spark: SparkSession) -> None:
        """Let SIGTERM and Ctrl-C finish the batch in flight, whether the JVM or Python receives them.

        spark-submit's process is the JVM and Python its child; the JVM's own hooks would end Spark mid-batch.
        """
        stop_on_signals(self._stopping)
        gateway = _listen_to_java(spark)
        handler = _JvmSignalHandler(self._stopping)
        for name in ("TERM", "INT"):
            gateway.jvm.sun.misc.Signal.handle(gateway.jvm.sun.misc.Signal(name), handler)


class _JvmSignalHandler:
    """Called by the JVM, through py4j, when it receives a signal."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def handle(self, _signal: Any) -> None:
        self._stopping.set()

    class Java:
        implements = ("sun.misc.SignalHandler",)


def spark_session(settings: Settings, blocks: Path) -> SparkSession:
    """Spark as spark-submit was told, with its web interface at STREAM_UI_PORT or without one.

    Its blocks hold messages and lie in the folder `blocks`.
    """
    port = settings.stream_ui_port
    builder = (
        SparkSession.builder.appName("tickledger")
        .config("spark.local.dir", str(blocks))
        .config("spark.ui.enabled", str(port != "none").lower())
    )
    return (builder if port == "none" else builder.config("spark.ui.port", port)).getOrCreate()


def _listen_to_java(spark: SparkSession) -> Any:
    """Open the port on which Java calls Python, for whoever knows this start's token; the gateway to Java.

    foreachBatch would open it for anyone. Raises ConfigurationError where Java was started so that it sends no token.
    """
    context: Any = spark.sparkContext
    gateway = context._gateway
    if isinstance(gateway, ClientServer):
        raise ConfigurationError(
            "PYSPARK_PIN_THREAD is not false; it should be, so that no stranger can stop the stream: "
            "start it with SPARK_CONF_DIR=. , whose spark-env.sh sets it"
        )
    gateway.callback_server_parameters.auth_token = gateway.gateway_parameters.auth_token
    ensure_callback_server_started(gateway)
    return gateway


def _new_scratch(folder: Path) -> Path:
    """A new scratch checkpoint; those of streams that are no longer alive go.

    Raises StoreUnavailable where the disk is full, ConfigurationError where the folder cannot be written at all.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"{SCRATCH_PREFIX}*"):
            pid = old.name.removeprefix(SCRATCH_PREFIX).partition("-")[0]
            if not Path(f"/proc/{pid}").exists():
                shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-", dir=folder))
    except OSError as error:
        problem = f"STREAM_SCRATCH_DIR is '{folder}'; it should be a folder that can be written: {error.strerror}"
        raise (StoreUnavailable if error.errno == errno.ENOSPC else ConfigurationError)(problem) from None


def _block_folders(blocks: Path) -> list[Path]:
    """The folders for its blocks, which Spark makes once: whoever deletes the checkpoint deletes them too.

    Below each store's folder lie as many as spark.diskStore.subDirectories says, 64, named by two hexadecimal digits.
    """
    made = [folder for folder in blocks.rglob("*") if folder.is_dir()]
    stores = blocks.glob("blockmgr-*")
    return [*made, *(store / f"{number:02x}" for store in stores for number in range(64))]


def planned_offsets(scratch: Path, spark_batch_id: int) -> dict[str, dict[int, int]]:
    """Where a micro-batch ends, by topic and partition: what Spark wrote into its checkpoint before it began it.

    Up to there Spark reads, whether messages stand there or markers. Raises ScratchDamaged where the file is not whole.
    """
    try:
        planned = json.loads((scratch / "offsets" / str(spark_batch_id)).read_text().splitlines()[-1])
        return {topic: {int(one): int(end) for one, end in ends.items()} for topic, ends in planned.items()}
    except (OSError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ScratchDamaged(f"Spark's checkpoint in {scratch} is damaged: {type(error).__name__}") from None


def _why_no_spark(error: Py4JJavaError) -> str:
    said = f"Spark does not start: {plain(_root_cause(error.java_exception.toString()))}"
    master = SparkConf().get("spark.master") or ""
    if master.startswith("local"):
        return said
    # Why a master does not take it stands in Spark's log alone.
    return f"{said}; or --master, {master}, is away, or its secret is not SPARK_PASSWORD"


def _root_cause(text: str) -> str:
    """What the innermost exception of a Java trace says, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return (causes or lines)[-1 if causes else 0][:300]


def main(
    once: Annotated[bool, typer.Option("--once", help="Land what is in the topic now, then stop.")] = False,
) -> None:
    """Land the ticks of KAFKA_TOPIC in Cassandra and MySQL, each exactly once, and check every batch.

    Settings are named in .env.example. SIGTERM and Ctrl-C finish the batch in flight and exit 0. Exit code 1: gave up
    on a store, or another stream landed meanwhile; 2: cannot run, with one line that says why.
    """
    fault_points.arm()
    TickStream(load_settings(), once=once).run()


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app, "spark-submit streaming/stream_ticks.py")
