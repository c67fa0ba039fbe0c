"""The page: its layout, and the parts of it that refresh themselves. Run it with `streamlit run dashboard/app.py`.

Each part asks its own question and survives its store: while that is down the part says so, shows the last good
data with their time, and comes back by itself.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import altair as alt
import pandas as pd
import streamlit as st

from dashboard import charts, queries
from dashboard.readings import Reading, Readings
from streaming.errors import ConfigurationError
from streaming.settings import Settings, load_settings

TITLE = "tickledger"
MYSQL, CASSANDRA = "MySQL", "Cassandra"
EXCHANGE = ZoneInfo("Asia/Jakarta")
#: The session of the Jakarta exchange as the project takes it, in the exchange's own time, Monday to Friday.
SESSION_OPENS, SESSION_CLOSES = time(9), time(16)
#: A newest batch older than this many seconds means that nothing flows.
QUIET_SECONDS = 60
PRICES_SHOWN_FIRST = 6
PRICE_COLUMNS = 3
BATCHES_SHOWN = 20

VERDICTS = {
    "passed": ("✓ passed", "rgba(68, 170, 153, 0.25)"),
    "warned": ("! warned", "rgba(221, 204, 119, 0.40)"),
    "failed": ("✗ failed", "rgba(204, 102, 119, 0.40)"),
    "unchecked": ("… unchecked", "rgba(136, 136, 136, 0.20)"),
}


@dataclass(frozen=True)
class Sources:
    """What all viewers share: a reader for each store, and the newest good answers."""

    mysql: queries.MySQLReader
    cassandra: queries.CassandraReader
    readings: Readings

    def close(self) -> None:
        """Close both connections."""
        self.mysql.close()
        self.cassandra.close()


@st.cache_resource(max_entries=1, show_spinner=False, hash_funcs={Settings: hash}, on_release=Sources.close)
def sources_of(settings: Settings) -> Sources:
    """The sources, made once for the server; other settings (after a reload) make others."""
    # Somewhat less than the refresh, so that a refresh never finds the answer of the one before it.
    fresh_seconds = settings.dashboard_refresh_seconds * 0.8
    return Sources(queries.MySQLReader(settings), queries.CassandraReader(settings), Readings(fresh_seconds))


def page() -> None:
    """Draw the page once; from then on its parts refresh themselves."""
    st.set_page_config(page_title=TITLE, page_icon="📈", layout="wide")
    try:
        settings = load_settings()
    except ConfigurationError as error:
        st.title(TITLE)
        st.error(f"The settings do not hold. {_as_text(str(error))}", icon=":material/settings_alert:")
        st.caption("Mend the setting and reload this page.")
        return
    sources = sources_of(settings)
    alive = st.fragment(run_every=settings.dashboard_refresh_seconds)

    alive(draw_today)(sources)
    left, right = st.columns([5, 7], gap="medium")
    with left:
        alive(draw_volumes)(sources)
    with right:
        alive(draw_batches)(sources)
    alive(draw_prices)(sources)


def draw_today(sources: Sources) -> None:
    """The header with the trading day, and the day's figures."""
    reading = sources.readings.get(MYSQL, "today", lambda: queries.today(sources.mysql))
    figures = None if reading.frame is None else reading.frame.iloc[0]
    now = datetime.now(UTC)
    with st.container(horizontal=True, vertical_alignment="bottom", horizontal_alignment="distribute"):
        st.title(TITLE, width="content", anchor=False)
        with st.container(horizontal=True, width="content", vertical_alignment="center"):
            st.markdown(f"**{now:%A, %d %B %Y}** · trading day in UTC", width="content")
            _session_badge(now)
            _flow_badge(reading, figures, now)
    _explain(reading, MYSQL)
    if figures is not None:
        _draw_figures(figures, now)
    st.caption(f"Read at {_clock(reading.read_at)} · refreshes by itself")


