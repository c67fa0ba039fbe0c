"""The table that `make faults` ends with, and the line of JSON that it appends if it is asked to."""

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from services.instance import SERVERS
from tests.support.oracle import Judgement

COUNTED = (
    *("acknowledged", "landed", "corrections", "dead", "duplicates", "lost", "double_counted", "volume_difference"),
)
HEADINGS = (
    "fault", "times", "acknowledged", "landed", "corrections", "dead", "duplicates", "lost", "double-counted",
    "volume difference", "longest recovery (s)",
)  # fmt: skip


@dataclass
class FaultRow:
    """One row per kind of fault in a run: how often it was met, the longest recovery, and what the oracle says.

    `rounds` marks one long fault whose `met` are rounds of it; the sum of faults leaves them out.
    """

    fault: str
    met: int
    recovery_seconds: float
    judgement: Judgement
    rounds: bool = False


def _figures(row: FaultRow) -> dict[str, Any]:
    facts = {name: getattr(row.judgement, name) for name in COUNTED}
    # What lies in Cassandra and was never sent is as wrong as what was sent and is not there.
    facts["lost"] += row.judgement.never_sent
    return facts | {
        "fault": row.fault,
        "times": row.met,
        "rounds": row.rounds,
        "recovery_seconds": round(row.recovery_seconds, 1),
        "problems": row.judgement.problems,
    }


def add_up(rows: Iterable[dict[str, Any]], name: str) -> dict[str, Any]:
    """The sum of several rows of figures under one name; the recovery is the longest."""
    found = list(rows)
    total = {key: sum(row[key] for row in found) for key in (*COUNTED, "times")}
    return total | {"fault": name, "recovery_seconds": max((row["recovery_seconds"] for row in found), default=0)}


def _cells(row: dict[str, Any]) -> list[str]:
    return [row["fault"], *(f"{row[key]:,}" for key in ("times", *COUNTED)), f"{row['recovery_seconds']:.1f}"]


def _sum(rows: list[dict[str, Any]]) -> dict[str, Any]:
    total = add_up(rows, "all")
    return total | {"times": sum(row["times"] for row in rows if not row["rounds"])}


def table_of(rows: list[FaultRow]) -> Table:
    """A run as people read it on a terminal: one line per kind of fault, and their sum."""
    table = Table(*HEADINGS[:1])
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    figures = [_figures(row) for row in rows]
    for row in figures:
        table.add_row(*_cells(row), end_section=row is figures[-1])
    table.add_row(*_cells(_sum(figures)))
    return table


def append_run(to: Path, seed: int, rows: list[FaultRow], seconds: float) -> None:
    """Append a run to a file: one line of JSON a run, with date, seed, versions and figures."""
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds),
        # What stands in for MySQL says its own name with its version.
        "versions": [f"PySpark {version('pyspark')}", f"Python {platform.python_version()}"]
        + [number if " " in (number := kind.version()) else f"{kind.title} {number}" for kind in SERVERS],
        "rows": [_figures(row) for row in rows],
    }
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
