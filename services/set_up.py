"""python -m services.set_up: what clients expect to find, on servers that something else started.

The steps of docker-compose.yml between its servers and its clients, and those of docs/own-servers.md; `tickledger
services start` does the same natively.
"""

from pathlib import Path
from typing import Annotated

import typer
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from services.cassandra_roles import check_superuser, create_roles_and_tables, refuse_superusers_name
from services.environment import write_dbt_profile
from services.jars import Say
from services.kafka_accounts import create_kafka_accounts
from services.kafka_topic import create_topic
from services.mysql_accounts import create_accounts, refuse_taken_names
from tickledger.command_line import run_app
from tickledger.errors import StoreUnavailable
from tickledger.settings import ADMIN, Settings, load_settings
from tickledger.topic import kafka_admin

#: A new Cassandra makes its first superuser within ten seconds.
SUPERUSER_SECONDS = 30

app = typer.Typer(
    help="Set up servers that run already, such as those of docker-compose.yml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def stores() -> None:
    """Create Kafka's topic and accounts, Cassandra's roles, keyspace and tables, and MySQL's accounts.

    A second run changes nothing that is right.
    """
    set_up_stores(load_settings(), lambda line: print(line, flush=True))


@app.command("dbt-profile")
def dbt_profile(path: Annotated[Path, typer.Argument(help="Where to write profiles.yml.")]) -> None:
    """Write dbt's profile for the settings."""
    write_dbt_profile(load_settings(), path)


def set_up_stores(settings: Settings, say: Say) -> None:
    """What `stores` does, by the admin accounts of the settings. Raises TickledgerError where a server refuses."""
    refuse_superusers_name(settings)
    refuse_taken_names(settings)
    _set_up_kafka(settings)
    say(f"Kafka at {settings.kafka_bootstrap_servers} has its topic")
    _wait_for_superuser(settings)
    create_roles_and_tables(settings)
    say(f"Cassandra at {','.join(settings.cassandra_hosts)} has its roles and tables")
    create_accounts(settings)
    say(f"MySQL at {settings.mysql_host} has its accounts")


def _set_up_kafka(settings: Settings) -> None:
    with kafka_admin(settings, settings.kafka_admin) as admin:
        create_topic(admin, settings)
        if settings.kafka_security != "PLAINTEXT":
            create_kafka_accounts(admin, settings)


@retry(
    retry=retry_if_exception_type(StoreUnavailable),
    stop=stop_after_delay(SUPERUSER_SECONDS),
    wait=wait_fixed(1),
    reraise=True,
)
def _wait_for_superuser(settings: Settings) -> None:
    check_superuser(settings, was_set_up=settings.cassandra_admin.user != ADMIN)


if __name__ == "__main__":
    run_app(app, "python -m services.set_up")
