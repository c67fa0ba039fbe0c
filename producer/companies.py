"""The companies whose ticks we make: the rows of `profile`."""

from typing import Any

import mysql.connector
from mysql.connector import errorcode

from producer.market import Company
from streaming.errors import ConfigurationError, StoreUnavailable
from streaming.settings import Settings
from streaming.stores import connect_mysql


def read_companies(settings: Settings) -> list[Company]:
    """The companies of `profile`, by ticker.

    Raises ConfigurationError where the table is missing or empty and StoreUnavailable where MySQL does not answer.
    """
    where = f"table 'profile' of MySQL database {settings.mysql_database!r}"
    connection = connect_mysql(settings)
    try:
        cursor: Any = connection.cursor()
        cursor.execute("SELECT ticker, sector, shares FROM profile ORDER BY ticker")
        companies = [Company(str(ticker), str(sector), int(shares)) for ticker, sector, shares in cursor.fetchall()]
    except mysql.connector.Error as error:
        if error.errno == errorcode.ER_NO_SUCH_TABLE:
            raise ConfigurationError(f"there is no {where}: run 'dbt seed' in dbt_project") from None
        raise StoreUnavailable(f"cannot read {where}: {error.msg}") from None
    finally:
        connection.close()
    if not companies:
        raise ConfigurationError(f"there is no company in {where}: run 'dbt seed' in dbt_project")
    return companies
