"""Checks a landed batch as a whole and writes its verdict and findings to the ledger."""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expectations.read_back import ReadBack, RolledUp, UnknownBatch
from expectations.suites import CHECKPOINT, PROJECT_FOLDER, ROW_NAMES, is_asked_for
from tickledger.counted import counted
from tickledger.errors import TickledgerError
from tickledger.ledger import utc_now
from tickledger.settings import Settings
from tickledger.stores import IDLE_SECONDS, connect_cassandra, end_if_idle, fetch_rows, mysql

if TYPE_CHECKING:
    import pandas as pd

VerdictWord = Literal["passed", "warned", "failed"]

#: Length of batch_findings.observed and .expected.
TEXT_LENGTH = 1000
#: Bad rows that a finding shows.
EXAMPLES = 3


class CheckFailedToRun(TickledgerError):
    """Great Expectations or the project's files are broken; the batch stays `unchecked`. Exit code 2."""

    exit_code = 2


@dataclass(frozen=True)
class CheckResult:
    """One row per expectation: whether it held for the batch. `expectation` is suite.name, unique in a verdict."""

    expectation: str
    severity: str
    held: bool
    observed: str
    expected: str


@dataclass(frozen=True)
class Verdict:
    """What a check found: `failed` if a critical expectation did not hold, `warned` if only warnings did not."""

    batch_id: int
    verdict: VerdictWord
    results: tuple[CheckResult, ...]

    @cached_property
    def findings(self) -> tuple[CheckResult, ...]:
        """The expectations that did not hold."""
        return tuple(result for result in self.results if not result.held)


class Checker:
    """Checks batches, one at a time, on any one thread. Creating one imports Great Expectations, which takes seconds.

    Raises ConfigurationError or StoreUnavailable if Cassandra cannot be used, CheckFailedToRun if the project's
    files cannot be read.
    """

    def __init__(self, settings: Settings, project: Path = PROJECT_FOLDER) -> None:
        self._settings = settings
        self._suites = _load_suites(project, settings.feed_rules)
        self._session = connect_cassandra(settings)
        try:
            self._read_back = ReadBack(settings, self._session)
        except TickledgerError:
            self.close()
            raise

    def check(self, batch_id: int) -> Verdict:
        """Read the batch back from both stores, judge it, write verdict and findings in one transaction.

        Checking again replaces them. Raises UnknownBatch, RolledUp, StoreUnavailable (call again), ConfigurationError
        and CheckFailedToRun; then nothing is written.
        """
        frames = self._read_back.frames(batch_id)
        results = tuple(result for suite in self._suites for result in suite.judge(frames[suite.name]))
        verdict = Verdict(batch_id, _verdict_of(results), results)
        self._write(verdict)
        return verdict

    def unchecked(self) -> list[int]:
        """The batches without a verdict, oldest first. Raises StoreUnavailable."""
        return self._batch_ids("SELECT batch_id FROM landed_batches WHERE verdict = 'unchecked' ORDER BY batch_id")

    def since(self, moment: datetime) -> list[int]:
        """The batches that landed at or after a moment (UTC) and can still be checked. Raises StoreUnavailable.

        Oldest first; those that were rolled up cannot be.
        """
        query = "SELECT batch_id FROM landed_batches WHERE landed_at >= %s AND rolled_up_at IS NULL ORDER BY batch_id"
        return self._batch_ids(query, moment)

    def newest(self) -> int | None:
        """The newest landed batch; None if the ledger is empty. Raises StoreUnavailable."""
        found = self._batch_ids("SELECT batch_id FROM landed_batches ORDER BY batch_id DESC LIMIT 1")
        return found[0] if found else None

    def close(self) -> None:
        """Close the Cassandra session."""
        self._session.cluster.shutdown()

    def _batch_ids(self, query: str, *values: Any) -> list[int]:
        with mysql(self._settings) as connection:
            return [int(batch_id) for (batch_id,) in fetch_rows(connection, query, values)]

    def _write(self, verdict: Verdict) -> None:
        with mysql(self._settings) as connection:
            end_if_idle(connection, IDLE_SECONDS)
            # The batch's row comes first: its lock makes two checks of one batch take turns.
            query = "SELECT rolled_up_at FROM landed_batches WHERE batch_id = %s FOR UPDATE"
            found = fetch_rows(connection, query, (verdict.batch_id,))
            if not found:
                raise UnknownBatch(f"the ledger has no batch {verdict.batch_id} any more")
            if found[0][0] is not None:
                # Rolled up while it was read: what was read is not enough for a verdict.
                raise RolledUp(verdict.batch_id)
            cursor = connection.cursor()
            cursor.execute(
                "UPDATE landed_batches SET verdict = %s, checked_at = %s WHERE batch_id = %s",
                (verdict.verdict, utc_now(), verdict.batch_id),
            )
            cursor.execute("DELETE FROM batch_findings WHERE batch_id = %s", (verdict.batch_id,))
            for result in verdict.findings:
                cursor.execute(
                    "INSERT INTO batch_findings (batch_id, expectation, severity, observed, expected)"
                    " VALUES (%s, %s, %s, %s, %s)",
                    (verdict.batch_id, result.expectation, result.severity, result.observed, result.expected),
                )
            connection.commit()


