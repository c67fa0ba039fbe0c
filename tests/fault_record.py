"""The table that `make faults` ends with, and docs/faults.md, which adds up the recorded runs."""

import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from oracle import Judgement
from rich.table import Table

from services.instance import Instance
from tickledger.settings import PROJECT_ROOT

RUNS = PROJECT_ROOT / "docs" / "faults.jsonl"
PAGE = PROJECT_ROOT / "docs" / "faults.md"
_BEGIN, _END = "<!-- runs: written by make faults -->", "<!-- end of runs -->"
COUNTED = ("acknowledged", "landed", "dead", "duplicates", "lost", "double_counted", "volume_difference")
HEADINGS = (
    "fault", "times", "acknowledged", "landed", "dead", "duplicates", "lost", "double-counted", "volume difference",
    "longest recovery (s)",
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
    """A run as people read it on a terminal: one line a kind of fault, and their sum."""
    table = Table(*HEADINGS[:1])
    for heading in HEADINGS[1:]:
        table.add_column(heading, justify="right")
    figures = [_figures(row) for row in rows]
    for row in figures:
        table.add_row(*_cells(row), end_section=row is figures[-1])
    table.add_row(*_cells(_sum(figures)))
    return table


def append_run(seed: int, rows: list[FaultRow], services: Instance, seconds: float) -> None:
    """Add a run to docs/faults.jsonl: one line a run, with date, seed, versions and figures."""
    servers = ((server.title, server.version()) for server in services.servers())
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "seconds": round(seconds),
        # What stands in for MySQL says its own name with its version.
        "versions": [f"PySpark {version('pyspark')}", f"Python {platform.python_version()}"]
        + [number if " " in number else f"{title} {number}" for title, number in servers],
        "rows": [_figures(row) for row in rows],
    }
    with RUNS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")


def render_page() -> None:
    """Write the runs of docs/faults.jsonl, and their sum, into docs/faults.md, between its two marks."""
    runs = [json.loads(line) for line in RUNS.read_text(encoding="utf-8").splitlines()]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    PAGE.write_text(f"{before}{_BEGIN}\n\n{_page(runs)}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


def _when(run: dict[str, Any]) -> str:
    return str(run["at"][:16]).replace("T", " ")


def _page(runs: list[dict[str, Any]]) -> str:
    rows = [row for run in runs for row in run["rows"]]
    names = list(dict.fromkeys(row["fault"] for row in rows))
    by_fault = [
        add_up((row for row in rows if row["fault"] == name), name)
        | {"rounds": any(row["rounds"] for row in rows if row["fault"] == name)}
        for name in names
    ]
    lines = ["| run (UTC) | seed | faults | minutes | versions |", "|---|---|---|---|---|"]
    for run in runs:
        faults = sum(row["times"] for row in run["rows"] if not row["rounds"])
        lines.append(
            f"| {_when(run)} | {run['seed']} | {faults} | {run['seconds'] / 60:.0f} | {', '.join(run['versions'])} |"
        )
    lines += ["", f"| {' | '.join(HEADINGS)} |", f"|---|{'---:|' * (len(HEADINGS) - 1)}"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in (*by_fault, _sum(by_fault))]
    problems = [
        f"- {_when(run)}, {row['fault']}: {one}" for run in runs for row in run["rows"] for one in row["problems"]
    ]
    lines += ["", "Problems that the runs met:", "", *problems] if problems else []
    return "\n".join(lines) + "\n"
