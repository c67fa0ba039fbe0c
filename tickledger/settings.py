"""Settings: read from the environment and .env when asked for, never at import."""

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from tickledger.errors import ConfigurationError
from tickledger.feed import Feed, FeedRule, read_feed
from tickledger.own_fields import check_own_fields

PROJECT_ROOT = Path(__file__).resolve().parent.parent
#: Names the file to read instead of .env; the tests point it at their own servers.
ENV_FILE_VARIABLE = "TICKLEDGER_ENV_FILE"

#: In place of the name of a file.
NO_FILE = "none"
#: In place of the name of a data centre.
NO_DATACENTER = "none"
#: The superuser of Kafka and of Cassandra that services/ makes, unless the settings name another.
ADMIN = "tickledger_admin"

# A field's description is what its value should be, as an error says it.
Port = Annotated[int, Field(ge=1, le=65535, description="a port from 1 to 65535")]
Count = Annotated[int, Field(ge=1, description="a whole number of at least 1")]
Seconds = Annotated[float, Field(ge=0, description="a number of seconds, 0 or more")]
Switch = Annotated[bool, Field(description="true or false")]
#: A name, IPv4, or IPv6, which has two colons at least.
_HOST = r"^(?:[^\s:,/@]+|[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)$"
Host = Annotated[str, Field(pattern=_HOST, description="a host's name or address, without a port")]
Replicas = Annotated[int, Field(ge=1, le=99)]
#: Names that are written into SQL and CQL as identifiers.
_IDENTIFIER = "a lower-case name of letters, digits and '_', at most 48"
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$", description=_IDENTIFIER)]
#: Some of what Kafka's Java client takes: no IPv6, and no port beyond the last.
_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_BROKER = rf"[A-Za-z0-9._%-]+:{_PORT}"
_DATACENTER, _REPLICAS = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}", r"[1-9]\d?"
FEED_RULES: tuple[str, ...] = get_args(FeedRule)


class CertificatesFile(str):
    """The name of a file of certificates, with what it holds: Spark's workers get settings, and have no such file."""

    certificates: str

    @classmethod
    def read(cls, path: Path) -> "CertificatesFile":
        """Read it now. Raises OSError, of which ssl.SSLError is one kind, if it is no such file."""
        ssl.create_default_context(cafile=str(path))
        file = cls(path)
        # What stands around the certificates may be in any script.
        file.certificates = path.read_text(encoding="ascii", errors="ignore")
        return file


class Account(BaseModel):
    """An account's name and password, and what error lines say of it.

    `prefix` is how its settings begin, `purpose` whose it is; `should_be` is set for a superuser of the name that
    services/ gives it, and says of its password what it should be.
    """

    model_config = ConfigDict(frozen=True)

    user: str = ""
    password: SecretStr = SecretStr("")
    prefix: str = ""
    purpose: str = ""
    should_be: str = ""

    def required(self) -> "Account":
        """The account itself. Raises ConfigurationError if its name or its password is not set."""
        if self.user and self.password.get_secret_value():
            return self
        missing, kind = ("PASSWORD", "password") if self.user else ("USER", "name")
        raise ConfigurationError(
            f"{self.prefix}_{missing} is not set; it should be the {kind} of {self.purpose}: 'make services' adds to"
            " .env what .env.example has"
        )

    def refused_by(self, server: str) -> ConfigurationError:
        """The line about a server that does not let the account in."""
        if self.should_be:
            problem = f"{self.prefix}_PASSWORD is (hidden); {server} refuses it: it {self.should_be}"
        else:
            settings = f"{self.prefix}_USER and {self.prefix}_PASSWORD"
            problem = f"{self.prefix}_USER is {self.user!r}; {server} refuses it: {settings} should name {self.purpose}"
        return ConfigurationError(problem)


def _account(purpose: str, user: str = "", should_be: str = "") -> AfterValidator:
    def described(value: Account, info: ValidationInfo) -> Account:
        known = {"purpose": purpose, "prefix": str(info.field_name).upper(), "user": value.user or user}
        # Servers of one's own have superusers of other names, whose passwords have other ways.
        return value.model_copy(update=known | {"should_be": should_be if known["user"] == user else ""})

    return AfterValidator(described)


_CREATED, _STARTED = (f"should be the one that the {what} with" for what in ("data were created", "server was started"))
_CA_FILE = "a readable PEM file with the certificate of the authority that signed"


