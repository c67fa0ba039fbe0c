"""Cassandra on loopback: a node with password authentication, alone or one of three."""

from pathlib import Path

import yaml

from services.cassandra_roles import check_superuser, create_roles_and_tables, refuse_superusers_name
from services.certificates import make_certificates
from services.jars import CASSANDRA, classpath, fetch
from services.java import java_home
from services.server import WRITTEN, Server, free_port, name_of, process_of
from tickledger.errors import ConfigurationError, StoreUnavailable
from tickledger.settings import NO_FILE

# Cassandra 5.0's own list for Java 17 (conf/jvm17-server.options), without jdk.compiler, which it does not need to run.
_EXPORTS = (
    *("java.base/jdk.internal.misc", "java.management.rmi/com.sun.jmx.remote.internal.rmi"),
    *("java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server", "java.sql/java.sql", "java.base/java.lang.ref"),
    *("jdk.unsupported/sun.misc", "jdk.attach/sun.tools.attach"),
)
_OPENS = (
    *("java.base/java.lang.module", "java.base/jdk.internal.loader", "java.base/jdk.internal.ref"),
    *("java.base/jdk.internal.reflect", "java.base/jdk.internal.math", "java.base/jdk.internal.module"),
    *("java.base/jdk.internal.util.jar", "jdk.management/com.sun.management.internal", "java.base/sun.nio.ch"),
    *("java.base/java.io", "java.base/java.lang.reflect", "java.base/java.lang", "java.base/java.util"),
)

_LOGBACK = """<configuration>
  <appender name="console" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder>
  </appender>
  <root level="INFO"><appender-ref ref="console"/></root>
</configuration>
"""


