"""A model through a benchmark: keyframes from the real clips, shots made, everything scored, real clips beside them.

What is in OUT: `suite/` (the drawn suite, where no other was named), `keyframes/`, `shots/MODEL/SETTING/ID.mp4`,
`samples.jsonl` (what was scored), `facts.jsonl` (action, style, 2D/3D and guides of each sample, for the report) and
`results.jsonl`. Run again it goes on; run with another model it adds that model beside the first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anisora.errors import BadInput, BadRequest
from anisora.evaluation.benchmark import Item, read_benchmark, spread, write_drawn_suite
from anisora.evaluation.samples import Sample
from anisora.files import write_atomic
from anisora.records import Guide, Request
from anisora.store import read_jsonl

Progress = Callable[[str, int, int], None]

#: name of the ceiling: the benchmark's real clips, scored like any model
REAL = "ground truth"

FACTS, SAMPLES = "facts.jsonl", "samples.jsonl"

#: setting -> where its guides lie (paper figure 3); `all-equal` gives each of them the same share of the items
SETTINGS: dict[str, tuple[str, ...]] = {
    "first": ("0%",),
    "middle": ("50%",),
    "last": ("100%",),
    "first+last": ("0%", "100%"),
    "first+mid+last": ("0%", "50%", "100%"),
}
ALL = "all-equal"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be made of one item: which guides, at which positions; or why nothing can be (`problem`)."""

    item: Item
    setting: str
    guides: tuple[Guide, ...] = ()
    problem: str | None = None


def settings_of_items(setting: str, num_items: int) -> list[str]:
    """The guide setting of each item. Raises BadRequest for an unknown one."""
    if setting == ALL:
        names = list(SETTINGS)
        return [names[index % len(names)] for index in range(num_items)]
    if setting not in SETTINGS:
        raise BadRequest("unknown guides", got=setting, expected=", ".join([*SETTINGS, ALL]))
    return [setting] * num_items


def plan_items(items: Sequence[Item], setting: str, folder: Path, progress: Progress | None = None) -> list[Plan]:
    """A plan for each item; keyframes that come from its video are written under `folder` once."""
    plans = []
    for index, (item, own) in enumerate(zip(items, settings_of_items(setting, len(items)), strict=True)):
        if progress:
            progress("keyframes", index, len(items))
        found = [(at, _keyframe(item, at, folder)) for at in SETTINGS[own]]
        lacking = [at for at, image in found if image is None]
        guides = tuple(Guide(image, at) for at, image in found if image is not None)
        problem = f"no picture for {', '.join(lacking)}" if lacking else None
        plans.append(Plan(item=item, setting=own, guides=guides, problem=problem))
    return plans


def _keyframe(item: Item, at: str, folder: Path) -> str | None:
    """The picture of an item at a position: its own keyframe, else its first picture, else the frame of its video."""
    same = {"0%": ("0%", 0), "50%": ("50%",), "100%": ("100%", -1)}[at]
    for guide in item.guides:
        if guide.at in same:
            return guide.image
    if at == "0%" and item.image:
        return item.image
    if item.video is None:
        return None
    path = folder / f"{item.id}_{at.rstrip('%')}.png"
    if not path.is_file():
        _write_frames(item, folder)
    return str(path)


def _write_frames(item: Item, folder: Path) -> None:
    """The first, middle and last frame of an item's video, as pictures; the video is decoded once."""
    from PIL import Image

    from anisora.geometry import resolve_position
    from anisora.media.reader import read_video

    video = read_video(item.video or "")
    for at in ("0%", "50%", "100%"):
        frame = Image.fromarray(video.frames_THWC[resolve_position(at, len(video), video.fps)])
        write_atomic(folder / f"{item.id}_{at.rstrip('%')}.png", frame.save)


def model_name(model: str) -> str:
    """A name of a model or the last part of its folder, as it stands in file names and tables."""
    return re.sub(r"[^\w.+-]+", "_", Path(model).name if os.sep in model else model) or "model"


def requests_of(
    plans: Sequence[Plan], model: str, out: Path, *, with_masks: bool = False, seed: int = 0, **fields: Any
) -> list[Request]:
    """One request for each plan that can be carried out; `fields` go to all (size, frames, steps, ...)."""
    kind = model_name(model) + ("-masked" if with_masks else "")
    return [
        Request(
            prompt=plan.item.prompt,
            guides=plan.guides,
            motion_mask=plan.item.mask if with_masks else None,
            model=model,
            seed=seed,
            out=os.path.abspath(out / "shots" / kind / plan.setting / f"{plan.item.id}.mp4"),
            **fields,
        )
        for plan in plans
        if plan.problem is None and (plan.item.mask or not with_masks)
    ]


def samples_of(plans: Sequence[Plan], requests: Sequence[Request], out: Path) -> list[tuple[Sample, dict[str, Any]]]:
    """(sample, facts about it) for the shots that were made, and for the real clips of the same items."""
    by_id = {plan.item.id: plan for plan in plans}
    made = []
    for request in requests:
        video = Path(request.out or "")
        plan = by_id[video.stem]
        made.append(_sample(plan, video, video.parts[-3], plan.setting, request.seed, request.guides))
    real = [_sample(plan, Path(plan.item.video), REAL, None, None, ()) for plan in plans if plan.item.video]
    return [entry for entry in made + real if entry[0].video.is_file()]


