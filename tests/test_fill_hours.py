"""What has landed, by company and hour: filled from Cassandra, beside an oracle of pandas made of the ticks sent."""

import json
import threading
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from commands import fill_hours as module
from commands.fill_hours import FilledDay, fill_hours
from commands.rebuild import companies_by_day
from commands.reconcile import reconcile
from commands.roll_up import roll_up
from tests.support.batches import Lander, assert_books_agree, tick
from tests.support.exchanges import NEW_YORK, SEEDED
from tests.support.pipeline import Pipeline, run_tickledger
from tests.test_roll_up import age
from tickledger.exchange import exchange_of

pytestmark = pytest.mark.integration

DAY, DAY_BEFORE = date(2026, 3, 2), date(2026, 3, 1)
COMPANIES = {"TMAS.JK": "Logistics & Deliveries", "DWGL.JK": "Coal", "ALTO.JK": "Beverages"}
#: A minute's and an hour's first and last second.
ENDS = ("00", "59")
HOURS = (
    "SELECT date, ticker, starts_at, hour, ticks, volume, turnover, open, high, low, close"
    " FROM company_hours ORDER BY date, ticker, starts_at"
)
BY_HOUR = (
    "SELECT date, starts_at, hour, companies, ticks, total_volume, turnover FROM volume_by_hour"
    " ORDER BY date, starts_at"
)
BY_COMPANY = (
    "SELECT date, ticker, sector, ticks, total_volume, turnover, open, high, low, close FROM volume_by_company"
    " ORDER BY date, ticker"
)


def at(number: int, moment: str, ticker: str = "TMAS.JK", **changes: Any) -> dict[str, Any]:
    return tick(number, created_at=f"2026-03-{moment}", ticker=ticker, sector=COMPANIES[ticker], **changes)


def made_up(first_id: int, count: int, seed: int) -> list[dict[str, Any]]:
    """Ticks of three companies over two days, in no order, many of them in the same second."""
    random = np.random.default_rng(seed)
    return [
        at(
            first_id + number,
            f"{random.integers(1, 3):02} {random.integers(24):02}:{random.choice(ENDS)}:{random.choice(ENDS)}",
            str(random.choice(list(COMPANIES))),
            price=float(random.integers(1, 99_999)) / 100,
            volume=int(random.integers(0, 10**12)),
        )
        for number in range(count)
    ]


