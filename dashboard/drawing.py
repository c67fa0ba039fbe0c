"""What the parts of the page draw with: charts that stay while data change, words for times and for what is amiss."""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from itertools import count
from operator import attrgetter
from typing import Any, ParamSpec

import pandas as pd
import streamlit as st

from dashboard import looks, queries
from dashboard.charts import Chart
from dashboard.readings import Reading
from dashboard.sources import MYSQL, Sources
from tickledger.exchange import Exchange
from tickledger.plain_text import plain

Seen = ParamSpec("Seen")
#: Streamlit keeps a lock for each drawing, also of those that it has dropped.
DRAWINGS_BEFORE_ALL_ARE_DROPPED = 1_000


def drawn_once(part: Callable[Seen, None]) -> Callable[Seen, None]:
    """Draws a part of the page once for all who see the same.

    Its arguments tell what it depends on: readings, whether the page is dark, the viewer's choice. It holds no widget.
    """
    drawings = count(1)

    @st.cache_resource(max_entries=64, show_spinner=False, hash_funcs={Reading: attrgetter("number"), Exchange: hash})
    @wraps(part)
    def drawn(*seen: Seen.args, **more: Seen.kwargs) -> None:
        if next(drawings) % DRAWINGS_BEFORE_ALL_ARE_DROPPED == 0:
            drawn.clear()
        part(*seen, **more)

    return drawn


def draw(chart: Chart, key: str, *, dark: bool) -> None:
    """Show a chart whose data travel beside its specification.

    `st.altair_chart` writes a name of the data into it: each refresh would draw another chart, flicker and lose the
    zoom.
    """
    rows = chart.rows.reset_index(drop=True)
    # Streamlit lets a viewer download them as CSV, and has no way to forbid it.
    for name, column in rows.select_dtypes(["object", "string"]).items():
        rows[name] = column.map(lambda value: as_cell(value) if isinstance(value, str) else value)
    # Streamlit's page takes data of the same names, rows and bytes for the same, whatever the values: a name tells it.
    rows[f"changed {pd.util.hash_pandas_object(rows).sum()}"] = 0
    st.vega_lite_chart(rows, json.loads(chart.layers) | {"config": looks.theme(dark=dark)}, theme=None, key=key)


def let_it_paint(*, last: bool = False) -> None:
    """Give the browser of a viewer who has just come a moment to show what it has, the `last` one of its first run.

    Else it works through everything that it gets, charts below the screen too, before it shows the first figure: in a
    Chromium on a busy machine that took 3 to 14 s instead of 2 to 4.
    """
    if "painted" not in st.session_state:
        time.sleep(PAINT_SECONDS)
        if last:
            st.session_state.painted = True


#: Long enough for the figures on a slow machine (`python -m tools.picture --first-paint 1000000` measures it).
PAINT_SECONDS = 0.3


def explain(reading: Reading, store: str, *, why: bool = True) -> None:
    """Say that an answer is missing or old, if it is, and (once a store is enough) why.

    Its place on the page is kept even if there is nothing to say. Otherwise all below it would be drawn again, and be
    away for a moment, whenever a store goes or comes back.
    """
    place = st.empty()
    if reading.error is None:
        return
    since = f"Below is what it last said, at {clock(reading.read_at)}." if reading.read_at else "Nothing was read yet."
    reason = f"{as_text(reading.error)}\n\n" if why else ""
    again = " It is asked again every few seconds." if why else ""
    place.warning(f"{reason}{store} gives no answer. {since}{again}", icon=":material/cloud_off:")


def rows_of(reading: Reading, store: str, nothing: str) -> pd.DataFrame | None:
    """The rows of an answer; None if there are none, and then the page says so, or `nothing` (Markdown)."""
    explain(reading, store, why=False)
    if reading.frame is not None and reading.frame.empty:
        st.info(nothing)
        return None
    return reading.frame


def companies_of(sources: Sources) -> Reading:
    """The companies of `profile`, which every part names and colours by."""
    return sources.readings.get(
        MYSQL, "companies", lambda: queries.companies(sources.mysql), fresh_seconds=COMPANIES_SECONDS
    )


def exchange_of(sources: Sources) -> Reading:
    """The exchange: its trading days, sessions and currency."""
    return sources.readings.get(
        MYSQL, "exchange", lambda: queries.exchange(sources.mysql), fresh_seconds=COMPANIES_SECONDS
    )


def colours_of(companies: Reading, frame: pd.DataFrame, *, dark: bool) -> dict[str, str]:
    """The colours of the sectors that a frame or `profile` names."""
    sectors = [*frame.sector, *([] if companies.frame is None else companies.frame.sector)]
    return looks.sector_colours(sectors, dark=dark)


#: `profile` and `exchange` change when somebody runs `dbt seed`.
COMPANIES_SECONDS = 10


def is_dark() -> bool:
    """Whether this viewer's page is dark."""
    return st.context.theme.type == "dark"


def count_column(title: str, width: int | None = None) -> Any:
    """A column of whole numbers with thousands."""
    return st.column_config.NumberColumn(title, format="localized", width=width)


def clock(moment: datetime | None) -> str:
    """The time of day of a moment."""
    return f"{moment:%H:%M:%S} UTC" if moment else "no time yet"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(int(seconds), 0)
    units = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])


def as_text(value: object) -> str:
    """A value for a place that reads Markdown, as what a store or a stranger wrote is read nowhere else: as text.

    Words are left as they are. Anything else becomes code: only there does the page look for no link, address, emoji,
    picture, list or formula, escaped or not.
    """
    text = plain(value)
    if not text or (_WORDS.fullmatch(text) and "www." not in text.lower()):
        return text
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}"


def as_cell(value: object) -> str:
    """A value for a table: a viewer may download that as CSV, and a spreadsheet computes what begins as a formula.

    It may take another mark than the comma for what parts two cells. A signed number is none.
    """
    text = plain(value)
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", text)


#: What Markdown gives no meaning, wherever it stands; "1." would begin a list.
_WORDS = re.compile(r"[^\W\d_](?:[^\W_]|[ ,.·'&%/-])*")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?%?", re.ASCII)
_FORMULA = re.compile(r"""(^|[,;|\t])(?=[\s"]*[=+\-@\uff1d\uff0b\uff0d\uff20])""")
