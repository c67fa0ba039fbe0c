"""The Great Expectations project as generated files: suites, validation definitions and the checkpoint.

`raw_ticks` follows the tick (tickledger.tick), `aggregates` the dbt contract of `aggregated_data`; `books` and
`books_by_sector` compare what the two stores say of one batch. `python -m expectations.suites` writes the files.
"""

import json
import re
import uuid
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from tickledger.command_line import run_app
from tickledger.contract import load_contract
from tickledger.errors import ConfigurationError
from tickledger.settings import FEED_RULES, PROJECT_ROOT
from tickledger.tick import OWN_FIELDS, TICK_FIELDS

PROJECT_FOLDER = PROJECT_ROOT / "expectations" / "project"
CHECKPOINT = "landed_batch"
#: What the generated files say of themselves; the JSON of checkpoint and validation definitions has no place for it.
WRITTEN = "Written by `python -m expectations.suites` from tick, dbt contract and expectations/suites.py; change those."
README = f"""# Great Expectations project

All files here: {WRITTEN}
"""
#: The data source of the project: frames that are read back from the stores, one asset for each suite.
DATA_SOURCE = "stores"
BATCH_DEFINITION = "landed_batch"

CRITICAL = "critical"
WARNING = "warning"

#: The greatest difference between market_cap and price × shares that is still rounding, in units of the currency.
MARKET_CAP_TOLERANCE = 1
#: A ticker's price may change by this factor from one tick to the next within PRICE_WINDOW; exchanges stop it sooner.
MOST_PRICE_RATIO = 1.5
PRICE_WINDOW = timedelta(minutes=10)
#: How old the newest tick may be at its landing, and how far ahead of the clock, in minutes.
MOST_MINUTES_BEHIND = 120
MOST_MINUTES_AHEAD = 5
#: A batch's ticks a second may be up to this many times the usual, or 1 / this many.
MOST_TIMES_USUAL = 20
MOST_DEAD_LETTER_SHARE = 0.2
MOST_DUPLICATE_SHARE = 0.5
#: Columns that name a row of each frame in a finding.
ROW_NAMES: dict[str, tuple[str, ...]] = {
    "raw_ticks": ("ticker", "created_at", "id"),
    "aggregates": ("date", "sector"),
    "books": (),
    "books_by_sector": ("date", "sector"),
}
SUITES = tuple(ROW_NAMES)

Expectation = dict[str, Any]


def length_of(text: str) -> str:
    """The column of the frame that holds the length of a text, in characters."""
    return f"{text}_length"


def raw_ticks() -> Iterator[Expectation]:
    """Expectations of a batch's rows in `real_time_data`. One row per landed tick."""
    for field in TICK_FIELDS:
        if not field.optional:
            yield _not_null(field.name)
        if field.kind in ("whole", "decimal"):
            yield _between(field.name, field.minimum, field.maximum)
        elif field.kind == "text":
            yield _length(field.name, field.minimum, field.maximum, measured=True)
    yield _same("sector_is_the_profiles", "sector", "profile_sector", "the sector that profile gives the ticker")
    yield _same("trade_date_is_of_created_at", "trade_date", "created_on", "trade_date is created_at's trading day")
    yield _expectation(
        "market_cap_is_price_times_shares",
        "expect_column_values_to_be_between",
        f"market_cap is price × shares, give or take {MARKET_CAP_TOLERANCE}",
        severity=WARNING,
        column="market_cap_error",
        min_value=0,
        max_value=MARKET_CAP_TOLERANCE,
    )
    yield _at_most(
        "price_does_not_jump",
        "price_ratio",
        MOST_PRICE_RATIO,
        f"price at most {MOST_PRICE_RATIO} times, at least 1 / {MOST_PRICE_RATIO} of the ticker's last one,"
        f" if that is at most {PRICE_WINDOW.seconds // 60} minutes older",
    )
    yield _unique(["id"], severity=WARNING)
    yield _unique(["kafka_partition", "kafka_offset", "ticker"], name="one_tick_a_symbol_and_round", severity=WARNING)


