"""The dbt contract: what the YAML beside each model says about the tables that the stream fills."""

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from mysql.connector.abstracts import MySQLConnectionAbstract

from streaming.errors import ConfigurationError
from streaming.settings import PROJECT_ROOT

MODELS_FOLDER = PROJECT_ROOT / "dbt_project" / "models"
#: The tables that one landed batch writes, in the order in which it writes them.
LANDED_TABLES = ("aggregated_data", "landed_batches", "landed_offsets")
CONTRACT_TABLES = (*LANDED_TABLES, "batch_findings")


@dataclass(frozen=True)
class TableContract:
    """One contract model: its columns in order, each with its MySQL type, and the YAML that said so."""

    name: str
    types: dict[str, str]
    yaml: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, in the contract's order."""
        return tuple(self.types)


@lru_cache(maxsize=1)
def load_contract(folder: Path = MODELS_FOLDER) -> dict[str, TableContract]:
    """The contracts of :data:`CONTRACT_TABLES` by table. Raises ConfigurationError where one is missing or broken."""
    found: dict[str, TableContract] = {}
    for path in sorted(folder.rglob("*.yml")):
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        for model in document.get("models", ()):
            if model["name"] in CONTRACT_TABLES:
                found[model["name"]] = _table_contract(model, path)
    for table in CONTRACT_TABLES:
        if table not in found:
            raise ConfigurationError(f"no YAML below {folder} describes the model {table!r}")
    return found


def _table_contract(model: dict[str, Any], path: Path) -> TableContract:
    try:
        types = {column["name"]: column["data_type"] for column in model["columns"]}
    except KeyError as missing:
        raise ConfigurationError(f"{path}: a column of {model['name']!r} has no {missing.args[0]}") from None
    return TableContract(model["name"], types, model)


def contract_hash() -> str:
    """SHA-256 of the contract's columns, types and constraints, which each batch keeps in the ledger."""
    facts = [
        {
            "table": table.name,
            "constraints": table.yaml.get("constraints", []),
            "columns": [
                {key: column.get(key) for key in ("name", "data_type", "constraints")}
                for column in table.yaml["columns"]
            ],
        }
        for table in load_contract().values()
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def check_live_tables(connection: MySQLConnectionAbstract) -> None:
    """Compare the live tables' columns with the contract. Raises ConfigurationError naming the first difference."""
    cursor = connection.cursor()
    cursor.execute(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position"
    )
    live: dict[str, list[str]] = {}
    for table, column in cursor.fetchall():
        live.setdefault(str(table), []).append(str(column))
    cursor.close()
    for name, contract in load_contract().items():
        if name not in live:
            raise ConfigurationError(
                f"MYSQL_DATABASE has no table {name!r}; run 'dbt seed' and 'dbt run' in dbt_project/"
            )
        if differing := set(live[name]) ^ set(contract.columns):
            raise ConfigurationError(
                f"table {name!r} and its dbt contract differ in {', '.join(sorted(differing))};"
                " run 'dbt run' in dbt_project/"
            )


def insert_statement(table: str) -> str:
    """The INSERT of one row of a contract table; its values are bound by column name."""
    columns = load_contract()[table].columns
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join(f'%({column})s' for column in columns)})"
