"""Charts: plain functions from a DataFrame to an Altair chart. Nothing here knows of the page or the stores.

A chart's specification depends on the names it shows but not on the numbers, so that the page can put new numbers
into a chart that stands, zoomed or not, instead of drawing it again. Every axis names its unit.
"""

import json
from dataclasses import dataclass
from functools import cache

import altair as alt
import pandas as pd

from dashboard import looks
from dashboard.heat_map import with_tiles
from tickledger.exchange import Exchange

#: Sector → colour, as `looks.sector_colours` gives them, and the same as what a cache can keep.
Colours = dict[str, str]
Named = tuple[tuple[str, str], ...]

WHOLE = ",.0f"
BAR_PIXELS = 34
#: Room on the right for the figure that stands after the longest bar.
FIGURE_PIXELS = 84
CANDLE_PIXELS = 330
BATCH_PIXELS = 300
HEAT_PIXELS = 360
DAY_PIXELS = 380

#: What the checks say of the batches behind a part of a bar; how solid that part is, and how its edge is dashed.
STATES = {"checked": (1.0, [1, 0]), "not yet checked": (0.55, [1, 0]), "failed its checks": (0.3, [3, 2])}
_STATE_OF = {"passed": "checked", "warned": "checked", "unchecked": "not yet checked", "failed": "failed its checks"}
_THICK = alt.RelativeBandSize(band=0.72)
_SECTORS = alt.Axis(labelLimit=180, domain=False, ticks=False)
#: Labels of a time axis, by what distinguishes them from their neighbours.
_CLOCK = {
    **{"milliseconds": "%H:%M:%S.%L", "seconds": "%H:%M:%S", "minutes": "%H:%M", "hours": "%H:%M"},
    **{"day": "%d %b", "date": "%d %b", "week": "%d %b", "month": "%d %b", "quarter": "%d %b", "year": "%d %b %Y"},
}
#: Layers share one axis, and a shared axis can be sorted by a largest value but not by a sum, which "-x" would be.
_LARGEST_FIRST = alt.EncodingSortField(field="whole", op="max", order="descending")


@dataclass(frozen=True)
class Chart:
    """Rows, and the layers that show them: Vega-Lite as JSON, which is made once for all charts of the same names."""

    layers: str
    rows: pd.DataFrame


def volume_chart(volumes: pd.DataFrame, colours: Colours, *, dark: bool = False) -> Chart:
    """Bars of today's volume by sector, largest on top; what failed or awaits its checks is paler in the same bar.

    `volumes` has one row per sector and verdict: sector, verdict, total_volume (shares).
    """
    data = volumes.assign(state=volumes.verdict.map(_STATE_OF))
    data = data.groupby(["sector", "state"], as_index=False).agg(total_volume=("total_volume", "sum"))
    data["place"] = data.state.map({state: place for place, state in enumerate(STATES)})
    data = _with_wholes(data.sort_values(["sector", "place"], ignore_index=True))
    return Chart(_volume_layers(tuple(colours.items()), dark), data)


@cache
def _volume_layers(colours: Named, dark: bool) -> str:
    base = alt.Chart().encode(y=_by_size(), x=_volume_axis("Volume today (shares)"))
    solid, dashes = (alt.Scale(domain=list(STATES), range=list(part)) for part in zip(*STATES.values(), strict=True))
    legend = alt.Legend(title=None, orient="bottom", columns=2, symbolType="square", symbolFillColor="#8C8C8C")
    bars = base.mark_bar(cornerRadiusEnd=2, strokeWidth=1.2, height=_THICK).encode(
        color=_by_sector(colours),
        stroke=alt.Stroke("sector:N", scale=_sector_scale(colours), legend=None),
        opacity=alt.Opacity("state:O", scale=solid, sort=list(STATES), legend=legend),
        strokeDash=alt.StrokeDash("state:O", scale=dashes, sort=list(STATES), legend=legend),
        order=alt.Order("place:Q"),
        tooltip=[
            alt.Tooltip("sector:N", title="Sector"),
            alt.Tooltip("state:N", title="Batches"),
            alt.Tooltip("total_volume:Q", title="Volume (shares)", format=WHOLE),
            alt.Tooltip("whole:Q", title="of (shares)", format=WHOLE),
        ],
    )
    return _written(alt.LayerChart(layer=[bars, _figures(base, dark=dark)]), _bars_height(len(colours)) + 30)


