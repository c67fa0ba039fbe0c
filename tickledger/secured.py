"""What the settings say about TLS and Kafka's accounts, as arguments of each client."""

import socket
import ssl
from pathlib import Path
from typing import Any

from tickledger.errors import CertificateRefused
from tickledger.settings import NO_FILE, Account, CertificatesFile, Settings

SCRAM = "SCRAM-SHA-512"
HANDSHAKE_SECONDS = 5
#: kafka-python takes addresses by chance, and waits for a dead one while another one lives. Its usual pauses, of up to
#: 30 s, kept one start in a hundred from a broker, with two dead of three.
RECONNECT_MS = 100


def kafka_options(settings: Settings, account: Account) -> dict[str, Any]:
    """Arguments of each of kafka-python's clients. Raises ConfigurationError if the account is not set."""
    options: dict[str, Any] = {"reconnect_backoff_max_ms": RECONNECT_MS}
    if settings.kafka_security == "PLAINTEXT":
        return options
    account = account.required()
    return options | {
        "security_protocol": "SASL_SSL",
        "ssl_cafile": settings.kafka_ca_file,
        "ssl_check_hostname": True,
        "sasl_mechanism": SCRAM,
        "sasl_plain_username": account.user,
        "sasl_plain_password": account.password.get_secret_value(),
    }


def spark_kafka_options(settings: Settings) -> dict[str, str]:
    """Options of Spark's Kafka source, which hides the last one in its logs. Raises ConfigurationError as above."""
    if settings.kafka_security == "PLAINTEXT":
        return {}
    account = settings.kafka.required()
    return {
        "kafka.security.protocol": "SASL_SSL",
        "kafka.ssl.truststore.type": "PEM",
        # The workers read no file of this machine.
        "kafka.ssl.truststore.certificates": _certificates(settings.kafka_ca_file),
        "kafka.sasl.mechanism": SCRAM,
        "kafka.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        f"username={jaas_quoted(account.user)} password={jaas_quoted(account.password.get_secret_value())};",
    }


def jaas_quoted(text: str) -> str:
    """The text as a value in a JAAS configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def cassandra_options(settings: Settings) -> dict[str, Any]:
    """Arguments of cassandra-driver's Cluster: the certificate must be signed by the authority and name the host."""
    if settings.cassandra_ca_file == NO_FILE:
        return {}
    return {"ssl_context": ssl.create_default_context(cadata=_certificates(settings.cassandra_ca_file))}


def _certificates(ca_file: str) -> str:
    """What a file of certificates holds, also where there is no such file but settings that have read it."""
    file = ca_file if isinstance(ca_file, CertificatesFile) else CertificatesFile.read(Path(ca_file))
    return file.certificates


def mysql_options(settings: Settings) -> dict[str, Any]:
    """Arguments of mysql-connector-python: the certificate must be signed by the authority and name the host."""
    if settings.mysql_ca_file == NO_FILE:
        return {}
    return {"ssl_ca": settings.mysql_ca_file, "ssl_verify_cert": True, "ssl_verify_identity": True}


def check_kafka_certificate(settings: Settings) -> None:
    """Raise ConfigurationError if a broker's certificate is refused: kafka-python would only say that none answers.

    A broker that does not answer at all is left to the client.
    """
    if settings.kafka_security == "SASL_SSL":
        for address in settings.kafka_bootstrap_servers.split(","):
            host, _, port = address.rpartition(":")
            _check_certificate(host, int(port), "KAFKA_CA_FILE", settings.kafka_ca_file, "KAFKA_BOOTSTRAP_SERVERS")


def check_cassandra_certificate(settings: Settings) -> None:
    """Raise ConfigurationError if a node's certificate is refused; a node that does not answer is left out."""
    if settings.cassandra_ca_file != NO_FILE:
        for host in settings.cassandra_hosts:
            _check_certificate(
                host, settings.cassandra_port, "CASSANDRA_CA_FILE", settings.cassandra_ca_file, "CASSANDRA_HOSTS"
            )


def certificate_refused(setting: str, ca_file: str, where: str, reason: str, hosts: str) -> CertificateRefused:
    """The one line about a certificate that a client refuses."""
    return CertificateRefused(
        f"{setting} is {ca_file!r}; the certificate of {where} is refused ({reason}): {setting} should hold the "
        f"authority that signed it, and the certificate should be valid now and name the host of {hosts}"
    )


def _check_certificate(host: str, port: int, setting: str, ca_file: str, hosts: str) -> None:
    where = f"{host}:{port}"
    try:
        with (
            socket.create_connection((host, port), HANDSHAKE_SECONDS) as plain,
            ssl.create_default_context(cafile=ca_file).wrap_socket(plain, server_hostname=host),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise certificate_refused(setting, ca_file, where, error.verify_message, hosts) from None
    except ssl.SSLError as error:
        raise CertificateRefused(
            f"{setting} is {ca_file!r}; {where} does not speak TLS ({error.reason}): the server should, or {setting} "
            "should be none (and KAFKA_SECURITY, for Kafka, PLAINTEXT)"
        ) from None
    except OSError:
        return
