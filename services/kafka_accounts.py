"""Kafka's accounts and what each may do, if KAFKA_SECURITY is SASL_SSL."""

from collections.abc import Iterable
from typing import Any

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from tickledger.errors import TickledgerError
from tickledger.settings import Account, Settings

#: The group ids that Spark's Kafka source makes up begin so.
SPARK_GROUPS = "spark-kafka-source"
_TOPIC, _GROUP = ResourceType.TOPIC, ResourceType.GROUP
_SEE = (_TOPIC, ACLOperation.DESCRIBE)


def create_kafka_accounts(admin: KafkaAdminClient, settings: Settings) -> None:
    """Create or renew the accounts and grant them their rights on the topic. A second run changes nothing.

    Passwords become the settings'. Raises ConfigurationError if an account is not set and TickledgerError if
    the broker refuses.
    """
    rights = {
        settings.kafka.required(): [
            *((_TOPIC, ACLOperation.READ), _SEE, (_TOPIC, ACLOperation.DESCRIBE_CONFIGS)),
            (_GROUP, ACLOperation.READ),
        ],
        settings.producer_kafka.required(): [(_TOPIC, ACLOperation.WRITE), _SEE],
        settings.dashboard_kafka.required(): [_SEE],
    }
    set_kafka_passwords(admin, rights)
    patterns = {
        _TOPIC: ResourcePattern(_TOPIC, settings.kafka_topic, ACLResourcePatternType.LITERAL),
        _GROUP: ResourcePattern(_GROUP, SPARK_GROUPS, ACLResourcePatternType.PREFIXED),
    }
    acls = [
        ACL(f"User:{account.user}", "*", operation, ACLPermissionType.ALLOW, patterns[kind])
        for account, granted in rights.items()
        for kind, operation in granted
    ]
    outcome: dict[str, Any] = admin.create_acls(acls)
    if outcome["failed"]:
        raise TickledgerError(f"Kafka did not take the rights of its accounts: {outcome['failed'][0]}")


def set_kafka_passwords(admin: KafkaAdminClient, accounts: Iterable[Account]) -> None:
    """Let accounts log in by SCRAM-SHA-512, with the settings' passwords."""
    scram = ScramMechanism.SCRAM_SHA_512
    outcome: dict[str, Any] = admin.alter_user_scram_credentials(
        [UserScramCredentialUpsertion(one.user, scram, one.password.get_secret_value()) for one in accounts]
    )
    for user, refused in outcome.items():
        if refused:
            raise TickledgerError(f"Kafka did not take the password of {user!r}: {refused}")
