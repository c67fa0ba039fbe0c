"""The command `tickledger`: what a person types, gathered. The programs themselves stay in their folders."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from tickledger.command_line import run_app


class Entry(NamedTuple):
    """A command: the module of its `main`, or of the `app` that holds its own commands, and one line of help."""

    module: str
    summary: str


#: What one wants to do → the commands for it.
COMMANDS = {
    "Look at what has landed": {
        "doctor": Entry("commands.doctor", "Is this set-up fit to land? What fixes it?"),
        "reconcile": Entry("commands.reconcile", "Do both stores and the ledger agree?"),
        "trace": Entry("commands.trace", "Which batches is a number made of?"),
        "check-contract": Entry("commands.check_contract", "Do the live tables follow their definition?"),
    },
    "Repair and tidy": {
        "dead-letters": Entry("commands.dead_letters", "List what could not land; send it again."),
        "rebuild": Entry("commands.rebuild", "Rebuild a day's aggregates from Cassandra."),
        "give-up": Entry("commands.give_up", "Name what was lost before it landed; go on without it."),
        "fill-hours": Entry("commands.fill_hours", "Sum what has landed by company and hour."),
        "roll-up": Entry("commands.roll_up", "Move old batches' aggregates into a row per day."),
    },
    "Run": {
        "services": Entry("commands.services", "Kafka, Cassandra, MySQL here: start, stop, back up."),
        "feed": Entry("commands.feed", "What would a feed's messages become?"),
        "produce": Entry("producer.__main__", "Send ticks, replay a file, watch a topic."),
    },
}
_ENTRIES = {name: entry for commands in COMMANDS.values() for name, entry in commands.items()}


class Commands(TyperGroup):
    """The commands by name, each imported once it is called: together they take seconds to import."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # typer's interface
        """Their names, in the order of the help."""
        return list(_ENTRIES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # typer's interface
        """What the help and the shell's completion need of a command."""
        return TyperCommand(cmd_name, help=_ENTRIES[cmd_name].summary) if cmd_name in _ENTRIES else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is called, whole."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, _load(str(name)), rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # typer's interface
        """The commands by what one wants to do."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(self._padded(name), entry.summary) for name, entry in commands.items()])

    @staticmethod
    def _padded(name: str) -> str:
        return name.ljust(max(map(len, _ENTRIES)))


def _load(name: str) -> Any:
    module = import_module(_ENTRIES[name].module)
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(name)(module.main)
    return typer.main.get_command(app)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _tickledger() -> None:
    """Trace, compare and repair what has landed; run the servers and the producer."""


def main() -> None:
    """Run `tickledger`."""
    run_app(app, "tickledger")


if __name__ == "__main__":
    main()