class CassandraServer(Server):
    """The node, its roles, the keyspace and its tables."""

    name = "cassandra"
    title = "Cassandra"
    port_setting = "CASSANDRA_PORT"

    @property
    def port(self) -> int:
        """CASSANDRA_PORT. Raises ConfigurationError if CASSANDRA_HOSTS is not this machine."""
        hosts = self.settings.cassandra_hosts
        if any(host != self.host and (host, self.nodes) != ("localhost", 1) for host in hosts):
            raise ConfigurationError(
                f"CASSANDRA_HOSTS is {','.join(hosts)!r}; the services run on this machine: it should be {self.host}"
            )
        return self.settings.cassandra_port

    @staticmethod
    def version() -> str:
        """The version of the artifact."""
        return CASSANDRA.version

    def prepare(self) -> None:
        """Write cassandra.yaml and the log configuration."""
        refuse_superusers_name(self.settings)
        fetch(CASSANDRA, self.say)
        self.conf.mkdir(parents=True, exist_ok=True)
        self.data.mkdir(parents=True, exist_ok=True)
        (self.conf / "logback.xml").write_text(_LOGBACK)
        self._internode.parent.mkdir(parents=True, exist_ok=True)
        # Nodes that run keep showing what they read at their start, and take no other authority's.
        if not any(process_of(self._folder, name_of(type(self), node)).pid for node in range(1, self.nodes + 1)):
            make_certificates(self._internode)
        configuration = self._configuration() | self._encryption()
        (self.conf / "cassandra.yaml").write_text(WRITTEN + yaml.safe_dump(configuration, sort_keys=False))

    def command(self) -> list[str]:
        """The node's JVM. JMX stays off: no port but the two of cassandra.yaml is open."""
        heap, direct = ("1g", "512m") if self.nodes == 1 else ("768m", "256m")
        return [
            str(java_home() / "bin" / "java"),
            # In a heap this small G1 marks nearly all the time, beside the requests: a third of what a read costs.
            *(f"-Xms{heap}", f"-Xmx{heap}", f"-XX:MaxDirectMemorySize={direct}", "-XX:+UseParallelGC"),
            *("-XX:+ExitOnOutOfMemoryError", "-XX:+PerfDisableSharedMem", "-Djava.awt.headless=true"),
            "-Djdk.attach.allowAttachSelf=true",
            *(word for export in _EXPORTS for word in ("--add-exports", f"{export}=ALL-UNNAMED")),
            *(word for package in _OPENS for word in ("--add-opens", f"{package}=ALL-UNNAMED")),
            *("-Dio.netty.tryReflectionSetAccessible=true", "-Dio.netty.allocator.useCacheForAllThreads=true"),
            *("-Dio.netty.allocator.maxOrder=11", f"-Djava.io.tmpdir={self.temporary}"),
            f"-Dcassandra.config=file://{self.conf / 'cassandra.yaml'}",
            *(f"-Dcassandra.storagedir={self.data}", f"-Dcassandra.logdir={self.log_file.parent}"),
            f"-Dlogback.configurationFile={self.conf / 'logback.xml'}",
            # One node has nobody to wait for, neither to gossip with nor before it makes the first superuser. In a
            # cluster most replicas of the accounts must be there for that: it tries once a second.
            "-Dcassandra.skip_wait_for_gossip_to_settle=0",
            f"-Dcassandra.superuser_setup_delay_ms={0 if self.nodes == 1 else 1000}",
            *("-cp", classpath(CASSANDRA.folder), "org.apache.cassandra.service.CassandraDaemon"),
        ]

    def check_answers(self) -> None:
        """Log in as our superuser, or as the default one before the first set-up; all nodes must know each other.

        Raises ConfigurationError if CASSANDRA_ADMIN_PASSWORD is not the data's.
        """
        known = check_superuser(self.settings, was_set_up=self.was_set_up)
        if known < self.nodes:
            raise StoreUnavailable(f"{self.title} at {self.address} knows {known} of {self.nodes} nodes")

    def set_up(self) -> None:
        """Replace the default superuser by ours; create or renew roles, keyspace and tables.

        CASSANDRA_USER may read and write rows of its keyspace, DASHBOARD_CASSANDRA_USER read them, and nothing else.
        Their passwords become the settings' at every start.
        """
        if self.node == 1:
            create_roles_and_tables(self.settings)

    @property
    def _internode(self) -> Path:
        """The nodes' own authority, and the certificate that all of them show each other."""
        return self.conf.with_name(type(self).name) / "internode"

    def _storage(self) -> dict[str, object]:
        """The port for other nodes: a stranger has no certificate of the nodes' own authority.

        Whoever may speak there reads and writes rows without a role.
        """
        # A cluster's nodes remember each other's.
        port = free_port() if self.nodes == 1 else self.port_between
        hosts = ",".join(f"{self.host_of(node)}:{port}" for node in range(1, self.nodes + 1))
        seeds = {"class_name": "org.apache.cassandra.locator.SimpleSeedProvider", "parameters": [{"seeds": hosts}]}
        encryption = {"internode_encryption": "all", "require_client_auth": True, **_pem_files(self._internode)}
        return {
            "seed_provider": [seeds],
            "listen_address": self.host,
            "storage_port": port,
            "server_encryption_options": encryption,
        }

    def _encryption(self) -> dict[str, object]:
        """TLS for all clients if CASSANDRA_CA_FILE names a file; one node has no others to talk with."""
        if self.settings.cassandra_ca_file == NO_FILE:
            return {}
        options = {
            "enabled": True,
            "optional": False,
            "require_client_auth": False,
            **_pem_files(self.certificates),
        }
        return {"client_encryption_options": options}

    def _configuration(self) -> dict[str, object]:
        return {
            "cluster_name": "tickledger",
            "num_tokens": 16,
            "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
            "endpoint_snitch": "SimpleSnitch",
            "auto_bootstrap": False,
            **self._storage(),
            # Of the accounts too, so that logins go on while a node is away.
            **({} if self.nodes == 1 else {"default_keyspace_rf": self.nodes}),
            "rpc_address": self.host,
            "native_transport_port": self.port,
            "authenticator": "PasswordAuthenticator",
            "authorizer": "CassandraAuthorizer",
            "role_manager": "CassandraRoleManager",
            # Short enough that a changed password or permission holds at once for people.
            "roles_validity": "500ms",
            "permissions_validity": "500ms",
            "credentials_validity": "500ms",
            "data_file_directories": [str(self.data / "data")],
            "commitlog_directory": str(self.data / "commitlog"),
            "saved_caches_directory": str(self.data / "saved_caches"),
            "hints_directory": str(self.data / "hints"),
            "cdc_raw_directory": str(self.data / "cdc_raw"),
            # Acknowledged is on disk. The usual `periodic` sets a mark each 100 ms, and a node that is killed reads its
            # log up to the last mark only: what it has acknowledged since is gone, and nobody else has it.
            "commitlog_sync": "group",
            "commitlog_sync_group_window": "10ms",
            # A write holds its thread until its group is on disk; the usual 32 would let some 3,000 a second through.
            "concurrent_writes": 128,
            "commitlog_segment_size": "32MiB",
            # New rows in a trie outside of the heap: a write costs a third less, and less garbage is looked through.
            "memtable_allocation_type": "offheap_objects",
            "memtable": {"configurations": {"default": {"class_name": "TrieMemtable"}}},
            # Unlogged batches of upserts cost what their rows cost; the defaults warn at a tenth of ours.
            "batch_size_warn_threshold": "256KiB",
            "batch_size_fail_threshold": "4MiB",
            # A small machine that runs everything at once may pause longer than the usual 2 to 5 s.
            "read_request_timeout": "10000ms",
            "range_request_timeout": "10000ms",
            "write_request_timeout": "10000ms",
            # Tests drop and truncate often; a snapshot each time would fill the disk.
            "auto_snapshot": False,
        }


def _pem_files(folder: Path) -> dict[str, object]:
    """The certificate of a folder, and the authority whose certificates are taken."""
    return {
        "ssl_context_factory": {"class_name": "org.apache.cassandra.security.PEMBasedSslContextFactory"},
        "keystore": str(folder / "server-with-key.pem"),
        "truststore": str(folder / "ca.pem"),
    }
