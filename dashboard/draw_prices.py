"""The part of the page for prices: candles of the companies that the viewer picks, and all companies as a heat map."""

from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from dashboard import charts, queries
from dashboard.drawing import (
    as_cell,
    as_text,
    clock,
    companies_of,
    draw,
    drawn_once,
    exchange_of,
    explain,
    is_dark,
    rows_of,
)
from dashboard.readings import Reading
from dashboard.sources import CASSANDRA, MYSQL, Sources
from tickledger.exchange import Exchange
from tickledger.plain_text import plain

SHOWN_FIRST = 2
#: Each chart costs Cassandra two questions a day of its window.
MOST_SHOWN = 6
COLUMNS = 2


def draw_prices(sources: Sources) -> None:
    """Candles of the companies and the time that the viewer picks."""
    st.subheader("Prices", anchor=False)
    known, market = companies_of(sources), exchange_of(sources)
    if known.frame is None or market.frame is None:
        explain(known if known.frame is None else market, MYSQL)
        return
    exchange: Exchange = market.frame
    if known.frame.empty:
        st.info("The profile holds no company yet. Load it: `cd dbt_project && dbt seed`")
        return
    tickers, name = _choose(list(known.frame.ticker))
    if not tickers:
        st.info("Choose at least one ticker.")
        return
    window, question, until = queries.WINDOWS[name], ("candles", tickers, name), _now()

    def read() -> queries.Candles:
        kept = sources.readings.kept(question)
        found = queries.candles(sources.cassandra, exchange, tickers, window, until, kept)
        if found.to_come:
            sources.readings.ask_again()
        return found

    reading = sources.readings.get(CASSANDRA, question, read)
    explain(reading, CASSANDRA)
    if reading.frame is None:
        return
    _draw_all_candles(reading, known, exchange, tickers, name, is_dark())
    if reading.frame.to_come:
        st.caption(f"{reading.frame.to_come} earlier days are read next.")
    st.caption(
        f"Read at {clock(reading.read_at)} · a candle is {window.candle}, hollow if the price rose; times without a"
        " tick stay empty · Shift and wheel zoom, a drag moves, a double click shows all again"
    )


def _choose(tickers: list[str]) -> tuple[tuple[str, ...], str]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Tickers",
            tickers,
            default=tickers[:SHOWN_FIRST],
            key="tickers",
            max_selections=MOST_SHOWN,
            width=420,
            format_func=plain,
        )
        window = st.segmented_control("The last", list(queries.WINDOWS), default="1 hour", required=True, key="window")
    return tuple(sorted(chosen)), str(window)


@drawn_once
def _draw_all_candles(
    reading: Reading, companies: Reading, exchange: Exchange, tickers: tuple[str, ...], window: str, dark: bool
) -> None:
    sectors, found = dict(zip(companies.frame.ticker, companies.frame.sector, strict=True)), reading.frame
    for start in range(0, len(tickers), COLUMNS):
        row = tickers[start : start + COLUMNS]
        for ticker, column in zip(row, st.columns(len(row)), strict=True):
            with column, st.container(border=True):
                mine = replace(found, rows=found.rows[found.rows.ticker == ticker])
                _draw_candles(as_text(f"{ticker} · {sectors[ticker]}"), ticker, mine, exchange, window, dark)


def _draw_candles(name: str, ticker: str, found: queries.Candles, exchange: Exchange, window: str, dark: bool) -> None:
    candles = found.rows
    if candles.empty:
        st.metric(name, "no tick", delta=f"in the last {window}", delta_color="off", delta_arrow="off")
        return
    first, last = candles.open.iloc[0], candles.close.iloc[-1]
    st.metric(
        name,
        f"{last:,.{exchange.currency_digits}f} {exchange.currency}",
        delta=f"{last / first - 1:+.2%} in {window}" if first else None,
        delta_color="blue" if last >= first else "orange",
    )
    asked = queries.WINDOWS[window]
    begin = pd.Timestamp(queries.floor(found.until - asked.length, asked), tz="UTC")
    shown = candles.assign(window_start=begin, window_end=begin + asked.length + asked.candle_length)
    draw(charts.candle_chart(shown, asked.candle_length, exchange, dark=dark), f"candles {ticker} {window}", dark=dark)


def draw_companies(sources: Sources) -> None:
    """All companies by market capitalisation and change, as a heat map and as a table."""
    st.subheader("Companies by market capitalisation", anchor=False)
    known, market = companies_of(sources), exchange_of(sources)
    if known.frame is None or known.frame.empty or market.frame is None:
        return
    exchange: Exchange = market.frame
    names, day = known.frame, exchange.day_of(datetime.now(UTC))
    reading = sources.readings.get(
        CASSANDRA, ("quotes", day), lambda: queries.quotes(sources.cassandra, list(names.ticker), day)
    )
    if rows_of(reading, CASSANDRA, "No tick of today is in Cassandra yet.") is None:
        return
    _draw_quotes(reading, known, exchange, is_dark())
    st.caption(
        f"Read at {clock(reading.read_at)} · the change is that of the newest price since the first of the trading day,"
        f" in {exchange.day_zone}"
    )


@drawn_once
def _draw_quotes(found: Reading, companies: Reading, exchange: Exchange, dark: bool) -> None:
    quotes = found.frame.merge(companies.frame, on="ticker")
    quotes = quotes.sort_values("market_cap", ascending=False, ignore_index=True)
    left, right = st.columns([7, 5], gap="medium")
    with left:
        draw(charts.heat_map_chart(quotes, exchange, dark=dark), "heat map", dark=dark)
    with right:
        _draw_table(quotes, exchange.currency)


def _draw_table(quotes: pd.DataFrame, currency: str) -> None:
    number = st.column_config.NumberColumn
    st.dataframe(
        quotes[["ticker", "price", "change", "market_cap"]].assign(
            ticker=quotes.ticker.map(as_cell), change=quotes.change * 100
        ),
        hide_index=True,
        height=charts.HEAT_PIXELS,
        row_height=31,
        column_config={
            "ticker": st.column_config.TextColumn("Company"),
            "price": number(f"Price ({currency})", format="localized"),
            "change": number("Today (%)", format="%+.2f"),
            "market_cap": number(f"Market cap. ({currency})", format="compact"),
        },
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
