"""The tick: its fields, their types and bounds, and the Cassandra tables that hold it.

This is the one definition. Row rules, Cassandra tables, packed values and the expectations of raw ticks read it.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple

MAX_BIGINT = 2**63 - 1
MS_A_DAY = 86_400_000
_EPOCH, _EPOCH_UTC = datetime(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

FieldKind = Literal["whole", "decimal", "text", "time"]


_CASSANDRA_TYPES: dict[FieldKind, str] = {
    "whole": "bigint",
    "decimal": "decimal",
    "text": "text",
    "time": "timestamp",
}


@dataclass(frozen=True)
class TickField:
    """One field of a tick. `minimum` and `maximum` bound numbers, and the length of texts; a time has no other bounds.

    A tick may lack an `optional` one, or have null there: it lands with `default`, spelt as in a message, or with null.
    """

    name: str
    kind: FieldKind
    minimum: int
    maximum: int
    description: str
    optional: bool = False
    default: int | float | str | None = None

    @property
    def cassandra_type(self) -> str:
        """The CQL type of its column."""
        return _CASSANDRA_TYPES.get(self.kind, "")


#: The fields that the code computes with, in the order in which they are packed for Cassandra.
CORE_FIELDS = (
    TickField("ticker", "text", 1, 32, "Symbol of the company, a key of `profile`, such as TMAS.JK"),
    TickField("created_at", "time", 0, 0, "When the tick was made, UTC, to the millisecond"),
    TickField("id", "whole", 0, MAX_BIGINT, "The producer's number of the tick"),
    TickField("volume", "whole", 0, 10**12, "Shares traded in the tick"),
    TickField("market_cap", "decimal", 0, 10**24, "Price times shares outstanding, in the exchange's currency"),
    TickField("price", "decimal", 0, 10**12, "Price of one share, in the exchange's currency"),
    TickField("sector", "text", 1, 64, "The company's sector, as in `profile`"),
)
#: Fields that are checked, stored and read back as they come. Another one is a line here; CONTRIBUTING.md shows it.
OWN_FIELDS: list[TickField] = []
TICK_FIELDS = (*CORE_FIELDS, *OWN_FIELDS)


def summed_value(own: Iterable[Any]) -> tuple[Any, ...]:
    """Values of fields of one's own to sum ticks by. MySQL compares texts without the spaces at their end."""
    return tuple(value.rstrip(" ") if isinstance(value, str) else value for value in own)


#: Fields of a message that are none of a tick's are kept beside it, as JSON: so many characters of them at most.
EXTRA_COLUMN = "extra"
MOST_EXTRA = 2_000
#: What landing adds to a tick.
LANDING_COLUMNS = (("trade_date", "date"), ("kafka_partition", "int"), ("kafka_offset", "bigint"))

#: A tick may be made at most this much after its Kafka message, which bounds how wrong a producer's clock can be.
MAX_AHEAD_MS = MS_A_DAY
EARLIEST_MS = 0
#: The last millisecond of 2199. pandas' times end in 2262, those of Python in 9999.
LATEST_MS = (date(2200, 1, 1).toordinal() - EPOCH_ORDINAL) * MS_A_DAY - 1
#: No spelling of a time is longer; what is longer is not looked at.
MAX_TIME_LENGTH = 64

RAW_TABLE = "real_time_data"
REVISION_TABLE = "tick_revisions"
DEAD_LETTER_TABLE = "dead_letters"
#: Dead letters of this many offsets share one Cassandra partition.
DEAD_LETTER_BUCKET = 10_000
#: The `position` of a dead letter that is a whole message and not one element of its array.
WHOLE_MESSAGE = -1
#: Of a longer raw value only so much of its beginning is kept, with this reason. Cassandra refuses a row of more than
#: half a segment of its commit log, 16 MiB where nobody sets it otherwise.
MOST_RAW_BYTES = 15 * 2**20
TOO_LARGE_TO_KEEP = "too_large_to_keep"


class Tick(NamedTuple):
    """One valid tick. `created_ms` counts milliseconds since 1970-01-01 UTC, `trade_day` days since that date.

    `own` are the values of :data:`OWN_FIELDS`, times in milliseconds too, None for null. `extra` is a JSON object of
    the fields that nobody described. Money is a Decimal where a float would lose digits.
    """

    ticker: str
    created_ms: int
    id: int
    volume: int
    market_cap: int | float | Decimal
    price: int | float | Decimal
    sector: str
    trade_day: int
    own: tuple[Any, ...] = (None,) * len(OWN_FIELDS)
    extra: str | None = None


