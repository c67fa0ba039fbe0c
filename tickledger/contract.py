"""The dbt contract: what the YAML beside each model says about the tables that the stream fills or reads."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from tickledger.errors import ConfigurationError
from tickledger.settings import PROJECT_ROOT

DBT_FOLDER = PROJECT_ROOT / "dbt_project"
#: The tables that one landed batch writes, in the order in which it writes them.
LANDED_TABLES = ("aggregated_data", "landed_batches", "landed_offsets", "profile_versions")
CONTRACT_TABLES = (
    *LANDED_TABLES,
    *("skipped_offsets", "waiting_revisions", "batch_findings"),
    *("daily_volume", "filled_days", "company_hours", "stream_lock"),
)
#: The seeds, whose types stand in their config.
SEEDS = ("profile", "exchange")
#: How the tables compare texts: byte by byte. The dbt macro `exact_text_table_options` says the same.
TABLE_OPTIONS = "engine = InnoDB default character set utf8mb4 collate utf8mb4_bin"


@dataclass(frozen=True)
class TableContract:
    """One model, or a seed: its columns in order, each with its MySQL type, and the YAML that said so."""

    name: str
    types: dict[str, str]
    yaml: dict[str, Any]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, in the contract's order."""
        return tuple(self.types)

    @property
    def required(self) -> set[str]:
        """The columns that take no null."""
        return {
            column["name"]
            for column in self.yaml["columns"]
            if any(one["type"] in ("not_null", "primary_key") for one in column.get("constraints", ()))
        }

    def unique_keys(self) -> Iterator[tuple[str, list[str]]]:
        """`primary key` or `unique key`, and the columns of each."""
        kinds = {"primary_key": "primary key", "unique": "unique key"}
        for column in self.yaml["columns"]:
            for one in column.get("constraints", ()):
                if one["type"] in kinds:
                    yield kinds[one["type"]], [column["name"]]
        for one in self.yaml.get("constraints", ()):
            if one["type"] in kinds:
                yield kinds[one["type"]], one["columns"]

    def definition(self) -> str:
        """The body of CREATE TABLE, as dbt writes it; a test makes every table both ways and compares them."""
        columns = {column["name"]: column.get("constraints", ()) for column in self.yaml["columns"]}
        parts = [" ".join([name, self.types[name], *self._rendered(columns[name])]) for name in self.types]
        parts += self._rendered(self.yaml.get("constraints", ()))
        parts += [f"index ({', '.join(one['columns'])})" for one in self.yaml.get("config", {}).get("indexes", ())]
        return f"({', '.join(parts)}) {TABLE_OPTIONS}"

    def _rendered(self, constraints: Iterable[dict[str, Any]]) -> Iterator[str]:
        for one in constraints:
            columns = f" ({', '.join(one['columns'])})" if "columns" in one else ""
            is_check = one["type"] == "check"
            yield f"check ({one['expression']})" if is_check else one["type"].replace("_", " ") + columns


def load_contract() -> dict[str, TableContract]:
    """The contracts of :data:`CONTRACT_TABLES` and of the seeds, by table, read once a process.

    Raises ConfigurationError if one is missing or broken.
    """
    return {name: _contract(DBT_FOLDER, name) for name in (*CONTRACT_TABLES, *SEEDS)}


def model_types(model: str) -> dict[str, str]:
    """The columns of a table or view, in order, each with its MySQL type. Raises ConfigurationError as above."""
    return _contract(DBT_FOLDER, model).types


@lru_cache(maxsize=64)
def _contract(folder: Path, name: str) -> TableContract:
    described = _described(folder)
    if name not in described:
        raise ConfigurationError(f"no YAML below {folder} describes {name!r}")
    return _table_contract(*described[name])


@lru_cache(maxsize=4)
def _described(folder: Path) -> dict[str, tuple[dict[str, Any], Path]]:
    """Every model and seed as its YAML has it, with the file."""
    found: dict[str, tuple[dict[str, Any], Path]] = {}
    for path in sorted(path for part in ("models", "seeds") for path in (folder / part).rglob("*.yml")):
        try:
            document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except yaml.YAMLError as error:
            raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(document, dict):
            raise ConfigurationError(f"{path} is a {type(document).__name__}; it should be the YAML of dbt models")
        for model in (*document.get("models", ()), *document.get("seeds", ())):
            found[model.get("name")] = model, path
    return found


def _table_contract(model: dict[str, Any], path: Path) -> TableContract:
    try:
        if model["name"] in SEEDS:
            types = model["config"]["column_types"] | model["config"]["meta"].get("computed_types", {})
        else:
            types = {column["name"]: column["data_type"] for column in model["columns"]}
        if differing := types.keys() ^ {column["name"] for column in model["columns"]}:
            raise ConfigurationError(
                f"{path}: columns and column_types of {model['name']!r} differ in {', '.join(sorted(differing))}"
            )
    except (KeyError, TypeError, AttributeError) as problem:
        missing = problem.args[0] if isinstance(problem, KeyError) else "list of columns, each with name and data_type"
        raise ConfigurationError(f"{path}: {model['name']!r}, or a column of it, has no {missing}") from None
    for part in (*model["columns"], model):
        for constraint in part.get("constraints", ()):
            if constraint["type"] not in ("not_null", "check", "primary_key", "unique"):
                raise ConfigurationError(
                    f"the contract of {model['name']!r} has a constraint of type {constraint['type']!r};"
                    " it should be not_null, check, primary_key or unique"
                )
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
        for name, table in load_contract().items()
        if name in CONTRACT_TABLES
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def insert_statement(table: str, filled: Iterable[str]) -> str:
    """The INSERT of one row of a contract table, whose values are bound by column name.

    A nullable column that is not in `filled` is left null: a contract may grow before the program does. Raises
    ConfigurationError if `filled` lacks a column that takes no null, or names one that the contract lacks.
    """
    contract, names = load_contract()[table], list(filled)
    if lacking := sorted(contract.required.difference(names)):
        raise ConfigurationError(
            f"the contract of {table!r} requires {', '.join(lacking)}, which the stream does not fill;"
            " a new column must be nullable, or tickledger/ledger.py must fill it"
        )
    if unknown := sorted(set(names).difference(contract.columns)):
        raise ConfigurationError(
            f"the contract of {table!r} has no {', '.join(unknown)}, which the stream fills; put it back, or change"
            " tickledger/ledger.py"
        )
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f'%({name})s' for name in names)})"
