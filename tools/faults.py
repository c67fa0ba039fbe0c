"""`make faults`: kill the real parts at the worst moments, many times, and compare everything with an oracle.

Each kind of fault gets a pipeline of its own and is repeated under load; then the oracle's log, both stores and the
ledger are compared. A fault counts only if a log, or the signal we sent, proves that it was met. Exit code 0 if
nothing was lost or counted twice, 1 otherwise.
"""

import contextlib
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from services.instance import Instance
from tests.support.instances import INSTANCE_VARIABLE, KEEP_VARIABLE
from tests.support.oracle import Judgement, judge, wait_until_quiet
from tests.support.pipeline import dbt_statements, fresh_pipeline
from tickledger.command_line import run_app
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.stopping import interrupt_on_signals
from tools.cluster_kinds import CLUSTER_KINDS, launch_of
from tools.fault_kinds import KINDS, Kind, Run
from tools.fault_record import FaultRow, append_run, table_of
from tools.network_kinds import NETWORK_KINDS
from tools.networked_hosts import DRIVER, NetworkedHosts, why_no_hosts

console = Console(highlight=False, width=160)


def try_kind(kind: Kind, services: Instance, template: list[str], folder: Path, seed: int) -> FaultRow:
    """Repeat one kind of fault under load in a pipeline of its own, then let the oracle judge."""
    with contextlib.ExitStack() as stack:
        pipeline = stack.enter_context(fresh_pipeline(services, services.settings(), template, folder))
        if kind.on_spark or services.hosts.prefix(DRIVER):
            pipeline.launch = launch_of(services, on_spark=kind.on_spark)
        run = Run(kind, pipeline, services, random.Random(f"{seed} {kind.name}"), folder, seed)
        if kind.around is not None:
            stack.enter_context(kind.around(run))
        return _judged(run)


def _judged(run: Run) -> FaultRow:
    kind = run.kind
    run.log.touch()
    for _ in range(kind.producers):
        run.add_producer()
    run.start_stream(0)
    try:
        for number in range(1 if kind.rounds else kind.times):
            run.kind.fault(run, number)
    except (AssertionError, TimeoutError, OSError, TickledgerError) as error:
        run.problems.append(f"fault {run.met + 1}: {error}")
    finally:
        for producer in run.producers:
            producer.stop()
        if run.landed_until is None:
            _settle(run)
        run.stream.kill()
    judgement = judge(run.pipeline, run.log, run.landed_until)
    judgement.problems.extend(run.problems)
    if not judgement.clean:
        console.print(run.last_words(), markup=False)
    return FaultRow(kind.name, run.met, max(run.recoveries, default=0.0), judgement, kind.rounds)


def _settle(run: Run) -> None:
    """Let the stream land and check what is left, and end in order."""
    if run.stream.process.poll() is not None:
        run.problems.append(f"the stream ended by itself: {run.last_words()}")
        run.start_stream(run.kind.times)
    wait_until_quiet(run.pipeline, run.log)
    try:
        run.wait_until_nothing_waits()
    except TimeoutError as error:
        run.problems.append(str(error))
    run.stop_stream()


def _chosen(known: Sequence[Kind], only: str, share: float) -> list[Kind]:
    kinds = [kind for kind in known if only.lower() in kind.name.lower()]
    if not kinds:
        raise ConfigurationError(f"--only is {only!r}; it should be part of: {', '.join(kind.name for kind in known)}")
    allowed = []
    for kind in kinds:
        if reason := kind.why_not():
            console.print(f"left out: {kind.name!r}: {reason}")
        else:
            allowed.append(replace(kind, times=max(1, round(kind.times * share))))
    if not allowed:
        raise ConfigurationError(f"--only is {only!r}; this machine allows none of those kinds")
    return allowed


@contextlib.contextmanager
def _services(nodes: int) -> Iterator[Instance]:
    """The servers that faults are tried on, started; of a cluster each process on a host of its own, if it can be."""
    hosts = NetworkedHosts() if nodes > 1 and not why_no_hosts() else None
    name = os.environ.get(INSTANCE_VARIABLE, "faults" if nodes == 1 else "faults-cluster")
    services = Instance(f"{name}-hosts" if hosts else name, hosts=hosts)
    try:
        services.start(nodes=nodes)
        yield services
    finally:
        if os.environ.get(KEEP_VARIABLE) != "1":
            services.stop()
            if hosts is not None:
                hosts.close()


def run_kinds(kinds: Sequence[Kind], services: Instance, seed: int) -> Iterator[FaultRow]:
    """Try every kind, one after the other; prints a line before and after each."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tickledger-faults-") as temporary:
        template = dbt_statements(services, services.settings(), Path(temporary))
        for place, kind in enumerate(kinds, start=1):
            folder = Path(temporary) / str(place)
            folder.mkdir()
            begun = time.monotonic()
            console.print(f"{begun - started:5.0f} s  {place:2}/{len(kinds)}  {kind.name}: {kind.times} times …")
            try:
                row = try_kind(kind, services, template, folder, seed + place)
            except Exception as error:  # a trial that breaks is recorded as a problem; the others go on
                row = FaultRow(kind.name, 0, 0.0, Judgement(problems=[f"the trial broke: {error!r}"]), kind.rounds)
            verdict = "[green]agrees[/green]" if row.judgement.clean else "[red]DIFFERS[/red]"
            took = time.monotonic() - begun
            console.print(f"{'':9}{row.met} met, {row.judgement.landed:,} ticks landed in {took:.0f} s, {verdict}")
            for problem in row.judgement.problems:
                console.print(f"{'':9}[red]{problem}[/red]")
            yield row


def main(
    seed: Annotated[int, typer.Option(help="Decides the moments and the load; 0 draws one.")] = 0,
    share: Annotated[float, typer.Option(min=0.01, help="How much of each kind's number of faults to try.")] = 1,
    only: Annotated[str, typer.Option(help="Only the kinds whose name contains this.")] = "",
    to: Annotated[Path | None, typer.Option(help="Append the run to this file, as a line of JSON.")] = None,
    nodes: Annotated[int, typer.Option(help="How many servers of each kind: 1, or 3 for the faults of a cluster.")] = 1,
) -> None:
    """Kill the real parts under load and compare what was acknowledged with what landed."""
    kinds = _chosen((*CLUSTER_KINDS, *NETWORK_KINDS) if nodes > 1 else KINDS, only, share)
    seed = seed or random.randrange(1, 10_000)
    started = time.monotonic()
    with _services(nodes) as services:
        faults = sum(kind.times for kind in kinds if not kind.rounds)
        console.print(f"seed {seed}: {faults} faults of {len(kinds)} kinds")
        rows: list[FaultRow] = []
        try:
            rows.extend(run_kinds(kinds, services, seed))
        finally:
            if to is not None:
                append_run(to, seed, rows, time.monotonic() - started)
    console.print(f"\nseed {seed}: {time.monotonic() - started:.0f} s")
    console.print(table_of(rows))
    if not all(row.judgement.clean for row in rows):
        raise typer.Exit(1)
    console.print("[green]Nothing lost, nothing counted twice.[/green]")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    interrupt_on_signals()
    run_app(app, "python -m tools.faults")
