"""The kinds of fault that `make faults` tries, each a function that brings one about and waits until it is over."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psutil

from services.environment import write_dbt_profile
from services.instance import Instance
from tests.support.oracle import OracleProducer
from tests.support.pipeline import Launch, Pipeline, StreamProcess
from tests.support.store_names import MovingStores, StoreNames
from tickledger.contract import CONTRACT_TABLES
from tickledger.fault_points import LOG_VARIABLE, VARIABLE
from tickledger.ledger import Ledger
from tickledger.settings import PROJECT_ROOT
from tickledger.stores import IDLE_SECONDS, connect_mysql
from tickledger.topic import LagMeter

#: How long a fault may take to be met, and the stream to land again after it.
PATIENCE_SECONDS = 150


@dataclass
class Run:
    """One kind of fault under way: its pipeline, its load, its stream, and what was met."""

    kind: "Kind"
    pipeline: Pipeline
    services: Instance
    random: Random
    folder: Path
    seed: int
    producers: list[OracleProducer] = field(default_factory=list)
    met: int = 0
    recoveries: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: Set if the topic itself lost messages: the ledger's ends, beyond which nothing can land any more.
    landed_until: dict[int, int] | None = None
    #: By which the stream knows the stores, if their addresses change.
    names: StoreNames | None = None
    stream: StreamProcess = field(init=False)

    @property
    def log(self) -> Path:
        """What Kafka acknowledged, of all producers."""
        return self.folder / "acknowledged.jsonl"

    def add_producer(self) -> None:
        """Start another producer."""
        seed = self.seed + 1000 * len(self.producers)
        options = {"late_ticks": self.kind.late_ticks, "transactions": self.kind.transactions}
        self.producers.append(OracleProducer(self.pipeline, self.log, seed, **options))

    def start_stream(self, number: int) -> None:
        """Start a new stream, armed for fault `number`, if its kind has one at a named point."""
        fault = self.kind.arm(self.random, number) if self.kind.arm and number < self.kind.times else ""
        self.stream = StreamProcess(
            self.pipeline, environment={VARIABLE: fault, LOG_VARIABLE: str(self.folder / "faults.log")}
        )

    def stop_stream(self) -> None:
        """End the stream in order, if it runs."""
        if self.stream.process.poll() is None:
            self.stream.process.send_signal(signal.SIGTERM)
            if code := self.stream.wait(120):
                self.problems.append(f"SIGTERM ended the stream with exit code {code}")

    def batches(self) -> int:
        """Batches in the ledger."""
        return int(self.pipeline.rows("SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches")[0][0])

    def wait_for_batches(self, number: int) -> None:
        """Wait until the ledger holds `number` more batches than now."""
        until = self.batches() + number
        self.wait_until(lambda: self.batches() >= until, f"{number} more batches")

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for something to become true. Raises TimeoutError with the stream's last words."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {what} within {PATIENCE_SECONDS} s; the stream said:\n{self.last_words()}")
            time.sleep(0.1)

    def wait_until_nothing_waits(self) -> None:
        """Wait until the ledger is where the topic ends, markers and aborted messages included."""
        meter, ledger = LagMeter(self.pipeline.settings), Ledger(self.pipeline.settings)
        try:
            self.wait_until(lambda: meter.behind(ledger.head().topic_offsets) == 0, "lag of 0")
        finally:
            meter.close()

    def last_words(self) -> str:
        """The end of what the stream printed."""
        return "\n".join(line for line in self.stream.lines if not line.startswith(("\t", ":", " ")))[-1500:]

    def recovered(self, since: float, batches: int = 1) -> None:
        """Count the fault as met, and note how long it took from then to the next landed batch, or to so many."""
        self.met += 1
        self.wait_for_batches(batches)
        self.recoveries.append(time.monotonic() - since)

    def goes_on(self, since: float) -> None:
        """As :meth:`recovered` where landing must go on beside the fault: the first batch may have begun before it."""
        self.recovered(since, 2)

    def not_met(self) -> None:
        """Take the newest fault back: nothing shows that it has happened."""
        self.met -= 1
        self.recoveries.pop()

    def stopped_loudly(self, since: float, says: str) -> None:
        """The stream must end with an error that says what is wrong, and a new start must say it too."""
        code = self.stream.wait(PATIENCE_SECONDS)
        if code not in (1, 2):
            self.problems.append(f"the stream ended with exit code {code}: {self.last_words()}")
        self.start_stream(self.kind.times)
        if self.stream.wait(PATIENCE_SECONDS) != 2 or says not in self.stream.output:
            self.problems.append(f"the next start does not say {says!r}: {self.last_words()}")
        self.met += 1
        self.recoveries.append(time.monotonic() - since)
        self.landed_until = Ledger(self.pipeline.settings).head().ends


Fault = Callable[[Run, int], None]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how it is brought about, and how often in a whole run.

    `arm` names the point of the landing path that the stream meeting fault `number` is armed with. `rounds` marks one
    long fault whose `times` are rounds of it, which the sum of faults leaves out.
    """

    name: str
    fault: Fault
    times: int
    arm: Callable[[Random, int], str] | None = None
    producers: int = 1
    late_ticks: bool = True
    transactions: bool = False
    rounds: bool = False
    #: What surrounds the stream: a file system of its own, say.
    around: Callable[[Run], contextlib.AbstractContextManager[None]] | None = None
    #: Why this machine does not allow it; empty where it does.
    why_not: Callable[[], str] = str
    #: Whether its stream runs on a cluster's Spark.
    on_spark: bool = False


