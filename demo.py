"""`make demo`: servers, dbt, producer, stream and dashboard on this machine, then a summary of what landed.

Ctrl-C, or the end of --seconds, stops the producer, waits until the stream has landed what was sent, and stops the
rest in order. Exit code 0 where the books agree, 1 where they do not, 2 where it cannot run.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from commands.fill_hours import fill_hours, summary
from commands.reconcile import Books, reconcile
from services.archive import submit_options, write_archive
from services.instance import Instance
from services.java import java_home
from tickledger.command_line import run_app
from tickledger.counted import counted
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.ledger import Ledger
from tickledger.plain_text import plain
from tickledger.settings import PROJECT_ROOT, Settings, load_settings
from tickledger.stopping import stop_on_signals
from tickledger.topic import describe_topic

DEMO_FOLDER = PROJECT_ROOT / ".demo"
DASHBOARD_PORT = 8501
#: Until the stream says that it lands.
STREAM_START_SECONDS = 300
CATCH_UP_SECONDS = 120
STOP_SECONDS = 60
#: The share of the ticks that the producer corrects or cancels later.
CORRECTIONS = 0.01

console = Console(highlight=False)


class DemoFailed(TickledgerError):
    """A part of the demo ended before its time. Exit code 1."""


@dataclass
class Part:
    """A running part of the demo; its output goes to the terminal, each line behind its name, and to a log."""

    name: str
    process: "subprocess.Popen[str]"
    log: Path
    ready: threading.Event

    def stop(self, number: signal.Signals) -> int:
        """Ask the part to stop, wait for it, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            return self.process.wait()


