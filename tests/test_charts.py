"""Charts, by their specification and their data."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboard import charts, heat_map, looks
from tests.support.exchanges import JAKARTA

SECTORS = [
    "Beverages",
    "Chemicals",
    "Coal",
    "Commercial Services",
    "Construction Materials",
    "Healthcare Providers",
    "Logistics & Deliveries",
    "Machinery",
    "Processed Foods",
]


DARK = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
COLOURS = looks.sector_colours(SECTORS)
START = pd.Timestamp("2026-11-23 03:00", tz="UTC")
MINUTE = pd.Timedelta(minutes=1)


@pytest.fixture
def volumes() -> pd.DataFrame:
    """One row per sector and verdict."""
    rows = [
        ("Coal", "passed", 1_000.0),
        ("Coal", "warned", 200.0),
        ("Coal", "failed", 30.0),
        ("Coal", "unchecked", 4.0),
    ]
    return pd.DataFrame([*rows, ("Machinery", "passed", 86_189_937.0)], columns=["sector", "verdict", "total_volume"])


@pytest.fixture
def candles() -> pd.DataFrame:
    """Two candles with a minute without a tick between them: one rose, one fell."""
    frame = pd.DataFrame(
        {
            "start": [START, START + 2 * MINUTE],
            **{"open": [550.0, 560.0], "high": [565.0, 561.0], "low": [549.0, 540.0], "close": [560.0, 541.25]},
            **{"volume": [1_000, 2_000], "ticks": [10, 20]},
        }
    )
    return frame.assign(window_start=START - 10 * MINUTE, window_end=START + 5 * MINUTE)


@pytest.fixture
def quotes() -> pd.DataFrame:
    """Two companies, the smaller one first."""
    rows = [("A.JK", "A", "Coal", 10.0, 1e12, -0.02), ("B.JK", "B", "Coal", 20.0, 3e12, float("nan"))]
    return pd.DataFrame(rows, columns=["ticker", "company_name", "sector", "price", "market_cap", "change"])


@pytest.fixture
def batches() -> pd.DataFrame:
    """A batch of each verdict."""
    return pd.DataFrame(
        {
            "batch_id": [1, 2, 3, 4],
            "verdict": ["passed", "warned", "failed", "unchecked"],
            "landed_at": pd.date_range(START, periods=4, freq="2s"),
            **{"landing_seconds": [0.5, 0.6, 0.7, 0.8], "ticks_landed": [100, 90, 80, 70], "findings": [0, 1, 2, 0]},
        }
    )


@pytest.fixture
def days() -> pd.DataFrame:
    """Two days, one of them without a tick of a sector."""
    rows = [("2026-11-22", "Coal", 5.0, 1), ("2026-11-23", "Coal", 7.0, 2), ("2026-11-23", "Machinery", 9.0, 1)]
    frame = pd.DataFrame(rows, columns=["date", "sector", "total_volume", "ticks"])
    return frame.assign(date=pd.to_datetime(frame.date))


@pytest.fixture
def averages() -> pd.DataFrame:
    """Today against the average of earlier days."""
    rows = [("Coal", 50.0, 100.0), ("Machinery", 30.0, 20.0), ("Chemicals", 5.0, 0.0)]
    return pd.DataFrame(rows, columns=["sector", "total_volume", "average_volume"])


@pytest.fixture
def all_charts(
    volumes: pd.DataFrame,
    candles: pd.DataFrame,
    quotes: pd.DataFrame,
    batches: pd.DataFrame,
    days: pd.DataFrame,
    averages: pd.DataFrame,
) -> dict[str, charts.Chart]:
    """Every chart, by its function's name."""
    return {
        "volume_chart": charts.volume_chart(volumes, COLOURS),
        "day_chart": charts.day_chart(days[days.date == days.date.max()], COLOURS),
        "average_chart": charts.average_chart(averages, COLOURS),
        "candle_chart": charts.candle_chart(candles, MINUTE, JAKARTA),
        "heat_map_chart": charts.heat_map_chart(quotes, JAKARTA),
        "batches_chart": charts.batches_chart(batches),
        "reasons_chart": charts.reasons_chart(pd.DataFrame({"reason": ["not_json", "bad_time", "bad_time"]})),
        "history_chart": charts.history_chart(days, COLOURS, JAKARTA),
    }


