"""`make faults`: kill the real parts at the worst moments, many times, and compare everything with an oracle.

Each kind of fault gets a pipeline of its own and is repeated under load; then the oracle's log, both stores and the
ledger are compared. A fault counts only if the stream's output, or the signal we sent, proves that it was met. Exit
code 0 where nothing was lost or counted twice, 1 otherwise.
"""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import psutil
import typer
from oracle import Judgement, OracleProducer, judge, wait_until_quiet
from pipeline import Pipeline, StreamProcess, dbt_statements, fresh_pipeline
from rich.console import Console
from rich.table import Table

from services.instance import Instance
from streaming.errors import run_command
from streaming.fault_points import POINTS, VARIABLE

console = Console(highlight=False, width=150)


@dataclass
class Run:
    """One kind of fault under way: its pipeline, its stream, and what was met."""

    pipeline: Pipeline
    services: Instance
    random: random.Random
    stream: StreamProcess
    met: int = 0
    recoveries: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def restart(self, fault: str = "") -> None:
        """Start a new stream, armed for the next fault."""
        self.stream = StreamProcess(self.pipeline, environment={VARIABLE: fault})

    def batches(self) -> int:
        """Batches in the ledger."""
        return int(self.pipeline.rows("SELECT COALESCE(MAX(batch_id), 0) FROM landed_batches")[0][0])

    def wait_for_batches(self, number: int, seconds: float = 120) -> None:
        """Wait until the ledger holds so many more batches than now."""
        until, deadline = self.batches() + number, time.monotonic() + seconds
        while self.batches() < until:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {number} batches within {seconds} s:\n{self.stream.output[-2000:]}")
            time.sleep(0.1)

    def recovered(self, since: float) -> None:
        """Note how long it took from the fault to the next landed batch."""
        self.wait_for_batches(1)
        self.recoveries.append(time.monotonic() - since)


Fault = Callable[[Run, int], None]


def at_point(point: str) -> Fault:
    """Kill the JVM, Python or both at a point of the landing path; for after_commit also lose COMMIT's answer."""
    victims = ["jvm", "python", "both"] + (["answer"] if point == "after_commit" else [])

    def fault(run: Run, number: int) -> None:
        victim = victims[number % len(victims)]
        stop(run)
        run.restart(f"{point}:{victim}:{run.random.randint(1, 3)}")
        run.stream.wait_for("fault: ")
        since = time.monotonic()
        if victim != "answer":
            run.stream.wait(60)
            run.restart()
        run.met += 1
        run.recovered(since)

    return fault


def killed_at_random(run: Run, number: int) -> None:
    """SIGKILL at a random moment."""
    run.wait_for_batches(1)
    time.sleep(run.random.uniform(0, 2))
    pids = [run.stream.process.pid, run.stream.python_pid()]
    since = time.monotonic()
    for pid in ([pids[0]], [pids[1]], pids)[number % 3]:
        os.kill(pid, signal.SIGKILL)
    run.stream.wait(60)
    run.met += 1
    run.restart()
    run.recovered(since)


def terminated(run: Run, _number: int) -> None:
    """SIGTERM, likely in the middle of a batch: the stream ends by itself with exit code 0."""
    run.wait_for_batches(1)
    time.sleep(run.random.uniform(0, 1))
    since = time.monotonic()
    run.stream.process.send_signal(signal.SIGTERM)
    if code := run.stream.wait(120):
        run.problems.append(f"SIGTERM ended the stream with exit code {code}")
    run.met += 1
    run.restart()
    run.recovered(since)


def server_killed(name: str) -> Fault:
    """SIGKILL of a server, which comes back after some seconds; the stream goes on by itself."""

    def fault(run: Run, _number: int) -> None:
        run.wait_for_batches(1)
        since = time.monotonic()
        run.services.server(name).kill()
        time.sleep(run.random.uniform(1, 5))
        run.services.server(name).start()
        run.services.server(name).wait_until_ready()
        run.met += 1
        run.recovered(since)

    return fault


def server_stopped(name: str) -> Fault:
    """SIGSTOP of a server for some seconds."""

    def fault(run: Run, _number: int) -> None:
        run.wait_for_batches(1)
        since = time.monotonic()
        process = psutil.Process(run.services.server(name).pid)
        process.suspend()
        try:
            time.sleep(run.random.uniform(3, 10))
        finally:
            process.resume()
        run.met += 1
        run.recovered(since)

    return fault


def scratch_deleted(run: Run, _number: int) -> None:
    """The scratch checkpoint is deleted under the running query."""
    run.wait_for_batches(1)
    since = time.monotonic()
    for folder in run.pipeline.settings.stream_scratch_dir.glob("stream-*"):
        shutil.rmtree(folder, ignore_errors=True)
    run.met += 1
    run.recovered(since)


def second_stream(run: Run, _number: int) -> None:
    """A second stream on the same topic and ledger is told no; the first goes on."""
    run.wait_for_batches(1)
    second = StreamProcess(run.pipeline)
    since = time.monotonic()
    if second.wait(120) != 1 or "another stream" not in second.output:
        run.problems.append("the second stream was not told no")
    run.met += 1
    run.recovered(since)


