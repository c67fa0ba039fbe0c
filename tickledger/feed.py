"""A feed, described: where its messages hold ticks, and how these are written. Read from YAML, checked line by line.

docs/feeds.md explains each key. `tickledger.feed_reader` does what a description says.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from tickledger.errors import ConfigurationError
from tickledger.revisions import RevisionKind
from tickledger.row_rules import RowRuleBroken, rule_of
from tickledger.tick import TICK_FIELDS, TickField

#: Expectations that hold for some feeds alone: expectations/suites.py has them, FEED_RULES or a feed's file asks.
FeedRule = Literal["id_is_unique", "one_tick_a_symbol_and_round", "size_is_usual", "market_cap_is_price_times_shares"]
#: A description is a page; what is longer is none.
MOST_BYTES, MOST_DEPTH = 256 * 1024, 20
#: A sector, or a market capitalisation, that no message holds.
FROM_PROFILE, PRICE_TIMES_SHARES = "from_profile", "price_times_shares"
#: How a time may be counted, and the milliseconds that one of it is, as a fraction.
EPOCHS = {"epoch_s": (1000, 1), "epoch_ms": (1, 1), "epoch_us": (1, 1000), "epoch_ns": (1, 10**6)}
ISO = "iso"
#: A message of any feed that holds elements as the lab writes them, begins so: what is kept of an expired correction.
LABS_HEAD, LABS_TAIL = b'{"tickledger.lab": [', b"]}"
#: What a replay of dead letters puts into an element that a person has said is a correction, whatever the feed's marks.
MARKED = "tickledger.revision"
JSON_MARK = f', "{MARKED}": "{RevisionKind.CORRECTION}"'.encode()
CSV_MARK = f"{MARKED}={RevisionKind.CORRECTION}".encode()

_FIELDS = {field.name: field for field in TICK_FIELDS}
_OF_A_FIELD = {FROM_PROFILE: "sector", PRICE_TIMES_SHARES: "market_cap"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _spelt_out(value: Any) -> Any:
    """A field's source that is a text alone: a path, or what is computed."""
    if isinstance(value, str):
        return {"computed" if value in _OF_A_FIELD else "path": value}
    return value


Path_ = Annotated[StrictStr, Field(min_length=1)]
Paths = Annotated[tuple[Path_, ...], Field(min_length=1)]
Mark = StrictStr | StrictBool | StrictInt


class Source(_Part):
    """Where a value comes from, which is one of the first six, and how it is written."""

    path: Path_ | None = None
    first_of: Paths | None = None
    joined: Paths | None = None
    digest_of: Paths | None = None
    constant: StrictInt | StrictFloat | StrictStr | None = None
    computed: Literal["from_profile", "price_times_shares"] | None = None

    number: Literal["json", "text"] | None = None
    times: Annotated[StrictInt, Field(ge=1, le=10**18)] | None = None
    decimal_point: Literal[".", ","] | None = None
    time: StrictStr | None = None
    zone: StrictStr | None = None
    values: dict[StrictStr, StrictStr] | None = None

    def paths(self) -> tuple[str, ...]:
        """All paths that it reads."""
        return ((self.path,) if self.path else ()) + tuple(
            path for some in (self.first_of, self.joined, self.digest_of) for path in some or ()
        )


AnySource = Annotated[Source, BeforeValidator(_spelt_out)]


class RevisionMarks(_Part):
    """What marks a correction or a cancellation. Null, an empty text, and what `ticks` names mark a tick."""

    path: Path_
    corrections: tuple[Mark, ...] = ()
    cancellations: tuple[Mark, ...] = ()
    ticks: tuple[Mark, ...] = ()
    revised_at: AnySource | None = None


class CsvLayout(_Part):
    """How lines of CSV are parted. Without `columns` the first line of each message names them."""

    delimiter: Annotated[StrictStr, Field(min_length=1, max_length=1)] = ","
    columns: Paths | None = None


