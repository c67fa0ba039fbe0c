"""A made-up stock market: plausible prices and volumes. Pure and seeded, so the same seed trades the same."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tickledger.exchange import PriceStep

LOT_SHARES = 100
#: A single order may not be larger on the Indonesia Stock Exchange (its rules on auto rejection).
MAX_LOTS = 50_000
#: That exchange rejects orders further than 20 to 35 % from the day's reference price, by price; we take its narrowest.
DAILY_LIMIT = 0.20
_LOWEST, _HIGHEST = math.log1p(-DAILY_LIMIT), math.log1p(DAILY_LIMIT)

#: Reference prices are spread evenly over the logarithm of this range, in multiples of the exchange's lowest price.
REFERENCE_RANGE = (2, 160)
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


class Ladder:
    """The prices that the exchange quotes: whole numbers where its steps are, else the nearest floats."""

    def __init__(self, steps: Sequence[PriceStep]) -> None:
        digits = max(-int(number.as_tuple().exponent) for one in steps for number in one)
        #: Prices are computed in units of which so many make one of the currency.
        self._units = 10 ** max(digits, 0)
        self._lowest = [int(one.lowest * self._units) for one in steps]
        self._steps = [int(one.step * self._units) for one in steps]

    def step(self, price: float) -> float:
        """The step in which a price of this height moves."""
        return self._price(self._step(price * self._units))

    def nearest(self, price: float) -> float:
        """The nearest price that the exchange quotes."""
        return self._price(self._nearest(price * self._units))

    def reference_price(self, ticker: str) -> float:
        """The price around which a ticker's walk stays: the same one in every process."""
        low, high = (math.log(times * self._lowest[0] / self._units) for times in REFERENCE_RANGE)
        return self.nearest(math.exp(Random(ticker).uniform(low, high)))

    def values(self, price: float, shares: int) -> tuple[float, float]:
        """The nearest price that the exchange quotes, and what so many shares are worth by it, exactly."""
        units = self._nearest(price * self._units)
        return self._price(units), self._price(units * shares)

    def _nearest(self, units: float) -> int:
        step = self._step(units)
        return max(round(units / step) * step, self._lowest[0])

    def _step(self, units: float) -> int:
        return self._steps[max(bisect_right(self._lowest, units) - 1, 0)]

    def _price(self, units: int) -> float:
        return units if self._units == 1 else units / self._units


class Market:
    """Trades one tick a company and round.

    The logarithm of a price walks at random (each round a normal step) and is pulled back to its reference price, an
    Ornstein-Uhlenbeck process that strays about 4 % and never more than the daily limit of 20 %. What is quoted is
    the walk's nearest price on the exchange's ladder. A company's reference price follows from its
    ticker alone, so that a restarted producer goes on in the same range; the seed decides the steps. Volumes are
    log-normal, in whole lots of 100 shares.
    """

    def __init__(self, companies: Sequence[Company], ladder: Ladder, seed: int | None = None) -> None:
        self._ladder = ladder
        self._random = Random(seed)
        self._companies: Sequence[Company] = ()
        self._walks: dict[str, float] = {}
        self.follow(companies)

    def follow(self, companies: Sequence[Company]) -> None:
        """Trade these companies from the next round on; those that are traded already go on from their price."""
        if companies is self._companies:
            return
        self._companies = companies
        self._references = {one.ticker: math.log(self._ladder.reference_price(one.ticker)) for one in self._companies}
        self._walks = self._references | {
            ticker: walk for ticker, walk in self._walks.items() if ticker in self._references
        }

    def trade(self, created_at: str, ids: Iterator[int]) -> list[dict[str, Any]]:
        """One round: a list with one tick per company, in the order and with the field names of a message.

        `volume` is in shares, `price` in the currency per share, `market_cap` in it (price times shares, exactly).
        """
        ticks = []
        for company in self._companies:
            price, market_cap = self._ladder.values(self._walk(company.ticker), company.shares)
            ticks.append(
                {
                    "id": next(ids),
                    "created_at": created_at,
                    "volume": self._next_volume(),
                    "market_cap": market_cap,
                    "ticker": company.ticker,
                    "price": price,
                    "sector": company.sector,
                }
            )
        return ticks

    def _walk(self, ticker: str) -> float:
        reference, before = self._references[ticker], self._walks[ticker]
        walk = before + PULL_BACK * (reference - before) + self._random.gauss(0, MOVE_SIGMA)
        walk = min(max(walk, reference + _LOWEST), reference + _HIGHEST)
        self._walks[ticker] = walk
        return math.exp(walk)

    def _next_volume(self) -> int:
        # Log-normal; lognormvariate() takes half as long again.
        lots = round(MEDIAN_LOTS * math.exp(self._random.gauss(0, VOLUME_SIGMA)))
        return LOT_SHARES * min(max(lots, 1), MAX_LOTS)
