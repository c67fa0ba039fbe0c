"""Which servers a process of the tests has for itself, and whether they stay."""

import os

#: Set to 1 to leave the test servers running between two runs.
KEEP_VARIABLE = "TICKLEDGER_KEEP_TEST_SERVICES"
#: Names another set of test servers; TICKLEDGER_MYSQLD says which MySQL they run.
INSTANCE_VARIABLE = "TICKLEDGER_TEST_INSTANCE"


def instance_name() -> str:
    """The name of the servers that this process of the tests has for itself."""
    name, worker = os.environ.get(INSTANCE_VARIABLE, "test"), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return name if worker == "gw0" else f"{name}-{worker}"
