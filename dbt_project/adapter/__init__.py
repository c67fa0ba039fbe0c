"""The adapter `tickledger`: dbt-mysql on a dbt of today, which can also ask for the server's certificate.

dbt-mysql 1.7 is its last release and was written for dbt 1.7. It imports names that dbt has moved since: they are put
where it looks for them before it is imported. If either moves on, tests/test_dbt_adapter.py says what moved.
"""

import os
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import dbt.adapters.factory
import mysql.connector
from dbt.adapters.base import AdapterPlugin, BaseAdapter, available
from dbt.adapters.contracts.connection import Connection, Credentials
from dbt.adapters.exceptions import FailedToConnectError
from dbt_common.clients.agate_helper import table_from_rows
from dbt_common.exceptions import DbtRuntimeError
from dotenv import find_dotenv

from tickledger.exchange import exchange_of, landed_problems, problems_of, rows_of
from tickledger.table_facts import changes_to, misfits, table_facts

NAME = "tickledger"

# Since dbt 1.8 adapters have a package of their own, dbt-adapters, and what it shares with dbt-core is in dbt-common.
#: Module that dbt-mysql imports → the module that it is today.
MOVED_MODULES = {
    "dbt.contracts.connection": "dbt.adapters.contracts.connection",
    "dbt.clients.agate_helper": "dbt_common.clients.agate_helper",
}
#: Module and name that dbt-mysql imports → the module that has the name today.
MOVED_NAMES = {
    ("dbt.events", "AdapterLogger"): "dbt.adapters.events.logging",
    ("dbt.exceptions", "DbtDatabaseError"): "dbt_common.exceptions",
    ("dbt.exceptions", "FailedToConnectError"): "dbt.adapters.exceptions",
    ("dbt.utils", "executor"): "dbt_common.utils.executor",
}
for old, new in MOVED_MODULES.items():
    sys.modules[old] = import_module(new)
for (old, name), new in MOVED_NAMES.items():
    setattr(import_module(old), name, getattr(import_module(new), name))

from dbt.adapters.mysql import MySQLAdapter, MySQLConnectionManager, MySQLCredentials  # noqa: E402


def load_credentials(type_name: str) -> type[Credentials]:
    """What dbt asks for as it reads profiles.yml. Raises DbtRuntimeError if the profile is of an older tickledger.

    Without a word dbt would run with dbt-mysql's own adapter, whose connections take any certificate.
    """
    if type_name != NAME:
        raise DbtRuntimeError(
            f"its type is '{type_name}'; it should be '{NAME}': 'make services' writes a new profiles.yml,"
            " and so does 'python -m services.set_up dbt-profile PATH'"
        )
    return dbt.adapters.factory.FACTORY.load_plugin(type_name)


dbt.adapters.factory.load_plugin = load_credentials


def refuse_env_file() -> None:
    """Raise DbtRuntimeError if dbt was started without commands/run_dbt.py and has read an env file."""
    env_file = find_dotenv(usecwd=True)
    if env_file and "dbt.cli.main" in sys.modules and os.environ.get("PYTHON_DOTENV_DISABLED") != "1":
        raise DbtRuntimeError(
            f"dbt has read {env_file}, whose settings would win over the profile's: run the dbt of 'make setup',"
            " or set PYTHON_DOTENV_DISABLED to 1"
        )


refuse_env_file()


@dataclass(init=False)
class TickledgerCredentials(MySQLCredentials):
    """What dbt-mysql has in profiles.yml and `ca_file`, the authority (PEM) whose certificate the server must show."""

    ca_file: str = ""

    @property
    def type(self) -> str:
        """The adapter's name in profiles.yml."""
        return NAME

    def _connection_keys(self) -> tuple[str, ...]:
        return (*super()._connection_keys(), "ca_file")


class TickledgerConnectionManager(MySQLConnectionManager):
    """Connects as dbt-mysql does; with a `ca_file` only to a server whose certificate is signed, valid, and its own."""

    TYPE = NAME

    @classmethod
    def open(cls, connection: Connection) -> Connection:
        """Open the connection. Raises FailedToConnectError, for a certificate too."""
        profile: Any = connection.credentials
        if connection.state == "open" or not profile.ca_file:
            return super().open(connection)
        try:
            connection.handle = mysql.connector.connect(
                host=profile.server,
                port=profile.port,
                user=profile.username,
                password=profile.password,
                charset=profile.charset,
                collation=profile.collation,
                buffered=True,
                ssl_ca=profile.ca_file,
                ssl_verify_cert=True,
                ssl_verify_identity=True,
            )
        except mysql.connector.Error as error:
            connection.handle, connection.state = None, "fail"
            raise FailedToConnectError(f"{error} (MYSQL_CA_FILE is {profile.ca_file!r})") from None
        connection.state = "open"
        return connection


class TickledgerAdapter(MySQLAdapter):
    """dbt-mysql's adapter on such connections. dbt finds its module by the class's name."""

    ConnectionManager = TickledgerConnectionManager

    @available
    def contract_changes(self, contract: str, live: str, former_checks: list[str]) -> dict[str, list[str]]:
        """What brings a live table to its contract, from what SHOW CREATE TABLE says of each."""
        return changes_to(table_facts(contract), table_facts(live), former_checks)._asdict()

    @available
    def view_misfits(self, contract: str, query: str) -> list[str]:
        """What keeps a query from a view's contract, from what SHOW CREATE TABLE says of tables made from each."""
        return misfits(table_facts(contract), table_facts(query))

    @available
    def exchange_problems(self, rows: Any) -> list[str]:
        """What is wrong with the rows of the seed `exchange`, a line each."""
        if len(rows.rows) > 1:
            return [f"holds {len(rows.rows)} rows; it should hold one, the exchange's"]
        return problems_of(rows.rows[0].dict())

    @available
    def moved_exchange(self, rows: Any, live: Any) -> list[str]:
        """Why the seed is refused if its days or its currency are others than `live`, the rows of the table."""
        return landed_problems(exchange_of(rows.rows[0].dict()), live)

    @available
    def with_clock(self, rows: Any) -> Any:
        """The rows of the table `exchange`: the seed's one row for each stretch of its clocks."""
        names, facts = [*rows.column_names, "from_at", "day_shift_seconds"], list(rows.rows[0])
        stretches = rows_of(exchange_of(rows.rows[0].dict()))
        return table_from_rows([[*facts, *one] for one in stretches], names, text_only_columns=names)

    # dbt-mysql's own takes the manifest, as in dbt 1.7; what it does for each schema fits as it is.
    get_catalog = BaseAdapter.get_catalog


Plugin = AdapterPlugin(
    adapter=TickledgerAdapter,
    credentials=TickledgerCredentials,
    include_path=str(Path(__file__).parent),
    # Its macros.
    dependencies=["mysql"],
)
