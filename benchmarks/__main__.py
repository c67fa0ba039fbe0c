"""`make bench`: land the same topic with each engine in turn, in rounds, and print what it took, side by side."""

import dataclasses
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pipeline import Pipeline, dbt_statements, fresh_pipeline
from rich.console import Console
from rich.table import Table

from benchmarks.engines import ENGINES, Case, Result, run
from benchmarks.load import Load, fill, seed
from benchmarks.report import CHECKS_ON_AND_OFF, checks_cost, record_backlog, record_engines, uncounted
from services.instance import Instance
from tickledger.errors import ConfigurationError, run_command

#: In the run after a single one Cassandra's JVM still compiled for five seconds.
WARM_UP_RUNS = 2


class Bench:
    """The servers, the topic, and the stores of one run after the other."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self._instance = instance
        self._settings = instance.settings()
        self._folder = folder
        self._template = dbt_statements(instance, self._settings, folder)

    @contextmanager
    def stores(self, topic: str | None = None, tickers: int | None = None) -> Iterator[Pipeline]:
        """A keyspace and a database of a run's own; dropped after it.

        `topic` is read instead of an empty one; `tickers` made-up companies stand in `profile` instead of the seed's.
        """
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        with fresh_pipeline(self._instance, self._settings, self._template, folder) as pipeline:
            if tickers is not None:
                seed(pipeline, tickers)
            if topic is None:
                yield pipeline
            else:
                settings = pipeline.settings.model_copy(update={"kafka_topic": topic})
                yield dataclasses.replace(pipeline, settings=settings)

    def load(self, ticks: int, told: Console, tickers: int | None = None) -> Load:
        """Fill a topic."""
        with self.stores(tickers=tickers) as pipeline, told.status("filling the topic") as status:
            return fill(
                pipeline.settings,
                f"bench_{uuid.uuid4().hex[:12]}",
                ticks,
                lambda done: status.update(f"filling the topic: {done:,} of {ticks:,} ticks"),
            )

    def case(self, pipeline: Pipeline, load: Load, batch: int) -> Case:
        """What an engine lands, about `batch` ticks at a time."""
        return Case(self._instance, pipeline, load, max(batch // (load.ticks // load.messages), 1))

    def rounds(self, load: Load, names: list[str], rounds: int, batch: int, *, profile: bool) -> Iterator[Result]:
        """Each engine once a round, on servers that are warm. Says before each run how long all of it still takes."""
        # A server's JVM compiles what it is asked for the first time, reading too: the first engine would pay for all.
        for number in range(1, WARM_UP_RUNS + 1):
            print(f"the servers warm up: run {number} of {WARM_UP_RUNS} that do not count", flush=True)
            with self.stores(load.topic) as pipeline:
                run("ours", self.case(pipeline, load, batch), 0)
        began, total = time.monotonic(), rounds * len(names)
        for done in range(total):
            name, number = names[done % len(names)], done // len(names) + 1
            left = f", about {(time.monotonic() - began) / done * (total - done) / 60:.0f} min left" if done else ""
            print(f"round {number} of {rounds}: {ENGINES[name].title}{left}", flush=True)
            with self.stores(load.topic) as pipeline:
                result = run(name, self.case(pipeline, load, batch), number, profile=profile)
            said = f"does not count: {result.problem}" if result.problem else f"{result.warm:,.0f} ticks/s warm"
            print(f"    {said}, {result.whole:,.0f} with start-up, {result.seconds:.1f} s", flush=True)
            yield result


def print_results(results: list[Result], console: Console) -> None:
    """One row per engine: the medians of the rounds that count."""
    table = Table(title="Medians of the rounds", title_justify="left")
    columns = ("engine", "ticks/s warm", "with start-up", "first batch (s)", "engine CPU (s)", "stores CPU (s)", "MB")
    for column in columns:
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name in dict.fromkeys(result.engine for result in results):
        mine = [result for result in results if result.engine == name and not result.problem]
        if mine:
            fields = ("warm", "whole", "first_batch_seconds", "engine_cpu", "stores_cpu", "peak_megabytes")
            medians = [statistics.median(getattr(one, field) for one in mine) for field in fields]
            table.add_row(ENGINES[name].title, *(f"{m:,.0f}" if m >= 100 else f"{m:,.1f}" for m in medians))
    console.print(table)
    if said := checks_cost([result.as_dict() for result in results]):
        console.print(said)


def main(
    engines: Annotated[str, typer.Option(help="Which engines, by name, separated by commas.")] = ",".join(ENGINES),
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each engine.")] = 3,
    ticks: Annotated[int, typer.Option(min=10_000, help="Ticks in the topic, ten a message.")] = 500_000,
    batch: Annotated[int, typer.Option(min=10, help="Ticks a micro-batch.")] = 100_000,
    instance: Annotated[str, typer.Option(help="The servers' instance, which is started for it.")] = "bench",
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where a process of each engine spends its time. Slows it down.")
    ] = False,
    keep: Annotated[
        bool,
        typer.Option(
            "--record",
            help="Write docs/performance.* anew from this run; with some of the engines, its part 'A longer backlog'.",
        ),
    ] = False,
) -> None:
    """Land one topic with each engine in turn, interleaved, on this machine; print medians side by side.

    A run whose rows or volumes are wrong does not count. Exit code 1: an engine failed, or a run did not count. Ctrl-C
    stops the run and the servers.
    """
    names = [name.strip() for name in engines.split(",")]
    if unknown := [name for name in names if name not in ENGINES]:
        raise ConfigurationError(f"--engines names {', '.join(unknown)}; it should be some of {', '.join(ENGINES)}")
    if ticks < 2 * batch:
        raise ConfigurationError(f"--ticks is {ticks:,}; it should be at least two batches of {batch:,}")
    if keep and (missing := set(CHECKS_ON_AND_OFF).difference(names)):
        raise ConfigurationError(f"--engines leaves out {', '.join(sorted(missing))}; with --record it should be in it")
    if profile and keep:
        raise ConfigurationError("--record is given with --profile; it should be left out, as a profile costs time")
    console, servers = Console(highlight=False, width=130), Instance(instance)
    with servers.started(), tempfile.TemporaryDirectory() as folder:
        bench = Bench(servers, Path(folder))
        load = bench.load(ticks, console)
        results = list(bench.rounds(load, names, rounds, batch, profile=profile))
    print_results(results, console)
    if keep and (never := uncounted(results)):
        print(f"nothing is recorded: no run of {', '.join(never)} counts", file=sys.stderr)
    elif keep:
        record = record_engines if set(names) == set(ENGINES) else record_backlog
        record(results, load.ticks, batch)
    if any(result.problem for result in results):
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m benchmarks"))