def _draw_figures(figures: pd.Series, now: datetime) -> None:
    age = "none yet" if pd.isna(figures.landed_at) else _duration((now - figures.landed_at).total_seconds())
    share = f"{figures.checked / figures.batches:.0%}" if figures.batches else "none yet"
    found = f"{figures.failed:,} failed · {figures.warned:,} warned" if figures.checked else None
    volume, ticks, newest, checked = st.columns(4)
    volume.metric("Volume today (shares)", f"{figures.volume:,}", border=True, height="stretch")
    ticks.metric("Ticks landed today", f"{figures.ticks:,}", border=True, height="stretch")
    newest.metric("Age of the newest batch", age, border=True, height="stretch")
    checked.metric(
        "Batches checked today",
        share,
        help=f"{figures.checked:,} of {figures.batches:,} batches that hold ticks of today",
        delta=found,
        delta_color="red" if figures.failed else "yellow" if figures.warned else "green",
        delta_arrow="off",
        border=True,
        height="stretch",
    )


def draw_volumes(sources: Sources) -> None:
    """The bar chart of today's volume by sector."""
    st.subheader("Volume by sector", anchor=False)
    known = sources.readings.get(MYSQL, "companies", lambda: queries.companies(sources.mysql))
    reading = sources.readings.get(MYSQL, "volumes", lambda: queries.volume_by_sector(sources.mysql))
    _explain(reading, MYSQL, why=False)
    if reading.frame is None:
        return
    if reading.frame.empty:
        st.info("No tick of today has landed yet. Start the producer and the stream, or `make demo` for all of it.")
        return
    sectors = list(reading.frame.sector) + ([] if known.frame is None else list(known.frame.sector))
    _draw(charts.volume_chart(reading.frame, charts.sector_colours(sectors, dark=_dark()), dark=_dark()))


def draw_batches(sources: Sources) -> None:
    """The newest batches with their verdicts."""
    st.subheader("Newest batches", anchor=False)
    reading = sources.readings.get(MYSQL, "batches", lambda: queries.newest_batches(sources.mysql, BATCHES_SHOWN))
    _explain(reading, MYSQL, why=False)
    if reading.frame is None:
        return
    if reading.frame.empty:
        st.info("No batch has landed yet. Start the stream: `SPARK_CONF_DIR=. spark-submit streaming/stream_ticks.py`")
        return
    batches = reading.frame.assign(verdict=[_verdict_text(verdict) for verdict in reading.frame.verdict])
    st.dataframe(
        batches.style.map(_verdict_style, subset=["verdict"]),
        hide_index=True,
        height=charts.BAR_PIXELS * 9 + 40,
        column_config={
            "batch_id": _count("Batch", 60),
            "verdict": st.column_config.TextColumn("Verdict", width=95),
            "landed_at": st.column_config.DatetimeColumn("Landed (UTC)", format="HH:mm:ss", timezone="UTC", width=95),
            "messages": _count("Messages", 75),
            "ticks_landed": _count("Ticks", 60),
            "dead_letters": _count("Dead letters", 90),
            "duplicates": _count("Duplicates", 80),
            "landing_seconds": st.column_config.NumberColumn("Took (s)", format="%.2f", width=70),
        },
    )


def _count(title: str, width: int) -> Any:
    return st.column_config.NumberColumn(title, format="localized", width=width)


def draw_prices(sources: Sources) -> None:
    """A line of prices for each ticker that the viewer chose."""
    st.subheader("Prices", anchor=False)
    known = sources.readings.get(MYSQL, "companies", lambda: queries.companies(sources.mysql))
    if known.frame is None:
        _explain(known, MYSQL)
        return
    if known.frame.empty:
        st.info("The profile holds no company yet. Load it: `cd dbt_project && dbt seed`")
        return
    tickers, window = _choose_prices(list(known.frame.ticker))
    if not tickers:
        st.info("Choose at least one ticker.")
        return
    reading = sources.readings.get(
        CASSANDRA,
        ("prices", tickers, window),
        lambda: queries.prices(
            sources.cassandra, tickers, queries.WINDOWS[window], datetime.now(UTC).replace(tzinfo=None)
        ),
    )
    _explain(reading, CASSANDRA)
    if reading.frame is None:
        return
    colours = charts.sector_colours(list(known.frame.sector), dark=_dark())
    sectors = dict(zip(known.frame.ticker, known.frame.sector, strict=True))
    for start in range(0, len(tickers), PRICE_COLUMNS):
        for ticker, column in zip(tickers[start:], st.columns(PRICE_COLUMNS), strict=False):
            with column, st.container(border=True):
                prices = reading.frame[reading.frame.ticker == ticker]
                _draw_price(f"{ticker} · {sectors[ticker]}", prices, colours[sectors[ticker]], window)
    st.caption(f"Read at {_clock(reading.read_at)} · the newest tick of each {queries.WINDOWS[window].bucket} is drawn")


