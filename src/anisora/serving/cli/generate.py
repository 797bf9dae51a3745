"""`anisora generate`: one shot from flags, or many from a file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.errors import BadRequest
from anisora.records import Request
from anisora.serving.cli.console import print_json, progress_bars, say
from anisora.serving.cli.flags import given_fields, request_parameters, with_parameters


def _generate(
    request_file: Annotated[
        str | None,
        typer.Option(
            "--request",
            metavar="FILE",
            help="Many shots from a .yaml, .json or .jsonl file, an upstream prompt list (.txt), or a finished shot to "
            "make again. Flags beside it change every shot; --out then names a folder. Finished shots are skipped.",
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="With --request: make finished shots again too.")] = False,
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Default: the accelerator, else cpu.")] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="float32, bfloat16, float16 or float8 weights. Default: bfloat16, on a cpu float32."
        ),
    ] = None,
    offload: Annotated[
        str | None, typer.Option(metavar="parts|blocks", help="Keep only the working part on the accelerator.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")] = False,
    **flags: Any,
) -> int:
    """Make a shot from a prompt, stills at any frames, a motion mask, or a clip to restore.

    Example: anisora generate --prompt "she turns" --guide a.png@0 --guide b.png@50% --guide c.png@-1 --out shot.mp4
    """
    from anisora.generation.runner import Session, run_shots

    requests = _requests(request_file, flags)
    with progress_bars(quiet=as_json) as progress:
        session = Session(device=device, dtype=dtype, offload=offload, progress=progress)
        outcomes = run_shots(
            requests,
            session,
            skip_finished=request_file is not None and not again,
            told=_tell if request_file else _tell_made,
        )
    failures = [outcome for outcome in outcomes if outcome.problem is not None]
    if request_file is None and failures:
        raise failures[0].problem  # type: ignore[misc]
    if as_json:
        records = [outcome.as_json() for outcome in outcomes]
        print_json(records if request_file is not None else records[0])
    if failures:
        _tell_failures(failures, len(outcomes))
    return 1 if failures else 0


generate = with_parameters(_generate, request_parameters())


def _requests(request_file: str | None, flags: dict[str, Any]) -> list[Request]:
    """What is to be made, with an `out` each."""
    from anisora.generation.request_files import absolute, load_requests

    fields = given_fields(flags)
    if request_file is None:
        if not fields:
            raise BadRequest(
                "nothing to make",
                expected="a prompt, a guide or a file of requests",
                hint='anisora generate --prompt "a girl waves" --guide hero.png --out shot.mp4',
            )
        request = absolute(Request(**fields), Path.cwd())
        if not request.out:
            raise BadRequest("nowhere to write the shot", expected="--out", hint="--out shot.mp4")
        return [request]
    folder = fields.pop("out", None)
    requests = [absolute(replace(request, **fields), Path.cwd()) for request in load_requests(request_file)]
    return _with_outs(requests, folder, Path(request_file))


def _with_outs(requests: list[Request], out: str | None, source: Path) -> list[Request]:
    """The requests of a file with an `out` each: their own, else a numbered name in the folder `out`."""
    if out and len(requests) == 1 and Path(out).suffix:
        return [replace(requests[0], out=os.path.abspath(out))]
    if out and Path(out).suffix:
        raise BadRequest("one file for many shots", got=out, expected="a folder", hint=f"--out {Path(out).stem}")
    width = max(3, len(str(len(requests))))
    named = []
    for number, request in enumerate(requests, 1):
        if request.out is None and out is None:
            raise BadRequest(
                f"{source.name}: nowhere to write shot {number}", expected="out, or --out FOLDER", hint="--out shots"
            )
        name = Path(request.out).name if request.out else f"{source.stem}_{number:0{width}}.mp4"
        named.append(replace(request, out=os.path.abspath(os.path.join(out, name)) if out else request.out))
    outs = [request.out for request in named]
    if twice := sorted({str(name) for name in outs if outs.count(name) > 1}):
        raise BadRequest(f"{source.name}: two shots write one file", got=", ".join(twice), expected="an out of its own")
    return named


def _tell_made(outcome: Any) -> None:
    """As `_tell`, but for a shot alone, whose failure is the command's own."""
    if outcome.problem is None:
        _tell(outcome)


def _tell(outcome: Any) -> None:
    """One line a shot, as it ends."""
    name = outcome.request.out
    if outcome.problem is not None:
        say(f"failed    {name}: {outcome.problem}")
    elif outcome.skipped:
        say(f"finished  {name} (made earlier)")
    else:
        made = outcome.generation
        for note in made.warnings:
            say(f"note      {note}")
        for guide in made.guides:
            psnr = "equal" if guide.psnr_db is None else f"{guide.psnr_db:.1f} dB"
            place = f"latent frame {guide.slot}" + ("" if guide.channel is None else f", channel {guide.channel}")
            say(f"guide     asked {guide.asked}, landed on frame {guide.frame} ({place}), {psnr}")
        width, height = made.size
        seconds = sum(made.seconds.values())
        say(f"made      {name}: {made.frames} frames of {width}x{height} in {seconds:.1f} s, {made.forwards} forwards")


def _tell_failures(failures: list[Any], total: int) -> None:
    say(f"{len(failures)} of {total} shots failed")
    width = max(len(Path(outcome.request.out).name) for outcome in failures)
    for outcome in failures:
        say(f"  {Path(outcome.request.out).name:{width}}  {outcome.problem}")
