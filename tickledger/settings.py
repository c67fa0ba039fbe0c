"""Settings: read from the environment and .env when asked for, never at import."""

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tickledger.errors import ConfigurationError

PROJECT_ROOT = Path(__file__).resolve().parent.parent
#: Names the file to read instead of .env; the tests point it at their own servers.
ENV_FILE_VARIABLE = "TICKLEDGER_ENV_FILE"

#: In place of the name of a file with certificates.
NO_FILE = "none"
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[str, Field(min_length=1)]
#: Names that are written into SQL and CQL as identifiers.
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
#: Expectations that hold for some feeds alone: expectations/suites.py has them, FEED_RULES asks for them.
FeedRule = Literal["id_is_unique", "one_tick_a_symbol_and_round", "size_is_usual"]
FEED_RULES: tuple[str, ...] = get_args(FeedRule)

_CA_FILE = "a readable PEM file with the certificate of the authority that signed"
_SHOULD_BE = {
    "kafka_bootstrap_servers": "host:port, or several separated by commas",
    "kafka_topic": "a topic's name of letters, digits, '.', '_' and '-'",
    "kafka_partitions": "a whole number of at least 1",
    "kafka_security": "PLAINTEXT or SASL_SSL",
    "kafka_ca_file": f"{_CA_FILE} Kafka's; KAFKA_SECURITY is SASL_SSL",
    "cassandra_hosts": "a host, or several separated by commas",
    "cassandra_port": "a port from 1 to 65535",
    "cassandra_ca_file": f"none, or {_CA_FILE} Cassandra's",
    "cassandra_keyspace": "a lower-case name of letters, digits and '_', at most 48",
    "mysql_port": "a port from 1 to 65535",
    "mysql_ca_file": f"none, or {_CA_FILE} MySQL's",
    "mysql_database": "a lower-case name of letters, digits and '_', at most 48",
    "stream_trigger_seconds": "a number of seconds, 0 or more",
    "stream_max_offsets_per_trigger": "a whole number of at least 1",
    "stream_max_megabytes_per_batch": "a number of megabytes above 0",
    "stream_store_retry_seconds": "a number of seconds, 0 or more",
    "stream_metrics_address": "none, or host:port to serve figures for Prometheus at",
    "checks_enabled": "true or false",
    "checks_stop_on_failed": "true or false",
    "checks_webhook_url": "none, or an address that begins with http:// or https://",
    "feed_rules": f"none, or some of {', '.join(FEED_RULES)}, separated by commas",
    "dashboard_mysql_user": "the name of an account of MySQL that may only read ('make services' makes it)",
    "dashboard_cassandra_user": "the name of a role of Cassandra that may only read ('make services' makes it)",
    "dashboard_refresh_seconds": "a number of seconds, at least 0.5",
}


