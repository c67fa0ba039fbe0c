"""`tickledger services`: Kafka, Cassandra and MySQL on this machine, without Docker."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from services import backup, prompts
from services.instance import DEMO, SERVERS, Instance
from services.java import java_home, java_version
from services.server import Server
from tickledger.command_line import AsJson, print_json
from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.settings import load_settings

app = typer.Typer(
    help="Kafka, Cassandra and MySQL on this machine, on loopback, without Docker.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Name = Annotated[
    str,
    typer.Option("--instance", help="Which set of servers: demo (.env), test, or another name (free ports)."),
]
Secure = Annotated[
    bool,
    typer.Option("--secure", help="Turn TLS and Kafka's accounts on in the env file, with certificates made here."),
]

Folder = Annotated[Path, typer.Argument(help="The folder of one backup.")]


@app.command()
def start(instance: Name = DEMO, secure: Secure = False, as_json: AsJson = False) -> None:
    """Start the servers, and make what is missing in them.

    Waits until each answers, and creates topics, keyspace, tables, databases and accounts. What was generated
    (passwords too) is written to the env file. A second start is harmless and keeps the data.
    """
    services = Instance(instance, lambda step: print(step, file=sys.stderr if as_json else sys.stdout, flush=True))
    services.start(secure=secure)
    states = {server.name: "ready" for server in services.servers()}
    if as_json:
        print_json(_rows(services.servers(), states))
        return
    _console().print(_table(services.servers(), states))
    print(f"settings: {services.env_file}")


@app.command()
def stop(instance: Name = DEMO) -> None:
    """Stop the servers that `start` started; the data stay."""
    stopped = Instance(instance).stop()
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing ran")


@app.command()
def status(instance: Name = DEMO, as_json: AsJson = False) -> None:
    """Say which servers run and answer.

    Exits 0 when all three do, else 1.
    """
    services = Instance(instance)
    states = {server.name: _state(server) for server in services.servers()}
    if as_json:
        print_json(_rows(services.servers(), states))
    else:
        _console().print(_table(services.servers(), states))
    if set(states.values()) != {"ready"}:
        raise SystemExit(1)


@app.command()
def clean(instance: Name = DEMO) -> None:
    """Delete the servers' data and logs.

    They must be stopped first; downloads and .env stay.
    """
    services = Instance(instance)
    print(f"deleted {services.folder}" if services.clean() else f"nothing to delete: {services.folder} is not there")


@app.command(name="backup")
def back_up(folder: Folder, instance: Name = DEMO) -> None:
    """Copy MySQL and Cassandra into a new folder, beside a running stream."""
    backup.back_up(Instance(instance), folder, print)
    print(f"backup: {folder}")


@app.command()
def restore(folder: Folder, instance: Name = DEMO) -> None:
    """Replace the data of MySQL and Cassandra by those of a backup.

    The servers must run, and no stream.
    """
    backup.restore(Instance(instance), folder, print)
    print("restored; the next start of the stream goes on where the backup's ledger ends")


@app.command()
def versions() -> None:
    """Print the versions of Java and of the three servers."""
    print(f"Java {java_version()} ({java_home()})")
    for kind in SERVERS:
        print(f"{kind.title}: {kind.version()}")


@app.command()
def sql() -> None:
    """Open a MySQL prompt on the ledger's database; reads a pipe too."""
    prompts.sql_prompt(load_settings())


@app.command()
def cql() -> None:
    """Open a CQL prompt on the ticks' keyspace; reads a pipe too."""
    prompts.cql_prompt(load_settings())


@app.command()
def topics(as_json: AsJson = False) -> None:
    """List Kafka's topics and how many partitions each has."""
    found = prompts.topics(load_settings())
    if as_json:
        print_json({"topic": name, "partitions": partitions} for name, partitions in found.items())
        return
    table = Table("topic", "partitions", box=None, header_style="bold")
    for name, partitions in found.items():
        table.add_row(name, str(partitions))
    _console().print(table)


def _state(server: Server) -> str:
    if not server.pid:
        return "stopped"
    try:
        server.check_answers()
    except StoreUnavailable:
        return "does not answer"
    except TickledgerError as error:
        return str(error)
    return "ready"


def _table(servers: list[Server], states: dict[str, str]) -> Table:
    rows = _rows(servers, states)
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    return table


def _rows(servers: list[Server], states: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "server": server.title,
            "address": server.address,
            "version": server.version(),
            "state": states[server.name],
            "pid": server.pid,
            "log": server.log_file,
        }
        for server in servers
    ]


def _console() -> Console:
    # A path must stay whole to be copied, even if there is no terminal to measure.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
