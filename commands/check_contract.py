"""`tickledger check-contract`: do the live tables follow the dbt contract, and Cassandra's the tick?"""

import typer
from rich.table import Table

from tickledger.command_line import AsJson, print_json
from tickledger.contract import insert_statement, load_contract
from tickledger.contract_drift import differences
from tickledger.ledger import filled
from tickledger.plain_text import plain, print_table
from tickledger.settings import load_settings
from tickledger.table_facts import Difference
from tickledger.tick import CASSANDRA_TABLES


def _row(one: Difference) -> dict[str, str]:
    return {"store": one.store, "table": one.table, "what": one.what, "contract": one.contract, "live": one.live}


def _print(found: list[Difference]) -> None:
    table = Table(title="Live tables that differ from their contract", title_justify="left")
    for column in _row(found[0]):
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(*map(plain, _row(one).values()))
    print_table(table)


def main(as_json: AsJson = False) -> None:
    """Compare the tables of MySQL and Cassandra with the dbt contract and the tick; print what differs as a table.

    Exit code 0: nothing differs. 1: something does. 2: the contract or a store cannot be read.
    """
    found = differences(load_settings())
    if as_json:
        print_json(map(_row, found))
    elif found:
        _print(found)
    if found:
        raise typer.Exit(1)
    for table, columns in filled().items():
        insert_statement(table, columns)
    if not as_json:
        print(f"{len(load_contract())} tables of MySQL and {len(CASSANDRA_TABLES)} of Cassandra follow their contract")