class Settings(BaseSettings):
    """One field a variable of .env.example, which says what each is for and in which unit."""

    model_config = SettingsConfigDict(env_file_encoding="utf-8", extra="ignore", frozen=True)

    kafka_bootstrap_servers: Annotated[str, Field(pattern=r"^[^\s:,]+:\d+(,[^\s:,]+:\d+)*$")]
    kafka_topic: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    kafka_partitions: Annotated[int, Field(ge=1)]
    kafka_security: Literal["PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_ca_file: Annotated[str, Field(validate_default=True)] = NO_FILE

    cassandra_hosts: Annotated[tuple[Name, ...], NoDecode, Field(min_length=1)]
    cassandra_port: Port
    cassandra_keyspace: Identifier
    cassandra_ca_file: str = NO_FILE

    mysql_host: Name
    mysql_port: Port
    mysql_database: Identifier
    mysql_ca_file: str = NO_FILE

    stream_trigger_seconds: Annotated[float, Field(ge=0)]
    stream_max_offsets_per_trigger: Annotated[int, Field(ge=1)]
    stream_store_retry_seconds: Annotated[float, Field(ge=0)]
    stream_scratch_dir: Path
    # Not in a .env from before it was there.
    stream_max_megabytes_per_batch: Annotated[float, Field(gt=0)] = 64
    stream_metrics_address: Annotated[str, Field(pattern=r"^(none|[^\s:]+:\d{1,5})$")] = "none"

    checks_enabled: bool
    checks_stop_on_failed: bool
    # A secret: such addresses often hold a token.
    checks_webhook_url: SecretStr
    # Not in a .env from before it was there.
    feed_rules: Annotated[tuple[FeedRule, ...], NoDecode] = ()

    dashboard_refresh_seconds: Annotated[float, Field(ge=0.5)]

    # Each part needs its own account and no other: who logs in with one that is not set says so.
    kafka_user: str = ""
    kafka_password: SecretStr = SecretStr("")
    producer_kafka_user: str = ""
    producer_kafka_password: SecretStr = SecretStr("")
    dashboard_kafka_user: str = ""
    dashboard_kafka_password: SecretStr = SecretStr("")
    cassandra_user: str = ""
    cassandra_password: SecretStr = SecretStr("")
    mysql_user: str = ""
    mysql_password: SecretStr = SecretStr("")
    dbt_mysql_user: str = ""
    dbt_mysql_password: SecretStr = SecretStr("")
    producer_mysql_user: str = ""
    producer_mysql_password: SecretStr = SecretStr("")
    dashboard_mysql_user: str = ""
    dashboard_mysql_password: SecretStr = SecretStr("")
    dashboard_cassandra_user: str = ""
    dashboard_cassandra_password: SecretStr = SecretStr("")

    # The accounts that create databases and users: services/ alone uses them.
    kafka_admin_password: SecretStr = SecretStr("")
    cassandra_admin_password: SecretStr = SecretStr("")
    mysql_root_password: SecretStr = SecretStr("")

    @field_validator("cassandra_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return tuple(host.strip() for host in value.split(",")) if isinstance(value, str) else value

    @field_validator("feed_rules", mode="before")
    @classmethod
    def _split_rules(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return () if value == "none" else tuple(rule.strip() for rule in value.split(","))

    @field_validator("checks_webhook_url")
    @classmethod
    def _address_or_none(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"none|https?://[^\s/]+\S*", value.get_secret_value()):
            raise ValueError("no address")
        return value

    @field_validator("kafka_ca_file", "cassandra_ca_file", "mysql_ca_file")
    @classmethod
    def _certificates_or_none(cls, value: str, info: ValidationInfo) -> str:
        if value == NO_FILE and not (
            info.field_name == "kafka_ca_file" and info.data.get("kafka_security") == "SASL_SSL"
        ):
            return value
        path = PROJECT_ROOT / value
        try:
            ssl.create_default_context(cafile=str(path))
        except OSError:  # of which ssl.SSLError is one kind
            raise ValueError("no certificates") from None
        return str(path)

    @field_validator("stream_scratch_dir")
    @classmethod
    def _below_the_project(cls, value: Path) -> Path:
        return value if value.is_absolute() else PROJECT_ROOT / value


def env_file() -> Path:
    """The settings file in use: $TICKLEDGER_ENV_FILE, else .env at the project's root."""
    return Path(os.environ.get(ENV_FILE_VARIABLE) or PROJECT_ROOT / ".env")


def load_settings(path: Path | None = None, *, file_first: bool = False) -> Settings:
    """Read the settings: the environment first, then `path`, which defaults to :func:`env_file`.

    `file_first` turns that around, for what is written to last longer than the environment. Raises ConfigurationError
    for the first bad one: its name, its value (never a secret's) and what it should be.
    """
    path = path or env_file()
    given: dict[str, Any] = {name.lower(): value for name, value in dotenv_values(path).items()} if file_first else {}
    try:
        return Settings(_env_file=path, **given)  # type: ignore[call-arg]  # mypy does not see pydantic-settings' own arguments
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False, include_context=False)[0]
    field = str(problem["loc"][0])
    should_be = _SHOULD_BE.get(field, "set and not empty")
    if problem["type"] == "missing":
        where = path if path.exists() else f"{path}, which does not exist: run 'make services' or copy .env.example"
        raise ConfigurationError(f"{field.upper()} is not set; it should be {should_be} (looked in {where})")
    value = (
        "(hidden)" if Settings.model_fields[field].annotation is SecretStr else repr(_given(field, problem["input"]))
    )
    raise ConfigurationError(f"{field.upper()} is {value}; it should be {should_be}")


def _given(field: str, value: object) -> object:
    """What the user wrote, where the validator saw it already taken apart."""
    return ",".join(map(str, value)) if field == "cassandra_hosts" and isinstance(value, tuple) else value
