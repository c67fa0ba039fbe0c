"""What every benchmark needs: servers, stores of a run's own, a command that leaves nothing behind, a table."""

import dataclasses
import json
import os
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import psutil
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.load import Load, fill
from services.instance import Instance
from tests.support.pipeline import Pipeline, StreamProcess, dbt_statements, fresh_pipeline
from tickledger.command_line import run_app
from tickledger.stopping import interrupt_on_signals

InstanceName = Annotated[str, typer.Option("--instance", help="The servers' instance, which is started for it.")]
Target = Annotated[Path | None, typer.Option("--to", help="Append the tables: Markdown to FILE.md, else a JSON line.")]


class Bench:
    """Running servers, and the stores of one run after the other."""

    def __init__(self, instance: Instance, folder: Path) -> None:
        self.instance, self._settings, self._folder = instance, instance.settings(), folder
        self._template = dbt_statements(instance, self._settings, folder)

    @contextmanager
    def stores(self, topic: str | None = None) -> Iterator[Pipeline]:
        """A keyspace and a database of a run's own; dropped after it. `topic` is read instead of an empty one."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        with fresh_pipeline(self.instance, self._settings, self._template, folder) as pipeline:
            settings = pipeline.settings.model_copy(update={"kafka_topic": topic} if topic else {})
            yield dataclasses.replace(pipeline, settings=settings)

    def load(self, ticks: int, days: int = 0) -> Load:
        """Fill a topic; see :func:`benchmarks.load.fill`."""
        say(f"filling a topic with {ticks:,} ticks")
        with self.stores() as pipeline:
            return fill(pipeline.settings, f"bench_{uuid.uuid4().hex[:12]}", ticks, days)


@contextmanager
def bench(instance: str) -> Iterator[Bench]:
    """The benchmark's servers; stopped in the end unless they ran before."""
    servers = Instance(instance)
    with servers.started(), tempfile.TemporaryDirectory() as folder:
        yield Bench(servers, Path(folder))


@contextmanager
def stream(pipeline: Pipeline, **environment: str) -> Iterator[StreamProcess]:
    """The stream, as a user starts it; asked to end in the end, and waited for."""
    running = StreamProcess(pipeline, environment=environment)
    try:
        yield running
        running.process.terminate()
        running.wait()
    finally:
        kill_tree(running.process)


def kill_tree(process: "subprocess.Popen[str]") -> None:
    """SIGKILL to a process and all below it: Spark's workers have left its process group."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    process.kill()
    process.wait()


def command(name: str, main: Callable[..., None]) -> None:
    """Run a benchmark as a command. Ctrl-C or SIGTERM ends it with 130 and whatever it started with it."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    interrupt_on_signals()
    run_app(app, name)


def say(line: str) -> None:
    """What is being done now, with the time."""
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


def show(title: str, rows: pd.DataFrame, to: Path | None, raw: pd.DataFrame | None = None) -> None:
    """Print a table; append it to `to`: Markdown to a .md file, else a line of JSON, with `raw` in the rows' place."""
    cells = [[_cell(value) for value in row] for row in rows.itertuples(index=False)]
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(rows.columns):
        table.add_column(column, justify="right" if place else "left")
    for row in cells:
        table.add_row(*row)
    Console(highlight=False, width=150).print(table)
    if to is None:
        return
    at, memory = datetime.now(UTC).isoformat(timespec="minutes"), psutil.virtual_memory().total / 2**30
    machine = f"{os.cpu_count()} cores, {memory:.0f} GiB, PySpark {version('pyspark')}"
    if to.suffix == ".md":
        lines = [list(rows.columns), ["---", *["---:"] * (len(rows.columns) - 1)], *cells]
        text = f"{title}\n\n{at} · {machine}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    else:
        found = json.loads((rows if raw is None else raw).to_json(orient="records", double_precision=4))
        text = json.dumps({"title": title, "at": at, "machine": machine, "rows": found})
    to.parent.mkdir(parents=True, exist_ok=True)
    with to.open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def _cell(value: Any) -> str:
    if isinstance(value, str) or pd.isna(value):
        return str(value) if isinstance(value, str) else "-"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:,.3g}"
