"""Charts: plain functions from a DataFrame to an Altair chart. Nothing here knows of the page or the stores.

A chart's specification depends on the names it shows but not on the numbers, so that the page can put new numbers
into a chart that stands instead of drawing it anew.
"""

from collections.abc import Sequence

import altair as alt
import pandas as pd

#: Paul Tol's "muted" scheme: nine hues that people with any of the common colour blindnesses tell apart
#: (https://personal.sron.nl/~pault/). The order keeps neighbours in the alphabet apart.
PALETTE = ("#CC6677", "#88CCEE", "#DDCC77", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#332288")
#: The same hues, lighter where they would sink into a dark page.
PALETTE_ON_DARK = ("#CC6677", "#88CCEE", "#DDCC77", "#32873F", "#C46BB5", "#44AA99", "#999933", "#AC316A", "#7B74D6")

#: Text inside a chart, which Streamlit's theme leaves black.
INK, INK_ON_DARK = "#31333F", "#FAFAFA"

WHOLE = ",.0f"
BAR_PIXELS = 34
#: Room on the right for the figure that stands after the longest bar.
FIGURE_PIXELS = 84
PRICE_PIXELS = 150
#: Layers share one axis, and a shared axis can be sorted by a largest value but not by a sum, which "-x" would be.
_LARGEST_FIRST = alt.EncodingSortField(field="total_volume", op="max", order="descending")


def sector_colours(sectors: Sequence[str], *, dark: bool = False) -> dict[str, str]:
    """One colour a sector, the same in every chart as long as the profile names the same sectors.

    The palette has nine colours; more sectors begin it anew, and every chart names its sectors in text too.
    """
    palette = PALETTE_ON_DARK if dark else PALETTE
    return {sector: palette[place % len(palette)] for place, sector in enumerate(sorted(set(sectors)))}


def volume_chart(volumes: pd.DataFrame, colours: dict[str, str], *, dark: bool = False) -> alt.LayerChart:
    """Bars of volume by sector, largest on top. `volumes` has one row per sector: sector, total_volume (shares)."""
    base = alt.Chart(volumes).encode(
        y=alt.Y("sector:N", sort=_LARGEST_FIRST, title=None, axis=alt.Axis(labelLimit=180, domain=False, ticks=False)),
        x=alt.X(
            "total_volume:Q",
            title="Volume today (shares)",
            axis=alt.Axis(format="~s", tickCount=4, labelOverlap=True, labelFlush=True),
            scale=alt.Scale(zero=True, nice=False, range=[0, alt.ExprRef(f"width - {FIGURE_PIXELS}")]),
        ),
        tooltip=[
            alt.Tooltip("sector:N", title="Sector"),
            alt.Tooltip("total_volume:Q", title="Volume (shares)", format=WHOLE),
        ],
    )
    bars = base.mark_bar(cornerRadiusEnd=3, height={"band": 0.72}).encode(color=_by_sector(colours))
    figures = base.mark_text(
        align="left", baseline="middle", dx=6, fontSize=12, color=INK_ON_DARK if dark else INK
    ).encode(text=alt.Text("total_volume:Q", format=WHOLE))
    return (bars + figures).properties(height=BAR_PIXELS * max(len(colours), 1) + 40)


def price_chart(prices: pd.DataFrame, colour: str) -> alt.LayerChart:
    """The line of one ticker's price over time. `prices` has one row per moment: created_at (UTC), price (IDR).

    The price axis covers the prices and not zero: a stock moves by parts of a percent.
    """
    data = prices.assign(moment=prices["created_at"].dt.strftime("%H:%M:%S"))
    base = alt.Chart(data).encode(
        x=alt.X(
            "created_at:T",
            title="Time (UTC)",
            scale=alt.Scale(type="utc"),
            axis=alt.Axis(format="%H:%M:%S", tickCount=3, labelOverlap=True, labelFlush=True, grid=False),
        ),
        y=alt.Y(
            "price:Q",
            title="Price (IDR)",
            scale=alt.Scale(zero=False, nice=True, padding=4),
            axis=alt.Axis(format=",~f", tickCount=4),
        ),
    )
    line = base.mark_line(color=colour, strokeWidth=2, interpolate="step-after")
    points = base.mark_point(color=colour, filled=True, size=36, opacity=0).encode(
        tooltip=[
            alt.Tooltip("moment:N", title="Time (UTC)"),
            alt.Tooltip("price:Q", title="Price (IDR)", format=",.2~f"),
        ]
    )
    return (line + points).properties(height=PRICE_PIXELS)


def _by_sector(colours: dict[str, str]) -> alt.Color:
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color("sector:N", scale=scale, legend=None)