def day_chart(volumes: pd.DataFrame, colours: Colours, *, dark: bool = False) -> Chart:
    """Bars of one day's volume by sector, largest on top. `volumes` has one row per sector: sector, total_volume."""
    data = _with_wholes(volumes[["sector", "total_volume"]].reset_index(drop=True))
    return Chart(_day_layers(tuple(colours.items()), dark), data)


@cache
def _day_layers(colours: Named, dark: bool) -> str:
    base = alt.Chart().encode(y=_by_size(), x=_volume_axis("Volume of the day (shares)"))
    bars = base.mark_bar(cornerRadiusEnd=2, height=_THICK).encode(
        color=_by_sector(colours),
        tooltip=[
            alt.Tooltip("sector:N", title="Sector"),
            alt.Tooltip("whole:Q", title="Volume (shares)", format=WHOLE),
        ],
    )
    return _written(alt.LayerChart(layer=[bars, _figures(base, dark=dark)]), _bars_height(len(colours)))


def average_chart(days: pd.DataFrame, colours: Colours, *, dark: bool = False) -> Chart:
    """Bars of today's volume as a share of an average earlier day, in the sectors' order.

    `days` has one row per sector: sector, total_volume (today), average_volume, both in shares.
    """
    data = days.assign(share=days.total_volume / days.average_volume.where(days.average_volume > 0), whole_day=1.0)
    return Chart(_average_layers(tuple(colours.items()), dark), data)


@cache
def _average_layers(colours: Named, dark: bool) -> str:
    base = alt.Chart().encode(y=alt.Y("sector:N", title=None, axis=_SECTORS))
    bars = base.mark_bar(cornerRadiusEnd=2, height=_THICK).encode(
        x=alt.X("share:Q", title="Today so far (% of an average day)", axis=alt.Axis(format=".0%", tickCount=4)),
        color=_by_sector(colours),
        tooltip=[
            alt.Tooltip("sector:N", title="Sector"),
            alt.Tooltip("share:Q", title="of an average day", format=".1%"),
            alt.Tooltip("total_volume:Q", title="Today (shares)", format=WHOLE),
            alt.Tooltip("average_volume:Q", title="Average day (shares)", format=WHOLE),
        ],
    )
    line = base.mark_tick(color=looks.ink(dark=dark), thickness=2, height=26).encode(x="whole_day:Q")
    return _written(alt.LayerChart(layer=[bars, line]), _bars_height(len(colours)) + 30)


def candle_chart(candles: pd.DataFrame, length: pd.Timedelta, exchange: Exchange, *, dark: bool = False) -> Chart:
    """Candles above, volumes below, on one time axis; hollow candles rose, full ones fell, and gaps stay empty.

    `candles` has one row per candle with a tick: start (UTC), open, high, low, close (currency), volume (shares)
    and ticks; and window_start and window_end (UTC), the same in all rows, which the time axis covers. Shift and wheel
    zoom, a drag moves, a double click shows all again. The price axis covers the prices and not zero: a stock
    moves by parts of a percent.
    """
    data = candles.assign(
        end=candles.start + length,
        body_start=candles.start + length * 0.15,
        body_end=candles.start + length * 0.85,
        middle=candles.start + length * 0.5,
        direction=(candles.close >= candles.open).map({True: "up", False: "down"}),
        moment=candles.start.dt.strftime("%d %b %H:%M:%S"),
    )
    return Chart(_candle_layers(exchange.currency, exchange.currency_digits, dark), data)