def _choose_prices(tickers: list[str]) -> tuple[tuple[str, ...], str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect("Tickers", tickers, default=tickers[:PRICES_SHOWN_FIRST], key="tickers", width=620)
        window = st.segmented_control("The last", list(queries.WINDOWS), default="5 min", required=True, key="window")
    return tuple(sorted(chosen)), str(window)


def _draw_price(name: str, prices: pd.DataFrame, colour: str, window: str) -> None:
    if prices.empty:
        st.metric(name, "no tick", delta=f"in the last {window}", delta_color="off", delta_arrow="off")
        return
    first, last = prices.price.iloc[0], prices.price.iloc[-1]
    st.metric(name, f"{last:,.2f} IDR", delta=f"{last / first - 1:+.2%} in {window}" if first else None)
    _draw(charts.price_chart(prices, colour))


def _draw(chart: alt.LayerChart) -> None:
    """Show a chart whose data travel beside its specification, under a name that stays.

    `st.altair_chart` names the data by their hash: each refresh would draw another chart and flicker.
    """
    rows = chart.data
    chart.data = alt.NamedData("rows")
    st.vega_lite_chart(spec=chart.to_dict() | {"datasets": {"rows": rows}})


def _explain(reading: Reading, store: str, *, why: bool = True) -> None:
    """Say that an answer is missing or old, if it is, and (once a store is enough) why."""
    if reading.error is None:
        return
    since = f"Below is what it last said, at {_clock(reading.read_at)}." if reading.read_at else "Nothing was read yet."
    reason = f"{_as_text(str(reading.error))}\n\n" if why else ""
    again = " It is asked again every few seconds." if why else ""
    st.warning(f"{reason}{store} gives no answer. {since}{again}", icon=":material/cloud_off:")


def _session_badge(now: datetime) -> None:
    local = now.astimezone(EXCHANGE)
    opened = local.weekday() < 5 and SESSION_OPENS <= local.time() < SESSION_CLOSES
    st.badge(
        "Session open" if opened else "Session closed",
        icon=":material/schedule:",
        color="green" if opened else "gray",
        help="Jakarta, Monday to Friday, 09:00 to 16:00 UTC+7",
    )


def _flow_badge(reading: Reading, figures: pd.Series | None, now: datetime) -> None:
    if reading.error is not None:
        st.badge("Store down", icon=":material/cloud_off:", color="red")
    elif figures is None or pd.isna(figures.landed_at):
        st.badge("No batch yet", icon=":material/hourglass_empty:", color="gray")
    elif (now - figures.landed_at).total_seconds() > QUIET_SECONDS:
        st.badge("Quiet", icon=":material/pause:", color="orange", help=f"No batch for {QUIET_SECONDS} s or more")
    else:
        st.badge("Live", icon=":material/sensors:", color="green")


def _verdict_text(verdict: str) -> str:
    return VERDICTS.get(verdict, (verdict, ""))[0]


def _verdict_style(text: object) -> str:
    shades = dict(VERDICTS.values())
    return f"background-color: {shades.get(str(text), 'transparent')}"


def _clock(moment: datetime | None) -> str:
    return f"{moment:%H:%M:%S} UTC" if moment else "no time yet"


def _duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    whole = max(int(seconds), 0)
    units = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    first = next((place for place, (count, _) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for count, unit in units[first : first + 2])


def _as_text(text: str) -> str:
    """Text for a place that reads Markdown: what a store or a user wrote must not become formatting."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#|~$:" else letter for letter in text)


def _dark() -> bool:
    return st.context.theme.type == "dark"


if __name__ == "__main__":
    page()
