"""Scorers that are fine-tuned, encoders and all, as the paper trains its own (sections 5.3, 5.4 and S1.2).

smoothness          a vision-language model with a regression head; real clips join as the best examples
appeal              a regressor on key frames, averaged (equation 3)
motion              an ActionCLIP: motion captions by grade, and the two sentences that it will be asked with
text_video          both encoders and a regressor on the pair (equation 4)
image_video         the same with the input picture (equation 5)

A share of the prompts is never trained on; the figures on the card are theirs. The loop that takes the steps is handed in
(`Fit`), because training and evaluation do not import each other; it resumes, and so does everything here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from anisora import settings
from anisora.errors import BadConfig, BadInput
from anisora.evaluation.look import Case, Look
from anisora.evaluation.network_scorer import case_of, new_network, open_network, predictions, save_network
from anisora.evaluation.networks import Network, PromptsNetwork
from anisora.evaluation.samples import Sample, read_manifest
from anisora.evaluation.scorer_card import Card, Output
from anisora.evaluation.scorers import CARD, regression_figures, regression_lines
from anisora.evaluation.votes import BEST, WORST, Vote, opinion_scores, rating_table
from anisora.files import write_atomic
from anisora.measures.footage import Footage
from anisora.runtime import pick_device
from anisora.settings import setting
from anisora.store import canonical_json, content_hash, read_jsonl

#: Where the state of a run lies in the folder of the scorer.
RUN = "run"

#: What is asked about a clip where the recipe does not say; the rating is read off behind it.
QUESTIONS = {
    "smoothness": "These are frames of an animated clip, in order. How smoothly and steadily does it move, free of flicker,"
    " jumps and distorted shapes?",
    "appeal": "These are frames of an animated clip. How appealing are its pictures: clean lines, colour, light, composition?",
    "motion": "These are frames of an animated clip, in order. How large is the movement of its main subject?",
    "text_video": 'These are frames of an animated clip, in order. How well do they show this: "{prompt}"?',
    "image_video": "After {image} come frames of an animated clip that was made from it, in order. How true do they stay to"
    " it?",
    "character": "These are frames of an animated clip, in order. Does each character keep its looks throughout?",
}

#: dimension -> the layout that the paper has for it
LAYOUTS: dict[str, Literal["frames", "pair", "prompts", "vlm"]] = {
    "smoothness": "vlm", "appeal": "frames", "motion": "prompts", "text_video": "pair", "image_video": "pair",
}  # fmt: skip

#: layout -> what it looks at: the published scorers' 24 frames, key frames for looks, ActionCLIP's 8 for motion
LOOKS = {
    "vlm": Look(),
    "pair": Look(),
    "frames": Look(num_frames=8, pick="key"),
    "prompts": Look(num_frames=8),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a scorer is fine-tuned; a sentence with each field."""

    dimension: str = setting("", "which of the six", metavar="NAME")
    layout: Literal["frames", "pair", "prompts", "vlm"] | None = setting(None, "default: the paper's for the dimension")
    vision: Path | None = setting(None, "layouts frames and pair: the picture encoder to begin with", metavar="FOLDER")
    text: Path | None = setting(None, "layout pair for text_video: the text encoder to begin with", metavar="FOLDER")
    towers: Path | None = setting(None, "layout prompts: the CLIP to begin with", metavar="FOLDER")
    backbone: Path | None = setting(None, "layout vlm: the model to begin with", metavar="FOLDER")
    question: str | None = setting(None, "layout vlm: what is asked; {prompt} becomes the clip's prompt")
    look: Look | None = field(default=None, metadata={"help": "which frames; default: by layout"})
    real: Path | None = setting(None, "a manifest of real clips, which count as rated best", metavar="FILE")
    grades: int = setting(6, "layout prompts: grades of motion, from 0 (still)")
    fusion_layers: int = setting(
        6, "layout prompts: layers of ActionCLIP's transformer over frames; 0 takes their mean"
    )
    text_tokens: int | None = setting(None, "layout pair: captions are cut there; the published scorer: 30")
    is_joint: bool = setting(True, "layout pair: the head reads the features' product too; false as released")
    lora_rank: int = setting(0, "layout vlm: above 0, LoRA of that rank instead of all weights")
    steps: int = setting(2000, "optimiser steps")
    batch: int = setting(8, "clips a step")
    learning_rate: float = setting(1e-5, "its peak")
    warmup_steps: int = setting(60, "steps in which it rises")
    weight_decay: float = setting(0.01, "of AdamW")
    loss: Literal["squared", "absolute"] | None = setting(None, "of a rating; default: absolute for pair, squared else")
    held_out: float = setting(0.2, "the share of prompts that are never trained on and give the card's figures")
    seed: int = setting(0, "of fresh heads, of the order of clips and of what is held out")
    device: str | None = setting(None, "default: the accelerator there is")

    def __post_init__(self) -> None:
        if self.dimension not in QUESTIONS:
            raise BadConfig("dimension of the recipe", got=repr(self.dimension), expected=", ".join(LAYOUTS))
        if self.laid_out is None:
            raise BadConfig(f"no recipe of the paper for {self.dimension} here", expected="layout: vlm, say")
        for name in ("steps", "batch", "learning_rate"):
            if getattr(self, name) <= 0:
                raise BadConfig(f"{name} of the recipe", got=getattr(self, name), expected="above 0")
        if not 0 < self.held_out < 1 or self.grades < 2:
            raise BadConfig(
                "recipe", got=f"held_out {self.held_out}, grades {self.grades}", expected="0 to 1; 2 or more"
            )
        lacking = [name for name in self.needed if getattr(self, name) is None]
        if lacking:
            raise BadConfig(f"a {self.laid_out} scorer begins with", got="nothing", expected=f"{lacking[0]}: FOLDER")

    @property
    def laid_out(self) -> Literal["frames", "pair", "prompts", "vlm"] | None:
        """The layout asked for, or the paper's."""
        return self.layout or LAYOUTS.get(self.dimension)

    @property
    def needed(self) -> tuple[str, ...]:
        """The encoders to begin with."""
        both = ("vision", "text") if self.dimension == "text_video" else ("vision",)
        return {"frames": ("vision",), "pair": both, "prompts": ("towers",), "vlm": ("backbone",)}[self.laid_out or ""]

    def card(self, parts: Mapping[str, str]) -> Card:
        """The card of what the recipe makes, its encoders at `parts`."""
        layout = self.laid_out or "vlm"
        question = (self.question or QUESTIONS[self.dimension]) if layout == "vlm" else ""
        return Card(
            layout=layout, outputs=(Output(dimension=self.dimension),), parts=dict(parts), look=self.look or LOOKS[layout],
            fusion_layers=self.fusion_layers if layout == "prompts" else 0, text_tokens=self.text_tokens,
            is_joint=self.is_joint, question=question,
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ examples


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clip and where people put it, 0 (worst, still) to 1; `caption` says its motion in words."""

    sample: Sample
    target: float
    group: str
    caption: str = ""
    is_real: bool = False


def rated_examples(votes: Sequence[Vote], samples: Sequence[Sample], dimension: str) -> list[Example]:
    """The rated clips of a manifest; a clip's target is the mean of its ratings with the raters' strictness taken out.

    Raises BadInput for votes of other dimensions or kinds, and where fewer than 20 rated clips are in the manifest.
    """
    wanted = [v for v in votes if v.kind == "rating" and v.dimension.removeprefix("anime.") == dimension]
    ratings_RC, _, clips = rating_table(wanted)
    quality = dict(zip(clips, opinion_scores(ratings_RC), strict=True)) if clips else {}
    prompt_of = {vote.a: vote.prompt_id for vote in wanted}
    found = [
        Example(sample=s, target=float(np.clip((quality[s.id] - WORST) / (BEST - WORST), 0, 1)), group=prompt_of[s.id])
        for s in samples
        if s.id in quality
    ]
    if len(found) < 20:
        raise BadInput(
            f"too few clips with ratings of {dimension}",
            got=f"{len(found)} of {len(samples)} clips, {len(wanted)} of {len(votes)} votes",
            expected="at least 20; sample ids of the manifest in the votes",
        )
    return found


def real_examples(samples: Sequence[Sample]) -> list[Example]:
    """Real clips, which count as rated best (section 5.3)."""
    return [
        Example(sample=sample, target=1.0, group=str(sample.group or sample.id), is_real=True) for sample in samples
    ]


def graded_examples(path: Path, grades: int) -> list[Example]:
    """The lines `{video, grade, caption, prompt_id?}` of a file; grade 0 is stillness, `grades` - 1 the largest motion.

    Raises BadInput, naming the line, for what is none, and where fewer than 20 clips or only one grade are there.
    """
    examples = []
    for number, line in enumerate(read_jsonl(path), 1):
        grade, caption, video = line.get("grade"), line.get("caption"), line.get("video")
        if not isinstance(grade, int) or isinstance(grade, bool) or not 0 <= grade < grades:
            raise BadInput(f"the grade in {path}, record {number}", got=repr(grade), expected=f"0 to {grades - 1}")
        if not isinstance(caption, str) or not caption.strip() or not isinstance(video, str):
            raise BadInput(f"{path}, record {number}", got=str(line)[:80], expected="{video, grade, caption}")
        identity = str(line.get("id") or Path(video).with_suffix("").as_posix())
        sample = Sample(id=identity, video=path.parent / video)
        examples.append(Example(sample=sample, target=grade / (grades - 1), caption=caption.strip(),
                                group=str(line.get("prompt_id") or identity)))  # fmt: skip
    if len(examples) < 20 or len({example.target for example in examples}) < 2:
        raise BadInput(
            "too few motion captions", got=f"{len(examples)} in {path}", expected="at least 20, of two grades"
        )
    return examples


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """(to train on, held out): whole prompts, drawn by a hash, so that more clips do not move those that are there.

    Real clips are never held out, and those of a prompt that is held out are not trained on. Raises BadInput where either
    side has no prompt.
    """
    groups = {example.group for example in examples if not example.is_real}
    out = {group for group in groups if int(content_hash({"group": group, "seed": seed})[:8], 16) < share * 2**32}
    if not out or out == groups:
        raise BadInput("too few prompts to hold some out", got=len(groups), expected="a few dozen", hint="another seed")
    inside = [example for example in examples if example.group not in out]
    return inside, [example for example in examples if example.group in out and not example.is_real]


# ------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the loop is handed: modules by name, the loss of a step, and how many steps of which size."""

    name: str
    modules: dict[str, nn.Module]
    loss: Callable[[int, torch.Generator], tuple[Tensor, dict[str, Any]]]
    folder: Path
    steps: int
    batch: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    seed: int
    max_minutes: float = math.inf


class Fit(Protocol):
    """Takes the steps of a plan and leaves the modules as they are to be used; False when it was ended early."""

    def __call__(self, plan: Plan) -> bool: ...


def finetune(
    recipe: Recipe, examples: Sequence[Example], out: Path, fit: Fit, *, max_minutes: float = math.inf
) -> dict[str, Any] | None:
    """Trains a scorer into the folder `out` and returns its held-out figures; None when time was up: run again to go on.

    Raises BadCheckpoint for encoders that cannot be opened, BadConfig where `out` holds a run of another recipe or data,
    BadVideo or BadImage for examples that cannot be read.
    """
    inside, outside = split(examples, recipe.held_out, recipe.seed)
    _claim(out / RUN, recipe, examples)
    card = recipe.card({name: str(getattr(recipe, name)) for name in recipe.needed})
    network = _fresh(recipe, card)
    case = _cases(card)
    plan = Plan(
        name=f"{recipe.dimension} scorer", modules={"scorer": network}, loss=_loss_of(network, inside, case, recipe),
        folder=out / RUN, steps=recipe.steps, batch=recipe.batch, learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_steps, weight_decay=recipe.weight_decay, seed=recipe.seed, max_minutes=max_minutes,
    )  # fmt: skip
    if not fit(plan):
        return None
    figures = _figures(network.eval(), inside, outside, case, recipe)
    own_parts = {"adapter": "adapter"} | card.parts if recipe.lora_rank else {name: name for name in card.parts}
    made = replace(recipe.card(own_parts), trained=figures | {"recipe": _told(recipe)})
    save_network(network, made, out)
    open_network(made, out, recipe.device)  # what was written is what loads
    write_atomic(out / CARD, card_of(made, recipe).encode())
    return figures


def _fresh(recipe: Recipe, card: Card) -> Network:
    """The network that training begins with; the same seed gives the same fresh tensors."""
    torch.manual_seed(recipe.seed)
    network = new_network(card, Path(), recipe.device)
    if recipe.laid_out == "vlm" and recipe.lora_rank:
        from anisora.evaluation.networks_vlm import VlmNetwork, with_lora

        assert isinstance(network, VlmNetwork)
        with_lora(network, recipe.lora_rank)
    elif recipe.laid_out == "vlm":
        network = network.float()  # steps of 1e-5 vanish in half precision
    return network.to(pick_device(recipe.device))


def _claim(run: Path, recipe: Recipe, examples: Sequence[Example]) -> None:
    """Notes what a run is made of, and refuses a folder where another is under way."""
    data = content_hash([[e.sample.id, e.target, e.group, e.caption, e.is_real] for e in examples])
    now = {"recipe": _told(recipe), "examples": len(examples), "data": data}
    note = run / "run.json"
    if note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        differ = [k for k in now["recipe"] if before["recipe"].get(k) != now["recipe"][k]]  # type: ignore[index, attr-defined]
        differ += ["the examples"] if before["data"] != data else []
        if differ:
            raise BadConfig("another run is in this folder", got=f"other {', '.join(differ)}", hint="another --out")
    write_atomic(note, (canonical_json(now) + "\n").encode())


def _told(recipe: Recipe) -> dict[str, Any]:
    return {name: value for name, value in settings.plain(recipe).items() if name != "device"}


def _cases(card: Card) -> Callable[[Sample], Case]:
    """`case(sample)`, as it will be shown when it is scored; the last few hundred stay in memory."""

    @lru_cache(maxsize=256)
    def read(identity: str, video: Path, image: Path | None, prompt: str | None) -> Case:
        sample = Sample(id=identity, video=video, image=image, prompt=prompt)
        return case_of(card, sample, Footage.read(video))

    def case(sample: Sample) -> Case:
        if card.needs_prompt and not sample.prompt:
            raise BadInput("a clip without its prompt", got=sample.id, expected="`prompt` in the manifest")
        return read(sample.id, sample.video, sample.image, sample.prompt)

    return case


def drawn(step: int, batch: int, total: int, seed: int) -> list[int]:
    """The examples of a step: every pass goes through all of them once, in an order of its own."""
    places = range(step * batch, (step + 1) * batch)
    orders = {p // total: np.random.default_rng([seed, p // total]).permutation(total) for p in places}
    return [int(orders[place // total][place % total]) for place in places]


def _loss_of(
    network: Network, examples: Sequence[Example], case: Callable[[Sample], Case], recipe: Recipe
) -> Callable[[int, torch.Generator], tuple[Tensor, dict[str, Any]]]:
    squared = (recipe.loss or ("absolute" if recipe.laid_out == "pair" else "squared")) == "squared"

    def loss(step: int, rng: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        torch.manual_seed(int(torch.randint(2**31, (), generator=rng)))  # dropout
        network.train()
        chosen = [examples[i] for i in drawn(step, recipe.batch, len(examples), recipe.seed)]
        cases = [case(example.sample) for example in chosen]
        if isinstance(network, PromptsNetwork):
            captions, targets = [e.caption for e in chosen], [e.target for e in chosen]
            logits = network.logits(cases, [*captions, *network.prompts])
            wanted = torch.tensor(targets, device=logits.device)
            return motion_loss(logits[:, : len(chosen)], logits[:, len(chosen) :], wanted)
        said = network(cases)[:, 0]
        target = torch.tensor([e.target for e in chosen], device=said.device)
        return (functional.mse_loss if squared else functional.l1_loss)(said, target), {}

    return loss


def motion_loss(captions_BB: Tensor, prompts_BP: Tensor, targets_B: Tensor) -> tuple[Tensor, dict[str, Any]]:
    """ActionCLIP's loss over motion captions, and the cross entropy of the score over the two sentences.

    `captions_BB` are the logits of each clip with each clip's caption, `prompts_BP` those with the sentences of the score, the
    first of which stands for motion. Clips of one grade share a label: similarities of clips to captions and of captions to
    clips are brought to the share of each that has the same grade (Wang et al. 2021: Kullback-Leibler, both ways). That alone
    leaves the sentences of the score at what the encoder thinks of them; so the softmax over them is brought to the grade's
    place between stillness and the largest motion, which also keeps it from saturating.
    """
    same = (targets_B[:, None] == targets_B[None]).float()
    shares = same / same.sum(dim=1, keepdim=True)
    ways = [side.log_softmax(dim=1) for side in (captions_BB, captions_BB.T)]
    by_caption = torch.stack([functional.kl_div(way, shares, reduction="batchmean") for way in ways]).mean()
    odds = prompts_BP.log_softmax(dim=1)
    by_prompt = -(targets_B * odds[:, 0] + (1 - targets_B) * odds[:, 1:].logsumexp(dim=1)).mean()
    return by_caption + by_prompt, {"captions": by_caption.item(), "prompts": by_prompt.item()}


# --------------------------------------------------------------------------------------------------- figures and card


def _figures(
    network: Network,
    inside: Sequence[Example],
    outside: Sequence[Example],
    case: Callable[[Sample], Case],
    recipe: Recipe,
) -> dict[str, Any]:
    said = np.array(predictions(network, [case(example.sample) for example in outside]))
    scale, low = (recipe.grades - 1, 0) if recipe.laid_out == "prompts" else (BEST - WORST, WORST)
    seen = low + scale * np.array([example.target for example in outside])
    return {
        "clips_trained_on": sum(not example.is_real for example in inside),
        "real_clips": sum(example.is_real for example in inside),
        "prompts_trained_on": len({example.group for example in inside if not example.is_real}),
        "prompts_held_out": len({example.group for example in outside}),
        "held_out": regression_figures(low + scale * said, seen, [example.group for example in outside]),
    }


def card_of(card: Card, recipe: Recipe) -> str:
    """The model card, as Markdown."""
    f, look = card.trained, card.look
    begun = ", ".join(f"{name} {getattr(recipe, name)}" for name in recipe.needed)
    tuned = f"LoRA of rank {recipe.lora_rank}" if recipe.lora_rank else "all weights"
    unit = "grades of motion" if card.layout == "prompts" else "ratings"
    kind = "key frames" if look.pick == "key" else "frames, evenly spread"
    lines = [
        f"# Scorer: {recipe.dimension}",
        "",
        f"A network ({card.layout}) on up to {look.num_frames} {kind}, begun with {begun}; {tuned} trained.",
        f"Trained on {f['clips_trained_on']} clips of {f['prompts_trained_on']} prompts"
        + (f", and {f['real_clips']} real clips that count as rated best" if f["real_clips"] else "")
        + f"; {recipe.steps} steps of {recipe.batch} clips, learning rate {recipe.learning_rate:g}, seed {recipe.seed}.",
        "",
        "## How good it is",
        "",
        f"On {f['prompts_held_out']} prompts that it has not seen, in {unit}, with 95 % intervals by prompt:",
        "",
        *regression_lines(f["held_out"]),
        "",
        "Calibration, in bins of as many each (predicted: seen): "
        + ", ".join(f"{b['predicted']:.2f}: {b['seen']:.2f}" for b in f["held_out"]["calibration"]["bins"]) + ".",
        "",
        "## Limits",
        "",
        "The held-out prompts were rated by the same people and made by the same models as the others. What its raters never"
        " saw, other styles, lengths and models, is outside of what was measured here. A model trained on this score needs"
        " another one to be judged by.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML or JSON file with `key=value` overrides; its folders are relative to it. Raises BadConfig."""
    data = settings.load(path)
    if isinstance(data, dict):
        named = [name for name in ("vision", "text", "towers", "backbone", "real") if isinstance(data.get(name), str)]
        data |= {name: str((path.parent / data[name]).absolute()) for name in named}
    return settings.read(Recipe, settings.override(data, overrides), where=path.name)


def read_examples(recipe: Recipe, votes_or_captions: Path, manifest: Path | None) -> list[Example]:
    """The examples of a recipe: graded captions for layout prompts, else ratings on the clips of a manifest, and real clips.

    Raises BadInput.
    """
    from anisora.evaluation.votes import read_votes

    if recipe.laid_out == "prompts":
        return graded_examples(votes_or_captions, recipe.grades)
    if manifest is None:
        raise BadInput("ratings say nothing of where the clips are", expected="--manifest FILE")
    examples = rated_examples(read_votes(votes_or_captions), read_manifest(manifest), recipe.dimension)
    return examples + (real_examples(read_manifest(recipe.real)) if recipe.real else [])
