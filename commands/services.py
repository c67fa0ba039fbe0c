"""`tickledger services`: Kafka, Cassandra and MySQL on this machine, without Docker."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from services import backup, prompts
from services.instance import DEMO, SERVERS, Instance
from services.java import java_home, java_version
from services.server import Server
from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.settings import load_settings

app = typer.Typer(
    help="Kafka, Cassandra and MySQL on this machine, on loopback, without Docker.",
    no_args_is_help=True,
    add_completion=False,
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
def start(instance: Name = DEMO, secure: Secure = False) -> None:
    """Start the servers, wait until each answers, create topics, keyspace, tables, databases and accounts.

    What was generated (passwords too) is written to the env file. A second start is harmless and keeps the data.
    """
    services = Instance(instance)
    services.start(secure=secure)
    _console().print(_table(services.servers(), {server.name: "ready" for server in services.servers()}))
    print(f"settings: {services.env_file}")


@app.command()
def stop(instance: Name = DEMO) -> None:
    """Stop exactly the servers that `start` started; the data stay."""
    stopped = Instance(instance).stop()
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing ran")


@app.command()
def status(instance: Name = DEMO) -> None:
    """Say which servers run and answer. Exits 0 when all three do, else 1."""
    services = Instance(instance)
    states = {server.name: _state(server) for server in services.servers()}
    _console().print(_table(services.servers(), states))
    if set(states.values()) != {"ready"}:
        raise SystemExit(1)


@app.command()
def clean(instance: Name = DEMO) -> None:
    """Delete the servers' data and logs. They must be stopped first; downloads and .env stay."""
    services = Instance(instance)
    print(f"deleted {services.folder}" if services.clean() else f"nothing to delete: {services.folder} is not there")


@app.command(name="backup")
def back_up(folder: Folder, instance: Name = DEMO) -> None:
    """Write MySQL's database and Cassandra's files into a new folder, beside a running stream."""
    backup.back_up(Instance(instance), folder, print)
    print(f"backup: {folder}")


@app.command()
def restore(folder: Folder, instance: Name = DEMO) -> None:
    """Replace MySQL's database and Cassandra's data by those of a backup. The servers must run, and no stream."""
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
    """Open a MySQL prompt on the database of the settings; reads statements from a pipe too."""
    prompts.sql_prompt(load_settings())


@app.command()
def cql() -> None:
    """Open a CQL prompt on the keyspace of the settings; reads statements from a pipe too."""
    prompts.cql_prompt(load_settings())


@app.command()
def topics() -> None:
    """List Kafka's topics and how many partitions each has."""
    prompts.list_topics(load_settings())


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
    table = Table("server", "address", "version", "state", "pid", "log", box=None, header_style="bold")
    for server in servers:
        pid = str(server.pid or "")
        table.add_row(server.title, server.address, server.version(), states[server.name], pid, str(server.log_file))
    return table


def _console() -> Console:
    # A path must stay whole to be copied, also where there is no terminal to measure.
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)