def aggregates() -> Iterator[Expectation]:
    """Expectations of a batch's rows in `aggregated_data`, from its dbt contract. One row per date and sector."""
    contract = load_contract()["aggregated_data"]
    yield _expectation(
        "columns_are_the_contracts",
        "expect_table_columns_to_match_set",
        f"columns {', '.join(contract.columns)}",
        column_set=list(contract.columns),
        # The table may grow by a nullable column while a stream runs with the suite that it started with.
        exact_match=False,
    )
    for constraint in contract.yaml.get("constraints", ()):
        if constraint["type"] in ("primary_key", "unique"):
            yield _unique(constraint["columns"])
        else:
            yield _from_check(constraint)
    for column in contract.yaml["columns"]:
        for constraint in column.get("constraints", ()):
            yield _not_null(column["name"]) if constraint["type"] == "not_null" else _from_check(constraint)
        if text := re.fullmatch(r"(?:var)?char\((\d+)\)", column["data_type"]):
            least = 0 if column["name"] in {field.name for field in OWN_FIELDS} else 1
            yield _length(column["name"], least, int(text[1]))
    yield _at_least("last_is_not_before_first", "last_created_at", "first_created_at")
    yield _same("sector_is_a_profiles", "sector", "profile_sector", "a sector of profile")


def books() -> Iterator[Expectation]:
    """Expectations of the batch's totals in ledger, aggregates and Cassandra, and of its rhythm. One row per batch."""
    for name, left, right, description in (
        (
            "read_is_accounted_for",
            "ticks_read",
            "ticks_accounted_for",
            "read = landed + corrections + dead letters + duplicates",
        ),
        ("ticks_are_in_cassandra", "ticks_in_cassandra", "ticks_landed", "every landed tick is in real_time_data"),
        ("ticks_are_aggregated", "ticks_in_aggregates", "ticks_landed", "every landed tick is in aggregated_data"),
        ("volume_is_aggregated", "volume_in_aggregates", "volume", "aggregated_data adds up to the ledger's volume"),
        (
            "corrected_ticks_are_aggregated",
            "corrected_ticks_in_aggregates",
            "corrected_ticks",
            "aggregated_data adds up to the ticks that the ledger's corrections change",
        ),
        (
            "corrected_volume_is_aggregated",
            "corrected_volume_in_aggregates",
            "corrected_volume",
            "aggregated_data adds up to the volume that the ledger's corrections change",
        ),
        (
            "dead_letters_are_in_cassandra",
            "dead_letters_in_cassandra",
            "dead_letters",
            "every dead letter is in dead_letters",
        ),
        (
            "first_created_at_agrees",
            "first_created_at",
            "first_in_aggregates",
            "the ledger's first created_at is the aggregates'",
        ),
        (
            "last_created_at_agrees",
            "last_created_at",
            "last_in_aggregates",
            "the ledger's last created_at is the aggregates'",
        ),
    ):
        yield _same(name, left, right, description)
    yield _at_least("messages_fit_the_offsets", "offsets_covered", "messages")
    yield _at_most(
        "newest_tick_is_fresh",
        "minutes_behind",
        MOST_MINUTES_BEHIND,
        f"the newest tick at most {MOST_MINUTES_BEHIND} minutes old when it landed, unless the stream was catching up",
    )
    yield _at_most(
        "newest_tick_is_not_of_the_future",
        "minutes_ahead",
        MOST_MINUTES_AHEAD,
        f"the newest tick at most {MOST_MINUTES_AHEAD} minutes ahead of the clock when it landed",
    )
    yield _expectation(
        "size_is_usual",
        "expect_column_values_to_be_between",
        f"ticks a second at most {MOST_TIMES_USUAL} times, at least 1 / {MOST_TIMES_USUAL} of the last batches' median",
        severity=WARNING,
        column="pace_to_usual",
        min_value=1 / MOST_TIMES_USUAL,
        max_value=MOST_TIMES_USUAL,
    )
    for what, most in (("dead_letter", MOST_DEAD_LETTER_SHARE), ("duplicate", MOST_DUPLICATE_SHARE)):
        text = f"at most {most:.0%} of the ticks read are {what.replace('_', ' ')}s"
        yield _at_most(f"{what}s_are_few", f"{what}_share", most, text)
    text = "the fields that nobody described, beside the ticks, are those of the batch before"
    yield _at_most("unknown_fields_are_as_before", "fields_changed", 0, text)
    # However many elements broke, it is one dead letter, which no share tells from another.
    text = "no message with so many broken elements that it is kept whole"
    yield _at_most("no_message_is_kept_whole", "messages_kept_whole", 0, text)


