"""The `anisora` command: one module a verb, one way to report (console.py), one way to fail (main, below).

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Results go to stdout, everything else to stderr; a failure
is one message of what was got, what was expected and what to try, and a traceback only with `--debug`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from anisora.errors import AnisoraError, BadRequest, OutOfMemory
from anisora.serving.cli import (
    curate,
    demo,
    doctor,
    evaluate,
    evaluate_gallery,
    evaluate_results,
    evaluate_scorers,
    evaluate_suite,
    generate,
    models,
    train,
)
from anisora.serving.cli.console import say

#: exit code of a command that was stopped by Ctrl-C or asked to end
INTERRUPTED = 130

app = typer.Typer(
    name="anisora",
    help="Animation shots from stills, keyframes and motion masks.",
    epilog='Example: anisora generate --prompt "she turns and waves" --guide hero.png --out shot.mp4',
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a failure's traceback; may stand after any verb.")
    ] = False,
) -> None:
    if version:
        from anisora import __version__

        typer.echo(f"anisora {__version__}")
        raise typer.Exit()


app.command("generate")(generate.generate)
app.add_typer(train.app, name="train")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(curate.app, name="curate")
for verbs in (evaluate_suite, evaluate_results, evaluate_scorers, evaluate_gallery):
    verbs.add_to(evaluate.app)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(models.app, name="models")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and leaves the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminated)
    sys.exit(run([word for word in words if word != "--debug"], debug="--debug" in words))


def _terminated(signal_number: int, frame: object) -> None:
    """Asked to end from outside: as clean as Ctrl-C, so that nothing half-written remains."""
    raise KeyboardInterrupt


def run(words: list[str], *, debug: bool = False) -> int:
    """The exit code of one command line; everything that can go wrong is told here, once."""
    try:
        code = app(words, standalone_mode=False)  # typer turns Ctrl-C into this code, or raises Abort, by its version
        sys.stdout.flush()
        return _interrupted() if code == INTERRUPTED else code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except typer.Exit as leaving:
        return leaving.exit_code
    except Exception as problem:
        if debug:
            raise
        return _report(problem)


def _interrupted() -> int:
    # not through the console: the interruption may have hit it in the middle of a line
    sys.stderr.write("interrupted; what is finished is kept, run the same command again to go on\n")
    return INTERRUPTED


def _report(problem: Exception) -> int:
    """One message on stderr for a failure, and its exit code."""
    if isinstance(problem, AnisoraError):
        _print_error(problem)
        return problem.exit_code
    if hasattr(problem, "format_message"):  # a command line that cannot be read
        near = " or ".join(getattr(problem, "possibilities", None) or ())
        _print_error(BadRequest(problem.format_message(), hint=near or "--help"))
        return BadRequest.exit_code
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        _print_error(
            OutOfMemory("out of memory", hint="a smaller --size, fewer --frames, a --window, or --dtype bfloat16")
        )
        return OutOfMemory.exit_code
    if isinstance(problem, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader of a pipe left; nothing to tell
        return 1
    say(f"[bold red]failed[/]: {type(problem).__name__}: {escape(str(problem))}", markup=True)
    say("  run again with --debug for the traceback")
    return 1


def _print_error(problem: AnisoraError) -> None:
    say(f"[bold red]error[/]: {escape(problem.what)}", markup=True)
    for name, value in (("got", problem.got), ("expected", problem.expected), ("try", problem.hint)):
        if value is not None:
            say(f"  {name}: {value}")
