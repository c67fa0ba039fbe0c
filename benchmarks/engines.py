"""The engines that are measured, and one run of one of them: started, watched, and its rows and volumes compared."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from datetime import UTC
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench import Bench, kill_tree
from benchmarks.load import Load, Volumes
from commands.reconcile import reconcile
from services.instance import SERVERS
from services.server import free_port, process_of
from tests.support.pipeline import Pipeline
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.settings import PROJECT_ROOT

OURS = ("ours", "ours-unchecked")
ENGINES = (*OURS, "loop", "bytewax", "cassandra")
#: A run that takes longer is broken.
LONGEST_SECONDS = 600
#: Bytewax's packages do not go together with ours; `make bench` makes their environment.
BYTEWAX = PROJECT_ROOT / ".venv-bytewax" / "bin" / "python"


class EngineFailed(TickledgerError):
    """An engine ended by itself; what it said last follows. Exit code 1."""


class Usage:
    """CPU and memory of processes and all below them from entry to exit, by looks a quarter of a second apart.

    What a process uses after the last look at it does not count; nor what it had used at the first look.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots, self._stopping, self.peak_megabytes = list(roots), threading.Event(), 0.0
        self._used: dict[psutil.Process, float] = {}
        self._look()
        self._before = sum(self._used.values())
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of CPU, user and system."""
        return sum(self._used.values()) - self._before

    def __enter__(self) -> "Usage":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(0.25):
            self._look()
        self._look()

    def _look(self) -> None:
        resident = 0
        for pid in self._roots:
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                for process in (root, *root.children(recursive=True)):
                    with suppress(psutil.Error), process.oneshot():
                        self._used[process] = sum(process.cpu_times()[:2])
                        resident += process.memory_info().rss
        self.peak_megabytes = max(self.peak_megabytes, resident / 1e6)


def refuse_missing(names: Iterable[str]) -> None:
    """Raises ConfigurationError for an engine that there is not, or that is not installed."""
    for name in names:
        if name not in ENGINES:
            raise ConfigurationError(f"--engines names {name}; it should be some of {', '.join(ENGINES)}")
        if name == "bytewax" and not BYTEWAX.exists():
            raise ConfigurationError("--engines names bytewax; it should be in .venv-bytewax, which 'make bench' makes")


def run(bench: Bench, name: str, pipeline: Pipeline, load: Load, batch: int, number: int = 1) -> dict[str, Any]:
    """One run of an engine on empty stores, about `batch` ticks at a time: one row. Raises EngineFailed.

    ticks/s: from the first batch to the last one. first batch: from the start of the first process. s a batch: the mean
    time from a landed batch to the next, of whichever process. last verdict: from the last batch. MB: resident, at the
    peak. problem: empty if rows and volumes in the stores are right; else the run does not count.
    """
    messages = max(batch // (load.ticks // load.messages), 1)
    environment = pipeline.environment | {
        "STREAM_TRIGGER_SECONDS": "0",
        "STREAM_MAX_OFFSETS_PER_TRIGGER": str(messages),
        "CHECKS_ENABLED": "false" if name == "ours-unchecked" else "true",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    commands, outputs = _commands(name, load, messages), []
    servers = [pid for kind in SERVERS if (pid := process_of(bench.instance.folder, kind.name).pid)]
    started = time.time()
    with ExitStack() as stack:
        processes = []
        for command in commands:
            process = subprocess.Popen(
                command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            stack.callback(kill_tree, process)
            processes.append(process)
        own = stack.enter_context(Usage(process.pid for process in processes))
        stores = stack.enter_context(Usage(servers))
        for process in processes:
            outputs.append(process.communicate(timeout=LONGEST_SECONDS)[0])
            if process.returncode:
                raise EngineFailed(f"{name} ended with exit code {process.returncode}:\n{outputs[-1][-2000:]}")
    landed = _landed(name, pipeline, "".join(outputs))
    (first, warming, _), (last, *_), ticks = landed[0], landed[-1], sum(one[1] for one in landed)
    return {
        "engine": name,
        "round": number,
        "ticks/s": (ticks - warming) / (last - first),
        "with start-up": ticks / (last - started),
        "first batch (s)": first - started,
        "s a batch": (last - first) / (len(landed) - 1),
        "last verdict (s)": max(checked for *_, checked in landed) - last,
        "engine CPU (s)": own.cpu_seconds,
        "stores CPU (s)": stores.cpu_seconds,
        "MB": own.peak_megabytes,
        "problem": _problem(name, pipeline, load, ticks),
    }


def _commands(name: str, load: Load, messages: int) -> list[list[str]]:
    """One command per process: spark-submit, or a process per partition, each with half of a batch."""
    if name in OURS:
        return [[str(Path(sys.executable).with_name("spark-submit")), "streaming/stream_ticks.py", "--once"]]
    half = str(messages // 2)
    if name == "bytewax":
        # Where the two processes of the cluster find each other.
        addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(2))
        return [[str(BYTEWAX), "-m", "benchmarks.bytewax_landing", str(place), half, addresses] for place in range(2)]
    # The producer fills the partitions in turn.
    ends = ["0", str((load.messages + 1) // 2)], ["1", str(load.messages // 2)]
    module = {"loop": "benchmarks.loop", "cassandra": "benchmarks.cassandra_alone"}[name]
    return [[sys.executable, "-m", module, *end, half] for end in ends]


def _landed(name: str, pipeline: Pipeline, output: str) -> list[tuple[float, int, float]]:
    """One row per batch: when it was readable, in seconds since 1970, its ticks, and when it was checked, if it was."""
    if name not in OURS:
        lines = (json.loads(line) for line in output.splitlines() if line.startswith('{"at"'))
        return sorted((line["at"], line["ticks"], line["at"]) for line in lines)
    rows = pipeline.rows("SELECT landed_at, ticks_landed, COALESCE(checked_at, landed_at) FROM landed_batches")
    return sorted(
        (landed_at.replace(tzinfo=UTC).timestamp(), int(ticks), checked_at.replace(tzinfo=UTC).timestamp())
        for landed_at, ticks, checked_at in rows
    )


def _problem(name: str, pipeline: Pipeline, load: Load, ticks: int) -> str:
    stored = sum(1 for _ in pipeline.cassandra.execute("SELECT id FROM real_time_data", timeout=60))
    if (stored, ticks) != (load.ticks, load.ticks):
        return f"{stored:,} rows of {ticks:,} landed ticks of {load.ticks:,}"
    rows = pipeline.rows("SELECT date, sector, SUM(total_volume) FROM aggregated_data GROUP BY date, sector")
    volumes: Volumes = {(day, sector): int(volume) for day, sector, volume in rows}
    if name != "cassandra" and volumes != load.volumes:
        return "volumes differ"
    if name not in OURS:
        return ""
    bad = pipeline.rows("SELECT COUNT(*) FROM landed_batches WHERE verdict IN ('failed', 'warned')")[0][0]
    return next(iter(reconcile(pipeline.settings).differences), f"{bad} batches did not pass" if bad else "")
