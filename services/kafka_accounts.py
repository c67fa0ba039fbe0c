"""Kafka's accounts and what each may do, where KAFKA_SECURITY is SASL_SSL."""

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
from tickledger.secured import kafka_account
from tickledger.settings import Settings

ADMIN = "tickledger_admin"
#: The group ids that Spark's Kafka source makes up begin so.
SPARK_GROUPS = "spark-kafka-source"
_TOPIC, _GROUP = ResourceType.TOPIC, ResourceType.GROUP
#: What the account whose settings begin so may do with the topics, and with Spark's groups.
RIGHTS: dict[str, tuple[tuple[ResourceType, ACLOperation], ...]] = {
    "KAFKA": (
        (_TOPIC, ACLOperation.READ),
        (_TOPIC, ACLOperation.DESCRIBE),
        (_TOPIC, ACLOperation.DESCRIBE_CONFIGS),
        (_GROUP, ACLOperation.READ),
    ),
    "PRODUCER_KAFKA": ((_TOPIC, ACLOperation.WRITE), (_TOPIC, ACLOperation.DESCRIBE)),
    "DASHBOARD_KAFKA": ((_TOPIC, ACLOperation.DESCRIBE),),
}


def create_kafka_accounts(admin: KafkaAdminClient, settings: Settings, topics: tuple[str, ...]) -> None:
    """Create or renew the accounts and grant them their rights on `topics`. A second run changes nothing.

    Passwords become the settings'. Raises ConfigurationError where an account is not set and TickledgerError where
    the broker refuses.
    """
    accounts = {account: kafka_account(settings, account) for account in RIGHTS}
    admin.alter_user_scram_credentials(
        [
            UserScramCredentialUpsertion(name, ScramMechanism.SCRAM_SHA_512, password.get_secret_value())
            for name, password in accounts.values()
        ]
    )
    acls = [acl for account, (name, _) in accounts.items() for acl in _acls(account, name, topics)]
    outcome: dict[str, Any] = admin.create_acls(acls)
    if outcome["failed"]:
        raise TickledgerError(f"Kafka did not take the rights of its accounts: {outcome['failed'][0]}")


def _acls(account: str, name: str, topics: tuple[str, ...]) -> list[ACL]:
    patterns = {
        _TOPIC: [ResourcePattern(_TOPIC, topic, ACLResourcePatternType.LITERAL) for topic in topics],
        _GROUP: [ResourcePattern(_GROUP, SPARK_GROUPS, ACLResourcePatternType.PREFIXED)],
    }
    return [
        ACL(f"User:{name}", "*", operation, ACLPermissionType.ALLOW, pattern)
        for kind, operation in RIGHTS[account]
        for pattern in patterns[kind]
    ]
