"""The command `tickledger`: what a person types, gathered. The programs themselves stay in their folders."""

import typer

from commands import check_contract, dead_letters, doctor, rebuild, reconcile, roll_up, services, trace
from producer.__main__ import app as produce
from tickledger.errors import run_command

LOOK, MEND, RUN = "Look", "Repair", "Run"

app = typer.Typer(
    help="Trace, compare and repair what has landed; run the servers and the producer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for panel, name, command in (
    (LOOK, "doctor", doctor.main),
    (LOOK, "reconcile", reconcile.main),
    (LOOK, "trace", trace.main),
    (LOOK, "check-contract", check_contract.main),
    (MEND, "rebuild", rebuild.main),
    (MEND, "roll-up", roll_up.main),
):
    app.command(name, rich_help_panel=panel)(command)
app.add_typer(dead_letters.app, name="dead-letters", rich_help_panel=MEND)
app.add_typer(services.app, name="services", rich_help_panel=RUN)
app.add_typer(produce, name="produce", rich_help_panel=RUN)


def main() -> None:
    """Run `tickledger`. Exit code 1 or 2 and one line for an error that the user can act on, 130 after Ctrl-C."""
    run_command(lambda: app(prog_name="tickledger"))


if __name__ == "__main__":
    main()
