"""A table of MySQL as SHOW CREATE TABLE writes it, and what differs between two: the one place that compares them.

Servers rewrite types and CHECK expressions each in their own way. So a contract is compared as the server itself writes
it, which takes a temporary table made from it. dbt asks here, by its adapter, before it alters a table or replaces a
view; tickledger/contract_drift.py asks for everybody else.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MISSING = "missing"


class Kind(StrEnum):
    """What of a table differs."""

    TABLE = "table"
    COLUMN = "column"
    PRIMARY_KEY = "primary key"
    UNIQUE_KEY = "unique key"
    INDEX = "index"
    CHECK = "check"
    OPTIONS = "options"


@dataclass(frozen=True)
class TableFacts:
    """Columns by name, each with its definition; keys and checks without their names, each with its kind; options.

    A definition lacks what every column of ours has: the character set and collation of utf8mb4_bin, and the width
    that some servers show of whole numbers. `NOT NULL` is in it, `DEFAULT NULL` is not. `drops` has for each check the
    clause of an ALTER that takes it away.
    """

    columns: dict[str, str]
    rules: dict[str, Kind]
    options: str
    drops: dict[str, str] = field(default_factory=dict)


class Difference(NamedTuple):
    """One row per fact in which a live table and its contract differ. If one side has nothing, it is `missing`."""

    store: str
    table: str
    kind: Kind
    name: str
    contract: str
    live: str

    @property
    def what(self) -> str:
        """The kind, and the column's name."""
        return f"{self.kind} {self.name}".rstrip()

    @property
    def found(self) -> str:
        """What the side that has something has; both sides may."""
        return self.live if self.contract == MISSING else self.contract

    @property
    def is_new_column(self) -> bool:
        """Whether it is a nullable column that one side has more; of Cassandra, which is told each name, the table."""
        is_missing = self.contract == MISSING or (self.store == "MySQL" and self.live == MISSING)
        return self.kind == Kind.COLUMN and is_missing and "NOT NULL" not in self.found


def is_addition(one: Difference, found: list[Difference]) -> bool:
    """Whether rows and writers can do without it: a nullable column that one side has more, or a check or key on one.

    `found` holds all differences.
    """
    names = [f"`{other.name}`" for other in found if other.table == one.table and other.is_new_column]
    is_rule = one.kind in (Kind.CHECK, Kind.UNIQUE_KEY, Kind.INDEX)
    return one.is_new_column or (is_rule and any(name in one.found for name in names))


def table_facts(definition: str) -> TableFacts:
    """What SHOW CREATE TABLE says of a table."""
    _, *lines, last = definition.split("\n")
    columns, rules, drops = {}, {}, {}
    for line in (line.strip().rstrip(",") for line in lines):
        rule, drop = line, f"drop constraint `{named[1]}`" if (named := _NAMED.match(line)) else ""
        if line.startswith("`"):
            _, name, whole = line.split("`", 2)
            # MariaDB shows a column's check beside the column.
            text, _, rule = whole.strip().partition(" CHECK ")
            text = re.sub(" CHARACTER SET utf8mb4| COLLATE utf8mb4_bin| DEFAULT NULL", "", text)
            columns[name] = re.sub(r"int\(\d+\)", "int", text)
            rule, drop = f"CHECK {rule}" if rule else "", f"modify column `{name}` {columns[name]}"
        rule = re.sub(r"^(?:CONSTRAINT `[^`]*` )?(CHECK|(?:UNIQUE )?KEY)(?: `[^`]*`)? ", r"\1 ", rule)
        if rule:
            rules[rule] = _KINDS[rule.split()[0]]
            if rules[rule] == Kind.CHECK:
                drops[rule] = drop
    return TableFacts(columns, rules, " ".join(re.findall(r"ENGINE=\w+|CHARSET=\w+|COLLATE=\w+", last)), drops)


_NAMED = re.compile(r"CONSTRAINT `([^`]*)` CHECK ")
_KINDS = {"PRIMARY": Kind.PRIMARY_KEY, "UNIQUE": Kind.UNIQUE_KEY, "KEY": Kind.INDEX, "CHECK": Kind.CHECK}


def differences_of(table: str, contract: TableFacts, live: TableFacts) -> Iterator[Difference]:
    """Each in which they differ, columns first. An index that only the live table has may stay."""
    for name in dict.fromkeys([*contract.columns, *live.columns]):
        here, there = contract.columns.get(name, MISSING), live.columns.get(name, MISSING)
        if here != there:
            yield Difference("MySQL", table, Kind.COLUMN, name, here, there)
    for rule, kind in sorted((contract.rules | live.rules).items()):
        here, there = (rule if rule in facts.rules else MISSING for facts in (contract, live))
        if here != there and (kind, here) != (Kind.INDEX, MISSING):
            yield Difference("MySQL", table, kind, "", here, there)
    if contract.options != live.options:
        yield Difference("MySQL", table, Kind.OPTIONS, "", contract.options, live.options)