def at_points(name: str, points: Sequence[tuple[str, str]], times: int) -> Kind:
    """Meet the (point, victim) pairs in turn: SIGKILL of the JVM, of Python or of both, or COMMIT's answer lost."""

    def arm(random: Random, number: int) -> str:
        point, victim = points[number % len(points)]
        # From the second visit on: the first batch after a fault shows the recovery.
        return f"{point}:{victim}:{random.randint(2, 4)}"

    def fault(run: Run, number: int) -> None:
        point, victim = points[number % len(points)]
        log = run.folder / "faults.log"
        run.wait_until(
            lambda: log.exists() and len(log.read_text().splitlines()) > number, f"fault {number + 1} at {point}"
        )
        since = time.monotonic()
        if victim == "answer":
            run.recovered(since)
            if number + 1 < run.kind.times:
                run.stop_stream()
                run.start_stream(number + 1)
        else:
            run.stream.wait(60)
            run.start_stream(number + 1)
            run.recovered(since)

    return Kind(name, fault, times, arm=arm)


def _kills(point: str, times: int) -> Kind:
    return at_points(
        f"SIGKILL {point.replace('_', ' ')}", [(point, victim) for victim in ("jvm", "python", "both")], times
    )


def killed(run: Run, number: int, after_seconds: float) -> None:
    """SIGKILL of the JVM, of Python or of both, in turn."""
    time.sleep(after_seconds)
    pids = [run.stream.process.pid, run.stream.python_pid()]
    since = time.monotonic()
    for pid in ([pids[0]], [pids[1]], pids)[number % 3]:
        os.kill(pid, signal.SIGKILL)
    run.stream.wait(60)
    run.start_stream(number + 1)
    run.recovered(since)


def killed_at_random(run: Run, number: int) -> None:
    """SIGKILL at a random moment of a stream that lands."""
    run.wait_for_batches(1)
    killed(run, number, run.random.uniform(0, 3))


def killed_while_starting(run: Run, number: int) -> None:
    """SIGKILL of everything at a random moment of the start, before or around the first batch."""
    time.sleep(run.random.uniform(1, 15))
    since = time.monotonic()
    os.killpg(run.stream.process.pid, signal.SIGKILL)
    run.stream.wait(60)
    run.start_stream(number + 1)
    run.recovered(since)


