"""The runbook against the faults: each kind that `make faults` tries has its entry, and no other has one."""

import re

from tickledger.settings import PROJECT_ROOT
from tools.cluster_kinds import CLUSTER_KINDS
from tools.fault_kinds import KINDS
from tools.network_kinds import NETWORK_KINDS


def test_every_kind_of_fault_has_its_entry() -> None:
    text = (PROJECT_ROOT / "docs" / "runbook.md").read_text()
    (table,) = re.findall(r"^\| fault \|.*?\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()]

    tried = [kind.name for kind in (*KINDS, *CLUSTER_KINDS, *NETWORK_KINDS)]
    assert sorted(name for row in rows for name in row[0].split("<br>")) == sorted(tried)
    assert [row for row in rows if len(row) != 4 or not all(row)] == []