def _sample(
    plan: Plan, video: Path, model: str, setting: str | None, seed: int | None, guides: Sequence[Guide]
) -> tuple[Sample, dict[str, Any]]:
    item = plan.item
    image = item.image or next((str(guide.image) for guide in plan.guides), None)
    sample = Sample(
        id="/".join(part.replace(" ", "_") for part in (model, setting, item.id) if part),
        video=video,
        prompt=item.prompt or None,
        prompt_id=item.id,
        group=item.id,
        image=Path(image) if image else None,
        mask=Path(item.mask) if item.mask else None,
        guides=tuple({"image": str(guide.image), "at": guide.frame} for guide in guides),
        model=model,
        seed=seed,
    )
    facts = {"action": item.action, "dimension": item.dimension, "style": item.style, "setting": setting}
    return sample, {"sample_id": sample.id, "video": str(video), "prompt": item.prompt, **facts}


def add_lines(path: Path, lines: Sequence[dict[str, Any]], key: str) -> None:
    """Adds lines to a file of JSON lines, or replaces those of the same key; whole or not at all."""
    old = read_jsonl(path) if path.is_file() else []
    merged = {line[key]: line for line in [*old, *lines]}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in merged.values())
    write_atomic(path, text.encode())


def write_samples(out: Path, entries: Sequence[tuple[Sample, dict[str, Any]]]) -> None:
    """Notes what was scored and what is known of it: `samples.jsonl` and `facts.jsonl`, paths relative to them."""

    def near(path: Any) -> str | None:
        return None if path is None else os.path.relpath(path, out)

    samples = [
        {
            "id": s.id, "video": near(s.video), "prompt": s.prompt, "prompt_id": s.prompt_id, "group": s.group,
            "image": near(s.image), "mask": near(s.mask), "model": s.model, "seed": s.seed,
            "guides": [{"image": near(guide["image"]), "at": guide["at"]} for guide in s.guides],
        }
        for s, _ in entries
    ]  # fmt: skip
    add_lines(out / SAMPLES, samples, "id")
    add_lines(out / FACTS, [{**facts, "video": near(facts["video"])} for _, facts in entries], "sample_id")


# ---------------------------------------------------------------------------------------------------------- all of it


def run(
    model: str,
    out: str | os.PathLike[str],
    *,
    setting: str = "first",
    suite: str | os.PathLike[str] | None = None,
    with_masks: bool = False,
    limit: int | None = None,
    metrics: Sequence[str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Makes and scores the shots and writes the report: `{made, failed, skipped, summary, report}`.

    A shot that fails and an item without a picture where a guide should be stop no other; they are named in the result.
    Raises BadInput for a benchmark that cannot be used, UnknownModel, and what `suite.evaluate` raises.
    """
    from anisora.evaluation.report import write_report
    from anisora.evaluation.suite import evaluate
    from anisora.generation.runner import Session, run_shots
    from anisora.models import catalog

    out = Path(out).absolute()
    settings_of_items(setting, 0)  # an unknown setting is told before anything is drawn
    info = catalog.resolve(model)
    items = _items(suite, out, info.native, limit, progress)
    plans = plan_items(items, setting, out / "keyframes", progress)
    requests = requests_of(plans, model, out, with_masks=with_masks, seed=seed, steps=steps)
    if not requests:
        reasons = [f"{plan.item.id}: {plan.problem or 'no mask'}" for plan in plans]
        raise BadInput(
            "nothing of the benchmark can be made", got="; ".join(reasons[:3]), expected="items with pictures"
        )
    session = Session(device=device) if progress is None else Session(device=device, progress=progress)
    outcomes = run_shots(requests, session, told=lambda outcome: _tell(outcome, say))
    entries = samples_of(plans, requests, out)
    write_samples(out, entries)
    summary = evaluate([sample for sample, _ in entries], out, metrics=metrics, progress=progress)
    return {
        "made": sum(outcome.problem is None for outcome in outcomes),
        "failed": [f"{o.request.out}: {o.problem}" for o in outcomes if o.problem is not None],
        "skipped": [f"{plan.item.id}: {plan.problem}" for plan in plans if plan.problem is not None],
        "summary": summary,
        "report": [str(path) for path in write_report(out)],
    }


def _tell(outcome: Any, say: Callable[[str], None]) -> None:
    if outcome.problem is not None:
        say(f"failed    {outcome.request.out}: {outcome.problem}")


def _items(
    suite: str | os.PathLike[str] | None, out: Path, native: Any, limit: int | None, progress: Progress | None
) -> list[Item]:
    """The items of the benchmark named; or those drawn into OUT/suite, of the model's own size, length and rate."""
    if suite is not None:
        items = read_benchmark(suite)
        return items if limit is None else spread(items, limit)
    return write_drawn_suite(
        out / "suite", size_px=native.size, num_frames=native.frames, fps=native.fps, limit=limit, progress=progress
    )
