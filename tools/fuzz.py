"""`make fuzz`: whatever is read from outside becomes ticks, dead letters or one line, for a minute of made-up input.

Hypothesis makes messages, files of ticks, feeds, settings files, backups, seeds and Spark's plans, close to what they
should be. Each run prints its seed, and `--seed` makes the same input again. Exit code 0: everything held. 1: the input
is printed for which it did not.
"""

import csv
import gzip
import hashlib
import json
import logging
import re
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Annotated, Any

import typer
import yaml
from dbt_common.clients.agate_helper import from_csv
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from producer.tick_file import OpenFile
from services.backup import FACTS, MANIFEST, read_backup
from streaming.decode_columns import ColumnDecoder
from streaming.stream_ticks import ScratchDamaged, planned_offsets
from streaming.tick_columns import whole
from tests.support.hostile import HOSTILE
from tests.support.poison import GOOD, mutated
from tests.support.shapes import messages
from tickledger.decode import Decoder
from tickledger.errors import TickledgerError, run_command
from tickledger.feed import read_feed
from tickledger.plain_text import plain
from tickledger.settings import PROJECT_ROOT, load_settings
from tickledger.tick import parse_created_at

_SHARES = {"TMAS.JK": 57_050_000_000, "DWGL.JK": 9_270_000_000}
SECTORS = {"TMAS.JK": "Logistics & Deliveries", "DWGL.JK": "Coal"}
MESSAGE_MS = parse_created_at(GOOD["created_at"]) + 1000
#: Examples of one target before the next has its turn.
EXAMPLES = 60
#: Stands where a password would, and is looked for in every error.
MARK = "words-of-the-fuzzer"

_hostile = st.sampled_from([*HOSTILE.values()])
_cells = (
    _hostile | st.text(max_size=20) | st.sampled_from([str(value) for value in GOOD.values()] + ["", "1e309", "-0"])
)
_EXAMPLE = (PROJECT_ROOT / ".env.example").read_text().splitlines()
_names = st.sampled_from([line.partition("=")[0] for line in _EXAMPLE if "=" in line and line[0] != "#"])


@st.composite
def _files_of_ticks(draw: st.DrawFn) -> bytes:
    """A CSV, JSON lines or a document, sometimes cut, packed or with bytes that are no text."""
    if draw(st.booleans()):
        content = b"\n".join(draw(st.lists(messages(), max_size=3)))
    else:
        delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
        names = draw(st.permutations([*GOOD])) + draw(st.lists(_cells, max_size=2))
        rows = draw(st.lists(st.lists(_cells, max_size=9), max_size=5))
        content = "\n".join(delimiter.join(row) for row in [names, *rows]).encode("utf-8", "surrogatepass")
    if draw(st.booleans()):
        content += draw(st.binary(max_size=40))
    if draw(st.booleans()):
        content = content.replace(b"1", b"9" * draw(st.sampled_from([20, 400, 5000])), 1)
    content = gzip.compress(content, mtime=0) if draw(st.booleans()) else content
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


@st.composite
def _settings_files(draw: st.DrawFn) -> str:
    """`.env.example` with passwords, some lines changed, left out or made up."""
    lines = [f"{line}{MARK}" if line.endswith("_PASSWORD=") else line for line in _EXAMPLE]
    for _ in range(draw(st.integers(0, 4))):
        line = f"{draw(_names)}={draw(_cells)}"
        at = draw(st.integers(0, len(lines) - 1))
        lines[at : at + draw(st.integers(0, 1))] = [line]
    return "\n".join(lines)


_tried = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
)


