"""Colours, and the Altair theme that follows the viewer's: light or dark. Nothing here knows of the page or the stores.

A colour never stands alone: sectors are named beside their bars, verdicts and directions have a sign or a shape too.
"""

from collections.abc import Sequence
from typing import Any

#: Paul Tol's "muted" scheme: nine hues that people with any of the common colour blindnesses tell apart
#: (https://personal.sron.nl/~pault/). The order keeps neighbours in the alphabet apart.
PALETTE = ("#CC6677", "#88CCEE", "#DDCC77", "#117733", "#AA4499", "#44AA99", "#999933", "#882255", "#332288")
#: The same hues; those that are hard to see on a dark page are lighter.
PALETTE_ON_DARK = ("#CC6677", "#88CCEE", "#DDCC77", "#32873F", "#C46BB5", "#44AA99", "#999933", "#AC316A", "#7B74D6")

#: A verdict's word as it is shown, its colour (of Okabe and Ito's scheme, as are the next two) and its shape.
VERDICTS = {
    "passed": ("✓ passed", "#009E73", "circle"),
    "warned": ("! warned", "#E69F00", "triangle-up"),
    "failed": ("✗ failed", "#D55E00", "cross"),
    "unchecked": ("… unchecked", "#8C8C8C", "diamond"),
}
#: Prices that rose and that fell: blue and orange, which red-green blindness leaves apart.
UP, DOWN = "#0072B2", "#C85200"
UP_ON_DARK, DOWN_ON_DARK = "#56B4E9", "#F28E4B"

_FONT = '"Source Sans", "Source Sans Pro", sans-serif'


def sector_colours(sectors: Sequence[str], *, dark: bool = False) -> dict[str, str]:
    """One colour a sector, the same in every chart as long as the profile names the same sectors.

    The palette has nine hues. More sectors take them in two further shades, which differ less: every chart names its
    sectors in text too. The twenty-eighth sector has the first hue again.
    """
    hues = PALETTE_ON_DARK if dark else PALETTE
    shades = (ink(dark=dark), paper(dark=dark))
    palette = [*hues, *(_mixed(hue, shade) for shade in shades for hue in hues)]
    return {sector: palette[place % len(palette)] for place, sector in enumerate(sorted(set(sectors)))}


def _mixed(colour: str, other: str) -> str:
    """The colour half way to another one, both as #RRGGBB."""
    pairs = ((int(colour[at : at + 2], 16), int(other[at : at + 2], 16)) for at in (1, 3, 5))
    return "#" + "".join(f"{(one + two) // 2:02X}" for one, two in pairs)


def direction_colours(*, dark: bool = False) -> tuple[str, str]:
    """The colours of a price that rose and of one that fell."""
    return (UP_ON_DARK, DOWN_ON_DARK) if dark else (UP, DOWN)


def ink(*, dark: bool = False) -> str:
    """The colour of text."""
    return "#FAFAFA" if dark else "#31333F"


def paper(*, dark: bool = False) -> str:
    """The colour of the page behind a chart, Streamlit's own."""
    return "#0E1117" if dark else "#FFFFFF"


def theme(*, dark: bool = False) -> dict[str, Any]:
    """The Altair theme, as a chart's `config`.

    `alt.theme` holds one theme for the whole process, and two viewers may differ, so each chart carries its own.
    """
    text, faint = ink(dark=dark), "#31343F" if dark else "#E6E6EB"
    quiet = "#A3A8B4" if dark else "#5F6470"
    axis = {
        "labelColor": quiet,
        "titleColor": quiet,
        "gridColor": faint,
        "domainColor": faint,
        "tickColor": faint,
        "labelFont": _FONT,
        "titleFont": _FONT,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelOverlap": True,
        "labelFlush": True,
        "labelSeparation": 10,
        "titlePadding": 8,
    }
    legend = {key: value for key, value in axis.items() if key.startswith(("label", "title")) and "Flush" not in key}
    return {
        "background": None,
        "font": _FONT,
        "view": {"stroke": None},
        "axis": axis,
        "legend": legend | {"orient": "top", "labelLimit": 190, "symbolStrokeWidth": 1.5, "titleLimit": 320},
        "text": {"color": text, "font": _FONT, "fontSize": 12},
        "range": {"category": list(PALETTE_ON_DARK if dark else PALETTE)},
    }
