"""The command line. One thin file a command: parse, call one function, print. Only this package prints."""

import os
import sys

import typer
from typer.core import TyperGroup

from balancemm_cli import __version__
from balancemm_cli.cli.doctor import doctor
from balancemm_cli.cli.eval import evaluate
from balancemm_cli.cli.list import list_
from balancemm_cli.cli.prepare import prepare
from balancemm_cli.cli.report import report
from balancemm_cli.cli.show import show
from balancemm_cli.cli.terminal import expand_home, prepare_streams
from balancemm_cli.cli.train import train
from balancemm_cli.cli.tune import tune
from balancemm_cli.errors import BmmError, OfFirstProcess, os_error_sentence


class _Interrupted(BmmError):
    exit_status = 130


class _Program(TyperGroup):
    """Typer would end on Ctrl-C without the message that says how to go on."""

    def invoke(self, ctx):  # noqa: ANN001, ANN202 - signature of click
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(explain(error)[0]) from error


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("prepare")(prepare)
app.command("train")(train)
app.command("tune")(tune)
app.command("eval")(evaluate)
app.command("report")(report)
app.command("list")(list_)
app.command("show")(show)
app.command("doctor")(doctor)


def _print_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def options(
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and stop."
    ),
) -> None:
    """Reproduce and compare balanced multimodal learning: prepare → train → eval → report.

    Nothing prepared yet? `bmm train --method opm+ogm` works as it stands, on built-in synthetic data.
    """


def main() -> None:
    """Run the program; turn errors a user can act on into one sentence and the right exit status."""
    message = ""
    prepare_streams()
    try:
        app(args=expand_home(sys.argv[1:]))
    except (BmmError, OSError, KeyboardInterrupt) as error:
        if "--debug" in sys.argv:
            raise
        message, status = explain(error)
        if not isinstance(error, OfFirstProcess):
            print(f"bmm: {message}", file=sys.stderr)
        sys.exit(status)
    finally:
        _name_faulty_extensions(message)


def _name_faulty_extensions(said: str) -> None:
    """Name what other packages announce and can't be used, where a command came to load it and did not say so."""
    from balancemm_cli.extensions import FAULTY

    for extension in FAULTY:
        if int(os.environ.get("RANK", "0")) == 0 and extension.explanation != said:
            print(f"bmm: {extension.explanation}", file=sys.stderr)


def explain(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit status for an error that is not a bug of this program."""
    match error:
        case BmmError():
            return str(error), error.exit_status
        case KeyboardInterrupt():
            return str(error) or "Interrupted. Run the same command to go on.", 130
        case OSError():
            return os_error_sentence(error), 3
        case _:
            raise error
