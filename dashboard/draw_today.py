"""The part of the page for the trading day: its state, its figures, its volume by sector."""

from datetime import UTC, date, datetime
from typing import Any, Literal

import pandas as pd
import streamlit as st

from dashboard import charts, queries
from dashboard.drawing import (
    as_cell,
    as_text,
    clock,
    colours_of,
    companies_of,
    count_column,
    draw,
    drawn_once,
    duration,
    exchange_of,
    explain,
    is_dark,
    rows_of,
)
from dashboard.readings import Reading
from dashboard.sources import CASSANDRA, KAFKA, MYSQL, Sources
from tickledger.counted import counted
from tickledger.exchange import Exchange
from tickledger.here import ALL

#: A newest batch older than this many seconds means that nothing flows.
QUIET_SECONDS = 60
#: The average of earlier days costs a look at all of them and stays as it is while today goes on.
AVERAGE_SECONDS = 60
#: Today's share of an average day moves slowly.
SHARE_SECONDS = 15
#: Six figures stand in one row of a page of 1280 pixels, two in one of a phone.
FIGURE_PIXELS = 170

Colour = Literal["off", "red", "yellow", "green"]


def today(sources: Sources) -> Reading:
    """The figures of the day, which are asked for more often than all else: they tell of what has changed."""

    def read() -> pd.DataFrame:
        exchange = exchange_of(sources)
        if exchange.frame is None and exchange.error is not None:
            raise exchange.error
        return queries.today(sources.mysql, exchange.frame)

    return sources.readings.get(MYSQL, "today", read, fresh_seconds=sources.look_seconds)


def changed(sources: Sources) -> float:
    """When all but the figures of the day was to be drawn again last: they told of a batch or verdict, or MySQL went.

    See :meth:`dashboard.readings.Readings.changed`.
    """
    reading = today(sources)
    # The pace falls while nothing lands.
    figures = () if reading.frame is None else map(str, reading.frame.iloc[0].drop("ticks_a_second"))
    return sources.readings.changed((reading.error is None, *figures), reading.asked)


def draw_today(sources: Sources) -> None:
    """The state of the day, and its figures."""
    reading = today(sources)
    figures = None if reading.frame is None else reading.frame.iloc[0]
    now = datetime.now(UTC)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        _draw_day(exchange_of(sources).frame, now)
        _flow_badge(reading, figures, now)
        st.caption(f"Refreshed at {clock(now)}", width="content")
    explain(reading, MYSQL)
    if figures is not None:
        _draw_figures(figures, now, _lag(sources), _average_volume(sources))


def _draw_day(exchange: Exchange | None, now: datetime) -> None:
    if exchange is None:
        st.markdown(f"**{now:%A, %d %B %Y}** · UTC", width="content")
        return
    st.markdown(f"**{exchange.day_of(now):%A, %d %B %Y}** · trading day in {exchange.day_zone}", width="content")
    opened = exchange.is_open(now)
    st.badge(
        "Session open" if opened else "Session closed",
        icon=":material/schedule:",
        color="green" if opened else "gray",
        help=as_text(f"{exchange.name}, {exchange.hours} {now.astimezone(exchange.zone):%Z}"),
    )


def _draw_figures(figures: pd.Series, now: datetime, lag: int | None, average: float | None) -> None:
    share = f"{figures.checked / figures.batches:.0%}" if figures.batches else "none yet"
    found = f"{figures.failed:,} failed" if figures.failed else f"{figures.warned:,} warned"
    alarm: Colour = "red" if figures.failed else "yellow" if figures.warned else "green"
    with st.container(horizontal=True, gap="small"):
        _figure(
            "Volume today (shares)",
            f"{figures.volume:,.0f}",
            _against(figures.volume / average) if average else "no day to compare",
        )
        _figure("Ticks landed today", f"{figures.ticks:,}", f"in {counted(figures.batches, 'batch', 'batches')}")
        _figure("Ticks a second now", f"{figures.ticks_a_second:,.1f}", f"over the last {queries.PACE_SECONDS} s")
        _figure("Age of the newest tick", _age(figures.made_at, now), f"batch {_age(figures.landed_at, now)}")
        _figure("Lag (messages)", "unknown" if lag is None else f"{lag:,}", "not landed yet")
        _figure("Batches checked today", share, found, alarm)