def terminated(run: Run, number: int) -> None:
    """SIGTERM, likely in the middle of a batch: the stream ends by itself with exit code 0."""
    run.wait_for_batches(1)
    time.sleep(run.random.uniform(0, 1))
    since = time.monotonic()
    run.stop_stream()
    run.start_stream(number + 1)
    run.recovered(since)


def server_killed(name: str) -> Fault:
    """SIGKILL of a server, which comes back after some seconds; the stream goes on by itself."""

    def fault(run: Run, _number: int) -> None:
        run.wait_for_batches(1)
        since = time.monotonic()
        run.services.server(name).kill()
        time.sleep(run.random.uniform(0, 3))
        run.services.server(name).start()
        run.services.server(name).wait_until_ready()
        run.recovered(since)

    return fault


def server_frozen(name: str) -> Fault:
    """SIGSTOP of a server for some seconds, now and then longer than the stream waits for one answer."""

    def fault(run: Run, number: int) -> None:
        run.wait_for_batches(1)
        since = time.monotonic()
        process = psutil.Process(run.services.server(name).pid)
        process.suspend()
        try:
            time.sleep(run.random.uniform(3, 8) if number else 25)
        finally:
            process.resume()
        run.recovered(since)

    return fault


def scratch_deleted(run: Run, _number: int) -> None:
    """The scratch checkpoint is deleted under the running query."""
    run.wait_for_batches(1)
    since = time.monotonic()
    for folder in _scratch(run):
        shutil.rmtree(folder, ignore_errors=True)
    run.recovered(since)


def scratch_torn(run: Run, _number: int) -> None:
    """Every file of the scratch checkpoint is cut in half under the running query."""
    run.wait_for_batches(1)
    since = time.monotonic()
    for path in (path for folder in _scratch(run) for path in folder.rglob("*") if path.is_file()):
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, path.stat().st_size // 2)
    run.recovered(since)


def _scratch(run: Run) -> list[Path]:
    return list(run.pipeline.settings.stream_scratch_dir.glob("stream-*"))


@contextlib.contextmanager
def small_scratch(run: Run) -> Iterator[None]:
    """A file system of 512 KiB under the scratch folder; needs root."""
    folder = run.pipeline.settings.stream_scratch_dir
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full(run: Run, _number: int) -> None:
    """The disk under the scratch folder is full until the query has died of it."""
    run.wait_for_batches(1)
    since = time.monotonic()
    deaths = sum("the query ended" in line for line in run.stream.lines)
    filler = run.pipeline.settings.stream_scratch_dir / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    try:
        run.wait_until(
            lambda: sum("the query ended" in line for line in run.stream.lines) > deaths, "death of the query"
        )
    finally:
        filler.unlink()
    run.recovered(since)


def second_stream(run: Run, _number: int) -> None:
    """A second stream on the same topic and ledger is refused; the first goes on."""
    run.wait_for_batches(1)
    second = StreamProcess(run.pipeline)
    since = time.monotonic()
    if second.wait(120) != 1 or "another stream" not in second.output:
        run.problems.append("the second stream was not refused")
    run.recovered(since)


def frozen_and_replaced(run: Run, _number: int) -> None:
    """SIGSTOP of the stream until MySQL has given up its lock; another one goes on; the first one wakes, and ends."""
    run.wait_for_batches(1)
    first, since = run.stream, time.monotonic()
    processes = [psutil.Process(pid) for pid in (first.process.pid, first.python_pid())]
    for process in processes:
        process.suspend()
    time.sleep(IDLE_SECONDS)
    run.start_stream(run.kind.times)
    try:
        run.recovered(since)
    finally:
        for process in processes:
            process.resume()
    try:
        if (code := first.wait(PATIENCE_SECONDS)) != 1:
            run.problems.append(f"the stream that woke ended with exit code {code}: {first.output[-500:]}")
    finally:
        first.kill()
    run.wait_for_batches(1)


