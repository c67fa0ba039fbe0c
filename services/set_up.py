"""python -m services.set_up: what clients expect to find, on servers that something else started.

The steps of docker-compose.yml between its servers and its clients; `tickledger services start` does the same natively.
"""

import logging
from pathlib import Path
from typing import Annotated

import typer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from services.cassandra_roles import check_superuser, create_roles_and_tables, refuse_superusers_name
from services.environment import write_dbt_profile
from services.kafka_server import create_topic
from services.mysql_accounts import create_accounts, refuse_taken_names
from services.server import READY_SECONDS
from tickledger.command_line import run_app
from tickledger.errors import StoreUnavailable, TickledgerError
from tickledger.settings import Settings, load_settings
from tickledger.topic import REQUEST_MS

app = typer.Typer(
    help="Set up servers that run already, such as those of docker-compose.yml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def stores() -> None:
    """Create Kafka's topic, Cassandra's roles, keyspace and tables, and MySQL's accounts.

    A second run changes nothing that is right.
    """
    settings = load_settings()
    refuse_superusers_name(settings)
    refuse_taken_names(settings)
    _set_up_kafka(settings)
    print(f"Kafka at {settings.kafka_bootstrap_servers} has its topic", flush=True)
    _set_up_cassandra(settings)
    print(f"Cassandra at {','.join(settings.cassandra_hosts)} has its roles and tables", flush=True)
    # Clients come from other containers, and which addresses those have only Docker knows.
    create_accounts(settings, ("%",))
    print(f"MySQL at {settings.mysql_host} has its accounts", flush=True)


@app.command("dbt-profile")
def dbt_profile(path: Annotated[Path, typer.Argument(help="Where to write profiles.yml.")]) -> None:
    """Write dbt's profile for the settings."""
    write_dbt_profile(load_settings(), path)


def _set_up_kafka(settings: Settings) -> None:
    # kafka-python logs every refused connection; the error says it in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    servers = settings.kafka_bootstrap_servers.split(",")
    try:
        admin = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=REQUEST_MS, client_id="services")
        try:
            create_topic(admin, settings)
        finally:
            admin.close()
    except KafkaError as error:
        raise TickledgerError(f"setting up Kafka at {settings.kafka_bootstrap_servers} failed: {error}") from None


def _set_up_cassandra(settings: Settings) -> None:
    _wait_for_superuser(settings)
    create_roles_and_tables(settings)


@retry(
    retry=retry_if_exception_type(StoreUnavailable),
    stop=stop_after_delay(READY_SECONDS),
    wait=wait_fixed(1),
    reraise=True,
)
def _wait_for_superuser(settings: Settings) -> None:
    check_superuser(settings, was_set_up=False)


if __name__ == "__main__":
    run_app(app, "python -m services.set_up")