def _against(share: float) -> str:
    return f"{share:.0%} of the average" if share < 10 else f"{share:,.0f} × the average"


def _figure(label: str, value: str, beside: str, colour: Colour = "off") -> None:
    st.metric(
        label,
        value,
        delta=beside,
        delta_color=colour,
        delta_arrow="off",
        border=True,
        height="stretch",
        width=FIGURE_PIXELS,
    )


def _age(moment: datetime, now: datetime) -> str:
    return "none yet" if pd.isna(moment) else duration((now - moment).total_seconds())


def _lag(sources: Sources) -> int | None:
    ends = sources.readings.get(MYSQL, "ends", lambda: queries.landed_ends(sources.mysql))
    frame = ends.frame
    if frame is None or ends.error:
        return None
    # Numbered by the ends: an answer about others is none about these.
    question = "lag", ends.number
    return sources.readings.get(
        KAFKA, question, lambda: sources.lag.behind(frame), fresh_seconds=sources.look_seconds
    ).frame


def _average(sources: Sources) -> Reading:
    question = "average day", _trading_day(sources)
    return sources.readings.get(
        MYSQL, question, lambda: queries.average_day(sources.mysql), fresh_seconds=AVERAGE_SECONDS
    )


def _trading_day(sources: Sources) -> date | None:
    exchange: Exchange | None = exchange_of(sources).frame
    return None if exchange is None else exchange.day_of(datetime.now(UTC))


def _average_volume(sources: Sources) -> float | None:
    frame = _average(sources).frame
    return None if frame is None or frame.empty else float(frame.average_volume.sum()) or None


def draw_volumes(sources: Sources) -> None:
    """The bar chart of today's volume by sector, with what failed its checks or awaits them."""
    st.subheader("Volume by sector", anchor=False)
    nothing = f"No tick of today has landed yet. Start the producer and the stream, or `{ALL}` for all of it."
    volumes = _volumes(sources)
    if rows_of(volumes, MYSQL, nothing) is not None:
        _draw_volumes(volumes, companies_of(sources), is_dark())


@drawn_once
def _draw_volumes(volumes: Reading, companies: Reading, dark: bool) -> None:
    colours = colours_of(companies, volumes.frame, dark=dark)
    draw(charts.volume_chart(volumes.frame, colours, dark=dark), "volumes", dark=dark)


def _volumes(sources: Sources) -> Reading:
    return sources.readings.get(MYSQL, "volumes", lambda: queries.volume_by_verdict(sources.mysql))


def draw_corrections(sources: Sources) -> None:
    """Which ticks of today were corrected or cancelled, and by which batch: why a bar shrinks. Nothing if none was."""
    place = st.container()
    companies, day = companies_of(sources).frame, _trading_day(sources)
    if companies is None or day is None:
        return
    tickers = list(companies.ticker)
    found = sources.readings.get(
        CASSANDRA, ("corrections", day), lambda: queries.corrections(sources.cassandra, tickers, day)
    )
    if found.frame is None or found.frame.empty:
        return
    question = "batches of corrections", found.number
    batches = sources.readings.get(MYSQL, question, lambda: queries.batches_of(sources.mysql, found.frame))
    if batches.frame is not None and not batches.frame.empty:
        with place:
            _draw_corrections(found, batches, exchange_of(sources).frame)