def midnight(run: Run, _number: int) -> None:
    """SIGKILL while the ticks' own time crosses midnight UTC; a batch must hold both days."""
    run.wait_for_batches(1)
    before = run.batches()
    now = datetime.now(UTC)
    last_midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    for producer in run.producers:
        producer.shift = last_midnight - timedelta(seconds=2) - now
    killed(run, 2, 2 + run.random.uniform(-0.5, 0.5))
    both_days = (
        "SELECT COUNT(*) FROM (SELECT batch_id FROM aggregated_data WHERE batch_id > %s"
        " GROUP BY batch_id HAVING COUNT(DISTINCT date) = 2) AS crossing"
    )
    run.wait_until(lambda: run.pipeline.rows(both_days, (before,))[0][0] > 0, "batch across midnight")


def retention(*, beside: bool) -> Fault:
    """Kafka deletes messages that were not landed yet: under a stream that hangs, or while none runs."""

    def fault(run: Run, _number: int) -> None:
        run.wait_for_batches(1)
        processes = [psutil.Process(run.stream.process.pid), psutil.Process(run.stream.python_pid())] if beside else []
        for process in processes:
            process.suspend()
        if not beside:
            run.stop_stream()
        time.sleep(2)
        for producer in run.producers:
            producer.stop()
        since = time.monotonic()
        run.pipeline.delete_records({0: -1, 1: -1})
        for process in processes:
            process.resume()
        if not beside:
            run.start_stream(run.kind.times)
        run.stopped_loudly(since, "retention deleted")

    return fault


def markers_eaten(run: Run, number: int) -> None:
    """Kafka deletes the whole topic, whose end is aborted messages and markers, once the ledger is past them."""
    run.wait_for_batches(1)
    for producer in run.producers:
        producer.stop()
    for partition in (0, 1):
        run.pipeline.send_in_transaction([_stranger(partition)], partition, commit=False)
    run.wait_until_nothing_waits()
    run.stop_stream()
    run.pipeline.delete_records({0: -1, 1: -1})
    since = time.monotonic()
    run.start_stream(number + 1)
    run.add_producer()
    run.recovered(since)


def topic_recreated(*, beside: bool) -> Fault:
    """The topic is deleted, recreated and filled beyond the ledger's ends: beside a stream, or while none runs."""

    def fault(run: Run, _number: int) -> None:
        run.wait_for_batches(1)
        for producer in run.producers:
            producer.stop()
        if not beside:
            run.stop_stream()
        ends = Ledger(run.pipeline.settings).head().ends
        since = time.monotonic()
        run.pipeline.create_topic_anew()
        for partition, end in ends.items():
            run.pipeline.send([_stranger(number) for number in range(end + 50)], partition)
        if not beside:
            run.start_stream(run.kind.times)
        run.stopped_loudly(since, "was recreated")

    return fault


def _stranger(number: int) -> list[dict[str, Any]]:
    """A valid message that no oracle has sent."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    one = {"id": number, "created_at": now, "volume": 1, "market_cap": 1, "price": 1}
    return [one | {"ticker": "TMAS.JK", "sector": "Logistics & Deliveries"}]


@contextlib.contextmanager
def moving_stores(run: Run) -> Iterator[None]:
    """Names for MySQL and Cassandra that the stream alone can look up, at addresses that change; needs root."""
    with named_stores(run, MovingStores(run.pipeline.settings)):
        yield


@contextlib.contextmanager
def named_stores(run: Run, names: StoreNames) -> Iterator[None]:
    """Let a run's stream know stores by names; needs root."""
    run.names, launch = names, run.pipeline.launch
    # Within its host, if it has one: what is mounted there is nobody else's.
    run.pipeline.launch = Launch(launch.prefix + names.prefix, launch.options, launch.environment | names.environment)
    try:
        yield
    finally:
        names.close()


