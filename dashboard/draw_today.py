"""The part of the page for the trading day: its state, its figures, its volume by sector."""

from datetime import UTC, datetime, time
from typing import Literal
from zoneinfo import ZoneInfo

import pandas as pd
import streamlit as st

from dashboard import charts, queries
from dashboard.drawing import clock, colours_of, draw, duration, explain, is_dark, rows_of
from dashboard.readings import Reading
from dashboard.sources import MYSQL, Sources
from tickledger.here import ALL

EXCHANGE = ZoneInfo("Asia/Jakarta")
#: The session of the Jakarta exchange as the project takes it, in the exchange's own time, Monday to Friday.
SESSION_OPENS, SESSION_CLOSES = time(9), time(16)
#: A newest batch older than this many seconds means that nothing flows.
QUIET_SECONDS = 60
#: The average of earlier days costs a look at all of them and stays as it is while today goes on.
AVERAGE_SECONDS = 60
#: Six figures stand in one row of a page of 1280 pixels, two in one of a phone.
FIGURE_PIXELS = 170

Colour = Literal["off", "red", "yellow", "green"]


def draw_today(sources: Sources) -> None:
    """The state of the day, and its figures."""
    reading = sources.readings.get(MYSQL, "today", lambda: queries.today(sources.mysql))
    figures = None if reading.frame is None else reading.frame.iloc[0]
    now = datetime.now(UTC)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{now:%A, %d %B %Y}** · trading day in UTC", width="content")
        _session_badge(now)
        _flow_badge(reading, figures, now)
        st.caption(f"Refreshed at {clock(now)}", width="content")
    explain(reading, MYSQL)
    if figures is not None:
        _draw_figures(figures, now, _lag(sources), _average_volume(sources))


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
        _figure("Ticks landed today", f"{figures.ticks:,}", f"in {figures.batches:,} batches")
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
    return None if ends.frame is None or ends.error else sources.lag.behind(ends.frame)


def _average(sources: Sources) -> Reading:
    return sources.readings.get(
        MYSQL, "average day", lambda: queries.average_day(sources.mysql), fresh_seconds=AVERAGE_SECONDS
    )


def _average_volume(sources: Sources) -> float | None:
    frame = _average(sources).frame
    return None if frame is None or frame.empty else float(frame.average_volume.sum()) or None


def draw_volumes(sources: Sources) -> None:
    """The bar chart of today's volume by sector, with what failed its checks or awaits them."""
    st.subheader("Volume by sector", anchor=False)
    nothing = f"No tick of today has landed yet. Start the producer and the stream, or `{ALL}` for all of it."
    volumes = rows_of(_volumes(sources), MYSQL, nothing)
    if volumes is not None:
        draw(charts.volume_chart(volumes, colours_of(sources, volumes), dark=is_dark()), "volumes")


def _volumes(sources: Sources) -> Reading:
    return sources.readings.get(MYSQL, "volumes", lambda: queries.volume_by_verdict(sources.mysql))


def draw_average(sources: Sources) -> None:
    """Today's volume against the average of earlier days, by sector."""
    st.subheader("Today against an average day", anchor=False)
    nothing = "There is no earlier trading day to compare with yet: this fills in from tomorrow on."
    average, today = rows_of(_average(sources), MYSQL, nothing), _volumes(sources).frame
    if average is None or today is None:
        return
    now = today.groupby("sector").total_volume.sum()
    days = average.assign(total_volume=average.sector.map(now).fillna(0.0))
    draw(charts.average_chart(days, colours_of(sources, days), dark=is_dark()), "average")
    count = int(days.days.iloc[0])
    st.caption(f"The average of the last {count} trading day{'s' if count > 1 else ''}, from midnight to midnight UTC.")


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
