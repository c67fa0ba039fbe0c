"""The engines that are measured, and one run of one of them: started, watched, and its rows and volumes compared."""

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline import Pipeline

from benchmarks.environments import environment
from benchmarks.load import Load, Volumes
from benchmarks.usage import Usage
from commands.reconcile import reconcile
from services.instance import SERVERS, Instance
from services.java import java_home
from services.server import process_of
from tickledger.errors import TickledgerError
from tickledger.settings import PROJECT_ROOT

#: A run that takes longer is broken.
LONGEST_SECONDS = 600


@dataclass(frozen=True)
class Case:
    """One engine's stores, empty at first, and the topic that it lands, `batch_messages` at a time."""

    instance: Instance
    pipeline: Pipeline
    load: Load
    batch_messages: int

    def ends(self) -> dict[int, int]:
        """Messages of each partition: the producer fills them in turn."""
        return {0: (self.load.messages + 1) // 2, 1: self.load.messages // 2}

    def stores(self) -> list[int]:
        """The process ids of the three servers."""
        pids = (process_of(self.instance.folder, kind.name).pid for kind in SERVERS)
        return [pid for pid in pids if pid]


@dataclass(frozen=True)
class Landed:
    """A batch that became readable: when, in seconds since 1970, and its ticks; and when it was checked, if it was."""

    at: float
    ticks: int
    checked_at: float | None = None


@dataclass(frozen=True)
class Result:
    """One row per run. Seconds from the start of the first process; CPU in seconds; memory in MB, resident.

    `warm` are ticks a second from the first batch to the last one, `whole` with start-up. `batch_seconds` is the mean
    time from a landed batch to the next, of whichever process: a check may stand beside some batches and not beside
    others, and a median would hide it. `verdict_seconds` are those from the last batch to the last verdict, 0 without
    checks. `problem` is empty where the rows and volumes in the stores are right; else the run does not count.
    """

    engine: str
    round: int
    ticks: int
    batches: int
    first_batch_seconds: float
    seconds: float
    warm: float
    whole: float
    batch_seconds: float
    verdict_seconds: float
    engine_cpu: float
    stores_cpu: float
    peak_megabytes: float
    problem: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with figures that are worth their digits."""
        return {name: round(value, 2) if isinstance(value, float) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Engine:
    """How an engine is started, one command a process, and how it says what it has landed.

    `prepare` makes what only this engine needs, before the clock starts, and gives it settings of its own. `phases` are
    the lines of a profile that the stores hold.
    """

    title: str
    commands: Callable[[Case], list[list[str]]]
    settings: dict[str, str]
    landed: Callable[[Case, Sequence[str]], list[Landed]]
    problem: Callable[[Case, list[Landed]], str]
    prepare: Callable[[Case], dict[str, str]] = lambda _case: {}
    phases: Callable[[Case], list[str]] = lambda _case: []


class EngineFailed(TickledgerError):
    """An engine ended by itself; what it said last follows. Exit code 1."""


def run(name: str, case: Case, number: int, *, profile: bool = False) -> Result:
    """One run of an engine on an empty case. Raises EngineFailed.

    `profile`: the first process says in the end where its time went; that costs time itself.
    """
    engine = ENGINES[name]
    environment = case.pipeline.environment | {
        "STREAM_TRIGGER_SECONDS": "0",
        "STREAM_MAX_OFFSETS_PER_TRIGGER": str(case.batch_messages),
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    environment |= engine.settings | engine.prepare(case)
    started = time.time()
    processes = [
        subprocess.Popen(
            profiled(command) if profile and not place else command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for place, command in enumerate(engine.commands(case))
    ]
    stores = Usage(case.stores()).start()
    own = Usage(process.pid for process in processes).start()
    try:
        outputs = [process.communicate(timeout=LONGEST_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
        own.stop()
        stores.stop()
    for process, output in zip(processes, outputs, strict=True):
        if process.returncode:
            raise EngineFailed(f"{engine.title} ended with exit code {process.returncode}:\n{output[-2000:]}")
    if profile:
        print("\n".join([*_cpu(own, stores), *engine.phases(case), *profile_of(outputs[0])]), flush=True)
    return _result(name, number, case, started, engine.landed(case, outputs), own, stores)


def profiled(command: list[str]) -> list[str]:
    """The command of a Python module under cProfile; any other one as it is."""
    return [command[0], *_PROFILER, *command[1:]] if command[1] == "-m" else command


_PROFILER = ("-m", "cProfile", "-s", "tottime")


def _cpu(*used: Usage) -> Iterator[str]:
    for one in used:
        programs = (f"{name} {seconds:.1f}" for name, seconds in one.cpu_by_program().items() if seconds >= 0.05)
        yield f"CPU seconds: {', '.join(programs)}"


def profile_of(output: str, lines: int = 16) -> list[str]:
    """What a process said of its time: the functions that took most, or the phases of Spark's micro-batches."""
    said = output.splitlines()
    phases = [line for line in said if line.startswith("phases ")]
    begins = [number for number, line in enumerate(said) if line.lstrip().startswith("ncalls")]
    return phases + [line for number in begins[:1] for line in said[number : number + lines]]


def _result(
    name: str, number: int, case: Case, started: float, landed: list[Landed], own: Usage, stores: Usage
) -> Result:
    first, last, ticks = landed[0], landed[-1], sum(one.ticks for one in landed)
    return Result(
        engine=name,
        round=number,
        ticks=ticks,
        batches=len(landed),
        first_batch_seconds=first.at - started,
        seconds=last.at - started,
        warm=(ticks - first.ticks) / (last.at - first.at),
        whole=ticks / (last.at - started),
        batch_seconds=statistics.mean(after.at - before.at for before, after in pairwise(landed)),
        verdict_seconds=max((one.checked_at - last.at for one in landed if one.checked_at), default=0),
        engine_cpu=own.cpu_seconds,
        stores_cpu=stores.cpu_seconds,
        peak_megabytes=own.peak_megabytes,
        problem=ENGINES[name].problem(case, landed),
    )


def _spark_submit(_case: Case) -> list[list[str]]:
    return [[_beside("spark-submit"), "streaming/stream_ticks.py", "--once"]]


def _module(module: str, *first: str, last: Callable[[Case], list[str]] = lambda _case: []) -> Any:
    """Commands of a process a partition: `python -m module … PARTITION UNTIL …`."""

    def commands(case: Case) -> list[list[str]]:
        return [
            [sys.executable, "-m", module, *first, str(partition), str(until), *last(case)]
            for partition, until in case.ends().items()
        ]

    return commands


def _beside(command: str) -> str:
    return str(Path(sys.executable).with_name(command))


def _from_ledger(case: Case, _outputs: Sequence[str]) -> list[Landed]:
    rows = case.pipeline.rows("SELECT landed_at, ticks_landed, checked_at FROM landed_batches ORDER BY batch_id")
    return [
        Landed(_seconds(landed_at), int(ticks), checked_at and _seconds(checked_at))
        for landed_at, ticks, checked_at in rows
    ]


def _seconds(at: datetime) -> float:
    return at.replace(tzinfo=UTC).timestamp()


def _from_lines(_case: Case, outputs: Sequence[str]) -> list[Landed]:
    lines = [json.loads(line) for output in outputs for line in output.splitlines() if line.startswith('{"at"')]
    return sorted((Landed(**line) for line in lines), key=lambda one: one.at)


def _phases_of_ledger(case: Case) -> list[str]:
    """Milliseconds of each batch, as its ledger row has them."""
    names = ("waiting_seconds", "landing_seconds", "job_seconds", "commit_seconds", "check_seconds")
    rows = case.pipeline.rows(f"SELECT {', '.join(names)} FROM landed_batches ORDER BY batch_id")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return [
        f"{name.replace('_seconds', '')}, ms: {[None if value is None else round(1000 * value) for value in values]}"
        for name, values in columns.items()
    ]


def _books_differ(case: Case, landed: list[Landed]) -> str:
    differences = reconcile(case.pipeline.settings).differences
    unchecked = case.pipeline.rows("SELECT COUNT(*) FROM landed_batches WHERE verdict IN ('failed', 'warned')")[0][0]
    found = f"{unchecked} batches did not pass" if unchecked else ""
    return (differences or [found])[0] or _volumes_differ(case, landed)


_SPARK_35_JARS = (
    "org.apache.spark:spark-sql-kafka-0-10_2.12:3.5.7",
    "com.datastax.spark:spark-cassandra-connector_2.12:3.5.1",
    "com.mysql:mysql-connector-j:9.4.0",
)


def _spark_35(program: str) -> Callable[[Case], list[list[str]]]:
    """Submit one of our programs to the Spark for which there is a connector for Cassandra."""

    def commands(_case: Case) -> list[list[str]]:
        submit = environment("lab") / "bin" / "spark-submit"
        return [[str(submit), "--driver-memory", "1g", "--packages", ",".join(_SPARK_35_JARS), program]]

    return commands


def _prepare_spark_35(case: Case) -> dict[str, str]:
    """The settings that those programs read from the environment, as they cannot import ours."""
    settings, folder = case.pipeline.settings, environment("lab")
    names = ("kafka_bootstrap_servers", "cassandra_port", "cassandra_user", "mysql_host", "mysql_port")
    values = {name: getattr(settings, name) for name in names} | {"cassandra_hosts": settings.cassandra_hosts[0]}
    # The stream's account has no right on the lab's tables, nor to change a row of aggregated_data.
    values |= {"mysql_user": settings.dbt_mysql_user}
    secrets = {
        "cassandra_password": settings.cassandra_password.get_secret_value(),
        "mysql_password": settings.dbt_mysql_password.get_secret_value(),
    }
    python = str(folder / "bin" / "python")
    return {name.upper(): str(value) for name, value in (values | secrets).items()} | {
        "PYSPARK_PYTHON": python,
        "PYSPARK_DRIVER_PYTHON": python,
        "JAVA_HOME": str(java_home()),
        # The project's own spark-defaults.conf is not theirs.
        "SPARK_CONF_DIR": str(folder),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


def _prepare_lab(case: Case) -> dict[str, str]:
    """The lab's tables, and the settings."""
    case.pipeline.alter_cassandra(
        "CREATE TABLE lab_real_time_data (id bigint PRIMARY KEY, created_at timestamp, volume bigint,"
        " market_cap decimal, ticker text, price decimal, sector text)"
    )
    case.pipeline.execute(
        "CREATE TABLE lab_aggregated_data (processing_id bigint AUTO_INCREMENT PRIMARY KEY, processed_at datetime,"
        " sector varchar(64), total_volume bigint, date date)"
    )
    return _prepare_spark_35(case)


def _others(module: str, last: Callable[[Case], list[str]]) -> Callable[[Case], list[list[str]]]:
    """Commands of two processes that share out the partitions: `python -m module PLACE BATCH_MESSAGES …`."""

    def commands(case: Case) -> list[list[str]]:
        python, ends = str(environment("others") / "bin" / "python"), last(case)
        batch = str(case.batch_messages // 2)
        return [[python, "-m", module, str(place), batch, *ends] for place in case.ends()]

    return commands


def _make_others(_case: Case) -> dict[str, str]:
    environment("others")
    return {}


def _addresses(case: Case) -> list[str]:
    """Where two processes of a cluster find each other."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in case.ends()]
        return [",".join(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)]


def _lab_differs(case: Case, landed: list[Landed]) -> str:
    rows = case.pipeline.rows("SELECT date, sector, SUM(total_volume) FROM lab_aggregated_data GROUP BY date, sector")
    volumes: Volumes = {(day, sector): int(volume) for day, sector, volume in rows}
    if volumes != case.load.volumes:
        return "volumes differ"
    stored = sum(1 for _ in case.pipeline.cassandra.execute("SELECT id FROM lab_real_time_data", timeout=60))
    return f"{stored:,} rows of {case.load.ticks:,}" if stored != case.load.ticks else _ticks_differ(case, landed)


def _volumes_differ(case: Case, landed: list[Landed]) -> str:
    rows = case.pipeline.rows("SELECT date, sector, SUM(total_volume) FROM aggregated_data GROUP BY date, sector")
    volumes: Volumes = {(day, sector): int(volume) for day, sector, volume in rows}
    return "volumes differ" if volumes != case.load.volumes else _rows_differ(case, landed)


def _rows_differ(case: Case, landed: list[Landed]) -> str:
    keys = case.pipeline.cassandra.execute("SELECT DISTINCT ticker, trade_date FROM real_time_data", timeout=60)
    stored = sum(
        case.pipeline.cassandra.execute(
            "SELECT COUNT(*) FROM real_time_data WHERE ticker = %s AND trade_date = %s", tuple(key), timeout=60
        ).one()[0]
        for key in keys
    )
    return f"{stored:,} rows of {case.load.ticks:,}" if stored != case.load.ticks else _ticks_differ(case, landed)


def _ticks_differ(case: Case, landed: list[Landed]) -> str:
    ticks = sum(one.ticks for one in landed)
    return f"{ticks:,} ticks of {case.load.ticks:,}" if ticks != case.load.ticks else ""


_CHECKED, _UNCHECKED = {"CHECKS_ENABLED": "true"}, {"CHECKS_ENABLED": "false"}
ENGINES = {
    "ours": Engine(
        "tickledger, checks on", _spark_submit, _CHECKED, _from_ledger, _books_differ, phases=_phases_of_ledger
    ),
    "ours-unchecked": Engine(
        "tickledger, checks off", _spark_submit, _UNCHECKED, _from_ledger, _books_differ, phases=_phases_of_ledger
    ),
    "loop": Engine(
        "hand-written loop",
        _module("benchmarks.loop", last=lambda case: [str(case.batch_messages // 2)]),
        {},
        _from_lines,
        _volumes_differ,
    ),
    "quix": Engine(
        "Quix Streams",
        _others("benchmarks.quix_landing", lambda case: [str(end) for end in case.ends().values()]),
        {},
        _from_lines,
        _volumes_differ,
        _make_others,
    ),
    "bytewax": Engine(
        "Bytewax", _others("benchmarks.bytewax_landing", _addresses), {}, _from_lines, _volumes_differ, _make_others
    ),
    "connector": Engine(
        "one pass with the connector",
        _spark_35("benchmarks/connector.py"),
        {},
        _from_lines,
        _volumes_differ,
        _prepare_spark_35,
    ),
    "lab": Engine("the lab's design", _spark_35("benchmarks/lab.py"), {}, _from_lines, _lab_differs, _prepare_lab),
    "cassandra": Engine("Cassandra alone", _module("benchmarks.ceilings", "cassandra"), {}, _from_lines, _rows_differ),
    "decode": Engine("decode alone", _module("benchmarks.ceilings", "decode"), {}, _from_lines, _ticks_differ),
}
