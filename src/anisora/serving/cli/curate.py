"""`anisora curate`: raw videos in, a training set out, and what can be done with it afterwards without decoding."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from anisora.errors import BadRequest, Failed
from anisora.serving.cli.console import print_json, progress_bars, say, show_table
from anisora.serving.cli.default import DEFAULT, WithDefault
from anisora.settings import load, plain, read

app = typer.Typer(
    cls=WithDefault,
    help="Raw videos in, a training set out: anisora curate SOURCE... --out DIR.",
    epilog="Example: anisora curate videos/ --out data",
    no_args_is_help=True,
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else there.")]
_Dir = Annotated[Path, typer.Argument(metavar="DIR", help="The --out of a run.")]


@app.command(DEFAULT, hidden=True)
def run(
    sources: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="Videos and folders of them.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the set is made; the same folder resumes.")],
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings, YAML or JSON.")] = None,
    engine: Annotated[str, typer.Option(metavar="local|ray", help="Where the work runs.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Default: the cores there are.")] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The Ray cluster; default: one here.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="key=value", help="Change one setting; repeatable.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Turn raw videos into scored, captioned, deduplicated clips and training shards.

    Resumable: run it again after an interruption, with more sources, or with other settings; what is there is not made
    again.

    Example: anisora curate videos/ --out data --workers 4
    """
    from anisora.curation.config import CurateConfig
    from anisora.curation.pipeline import curate
    from anisora.settings import override

    data = override(load(config) if config else {}, set_ or [])
    settings = read(CurateConfig, data, where=config.name if config else "")
    # What libraries print on the way (Ray does) is no part of the result.
    with progress_bars(quiet=as_json) as progress, contextlib.redirect_stdout(sys.stderr):
        result = curate(
            sources, out, settings, engine=engine, workers=workers, address=address, progress=progress, say=say
        )
    _tell(result, as_json)


def _tell(result: Any, as_json: bool) -> None:
    """Shows how a run or a selection ended. Raises Failed, with the nearest miss, when nothing was kept."""
    if as_json:
        print_json(plain(result))
    else:
        _show(result)
    if not result.kept:
        raise Failed("no clip was kept", got=result.nearest_miss, hint="anisora curate select with wider bounds")


def _show(result: Any) -> None:
    from anisora.curation.report import length_text

    rows = [("clips found", "", result.clips)]
    left = result.clips
    for rule, dropped in result.funnel:
        if dropped:
            left -= dropped
            rows.append((rule, f"-{dropped}", left))
    show_table(("step", "dropped", "left"), rows)
    say(f"kept {result.kept} of {result.clips} clips ({length_text(result.kept_s)}) from {result.sources} sources")
    if result.unmeasured:
        say(f"{result.unmeasured} clips only lack a measurement: run `anisora curate` again to make it")
    if result.shards.get("behind"):
        say(f"shards are behind by {result.shards['behind']} clips: --pack writes them anew")
    for reason, count in sorted(result.faults.items()):
        say(f"  {count} could not be used: {reason}")
    if result.passed_over:
        say(f"  {result.passed_over} other files were passed over")
    say(f"manifest {result.manifest_hash[:16]}, report {Path(result.out) / 'report.html'}")


