"""The made-up market: pure, so no server is needed."""

import itertools
import json
import statistics

import orjson
import pytest

from producer.market import DAILY_LIMIT, LOT_SHARES, MAX_LOTS, Company, Ladder, Market
from producer.revise import LEAST_ROUNDS, MOST_ROUNDS, Reviser
from producer.tick_ids import COUNTER_BITS, tick_ids
from tests.support.exchanges import JAKARTA, NEW_YORK
from tickledger.decode import Decoder
from tickledger.tick import TICK_FIELDS, parse_created_at

COMPANIES = [
    Company("TMAS.JK", "Logistics & Deliveries", 57_050_000_000),
    Company("DWGL.JK", "Coal", 9_270_000_000),
    Company("ALTO.JK", "Beverages", 2_190_000_000),
]
LADDER = Ladder(JAKARTA.price_steps)
CREATED_AT = "2026-03-02 03:04:05.678"
#: About half an hour of a market that trades once a second.
ROUNDS = 2_000


def trade(seed: int | None, rounds: int = ROUNDS) -> list[list[dict[str, object]]]:
    market = Market(COMPANIES, LADDER, seed)
    ids = itertools.count()
    return [market.trade(CREATED_AT, ids) for _ in range(rounds)]


def test_a_round_has_one_tick_per_company_in_the_order_of_profile() -> None:
    (ticks,) = trade(1, rounds=1)
    assert [(tick["ticker"], tick["sector"]) for tick in ticks] == [(one.ticker, one.sector) for one in COMPANIES]
    assert [tick["id"] for tick in ticks] == [0, 1, 2]
    assert {tick["created_at"] for tick in ticks} == {CREATED_AT}
    assert all(set(tick) == {field.name for field in TICK_FIELDS} for tick in ticks)


def test_a_company_that_is_new_trades_from_the_next_round_and_the_others_go_on() -> None:
    before, after = Market(COMPANIES[:2], LADDER, 5), Market(COMPANIES[:2], LADDER, 5)
    ids = itertools.count()
    for market in (before, after):
        market.trade(CREATED_AT, ids)

    after.follow(COMPANIES)

    alone, together = before.trade(CREATED_AT, ids), after.trade(CREATED_AT, ids)
    assert [tick["ticker"] for tick in together] == [one.ticker for one in COMPANIES]
    assert [tick["price"] for tick in together[:2]] == [tick["price"] for tick in alone]
    after.follow(COMPANIES[2:])
    assert [tick["ticker"] for tick in after.trade(CREATED_AT, ids)] == ["ALTO.JK"]


def test_every_tick_passes_the_row_rules() -> None:
    decoder = Decoder({company.ticker: company.sector for company in COMPANIES})
    for ticks in trade(2):
        decoded = decoder.decode(orjson.dumps(ticks), parse_created_at(CREATED_AT))
        assert (len(decoded.ticks), decoded.dead) == (len(COMPANIES), [])


def test_the_same_seed_trades_the_same_and_another_one_differently() -> None:
    assert trade(7, rounds=50) == trade(7, rounds=50)
    assert trade(7, rounds=50) != trade(8, rounds=50)
    assert trade(None, rounds=50) != trade(None, rounds=50)


def test_market_cap_is_price_times_shares_exactly_after_json() -> None:
    shares = {company.ticker: company.shares for company in COMPANIES}
    for tick in json.loads(orjson.dumps(trade(3, rounds=1)[0])):
        assert tick["market_cap"] == tick["price"] * shares[tick["ticker"]]


@pytest.mark.parametrize("company", COMPANIES, ids=lambda company: company.ticker)
def test_prices_walk_on_the_ladder_within_the_daily_limit(company: Company) -> None:
    prices = [tick["price"] for ticks in trade(4) for tick in ticks if tick["ticker"] == company.ticker]
    reference = LADDER.reference_price(company.ticker)
    for before, price in itertools.pairwise(prices):
        assert isinstance(before, int)
        assert isinstance(price, int)
        assert price % LADDER.step(price) == 0
        # Half a step more, as the walk's price is rounded to the ladder.
        assert abs(price - reference) <= DAILY_LIMIT * reference + LADDER.step(price)
        # Six standard deviations of a round's move, and the rounding of both ends.
        assert abs(price - before) <= 0.03 * before + 2 * LADDER.step(max(before, price))
    assert len(set(prices)) > 5, "the price should move"


