"""Scorers with a network of their own, backend `full`: opened from a folder, applied to clips, saved after training.

SCORER/scorer.json            the card (`scorer_card`)
SCORER/head.safetensors       the tensors that are no encoder's
SCORER/vision/, text/, ...    the encoders, in the layout of transformers
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anisora.errors import BadCheckpoint
from anisora.evaluation import encoders
from anisora.evaluation.look import Case
from anisora.evaluation.metrics import Measured, picture
from anisora.evaluation.networks import (
    MOTION_PROMPTS,
    FrameFusion,
    FramesNetwork,
    Network,
    PairNetwork,
    PromptsNetwork,
    SimilarityNetwork,
)
from anisora.evaluation.samples import Sample
from anisora.evaluation.scorer_card import FILE, Card, Output, card_text, read_card
from anisora.files import write_atomic
from anisora.measures.footage import Footage
from anisora.measures.pretrained import quiet
from anisora.records import Backend
from anisora.runtime import pick_device, pick_dtype
from anisora.settings import plain
from anisora.store import content_hash, weights_hash

HEAD_FILE = "head.safetensors"


class NetworkScorer:
    """A scorer of a folder. `in_flight` 0: its jobs are done at once."""

    backend: Backend = "full"
    in_flight = 0

    def __init__(self, place: str | os.PathLike[str], device: str | None = None) -> None:
        """Opens a folder, or a card that names its parts. Raises BadCheckpoint."""
        self.card, self.folder = read_card(place)
        self.network = open_network(self.card, self.folder, device).eval()

    @cached_property
    def weights_sha256(self) -> str:
        """The hash of the hashes of all weight files."""
        return weights_hash(self.folder, *(self.card.part(name, self.folder) for name in self.card.parts))

    @cached_property
    def run_id(self) -> str:
        """The hash of everything but the clips that its scores depend on."""
        said = {k: v for k, v in plain(self.card).items() if k not in ("trained", "parts")}
        return content_hash({"card": said, "weights": self.weights_sha256})[:12]

    @property
    def outputs(self) -> tuple[Output, ...]:
        return self.card.outputs

    def prepare(self, sample: Sample, footage: Footage) -> Callable[[], dict[str, Measured]]:
        """A job that says metric -> what the network says of a clip. Raises BadVideo, BadImage."""
        if self.card.needs_prompt and not sample.prompt:
            return lambda: {o.metric: Measured(unit=self.card.unit, reason="no_prompt") for o in self.outputs}
        case = case_of(self.card, sample, footage)
        return lambda: self.said(case)

    @torch.inference_mode()
    def said(self, case: Case) -> dict[str, Measured]:
        """metric -> the raw value and the score of a case."""
        values = self.network([case])[0].double().tolist()
        params: dict[str, Any] = {"layout": self.card.layout, "frames": len(case.frames)}
        if self.card.has_reference:
            params["reference"] = "first_frame" if case.image is None else "image"
        if self.network.is_cut(case):
            params["prompt_cut"] = True
        return {
            output.metric: measured(output, values[output.index], self.card.unit, self.weights_sha256, params)
            for output in self.outputs
        }


def measured(
    output: Output, raw: float, unit: str, weights_sha256: str | None, params: dict[str, Any], **more: Any
) -> Measured:
    """What stands in the record for a raw value; beyond the card's range it says so, without a range it has no score."""
    if not math.isfinite(raw):
        return Measured(unit=unit, reason="not_a_number", weights_sha256=weights_sha256, params=params, **more)
    score = output.score(raw)
    if output.low is not None and output.high is not None:
        params = params | {"range": [output.low, output.high]}
        if not min(output.low, output.high) <= raw <= max(output.low, output.high):
            params = params | {"beyond_range": True}
    reason = "uncalibrated" if score is None else None
    return Measured(
        unit=unit, raw=raw, score=score, reason=reason, weights_sha256=weights_sha256, params=params, **more
    )


def case_of(card: Card, sample: Sample, footage: Footage) -> Case:
    """What the network of a card is shown of a sample. Raises BadVideo, BadImage."""
    image = picture(sample.image) if card.has_reference and sample.image else None
    return Case(frames=card.look.frames(footage, sample.video), prompt=sample.prompt or "", image=image)


# ------------------------------------------------------------------------------------------------------ folders


