"""Sparing Great Expectations repeated work changes no result, and leaves it as it was."""

from contextlib import nullcontext
from unittest.mock import Mock

import numpy as np
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
    suite = next(one for one in checker._load_suites(PROJECT_FOLDER, ()) if one.name == "books_by_sector")
    spared = [suite.judge(FRAME), suite.judge(FRAME.head(1))]
    monkeypatch.setattr(checker, "repeated_work_spared", nullcontext)

    assert spared == [suite.judge(FRAME), suite.judge(FRAME.head(1))]
    assert [[result.held for result in results] for results in spared] == [[False, False], [True, True]]


def test_ids_are_made_once_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from great_expectations.core.id_dict import BatchKwargs, IDDict
    from great_expectations.execution_engine import pandas_execution_engine
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    def replaced() -> tuple[object, ...]:
        kept = Expectation.configuration, ExpectationConfiguration.to_domain_obj, IDDict.to_id
        return *kept, pandas_execution_engine.HASH_THRESHOLD, pd.options.mode.copy_on_write

    counted = Mock(side_effect=IDDict.to_id)
    monkeypatch.setattr(IDDict, "to_id", lambda *given, **named: counted(*given, **named))
    before = replaced()
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

    assert replaced() == before


def test_an_expectation_and_its_configuration_are_built_once_and_a_frame_is_not_copied() -> None:
    (suite,) = (one for one in checker._load_suites(PROJECT_FOLDER, ()) if one.name == "books_by_sector")
    expectation = suite._suite.expectations[0]
    plain = expectation.configuration
    with repeated_work_spared():
        configuration = expectation.configuration
        assert expectation.configuration is configuration
        assert configuration.to_domain_obj() is configuration.to_domain_obj()
        whole = FRAME.dropna(how="all", subset=["sector"])
        assert np.shares_memory(whole["volume_in_cassandra"], FRAME["volume_in_cassandra"])
    assert configuration == plain
    assert expectation.configuration is not expectation.configuration
