"""Fields of one's own: a line in the definition, and they are checked, packed and read back; a bad one is one line."""

import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tickledger.errors import ConfigurationError
from tickledger.own_fields import check_own_fields
from tickledger.settings import PROJECT_ROOT
from tickledger.tick import TickField

#: Definitions of the line in tickledger/tick.py.
DEFINITIONS = {
    "every kind, optional": (
        'TickField("venue", "text", 0, 16, "", optional=True), TickField("lots", "whole", -9, 9, "", optional=True),'
        'TickField("fee", "decimal", -5, 10**30, "", optional=True),'
        'TickField("due_at", "time", 0, 0, "", optional=True),'
    ),
    "every kind, required": (
        'TickField("venue", "text", 1, 16, ""), TickField("lots", "whole", -9, 9, ""),'
        'TickField("fee", "decimal", -5, 10**30, ""), TickField("due_at", "time", 0, 0, ""),'
    ),
    "every kind, with defaults": (
        'TickField("venue", "text", 1, 16, "", optional=True, default="IDX"),'
        'TickField("lots", "whole", -9, 9, "", optional=True, default=1),'
        'TickField("fee", "decimal", -5, 10**30, "", optional=True, default=0.25),'
        'TickField("due_at", "time", 0, 0, "", optional=True, default="2024-08-27T00:00:00Z"),'
    ),
}
#: Tests that know nothing of them. With required ones, what they send is broken.
OTHERS = (
    "tests/test_decode.py",
    "tests/test_decode_columns.py",
    "tests/test_tick_packing.py",
    "tests/test_tick_columns.py",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("definition", DEFINITIONS.values(), ids=DEFINITIONS)
def test_a_line_in_the_definition_is_enough(definition: str, tmp_path: Path) -> None:
    for name in ("tickledger", "streaming", "services", "tests", "expectations", "dbt_project", "producer", "commands"):
        ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
        shutil.copytree(PROJECT_ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(PROJECT_ROOT / "pyproject.toml", tmp_path)
    file, before = tmp_path / "tickledger" / "tick.py", "OWN_FIELDS: list[TickField] = []"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, f"OWN_FIELDS: list[TickField] = [{definition}]"))

    others = OTHERS if "optional" in definition and "default" not in definition else ()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/own_fields_defined.py", *others],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def field(name: str = "venue", kind: Any = "text", minimum: int = 1, maximum: int = 16, **more: Any) -> TickField:
    return TickField(name, kind, minimum, maximum, "", **more)


BAD: dict[str, tuple[Iterable[TickField], str]] = {
    "a keyword of CQL": ([field("token")], "'token' .* a keyword of CQL"),
    "a keyword of SQL": ([field("rank")], "'rank' .* a keyword of SQL"),
    "one of the tick's own": ([field("price")], "'price' .* there is a field"),
    "one that a file's header may mean too": ([field("marketcap")], "'marketcap' .* there is a field"),
    "what landing adds": ([field("kafka_offset")], "'kafka_offset' .* there is a field"),
    "a column of the checks": ([field("price_ratio")], "'price_ratio' .* there is a field"),
    "one twice": ([field(), field()], "'venue' .* there is a field"),
    "capitals": ([field("Venue")], "'Venue' .* lower-case"),
    "what is no name": ([field("venue; --")], "lower-case"),
    "bounds the wrong way round": ([field(minimum=17)], "minimum 17 is above its maximum 16"),
    "bounds that are no numbers": ([field(minimum="1")], "bounds '1' and 16 should be whole numbers"),  # type: ignore[arg-type]
    "a fraction for a bound": ([field(maximum=1.5)], "should be whole numbers"),  # type: ignore[arg-type]
    "a default that UTF-8 has not": ([field(optional=True, default="\ud800")], "text that UTF-8 can hold"),
    "a text longer than a request takes": ([field(maximum=10_000)], "bounds should lie from 0 to 4000"),
    "a number beyond bigint": ([field(kind="whole", maximum=2**63)], "bounds should lie from"),
    "a kind that there is not": ([field(kind="bool")], "its kind 'bool' should be text, whole, decimal or time"),
    "a default of a required one": ([field(default="IDX")], "has a default, so it should be optional"),
    "a default that is too long": ([field(optional=True, default="I" * 17)], "default does not fit: .* 1 to 16"),
    "a default of another kind": ([field(optional=True, default=1)], "default does not fit: venue is a number"),
    "a fraction for a whole one": ([field(kind="whole", optional=True, default=1.5)], "default does not fit"),
    "a default that is no time": ([field(kind="time", optional=True, default="today")], "default does not fit"),
}


@pytest.mark.parametrize(("fields", "said"), BAD.values(), ids=BAD)
def test_a_bad_definition_is_one_line(fields: Iterable[TickField], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as told:
        check_own_fields(fields)
    assert "\n" not in str(told.value)


def test_no_program_begins_with_a_bad_definition(tmp_path: Path) -> None:
    shutil.copytree(PROJECT_ROOT / "tickledger", tmp_path / "tickledger")
    shutil.copytree(PROJECT_ROOT / "producer", tmp_path / "producer")
    file = tmp_path / "tickledger" / "tick.py"
    file.write_text(
        file.read_text().replace(
            "OWN_FIELDS: list[TickField] = []", 'OWN_FIELDS = [TickField("select", "text", 1, 16, "")]'
        )
    )

    done = subprocess.run(
        [sys.executable, "-m", "producer", "trading_data"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: field 'select' of tickledger/tick.py: its name is a keyword of CQL\n"
