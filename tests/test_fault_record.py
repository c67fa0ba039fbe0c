"""The table that `make faults` ends with, and the page that adds up its recorded runs."""

from fault_record import PAGE, FaultRow, render_page, table_of
from oracle import Judgement
from rich.console import Console


def test_the_table_ends_with_sums_that_leave_out_rounds() -> None:
    judgement = Judgement(acknowledged=1_100, landed=1_000, dead=40, duplicates=60, never_sent=1, volume_difference=7)
    rows = [FaultRow("one", 2, 1.5, judgement), FaultRow("rounds", 5, 2.5, judgement, rounds=True)]
    console = Console(width=160)

    with console.capture() as shown:
        console.print(table_of(rows))

    last = [cell.strip() for cell in shown.get().splitlines()[-2].strip("│").split("│")]
    assert last == ["all", "2", "2,200", "2,000", "80", "120", "2", "0", "14", "2.5"]


def test_the_page_adds_up_the_recorded_runs() -> None:
    before = PAGE.read_text(encoding="utf-8")

    render_page()

    after = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(before, encoding="utf-8")
    assert after == before, "docs/faults.md is not what docs/faults.jsonl says; make faults ARGS=--record writes it"
