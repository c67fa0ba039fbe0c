"""The `great_expectations` command: runs the checkpoint on landed batches and lists what there is to run."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from expectations.suites import PROJECT_FOLDER
from tickledger.command_line import run_app
from tickledger.errors import TickledgerError
from tickledger.ledger import Ledger
from tickledger.plain_text import plain
from tickledger.settings import load_settings

if TYPE_CHECKING:
    from expectations.checker import Checker, CheckResult, Verdict

COLOURS = {"passed": "green", "warned": "yellow", "failed": "red"}
#: Where Data Docs go; git ignores it.
DOCS_FOLDER = PROJECT_FOLDER / "uncommitted" / "data_docs"
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"]
#: Columns of the output if it goes into a file or a pipe.
PIPE_WIDTH = 160

app = typer.Typer(
    help="Check landed batches with Great Expectations, read back from Cassandra and MySQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
checkpoints = typer.Typer(help="Run or list checkpoints.", no_args_is_help=True)
suites = typer.Typer(help="List suites of expectations.", no_args_is_help=True)
docs = typer.Typer(help="Build Data Docs.", no_args_is_help=True)
app.add_typer(checkpoints, name="checkpoint")
app.add_typer(suites, name="suite")
app.add_typer(docs, name="docs")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class CannotRun(TickledgerError):
    """What was asked for is not there. Exit code 2."""

    exit_code = 2


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version of Great Expectations and exit.", is_eager=True)
    ] = False,
) -> None:
    if show_version:
        print(f"great_expectations {version('great-expectations')}")
        raise typer.Exit


@checkpoints.command("run")
def run_checkpoint(
    name: Annotated[str, typer.Argument(help="The checkpoint, such as landed_batch.", show_default=False)],
    batch: Annotated[int | None, typer.Option(help="The batch to check.", show_default="the newest")] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Check every batch that has no verdict.")] = False,
    since: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, help="Check every batch that landed at or after this time (UTC), again too."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the newest batch, a named one, all unchecked ones or all since a time; write the verdicts to the ledger.

    Exit code 0: all critical expectations held; warnings are shown. 1: a critical expectation failed. 2: cannot run.
    """
    _known_checkpoint(name)
    if (batch is not None) + unchecked + (since is not None) > 1:
        raise CannotRun("--batch, --unchecked and --since exclude each other")
    settings = load_settings()
    with Console(stderr=True).status("Great Expectations is loading"):
        from expectations.checker import Checker

        checker = Checker(settings)
    try:
        verdicts = map(checker.check, _wanted(checker, batch, unchecked, since))
        failed = _print_json(verdicts) if as_json else _print_tables(verdicts, several=unchecked or since is not None)
    finally:
        checker.close()
    if failed:
        raise typer.Exit(1)


@checkpoints.command("list")
def list_checkpoints(as_json: AsJson = False) -> None:
    """Print each checkpoint with the suites that it runs."""
    found = [
        {"checkpoint": one["name"], "suites": [suite["name"] for suite in one["validation_definitions"]]}
        for one in _documents("checkpoints")
    ]
    _print_list(found, as_json)


@suites.command("list")
def list_suites(as_json: AsJson = False) -> None:
    """Print each suite with the number of its expectations by severity."""
    found = []
    for suite in _documents("expectations"):
        severities = [one["severity"] for one in suite["expectations"]]
        counts = {severity: severities.count(severity) for severity in ("critical", "warning")}
        found.append({"suite": suite["name"]} | counts)
    _print_list(found, as_json)


@docs.command("build")
def build_data_docs(
    batch: Annotated[int | None, typer.Option(help="The batch to show.", show_default="the newest")] = None,
    output: Annotated[Path, typer.Option(help="The folder for the pages.", show_default=False)] = DOCS_FOLDER,
) -> None:
    """Write Data Docs, pages to open from disk: every suite, and how a batch fares in it. The ledger stays as it is.

    Exit code 0: written, whatever they show. 2: cannot run.
    """
    settings = load_settings()
    with Console(stderr=True).status("Great Expectations is loading"):
        from expectations.data_docs import build_docs

        # An empty ledger has no newest batch; the suites can be shown all the same.
        page = build_docs(settings, output, batch or Ledger(settings).head().batch_id or None)
    print(f"open {page.resolve().as_uri()}")


def _print_list(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(*rows[0], box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(", ".join(cell) if isinstance(cell, list) else str(cell) for cell in row.values()))
    _console().print(table)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


def _documents(folder: str) -> list[dict[str, Any]]:
    paths: list[Path] = sorted((PROJECT_FOLDER / folder).glob("*.json"))
    if not paths:
        raise CannotRun(f"{PROJECT_FOLDER / folder} holds no files; 'python -m expectations.suites' writes them")
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def _known_checkpoint(name: str) -> None:
    known = [document["name"] for document in _documents("checkpoints")]
    if name not in known:
        raise CannotRun(f"there is no checkpoint {name!r}; there is {', '.join(known)}")


def _wanted(checker: "Checker", batch: int | None, unchecked: bool, since: datetime | None) -> list[int]:
    newest = checker.newest()
    if newest is None:
        raise CannotRun("the ledger is empty: no batch has landed yet")
    if unchecked:
        return checker.unchecked()
    if since is not None:
        return checker.since(since)
    return [newest if batch is None else batch]


def _print_json(verdicts: Iterable["Verdict"]) -> bool:
    """Print all verdicts with their results as one list; True if one failed."""
    found = list(verdicts)
    documents = [
        {"batch_id": one.batch_id, "verdict": one.verdict, "results": [asdict(result) for result in one.results]}
        for one in found
    ]
    print(json.dumps(documents, indent=2))
    return any(one.verdict == "failed" for one in found)


def _print_tables(verdicts: Iterable["Verdict"], *, several: bool) -> bool:
    """Print each verdict as it comes, without what held if there may be several; True if one failed."""
    console = _console()
    words = []
    for one in verdicts:
        words.append(one.verdict)
        if shown := one.findings if several else one.results:
            console.print(_table(one, shown))
        held = len(one.results) - len(one.findings)
        colour = COLOURS[one.verdict]
        console.print(
            f"batch {one.batch_id}: [{colour}]{one.verdict}[/{colour}], {held} of {len(one.results)} expectations held"
        )
    if not words:
        console.print("No batch to check.")
    return "failed" in words


def _table(verdict: "Verdict", results: "tuple[CheckResult, ...]") -> Table:
    table = Table(title=f"Batch {verdict.batch_id}", title_justify="left")
    for column in ("", "expectation", "severity", "expected", "observed"):
        table.add_column(column, overflow="fold")
    # What did not hold stands last, next to the verdict.
    for one in sorted(results, key=lambda result: not result.held):
        colour = "green" if one.held else COLOURS["warned" if one.severity == "warning" else "failed"]
        mark = f"[{colour}]{'held' if one.held else 'not held'}[/{colour}]"
        table.add_row(mark, one.expectation, one.severity, Text(plain(one.expected)), Text(plain(one.observed)))
    return table


def main() -> None:
    """Entry point of the console script."""
    run_app(app, "great_expectations")