@drawn_once
def _draw_corrections(found: Reading, batches: Reading, exchange: Exchange) -> None:
    # One whose message is in no batch has not landed.
    ticks = found.frame.merge(batches.frame, on=["kafka_partition", "kafka_offset"])
    change = ticks.volume_now.fillna(0) - ticks.volume
    taken, which = int(ticks.volume_now.isna().sum()), "the newest " if len(ticks) == queries.CORRECTIONS_SHOWN else ""
    st.markdown(
        f"**Corrected today** · {which}{counted(len(ticks), 'tick')}, {taken:,} of them cancelled: volume"
        f" {int(change.sum()):+,} shares"
    )
    number = st.column_config.NumberColumn
    digits = exchange.currency_digits
    st.dataframe(
        pd.DataFrame(
            {
                "ticker": ticks.ticker.map(as_cell),
                "sector": ticks.sector.map(as_cell),
                "made": ticks.created_at,
                "came": [as_cell(f"{one.volume:,} at {one.price:,.{digits}f}") for one in ticks.itertuples()],
                "holds": [as_cell(_now_holds(one, digits)) for one in ticks.itertuples()],
                "change": change,
                "batch": ticks.batch_id,
            }
        ),
        hide_index=True,
        row_height=31,
        column_config={
            "ticker": st.column_config.TextColumn("Company"),
            "sector": st.column_config.TextColumn("Sector"),
            "made": st.column_config.DatetimeColumn("Made (UTC)", format="HH:mm:ss", timezone="UTC"),
            "came": st.column_config.TextColumn("As it came"),
            "holds": st.column_config.TextColumn("As it holds"),
            "change": number("Volume (shares)", format="localized"),
            "batch": count_column("By batch"),
        },
    )
    if which:
        st.caption("`tickledger trace` shows all of a sector.")


def _now_holds(tick: Any, digits: int) -> str:
    if pd.isna(tick.volume_now):
        return "cancelled"
    sector = f", {tick.sector_now}" if tick.sector_now != tick.sector else ""
    return f"{int(tick.volume_now):,} at {tick.price_now:,.{digits}f}{sector}"


def draw_average(sources: Sources) -> None:
    """Today's volume against the average of earlier days, by sector."""
    st.subheader("Today against an average day", anchor=False)
    nothing = "There is no earlier trading day to compare with yet: this fills in from tomorrow on."
    average = _average(sources)
    volumes = sources.readings.get(
        MYSQL,
        ("share", _trading_day(sources)),
        lambda: queries.volume_by_verdict(sources.mysql),
        fresh_seconds=SHARE_SECONDS,
    )
    exchange = exchange_of(sources).frame
    if rows_of(average, MYSQL, nothing) is not None and volumes.frame is not None and exchange is not None:
        _draw_average(average, volumes, companies_of(sources), exchange, is_dark())


@drawn_once
def _draw_average(average: Reading, volumes: Reading, companies: Reading, exchange: Exchange, dark: bool) -> None:
    now = volumes.frame.groupby("sector").total_volume.sum()
    days = average.frame.assign(total_volume=average.frame.sector.map(now).fillna(0.0))
    colours = colours_of(companies, days, dark=dark)
    draw(charts.average_chart(days, colours, dark=dark), "average", dark=dark)
    count = int(days.days.iloc[0])
    st.caption(f"The average of the last {count} trading day{'s' if count > 1 else ''}, {exchange.day_span}.")


def _flow_badge(reading: Reading, figures: pd.Series | None, now: datetime) -> None:
    if reading.error is not None:
        st.badge("Store down", icon=":material/cloud_off:", color="red")
    elif figures is None or pd.isna(figures.landed_at):
        st.badge("No batch yet", icon=":material/hourglass_empty:", color="gray")
    elif (now - figures.landed_at).total_seconds() > QUIET_SECONDS:
        st.badge("Quiet", icon=":material/pause:", color="orange", help=f"No batch for {QUIET_SECONDS} s or more")
    else:
        st.badge("Live", icon=":material/sensors:", color="green")
