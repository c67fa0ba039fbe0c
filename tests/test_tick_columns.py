"""Ticks as columns: told apart by company and day, and copies of them found among partitions."""

import numpy as np
import pytest

from streaming import tick_columns
from streaming.land_batch import losing_keys
from streaming.landing_task import PartitionReport
from streaming.tick_columns import TickColumns
from tickledger.tick import MS_A_DAY, Tick


def report(partition: int, *keys: tuple[str, int, int]) -> PartitionReport:
    """What a task says that landed ticks of these keys, all of one day."""
    one = PartitionReport(partition)
    ticks = TickColumns.of((Tick(ticker, created_ms, id_, 1, 1, 1, "Coal", 0), 0) for ticker, created_ms, id_ in keys)
    for some in ticks.by_company_and_day():
        one.keys.add(some)
    return one


def test_ticks_are_told_apart_by_company_and_day() -> None:
    ticks = [
        (Tick(ticker, day * MS_A_DAY + number, number, 1, 1, 1, "Coal", day), number)
        for number, (ticker, day) in enumerate([("B", 1), ("A", 1), ("B", 2), ("A", 1), ("B", 1)])
    ]

    parts = TickColumns.of(ticks).by_company_and_day()

    found = [(part.ticker[0], int(part.trade_day[0]), part.id.tolist()) for part in parts]
    assert found == [("B", 1, [0, 4]), ("B", 2, [2]), ("A", 1, [1, 3])]
    assert list(TickColumns.of(()).by_company_and_day()) == []


def test_ticks_of_one_batch_have_fingerprints_of_their_own() -> None:
    near = [(ticker, created_ms, id_) for ticker in "AB" for created_ms in range(200) for id_ in range(200)]

    fingerprints = report(0, *near).keys.fingerprints()

    assert len(np.unique(fingerprints)) == len(near)


def test_a_copy_loses_to_the_one_in_a_lower_partition() -> None:
    reports = [report(0, ("A", 1, 1), ("B", 1, 1)), report(1, ("A", 1, 2)), report(2, ("A", 1, 2), ("B", 1, 1))]

    assert losing_keys(reports) == {2: {("A", 1, 2), ("B", 1, 1)}}
    assert losing_keys([reports[0], report(1, ("A", 1, 2), ("A", 2, 1))]) == {}
    assert losing_keys([]) == {}


def test_fingerprints_that_meet_by_chance_make_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_columns, "_SPREAD", np.zeros(2, np.uint64))
    reports = [report(0, ("A", 1, 1)), report(1, ("A", 2, 2)), report(2, ("A", 2, 2))]

    assert len({int(one.keys.fingerprints()[0]) for one in reports}) == 1
    assert losing_keys(reports) == {2: {("A", 2, 2)}}