def layers(chart: charts.Chart) -> list[dict[str, Any]]:
    """The layers of a chart, each as Vega-Lite sees it, nested ones in their order."""
    return flat(json.loads(chart.layers))


def flat(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a specification."""
    return [one for layer in spec["layer"] for one in (flat(layer) if "layer" in layer else [layer])]


def rows(chart: charts.Chart) -> list[dict[str, Any]]:
    """The data of a chart, as they travel."""
    return list(json.loads(chart.rows.to_json(orient="records", date_format="iso")))


def axes(chart: charts.Chart) -> dict[str, Any]:
    """Title → axis of every axis that a chart shows; a sector's, reason's or company's own name needs no unit."""
    found = {}
    for layer in layers(chart):
        for channel in ("x", "y"):
            encoding = layer["encoding"].get(channel, {})
            if encoding.get("axis", {}) is not None and encoding.get("type") != "nominal" and encoding.get("title"):
                found[encoding["title"]] = encoding.get("axis", {})
    return found


def test_no_chart_brings_data_but_its_rows(all_charts: dict[str, charts.Chart]) -> None:
    for chart in all_charts.values():
        assert not {"data", "datasets"} & json.loads(chart.layers).keys()
        assert not any("data" in layer for layer in layers(chart))


def test_every_axis_names_its_unit(all_charts: dict[str, charts.Chart]) -> None:
    assert {name: sorted(axes(spec)) for name, spec in all_charts.items()} == {
        "volume_chart": ["Volume today (shares)"],
        "day_chart": ["Volume of the day (shares)"],
        "average_chart": ["Today so far (% of an average day)"],
        "candle_chart": ["Price (IDR)", "Time (UTC)", "Volume (shares)"],
        "heat_map_chart": [],
        "batches_chart": ["Landed at (UTC)", "Landing time (s)", "Ticks"],
        "reasons_chart": ["Dead letters"],
        "history_chart": ["Trading day (UTC)", "Volume (shares)"],
    }


def test_every_time_axis_is_utc(all_charts: dict[str, charts.Chart]) -> None:
    for spec in all_charts.values():
        for layer in layers(spec):
            x = layer["encoding"].get("x", {})
            if x.get("type") == "temporal" and "scale" in x:
                assert x["scale"]["type"] == "utc"


def test_volume_bars_are_sorted_by_the_whole_bar_and_told_by_state(volumes: pd.DataFrame) -> None:
    spec = charts.volume_chart(volumes, COLOURS)
    bars, figures = layers(spec)
    assert bars["encoding"]["y"]["sort"] == {"field": "whole", "op": "max", "order": "descending"}
    assert bars["encoding"]["x"]["scale"]["zero"] is True
    parts = [(row["sector"], row["state"], row["total_volume"], row["whole"]) for row in rows(spec)]
    assert parts == [
        ("Coal", "checked", 1_200.0, 1_234.0),
        ("Coal", "not yet checked", 4.0, 1_234.0),
        ("Coal", "failed its checks", 30.0, 1_234.0),
        ("Machinery", "checked", 86_189_937.0, 86_189_937.0),
    ]
    assert figures["encoding"]["text"] == {"field": "figure", "format": ",.0f", "type": "quantitative"}
    assert [row["figure"] for row in rows(spec)] == [1_234.0, None, None, 86_189_937.0]
    solid = bars["encoding"]["opacity"]["scale"]
    assert dict(zip(solid["domain"], solid["range"], strict=True)) == {
        state: opacity for state, (opacity, _) in charts.STATES.items()
    }


@pytest.mark.parametrize("name", ["volume_chart", "day_chart", "average_chart", "history_chart"])
def test_bars_take_their_sectors_colours(all_charts: dict[str, charts.Chart], name: str) -> None:
    scale = layers(all_charts[name])[0]["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == COLOURS


def test_a_sector_without_an_average_has_no_bar(averages: pd.DataFrame) -> None:
    spec = charts.average_chart(averages, COLOURS)
    assert [row["share"] for row in rows(spec)] == [0.5, 1.5, None]
    assert layers(spec)[1]["encoding"]["x"]["field"] == "whole_day"


@DARK
def test_candles_are_hollow_where_the_price_rose(candles: pd.DataFrame, dark: bool) -> None:
    spec = charts.candle_chart(candles, MINUTE, JAKARTA, dark=dark)
    _, wicks, bodies, hover, volumes = layers(spec)
    up, down = looks.direction_colours(dark=dark)
    assert bodies["encoding"]["fill"]["scale"] == {"domain": ["up", "down"], "range": [looks.paper(dark=dark), down]}
    assert bodies["encoding"]["stroke"]["scale"] == {"domain": ["up", "down"], "range": [up, down]}
    assert (bodies["encoding"]["y"]["field"], bodies["encoding"]["y2"]["field"]) == ("open", "close")
    assert (wicks["encoding"]["y"]["field"], wicks["encoding"]["y2"]["field"]) == ("low", "high")
    assert bodies["encoding"]["y"]["scale"]["zero"] is False
    assert volumes["encoding"]["y"]["scale"]["zero"] is True
    assert [row["direction"] for row in rows(spec)] == ["up", "down"]
    titles = [tip["title"] for tip in hover["encoding"]["tooltip"]]
    assert titles == ["From (UTC)", "Open (IDR)", "High (IDR)", "Low (IDR)", "Close (IDR)", "Volume (shares)", "Ticks"]


def test_a_gap_stays_a_gap_and_the_time_axis_covers_the_window(candles: pd.DataFrame) -> None:
    spec = charts.candle_chart(candles, MINUTE, JAKARTA)
    window, *_ = layers(spec)
    assert (window["encoding"]["x"]["field"], window["encoding"]["x2"]["field"]) == ("window_start", "window_end")
    shown = [(pd.Timestamp(row["body_start"]), pd.Timestamp(row["body_end"])) for row in rows(spec)]
    assert len(shown) == 2
    assert shown[0][1] < START + MINUTE < START + 2 * MINUTE < shown[1][0]


@pytest.mark.parametrize("name", ["candle_chart", "batches_chart"])
def test_time_charts_zoom_with_shift_and_wheel_and_leave_the_wheel_to_the_page(
    all_charts: dict[str, charts.Chart], name: str
) -> None:
    (zoom,) = json.loads(all_charts[name].layers)["params"]
    assert zoom["bind"] == "scales"
    assert zoom["select"] == {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.shiftKey]"}


def test_a_verdict_has_a_word_a_colour_and_a_shape(batches: pd.DataFrame) -> None:
    spec = charts.batches_chart(batches)
    points = layers(spec)[0]["encoding"]
    words = ["✓ passed", "! warned", "✗ failed", "… unchecked"]
    assert points["color"]["scale"]["domain"] == points["shape"]["scale"]["domain"] == words
    assert len(set(points["shape"]["scale"]["range"])) == len(set(points["color"]["scale"]["range"])) == 4
    assert [row["word"] for row in rows(spec)] == words


def test_dead_letters_are_counted_by_reason() -> None:
    spec = charts.reasons_chart(pd.DataFrame({"reason": ["bad_time", "not_json", "bad_time"]}))
    assert {row["reason"]: row["total_volume"] for row in rows(spec)} == {"bad_time": 2, "not_json": 1}


def test_days_are_stacked_in_the_order_of_the_colours(days: pd.DataFrame) -> None:
    spec = charts.history_chart(days, COLOURS, JAKARTA)
    assert [(row["day"], row["sector"], row["place"]) for row in rows(spec)] == [
        *(("2026-11-22", "Coal", SECTORS.index("Coal")), ("2026-11-23", "Coal", SECTORS.index("Coal"))),
        ("2026-11-23", "Machinery", SECTORS.index("Machinery")),
    ]


def test_tiles_are_as_large_as_what_they_stand_for_and_fill_the_whole() -> None:
    sizes = [22.0, 20.0, 14.0, 9.0, 3.0, 2.5, 0.7, 0.1]
    found = heat_map.tiles(sizes)
    areas = [(right - left) * (top - bottom) for left, top, right, bottom in found]
    assert areas == pytest.approx([size / sum(sizes) for size in sizes])
    for one, other in combinations(found, 2):
        across = min(one[2], other[2]) - max(one[0], other[0])
        along = min(one[1], other[1]) - max(one[3], other[3])
        assert min(across, along) < 1e-9, "tiles do not overlap"


@pytest.mark.parametrize("sizes", [[], [5.0], [0.0, 0.0], [1.0, 0.0]])
def test_tiles_of_few_or_nothing_are_no_error(sizes: list[float]) -> None:
    assert len(heat_map.tiles(sizes)) == len(sizes)


def test_the_heat_map_shows_the_change_as_colour_and_as_text(quotes: pd.DataFrame) -> None:
    spec = charts.heat_map_chart(quotes, JAKARTA)
    tiles, names, changes = layers(spec)
    assert tiles["encoding"]["color"]["field"] == "change"
    assert (names["encoding"]["text"]["field"], changes["encoding"]["text"]["field"]) == ("ticker", "sign")
    assert [(row["ticker"], row["sign"]) for row in rows(spec)] == [("B.JK", ""), ("A.JK", "-2.00%")]


def test_new_numbers_leave_the_specification_alone(
    volumes: pd.DataFrame, candles: pd.DataFrame, quotes: pd.DataFrame, batches: pd.DataFrame, days: pd.DataFrame
) -> None:
    """What stands on the page then takes new data without being drawn again."""

    more, dearer = volumes.assign(total_volume=volumes.total_volume * 3), candles.assign(close=1.0, high=900.0)
    assert charts.volume_chart(more, COLOURS).layers == charts.volume_chart(volumes, COLOURS).layers
    assert charts.candle_chart(dearer, MINUTE, JAKARTA).layers == charts.candle_chart(candles, MINUTE, JAKARTA).layers
    assert (
        charts.heat_map_chart(quotes.assign(market_cap=1.0), JAKARTA).layers
        == charts.heat_map_chart(quotes, JAKARTA).layers
    )
    assert charts.batches_chart(batches.head(2)).layers == charts.batches_chart(batches).layers
    assert (
        charts.history_chart(days.head(1), COLOURS, JAKARTA).layers
        == charts.history_chart(days, COLOURS, JAKARTA).layers
    )


def test_charts_of_the_same_names_do_not_share_their_data(volumes: pd.DataFrame) -> None:
    first = charts.volume_chart(volumes, COLOURS)
    charts.volume_chart(volumes.tail(1), COLOURS)
    assert len(rows(first)) == 4


# Colours


@DARK
def test_nine_sectors_have_nine_colours_whatever_their_order(dark: bool) -> None:
    colours = looks.sector_colours(SECTORS, dark=dark)
    assert len(set(colours.values())) == 9
    assert looks.sector_colours(SECTORS[::-1] + SECTORS[:3], dark=dark) == colours


@pytest.mark.parametrize("dark", [False, True])
def test_more_sectors_than_hues_have_colours_of_their_own(dark: bool) -> None:
    colours = looks.sector_colours([f"Sector {place:02}" for place in range(27)], dark=dark)
    assert len(set(colours.values())) == 27
    assert looks.paper(dark=dark) not in colours.values()


@DARK
def test_the_theme_is_legible_on_its_page(dark: bool) -> None:
    """A contrast of 4.5:1 is what WCAG 2.2 asks of text."""
    theme = looks.theme(dark=dark)
    for colour in (theme["axis"]["labelColor"], theme["axis"]["titleColor"], theme["text"]["color"]):
        assert contrast(colour, looks.paper(dark=dark)) >= 4.5


@DARK
def test_rises_and_falls_differ_for_every_kind_of_sight(dark: bool) -> None:
    up, down = looks.direction_colours(dark=dark)
    for sight in SIGHT.values():
        assert float(np.linalg.norm(lab(sight @ linear(up)) - lab(sight @ linear(down)))) >= 40


#: How people without one kind of cones see linear RGB: Machado, Oliveira and Fernandes (2009), severity 1.0.
SIGHT = {
    "full": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.95047, 1.0, 1.08883])


def linear(colour: str) -> Any:
    """Linear RGB of a colour written as #RRGGBB."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: Any) -> Any:
    """CIE L*a*b* of linear RGB, in which distance is about what the eye sees as difference."""
    scaled = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("palette", [looks.PALETTE, looks.PALETTE_ON_DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_kind_of_sight(palette: tuple[str, ...], sight: str) -> None:
    seen = {colour: lab(SIGHT[sight] @ linear(colour)) for colour in palette}
    distance, *pair = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(palette, 2))
    assert distance >= 15, pair


def test_no_colour_sinks_into_a_dark_page() -> None:
    """A contrast of 3:1 is what WCAG 2.2 asks of graphics."""
    for colour in looks.PALETTE_ON_DARK:
        assert contrast(colour, looks.paper(dark=True)) >= 3, colour


def contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG defines it, from 1 to 21."""
    dark, light = sorted(float(TO_XYZ[1] @ linear(colour)) + 0.05 for colour in (one, other))
    return light / dark