def moved(run: Run, number: int) -> None:
    """MySQL or Cassandra, in turn, dies and comes back under another address; the stream and its checks go on."""
    assert isinstance(run.names, MovingStores)
    name = ("mysql", "cassandra")[number % 2]
    run.wait_for_batches(1)
    since = time.monotonic()
    run.services.server(name).kill()
    run.names.move(name)
    run.services.server(name).start()
    run.services.server(name).wait_until_ready()
    run.recovered(since)
    checked = "SELECT COUNT(*) FROM landed_batches WHERE verdict <> 'unchecked'"
    before = run.pipeline.rows(checked)
    run.wait_until(lambda: run.pipeline.rows(checked) > before, "check of a batch")


def ledger_restored(run: Run, number: int) -> None:
    """MySQL's tables are restored to an older backup, under the running stream or while it is down."""
    run.wait_for_batches(1)
    backup = _backup(run.pipeline)
    run.wait_for_batches(3)
    if not number % 2:
        run.stop_stream()
    since = time.monotonic()
    _restore(run.pipeline, backup)
    if number % 2 and (code := run.stream.wait(PATIENCE_SECONDS)) != 1:
        run.problems.append(f"a ledger set back under the stream ended it with exit code {code}: {run.last_words()}")
    run.start_stream(number + 1)
    run.recovered(since)


def _backup(pipeline: Pipeline) -> dict[str, list[tuple[Any, ...]]]:
    connection: Any = connect_mysql(pipeline.settings, pipeline.settings.dbt_mysql)
    try:
        cursor = connection.cursor()
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        rows = {}
        for table in CONTRACT_TABLES:
            cursor.execute(f"SELECT * FROM {table}")
            rows[table] = cursor.fetchall()
        return rows
    finally:
        connection.close()


def _restore(pipeline: Pipeline, backup: dict[str, list[tuple[Any, ...]]]) -> None:
    connection: Any = connect_mysql(pipeline.settings, pipeline.settings.dbt_mysql)
    try:
        cursor = connection.cursor()
        # In the order in which a commit takes its locks, or the two would wait for each other.
        cursor.execute("SELECT batch_id FROM landed_batches FOR UPDATE")
        cursor.fetchall()
        for table, rows in backup.items():
            cursor.execute(f"DELETE FROM {table}")
            for row in rows:
                cursor.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
        connection.commit()
    finally:
        connection.close()


#: Runs in a process of its own: dbt keeps what it has parsed from one command to the next.
_DBT_ROUNDS = """
import sys
from dbt.cli.main import dbtRunner
runner = dbtRunner()
for _ in range(int(sys.argv[1])):
    for command in (["seed"], ["run"], ["run", "--full-refresh"]):
        done = runner.invoke([*command, "--quiet"])
        if not done.success:
            sys.exit(f"dbt {' '.join(command)}: {done.exception or done.result}")
    print("round", flush=True)
"""