@app.command()
def select(
    out: _Dir,
    bounds: Annotated[
        list[str] | None,
        typer.Option("--keep", metavar="MEASURE=LEAST:MOST", help="Bounds of one measure; either side may be empty."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(metavar="NAME=WORD", help="Drop clips with this word; NAME= drops no word.")
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings whose `select` is used.")] = None,
    preset: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Write a mixture for a training stage.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the funnel, write nothing.")] = False,
    pack: Annotated[
        bool, typer.Option("--pack", help="Write the shards anew too, from the files of kept clips.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Decide again with other thresholds: no video is opened.

    Example: anisora curate select data --keep flow=0.2: --keep text_cover=:0.01
    """
    from anisora.curation import reselect
    from anisora.curation.config import CurateConfig

    given = read(CurateConfig, load(config), where=config.name).select if config else None
    result = reselect.reselect(
        out,
        given,
        between=dict(map(_bounds, bounds or [])),
        without=_words(without or []),
        stages=preset or [],
        dry_run=dry_run,
        pack=pack,
    )
    _tell(result, as_json)


def _bounds(text: str) -> tuple[str, tuple[float | None, float | None]]:
    name, equals, sides = text.partition("=")
    least, colon, most = sides.partition(":")
    try:
        if equals and colon:
            return name, (float(least) if least else None, float(most) if most else None)
    except ValueError:
        pass
    raise BadRequest(
        "unreadable bounds", got=repr(text), expected="MEASURE=LEAST:MOST", hint="flow=0.2: or text_cover=:0.01"
    )


def _words(texts: list[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, equals, word = text.partition("=")
        if not equals:
            raise BadRequest("unreadable rule", got=repr(text), expected="NAME=WORD", hint="camera.kind=still")
        found[name] = (*found.get(name, ()), *([word] if word else []))
    return found


@app.command()
def report(out: _Dir, as_json: _Json = False) -> None:
    """Write the report page again: funnel, histograms, what-if thresholds, examples at the cut line, cost.

    Example: anisora curate report data
    """
    from anisora.curation.reselect import rewrite_report

    path = rewrite_report(out)
    if as_json:
        print_json({"report": str(path)})
    else:
        say(f"wrote {path}")


@app.command()
def review(
    out: _Dir,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Labels given before: the page goes on from them.")
    ] = None,
    head: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Ask about this head alone; repeatable. Default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Clips on the page.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the clips that are drawn at random.")] = 0,
    as_json: _Json = False,
) -> None:
    """Write the page on which people look at clips and label them, those first of which heads are least sure.

    The page exports labels.csv, which `anisora train heads` reads and the next `review` goes on from.

    Example: anisora curate review data --labels labels.csv --head talking
    """
    from anisora.curation.reselect import rewrite_review

    path, shown = rewrite_review(out, labels=labels, heads=head or (), limit=limit, seed=seed)
    if as_json:
        print_json({"review": str(path), "clips": shown})
        return
    say(f"wrote {path} with {shown} clips")
    say(
        f"then: anisora train heads labels.csv --features {out}/features.parquet --groups {out}/clips.parquet --out heads"
    )


@app.command()
def latents(
    out: _Dir,
    model: Annotated[
        str, typer.Option(metavar="NAME_OR_PATH", help="The checkpoint whose networks encode.")
    ] = "bundled",
    height: Annotated[int, typer.Option(min=16, metavar="PX", help="Short side; nothing is enlarged.")] = 480,
    fps: Annotated[int, typer.Option(min=1, help="Frames per second.")] = 16,
    text: Annotated[bool, typer.Option("--text/--no-text", help="Embed the captions too.")] = True,
    as_json: _Json = False,
) -> None:
    """Encode clips and captions once, in tars beside the shards, for training without VAE and text encoder.

    Example: anisora curate latents data --model bundled --height 256
    """
    from anisora.curation.latents import LatentSettings, write_latents

    settings = LatentSettings(height_px=height, fps=fps)
    with progress_bars(quiet=as_json) as progress:
        made = write_latents(out, model, settings, text=text, progress=progress)
    if as_json:
        print_json(made)
    else:
        say("; ".join(f"{kind}: {n['written']} tars written, {n['kept']} kept" for kind, n in made.items()))


@app.command()
def verify(
    out: _Dir,
    repair: Annotated[bool, typer.Option("--repair", help="Remove what is damaged and make shards again.")] = False,
    as_json: _Json = False,
) -> None:
    """Read every clip and shard and compare with what was written down.

    Example: anisora curate verify data --repair
    """
    from anisora.curation.upkeep import verify as check

    result = check(out, repair=repair)
    if as_json:
        print_json(plain(result))
    else:
        say(f"{result.clips} clips and {result.shards} shards read")
        for name, problem in {**result.bad_clips, **result.bad_shards}.items():
            say(f"  {name}: {problem}")
        if result.repaired:
            say("repaired; run `anisora curate` again to make the lost clips")
    if not result.is_whole and not repair:
        raise Failed(
            "the set is damaged", got=f"{len(result.bad_clips)} clips, {len(result.bad_shards)} shards", hint="--repair"
        )


@app.command()
def retry(
    out: _Dir,
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed with an error.")] = False,
    quarantined: Annotated[bool, typer.Option("--quarantined", help="Only what crashed or hung.")] = False,
    as_json: _Json = False,
) -> None:
    """Let what went wrong be tried again by the next run (both kinds, unless one is named).

    Example: anisora curate retry data --failed
    """
    from anisora.curation.upkeep import retry as forget

    both = failed == quarantined
    count = forget(out, failed=failed or both, quarantined=quarantined or both)
    if as_json:
        print_json({"forgotten": count})
    else:
        say(f"{count} results forgotten; run `anisora curate` again")


@app.command()
def purge(
    out: _Dir,
    source: Annotated[list[str] | None, typer.Option(metavar="ID_OR_PATH", help="A source; patterns too.")] = None,
    licence: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="All sources of a licence.")] = None,
    as_json: _Json = False,
) -> None:
    """Take sources out for good: clips, signals, results and shards.

    Example: anisora curate purge data --source "*/episode_07.mkv"
    """
    from anisora.curation.upkeep import purge as take_out

    result = take_out(out, sources=source or [], licences=licence or [])
    if as_json:
        print_json(result)
    else:
        say(f"{result['sources']} sources, {result['clips']} clips and {result['files']} files are gone")