class Feed(_Part):
    """One feed. `ticks` is the path to them in an object; `ignored` are paths that are read by nobody, knowingly."""

    name: Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,47}$")]
    messages: Literal["array", "object", "lines", "csv"]
    ticks: Path_ | None = None
    csv: CsvLayout = CsvLayout()
    numbers: Literal["json", "text"] = "json"
    fields: dict[StrictStr, AnySource]
    revision: RevisionMarks | None = None
    unknown_fields: Literal["keep", "refuse", "ignore"] = "keep"
    ignored: tuple[Path_, ...] = ()
    rules: tuple[FeedRule, ...] = ()

    def __hash__(self) -> int:
        """Settings that hold a feed are looked up by."""
        return hash(self.model_dump_json())

    def sources(self) -> Iterator[tuple[tuple[str, ...], TickField | None, Source]]:
        """Each source with its place in the file, and its field: None for a revision's time."""
        for name, source in self.fields.items():
            yield ("fields", name), _FIELDS.get(name), source
        if self.revision is not None and self.revision.revised_at is not None:
            yield ("revision", "revised_at"), None, self.revision.revised_at

    def reads_text(self, source: Source) -> bool:
        """Whether its numbers are texts."""
        return (source.number or ("text" if self.messages == "csv" else self.numbers)) == "text"

    @property
    def reads_the_labs(self) -> bool:
        """Whether the messages of `python -m producer` are such messages."""
        return self.messages == "array" and all(one == Source(path=name) for name, one in self.fields.items())

    @property
    def computed_fields(self) -> frozenset[str]:
        """The fields of which a tick's values depend on its company's row of `profile`."""
        return frozenset(name for name, source in self.fields.items() if source.computed)

    @property
    def needs_profile(self) -> bool:
        """Whether there are any of these."""
        return bool(self.computed_fields)

    def message_of(self, raw_value: bytes) -> bytes:
        """The message that holds one element alone, from what a dead letter keeps of it."""
        if self.messages == "array" and raw_value.startswith(LABS_HEAD):
            return raw_value
        return b"[" + raw_value + b"]" if self.messages == "array" else raw_value


class _Problem(NamedTuple):
    """What is wrong, and the keys that lead to it."""

    place: tuple[Any, ...]
    text: str


def read_feed(path: Path) -> Feed:
    """A feed's description. Raises ConfigurationError with the line of the first thing that is wrong."""
    try:
        content = path.read_bytes()[: MOST_BYTES + 1]
        if len(content) > MOST_BYTES:
            raise ConfigurationError(f"{path} is no description of a feed: it has over {MOST_BYTES:,} bytes")
        found, lines = _read_yaml(content.decode())
        feed = Feed.model_validate(found)
        problem = next(_problems(feed), None)
    except OSError as error:
        raise ConfigurationError(f"{path} is no description of a feed: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is no description of a feed: it is not UTF-8") from None
    except _NotRead as error:
        raise ConfigurationError(f"{path}, line {error.line}: {error.why}") from None
    except ValidationError as invalid:
        problem = _said(invalid.errors(include_url=False)[0])
    if problem is None:
        return feed
    place = problem.place
    while place not in lines:
        place = place[:-1]
    raise ConfigurationError(f"{path}, line {lines[place]}: {problem.text}")


class _NotRead(Exception):
    def __init__(self, line: int, why: str) -> None:
        super().__init__(line, why)
        self.line = line
        self.why = why


