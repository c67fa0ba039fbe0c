"""The way from feed and seed to view and page, as dbt knows it, as the docs draw it, and as the page's code goes it."""

import re
from typing import Any

import pytest

from tickledger.settings import PROJECT_ROOT
from tools.lineage import PAGE, drawn, edges, kinds, manifest, page


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return manifest()


def upstream(found: set[tuple[str, str]], node: str) -> set[str]:
    """All that a node is made from."""
    above = {parent for parent, child in found if child == node}
    return above.union(*(upstream(found, parent) for parent in above))


def test_the_way_leads_from_feed_and_seed_to_every_view_and_to_the_page(known: dict[str, Any]) -> None:
    found = edges(known)
    for node, kind in kinds(known).items():
        if kind == "view" or node.endswith("exposure.tickledger.dashboard"):
            assert {"source.tickledger.kafka.trading_data", "seed.tickledger.profile"} <= upstream(found, node), node
    assert upstream(found, "source.tickledger.cassandra.real_time_data")


def test_every_source_and_exposure_is_described(known: dict[str, Any]) -> None:
    nodes = [*known["sources"].values(), *known["exposures"].values()]
    assert len(nodes) >= 5
    assert all(node["description"] for node in nodes)


def test_the_page_of_the_docs_is_what_dbt_knows(known: dict[str, Any]) -> None:
    """A view that is not drawn yet is no error; `python -m tools.lineage` draws it."""
    text = PAGE.read_text(encoding="utf-8")
    names = {node.rpartition(".")[2]: kind for node, kind in kinds(known).items()}
    shown = {name for edge in drawn(text) for name in edge}
    missing = {name for name, kind in names.items() if kind == "view" and name not in shown}
    assert drawn(text) == {edge for edge in drawn(page(known)) if missing.isdisjoint(edge)}
    if not missing:
        assert text == page(known), "python -m tools.lineage"


def test_the_dashboards_exposure_names_all_that_its_code_reads(known: dict[str, Any]) -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (PROJECT_ROOT / "dashboard").glob("*.py"))
    read = set(re.findall(r"""(?:\b(?:FROM|JOIN) |_read\(reader, ")([a-z_]+)""", code))
    parents = known["parent_map"]["exposure.tickledger.dashboard"]
    assert read - {parent.rpartition(".")[2] for parent in parents} == set()
