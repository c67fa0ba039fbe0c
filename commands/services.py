"""`tickledger services`: Kafka, Cassandra and MySQL on this machine, without Docker."""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from commands.give_up import check_reason, give_up
from services import backup, prompts
from services.instance import DEMO, SERVERS, Instance
from services.java import java_home, java_version
from services.server import Server, log_file_of, process_of
from services.spark_cluster import MASTER, names
from tickledger.command_line import AsJson, print_json
from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.ledger import Ledger
from tickledger.plain_text import plain, print_table
from tickledger.settings import load_settings
from tickledger.start_up import breaks
from tickledger.topic import describe_topic

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
Nodes = Annotated[
    int | None,
    typer.Option("--nodes", help="How many of each kind: 1, or 3 for a cluster with one replica of MySQL.", min=1),
]

Folder = Annotated[Path, typer.Argument(help="The folder of one backup.")]


@app.command()
def start(instance: Name = DEMO, secure: Secure = False, nodes: Nodes = None, as_json: AsJson = False) -> None:
    """Start the servers, and make what is missing in them.

    Waits until each answers, and creates topics, keyspace, tables, databases and accounts. What was generated
    (passwords too) is written to the env file. A second start is harmless and keeps the data.
    """
    services = Instance(instance, lambda step: print(step, file=sys.stderr if as_json else sys.stdout, flush=True))
    services.start(secure=secure, nodes=nodes)
    rows = [*_rows(services.servers(), {server.name: "ready" for server in services.servers()}), *_spark(services)]
    if as_json:
        print_json(rows)
        return
    print_table(_table(rows))
    print(f"settings: {services.env_file}")


@app.command()
def stop(instance: Name = DEMO) -> None:
    """Stop the servers that `start` started; the data stay."""
    stopped = Instance(instance).stop()
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing ran")


@app.command()
def status(instance: Name = DEMO, as_json: AsJson = False) -> None:
    """Say which servers run and answer.

    Exits 0 when all do, else 1.
    """
    services = Instance(instance)
    states = {server.name: _state(server) for server in services.servers()}
    rows = [*_rows(services.servers(), states), *_spark(services)]
    if as_json:
        print_json(rows)
    else:
        print_table(_table(rows))
    if {row["state"] for row in rows} != {"ready"}:
        raise SystemExit(1)


@app.command()
def clean(instance: Name = DEMO) -> None:
    """Delete the servers' data and logs.

    They must be stopped first; downloads and .env stay.
    """
    services = Instance(instance)
    print(f"deleted {services.folder}" if services.clean() else f"nothing to delete: {services.folder} is not there")


@app.command(name="backup")
def back_up(folder: Folder) -> None:
    """Copy what has landed, of the settings' MySQL and Cassandra, into a new folder, beside a running stream."""
    backup.back_up(load_settings(), folder, _say)
    print(f"backup: {folder}")


@app.command()
def restore(
    folder: Folder,
    reason: Annotated[
        str, typer.Option("--give-up", help="Why messages that the topic has lost are given up, as by give-up.")
    ] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Delete first what has landed there.")] = False,
) -> None:
    """Set up the settings' servers, and fill them with a backup.

    The servers must run, and no stream. Exit code 0: the stream goes on where the backup's ledger ends. 1: it does not,
    or the restore failed. 2: no row was changed, since the backup, the settings or the servers do not fit.
    """
    settings = load_settings()
    whole = backup.read_backup(folder)
    check_reason("--give-up", reason)

    def accept() -> None:
        found = give_up(settings, reason.strip()) if reason.strip() else []
        # A recreated topic has the same problem in each partition.
        for problem in dict.fromkeys(one.problem for one in found):
            print(f"given up: {settings.kafka_topic}{problem}")

    backup.restore(settings, whole, _say, replace=replace, then=accept)
    print("restored")
    lost = breaks(settings, Ledger(settings).head(), describe_topic(settings))
    for problem in dict.fromkeys(one.problem for one in lost):
        print(f"{settings.kafka_topic}{problem}")
    if lost:
        print("the stream does not start before this is given up: tickledger give-up --reason 'why' --yes")
        raise SystemExit(1)
    print("the next start of the stream goes on where the backup's ledger ends")


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
        table.add_row(plain(name), str(partitions))
    print_table(table)


def _say(line: str) -> None:
    print(line, flush=True)


def _state(server: Server) -> str:
    if not server.pid:
        return "stopped"
    try:
        server.check_serves()
    except StoreUnavailable:
        return "does not answer"
    except TickledgerError as error:
        return str(error)
    return "ready"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(*rows[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*("" if value is None else plain(value) for value in row.values()))
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


def _spark(services: Instance) -> list[dict[str, Any]]:
    """The rows of Spark's master and workers, which only a cluster has."""
    return [
        {
            "server": name.replace("-", " ").capitalize(),
            "address": services.spark_master if name == MASTER else "",
            "version": version("pyspark"),
            "state": "ready" if process_of(services.folder, name).pid else "stopped",
            "pid": process_of(services.folder, name).pid,
            "log": log_file_of(services.folder, name),
        }
        for name in (names(services.folder) if services.spark_master else ())
    ]
