"""Whether the fields of one's own are defined soundly: asked by every program before it does anything."""

import re
from collections.abc import Collection, Iterable

from tickledger.errors import ConfigurationError
from tickledger.row_rules import REVISION_FIELD, FieldRule, RowRuleBroken, moment_of, rule_of
from tickledger.tick import CORE_FIELDS, LANDING_COLUMNS, MAX_BIGINT, OWN_FIELDS, TickField, revision_columns

#: What the checks call columns of their own, beside a tick's (expectations/read_back.py).
CHECKS_COLUMNS = ("profile_sector", "created_on", "market_cap_error", "price_ratio")
#: Several rows share a request, and a request its room.
MOST_CHARACTERS = 4_000


def check_own_fields(fields: Iterable[TickField] = OWN_FIELDS) -> None:
    """Raises ConfigurationError with the first thing that is wrong with one of them."""
    taken = {*(field.name for field in CORE_FIELDS), *(name for name, _ in LANDING_COLUMNS), *CHECKS_COLUMNS}
    taken |= {*revision_columns().keys() - {field.name for field in OWN_FIELDS}, REVISION_FIELD}
    for field in fields:
        if problem := _name_problem(field.name, taken) or _value_problem(rule_of(field)):
            raise ConfigurationError(f"field {field.name!r} of tickledger/tick.py: {problem}")
        taken.add(field.name)


def _name_problem(name: str, taken: Collection[str]) -> str:
    # Only where there is a field, since both are slow to import.
    from cassandra.metadata import cql_keywords_reserved
    from sqlglot.generators.mysql import MySQLGenerator

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        return "its name should be lower-case letters, digits and _, at most 48"
    # As `replay` reads a file's columns: "Market Cap" is market_cap.
    if name.replace("_", "") in {one.replace("_", "") for one in taken} or name.endswith("_length"):
        return "there is a field or column of that name"
    for language, words in (("CQL", cql_keywords_reserved), ("SQL", MySQLGenerator.RESERVED_KEYWORDS)):
        if name in words:
            return f"its name is a keyword of {language}"
    return ""


def _value_problem(rule: FieldRule) -> str:
    field = rule.field
    if not rule.kinds:
        return f"its kind {field.kind!r} should be text, whole, decimal or time"
    if not isinstance(field.minimum, int) or not isinstance(field.maximum, int):
        return f"its bounds {field.minimum!r} and {field.maximum!r} should be whole numbers"
    if field.minimum > field.maximum:
        return f"its minimum {field.minimum} is above its maximum {field.maximum}"
    lowest, highest = {"whole": (-MAX_BIGINT - 1, MAX_BIGINT), "text": (0, MOST_CHARACTERS)}.get(
        field.kind, (field.minimum, field.maximum)
    )
    if field.minimum < lowest or field.maximum > highest:
        return f"its bounds should lie from {lowest} to {highest}"
    if field.default is None:
        return ""
    if not field.optional:
        return "it has a default, so it should be optional"
    try:
        if not rule.holds((field.default,)):
            raise rule.why({field.name: field.default})
        if field.kind == "time":
            moment_of(str(field.default), field.name)
        str(field.default).encode()
    except RowRuleBroken as broken:
        return f"its default does not fit: {broken.detail}"
    except UnicodeEncodeError:
        return "its default should be text that UTF-8 can hold"
    return ""