class _Suite:
    """One suite of the checkpoint with the asset that takes its frame."""

    def __init__(self, suite: Any, batch_definition: Any, feed_rules: Collection[str]) -> None:
        self.name = suite.name
        suite.expectations = [one for one in suite.expectations if is_asked_for(one.meta["name"], feed_rules)]
        self._suite = suite
        self._batch_definition = batch_definition

    def judge(self, frame: "pd.DataFrame") -> list[CheckResult]:
        """One result an expectation, in the suite's order. Raises CheckFailedToRun."""
        # Whether all of it holds costs half as much to learn as which rows do not.
        validation = self._validate(frame, "BOOLEAN_ONLY")
        if not validation.success:
            validation = self._validate(frame, "SUMMARY")
        return [_result(self.name, frame, one) for one in validation.results]

    def _validate(self, frame: "pd.DataFrame", result_format: str) -> Any:
        try:
            batch = self._batch_definition.get_batch({"dataframe": frame})
            # Not ValidationDefinition.run: it keeps every result and reads the suite's file again each time.
            return batch.validate(self._suite, result_format=result_format)
        except Exception as error:
            raise CheckFailedToRun(f"suite {self.name!r} cannot run: {one_line(error)}") from error


def _load_suites(project: Path, feed_rules: Collection[str]) -> list[_Suite]:
    """The suites of the checkpoint, in its order. Raises CheckFailedToRun."""
    context = open_project(project)
    try:
        definitions = context.checkpoints.get(CHECKPOINT).validation_definitions
        suites = [_Suite(one.suite, one.batch_definition, feed_rules) for one in definitions]
    except Exception as error:
        raise _unreadable(project, error) from error
    if unknown := {suite.name for suite in suites} - ROW_NAMES.keys():
        raise CheckFailedToRun(f"checkpoint {CHECKPOINT!r} names a suite that no frame is read for: {unknown}")
    return suites


def open_project(project: Path) -> Any:
    """The context of a Great Expectations project, whose import takes seconds. Raises CheckFailedToRun."""
    # Both must be set before the import: no usage statistics, no progress bars.
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    try:
        import great_expectations

        return great_expectations.get_context(mode="file", context_root_dir=str(_existing(project)))
    except CheckFailedToRun:
        raise
    except Exception as error:
        raise _unreadable(project, error) from error


def _unreadable(project: Path, error: Exception) -> CheckFailedToRun:
    return CheckFailedToRun(
        f"the Great Expectations project in {project} cannot be read: {one_line(error)};"
        " 'python -m expectations.suites' writes it again"
    )


def _existing(project: Path) -> Path:
    # Great Expectations would set up a new, empty project.
    if not (project / "great_expectations.yml").is_file():
        raise CheckFailedToRun(
            f"there is no Great Expectations project in {project}; run 'python -m expectations.suites'"
        )
    return project


def _verdict_of(results: tuple[CheckResult, ...]) -> VerdictWord:
    severities = {result.severity for result in results if not result.held}
    if not severities:
        return "passed"
    return "warned" if severities == {"warning"} else "failed"


def _result(suite: str, frame: "pd.DataFrame", validation: Any) -> CheckResult:
    config = validation.expectation_config
    name = f"{suite}.{config.meta['name']}"
    if trouble := _raised(validation.exception_info):
        raise CheckFailedToRun(f"expectation {name!r} cannot run: {trouble}")
    return CheckResult(
        expectation=name,
        severity=str(getattr(config.severity, "value", config.severity)),
        held=bool(validation.success),
        observed=_observed(suite, frame, config.kwargs, validation.result)[:TEXT_LENGTH],
        expected=(config.description or config.type)[:TEXT_LENGTH],
    )


def _raised(info: Mapping[str, Any] | None) -> str:
    """The message of what an expectation raised; empty if it ran. Its info is flat, or one entry per metric."""
    if not info:
        return ""
    entries = [info] if "raised_exception" in info else list(info.values())
    return next((one_line(one["exception_message"]) for one in entries if one.get("raised_exception")), "")


def _observed(suite: str, frame: "pd.DataFrame", kwargs: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """What was found, in words: the columns, the one row's values, or how many rows differ and the first of them."""
    if "column_set" in kwargs:
        return f"columns {', '.join(map(str, frame.columns))}"
    columns = _columns(kwargs)
    if not ROW_NAMES[suite]:
        values = [frame[column].iloc[0] for column in columns]
        if len(values) == 1 and _is_missing(values[0]):
            # Great Expectations takes a bound to hold of no value; here that is what normal life has none of.
            return f"{columns[0]} does not apply"
        return ", ".join(f"{column} = {_text(value)}" for column, value in zip(columns, values, strict=True))
    unexpected = result.get("unexpected_count", 0)
    if not unexpected:
        return f"all of {counted(len(frame), 'row')}"
    return f"differs in {unexpected:,} of {counted(len(frame), 'row')}: {_examples(suite, frame, columns, result)}"


def _examples(suite: str, frame: "pd.DataFrame", columns: list[str], result: Mapping[str, Any]) -> str:
    names = [name for name in ROW_NAMES[suite] if name not in columns]
    at = list(result.get("partial_unexpected_index_list") or [])[:EXAMPLES]
    rows = [frame.loc[index] for index in at]
    texts = [", ".join(f"{column} {_text(row[column])}" for column in (*names, *columns)) for row in rows]
    return "; ".join(texts) + ("; …" if result["unexpected_count"] > len(texts) else "")


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    if "column_list" in kwargs:
        return list(kwargs["column_list"])
    return [kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs]


def _is_missing(value: Any) -> bool:
    return value is None or value != value


def _text(value: Any) -> str:
    if _is_missing(value):
        return "missing"
    return f"{value:,.10g}" if isinstance(value, float) else str(value)


def one_line(problem: object) -> str:
    """The text of a problem on one line, at most 300 characters."""
    return " ".join(str(problem).split())[:300]
