"""Ticks as columns: told apart by company and day, and copies of them found among partitions."""

import numpy as np
import pytest

from streaming import tick_columns
from streaming.copies import Winners, meeting_tickers, winning_partitions
from streaming.landing_task import PartitionReport
from streaming.tick_columns import KeyColumns, TickColumns
from tickledger.tick import MS_A_DAY, Tick


def report(partition: int, *keys: tuple[str, int, int]) -> PartitionReport:
    """What a task says that landed ticks of these keys, all of one day."""
    one = PartitionReport(partition)
    ticks = TickColumns.of((Tick(ticker, created_ms, id_, 1, 1, 1, "Coal", 0), 0) for ticker, created_ms, id_ in keys)
    for some in ticks.by_company_and_day():
        keys_of(one).add(some)
        one.sum_up(some)
    return one


def keys_of(one: PartitionReport) -> KeyColumns:
    """The keys that a report brings."""
    assert one.keys is not None
    return one.keys


def winners(*reports: PartitionReport) -> Winners:
    """What the driver finds without a second look."""

    def look(tickers: object) -> Winners:
        raise AssertionError(f"the workers are asked for {tickers}")

    return winning_partitions(list(reports), look)


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

    fingerprints = keys_of(report(0, *near)).fingerprints()

    assert len(np.unique(fingerprints)) == len(near)


def test_a_copy_loses_to_the_one_in_a_lower_partition() -> None:
    first, other = report(0, ("A", 1, 1), ("B", 1, 1)), report(1, ("A", 1, 2))

    assert winners(first, other, report(2, ("A", 1, 2), ("B", 1, 1))) == {("A", 1, 2): 1, ("B", 1, 1): 0}
    assert winners(first, report(1, ("A", 1, 2), ("A", 2, 1))) == {}
    assert winners() == {}


def test_fingerprints_that_meet_by_chance_make_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tick_columns, "_SPREAD", np.zeros(2, np.uint64))
    reports = [report(0, ("A", 1, 1), ("A", 3, 3)), report(1, ("A", 2, 2)), report(2, ("A", 2, 2))]

    assert len({int(keys_of(one).fingerprints()[0]) for one in reports}) == 1
    assert winners(*reports) == {("A", 2, 2): 1}


def test_only_tickers_whose_times_meet_can_have_copies() -> None:
    keyed = [report(0, ("A", 1, 1), ("A", 9, 2)), report(1, ("B", 5, 1)), report(2, ("A", 10, 3), ("C", 5, 4))]
    assert meeting_tickers(keyed) == set()
    # One moment is enough, of any two of them, also where one's lies around two others'.
    assert meeting_tickers([*keyed, report(3, ("A", 10, 9), ("B", 6, 1))]) == {"A"}
    assert meeting_tickers([report(0, ("A", 0, 1), ("A", 9, 1)), report(1, ("A", 3, 1)), report(2, ("A", 2, 1))]) == {
        "A"
    }
    assert meeting_tickers(keyed[:1]) == meeting_tickers([]) == set()


def test_a_report_leaves_out_what_would_be_too_much_and_the_workers_are_asked() -> None:
    asked: list[object] = []

    def look(tickers: object) -> Winners:
        asked.append(tickers)
        return {("A", 3, 3): 0}

    few, many = report(0, ("A", 1, 1), ("A", 3, 3)), report(1, ("A", 3, 3), ("B", 1, 2), ("B", 2, 2))
    for one in (few, many):
        one.cut_to(2)
    assert (few.keys is None, many.keys is None) == (False, True)
    assert winning_partitions([few, many], look) == {("A", 3, 3): 0}
    assert winning_partitions([many, report(2, ("C", 1, 1))], look) == {}
    many.cut_to(1)
    assert winning_partitions([many, report(2, ("C", 1, 1))], look) == {("A", 3, 3): 0}
    assert asked == [{"A"}, None]
