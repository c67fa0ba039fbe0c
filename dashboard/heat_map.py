"""Where each tile of a heat map lies: a rectangle cut into tiles whose areas are shares of a whole."""

from collections.abc import Sequence

import pandas as pd

#: left, top, right, bottom in a square of side 1, from its lower left corner.
Tile = tuple[float, float, float, float]
#: How much wider than high a heat map is drawn, about.
WIDE = 1.8


def with_tiles(quotes: pd.DataFrame) -> pd.DataFrame:
    """The quotes, the largest market_cap first, with the corners of each one's tile: left, top, right, bottom."""
    data = quotes.sort_values("market_cap", ascending=False, ignore_index=True)
    corners = tiles(data.market_cap.clip(lower=0).tolist())
    return data.join(pd.DataFrame(corners, columns=["left", "top", "right", "bottom"], index=data.index))


def tiles(sizes: Sequence[float], within: Tile = (0.0, 1.0, 1.0, 0.0)) -> list[Tile]:
    """A tile for each size, in their order, whose areas are as the sizes; together they fill `within`.

    Halves the sizes (about) and the rectangle with them, across its longer side, until one is left in each.
    """
    if len(sizes) < 2:
        return [within] * len(sizes)
    whole, first, cut = sum(sizes), 0.0, 0
    while cut < len(sizes) - 1 and (cut == 0 or first + sizes[cut] / 2 < whole / 2):
        first += sizes[cut]
        cut += 1
    share = first / whole if whole else cut / len(sizes)
    left, top, right, bottom = within
    if (right - left) * WIDE >= top - bottom:
        middle = left + (right - left) * share
        parts = (left, top, middle, bottom), (middle, top, right, bottom)
    else:
        middle = top - (top - bottom) * share
        parts = (left, top, right, middle), (left, middle, right, bottom)
    return tiles(sizes[:cut], parts[0]) + tiles(sizes[cut:], parts[1])