@_tried
@given(st.lists(messages(), max_size=3))
def decoder(values: list[bytes]) -> None:
    """Messages become ticks and dead letters, the same one by one and at once."""
    at_once = ColumnDecoder(SECTORS).decode(whole(range(len(values))), whole([MESSAGE_MS] * len(values)), values)
    ticks: list[tuple[Any, int]] = []
    dead: dict[tuple[int, int], Any] = {}
    for offset, value in enumerate(values):
        decoded = Decoder(SECTORS).decode(value, MESSAGE_MS)
        ticks += [(tick, offset) for _, tick in decoded.ticks]
        dead |= {(offset, letter.position): letter for letter in decoded.dead}
        assert decoded.ticks or decoded.dead, "it is accounted for"
    assert list(zip(at_once.ticks.ticks(), at_once.ticks.offset.tolist(), strict=True)) == ticks
    assert at_once.dead == dead


@_tried
@given(_files_of_ticks())
def tick_file(content: bytes) -> None:
    """A file of ticks is read to its end, or refused in one line."""

    def read(folder: Path) -> None:
        (folder / "ticks").write_bytes(content)
        file = OpenFile(folder / "ticks")
        try:
            for row in file.rows():
                assert plain(row.place).isprintable()
        finally:
            file.close()

    _one_line(read)


@_tried
@given(_settings_files())
def env_file(text: str) -> None:
    """A settings file holds, or is refused in one line that has no secret."""

    def read(folder: Path) -> None:
        (folder / ".env").write_text(text, encoding="utf-8", errors="replace")
        assert MARK not in repr(load_settings(folder / ".env"))

    _one_line(read)


_FEEDS = sorted((PROJECT_ROOT / "feeds").glob("*.yml"))
_SAMPLES = [
    line
    for path in sorted((PROJECT_ROOT / "feeds" / "samples").iterdir())
    for line in (path.read_bytes(), *path.read_bytes().splitlines())
]
_words = st.sampled_from(
    [
        *("path", "first_of", "joined", "digest_of", "constant", "number", "times", "time", "zone", "values", "ticks"),
        *(
            "text",
            "json",
            "iso",
            "epoch_s",
            "epoch_ns",
            "from_profile",
            "price_times_shares",
            "Asia/Jakarta",
            "%d/%m/%Y",
        ),
        *("array", "object", "lines", "csv", "keep", "refuse", "data", "/type", "a.b", "*a", "&a", "!!int", "9" * 400),
        *(
            "[",
            "]",
            "{",
            "}",
            ":",
            "- ",
            "  ",
            "'",
            '"',
            "1",
            "0",
            "-1",
            "1e400",
            "null",
            "true",
            "\t",
            "\n",
            "\0",
            "%",
        ),
    ]
)


@st.composite
def _feed_files(draw: st.DrawFn) -> str:
    """A ready description, some lines of which are left out, doubled, of another one, or made up."""
    lines = draw(st.sampled_from(_FEEDS)).read_text().splitlines()
    others = draw(st.sampled_from(_FEEDS)).read_text().splitlines()
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        key, colon, value = lines[at].partition(":")
        word, other = draw(_words), draw(_words)
        made_up = [
            draw(st.sampled_from(others)),
            f"{key}{colon}",
            f"{key}: {word}",
            f"{key}: {{{word}: {other}}}",
            f"{lines[at]}{word}",
            f"{key.replace(key.strip() or ' ', word)}:{value}",
            draw(_cells),
        ][draw(st.integers(0, 6))]
        lines[at : at + draw(st.integers(0, 1))] = [made_up]
    return "\n".join(lines)


_of_feeds = (
    st.builds(lambda value, number: mutated(Random(number), value), st.sampled_from(_SAMPLES), st.integers(0, 2**32))
    | st.sampled_from(_SAMPLES)
    | messages()
    | st.none()
)