def open_network(card: Card, folder: Path, device: str | None = None) -> Network:
    """The network of a card with all of its tensors. Raises BadCheckpoint naming what lacks, misfits or is not there."""
    where = pick_device(device)
    network = new_network(card, folder, device)
    if own := network.own():
        stored = _stored_head(card, folder)
        _check(own, stored, folder)
        network.load_state_dict(stored, strict=False)
    return network.to(where)


def new_network(card: Card, folder: Path, device: str | None = None) -> Network:
    """The network of a card, its encoders loaded and its own tensors fresh. Raises BadCheckpoint."""
    place = {name: card.part(name, folder) for name in card.parts}
    num_outputs = 1 + max(output.index for output in card.outputs)
    match card.layout:
        case "frames":
            return FramesNetwork(encoders.load_vision(_there(place["vision"])), num_outputs)
        case "pair":
            text = place.get("text")
            encoder = None if text is None else encoders.load_text(text, card.text_tokens)
            return PairNetwork(encoders.load_vision(_there(place["vision"])), encoder, num_outputs, card.is_joint)
        case "prompts":
            towers = encoders.load_towers(_there(place["towers"]))
            fusion = None
            if card.fusion_layers:
                fusion = FrameFusion(towers.width, card.fusion_layers, max_frames=card.fusion_frames)
            return PromptsNetwork(towers, card.prompts or MOTION_PROMPTS, fusion)
        case "similarity":
            return SimilarityNetwork(encoders.load_towers(_there(place["towers"])), card.of)
        case "vlm":
            return _new_vlm(card, place, num_outputs, device)
    raise BadCheckpoint("a scorer without a network", got=card.layout, expected="a folder of weights")


def _there(path: Path | None) -> Path:
    assert path is not None  # the card has checked its parts
    return path


def _new_vlm(card: Card, place: dict[str, Path | None], num_outputs: int, device: str | None) -> Network:
    from anisora.evaluation.networks_vlm import VlmNetwork, load_vlm

    where = pick_device(device)
    vlm = load_vlm(
        _there(place["backbone"]), with_answers=card.read == "answer", adapter=place.get("adapter"),
        device=where, dtype=pick_dtype(where),
    )  # fmt: skip
    tokens = {output.index: output.token for output in card.outputs if output.token}
    in_order = [tokens[index] for index in sorted(tokens)] if card.read == "tokens" else []
    return VlmNetwork(vlm, card.question, outputs=num_outputs, read=card.read, reward_tokens=in_order)


def _stored_head(card: Card, folder: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if card.head:
        from anisora.evaluation.networks_vlm import stored_tensor

        return {"head.weight": stored_tensor(_there(card.part("backbone", folder)), card.head)}
    path = folder / HEAD_FILE
    if not path.is_file():
        raise BadCheckpoint("the scorer has no head", got=folder, expected=HEAD_FILE)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as reason:
        raise BadCheckpoint(
            "the head cannot be read", got=f"{path} ({reason})", expected="a .safetensors file"
        ) from reason


def _check(own: dict[str, Tensor], stored: dict[str, Tensor], folder: Path) -> None:
    wrong = [f"{name} is missing" for name in own if name not in stored]
    wrong += [f"{name} is unknown" for name in stored if name not in own]
    wrong += [
        f"{name} is {tuple(stored[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in stored and stored[name].shape != tensor.shape
    ]
    wrong += [f"{name} is not finite" for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if wrong:
        shown = "; ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        raise BadCheckpoint("the head does not fit the scorer's card", got=f"{folder}: {shown}")


def save_network(network: Network, card: Card, folder: Path) -> Path:
    """Writes the folder of a trained network; returns its card's path, which is written last."""
    from safetensors.torch import save_file

    for name, place in card.parts.items():
        if not Path(place).is_absolute():
            _save_part(network, name, folder / place)
    if own := {name: tensor.detach().cpu().contiguous() for name, tensor in network.own().items()}:
        write_atomic(folder / HEAD_FILE, lambda path: save_file(own, path))
    return write_atomic(folder / FILE, card_text(card))


def _save_part(network: Network, name: str, folder: Path) -> None:
    part: Any = network.parts()["backbone" if name == "adapter" else name]
    with quiet():
        if hasattr(part, "save"):
            part.save(folder)
            return
        part.save_pretrained(folder)  # of a model under an adapter: the adapter alone
        if name == "backbone":
            network.vlm.save_processors(folder)  # type: ignore[union-attr, operator]


def predictions(network: Network, cases: Sequence[Case]) -> list[float]:
    """The first output for each case, one by one."""
    with torch.inference_mode():
        return [float(network([case])[0, 0]) for case in cases]