class BadTime(ValueError):
    """A text that is no time; the message says what is wrong with it."""


def parse_created_at(text: str) -> int:
    """Milliseconds since 1970-01-01 UTC of `YYYY-MM-DD HH:MM:SS[.fff]` or ISO 8601; no offset means UTC.

    Digits below a millisecond are cut off. Raises BadTime.
    """
    parted = len(text) >= 19 and text[4] == text[7] == "-" and text[10] in " T" and text[13] == ":"
    if not parted or len(text) > MAX_TIME_LENGTH:
        raise BadTime("it should look like 2024-08-25 07:04:45.123 or 2024-08-25T07:04:45Z")
    try:
        moment = datetime.fromisoformat(text)
        since_epoch = moment - (_EPOCH if moment.tzinfo is None else _EPOCH_UTC)
    except (ValueError, OverflowError) as error:
        raise BadTime(str(error)) from None
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000


def day_to_date(trade_day: int) -> date:
    """The calendar date of a day counted from 1970-01-01."""
    return date.fromordinal(EPOCH_ORDINAL + trade_day)


def ms_to_datetime(created_ms: int) -> datetime:
    """The UTC moment of milliseconds since 1970-01-01, without a time zone, as both stores return it."""
    # Not by way of a float: from 2242 on one is a millisecond off where the driver cuts it.
    return _EPOCH + timedelta(milliseconds=created_ms)


def datetime_to_ms(moment: datetime) -> int:
    """Milliseconds since 1970-01-01 of a UTC moment without a time zone, the inverse of :func:`ms_to_datetime`."""
    since_epoch = moment - datetime(1970, 1, 1)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000


def raw_columns() -> dict[str, str]:
    """Columns of `real_time_data` and their CQL types. One row per tick."""
    return {field.name: field.cassandra_type for field in TICK_FIELDS} | dict(LANDING_COLUMNS) | {EXTRA_COLUMN: "text"}


#: Columns of `dead_letters` and their CQL types. One row per element that could not land, or per unreadable message.
DEAD_LETTER_COLUMNS = {
    "topic": "text",
    "kafka_partition": "int",
    "offset_bucket": "bigint",
    "kafka_offset": "bigint",
    "position": "int",
    "raw_value": "blob",
    "reason": "text",
    "detail": "text",
    "dead_at": "timestamp",
    "replayed_at": "timestamp",
}


def revision_columns() -> dict[str, str]:
    """Columns of `tick_revisions` and their CQL types. One row per correction or cancellation of a tick.

    A cancellation has no values besides its key. `position` is the element's place in its message.
    """
    own = {"kind": "text", "revised_at": "timestamp", "position": "int", EXTRA_COLUMN: "text"}
    return {field.name: field.cassandra_type for field in TICK_FIELDS} | own | dict(LANDING_COLUMNS)


class CassandraTable(NamedTuple):
    """A table of the keyspace: its columns with their CQL types, and its primary key as CQL writes it."""

    columns: dict[str, str]
    key: str


CASSANDRA_TABLES = {
    RAW_TABLE: CassandraTable(raw_columns(), "(ticker, trade_date), created_at, id"),
    REVISION_TABLE: CassandraTable(
        revision_columns(),
        "(ticker, trade_date), created_at, id, revised_at, kafka_partition, kafka_offset, position",
    ),
    DEAD_LETTER_TABLE: CassandraTable(
        DEAD_LETTER_COLUMNS, "(topic, kafka_partition, offset_bucket), kafka_offset, position"
    ),
}


def cassandra_tables(keyspace: str) -> Iterable[str]:
    """The CQL that creates the tables where they are missing; running it again changes nothing."""
    for name, table in CASSANDRA_TABLES.items():
        body = ", ".join(f"{column} {cql_type}" for column, cql_type in table.columns.items())
        yield f"CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({body}, PRIMARY KEY ({table.key}))"


def cassandra_columns(keyspace: str, there: Mapping[str, Collection[str]]) -> Iterable[str]:
    """The CQL that adds what tables lack of the columns beside their key. `there` are the columns by table."""
    for name, table in CASSANDRA_TABLES.items():
        known = {*there[name], *re.findall(r"\w+", table.key)}
        if lacking := [f"{column} {cql_type}" for column, cql_type in table.columns.items() if column not in known]:
            yield f"ALTER TABLE {keyspace}.{name} ADD ({', '.join(lacking)})"