def test_the_walk_stays_around_the_reference_price() -> None:
    prices = [float(str(ticks[0]["price"])) for ticks in trade(5, rounds=10_000)]
    assert statistics.mean(prices) == pytest.approx(LADDER.reference_price(COMPANIES[0].ticker), rel=0.03)


def test_the_reference_price_follows_from_the_ticker_alone() -> None:
    # Written down, because it must be the same in every process and release.
    assert [LADDER.reference_price(company.ticker) for company in COMPANIES] == [400, 1_085, 199]


def test_volumes_are_skewed_whole_lots() -> None:
    volumes = [int(str(tick["volume"])) for ticks in trade(6) for tick in ticks]
    assert all(volume % LOT_SHARES == 0 for volume in volumes)
    assert LOT_SHARES <= min(volumes) < max(volumes) <= LOT_SHARES * MAX_LOTS
    # A log-normal's mean is exp(sigma**2 / 2) = 1.65 times its median.
    assert statistics.mean(volumes) / statistics.median(volumes) == pytest.approx(1.65, rel=0.15)


@pytest.mark.parametrize(
    ("price", "quoted"),
    [
        (12, 50),
        (199.4, 199),
        (201.2, 202),
        (498.9, 498),
        (1_998, 2_000),
        (2_004, 2_000),
        (5_013, 5_025),
        (5_012, 5_000),
    ],
)
def test_prices_are_rounded_to_the_exchanges_steps(price: float, quoted: int) -> None:
    assert LADDER.nearest(price) == quoted


def test_prices_in_cents_are_on_the_ladder_and_worth_what_they_say_after_json() -> None:
    market, ids = Market(COMPANIES, Ladder(NEW_YORK.price_steps), 4), itertools.count()
    ticks = [tick for _ in range(200) for tick in json.loads(orjson.dumps(market.trade(CREATED_AT, ids)))]
    shares = {company.ticker: company.shares for company in COMPANIES}
    cents = {tick["id"]: round(tick["price"] * 100) for tick in ticks}
    assert {tick["price"] for tick in ticks} == {number / 100 for number in cents.values()}
    assert all(tick["market_cap"] == cents[tick["id"]] * shares[tick["ticker"]] / 100 for tick in ticks)
    assert min(cents.values()) > 100
    assert any(number % 100 for number in cents.values())


def test_ids_are_positive_bigints_unique_across_producers() -> None:
    first, second = (list(itertools.islice(tick_ids(), 1_000)) for _ in range(2))
    assert len(set(first) | set(second)) == 2_000
    assert all(0 <= number < 2**63 for number in first + second)
    assert first == list(range(first[0], first[0] + 1_000))
    assert first[0] % 2**COUNTER_BITS == 0


def test_ids_take_another_prefix_when_the_counter_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.tick_ids.COUNTER_BITS", 3)
    numbers = list(itertools.islice(tick_ids(), 24))
    assert len(set(numbers)) == 24
    assert len({number >> 3 for number in numbers}) == 3


def test_a_share_of_the_ticks_is_revised_some_rounds_later_and_keeps_the_row_rules() -> None:
    decoder = Decoder({company.ticker: company.sector for company in COMPANIES})
    reviser = Reviser(0.2, seed=3)
    round_of: dict[int, int] = {}
    kinds: list[str] = []
    for number, ticks in enumerate(trade(3)):
        message = reviser.revise(ticks, "2026-03-02 03:05:00.000")
        decoded = decoder.decode(orjson.dumps(message), parse_created_at("2026-03-02 03:05:00"))
        assert (message[: len(ticks)], len(decoded.ticks), decoded.dead) == (ticks, len(ticks), [])
        round_of |= {tick.id: number for _, tick in decoded.ticks}
        for _, one in decoded.revisions:
            assert LEAST_ROUNDS <= number - round_of[one.id] <= MOST_ROUNDS
            kinds.append(one.kind)
    assert 0.17 < len(kinds) / len(round_of) < 0.23
    assert 0.2 < kinds.count("cancellation") / len(kinds) < 0.3


def test_the_same_seed_trades_the_same_with_corrections() -> None:
    reviser = Reviser(1, seed=1)
    revised = [reviser.revise(ticks, CREATED_AT) for ticks in trade(1, rounds=50)]
    assert [message[: len(COMPANIES)] for message in revised] == trade(1, rounds=50)
    assert sum(map(len, revised)) > 50 * len(COMPANIES)