@cache
def _candle_layers(currency: str, digits: int, dark: bool) -> str:
    time_axis = alt.Axis(format=_CLOCK, tickCount=6, grid=False)
    utc = alt.Scale(type="utc")
    base = alt.Chart().encode(x=alt.X("body_start:T", title="Time (UTC)", scale=utc, axis=time_axis))
    up, down = looks.direction_colours(dark=dark)
    edge = alt.Scale(domain=["up", "down"], range=[up, down])
    inside = alt.Scale(domain=["up", "down"], range=[looks.paper(dark=dark), down])
    direction = alt.Color("direction:N", scale=edge, legend=None)
    window = base.mark_rule(opacity=0).encode(x="min(window_start):T", x2="max(window_end)")
    wicks = base.mark_rule(strokeWidth=1.3).encode(
        x="middle:T", y=_price_axis("low:Q", currency), y2="high", color=direction
    )
    bodies = base.mark_rect(strokeWidth=1.3).encode(
        x2="body_end",
        y=_price_axis("open:Q", currency),
        y2="close",
        stroke=alt.Stroke("direction:N", scale=edge, legend=None),
        fill=alt.Fill("direction:N", scale=inside, legend=None),
    )
    volumes = base.mark_bar(opacity=0.65).encode(
        x2="body_end", y=_lower_axis("volume:Q", "Volume (shares)"), y2=alt.datum(0), color=direction
    )
    hover = base.mark_rect(opacity=0).encode(
        x="start:T",
        x2="end",
        tooltip=[
            alt.Tooltip("moment:N", title="From (UTC)"),
            *(alt.Tooltip(f"{name}:Q", title=f"{name.title()} ({currency})", format=f",.{digits}~f") for name in _OHLC),
            alt.Tooltip("volume:Q", title="Volume (shares)", format=WHOLE),
            alt.Tooltip("ticks:Q", title="Ticks", format=WHOLE),
        ],
    )
    prices = alt.LayerChart(layer=[window, wicks.add_params(_zoom()), bodies, hover])
    return _written(_stacked(prices, volumes), CANDLE_PIXELS)


_OHLC = ("open", "high", "low", "close")


def heat_map_chart(quotes: pd.DataFrame, exchange: Exchange, *, dark: bool = False) -> Chart:
    """A tile for each company: its area is the market capitalisation, its colour the change since the first price.

    `quotes` has one row per company: ticker, company_name, sector, price, market_cap (currency), change (a share).
    """
    data = with_tiles(quotes)
    return Chart(
        _heat_map_layers(exchange.currency, exchange.currency_digits, dark),
        data.assign(sign=[_percent(change) for change in data.change]),
    )