class Demo:
    """One run of the demo."""

    def __init__(self, seconds: float, rounds_per_second: float, *, secure: bool, nodes: int | None) -> None:
        self._seconds = seconds
        self._rounds_per_second = rounds_per_second
        self._stop = threading.Event()
        self._parts: list[Part] = []
        self._secure, self._nodes = secure, nodes
        self._instance = Instance("demo")

    def run(self) -> bool:
        """Run all parts until the time is over or Ctrl-C; True where the books agree in the end."""
        stop_on_signals(self._stop)
        _require_free_port(DASHBOARD_PORT)
        DEMO_FOLDER.mkdir(exist_ok=True)
        DEMO_FOLDER.chmod(0o700)
        with self._servers():
            settings = load_settings()
            self._dbt("seed")
            self._dbt("run")
            first = describe_topic(settings)
            ledger = Ledger(settings)
            before, backlog = reconcile(settings), first.behind(ledger.head().topic_offsets)
            try:
                self._start_parts(settings)
                self._wait()
                sent = self._stop_producer()
                self._wait_until_landed(settings, ledger)
                return self._summary(settings, before, backlog, sent)
            finally:
                self._stop_parts()

    @contextmanager
    def _servers(self) -> Iterator[None]:
        say("servers: Kafka, Cassandra and MySQL")
        ran_before = bool(self._instance.running())
        self._instance.start(secure=self._secure, nodes=self._nodes)
        try:
            yield
        finally:
            if not ran_before:
                say("stopping the servers (their data stays; 'make services' starts them again)")
                self._instance.stop()

    def _dbt(self, command: str) -> None:
        if self._stop.is_set():
            raise DemoFailed("stopped before the stream started")
        say(f"dbt {command}")
        log = DEMO_FOLDER / f"dbt-{command}.log"
        with log.open("w") as output:
            done = subprocess.run(
                [_script("dbt"), command],
                cwd=PROJECT_ROOT / "dbt_project",
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C lets it end.
                start_new_session=True,
            )
        if done.returncode:
            raise _failed(f"dbt {command} failed", log)

    def _start_parts(self, settings: Settings) -> None:
        say("stream: Spark reads Kafka and lands each micro-batch")
        submit = [_script("spark-submit"), *self._submit_options(), "streaming/stream_ticks.py"]
        stream = self._start("stream", submit, ready_line="landing ")
        self._wait_for(stream, STREAM_START_SECONDS)
        say(
            f"producer: {self._rounds_per_second:g} rounds a second, one tick a company;"
            f" {CORRECTIONS:.0%} of the ticks are corrected or cancelled later"
        )
        self._summary_file.unlink(missing_ok=True)
        self._start(
            "producer",
            [
                *(sys.executable, "-m", "producer", settings.kafka_topic),
                *("--rounds-per-second", f"{self._rounds_per_second:g}"),
                *("--corrections", f"{CORRECTIONS:g}"),
                *("--summary", str(self._summary_file)),
            ],
        )
        self._start(
            "dashboard", [_script("streamlit"), "run", "dashboard/app.py", "--server.headless", "true"], quiet=True
        )
        say(f"dashboard: [bold]http://localhost:{DASHBOARD_PORT}[/bold]")
        until = f"for {self._seconds:g} seconds, or until Ctrl-C" if self._seconds else "until Ctrl-C"
        say(f"running {until}")

    def _submit_options(self) -> list[str]:
        """What spark-submit is told of where the work is done: on the cluster, or in its own process."""
        if not (master := self._instance.spark_master):
            return []
        say("archive: what Spark's workers run travels to them in one file; packing it takes half a minute")
        return submit_options(master, write_archive())

    @property
    def _summary_file(self) -> Path:
        return DEMO_FOLDER / "producer.json"

    def _start(self, name: str, command: list[str], *, ready_line: str = "", quiet: bool = False) -> Part:
        environment = os.environ | {
            "SPARK_CONF_DIR": str(PROJECT_ROOT),
            "JAVA_HOME": str(java_home()),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
        }
        if self._instance.spark_master:
            environment["SPARK_PASSWORD"] = self._instance.spark_secret
        # A session of its own, so that Ctrl-C reaches the demo alone, which then stops the parts in order.
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True,
        )  # fmt: skip
        part = Part(name, process, DEMO_FOLDER / f"{name}.log", threading.Event())
        assert process.stdout is not None
        threading.Thread(target=_copy, args=(part, process.stdout, ready_line, quiet), daemon=True).start()
        self._parts.append(part)
        return part

    def _wait_for(self, part: Part, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not part.ready.wait(0.2):
            if self._stop.is_set():
                raise DemoFailed("stopped before the stream started")
            if part.process.poll() is not None or time.monotonic() > deadline:
                raise _failed(f"the {part.name} did not start", part.log)

    def _wait(self) -> None:
        deadline = time.monotonic() + self._seconds if self._seconds else float("inf")
        while time.monotonic() < deadline and not self._stop.wait(0.5):
            for part in self._parts:
                if part.process.poll() is not None:
                    raise _failed(f"the {part.name} ended", part.log)

    def _stop_producer(self) -> int:
        say("stopping the producer")
        part = next(part for part in self._parts if part.name == "producer")
        part.stop(signal.SIGINT)
        return int(json.loads(self._summary_file.read_text())["acknowledged_ticks"])

    def _wait_until_landed(self, settings: Settings, ledger: Ledger) -> None:
        say("waiting until the stream has landed and checked what was sent")
        deadline = time.monotonic() + CATCH_UP_SECONDS
        last = describe_topic(settings)
        while last.behind(ledger.head().topic_offsets) or _unchecked(settings):
            if time.monotonic() > deadline:
                console.print(f"[red]not landed and checked within {CATCH_UP_SECONDS} s[/red]")
                return
            time.sleep(0.5)

    def _stop_parts(self) -> None:
        for part in reversed(self._parts):
            if part.process.poll() is None:
                say(f"stopping the {part.name}")
            part.stop(signal.SIGTERM)

    def _summary(self, settings: Settings, before: Books, backlog: int, sent: int) -> bool:
        stream = next(part for part in self._parts if part.name == "stream")
        say("stopping the stream")
        stream_code = stream.stop(signal.SIGTERM)
        say(f"tickledger fill-hours: {summary(fill_hours(settings))}")
        books = reconcile(settings)
        run = books.since(before)
        problems = list(books.differences)
        if run.ticks_read != run.ticks_landed + run.corrections + run.dead_letters + run.duplicates:
            problems.append("read is not landed + corrections + dead letters + duplicates")
        if run.ticks_read < sent or (not backlog and run.ticks_read != sent):
            problems.append(f"the producer sent {counted(sent, 'tick')}, the stream read {run.ticks_read:,}")
        if books.verdicts.get("unchecked"):
            problems.append(counted(books.verdicts["unchecked"], "unchecked batch", "unchecked batches"))
        if stream_code:
            problems.append(f"the stream ended with exit code {stream_code}")
        print_summary(sent, run, books, problems)
        return not problems


def print_summary(sent: int, run: Books, books: Books, problems: list[str]) -> None:
    """The demo's last words: this run's counts, what the stores hold, and every disagreement."""
    table = Table(title="\nThe books", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("this run", justify="right")
    table.add_column("since the first", justify="right")
    table.add_row("ticks produced (acknowledged by Kafka)", f"{sent:,}", "")
    table.add_row("ticks read by the stream", f"{run.ticks_read:,}", f"{books.ticks_read:,}")
    table.add_row("  landed", f"{run.ticks_landed:,}", f"{books.ticks_landed:,}")
    table.add_row("  corrections and cancellations", f"{run.corrections:,}", f"{books.corrections:,}")
    table.add_row("  dead letters", f"{run.dead_letters:,}", f"{books.dead_letters:,}")
    table.add_row("  duplicates", f"{run.duplicates:,}", f"{books.duplicates:,}", end_section=True)
    table.add_row(
        "volume in Cassandra, as corrected (shares)", f"{run.cassandra.volume:,}", f"{books.cassandra.volume:,}"
    )
    table.add_row("volume in MySQL (shares)", f"{run.mysql.volume:,}", f"{books.mysql.volume:,}", end_section=True)
    table.add_row("batches", f"{run.batches:,}", f"{books.batches:,}")
    for verdict in sorted(books.verdicts):
        table.add_row(f"  {verdict}", f"{run.verdicts[verdict]:,}", f"{books.verdicts[verdict]:,}")
    console.print(table)
    for line in books.waiting:
        console.print(line)
    for problem in problems:
        console.print(Text.assemble(("differs", "red"), f" {plain(problem)}"))
    console.print("[red]The books do not agree.[/red]" if problems else "[green]The books agree.[/green]")


def say(line: str) -> None:
    """One line of the demo itself."""
    console.print(f"[bold cyan]demo[/bold cyan]      │ {line}", soft_wrap=True)


def _unchecked(settings: Settings) -> bool:
    return settings.checks_enabled and bool(Ledger(settings).unchecked())


def _copy(part: Part, output: IO[str], ready_line: str, quiet: bool) -> None:
    """Copy a part's output to its log and, behind its name, to the terminal."""
    with part.log.open("w") as log:
        for line in output:
            log.write(line)
            log.flush()
            if ready_line and line.startswith(ready_line):
                part.ready.set()
            # Until the stream lands, spark-submit tells how it resolves its packages.
            if not quiet and line.strip() and (part.ready.is_set() or not ready_line):
                said = plain(line.rstrip().expandtabs())
                console.print(Text.assemble((f"{part.name:<9} │ ", "dim"), said), soft_wrap=True)


def _failed(what: str, log: Path, lines: int = 12) -> DemoFailed:
    """The error, behind the log's last lines, which are more than an error's one."""
    for line in log.read_text(errors="replace").splitlines()[-lines:]:
        print(plain(line), file=sys.stderr)
    return DemoFailed(f"{what}; its last lines stand above, all of them in {log}")


def _script(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _require_free_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ConfigurationError(f"port {port}, the dashboard's, is in use; stop what listens there") from None


def main(
    seconds: Annotated[float, typer.Option(min=0, help="Stop after so many seconds; 0 runs until Ctrl-C.")] = 0,
    rounds_per_second: Annotated[float, typer.Option(min=0, help="Rounds that the producer sends a second.")] = 5,
    secure: Annotated[bool, typer.Option("--secure", help="Servers with TLS and accounts, from now on.")] = False,
    nodes: Annotated[int | None, typer.Option(min=1, help="How many servers of each kind: 1, or 3.")] = None,
) -> None:
    """Run the whole pipeline on this machine and sum up what landed."""
    if not Demo(seconds, rounds_per_second, secure=secure, nodes=nodes).run():
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_app(app, "python demo.py")
