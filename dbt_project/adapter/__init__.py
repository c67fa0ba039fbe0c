"""The adapter `mysql_verified`: dbt-mysql that asks for the server's certificate, which dbt-mysql 1.7 cannot."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mysql.connector
from dbt.adapters.base import AdapterPlugin
from dbt.adapters.mysql import MySQLAdapter, MySQLConnectionManager, MySQLCredentials
from dbt.contracts.connection import Connection
from dbt.exceptions import FailedToConnectError

NAME = "mysql_verified"


@dataclass(init=False)
class VerifiedCredentials(MySQLCredentials):
    """What dbt-mysql has in profiles.yml and `ca_file`, the authority (PEM) whose certificate the server must show."""

    ca_file: str = ""

    @property
    def type(self) -> str:
        """The adapter's name in profiles.yml."""
        return NAME

    def _connection_keys(self) -> tuple[str, ...]:
        return (*super()._connection_keys(), "ca_file")


class VerifiedConnectionManager(MySQLConnectionManager):
    """Connects as dbt-mysql does, but to a server with a certificate that is signed, valid, and names the host."""

    TYPE = NAME

    @classmethod
    def open(cls, connection: Connection) -> Connection:
        """Open the connection. Raises FailedToConnectError, for a certificate too."""
        if connection.state == "open":
            return connection
        profile: Any = connection.credentials
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


class VerifiedAdapter(MySQLAdapter):
    """dbt-mysql's adapter on such connections."""

    ConnectionManager = VerifiedConnectionManager


Plugin = AdapterPlugin(
    adapter=VerifiedAdapter,
    credentials=VerifiedCredentials,
    include_path=str(Path(__file__).parent),
    dependencies=["mysql"],
)
