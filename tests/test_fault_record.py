"""The table that `make faults` ends with, and the line that it appends to a file."""

import json
from pathlib import Path

from rich.console import Console

from tests.support.oracle import Judgement
from tools.fault_record import FaultRow, append_run, table_of


def test_the_table_ends_with_sums_that_leave_out_rounds() -> None:
    judgement = Judgement(acknowledged=1_100, landed=1_000, dead=40, duplicates=60, never_sent=1, volume_difference=7)
    rows = [FaultRow("one", 2, 1.5, judgement), FaultRow("rounds", 5, 2.5, judgement, rounds=True)]
    console = Console(width=160)

    with console.capture() as shown:
        console.print(table_of(rows))

    last = [cell.strip() for cell in shown.get().splitlines()[-2].strip("│").split("│")]
    assert last == ["all", "2", "2,200", "2,000", "0", "80", "120", "2", "0", "14", "2.5"]


def test_a_run_is_appended_to_the_file_that_is_named(tmp_path: Path) -> None:
    rows = [FaultRow("one", 2, 1.54, Judgement(landed=1_000, lost=1, never_sent=2, problems=["late"]))]
    for seed in (7, 8):
        append_run(tmp_path / "new" / "runs.jsonl", seed, rows, 60.4)

    runs = [json.loads(line) for line in (tmp_path / "new" / "runs.jsonl").read_text().splitlines()]
    assert [(run["seed"], run["seconds"]) for run in runs] == [(7, 60), (8, 60)]
    (row,) = runs[0]["rows"]
    assert (row["fault"], row["times"], row["landed"], row["lost"]) == ("one", 2, 1_000, 3)
    assert (row["recovery_seconds"], row["problems"]) == (1.5, ["late"])
    assert any(text.startswith("Cassandra ") for text in runs[0]["versions"])
