"""The companies whose ticks we make, the rows of `profile`, and the prices that the exchange quotes."""

import threading
from contextlib import suppress

from producer.market import Company, Ladder
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.exchange import read_exchange
from tickledger.settings import Settings
from tickledger.stores import fetch_rows, mysql

#: Seconds from one look at `profile` to the next: a company that is seeded trades after so long.
LOOK_SECONDS = 3


def read_companies(settings: Settings) -> list[Company]:
    """The companies of `profile`, by ticker.

    Raises ConfigurationError where the table is missing or empty and StoreUnavailable where MySQL does not answer.
    """
    with mysql(settings, settings.producer_mysql) as connection:
        rows = fetch_rows(connection, "SELECT ticker, sector, shares FROM profile ORDER BY ticker")
    if not rows:
        raise ConfigurationError(
            f"MYSQL_DATABASE is {settings.mysql_database!r}; its table 'profile' should hold a company: run 'dbt seed'"
        )
    return [Company(str(ticker), str(sector), int(shares)) for ticker, sector, shares in rows]


def read_ladder(settings: Settings) -> Ladder:
    """The prices of `exchange`. Raises ConfigurationError where it is not seeded, and as :func:`read_companies`."""
    with mysql(settings, settings.producer_mysql) as connection:
        return Ladder(read_exchange(connection).price_steps)


class CompanyWatch:
    """`companies` are those of `profile` as seen a few seconds ago, another list only where `profile` has changed.

    While MySQL is away, or `profile` is empty, they stay as they were. Ends with `stopping`. Creating one raises as
    :func:`read_companies` does.
    """

    def __init__(self, settings: Settings, stopping: threading.Event) -> None:
        self.companies = read_companies(settings)
        self._settings = settings
        self._stopping = stopping
        threading.Thread(target=self._look, name="companies", daemon=True).start()

    def _look(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            with suppress(TickledgerError):
                found = read_companies(self._settings)
                if found != self.companies:
                    self.companies = found