class Settings(BaseSettings):
    """One field a variable of .env.example, or two for an account; the file says what each is for and in which unit."""

    model_config = SettingsConfigDict(
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,
        # KAFKA_USER is `kafka.user`; a field of that very name, such as `kafka_topic`, comes first.
        env_nested_delimiter="_",
        env_nested_max_split=1,
    )

    kafka_bootstrap_servers: str = Field(
        pattern=rf"^{_BROKER}(,{_BROKER})*$",
        description="host:port, or several separated by commas, with ports from 1 to 65535",
    )
    kafka_topic: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,249}$", description="a topic's name of letters, digits, '.', '_' and '-'"
    )
    kafka_partitions: Count
    # Not in a .env from before they were there; neither are those of Cassandra below.
    kafka_replication_factor: Annotated[
        Replicas | Literal["default"], Field(description="default, or a whole number from 1 to 99")
    ] = "default"
    kafka_min_in_sync_replicas: Annotated[
        Replicas | Literal["default"],
        Field(description="default, or a whole number from 1 to KAFKA_REPLICATION_FACTOR"),
    ] = "default"
    kafka_security: Literal["PLAINTEXT", "SASL_SSL"] = Field("PLAINTEXT", description="PLAINTEXT or SASL_SSL")
    kafka_ca_file: str = Field(NO_FILE, description=f"{_CA_FILE} Kafka's; KAFKA_SECURITY is SASL_SSL")

    cassandra_hosts: Annotated[tuple[Host, ...], NoDecode] = Field(
        min_length=1, description="a host, or several separated by commas, without ports"
    )
    cassandra_port: Port
    cassandra_keyspace: Identifier
    cassandra_replication: str = Field(
        "1",
        pattern=rf"^({_REPLICAS}|{_DATACENTER}:{_REPLICAS}(,{_DATACENTER}:{_REPLICAS})*)$",
        description="a number of replicas from 1 to 99, or one for each data centre, as in dc1:3,dc2:3",
    )
    cassandra_datacenter: str = Field(
        NO_DATACENTER,
        pattern=rf"^{_DATACENTER}$",
        description="none, or a data centre, one of those of CASSANDRA_REPLICATION if that names some",
    )
    cassandra_consistency: Literal["LOCAL_QUORUM", "QUORUM", "ALL"] = Field(
        "LOCAL_QUORUM", description="LOCAL_QUORUM, QUORUM or ALL"
    )
    cassandra_ca_file: str = Field(NO_FILE, description=f"none, or {_CA_FILE} Cassandra's")

    mysql_host: Host
    mysql_port: Port
    mysql_database: Identifier
    mysql_ca_file: str = Field(NO_FILE, description=f"none, or {_CA_FILE} MySQL's")

    stream_trigger_seconds: Seconds
    stream_max_offsets_per_trigger: Count
    stream_store_retry_seconds: Seconds
    stream_scratch_dir: Path
    # Not in a .env from before it was there.
    stream_max_megabytes_per_batch: float = Field(64, gt=0, description="a number of megabytes above 0")
    corrections_wait_days: float = Field(7, gt=0, le=36_500, description="a number of days above 0, at most 36500")
    stream_metrics_address: str = Field(
        "none", pattern=r"^(none|[^\s:]+:\d{1,5})$", description="none, or host:port to serve figures for Prometheus at"
    )

    stream_ui_port: Annotated[
        Port | Literal["none"], Field(description="none, or a port from 1 to 65535 for Spark's web interface")
    ] = "none"

    checks_enabled: Switch
    checks_stop_on_failed: Switch
    # A secret: such addresses often hold a token.
    checks_webhook_url: SecretStr = Field(description="none, or an address that begins with http:// or https://")
    # Not in a .env from before they were there. What the file describes, so that Spark's workers have it too.
    feed_file: Annotated[Feed | None, NoDecode] = Field(None, description="none, or a file that describes a feed")
    feed_rules: Annotated[tuple[FeedRule, ...], NoDecode] = Field(
        (), description=f"none, or some of {', '.join(FEED_RULES)}, separated by commas"
    )

    dashboard_refresh_seconds: float = Field(ge=0.5, description="a number of seconds, at least 0.5")

    # Each part needs its own account and no other: who logs in with one that is not set says so.
    kafka: Annotated[Account, _account("an account of Kafka that reads the topic")] = Account()
    producer_kafka: Annotated[Account, _account("an account of Kafka that writes to the topic")] = Account()
    dashboard_kafka: Annotated[Account, _account("an account of Kafka that sees the topic")] = Account()
    cassandra: Annotated[Account, _account("a role of Cassandra that lands ticks")] = Account()
    dashboard_cassandra: Annotated[Account, _account("a role of Cassandra that may only read")] = Account()
    mysql: Annotated[Account, _account("an account of MySQL that lands batches")] = Account()
    dbt_mysql: Annotated[Account, _account("an account of MySQL that makes tables")] = Account()
    producer_mysql: Annotated[Account, _account("an account of MySQL that reads the profile")] = Account()
    dashboard_mysql: Annotated[Account, _account("an account of MySQL that may only read")] = Account()

    # The accounts that create databases and users: services/ alone uses them.
    kafka_admin: Annotated[Account, _account("Kafka's superuser", ADMIN, _STARTED)] = Account()
    cassandra_admin: Annotated[
        Account,
        _account(
            "Cassandra's superuser",
            ADMIN,
            f"{_CREATED}: restore it, or delete the data with 'tickledger services clean'",
        ),
    ] = Account()
    mysql_root: Annotated[
        Account,
        _account("MySQL's superuser", "root", f"{_STARTED}: 'tickledger services stop' and start again make it so"),
    ] = Account()

    @field_validator("cassandra_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if "" in (hosts := _split(value)):
            raise ValueError("an empty one")
        return hosts

    @field_validator("kafka_bootstrap_servers", "cassandra_replication", mode="before")
    @classmethod
    def _without_spaces_between(cls, value: object) -> object:
        return ",".join(_split(value)) if isinstance(value, str) else value

    @field_validator("kafka_min_in_sync_replicas")
    @classmethod
    def _no_more_than_there_are(cls, value: int | str, info: ValidationInfo) -> int | str:
        factor = info.data.get("kafka_replication_factor")
        # Of the broker's default nobody knows here whether it is more than one.
        if isinstance(value, int) and value > (factor if isinstance(factor, int) else 1):
            raise ValueError("more than there are")
        return value

    @field_validator("cassandra_replication")
    @classmethod
    def _each_data_centre_once(cls, value: str) -> str:
        names = re.findall(r"([^:,]+):", value)
        if len(names) > len(set(names)):
            raise ValueError("a data centre twice")
        return value

    @field_validator("cassandra_datacenter")
    @classmethod
    def _one_that_holds_replicas(cls, value: str, info: ValidationInfo) -> str:
        names = re.findall(r"([^:,]+):", info.data.get("cassandra_replication", ""))
        if names and value not in (NO_DATACENTER, *names):
            raise ValueError("no replica there")
        return value

    @field_validator("feed_rules", mode="before")
    @classmethod
    def _split_rules(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return () if value == "none" else _split(value)

    @field_validator("feed_file", mode="before")
    @classmethod
    def _described(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return None if value == NO_FILE else read_feed(PROJECT_ROOT / value)
        except ConfigurationError as error:
            # Says the line, and so more than what the setting should be.
            raise ConfigurationError(f"FEED_FILE: {error}") from None

    @field_validator("feed_rules")
    @classmethod
    def _with_the_feeds_own(cls, value: tuple[FeedRule, ...], info: ValidationInfo) -> tuple[FeedRule, ...]:
        feed = info.data.get("feed_file")
        return value if feed is None else tuple(dict.fromkeys((*value, *feed.rules)))

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
        try:
            return CertificatesFile.read(PROJECT_ROOT / value)
        except OSError:
            raise ValueError("no certificates") from None

    @field_validator("stream_scratch_dir")
    @classmethod
    def _below_the_project(cls, value: Path) -> Path:
        return value if value.is_absolute() else PROJECT_ROOT / value


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(","))


def env_file() -> Path:
    """The settings file in use: $TICKLEDGER_ENV_FILE, else .env at the project's root."""
    return Path(os.environ.get(ENV_FILE_VARIABLE) or PROJECT_ROOT / ".env")


class _FileFirst(Settings):
    """The settings if the file wins over the environment."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[Any, ...]:
        """Pydantic's hook."""
        return sources["dotenv_settings"], sources["env_settings"]


def load_settings(path: Path | None = None, *, file_first: bool = False) -> Settings:
    """Read the settings: the environment first, then `path`, which defaults to :func:`env_file`.

    `file_first` turns that around, for what is written to last longer than the environment. Raises ConfigurationError
    for the first bad one: its name, its value (never a secret's) and what it should be; also for a bad field of the
    tick, so that no program begins with one.
    """
    check_own_fields()
    path = path or env_file()
    try:
        return (_FileFirst if file_first else Settings)(_env_file=path)  # type: ignore[call-arg]  # mypy does not see pydantic-settings' own arguments
    except SettingsError as unreadable:
        raise ConfigurationError(f"{' '.join(str(unreadable).split())}: no setting has that name") from None
    except ValidationError as invalid:
        problem = invalid.errors(include_url=False, include_context=False)[0]
    field = str(problem["loc"][0])
    should_be = Settings.model_fields[field].description or "set and not empty"
    if problem["type"] == "missing":
        where = path if path.exists() else f"{path}, which does not exist: run 'make services' or copy .env.example"
        raise ConfigurationError(f"{field.upper()} is not set; it should be {should_be} (looked in {where})")
    value = "(hidden)" if Settings.model_fields[field].annotation is SecretStr else repr(problem["input"])
    raise ConfigurationError(f"{field.upper()} is {value}; it should be {should_be}")