def oracle(sent: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row per valid tick that was sent, however often, with the day and hour that it is of."""
    frame = pd.DataFrame(sent).drop_duplicates(["ticker", "created_at", "id"]).query("volume >= 0")
    frame = frame.assign(price=frame.price.map(lambda price: Decimal(str(price))))
    frame = frame.assign(turnover=frame.price * frame.volume)
    moment = pd.to_datetime(frame.created_at, utc=True, format="ISO8601")
    local = moment.dt.tz_convert("Asia/Jakarta")
    frame["date"], frame["hour"] = moment.dt.date, local.dt.hour
    frame["starts_at"] = local.dt.floor("h").dt.tz_convert(None)
    return frame.assign(moment=moment).sort_values(["moment", "id"])


PRICES = {"open": ("price", "first"), "high": ("price", "max"), "low": ("price", "min"), "close": ("price", "last")}
SUMS = {"ticks": ("id", "size"), "volume": ("volume", "sum"), "turnover": ("turnover", "sum")}


def rows_of(frame: pd.DataFrame, by: list[str], **columns: Any) -> list[tuple[Any, ...]]:
    return list(frame.groupby(by).agg(**columns).reset_index().astype(object).itertuples(index=False, name=None))


def assert_filled(pipeline: Pipeline, sent: Iterable[dict[str, Any]]) -> None:
    """The table and both views say what the oracle does."""
    ticks = oracle(sent)
    assert pipeline.rows(HOURS) == rows_of(ticks, ["date", "ticker", "starts_at", "hour"], **SUMS, **PRICES)
    companies = ("ticker", "nunique")
    assert pipeline.rows(BY_HOUR) == rows_of(ticks, ["date", "starts_at", "hour"], companies=companies, **SUMS)
    assert pipeline.rows(BY_COMPANY) == rows_of(ticks, ["date", "ticker", "sector"], **SUMS, **PRICES)


@pytest.fixture
def lander(spark: SparkSession, pipeline: Pipeline) -> Lander:
    return Lander(spark, pipeline)


def test_a_day_with_late_ticks_is_what_the_oracle_says(lander: Lander) -> None:
    pipeline = lander.pipeline
    first, second, late = (
        made_up(1, 400, 1),
        made_up(1000, 300, 2),
        [
            at(2000, "02 02:00:00", price=0.1, volume=10**12),
            at(2001, "02 02:59:59.999", "DWGL.JK"),
            at(2002, "01 23:59:59.999", "ALTO.JK"),
        ],
    )
    broken = at(3000, "02 03:00:00", volume=-1)
    lander.land((0, 0, [*first[:200], broken]), (1, 0, first[150:]))
    lander.land((0, 1, second), (1, 1, first[:50]))

    filled = fill_hours(pipeline.settings)

    assert [(one.date, one.hours, one.to_batch) for one in filled] == [(DAY_BEFORE, 24, 2), (DAY, 24, 2)]
    assert_filled(pipeline, [*first, *second])

    lander.land((0, 2, late))
    # In Cassandra, and in no batch.
    lander.die((1, 2, [at(4000, "02 02:00:00.500")]))
    assert fill_hours(pipeline.settings) == [
        FilledDay(DAY_BEFORE, 1, *_of(late + first + second, "2026-03-01 23"), 3),
        FilledDay(DAY, 1, *_of(late + first + second, "2026-03-02 02"), 3),
    ], "no hour but those with late ticks"
    assert_filled(pipeline, [*first, *second, *late])
    assert fill_hours(pipeline.settings) == []
    assert_filled(pipeline, [*first, *second, *late])
    assert reconcile(pipeline.settings).days_by_hour == 2
    assert_books_agree(lander)


def _of(sent: list[dict[str, Any]], hour: str) -> tuple[int, int]:
    """Ticks and shares of an hour (UTC)."""
    ticks = oracle(sent)
    of_hour = ticks[ticks.created_at.str.startswith(hour)]
    return len(of_hour), int(of_hour.volume.sum())


def test_only_hours_that_are_over_are_filled(lander: Lander, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = lander.pipeline
    sent = [at(1, "02 02:10:00"), at(2, "02 03:10:00"), at(3, "02 04:10:00")]

    def at_clock(clock: str) -> None:
        monkeypatch.setattr(module, "utc_now", lambda: datetime.fromisoformat(f"2026-03-02 {clock}"))
        fill_hours(pipeline.settings)

    lander.land((0, 0, sent))
    at_clock("03:00:59")
    assert pipeline.rows(HOURS) == []
    assert reconcile(pipeline.settings).days_by_hour == 0
    at_clock("03:01:00")
    assert_filled(pipeline, sent[:1])
    # A stream that is behind has not landed all of the next hour.
    pipeline.execute("UPDATE landed_batches SET messages_behind = 1, last_created_at = '2026-03-02 03:59:00'")
    at_clock("04:30:00")
    assert_filled(pipeline, sent[:1])
    # What was filled is filled again meanwhile.
    lander.land((0, 1, [at(4, "02 02:20:00")]))
    pipeline.execute("UPDATE landed_batches SET messages_behind = 1 WHERE batch_id = 2")
    at_clock("04:30:00")
    assert_filled(pipeline, [sent[0], at(4, "02 02:20:00")])
    pipeline.execute("UPDATE landed_batches SET messages_behind = 0 WHERE batch_id = 2")
    at_clock("04:30:00")
    assert_filled(pipeline, [*sent[:2], at(4, "02 02:20:00")])
    assert reconcile(pipeline.settings).days_by_hour == 0
    at_clock("05:01:00")
    assert_filled(pipeline, [*sent, at(4, "02 02:20:00")])
    assert reconcile(pipeline.settings).days_by_hour == 1


def test_one_that_dies_between_two_days_is_gone_on_from(lander: Lander) -> None:
    sent = made_up(1, 100, 3)
    lander.land((0, 0, sent))

    def dies(day: FilledDay) -> None:
        raise KeyboardInterrupt(day.date)

    for day in (DAY_BEFORE, DAY):
        with pytest.raises(KeyboardInterrupt, match=str(day)):
            fill_hours(lander.pipeline.settings, None, dies)
        assert_books_agree(lander)
    assert_filled(lander.pipeline, sent)
    assert fill_hours(lander.pipeline.settings) == []


def test_what_lands_or_is_filled_meanwhile_is_counted_once(lander: Lander, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = lander.pipeline.settings
    sent, more = made_up(1, 100, 4), made_up(1000, 100, 5)
    lander.land((0, 0, sent))

    def lands(session: Any) -> Any:
        monkeypatch.setattr(module, "companies_by_day", companies_by_day)
        lander.land((0, 1, more))
        return companies_by_day(session)

    monkeypatch.setattr(module, "companies_by_day", lands)
    fill_hours(settings)
    assert_filled(lander.pipeline, sent)

    def fills(session: Any) -> Any:
        monkeypatch.setattr(module, "companies_by_day", companies_by_day)
        assert len(fill_hours(settings)) == 2
        return companies_by_day(session)

    monkeypatch.setattr(module, "companies_by_day", fills)
    assert fill_hours(settings) == [], "left to the run that was faster"
    assert_filled(lander.pipeline, sent + more)


def test_two_at_once_fill_each_day_once(lander: Lander) -> None:
    sent = made_up(1, 300, 6)
    lander.land((0, 0, sent))
    found: list[FilledDay] = []
    runs = [threading.Thread(target=lambda: found.extend(fill_hours(lander.pipeline.settings))) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(one.date for one in found) == [DAY_BEFORE, DAY]
    assert_filled(lander.pipeline, sent)


def test_a_day_that_was_rolled_up_is_filled_and_so_are_its_late_ticks(lander: Lander) -> None:
    pipeline = lander.pipeline
    sent, late = made_up(1, 100, 7), [at(1000, "02 02:30:00")]
    for number in range(3):
        lander.land((0, number, sent if number == 0 else [at(2000 + number, "02 04:00:00")]))
        age(pipeline, number + 1, 90)
    sent += [at(2001, "02 04:00:00"), at(2002, "02 04:00:00")]
    roll_up(pipeline.settings, 30)

    fill_hours(pipeline.settings)

    assert_filled(pipeline, sent)
    lander.land((0, 3, late))
    lander.land((0, 4, [at(2003, "02 04:00:00")]))
    for batch_id in (3, 4):
        age(pipeline, batch_id, 90)
    assert reconcile(pipeline.settings).days_by_hour == 2
    roll_up(pipeline.settings, 30)
    # Of the later day, the ledger no longer says what it was filled with.
    assert reconcile(pipeline.settings).days_by_hour == 1
    fill_hours(pipeline.settings)
    assert_filled(pipeline, [*sent, *late, at(2003, "02 04:00:00")])
    assert reconcile(pipeline.settings).days_by_hour == 2
    assert_books_agree(lander)


def test_reconcile_names_a_day_that_differs_and_the_command_fills_it_again(lander: Lander) -> None:
    pipeline, sent = lander.pipeline, [at(1, "02 02:10:00"), at(2, "02 03:10:00"), at(3, "01 04:10:00", "DWGL.JK")]
    lander.land((0, 0, sent))
    done = run_tickledger(pipeline, "fill-hours")
    assert (done.returncode, done.stdout) == (
        0,
        "2026-03-01: 1 hour of 1 tick and 100 shares\n"
        "2026-03-02: 2 hours of 2 ticks and 200 shares\n"
        "3 hours of 2 days filled by company, with all batches up to 1\n",
    ), done.stderr
    assert run_tickledger(pipeline, "fill-hours").stdout == "every hour that is over is filled\n"
    pipeline.execute("UPDATE company_hours SET volume = 99 WHERE hour = 9")
    pipeline.execute("DELETE FROM company_hours WHERE hour = 10")

    assert reconcile(pipeline.settings).differences == [
        "2026-03-02, by company and hour: the ledger says 2 ticks of 200 shares, company_hours 1 of 99;"
        " 'tickledger fill-hours --date 2026-03-02' sums it again"
    ]

    done = run_tickledger(pipeline, "fill-hours", "--date", "2026-03-02", "--json")
    assert json.loads(done.stdout) == [{"date": "2026-03-02", "hours": 2, "ticks": 2, "volume": 200, "to_batch": 1}]
    assert_filled(pipeline, sent)
    assert_books_agree(lander)
    assert "company_hours: 2 days with all hours filled\n" in run_tickledger(pipeline, "reconcile").stdout


def test_an_empty_ledger_has_no_hour_to_fill(pipeline: Pipeline) -> None:
    assert fill_hours(pipeline.settings) == []


def test_the_hours_are_those_of_the_exchanges_clock() -> None:
    kolkata = exchange_of(SEEDED | {"time_zone": "Asia/Kolkata"})
    noon = datetime(2026, 3, 2, 12)
    found = module._hours([(noon, noon + timedelta(minutes=31))], noon + timedelta(hours=9), noon.date(), kolkata)
    assert found == [noon - timedelta(minutes=30), noon + timedelta(minutes=30)]
    assert [module._local(start, kolkata).hour for start in found] == [17, 18]
    assert list(module._spans([*found, noon + timedelta(hours=3.5)])) == [
        (found[0], found[1] + timedelta(hours=1)),
        (noon + timedelta(hours=3.5), noon + timedelta(hours=4.5)),
    ]


def test_an_hour_that_clocks_show_twice_is_two() -> None:
    before = datetime(2026, 11, 1, 5, 30)
    found = module._hours([(before, before + timedelta(hours=2))], before + timedelta(days=1), before.date(), NEW_YORK)
    assert [(start.hour, module._local(start, NEW_YORK).hour) for start in found] == [(5, 1), (6, 1), (7, 2)]


def test_hours_follow_each_other_where_the_clock_moves_by_half_of_one() -> None:
    caracas = exchange_of(SEEDED | {"time_zone": "America/Caracas", "trading_day_begins": "00:00"})
    moved = datetime(2016, 5, 1, 6, 10)
    pairs = [(moved + timedelta(minutes=30) * n,) * 2 for n in range(6)]
    found = module._hours(pairs, moved + timedelta(days=1), moved.date(), caracas)
    assert {later - one for one, later in pairwise(found)} == {timedelta(hours=1)}