@_tried
@given(_feed_files(), st.lists(_of_feeds, max_size=3))
def feed_file(text: str, values: list[bytes | None]) -> None:
    """A description is refused in one line, or makes ticks and dead letters of messages, one by one and at once."""

    def read(folder: Path) -> None:
        (folder / "feed.yml").write_text(text, encoding="utf-8", errors="surrogateescape")
        feed = read_feed(folder / "feed.yml")
        at_once = ColumnDecoder(SECTORS, feed=feed, shares=_SHARES)
        found = at_once.decode(whole(range(len(values))), whole([MESSAGE_MS] * len(values)), values)
        alone = [Decoder(SECTORS, feed=feed, shares=_SHARES).decode(value, MESSAGE_MS) for value in values]
        assert all(one.ticks or one.dead or one.revisions for one in alone), "it is accounted for"
        ticks = [(tick, offset) for offset, one in enumerate(alone) for _, tick in one.ticks]
        assert list(zip(found.ticks.ticks(), found.ticks.offset.tolist(), strict=True)) == ticks
        assert found.dead == {(at, letter.position): letter for at, one in enumerate(alone) for letter in one.dead}
        for letter in found.dead.values():
            Decoder(SECTORS, feed=feed).decode(feed.message_of(letter.raw_value), MESSAGE_MS)

    _one_line(read)


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.dictionaries(_cells, inner) | st.lists(inner)


_plans = st.recursive(_cells | st.integers() | st.none(), _nested)
_columns = st.dictionaries(
    st.sampled_from(["profile", "real_time_data", "../outside"]) | _cells,
    st.lists(st.sampled_from(["ticker", "id"]) | _cells) | _plans,
    max_size=3,
)
_facts = st.fixed_dictionaries(
    {"format": st.sampled_from([1, 2]) | _cells, "topic": _cells, "mysql": _columns, "cassandra": _columns}
)


@_tried
@given(_facts | _plans, st.sampled_from(["right", "wrong", "none"]) | _cells)
def backup(facts: Any, manifest: str) -> None:
    """A backup is what its manifest says, and holds what the stores have a place for, or is refused."""

    def read(folder: Path) -> None:
        (folder / FACTS).write_text(json.dumps(facts))
        tables = [name for name in ("profile", "real_time_data") if name in repr(facts)]
        for name in tables:
            (folder / f"{name}.jsonl.gz").write_bytes(b"")
        if manifest != "none":
            files = [FACTS, *(f"{name}.jsonl.gz" for name in tables)]
            sums = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
            written = sums if manifest == "right" else manifest
            (folder / MANIFEST).write_text(written, encoding="utf-8", errors="replace")
        found = read_backup(folder)
        assert manifest == "right"
        assert {*found.mysql, *found.cassandra} <= set(tables)
        assert {*found.mysql.get("profile", ())} <= {"ticker", "company_name", "sector", "shares"}

    _one_line(read)


@_tried
@given(_plans, st.sampled_from(["v1\n{}\n", "v1\n{}\n{}", "{", ""]))
def spark_plan(value: Any, shape: str) -> None:
    """What Spark wrote of a batch is read, or is damaged."""

    def read(folder: Path) -> None:
        (folder / "offsets").mkdir()
        text = shape.replace("{}", json.dumps(value))
        (folder / "offsets" / "0").write_text(text, encoding="utf-8", errors="replace")
        planned_offsets(folder, 0)

    _one_line(read)


_DBT = PROJECT_ROOT / "dbt_project"
_SEED = yaml.safe_load((_DBT / "seeds" / "profile.yml").read_text())["seeds"][0]
_SEED_TYPES: dict[str, str] = _SEED["config"]["column_types"]


class _Returned(Exception):
    """What dbt's `return` does: it ends a macro with a value."""


def _return(value: object) -> None:
    raise _Returned(value)


def _seed_check() -> Callable[[Any], list[str]]:
    """`unclear_rows` of macros/seed.sql, as dbt runs it, on the rows of the CSV."""
    text = (_DBT / "macros" / "seed.sql").read_text()
    names = ("unclear_rows", "unclear_value", "unseen_characters")
    found = [re.search(rf"{{% macro {name}\(.*?{{% endmacro %}}", text, re.DOTALL) for name in names]
    environment = SandboxedEnvironment(extensions=["jinja2.ext.do"])
    environment.globals |= {
        "config": _SEED["config"],
        "model": {"columns": {column["name"]: column for column in _SEED["columns"]}},
        "modules": {"re": re},
        "tojson": json.dumps,
        "return": _return,
    }
    macros: Any = environment.from_string("".join(one[0] for one in found if one)).module

    def check(rows: Any) -> list[str]:
        try:
            macros.unclear_rows(rows)
        except _Returned as returned:
            problems: list[str] = returned.args[0]
            return problems
        raise AssertionError("it returns nothing")

    return check


