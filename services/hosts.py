"""Where the servers of an instance run: on this machine, a kind's second node at loopback's second address."""

LOOPBACK = "127.0.0.1"


class Hosts:
    """This machine. A test may have others, each with a network of its own."""

    #: Who may log in to MySQL, besides `localhost`.
    clients = LOOPBACK

    def address(self, name: str) -> str:
        """The address of a process, such as kafka-2."""
        number = name.rpartition("-")[2]
        return f"127.0.0.{number if number.isdecimal() else 1}"

    def prefix(self, name: str) -> list[str]:  # noqa: ARG002
        """What the command of a process begins with, so that it runs there; the process stays the command's own."""
        return []
