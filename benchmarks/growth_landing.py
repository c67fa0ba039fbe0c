"""How the time of a batch grows with its ticks and with the companies that trade."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
from pipeline import Pipeline
from rich.console import Console

from benchmarks.__main__ import Bench
from benchmarks.engines import run
from expectations.checker import Checker

#: At least so many batches of each size; of small ones as many as make up so many ticks.
LEAST_BATCHES, LEAST_TICKS = 5, 40_000
#: What is asked or checked again is so once, and then so often; the median counts.
REPEATS = 5
Told = Callable[[str], None]


def batches(bench: Bench, sizes: list[int], told: Told) -> pd.DataFrame:
    """Land and check batches of each size; one row per size, see :func:`_row`. `work` is ticks a batch."""
    rows = [_land(bench, size, None, max(size * LEAST_BATCHES, LEAST_TICKS), told) for size in sizes]
    return pd.DataFrame({"ticks a batch": size, "work": size} | row for size, row in zip(sizes, rows, strict=True))


def tickers(bench: Bench, counts: list[int], batch: int, told: Told) -> pd.DataFrame:
    """Land and check as many ticks of ever more companies; one row per number. `work` is the same: ticks a batch."""
    rows = [_land(bench, batch, count, batch * LEAST_BATCHES, told) for count in counts]
    return pd.DataFrame({"tickers": count, "work": batch} | row for count, row in zip(counts, rows, strict=True))


def _land(bench: Bench, batch: int, companies: int | None, ticks: int, told: Told) -> dict[str, Any]:
    of = f" of {companies:,} tickers" if companies else ""
    told(f"{ticks:,} ticks{of}, {batch:,} a batch")
    load = bench.load(ticks, Console(), companies)
    with bench.stores(load.topic, companies) as pipeline:
        result = run("ours", bench.case(pipeline, load, batch), 1)
        alone = {"check alone": _check_alone(pipeline)}
        return _row(pipeline) | alone | {"ticks/s": result.warm, "problem": result.problem}


def _row(pipeline: Pipeline) -> dict[str, float]:
    """Medians in seconds, without the first batch, which finds everything cold.

    seconds: from one batch's commit to the next one's. landing: from the beginning of a batch to its commit. checking:
    from the commit, or the check before, to the verdict.
    """
    rows = pipeline.rows("SELECT landed_at, landing_seconds, checked_at FROM landed_batches ORDER BY batch_id")
    pairs = list(pairwise(rows))
    checking = [(own[2] - max(own[0], before[2])).total_seconds() for before, own in pairs]
    return {
        "batches": len(rows),
        "seconds": statistics.median((own[0] - before[0]).total_seconds() for before, own in pairs),
        "landing": statistics.median(float(own[1]) for _, own in pairs),
        "checking": statistics.median(checking),
    }


def _check_alone(pipeline: Pipeline) -> float:
    """The median time to check the newest batch again, in seconds, while nothing lands."""
    with contextlib.closing(Checker(pipeline.settings)) as checker:
        newest = checker.newest()
        assert newest is not None
        return median_seconds(lambda: checker.check(newest))


def median_seconds(call: Callable[[], Any]) -> float:
    """The median time of some calls after a first one, which finds everything cold."""
    took = []
    for _ in range(REPEATS + 1):
        began = time.monotonic()
        call()
        took.append(time.monotonic() - began)
    return statistics.median(took[1:])


def faster_than_work(rows: pd.DataFrame, name: str) -> Iterator[str]:
    """Says of each step between two rows whether `seconds` or `check alone` grew by over a tenth more than `work`.

    Not `checking`: the process is niced, so that figure is mostly how much of the processor a landing leaves it.
    """
    for figure in ("seconds", "check alone"):
        for before, own in pairwise(rows.to_dict("records")):
            grew, work = own[figure] / max(before[figure], 1e-3), own["work"] / before["work"]
            if grew > 1.1 * work:
                step = f"from {before[name]:,} to {own[name]:,} {name}"
                yield f"{figure}, {step}: {grew:.1f} times for {work:.0f} times the work"