_unclear_rows = _seed_check()
#: Letters by Unicode of which nothing is seen.
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe00\ufe0f"
_seed_cells = (
    _cells
    | st.sampled_from(["ARKA.JK", "Coal", "null", " Coal", "1", "0", "\u0661", "9" * 18, "9" * 19])
    | st.sampled_from(["x" * 33, "x" * 65, "x" * 129, *(f"Co{one}al" for one in _UNSEEN)])
)


@_tried
@given(st.lists(st.lists(_seed_cells, min_size=3, max_size=5), max_size=4))
def seed_file(rows: list[list[str]]) -> None:
    """Of a seed, what `dbt seed` does not refuse is what its table says, and is shown as it is."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "profile.csv")
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            csv.writer(file, lineterminator="\n").writerows([[*_SEED_TYPES], *rows])
        try:
            table: Any = from_csv(str(path), list(_SEED_TYPES))
        except ValueError:
            # dbt tells it as an error of the seed.
            return
    problems = _unclear_rows(table)
    assert all(one.isprintable() for one in problems)
    refused = {int(one.removeprefix("row ").partition(":")[0]) for one in problems}
    tickers = set()
    for row in (row for number, row in enumerate(table.rows, 1) if number not in refused):
        for column, kind in _SEED_TYPES.items():
            assert row[column] is not None
            if kind.startswith("varchar"):
                assert len(row[column]) <= int(kind[8:-1])
                assert plain(row[column]) == row[column]
                assert not set(row[column]) & set(_UNSEEN)
        assert re.fullmatch("[1-9][0-9]{0,17}", row["shares"])
        for column in _SEED["config"]["meta"]["told_apart"]:
            assert row[column].strip() == row[column]
        assert row["ticker"] not in tickers
        tickers.add(row["ticker"])


def _one_line(read: Callable[[Path], None]) -> None:
    """Read in a folder of its own; what is refused is refused in one line without a secret."""
    said = ""
    with tempfile.TemporaryDirectory() as name:
        try:
            read(Path(name))
        except (TickledgerError, ScratchDamaged) as error:
            said = plain(error)
    assert "\n" not in said
    assert MARK not in said


TARGETS = (decoder, tick_file, feed_file, env_file, backup, spark_plan, seed_file)


def fuzz(seconds: float, first: int) -> int:
    """Give each target its turn until the time is over; how many examples were tried."""
    until, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        for target in TARGETS:
            try:
                seed(first + rounds)(target)()
            except BaseException:
                print(f"{target.__name__} does not hold: python -m tools.fuzz --seed {first + rounds}", flush=True)
                raise
        rounds += 1
    return rounds * EXAMPLES * len(TARGETS)


def main(
    seconds: Annotated[float, typer.Option(min=1, help="How long; each target has at least one turn.")] = 60,
    first: Annotated[int, typer.Option("--seed", help="Where to begin; -1 takes another each time.")] = -1,
) -> None:
    """Fuzz what reads from outside."""
    # It warns of each line that is none.
    logging.getLogger("dotenv").setLevel(logging.CRITICAL)
    first = secrets.randbelow(2**31) if first < 0 else first
    print(f"fuzzing {', '.join(target.__name__ for target in TARGETS)} for {seconds:g} s, --seed {first}", flush=True)
    print(f"{fuzz(seconds, first):,} examples, and everything held", flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    run_command(lambda: app(prog_name="python -m tools.fuzz"))
