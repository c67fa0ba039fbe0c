"""Kafka on loopback: a KRaft process that is broker and controller, alone or one of three."""

import base64
import json
import re
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from services.jars import KAFKA, classpath, fetch
from services.java import java_home
from services.kafka_accounts import create_kafka_accounts, set_kafka_passwords
from services.kafka_topic import create_topic
from services.server import WRITTEN, Server, free_port, name_of, run_once, write_private
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.secured import jaas_quoted, kafka_options
from tickledger.settings import Account

_PROPERTIES = """process.roles=broker,controller
node.id={node}
listeners={security}://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners={security}://{host}:{port}
listener.security.protocol.map={security}:{security},CONTROLLER:{security}
inter.broker.listener.name={security}
controller.listener.names=CONTROLLER
controller.quorum.voters={voters}
log.dirs={data}
auto.create.topics.enable=false
# One broker: the internal topics cannot have more replicas than that, and few partitions open fewer files.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# The default of 128 MiB would take a quarter of the heap.
log.cleaner.dedupe.buffer.size=16777216
"""

#: Later lines win. Of three brokers one may be away.
_CLUSTER = """offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""

#: The admin's password stands here and nowhere else in Kafka, so its account works before there are any others.
_SECURED = """ssl.keystore.type=PEM
ssl.keystore.location={certificates}/server-with-key.pem
ssl.truststore.type=PEM
ssl.truststore.location={certificates}/ca.pem
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.sasl_ssl.plain.sasl.jaas.config={plain}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}
listener.name.controller.sasl.enabled.mechanisms=PLAIN
listener.name.controller.plain.sasl.jaas.config={plain}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin}
allow.everyone.if.no.acl.found=false
"""

_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="WARN">
  <Appenders>
    <Console name="console"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console>
  </Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="console"/></Root></Loggers>
</Configuration>
"""


class KafkaServer(Server):
    """The broker and its topics."""

    name = "kafka"
    title = "Kafka"
    port_setting = "KAFKA_BOOTSTRAP_SERVERS"

    @property
    def port(self) -> int:
        """The port of KAFKA_BOOTSTRAP_SERVERS. Raises ConfigurationError if that is not on this machine."""
        servers = self.settings.kafka_bootstrap_servers
        host, _, port = servers.rpartition(":")
        if host != self.host and (host, self.nodes) != ("localhost", 1):
            raise ConfigurationError(
                f"KAFKA_BOOTSTRAP_SERVERS is {servers!r}; the services run on this machine: "
                f"it should be {self.host}:PORT"
            )
        return int(port)

    @staticmethod
    def version() -> str:
        """The version of the artifact."""
        return KAFKA.version

    def prepare(self) -> None:
        """Write the configuration and format the data folder once."""
        jars = fetch(KAFKA, self.say)
        self.conf.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(parents=True, exist_ok=True)
        # A single controller talks to itself alone, so its port may be another at every start.
        controller_port = free_port() if self.nodes == 1 else self.port_between
        text = _PROPERTIES.format(
            node=self.node,
            host=self.host,
            port=self.port,
            controller_port=controller_port,
            voters=",".join(f"{node}@{self.host_of(node)}:{controller_port}" for node in range(1, self.nodes + 1)),
            data=self.data,
            security=self.settings.kafka_security,
        )
        text += _CLUSTER if self.nodes > 1 else ""
        # Java reads it as Latin-1: of a folder with an umlaut it would make another one.
        escaped = re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text + self._secured())
        write_private(self.conf / "server.properties", WRITTEN + escaped)
        (self.conf / "log4j2.xml").write_text(_LOG4J)
        if not (self.data / "meta.properties").exists():
            # In one word: one in 64 ids begins with a dash.
            cluster_id = f"--cluster-id={self._cluster_id()}"
            format_data = ["format", "--config", str(self.conf / "server.properties"), cluster_id]
            java = str(java_home() / "bin" / "java")
            run_once(
                [java, "-cp", classpath(jars), self._logging, "kafka.tools.StorageTool", *format_data],
                "formatting Kafka's data folder",
            )

    def _cluster_id(self) -> str:
        """That of the first broker, whose data are there before those of the others; its own is new."""
        first = self.data.with_name(name_of(type(self), 1)) / "meta.properties"
        there = re.search(r"^cluster\.id=(.*)$", first.read_text(), re.MULTILINE) if first.exists() else None
        return there[1] if there else base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()

    def command(self) -> list[str]:
        """The broker's JVM."""
        heap = "512m" if self.nodes == 1 else "384m"
        return [
            str(java_home() / "bin" / "java"),
            *(f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true"),
            f"-Djava.io.tmpdir={self.temporary}",
            self._logging,
            *("-cp", classpath(KAFKA.folder), "kafka.Kafka", str(self.conf / "server.properties")),
        ]

    def check_answers(self) -> None:
        """List the topics."""
        with self._admin() as admin:
            admin.list_topics()

    def set_up(self) -> None:
        """Create KAFKA_TOPIC if it is missing, and Kafka's accounts if it asks for them."""
        if self.node > 1:
            return
        with self._admin() as admin:
            create_topic(admin, self.settings)
            if self.settings.kafka_security != "PLAINTEXT":
                create_kafka_accounts(admin, self.settings)
                # So that it logs in as the others do, where nothing is known but the settings.
                set_kafka_passwords(admin, [self._admin_account])

    def _secured(self) -> str:
        """The lines of server.properties for SASL_SSL; none for PLAINTEXT."""
        if self.settings.kafka_security == "PLAINTEXT":
            return ""
        name, password = self._admin_account.user, jaas_quoted(self._admin_account.password.get_secret_value())
        if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
            raise ConfigurationError(f"KAFKA_ADMIN_USER is {name!r}; it should be of letters, digits, '.', '_' and '-'")
        module = "org.apache.kafka.common.security"
        plain = (
            f'{module}.plain.PlainLoginModule required username="{name}" password={password} user_{name}={password};'
        )
        return _SECURED.format(
            certificates=self.certificates,
            # Java's properties would take single backslashes away.
            plain=plain.replace("\\", "\\\\"),
            scram=f"{module}.scram.ScramLoginModule required;",
            admin=name,
        )

    @property
    def _admin_account(self) -> Account:
        return self.settings.kafka_admin.required()

    @property
    def _logging(self) -> str:
        return f"-Dlog4j2.configurationFile={self.conf / 'log4j2.xml'}"

    @contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        options: dict[str, Any] = {}
        if self.settings.kafka_security != "PLAINTEXT":
            options = kafka_options(self.settings, self._admin_account) | {"sasl_mechanism": "PLAIN"}
        try:
            admin = KafkaAdminClient(
                bootstrap_servers=self.address, client_id="services", request_timeout_ms=5000, **options
            )
            with closing(admin):
                yield admin
        except KafkaError as error:
            raise StoreUnavailable(f"Kafka at {self.address}: {error}") from None