#: Kinds of one family, each of which holds those before it.
_FAMILIES = (
    ("tinyint", "smallint", "mediumint", "int", "bigint"),
    ("char", "varchar", "text", "mediumtext", "longtext"),
    ("float", "double"),
)
_TYPE = re.compile(r"(\w+)(?:\((\d+)(?:,(\d+))?\))?( unsigned)?")


def misfits(contract: TableFacts, query: TableFacts) -> list[str]:
    """What keeps a query from a view's contract: columns that one of them lacks, and types that hold too little.

    A contract's type may be a larger one of its family, such as bigint for int, or have more digits: servers do not
    agree on how many digits a quotient has. Anything else needs a CAST in the query.
    """
    problems = []
    for name in dict.fromkeys([*contract.columns, *query.columns]):
        if name not in query.columns:
            problems.append(f"column {name} of the contract is not in the query")
        elif name not in contract.columns:
            problems.append(f"column {name} of the query is not in the contract")
        else:
            wanted, found = (_TYPE.match(facts.columns[name]) for facts in (contract, query))
            if wanted and found and not _holds(wanted, found):
                problems.append(f"column {name} is {found[0]}; the contract's {wanted[0]} does not hold that")
    return problems


def _holds(wide: re.Match[str], narrow: re.Match[str]) -> bool:
    (kind, length, scale, sign), (its_kind, its_length, its_scale, its_sign) = (
        (one[1], int(one[2] or 0), int(one[3] or 0), one[4]) for one in (wide, narrow)
    )
    for family in _FAMILIES:
        if kind in family and its_kind in family:
            larger = family.index(kind) - family.index(its_kind)
            if larger < 0 or 0 < length < its_length:
                return False
            # An unsigned one fits the next larger one with a sign.
            return sign == its_sign or (not sign and larger > 0)
    same_kind = (kind, sign) == (its_kind, its_sign)
    return same_kind and scale >= its_scale and length - scale >= its_length - its_scale


class Changes(NamedTuple):
    """What brings a live table to its contract: the clauses of one ALTER; or why none can, and the clauses by hand."""

    clauses: list[str]
    problems: list[str]
    by_hand: list[str]


def changes_to(contract: TableFacts, live: TableFacts, former_checks: Collection[str] = ()) -> Changes:
    """New nullable columns, the checks and unique keys on them, and indexes are added; landed rows follow no other.

    A check that an earlier contract had goes, since all rows that it let in may stay: `former_checks` are those that it
    says itself. Of another that the live table has more, somebody may rely on it.
    """
    found = list(differences_of("", contract, live))
    changes, former = Changes([], [], []), {_plain_check(check) for check in former_checks}
    for one in found:
        clause = f"add column `{one.name}` {one.contract}" if one.kind == Kind.COLUMN else f"add {one.contract}"
        if one.live == MISSING and (one.kind == Kind.INDEX or is_addition(one, found)):
            changes.clauses.append(clause)
            continue
        if one.contract == MISSING and one.kind == Kind.CHECK and _plain_check(one.live) in former:
            changes.clauses.append(live.drops[one.live])
            continue
        problem, by_hand = _by_hand(one, clause)
        changes.problems.append(problem)
        changes.by_hand.append(by_hand)
    return changes


def _plain_check(check: str) -> str:
    """A check without what servers add to it, each in its own way."""
    return re.sub(r"^CHECK|[`()\s]", "", check)


def _by_hand(one: Difference, clause: str) -> tuple[str, str]:
    if one.kind == Kind.OPTIONS:
        return f"the table is {one.live}; the contract makes it {one.contract}", one.contract
    if one.kind != Kind.COLUMN:
        if one.live == MISSING:
            return f"the table lacks {one.contract}", clause
        return f"the contract lacks {one.live}", f"drop constraint <the name that show create table gives {one.live}>"
    if one.live == MISSING:
        why = "landed rows have no value for it, so it must be nullable"
        return f"new column {one.name} is NOT NULL; {why}", f"{clause} default <the value of landed rows>"
    if one.contract == MISSING:
        return f"column {one.name} is not in the contract any more", f"drop column `{one.name}`"
    problem = f"column {one.name} is {one.live}; the contract makes it {one.contract}"
    return problem, f"modify column `{one.name}` {one.contract}"
