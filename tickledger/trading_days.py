"""Which trading day a moment belongs to. Pure functions, no server needed."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from tickledger.tick import MS_A_DAY

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TradingDays:
    """The trading days of an exchange, as table `exchange` has them.

    From each of `starts_ms` on, a moment moved by the shift beside it has the trading day as its UTC date: the shift is
    the clock's offset from UTC, less the time of day at which the trading day begins. All are in milliseconds, moments
    since 1970-01-01 UTC; the first start is 0. A day is counted from 1970-01-01.
    """

    starts_ms: tuple[int, ...] = (0,)
    shifts_ms: tuple[int, ...] = (0,)

    def day_of(self, moment_ms: int) -> int:
        """The trading day of a moment."""
        return (moment_ms + self.shifts_ms[max(bisect_right(self.starts_ms, moment_ms) - 1, 0)]) // MS_A_DAY

    def days_of(self, moments_ms: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """The trading day of each of many moments."""
        import numpy as np

        shifts: Any = self.shifts_ms[0]
        if len(self.starts_ms) > 1:
            places = np.searchsorted(self.starts_ms, moments_ms, side="right") - 1
            shifts = np.array(self.shifts_ms)[places.clip(0)]
        days: NDArray[np.int64] = (moments_ms + shifts) // MS_A_DAY
        return days

    def begin_of(self, day: int) -> int:
        """The first millisecond of a trading day, which is where the one before it ends."""
        midnight = day * MS_A_DAY
        stretches = pairwise(chain((-(2**63),), self.starts_ms[1:], (2**63,)))
        begins = (
            (max(start, midnight - shift), end) for (start, end), shift in zip(stretches, self.shifts_ms, strict=True)
        )
        return min(begin for begin, end in begins if begin < end)

    def turns_back(self) -> int | None:
        """The first moment at which a trading day comes again, since the clock is put back over its beginning."""
        return next((start for start in self.starts_ms if self.day_of(start) < self.day_of(start - 1)), None)


#: Each UTC date is a trading day, as for an exchange in Jakarta whose day begins at 07:00.
UTC_DAYS = TradingDays()