#: Each kind of fault with its share of a run.
FAULTS: dict[str, tuple[Fault, int]] = {
    **{f"SIGKILL {point.replace('_', ' ')}": (at_point(point), 6) for point in POINTS},
    "SIGKILL at random times": (killed_at_random, 6),
    "SIGTERM mid-batch": (terminated, 3),
    "SIGKILL of MySQL": (server_killed("mysql"), 3),
    "SIGKILL of Cassandra": (server_killed("cassandra"), 3),
    "SIGKILL of Kafka": (server_killed("kafka"), 3),
    "SIGSTOP of MySQL": (server_stopped("mysql"), 2),
    "SIGSTOP of Cassandra": (server_stopped("cassandra"), 2),
    "SIGSTOP of Kafka": (server_stopped("kafka"), 2),
    "scratch checkpoint deleted": (scratch_deleted, 2),
    "two streams on one topic": (second_stream, 1),
}


def stop(run: Run) -> None:
    """End the stream in order, if it runs."""
    if run.stream.process.poll() is None:
        run.stream.process.send_signal(signal.SIGTERM)
        run.stream.wait(120)


@dataclass
class Row:
    """One line of the table: a kind of fault, and what the oracle says after it."""

    fault: str
    met: int
    recovery_seconds: float
    judgement: Judgement


def try_fault(
    name: str, fault: Fault, times: int, services: Instance, template: list[str], folder: Path, seed: int
) -> Row:
    """Repeat one kind of fault under load in a pipeline of its own, then let the oracle judge."""
    with fresh_pipeline(services, services.settings(), template, folder) as pipeline:
        log = folder / "acknowledged.jsonl"
        log.touch()
        producer = OracleProducer(pipeline, log, seed)
        run = Run(pipeline, services, random.Random(f"{seed} {name}"), StreamProcess(pipeline))
        try:
            for number in range(times):
                fault(run, number)
        except (AssertionError, TimeoutError, OSError) as error:
            run.problems.append(f"fault {run.met + 1}: {error}")
        producer.stop()
        if run.stream.process.poll() is not None:
            run.restart()
        wait_until_quiet(pipeline, log)
        stop(run)
        run.stream.kill()
        judgement = judge(pipeline, log)
        judgement.problems.extend(run.problems)
        return Row(name, run.met, max(run.recoveries, default=0.0), judgement)


def print_table(rows: list[Row]) -> None:
    """The run as people read it, one line a kind of fault, and its sum."""
    table = Table("fault", title_justify="left")
    for name in ("times", "acknowledged", "landed", "dead", "duplicates", "lost", "double-counted", "volume diff."):
        table.add_column(name, justify="right")
    table.add_column("recovery (s)", justify="right")
    for row in rows:
        one = row.judgement
        table.add_row(
            row.fault, str(row.met), f"{one.acknowledged:,}", f"{one.landed:,}", f"{one.dead:,}", f"{one.duplicates:,}",
            f"{one.lost + one.never_sent:,}", f"{one.double_counted:,}", f"{one.volume_difference:,}",
            f"{row.recovery_seconds:.1f}",
        )  # fmt: skip
    console.print(table)
    for row in rows:
        for problem in row.judgement.problems:
            console.print(f"[red]{row.fault}[/red]: {problem}")


def main(
    seed: Annotated[int, typer.Option(help="Decides the moments and the load; 0 draws one.")] = 0,
    share: Annotated[float, typer.Option(min=0.01, help="How much of each kind's number of faults to try.")] = 1,
    only: Annotated[str, typer.Option(help="Only the kinds whose name contains this.")] = "",
    record: Annotated[Path | None, typer.Option(help="Append the run's rows to this JSON-lines file.")] = None,
) -> None:
    """Kill the real parts under load and compare what was acknowledged with what landed."""
    seed = seed or random.randrange(1, 10_000)
    kinds = {name: kind for name, kind in FAULTS.items() if only.lower() in name.lower()}
    services = Instance(os.environ.get("TICKLEDGER_TEST_INSTANCE", "test"))
    services.start()
    started = time.monotonic()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="tickledger-faults-") as temporary:
        template = dbt_statements(services, services.settings(), Path(temporary))
        console.print(f"seed {seed}, {len(kinds)} kinds of fault")
        for place, (name, (fault, times)) in enumerate(kinds.items(), start=1):
            folder = Path(temporary) / str(place)
            folder.mkdir()
            times = max(1, round(times * share))
            console.print(f"{time.monotonic() - started:6.0f} s  {place}/{len(kinds)}  {name}, {times} times")
            rows.append(try_fault(name, fault, times, services, template, folder, seed + place))
    console.print(f"\nseed {seed}: {sum(row.met for row in rows)} faults in {time.monotonic() - started:.0f} s")
    print_table(rows)
    if record is not None:
        _record(record, seed, rows)
    if not all(row.judgement.clean for row in rows):
        raise typer.Exit(1)
    console.print("[green]Nothing lost, nothing counted twice.[/green]")


def _record(path: Path, seed: int, rows: list[Row]) -> None:
    with path.open("a") as file:
        for row in rows:
            facts = {"seed": seed, "at": datetime.now(UTC).isoformat(timespec="seconds"), "fault": row.fault}
            facts |= {"met": row.met, "recovery_seconds": round(row.recovery_seconds, 1)}
            file.write(json.dumps(facts | vars(row.judgement)) + "\n")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="make faults"))