def books_by_sector() -> Iterator[Expectation]:
    """Expectations of Cassandra against `aggregated_data`. One row per date and sector of either."""
    for what in ("ticks", "volume"):
        yield _same(
            f"{what}_agree" if what == "ticks" else f"{what}_agrees",
            f"{what}_in_cassandra",
            f"{what}_in_aggregates",
            f"{what} of the date and sector in real_time_data, as corrected, as in aggregated_data",
        )


def is_asked_for(expectation: str, feed_rules: Collection[str]) -> bool:
    """Whether batches are checked against the named expectation under these FEED_RULES."""
    return expectation not in FEED_RULES or expectation in feed_rules


def project_files() -> dict[Path, str]:
    """Every file of the project, by its path below the project's folder, with the text that it should have.

    Layout: that of a file-based project which Great Expectations 1.24 writes itself. Ids are derived from names, so
    that the same rules give the same files. Raises ConfigurationError if the dbt contract has a constraint that
    no expectation says.
    """
    files = {Path("great_expectations.yml"): _project_yaml(), Path("README.md"): README}
    for suite, expectations in (
        ("raw_ticks", raw_ticks()),
        ("aggregates", aggregates()),
        ("books", books()),
        ("books_by_sector", books_by_sector()),
    ):
        rules = [rule | {"id": _id(f"{suite}.{rule['meta']['name']}")} for rule in expectations]
        document: dict[str, Any] = {"name": suite, "id": _id(suite), "expectations": rules, "meta": {}}
        document["notes"] = WRITTEN
        files[Path("expectations", f"{suite}.json")] = _json(document)
        files[Path("validation_definitions", f"{suite}.json")] = _json(_validation_definition(suite))
    files[Path("checkpoints", f"{CHECKPOINT}.json")] = _json(
        {
            "name": CHECKPOINT,
            "id": _id(CHECKPOINT),
            "actions": [],
            "result_format": "SUMMARY",
            "validation_definitions": [{"name": suite, "id": _id(f"validate {suite}")} for suite in SUITES],
        }
    )
    return files


def stale_files(folder: Path = PROJECT_FOLDER) -> dict[Path, str]:
    """What regenerating would change: path below the folder → `added`, `changed` or `removed`."""
    wanted = project_files()
    present = {path.relative_to(folder) for kind in ("*.yml", "*.md", "*/*.json") for path in folder.glob(kind)}
    changes = dict.fromkeys(present - wanted.keys(), "removed")
    for path, text in wanted.items():
        if path not in present:
            changes[path] = "added"
        elif (folder / path).read_text(encoding="utf-8") != text:
            changes[path] = "changed"
    return dict(sorted(changes.items()))


def write_project(folder: Path = PROJECT_FOLDER) -> dict[Path, str]:
    """Bring the folder's files up to date and say what changed, as :func:`stale_files` does."""
    wanted, changes = project_files(), stale_files(folder)
    for path, change in changes.items():
        if change == "removed":
            (folder / path).unlink()
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(wanted[path], encoding="utf-8")
    return changes


def _expectation(name: str, kind: str, description: str, *, severity: str = CRITICAL, **kwargs: Any) -> Expectation:
    meta = {"name": name}
    return {"type": kind, "description": description, "severity": severity, "meta": meta, "kwargs": kwargs}


def _not_null(column: str) -> Expectation:
    return _expectation(
        f"{column}_is_not_null", "expect_column_values_to_not_be_null", f"{column} not null", column=column
    )


def _between(column: str, low: int, high: int | None, *, above: bool = False) -> Expectation:
    text = f"{column} {'>' if above else '>='} {low}" + (f" and <= {high}" if high is not None else "")
    bounds: dict[str, Any] = {"min_value": low, "max_value": high, "strict_min": above}
    kind = "expect_column_values_to_be_between"
    return _expectation(f"{column}_is_in_bounds", kind, text, column=column, **bounds)


def _length(column: str, low: int, high: int, *, measured: bool = False) -> Expectation:
    """Of a column whose lengths are `measured`, the frame holds them: Great Expectations would do it row by row."""
    return _expectation(
        f"{column}_has_a_fitting_length",
        f"expect_column_{'values' if measured else 'value_lengths'}_to_be_between",
        f"{column} of {low} to {high} characters",
        column=length_of(column) if measured else column,
        min_value=low,
        max_value=high,
    )


def _at_most(name: str, column: str, most: float, description: str) -> Expectation:
    """A warning if the column exceeds `most`; a missing value does not."""
    kind = "expect_column_values_to_be_between"
    return _expectation(name, kind, description, severity=WARNING, column=column, min_value=None, max_value=most)


