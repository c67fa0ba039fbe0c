"""`tickledger doctor`: is this set-up fit to land? One line a fact, and below a bad one the command that fixes it."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import metadata, version
from pathlib import Path

import typer
from packaging.specifiers import SpecifierSet
from rich.console import Console
from rich.text import Text

from commands.run_dbt import misfit
from services.backup import MARKER
from services.java import java_home, java_version
from tickledger.command_line import AsJson, print_json
from tickledger.contract_drift import cassandra_differences, fix_of, mysql_differences
from tickledger.counted import counted
from tickledger.errors import PRIVATE, ConfigurationError, TickledgerError
from tickledger.here import DBT, RUN, SET_UP, SET_UP_ANYWHERE, STREAM
from tickledger.ledger import Ledger, utc_now
from tickledger.plain_text import plain
from tickledger.replicas import (
    IN_SYNC,
    KeyspaceReplicas,
    check_there_are_nodes,
    falls_short,
    keyspace_replicas,
    replicas_instead,
    replication_map,
    topic_replicas,
    wanted_replicas,
)
from tickledger.settings import NO_FILE, PROJECT_ROOT, Settings, env_file, load_settings
from tickledger.start_up import check_continuity
from tickledger.stores import cassandra, check_writable, fetch_rows, mysql
from tickledger.table_facts import MISSING, Difference
from tickledger.topic import TIME_CONFIGS, UNCLEAN_ELECTION, LagMeter, describe_topic, takes_any_time

#: Less than this on the disk of the scratch folder stops Spark soon.
FREE_BYTES = 2 * 1024**3
#: A clock further off than this from MySQL's makes fresh ticks look old, or as if from the future.
CLOCK_SECONDS = 2.0
#: Messages that wait while no batch landed for so long mean that nobody lands; a check that takes so long has died.
QUIET_SECONDS = 60.0

#: Settings that Streamlit reads for the page, where somebody made the file.
PAGE_SECRETS = PROJECT_ROOT / "dashboard" / ".streamlit" / "secrets.toml"

SERVERS = f"{SET_UP_ANYWHERE}; or correct .env"
#: Kafka moves partitions by an assignment that names brokers.
MORE_REPLICAS = "kafka-reassign-partitions; docs/clusters.md, 'More replicas for what is there'"
#: Brings a broker or a node back.
START = f"{SET_UP}, or for servers of your own start it where it runs"


class Problem(Exception):
    """A fact that is bad: what was found, and the command that fixes it."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(found)
        self.found, self.fix = found, fix


