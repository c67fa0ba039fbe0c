"""What dbt knows of what is made from what, as a graph in docs/lineage.md.

python -m tools.lineage     # writes the page; needs no server
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tickledger.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "lineage.md"
#: By kind of node: how Mermaid draws it, and its line of the legend.
SHAPES = {
    "source": ("[({})]", "barrel: outside of MySQL, in Kafka or Cassandra"),
    "seed": ("[/{}/]", "slanted: a seed"),
    "table": ("[{}]", "box: a table that the stream, its checks, `tickledger fill-hours` or `roll-up` fill"),
    "view": ("([{}])", "rounded: a view"),
    "exposure": ("{{{{{}}}}}", "hexagon: who reads it"),
}
Edges = set[tuple[str, str]]


def manifest(project: Path = PROJECT_ROOT / "dbt_project") -> dict[str, Any]:
    """dbt's manifest of a project. Raises CalledProcessError if dbt cannot parse it."""
    dbt, profiles = Path(sys.executable).with_name("dbt"), PROJECT_ROOT / "tests" / "dbt_parse"
    with tempfile.TemporaryDirectory() as folder:
        command = f"--quiet --log-path {folder} parse --target-path {folder}".split()
        options = ("--project-dir", str(project), "--profiles-dir", str(profiles))
        subprocess.run([str(dbt), *command, *options], check=True, timeout=300)
        found: dict[str, Any] = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    return found


def kinds(manifest: dict[str, Any]) -> dict[str, str]:
    """What each node is, a key of :data:`SHAPES`, by its id; tests are no nodes here."""
    models = {"view": "view", "seed": "seed"}
    found = {
        node["unique_id"]: models.get(node["config"]["materialized"], "table")
        for node in manifest["nodes"].values()
        if node["resource_type"] in ("model", "seed")
    }
    return found | dict.fromkeys(manifest["sources"], "source") | dict.fromkeys(manifest["exposures"], "exposure")


def edges(manifest: dict[str, Any]) -> Edges:
    """(what is used, what is made from it or reads it), by id; for a source of Cassandra what its `made_of` says."""
    known = kinds(manifest)
    parents: dict[str, list[str]] = {child: manifest["parent_map"].get(child, []) for child in known}
    for name, source in manifest["sources"].items():
        parents[name] = source["meta"].get("made_of", [])
    return {(parent, child) for child, those in parents.items() for parent in those if parent in known}


def page(manifest: dict[str, Any]) -> str:
    """The page's text, the same for the same manifest."""
    known, found = kinds(manifest), edges(manifest)
    nodes = sorted({node for edge in found for node in edge}, key=lambda node: (list(SHAPES).index(known[node]), node))
    lines = [f"    {_name(node)}{SHAPES[known[node]][0].format(_name(node))}" for node in nodes]
    lines += [f"    {_name(parent)} --> {_name(child)}" for parent, child in sorted(found)]
    legend = "\n".join(f"- {meaning}" for _, meaning in SHAPES.values())
    return f"""# Lineage

What is made from what, from the feed to the page. `python -m tools.lineage` writes this page from dbt's manifest;
change the models' SQL or YAML instead. `cd dbt_project && dbt docs generate && dbt docs serve` shows the same with
descriptions, columns and tests.

```mermaid
flowchart LR
{chr(10).join(lines)}
```

{legend}
"""


def drawn(text: str) -> Edges:
    """The edges of a page, by name."""
    arrows = [line.split(" --> ") for line in text.splitlines() if " --> " in line]
    return {(parent.strip(), child.strip()) for parent, child in arrows}


def _name(node: str) -> str:
    return node.rpartition(".")[2]


def main() -> None:
    """Write the page."""
    argparse.ArgumentParser(description="Write docs/lineage.md from dbt's manifest.").parse_args()
    PAGE.write_text(page(manifest()), encoding="utf-8")
    print(PAGE.relative_to(PROJECT_ROOT))


if __name__ == "__main__":
    main()
