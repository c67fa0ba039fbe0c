"""Sparing Great Expectations repeated work changes no result, and leaves it as it was."""

from contextlib import nullcontext
from unittest.mock import Mock

import pandas as pd
import pytest

from expectations import checker
from expectations.spared_work import repeated_work_spared
from expectations.suites import PROJECT_FOLDER

#: Two sectors of a day, the second with a tick and 40 shares too few in Cassandra.
FRAME = pd.DataFrame(
    {
        "date": ["2026-03-02", "2026-03-02"],
        "sector": ["Basic Materials", "Energy"],
        "ticks_in_cassandra": [3, 1],
        "ticks_in_aggregates": [3, 2],
        "volume_in_cassandra": [90, 20],
        "volume_in_aggregates": [90, 60],
    }
)


def test_results_are_those_of_great_expectations_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = next(one for one in checker._load_suites(PROJECT_FOLDER) if one.name == "books_by_sector")
    spared = [suite.judge(FRAME), suite.judge(FRAME.head(1))]
    monkeypatch.setattr(checker, "repeated_work_spared", nullcontext)

    assert spared == [suite.judge(FRAME), suite.judge(FRAME.head(1))]
    assert [[result.held for result in results] for results in spared] == [[False, False], [True, True]]


def test_ids_are_made_once_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.core.id_dict import BatchKwargs, IDDict
    from great_expectations.execution_engine import pandas_execution_engine
    from great_expectations.expectations.expectation import Expectation

    counted = Mock(side_effect=IDDict.to_id)
    monkeypatch.setattr(IDDict, "to_id", lambda *given, **named: counted(*given, **named))
    before = Expectation.configuration, IDDict.to_id, pandas_execution_engine.HASH_THRESHOLD
    kwargs = {"column": "volume", "min_value": 0, "batch_id": "one"}
    makers = (
        lambda: IDDict(kwargs).to_id(),
        lambda: IDDict(kwargs | {"min_value": 1}).to_id(),
        lambda: IDDict(kwargs).to_id(id_keys=["column", "min_value"]),
        lambda: BatchKwargs(kwargs).to_id(),
        lambda: IDDict().to_id(),
    )
    plain = [make() for make in makers]
    counted.reset_mock()
    with repeated_work_spared():
        assert [make() for make in makers * 2] == plain * 2
    # Three that read differently, and twice those that are made another way.
    assert counted.call_count == 3 + 2 * 2

    assert (Expectation.configuration, IDDict.to_id, pandas_execution_engine.HASH_THRESHOLD) == before
