"""`make bench`: land the same topic with each engine in turn, in rounds, and print what it took, side by side."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import pandas as pd
import typer

from benchmarks.bench import Bench, InstanceName, Target, bench, command, say, show
from benchmarks.engines import ENGINES, refuse_missing, run
from benchmarks.load import Load
from tickledger.errors import ConfigurationError

#: Servers compile what they are asked for the first time: the first engine would pay for all.
WARM_UP_RUNS = 2


def rounds_of(bench: Bench, load: Load, names: list[str], rounds: int, batch: int) -> Iterator[dict[str, Any]]:
    """Each engine once a round, on servers that are warm. Says before each run how long all of it still takes."""
    runs = [("ours", 0)] * WARM_UP_RUNS + [(name, number + 1) for number in range(rounds) for name in names]
    began = time.monotonic()
    for done, (name, number) in enumerate(runs):
        left = f", about {(time.monotonic() - began) / done * (len(runs) - done) / 60:.0f} min left" if done else ""
        say((f"round {number} of {rounds}: {name}" if number else "a run to warm up") + left)
        with bench.stores(load.topic) as pipeline:
            result = run(bench, name, pipeline, load, batch, number)
        if number:
            say(f"    {result['ticks/s']:,.0f} ticks/s" + (result["problem"] and f", counts not: {result['problem']}"))
            yield result


def medians(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per engine with a run that counts: medians of its runs, and how many times as fast ours is, warm."""
    counted = runs[runs.problem == ""].groupby("engine", sort=False)
    table = counted.median(numeric_only=True).drop(columns="round")
    table["ticks/s, from"], table["to"] = counted["ticks/s"].min(), counted["ticks/s"].max()
    if "ours" in table.index:
        table["ours, times"] = table["ticks/s"]["ours"] / table["ticks/s"]
    return table.reset_index()


def main(
    engines: Annotated[str, typer.Option(help="Which engines, by name, separated by commas.")] = ",".join(ENGINES),
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each engine.")] = 3,
    ticks: Annotated[int, typer.Option(min=10_000, help="Ticks in the topic, ten a message.")] = 500_000,
    batch: Annotated[int, typer.Option(min=100, help="Ticks a micro-batch.")] = 100_000,
    instance: InstanceName = "bench",
    to: Target = None,
) -> None:
    """Land one topic with each engine in turn, interleaved, on this machine; print medians side by side.

    A run whose rows or volumes are wrong does not count. Exit code 1: an engine failed, or a run did not count. Ctrl-C
    and SIGTERM stop the run and the servers.
    """
    names = [name.strip() for name in engines.split(",")]
    refuse_missing(names)
    if ticks < 2 * batch:
        raise ConfigurationError(f"--ticks is {ticks:,}; it should be at least two batches of {batch:,}")
    with bench(instance) as servers:
        load = servers.load(ticks)
        results = pd.DataFrame(rounds_of(servers, load, names, rounds, batch))
    title = f"{load.ticks:,} ticks, about {batch:,} a batch: medians of {rounds} rounds"
    show(title, medians(results), to, results)
    if results.problem.any():
        raise typer.Exit(1)


if __name__ == "__main__":
    command("python -m benchmarks", main)
