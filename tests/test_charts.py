"""Charts, by their specification and their data."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dashboard import charts

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


@pytest.fixture
def volumes() -> pd.DataFrame:
    return pd.DataFrame({"sector": ["Coal", "Machinery"], "total_volume": [1_200.0, 86_189_937.0]})


@pytest.fixture
def prices() -> pd.DataFrame:
    moments = pd.to_datetime(["2026-11-23 03:00:00.000", "2026-11-23 03:00:01.500"], utc=True)
    return pd.DataFrame({"ticker": "TMAS.JK", "created_at": moments, "price": [550.0, 551.25]})


def layers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The layers of a specification, each as Vega-Lite sees it."""
    return list(spec["layer"])


def rows(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The data of a specification."""
    return list(spec["datasets"][spec["data"]["name"]])


def test_volume_bars_are_sorted_by_volume_with_units(volumes: pd.DataFrame) -> None:
    spec = charts.volume_chart(volumes, charts.sector_colours(SECTORS)).to_dict()
    bars, figures = layers(spec)
    assert bars["mark"]["type"] == "bar"
    assert bars["encoding"]["y"]["field"] == "sector"
    assert bars["encoding"]["y"]["sort"] == {"field": "total_volume", "op": "max", "order": "descending"}
    assert bars["encoding"]["x"]["title"] == "Volume today (shares)"
    assert bars["encoding"]["x"]["scale"]["zero"] is True
    assert figures["encoding"]["text"] == {"field": "total_volume", "format": ",.0f", "type": "quantitative"}
    assert rows(spec) == volumes.to_dict("records")


def test_bars_take_their_sectors_colours(volumes: pd.DataFrame) -> None:
    colours = charts.sector_colours(SECTORS)
    bars = layers(charts.volume_chart(volumes, colours).to_dict())[0]
    scale = bars["encoding"]["color"]["scale"]
    assert dict(zip(scale["domain"], scale["range"], strict=True)) == colours


@pytest.mark.parametrize("dark", [False, True])
def test_nine_sectors_have_nine_colours_whatever_their_order(dark: bool) -> None:
    colours = charts.sector_colours(SECTORS, dark=dark)
    assert len(set(colours.values())) == 9
    assert charts.sector_colours(SECTORS[::-1] + SECTORS[:3], dark=dark) == colours


def test_a_tenth_sector_has_a_colour_too() -> None:
    assert set(charts.sector_colours([*SECTORS, "Water"])) == {*SECTORS, "Water"}


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


@pytest.mark.parametrize("palette", [charts.PALETTE, charts.PALETTE_ON_DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_kind_of_sight(palette: tuple[str, ...], sight: str) -> None:
    seen = {colour: lab(SIGHT[sight] @ linear(colour)) for colour in palette}
    distance, *pair = min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(palette, 2))
    assert distance >= 15, pair


def test_no_colour_sinks_into_a_dark_page() -> None:
    """A contrast of 3:1 is what WCAG 2.2 asks of graphics."""
    page = TO_XYZ[1] @ linear("#0e1117") + 0.05
    for colour in charts.PALETTE_ON_DARK:
        assert (TO_XYZ[1] @ linear(colour) + 0.05) / page >= 3, colour


def test_price_axis_does_not_start_at_zero_and_time_is_utc(prices: pd.DataFrame) -> None:
    spec = charts.price_chart(prices, "#117733").to_dict()
    line, points = layers(spec)
    assert line["mark"] | {"type": "line", "color": "#117733"} == line["mark"]
    assert line["encoding"]["y"]["scale"]["zero"] is False
    assert line["encoding"]["y"]["title"] == "Price (IDR)"
    assert line["encoding"]["x"]["scale"]["type"] == "utc"
    assert line["encoding"]["x"]["title"] == "Time (UTC)"
    assert [tip["title"] for tip in points["encoding"]["tooltip"]] == ["Time (UTC)", "Price (IDR)"]
    assert [(row["moment"], row["price"]) for row in rows(spec)] == [("03:00:00", 550.0), ("03:00:01", 551.25)]


def test_new_numbers_leave_the_specification_alone(volumes: pd.DataFrame, prices: pd.DataFrame) -> None:
    """What stands on the page then takes new data without being drawn anew."""

    def bare(spec: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in spec.items() if key not in ("data", "datasets")}

    colours = charts.sector_colours(SECTORS)
    later = volumes.assign(total_volume=[90_000_000.0, 1.0])
    assert bare(charts.volume_chart(volumes, colours).to_dict()) == bare(charts.volume_chart(later, colours).to_dict())
    dearer = prices.assign(price=[900.0, 901.0])
    assert bare(charts.price_chart(prices, "#117733").to_dict()) == bare(
        charts.price_chart(dearer, "#117733").to_dict()
    )