def _read_yaml(text: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """The content, and the line of each key and each item by the keys that lead there."""
    try:
        # Aliases are what cycles and expansions without end are made of, and no description needs one.
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            begins: Any = event.start_mark
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise _NotRead(begins.line + 1, f"the alias *{event.anchor} should be written out")
            if tag := getattr(event, "tag", None):
                raise _NotRead(begins.line + 1, f"the tag {tag[:80]!r} is not read")
            if depth > MOST_DEPTH:
                raise _NotRead(begins.line + 1, "this is nested too deep")
        node = yaml.compose(text, yaml.SafeLoader)
        lines: dict[tuple[Any, ...], int] = {(): 1}
        return _content(node, (), lines), lines
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        why = " ".join(str(error.problem or error.context).split())
        raise _NotRead(mark.line + 1 if mark else 1, f"this is no YAML: {why}") from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        raise _NotRead(text.count("\n", 0, position) + 1, "this is no YAML: it has a character of none") from None


def _content(node: Any, place: tuple[Any, ...], lines: dict[tuple[Any, ...], int]) -> Any:
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[*place, number] = item.start_mark.line + 1
        return [_content(item, (*place, number), lines) for number, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return None if node is None else _scalar(node)
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise _NotRead(line, "a key should be a text")
        # As it is written: `NO: Norway` is a text, not `false`.
        key = key_node.value
        if key in found:
            raise _NotRead(line, f"{_path(place, key)} is there twice, first in line {lines[*place, key]}")
        lines[*place, key] = line
        found[key] = _content(value_node, (*place, key), lines)
    return found


def _scalar(node: yaml.ScalarNode) -> Any:
    try:
        return yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError):
        raise _NotRead(node.start_mark.line + 1, f"{node.value[:80]!r} is no value") from None


def _path(place: tuple[Any, ...], *more: Any) -> str:
    return ".".join(map(str, (*place, *more)))[:200]


_MODELS: Mapping[str, type[BaseModel]] = {
    "": Feed,
    "csv": CsvLayout,
    "revision": RevisionMarks,
    "revised_at": Source,
    "fields": Source,
}


def _said(error: Any) -> _Problem:
    """A problem of pydantic's in our words."""
    place = tuple(error["loc"])
    # A union says which of its members did not fit.
    shown = _path(tuple(key for key in place if key not in ("str", "bool", "int", "float"))) or "the description"
    if error["type"] == "extra_forbidden":
        parent = place[:-1]
        model = _MODELS["revised_at" if parent[-1:] == ("revised_at",) else str(parent[0]) if parent else ""]
        known = ", ".join(model.model_fields)
        return _Problem(place, f"{shown!r} is unknown; it should be one of {known}")
    if error["type"] == "missing":
        return _Problem(place, f"{shown} is missing")
    return _Problem(place, f"{shown}: {' '.join(str(error['msg']).split())}")


def _problems(feed: Feed) -> Iterator[_Problem]:
    """What pydantic does not see: keys that do not fit each other, or the fields of a tick."""
    known = ", ".join(_FIELDS)
    for name in feed.fields:
        if name not in _FIELDS:
            yield _Problem(("fields", name), f"{name!r} is no field of a tick; these are {known}")
    for field in TICK_FIELDS:
        if field.name not in feed.fields and not field.optional:
            yield _Problem(("fields",), f"fields lacks {field.name}, which each tick has")
    if feed.ticks is not None and feed.messages != "object":
        yield _Problem(("ticks",), f"ticks is a path in an object, and messages is {feed.messages}")
    if feed.messages == "csv":
        if feed.csv.delimiter in '"\r\n\0' or not feed.csv.delimiter.isascii():
            yield _Problem(("csv", "delimiter"), f"csv.delimiter is {feed.csv.delimiter!r}, which parts no columns")
        columns = feed.csv.columns or ()
        if len(set(columns)) < len(columns):
            yield _Problem(("csv", "columns"), "csv.columns names one of them twice")
    elif feed.csv != CsvLayout():
        yield _Problem(("csv",), f"csv says how lines are parted, and messages is {feed.messages}")
    for place, kind, source in feed.sources():
        yield from _source_problems(feed, place, kind, source)
    if feed.revision is not None:
        yield from _revision_problems(feed.revision)
    paths: list[tuple[tuple[Any, ...], str]] = []
    paths += [(place, path) for place, _, source in feed.sources() for path in source.paths()]
    paths += [(("revision", "path"), feed.revision.path)] if feed.revision is not None else []
    paths += [(("ignored", number), path) for number, path in enumerate(feed.ignored)]
    paths += [(("ticks",), feed.ticks)] if feed.ticks else []
    for place, path in paths:
        if feed.messages == "csv":
            if feed.csv.columns and path not in feed.csv.columns:
                yield _Problem(place, f"{_path(place)} reads {path!r}, which is none of csv.columns")
        elif not all(path.removeprefix("/").split(".")):
            yield _Problem(place, f"{_path(place)} is the path {path!r}; it should be names with a point between them")
        elif path.startswith("/") and (feed.ticks is None or place == ("ticks",)):
            yield _Problem(place, f"{_path(place)} begins with /, the message around the ticks: there is none")


def _source_problems(feed: Feed, place: tuple[str, ...], field: TickField | None, source: Source) -> Iterator[_Problem]:
    name, kind = _path(place), "time" if field is None else field.kind
    given = [one for one in ("path", "first_of", "joined", "digest_of", "constant", "computed") if _has(source, one)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        yield _Problem(place, f"{name} should have one of path, first_of, joined, digest_of, constant; it has {found}")
        return
    for option, kinds in {
        **dict.fromkeys(("number", "times", "decimal_point"), ("whole", "decimal")),
        **dict.fromkeys(("time", "zone"), ("time",)),
        "values": ("text",),
        "digest_of": ("whole",),
    }.items():
        if _has(source, option) and kind not in kinds:
            yield _Problem(
                (*place, option), f"{name}.{option} is for a {' or '.join(kinds)}, and the field is a {kind}"
            )
    if source.computed is not None and (field is None or field.name != _OF_A_FIELD[source.computed]):
        yield _Problem(place, f"{name} is {source.computed}, which is for {_OF_A_FIELD[source.computed]}")
    if given[0] in ("constant", "digest_of", "computed"):
        for option in ("number", "times", "decimal_point", "time", "zone", "values"):
            if _has(source, option):
                yield _Problem((*place, option), f"{name}.{option} has nothing to do with {given[0]}")
    if source.constant is not None and (why := _constant_problem(field, source.constant)):
        yield _Problem((*place, "constant"), f"{name} is a constant: {why}")
    if source.decimal_point is not None and not feed.reads_text(source):
        yield _Problem((*place, "decimal_point"), f"{name}.decimal_point is for a number that is a text")
    yield from _time_problems(place, source)


def _has(source: Source, option: str) -> bool:
    return getattr(source, option) is not None


def _constant_problem(field: TickField | None, constant: Any) -> str:
    if field is None or field.kind == "time":
        return "a time should be of each tick's own"
    if field.name == "id":
        return "an id should be of each tick's own"
    rule = rule_of(field)
    try:
        if not rule.holds((constant,)):
            raise rule.why({field.name: constant})
    except RowRuleBroken as broken:
        return broken.detail
    return ""


def _time_problems(place: tuple[str, ...], source: Source) -> Iterator[_Problem]:
    name = _path(place)
    if source.zone is not None:
        try:
            ZoneInfo(source.zone)
        except (ValueError, OSError, LookupError):
            yield _Problem((*place, "zone"), f"{name}.zone is {source.zone!r}; it should be as in Asia/Jakarta")
        if source.time in EPOCHS:
            yield _Problem((*place, "zone"), f"{name}.zone has nothing to do with {source.time}, which is UTC")
    if source.time is None or source.time == ISO or source.time in EPOCHS:
        return
    known = ", ".join((ISO, *EPOCHS))
    if "%" not in source.time:
        yield _Problem(
            (*place, "time"), f"{name}.time is {source.time!r}; it should be {known}, or as in %d/%m/%Y %H:%M:%S"
        )
        return
    if odd := re.search(r"%[ZcxX]", source.time.replace("%%", "")):
        yield _Problem(
            (*place, "time"), f"{name}.time has {odd[0]}, which each machine reads in its own way; say %z, or zone"
        )
        return
    moment = datetime(2024, 8, 25, 13, 4, tzinfo=UTC)
    try:
        found = datetime.strptime(moment.strftime(source.time), source.time)  # noqa: DTZ007  # it may have a zone
    except (ValueError, re.error) as error:
        yield _Problem((*place, "time"), f"{name}.time is {source.time!r}: {' '.join(str(error).split())}")
        return
    if found.replace(tzinfo=UTC) != moment:
        yield _Problem((*place, "time"), f"{name}.time is {source.time!r}, which does not say day, hour and minute")


def _revision_problems(marks: RevisionMarks) -> Iterator[_Problem]:
    seen: list[Any] = []
    for name in ("corrections", "cancellations", "ticks"):
        for number, mark in enumerate(getattr(marks, name)):
            if any(mark == other and type(mark) is type(other) for other in seen):
                yield _Problem(("revision", name, number), f"revision.{name}: {mark!r} marks two things")
            seen.append(mark)
    if not marks.corrections and not marks.cancellations:
        yield _Problem(("revision",), "revision should name what marks corrections, or cancellations")
