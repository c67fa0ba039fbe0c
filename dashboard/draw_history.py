"""The part of the page for earlier trading days."""

from datetime import UTC, date, datetime, timedelta

import pandas as pd
import streamlit as st

from dashboard import charts, queries
from dashboard.drawing import clock, colours_of, companies_of, draw, drawn_once, exchange_of, is_dark, rows_of
from dashboard.readings import Reading
from dashboard.sources import MYSQL, Sources
from tickledger.exchange import Exchange

#: Days in one picture, today among them.
DAYS_SHOWN = 30
#: What is past changes only by late ticks, and the figures on top show today's.
HISTORY_SECONDS = 15


def draw_history(sources: Sources) -> None:
    """Volume by day and sector up to a day that the viewer picks, and that day alone."""
    st.subheader("Volume by day and sector", anchor=False)
    exchange: Exchange | None = exchange_of(sources).frame
    if exchange is None:
        return
    today = exchange.day_of(datetime.now(UTC))
    picked = st.date_input("Trading day", value=None, max_value=today, key="day", width=240, format="YYYY-MM-DD")
    day = picked if isinstance(picked, date) else today
    first, last = _span(day, today)
    reading = sources.readings.get(
        MYSQL,
        ("history", first, last),
        lambda: queries.volume_by_day(sources.mysql, first, last),
        fresh_seconds=HISTORY_SECONDS,
    )
    if rows_of(reading, MYSQL, f"No tick of {first:%d %B} to {last:%d %B %Y} has landed.") is None:
        return
    _draw_days(reading, companies_of(sources), exchange, day, is_dark())
    st.caption(f"Read at {clock(reading.read_at)}")


@drawn_once
def _draw_days(reading: Reading, companies: Reading, exchange: Exchange, day: date, dark: bool) -> None:
    volumes, colours = reading.frame, colours_of(companies, reading.frame, dark=dark)
    left, right = st.columns([7, 5], gap="medium")
    with left:
        draw(charts.history_chart(volumes, colours, exchange), "history", dark=dark)
    with right:
        _draw_day(day, volumes[volumes.date == pd.Timestamp(day)], colours, dark)


def _span(day: date, today: date) -> tuple[date, date]:
    """The days that are shown around the picked one: it is among them, and none lies ahead."""
    last = min(today, day + timedelta(days=DAYS_SHOWN // 2))
    return last - timedelta(days=DAYS_SHOWN - 1), last


def _draw_day(day: date, volumes: pd.DataFrame, colours: charts.Colours, dark: bool) -> None:
    shares, ticks = int(volumes.total_volume.sum()), int(volumes.ticks.sum())
    st.markdown(f"**{day:%A, %d %B %Y}** · {shares:,} shares in {ticks:,} ticks")
    if volumes.empty:
        st.info("No tick of this day has landed.")
        return
    draw(charts.day_chart(volumes, colours, dark=dark), "day", dark=dark)