def _unique(columns: list[str], *, name: str = "", severity: str = CRITICAL) -> Expectation:
    name, text = name or f"{'_'.join(columns)}_is_unique", f"{', '.join(columns)} unique"
    if len(columns) == 1:
        return _expectation(name, "expect_column_values_to_be_unique", text, severity=severity, column=columns[0])
    kind = "expect_compound_columns_to_be_unique"
    return _expectation(name, kind, text, severity=severity, column_list=columns)


def _same(name: str, left: str, right: str, description: str) -> Expectation:
    return _expectation(
        name, "expect_column_pair_values_to_be_equal", description, column_A=left, column_B=right, **_WHERE_EITHER
    )


def _at_least(name: str, larger: str, smaller: str) -> Expectation:
    return _expectation(
        name,
        "expect_column_pair_values_a_to_be_greater_than_b",
        f"{larger} >= {smaller}",
        column_A=larger,
        column_B=smaller,
        or_equal=True,
        **_WHERE_EITHER,
    )


#: A pair with one value missing differs; only if both are missing is there nothing to compare.
_WHERE_EITHER = {"ignore_row_if": "both_values_are_missing"}


def _from_check(constraint: dict[str, Any]) -> Expectation:
    found = re.fullmatch(r"(\w+) (>=|>) (-?\d+)", constraint.get("expression", ""))
    if constraint["type"] != "check" or not found:
        raise ConfigurationError(
            f"the dbt contract of aggregated_data has the constraint {constraint}, which no expectation says;"
            " teach expectations/suites.py"
        )
    return _between(found[1], int(found[3]), None, above=found[2] == ">")


def _validation_definition(suite: str) -> dict[str, Any]:
    return {
        "name": suite,
        "id": _id(f"validate {suite}"),
        "suite": {"name": suite, "id": _id(suite)},
        "data": {
            "datasource": {"name": DATA_SOURCE, "id": _id(DATA_SOURCE)},
            "asset": {"name": suite, "id": _id(f"asset {suite}")},
            "batch_definition": {"name": BATCH_DEFINITION, "id": _id(f"batch of {suite}")},
        },
    }


def _project_yaml() -> str:
    def files_in(folder: str) -> dict[str, Any]:
        backend = {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": f"{folder}/",
            "suppress_store_backend_id": True,
        }
        return {"store_backend": backend}

    project = {
        "config_version": 4,
        "analytics_enabled": False,
        "data_context_id": _id("project"),
        "progress_bars": {"globally": False},
        "stores": {
            "expectations_store": {"class_name": "ExpectationsStore"} | files_in("expectations"),
            "checkpoint_store": {"class_name": "CheckpointStore"} | files_in("checkpoints"),
            "validation_definition_store": {"class_name": "ValidationDefinitionStore"}
            | files_in("validation_definitions"),
            # Verdicts and findings are kept in the ledger.
            "validation_results_store": {
                "class_name": "ValidationResultsStore",
                "store_backend": {"class_name": "InMemoryStoreBackend"},
            },
        },
        "expectations_store_name": "expectations_store",
        "checkpoint_store_name": "checkpoint_store",
        "validation_results_store_name": "validation_results_store",
        "data_docs_sites": {},
        "fluent_datasources": {
            DATA_SOURCE: {
                "type": "pandas",
                "id": _id(DATA_SOURCE),
                "assets": {suite: _asset(suite) for suite in SUITES},
            }
        },
    }
    return f"# {WRITTEN}\n" + yaml.safe_dump(project, sort_keys=False)


def _asset(suite: str) -> dict[str, Any]:
    batches = {BATCH_DEFINITION: {"id": _id(f"batch of {suite}"), "partitioner": None}}
    return {
        "type": "dataframe",
        "id": _id(f"asset {suite}"),
        "batch_metadata": {},
        "batch_definitions": batches,
    }


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"tickledger/{name}"))


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _regenerate(
    check: Annotated[bool, typer.Option("--check", help="Change nothing; exit 1 if a file is stale.")] = False,
) -> None:
    """Write the Great Expectations project from the tick's definition and the dbt contract; print what changed."""
    changes = stale_files() if check else write_project()
    for path, change in changes.items():
        print(f"{change}: {(PROJECT_FOLDER / path).relative_to(PROJECT_ROOT)}")
    if not changes:
        print("nothing to change")
    if check and changes:
        raise typer.Exit(1)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(_regenerate)
    run_app(app, "python -m expectations.suites")