@dataclass(frozen=True)
class Fact:
    """One line: what was looked at, what was found, and (where that is bad) how to fix it."""

    what: str
    found: str
    fix: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing needs to be fixed."""
        return not self.fix


def examine(settings: Settings) -> Iterator[Fact]:
    """Look at everything, in the order in which problems are best fixed.

    What cannot be looked at because something before it is bad has no line. Changes nothing.
    """
    yield _fact("versions", _versions, "make setup")
    yield _fact("Java", lambda: f"{java_version()} in {java_home()}", "install a Java 17, or unset JAVA_HOME")
    yield _fact("settings file", lambda: _private(env_file()), "")
    if PAGE_SECRETS.exists():
        yield _fact("page's secrets", lambda: _private(PAGE_SECRETS), "")
    yield Fact("network", _network(settings))
    yield _fact("scratch folder", lambda: _scratch(settings.stream_scratch_dir), "set STREAM_SCRATCH_DIR in .env")
    yield (kafka_fact := _fact("Kafka and topic", lambda: _topic(settings), SERVERS))
    if kafka_fact.good:
        yield _fact("topic's replicas", lambda: _topic_replicas(settings), SERVERS)
    yield (cassandra_fact := _fact("Cassandra", lambda: _cassandra(settings), SERVERS))
    if cassandra_fact.good:
        yield _fact("rows' replicas", lambda: _row_replicas(settings), SERVERS)
        yield _fact("Cassandra's tables", lambda: _tables(cassandra_differences(settings)), SERVERS)
    yield (mysql_fact := _fact("MySQL", lambda: _mysql(settings), SERVERS))
    if mysql_fact.good:
        yield _fact("commits' replicas", lambda: _commits_replicas(settings), SERVERS)
    accounts_are_good = True
    if cassandra_fact.good and mysql_fact.good:
        yield (accounts := _fact("accounts", lambda: _accounts(settings), SERVERS))
        accounts_are_good = accounts.good
    if not mysql_fact.good:
        return
    yield _fact("clock", lambda: _clock(settings), "set this machine's clock, or MySQL's")
    if accounts_are_good:
        # With dbt's account.
        yield (restored := _fact("restore", lambda: _restored(settings), SERVERS))
        if not restored.good:
            return
        yield (tables := _fact("contract", lambda: _tables(mysql_differences(settings)), DBT))
        if not tables.good:
            return
    yield from _examine_ledger(settings, there_is_a_topic=kafka_fact.good)


def _examine_ledger(settings: Settings, *, there_is_a_topic: bool) -> Iterator[Fact]:
    yield _fact("profile", lambda: _profile(settings), DBT)
    yield _fact("exchange", lambda: _exchange(settings), DBT)
    if there_is_a_topic:
        yield _fact(
            "ledger",
            lambda: _ledger(settings),
            "as the line says; docs/runbook.md, 'Go on without what is lost'",
        )
        yield _fact("lag", lambda: _lag(settings), STREAM)
    yield _fact("verdicts", lambda: _verdicts(settings), f"{RUN}great_expectations checkpoint run landed_batch")


def _fact(what: str, look: Callable[[], str], fix: str) -> Fact:
    try:
        return Fact(what, look())
    except Problem as problem:
        return Fact(what, problem.found, problem.fix)
    except TickledgerError as error:
        return Fact(what, str(error), fix)


def _versions() -> str:
    python, wanted = sys.version.split()[0], metadata("tickledger")["Requires-Python"]
    if python not in SpecifierSet(wanted):
        raise Problem(f"Python {python}; it should be {wanted}", "make setup PYTHON=/path/to/python3.13")
    if found := misfit():
        raise Problem(found, "make setup")
    packages = ("pyspark", "dbt-core", "dbt-mysql", "great-expectations", "streamlit")
    return f"Python {python}, {', '.join(f'{name} {version(name)}' for name in packages)}"


def _private(file: Path) -> str:
    if not file.exists():
        return f"{file} is not there; every setting is a variable of the environment"
    if others := file.stat().st_mode & PRIVATE:
        raise Problem(f"others than its owner may {'read' if others & 0o044 else 'change'} {file}", f"chmod 600 {file}")
    return f"{file} is for its owner alone"


def _network(settings: Settings) -> str:
    files = {"Kafka": settings.kafka_ca_file, "Cassandra": settings.cassandra_ca_file, "MySQL": settings.mysql_ca_file}
    if settings.kafka_security == "PLAINTEXT":
        files["Kafka"] = NO_FILE
    plain_ones = [store for store, file in files.items() if file == NO_FILE]
    if not plain_ones:
        return "TLS with all three servers"
    return f"plain text with {', '.join(plain_ones)}: for a machine that only you use; docs/secured.md"


def _scratch(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise Problem(f"STREAM_SCRATCH_DIR is '{folder}'; it should be a folder", "set STREAM_SCRATCH_DIR in .env")
    free = shutil.disk_usage(existing).free
    if free < FREE_BYTES:
        raise Problem(
            f"{free / 1024**3:.1f} GiB free in {folder}; it should be at least {FREE_BYTES / 1024**3:.0f} GiB",
            "delete something there, or set STREAM_SCRATCH_DIR in .env",
        )
    return f"{free / 1024**3:,.0f} GiB free in {folder}"


def _topic(settings: Settings) -> str:
    # Nobody says where a partition without a leader begins and ends.
    if leaderless := topic_replicas(settings).leaderless:
        raise Problem(f"nobody leads partition {', '.join(map(str, leaderless))}", START)
    topic = describe_topic(settings)
    held = sum(topic.ends.values()) - sum(topic.begins.values())
    where = f"{settings.kafka_topic} at {settings.kafka_bootstrap_servers}"
    if takes_any_time(settings):
        wanted = ", ".join(f"{name}={value}" for name, value in TIME_CONFIGS.items())
        raise Problem(f"{where}: it takes messages whose time Spark cannot read; it should have {wanted}", SERVERS)
    return f"{where}: {counted(held, 'message')} in {counted(len(topic.ends), 'partition')}"


def _topic_replicas(settings: Settings) -> str:
    found = topic_replicas(settings)
    factor, in_sync = settings.kafka_replication_factor, settings.kafka_min_in_sync_replicas
    away = f"; behind or away: broker {', '.join(map(str, found.behind))}" if found.behind else ""
    if factor != "default" and found.fewest < factor:
        raise Problem(f"{found.fewest} of a partition; KAFKA_REPLICATION_FACTOR is {factor}", MORE_REPLICAS)
    if found.few_in_sync < found.must_be_in_sync:
        problem = f"{found.few_in_sync} of a partition in sync; Kafka takes no message with less than"
        raise Problem(f"{problem} {found.must_be_in_sync}{away}", START)
    if found.behind:
        raise Problem(f"{found.few_in_sync} of a partition in sync, of {found.fewest}{away}", START)
    if in_sync != "default" and found.must_be_in_sync != in_sync:
        raise Problem(f"{IN_SYNC} is {found.must_be_in_sync}; KAFKA_MIN_IN_SYNC_REPLICAS is {in_sync}", SERVERS)
    if found.unclean:
        raise Problem(f"{UNCLEAN_ELECTION} is true: a broker that lacks messages may lead, which loses them", SERVERS)
    return f"{found.fewest} of each partition, all in sync; {found.must_be_in_sync} must be"


def _row_replicas(settings: Settings) -> str:
    found = keyspace_replicas(settings)
    nodes = sum(map(len, found.nodes.values()))
    if found.away:
        raise Problem(
            f"{len(found.away)} of {counted(nodes, 'node')} without an answer: {', '.join(found.away)}", START
        )
    _enough_nodes(found, wanted_replicas(settings), settings)
    for keyspace, replicas in found.keyspaces.items():
        if falls_short(replicas, settings):
            instead = replicas_instead(replicas, settings)
            _enough_nodes(found, instead, settings)
            raise Problem(
                f"{_replicas_in_words(replicas)} in keyspace {keyspace};"
                f" CASSANDRA_REPLICATION is {settings.cassandra_replication}",
                f"as a superuser ALTER KEYSPACE {keyspace} WITH replication = {replication_map(instead)}, then on"
                f" each node nodetool repair --full {keyspace}",
            )
    return (
        f"{_replicas_in_words(found.keyspaces[settings.cassandra_keyspace])} of each row, {counted(nodes, 'node')} up"
    )


def _enough_nodes(found: KeyspaceReplicas, replicas: Mapping[str, int], settings: Settings) -> None:
    try:
        check_there_are_nodes(found.nodes, replicas, settings)
    except ConfigurationError as error:
        raise Problem(str(error), "start more nodes, or correct .env") from None


def _replicas_in_words(replicas: dict[str, int]) -> str:
    return ", ".join(f"{count} in {name}" if name else str(count) for name, count in replicas.items())


def _cassandra(settings: Settings) -> str:
    with cassandra(settings) as session:
        release = session.execute("SELECT release_version FROM system.local").one()[0]
    where = f"{','.join(settings.cassandra_hosts)}:{settings.cassandra_port}"
    return f"{release} at {where}, keyspace {settings.cassandra_keyspace}, as {settings.cassandra.user}"


def _accounts(settings: Settings) -> str:
    for account in (settings.dbt_mysql, settings.producer_mysql, settings.dashboard_mysql):
        with mysql(settings, account, database=""):
            pass
    with cassandra(settings, settings.dashboard_cassandra, keyspace=""):
        return "dbt, producer and dashboard log in, each with its own"


def _mysql(settings: Settings) -> str:
    # On no database: before dbt has run, the stream's account may use none.
    with mysql(settings, database="") as connection:
        number = fetch_rows(connection, "SELECT VERSION()")[0][0]
    check_writable(settings)
    where = f"{settings.mysql_host}:{settings.mysql_port}"
    return f"{number} at {where}, database {settings.mysql_database}, as {settings.mysql.user}"


def _commits_replicas(settings: Settings) -> str:
    with mysql(settings, database="") as connection:
        there = dict(fetch_rows(connection, "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%_enabled'"))
        there |= dict(fetch_rows(connection, "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%'"))
    # MariaDB's word, and MySQL's. Enabled it may be on each that could become the primary; the status says what is.
    for primary in ("master", "source"):
        if there.get(f"rpl_semi_sync_{primary}_enabled") == "ON":
            if there[f"Rpl_semi_sync_{primary}_status"] != "ON":
                raise Problem("commits wait for none: one that takes over would lack the newest", START)
            return f"commits wait for one of {there[f'Rpl_semi_sync_{primary}_clients']}"
    return "commits wait for none: not semi-synchronous"


def _clock(settings: Settings) -> str:
    with mysql(settings, database="") as connection:
        theirs: datetime = fetch_rows(connection, "SELECT UTC_TIMESTAMP(3)")[0][0]
    off = (utc_now() - theirs).total_seconds()
    if abs(off) > CLOCK_SECONDS:
        raise Problem(f"this machine is {off:+.1f} s from MySQL's clock", "set this machine's clock, or MySQL's")
    return f"{off:+.1f} s from MySQL's"


def _restored(settings: Settings) -> str:
    with mysql(settings, settings.dbt_mysql, database="") as connection:
        query = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
        if fetch_rows(connection, query, (settings.mysql_database, MARKER)):
            raise Problem("a restore has ended half-way", f"{RUN}tickledger services restore, with its backup again")
    return "none is half-way"


def _tables(found: list[Difference]) -> str:
    # A table of Cassandra may have a column more, as after a return to an older version: it stays null.
    more_of_it = [one for one in found if one.store == "Cassandra" and one.contract == MISSING and one.is_new_column]
    found = [one for one in found if one not in more_of_it]
    if more_of_it and not found:
        columns = ", ".join(f"{one.table}.{one.name}" for one in more_of_it)
        return f"every table follows its definition; {columns} is not in it and stays null"
    if found:
        first, more = found[0], f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise Problem(f"{first.table}, {first.what}: {first.live}; it should be {first.contract}{more}", fix_of(first))
    return "every table follows its definition"


def _profile(settings: Settings) -> str:
    companies = Ledger(settings).sectors()
    if not companies:
        raise Problem("no company: every tick would be a dead letter", DBT)
    sectors = counted(len(set(companies.values())), "sector")
    return f"{counted(len(companies), 'company', 'companies')} in {sectors}"


def _exchange(settings: Settings) -> str:
    exchange = Ledger(settings).exchange()
    return f"{plain(exchange.name)} ({exchange.zone.key}); a trading day lasts {exchange.day_span}"


def _ledger(settings: Settings) -> str:
    # In this order: a stream that lands meanwhile moves the ledger's end beyond what the topic's was before.
    head = Ledger(settings).head()
    check_continuity(settings, head, describe_topic(settings))
    return f"batch {head.batch_id:,}; the topic goes on where it ends" if head.batch_id else "nothing has landed yet"


def _lag(settings: Settings) -> str:
    meter = LagMeter(settings)
    lag = meter.behind(Ledger(settings).head().topic_offsets)
    meter.close()
    with mysql(settings) as connection:
        newest = fetch_rows(connection, "SELECT landed_at FROM landed_batches ORDER BY batch_id DESC LIMIT 1")
    age = (utc_now() - newest[0][0]).total_seconds() if newest else None
    said = f"{counted(lag, 'message')}; " if lag is not None else "unknown; "
    said += "no batch yet" if age is None else f"the newest batch is {age:,.0f} s old"
    if lag is None:
        raise Problem(said, SERVERS)
    if lag and (age is None or age > max(QUIET_SECONDS, 3 * settings.stream_trigger_seconds)):
        raise Problem(said, STREAM)
    return said


def _verdicts(settings: Settings) -> str:
    with mysql(settings) as connection:
        newest = fetch_rows(connection, "SELECT batch_id, verdict FROM landed_batches ORDER BY batch_id DESC LIMIT 1")
        waiting = fetch_rows(
            connection,
            "SELECT COUNT(*), MIN(batch_id) FROM landed_batches WHERE verdict = 'unchecked'"
            f" AND landed_at < UTC_TIMESTAMP(3) - INTERVAL {QUIET_SECONDS:.0f} SECOND",
        )[0]
    if not newest:
        return "no batch yet"
    if waiting[0] and settings.checks_enabled:
        raise Problem(
            f"{counted(waiting[0], 'unchecked batch', 'unchecked batches')}, the first is {waiting[1]:,}",
            f"{RUN}great_expectations checkpoint run landed_batch --unchecked",
        )
    batch_id, verdict = newest[0]
    if verdict == "failed":
        raise Problem(
            f"batch {batch_id:,}, the newest, failed its checks",
            f"{RUN}great_expectations checkpoint run landed_batch --batch {batch_id}",
        )
    return f"batch {batch_id:,}, the newest: {verdict}"


def main(as_json: AsJson = False) -> None:
    """Look at versions, Java, disk, network, Kafka, both stores, clock, contract, topic, lag, verdicts; change nothing.

    Prints one line each, good or bad, and below a bad one the command that fixes it. Exit code 0: all good. 1: not.
    """
    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    try:
        settings = load_settings()
        facts = [Fact("settings", f"{env_file()} holds")]
    except ConfigurationError as error:
        settings, facts = None, [Fact("settings", str(error), "edit .env; .env.example names every setting")]
    for fact in facts:
        _print(console, fact)
    if settings is not None:
        for fact in examine(settings):
            facts.append(fact)
            _print(console, fact)
    bad = sum(not fact.good for fact in facts)
    console.print(f"[red]{bad} to fix[/red]" if bad else "[green]fit to land[/green]")
    if as_json:
        print_json(vars(fact) | {"good": fact.good} for fact in facts)
    if bad:
        raise typer.Exit(1)


def _print(console: Console, fact: Fact) -> None:
    sign = ("good", "green") if fact.good else ("bad ", "red")
    console.print(Text.assemble(sign, f"  {fact.what:19} {plain(fact.found)}"))
    if fact.fix:
        console.print(Text.assemble(f"{'':26}", (plain(fact.fix), "bold")))