@cache
def _heat_map_layers(currency: str, digits: int, dark: bool) -> str:
    up, down = looks.direction_colours(dark=dark)
    shades = [down, "#3A3F4B" if dark else "#E9EAEE", up]
    colour = alt.Color(
        "change:Q",
        scale=alt.Scale(domain=[-0.05, 0, 0.05], range=shades, clamp=True, interpolate="rgb"),
        legend=alt.Legend(title="Change since the first price (%)", format="+.0%", gradientLength=160, tickCount=3),
    )
    base = alt.Chart().encode(
        x=alt.X("left:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False)),
        y=alt.Y("top:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False)),
    )
    tiles = base.mark_rect(stroke=looks.paper(dark=dark), strokeWidth=2).encode(
        x2="right",
        y2="bottom",
        color=colour,
        tooltip=[
            alt.Tooltip("ticker:N", title="Company"),
            alt.Tooltip("company_name:N", title="Name"),
            alt.Tooltip("sector:N", title="Sector"),
            alt.Tooltip("price:Q", title=f"Price ({currency})", format=f",.{digits}~f"),
            alt.Tooltip("sign:N", title="Change today"),
            alt.Tooltip("market_cap:Q", title=f"Market capitalisation ({currency})", format=",.4~s"),
        ],
    )
    names = _tile_text(base, "ticker:N", 8, dark=dark)
    return _written(alt.LayerChart(layer=[tiles, names, _tile_text(base, "sign:N", 25, dark=dark)]), HEAT_PIXELS)


def _tile_text(base: alt.Chart, field: str, down: int, *, dark: bool) -> alt.Chart:
    """Text in a tile's corner, left out if the tile is too small for it."""
    room = f"(datum.right - datum.left) * width > 64 && abs(datum.top - datum.bottom) * height > {down + 16}"
    on_colour = looks.paper(dark=dark)
    colour = alt.ExprRef(f"abs(datum.change) > 0.025 ? '{on_colour}' : '{looks.ink(dark=dark)}'")
    text = base.mark_text(
        align="left", baseline="top", dx=8, dy=down, fontSize=13, opacity=alt.ExprRef(f"{room} ? 1 : 0"), color=colour
    )
    return text.encode(text=field)


def batches_chart(batches: pd.DataFrame) -> Chart:
    """How long each batch took to land above, its ticks below, on one time axis, coloured by verdict.

    `batches` has one row per batch: batch_id, verdict, landed_at (UTC), landing_seconds (s), ticks_landed, findings.
    """
    data = batches.assign(
        moment=batches.landed_at.dt.strftime("%d %b %H:%M:%S"),
        word=[looks.VERDICTS.get(verdict, (verdict,))[0] for verdict in batches.verdict],
    )
    return Chart(_batches_layers(), data[[*_OF_BATCH, "moment", "word"]])


_OF_BATCH = ["batch_id", "landed_at", "landing_seconds", "ticks_landed", "findings"]


@cache
def _batches_layers() -> str:
    words, colours, shapes = (list(part) for part in zip(*looks.VERDICTS.values(), strict=True))
    legend = alt.Legend(title=None, symbolOpacity=1)
    time_axis = alt.Axis(format=_CLOCK, tickCount=6, grid=False)
    base = alt.Chart().encode(
        x=alt.X("landed_at:T", title="Landed at (UTC)", scale=alt.Scale(type="utc", padding=6), axis=time_axis),
        color=alt.Color("word:N", scale=alt.Scale(domain=words, range=colours), legend=legend),
        tooltip=[
            alt.Tooltip("batch_id:Q", title="Batch", format="d"),
            alt.Tooltip("word:N", title="Verdict"),
            alt.Tooltip("findings:Q", title="Findings"),
            alt.Tooltip("moment:N", title="Landed (UTC)"),
            alt.Tooltip("landing_seconds:Q", title="Took (s)", format=".2f"),
            alt.Tooltip("ticks_landed:Q", title="Ticks", format=WHOLE),
        ],
    )
    seconds = base.mark_point(filled=True, size=55, opacity=0.9).encode(
        y=_upper_axis("landing_seconds:Q", "Landing time (s)", form="~g", zero=True),
        shape=alt.Shape("word:N", scale=alt.Scale(domain=words, range=shapes), legend=legend),
    )
    ticks = base.mark_bar(width=2.5).encode(y=_lower_axis("ticks_landed:Q", "Ticks"), y2=alt.datum(0))
    return _written(_stacked(alt.LayerChart(layer=[seconds.add_params(_zoom())]), ticks), BATCH_PIXELS)


def reasons_chart(letters: pd.DataFrame, *, dark: bool = False) -> Chart:
    """Bars of dead letters by reason, the most frequent on top. `letters` has one row per dead letter: reason."""
    counts = letters.groupby("reason", as_index=False).agg(total_volume=("reason", "size"))
    return Chart(_reasons_layers(len(counts), dark), _with_wholes(counts, by="reason"))


@cache
def _reasons_layers(bars: int, dark: bool) -> str:
    base = alt.Chart().encode(
        y=alt.Y("reason:N", sort=_LARGEST_FIRST, title=None, axis=_SECTORS),
        x=alt.X(
            "total_volume:Q",
            title="Dead letters",
            axis=alt.Axis(format="~s", tickMinStep=1),
            scale=alt.Scale(nice=False, range=[0, alt.ExprRef(f"width - {FIGURE_PIXELS}")]),
        ),
        tooltip=[alt.Tooltip("reason:N", title="Reason"), alt.Tooltip("whole:Q", title="Dead letters", format=WHOLE)],
    )
    drawn = base.mark_bar(cornerRadiusEnd=2, color=looks.VERDICTS["failed"][1], opacity=0.8, height=_THICK)
    return _written(alt.LayerChart(layer=[drawn, _figures(base, dark=dark)]), _bars_height(bars))


def history_chart(volumes: pd.DataFrame, colours: Colours, exchange: Exchange) -> Chart:
    """Stacked bars of volume by day, coloured by sector. `volumes` has one row per date and sector: total_volume."""
    places = {sector: place for place, sector in enumerate(colours)}
    data = volumes.assign(day=volumes.date.dt.strftime("%Y-%m-%d"), place=volumes.sector.map(places))
    return Chart(
        _history_layers(tuple(colours.items()), exchange.day_zone), data[["day", "sector", "place", "total_volume"]]
    )


@cache
def _history_layers(colours: Named, day_zone: str) -> str:
    day_axis = alt.Axis(labelExpr="utcFormat(toDate(datum.value), '%d %b')", labelAngle=0)
    bars = (
        alt.Chart()
        .mark_bar(width=alt.RelativeBandSize(band=0.8))
        .encode(
            x=alt.X("day:O", title=f"Trading day ({day_zone})", axis=day_axis),
            y=alt.Y("total_volume:Q", title="Volume (shares)", axis=_shares()),
            color=_by_sector(colours, alt.Legend(title=None, orient="bottom", columns=2, symbolType="square")),
            order=alt.Order("place:Q"),
            tooltip=[
                alt.Tooltip("day:N", title="Trading day"),
                alt.Tooltip("sector:N", title="Sector"),
                alt.Tooltip("total_volume:Q", title="Volume (shares)", format=WHOLE),
            ],
        )
    )
    return _written(alt.LayerChart(layer=[bars]), DAY_PIXELS)


# What charts have in common


def _written(layers: alt.LayerChart, height: int) -> str:
    """The layers as JSON, without data. `height` is in pixels; the width is the page's."""
    # Altair gives layers that have none a row of its own, which would be one more bar.
    written = layers.properties(height=height, data=alt.NamedData("rows")).to_dict()
    return json.dumps({name: value for name, value in written.items() if name != "data"})


def _stacked(above: alt.LayerChart, below: alt.Chart) -> alt.LayerChart:
    """Two panels on one time axis: a chart of two parts would not follow the page's width, layers do."""
    chart: alt.LayerChart = alt.LayerChart(layer=[above, below]).resolve_scale(y="independent")
    return chart


def _with_wholes(data: pd.DataFrame, by: str = "sector") -> pd.DataFrame:
    """Adds `whole`, the sum of a bar, and `figure`, the same on its first part only and nothing on the others."""
    whole = data.groupby(by).total_volume.transform("sum").astype("float64")
    return data.assign(whole=whole, figure=whole.where(~data.duplicated(by)))


def _by_size() -> alt.Y:
    return alt.Y("sector:N", sort=_LARGEST_FIRST, title=None, axis=_SECTORS)


def _shares() -> alt.Axis:
    """Labels such as 200M and 1.2B, since few people take 1.2G for a thousand millions."""
    return alt.Axis(labelExpr="replace(format(datum.value, '~s'), 'G', 'B')", tickCount=4)


def _volume_axis(title: str) -> alt.X:
    scale = alt.Scale(zero=True, nice=False, range=[0, alt.ExprRef(f"width - {FIGURE_PIXELS}")])
    return alt.X("total_volume:Q", title=title, axis=_shares(), scale=scale)


def _figures(base: alt.Chart, *, dark: bool) -> alt.Chart:
    """The sum of each bar behind its end."""
    text = base.mark_text(align="left", baseline="middle", dx=6, color=looks.ink(dark=dark))
    with_figure = text.transform_filter("isValid(datum.figure)")
    return with_figure.encode(x=alt.X("figure:Q"), text=alt.Text("figure:Q", format=WHOLE))


def _bars_height(bars: int) -> int:
    return BAR_PIXELS * max(bars, 1) + 40


def _price_axis(field: str, currency: str) -> alt.Y:
    return _upper_axis(field, f"Price ({currency})", form=",~f")


def _upper_axis(field: str, title: str, *, form: str, zero: bool = False) -> alt.Y:
    """A vertical axis over the upper part of a chart that has another below."""
    scale = alt.Scale(zero=zero, nice=True, range=[alt.ExprRef("height * 0.72"), 8])
    return alt.Y(field, title=title, scale=scale, axis=alt.Axis(format=form, tickCount=5, orient="left"))


def _lower_axis(field: str, title: str) -> alt.Y:
    """A vertical axis over the lower part of a chart, on the right, where the other's labels are not in its way."""
    scale = alt.Scale(zero=True, nice=True, range=[alt.ExprRef("height"), alt.ExprRef("height * 0.8")])
    axis = alt.Axis(format="~s", tickCount=2, orient="right", grid=False)
    return alt.Y(field, title=title, scale=scale, axis=axis)


def _zoom() -> alt.Parameter:
    """Zoom and move along the time axis. A wheel without Shift scrolls the page, as everywhere else on it."""
    return alt.selection_interval(bind="scales", encodings=["x"], zoom="wheel![event.shiftKey]")


def _percent(change: float) -> str:
    return "" if pd.isna(change) else f"{change:+.2%}"


def _sector_scale(colours: Named) -> alt.Scale:
    return alt.Scale(domain=[sector for sector, _ in colours], range=[colour for _, colour in colours])


def _by_sector(colours: Named, legend: alt.Legend | None = None) -> alt.Color:
    return alt.Color("sector:N", scale=_sector_scale(colours), legend=legend)