def dbt_beside(run: Run, _number: int) -> None:
    """`dbt seed`, `dbt run` and `dbt run --full-refresh` in turn, beside a reader of what they replace."""
    run.wait_for_batches(1)
    write_dbt_profile(run.pipeline.settings, run.folder / "profiles.yml")
    over = threading.Event()
    reader = threading.Thread(target=_poll, args=(run, over))
    reader.start()
    dbt = subprocess.run(
        [sys.executable, "-c", _DBT_ROUNDS, str(run.kind.times)],
        cwd=PROJECT_ROOT / "dbt_project",
        env=run.pipeline.environment
        | {"DBT_PROFILES_DIR": str(run.folder), "DBT_TARGET_PATH": str(run.folder / "target")}
        # As the `dbt` of `make setup` says it: else dbt reads a .env that lies here.
        | {"DBT_LOG_PATH": str(run.folder), "PYTHON_DOTENV_DISABLED": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    over.set()
    reader.join()
    if dbt.returncode:
        run.problems.append(f"{dbt.stdout[-300:]} {dbt.stderr[-500:]}")
    run.met += dbt.stdout.count("round") - 1
    run.recovered(time.monotonic())


def _poll(run: Run, over: threading.Event) -> None:
    """Read the view and the seed every 50 ms; an error, or a profile that is not whole, is a problem."""
    connection: Any = connect_mysql(run.pipeline.settings, run.pipeline.settings.dbt_mysql)
    connection.autocommit = True
    companies = len(run.pipeline.rows("SELECT ticker FROM profile"))
    cursor = connection.cursor()
    while not over.wait(0.05):
        try:
            cursor.execute("SELECT * FROM volume_today")
            cursor.fetchall()
            cursor.execute("SELECT COUNT(*) FROM profile")
            if cursor.fetchone() != (companies,):
                run.problems.append("a reader saw a profile that is not whole")
        except Exception as error:  # whatever a reader meets is what this looks for
            run.problems.append(f"a reader met {type(error).__name__}: {error}")
            return
    connection.close()


def can_mount() -> bool:
    """Whether this user may make what surrounds the stream of some kinds: a file system, names of its own."""
    return os.geteuid() == 0 and shutil.which("mount") is not None and shutil.which("unshare") is not None


def why_no_mounts() -> str:
    """Why it may not; empty where it may."""
    return "" if can_mount() else "it needs root, to mount what surrounds its stream"


KINDS = [
    _kills("before_cassandra", 3),
    _kills("between_stores", 3),
    _kills("before_commit", 3),
    _kills("after_commit", 3),
    _kills("before_check", 3),
    _kills("after_check", 3),
    at_points("COMMIT done, answer lost", [("after_commit", "answer")], 2),
    Kind("SIGKILL at random times", killed_at_random, 5),
    Kind("SIGKILL while starting", killed_while_starting, 3),
    Kind("SIGTERM mid-batch", terminated, 3),
    Kind("SIGKILL of MySQL", server_killed("mysql"), 3),
    Kind("SIGKILL of Cassandra", server_killed("cassandra"), 2),
    Kind("SIGKILL of Kafka", server_killed("kafka"), 3),
    Kind("SIGSTOP of MySQL", server_frozen("mysql"), 3),
    Kind("SIGSTOP of Cassandra", server_frozen("cassandra"), 3),
    Kind("SIGSTOP of Kafka", server_frozen("kafka"), 3),
    Kind("scratch checkpoint deleted", scratch_deleted, 2),
    Kind("scratch checkpoint torn", scratch_torn, 2),
    Kind("scratch disk full", disk_full, 2, around=small_scratch, why_not=why_no_mounts),
    Kind("store under another address", moved, 4, around=moving_stores, why_not=why_no_mounts),
    Kind("transactions with aborts, SIGKILL at random times", killed_at_random, 3, transactions=True),
    Kind("retention over markers", markers_eaten, 2, transactions=True),
    Kind("unread messages deleted, stream hangs", retention(beside=True), 1),
    Kind("unread messages deleted, no stream", retention(beside=False), 1),
    Kind("topic recreated beside the stream", topic_recreated(beside=True), 1),
    Kind("topic recreated, no stream", topic_recreated(beside=False), 1),
    Kind("MySQL restored to an older backup", ledger_restored, 2),
    Kind("two streams on one topic", second_stream, 2),
    Kind("SIGSTOP of the stream, another one goes on", frozen_and_replaced, 2),
    Kind("two producers, SIGKILL at random times", killed_at_random, 2, producers=2),
    Kind("midnight UTC inside a batch, SIGKILL", midnight, 2, late_ticks=False),
    Kind("rounds of dbt seed, run, run --full-refresh", dbt_beside, 50, rounds=True),
]
