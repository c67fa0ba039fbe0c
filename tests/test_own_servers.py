"""docs/own-servers.md, word by word, on plain servers that the test starts: other ports, administrators and options."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mysql.connector
import pyspark
import pytest
import yaml
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
from dotenv import dotenv_values

from services.cassandra_server import _EXPORTS, _OPENS
from services.certificates import make_certificates
from services.environment import write_env_file
from services.hosts import LOOPBACK
from services.jars import CASSANDRA, KAFKA, MARIADB, classpath, fetch
from services.java import java_home
from services.server import free_port
from tests.support.project_copy import ProjectCopy, copy_project
from tickledger.settings import PROJECT_ROOT

pytestmark = pytest.mark.integration

PAGE = (PROJECT_ROOT / "docs" / "own-servers.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KEEPER = "keeper"
KAFKA_PROPERTIES = """process.roles=broker,controller
node.id=1
listeners=CLIENTS://{host}:{port},BROKERS://{host}:{brokers},CONTROLLER://{host}:{controller}
advertised.listeners=CLIENTS://{host}:{port},BROKERS://{host}:{brokers}
listener.security.protocol.map=CLIENTS:SASL_SSL,BROKERS:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKERS
controller.listener.names=CONTROLLER
controller.quorum.voters=1@{host}:{controller}
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={certificates}/server-with-key.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{keeper};User:ANONYMOUS
"""


class OwnServers:
    """Kafka, Cassandra, MariaDB and a Spark cluster of one worker, in a folder; `password` is each administrator's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.password = secrets.token_hex(12)
        self.spark_secret = secrets.token_hex(12)
        self.ports = {name: free_port() for name in ("kafka", "cassandra", "mysql", "spark")}
        self.ca_file = folder / "certificates" / "ca.pem"
        self._java = str(java_home() / "bin" / "java")
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all four, and return once the stores answer to their administrators."""
        self._start_cassandra()
        self._start_kafka()
        self._start_mysql()
        self._start_spark()
        wait_for(self._cassandra_has_its_administrator)
        wait_for(self._mysql_answers)

    def stop(self) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def settings(self) -> dict[str, str]:
        """What the page says is to be set, for these servers."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{self.ports['kafka']}",
            "KAFKA_SECURITY": "SASL_SSL",
            "KAFKA_CA_FILE": str(self.ca_file),
            "KAFKA_ADMIN_USER": KEEPER,
            "CASSANDRA_HOSTS": LOOPBACK,
            "CASSANDRA_PORT": str(self.ports["cassandra"]),
            "CASSANDRA_ADMIN_USER": KEEPER,
            "MYSQL_HOST": LOOPBACK,
            "MYSQL_PORT": str(self.ports["mysql"]),
            "MYSQL_ROOT_USER": KEEPER,
        }

    def _run(self, name: str, command: list[str], **environment: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        environment = {"PATH": os.environ["PATH"], "JAVA_HOME": str(java_home())} | environment
        self._processes.append(
            subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=environment, start_new_session=True)
        )

    def _start_kafka(self) -> None:
        make_certificates(self.ca_file.parent)
        properties = self.folder / "server.properties"
        properties.write_text(
            KAFKA_PROPERTIES.format(
                host=LOOPBACK,
                port=self.ports["kafka"],
                brokers=free_port(),
                controller=free_port(),
                data=self.folder / "kafka",
                certificates=self.ca_file.parent,
                keeper=KEEPER,
            )
        )
        java = [self._java, "-Xmx512m", "-cp", classpath(fetch(KAFKA, print))]
        scram = f"SCRAM-SHA-512=[name={KEEPER},password={self.password}]"
        storage = ["kafka.tools.StorageTool", "format", "--config", str(properties), "--add-scram", scram]
        subprocess.run([*java, *storage, "--cluster-id=4L6g3nShT-eMCtK--X86sw"], check=True, capture_output=True)
        self._run("kafka", [*java, "kafka.Kafka", str(properties)])

    def _start_cassandra(self) -> None:
        storage = free_port()
        seeds = {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider"}
        configuration = {
            "cluster_name": "own",
            "num_tokens": 4,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "seed_provider": [seeds | {"parameters": [{"seeds": f"{LOOPBACK}:{storage}"}]}],
            "listen_address": LOOPBACK,
            "storage_port": storage,
            "rpc_address": LOOPBACK,
            "native_transport_port": self.ports["cassandra"],
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "commitlog_sync": "group",
            "commitlog_sync_group_window": "10ms",
        }
        (self.folder / "cassandra.yaml").write_text(yaml.safe_dump(configuration))
        command = [self._java, "-Xmx768m", "-XX:+UseParallelGC"]
        command += [word for export in _EXPORTS for word in ("--add-exports", f"{export}=ALL-UNNAMED")]
        command += [word for package in _OPENS for word in ("--add-opens", f"{package}=ALL-UNNAMED")]
        command += [f"-Dcassandra.config=file://{self.folder}/cassandra.yaml"]
        command += [f"-Dcassandra.storagedir={self.folder}/cassandra", f"-Dcassandra.logdir={self.folder}"]
        command += ["-Dcassandra.superuser_setup_delay_ms=0", "-Dcassandra.skip_wait_for_gossip_to_settle=0"]
        command += ["-cp", classpath(fetch(CASSANDRA, print)), "org.apache.cassandra.service.CassandraDaemon"]
        self._run("cassandra", command)

    def _cassandra_has_its_administrator(self) -> bool:
        cluster = Cluster(
            [LOOPBACK], port=self.ports["cassandra"], auth_provider=PlainTextAuthProvider("cassandra", "cassandra")
        )
        try:
            session = cluster.connect()
        except NoHostAvailable:
            return False
        else:
            rights = "SUPERUSER = true AND LOGIN = true"
            session.execute(f"CREATE ROLE {KEEPER} WITH {rights} AND PASSWORD = '{self.password}'")
            return True
        finally:
            cluster.shutdown()

    def _start_mysql(self) -> None:
        base, data = fetch(MARIADB, print), self.folder / "mysql"
        root = ["--user=root"] if os.geteuid() == 0 else []
        data.mkdir()
        places = [f"--basedir={base}", f"--datadir={data}"]
        install = [str(base / "scripts" / "mariadb-install-db"), "--no-defaults", "--skip-test-db"]
        subprocess.run([*install, *places, *root], check=True, capture_output=True)
        (self.folder / "init.sql").write_text(
            f"CREATE USER {KEEPER}@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO {KEEPER}@'%' WITH GRANT OPTION;\n"
        )
        options = [*places, f"--socket={data}/s", f"--init-file={self.folder}/init.sql", *root]
        address = [f"--bind-address={LOOPBACK}", f"--port={self.ports['mysql']}", "--skip-name-resolve"]
        self._run("mysql", [str(base / "bin" / "mariadbd"), "--no-defaults", *options, *address])

    def _mysql_answers(self) -> bool:
        try:
            mysql.connector.connect(
                host=LOOPBACK, port=self.ports["mysql"], user=KEEPER, password=self.password
            ).close()
        except mysql.connector.Error:
            return False
        return True

    def _start_spark(self) -> None:
        conf = self.folder / "spark"
        conf.mkdir()
        defaults = f"spark.authenticate true\nspark.authenticate.secret {self.spark_secret}\n"
        (conf / "spark-defaults.conf").write_text(defaults)
        home = Path(pyspark.__file__).parent
        spark_class = str(home / "bin" / "spark-class")
        environment = {"SPARK_HOME": str(home), "SPARK_CONF_DIR": str(conf), "SPARK_LOCAL_IP": LOOPBACK}
        deploy, address = "org.apache.spark.deploy", ["--host", LOOPBACK, "--webui-port", "0"]
        master = [spark_class, f"{deploy}.master.Master", *address, "--port", str(self.ports["spark"])]
        self._run("master", master, **environment)
        worker = [spark_class, f"{deploy}.worker.Worker", *address, "--cores", "2", "--memory", "1g"]
        self._run("worker", [*worker, "--work-dir", str(conf / "work"), self.spark_master], **environment)

    @property
    def spark_master(self) -> str:
        """The master's address."""
        return f"spark://{LOOPBACK}:{self.ports['spark']}"


def wait_for(answers: Callable[[], bool], seconds: float = 120) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + seconds
    while not answers():
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[OwnServers]:
    """Servers that no part of tickledger started; they end with the test."""
    folder = tmp_path / "own"
    folder.mkdir()
    servers = OwnServers(folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


@pytest.mark.timeout(900)
def test_the_page_leads_to_ticks_that_have_landed(servers: OwnServers, tmp_path: Path) -> None:
    folder = tmp_path / "tickledger"
    copy_project(folder)
    copy = ProjectCopy(folder, dict(os.environ))
    own = {"spark://spark.example:7077": servers.spark_master, "stream.example": LOOPBACK}
    for language, block in BLOCKS:
        if language == "ini":
            assert dict(line.split("=") for line in block.splitlines()).keys() == servers.settings().keys()
            admins = ("KAFKA_ADMIN_PASSWORD", "CASSANDRA_ADMIN_PASSWORD", "MYSQL_ROOT_PASSWORD")
            passwords = dict.fromkeys(admins, servers.password) | {"SPARK_PASSWORD": servers.spark_secret}
            write_env_file(folder / ".env", {}, servers.settings() | passwords)
            continue
        for there, here in own.items():
            block = block.replace(there, here)
        copy.run(block)
        if "doctor" in block:
            assert "fit to land" in copy.said

    assert "The books agree." in copy.said
    assert re.search(r"\b30\b", copy.said)
    copy.run("tickledger services backup backups/today")
    copy.run("tickledger services restore backups/today --replace")
    assert "The books agree." in copy.run("tickledger reconcile")
    assert not (folder / ".services" / "demo").exists()
    assert all(dotenv_values(folder / ".env").values())
