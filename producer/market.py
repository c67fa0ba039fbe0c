"""A made-up stock market: plausible prices and volumes. Pure and seeded, so the same seed trades the same."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

LOT_SHARES = 100
#: A single order may not be larger on the Indonesia Stock Exchange (its rules on auto rejection).
MAX_LOTS = 50_000
MIN_PRICE = 50
#: The exchange's price steps in IDR, since 2016: prices below the first number move in steps of the second.
PRICE_STEPS = ((200, 1), (500, 2), (2_000, 5), (5_000, 10))
TOP_PRICE_STEP = 25
#: The exchange rejects orders further than 20 to 35 % from the day's reference price, by price; we take its narrowest.
DAILY_LIMIT = 0.20
_LOWEST, _HIGHEST = math.log1p(-DAILY_LIMIT), math.log1p(DAILY_LIMIT)
_STEPS_BELOW, _STEPS = [below for below, _ in PRICE_STEPS], [*(step for _, step in PRICE_STEPS), TOP_PRICE_STEP]

#: Reference prices are spread evenly over the logarithm of this range, IDR.
REFERENCE_RANGE = (100, 8_000)
#: Standard deviation of one round's move of the log price, and the part of the way back to the reference it makes up.
MOVE_SIGMA = 0.004
PULL_BACK = 0.005
MEDIAN_LOTS = 500
VOLUME_SIGMA = 1.0


@dataclass(frozen=True)
class Company:
    """What a market needs of a row of `profile`: `shares` is the number of shares outstanding."""

    ticker: str
    sector: str
    shares: int


class Market:
    """Trades one tick a company and round.

    The logarithm of a price walks at random (each round a normal step) and is pulled back to its reference price, an
    Ornstein-Uhlenbeck process that strays about 4 % and never more than the daily limit of 20 %. What is quoted is
    the walk's nearest price on the Indonesia Stock Exchange's ladder. A company's reference price follows from its
    ticker alone, so that a restarted producer goes on in the same range; the seed decides the steps. Volumes are
    log-normal, in whole lots of 100 shares.
    """

    def __init__(self, companies: Sequence[Company], seed: int | None = None) -> None:
        self._random = Random(seed)
        self._companies: Sequence[Company] = ()
        self._walks: dict[str, float] = {}
        self.follow(companies)

    def follow(self, companies: Sequence[Company]) -> None:
        """Trade these companies from the next round on; those that are traded already go on from their price."""
        if companies is self._companies:
            return
        self._companies = companies
        self._references = {one.ticker: math.log(reference_price(one.ticker)) for one in self._companies}
        self._walks = self._references | {
            ticker: walk for ticker, walk in self._walks.items() if ticker in self._references
        }

    def trade(self, created_at: str, ids: Iterator[int]) -> list[dict[str, Any]]:
        """One round: a list with one tick per company, in the order and with the field names of a message.

        `volume` is in shares, `price` in IDR per share, `market_cap` in IDR (price times shares, exactly).
        """
        ticks = []
        for company in self._companies:
            price = self._next_price(company.ticker)
            ticks.append(
                {
                    "id": next(ids),
                    "created_at": created_at,
                    "volume": self._next_volume(),
                    "market_cap": price * company.shares,
                    "ticker": company.ticker,
                    "price": price,
                    "sector": company.sector,
                }
            )
        return ticks

    def _next_price(self, ticker: str) -> int:
        reference, before = self._references[ticker], self._walks[ticker]
        walk = before + PULL_BACK * (reference - before) + self._random.gauss(0, MOVE_SIGMA)
        walk = min(max(walk, reference + _LOWEST), reference + _HIGHEST)
        self._walks[ticker] = walk
        return on_ladder(math.exp(walk))

    def _next_volume(self) -> int:
        # Log-normal; lognormvariate() takes half as long again.
        lots = round(MEDIAN_LOTS * math.exp(self._random.gauss(0, VOLUME_SIGMA)))
        return LOT_SHARES * min(max(lots, 1), MAX_LOTS)


def reference_price(ticker: str) -> int:
    """The price in IDR around which a ticker's walk stays: the same one in every process."""
    low, high = map(math.log, REFERENCE_RANGE)
    return on_ladder(math.exp(Random(ticker).uniform(low, high)))


def price_step(price: float) -> int:
    """The step in IDR in which a price of this height moves on the exchange."""
    return _STEPS[bisect_right(_STEPS_BELOW, price)]


def on_ladder(price: float) -> int:
    """The nearest price in IDR that the exchange quotes."""
    step = price_step(price)
    return max(round(price / step) * step, MIN_PRICE)
