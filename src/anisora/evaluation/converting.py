"""A scorer in one file, as the paper's are published (`.pth`: backbone and head in one), to the folder that `--scorer` opens.

    frames      a ViT and a linear layer                                     appeal (equation 3)
    pair        a ViT, two linear layers and one on both; a BERT for text    text-video, image-video (equations 4, 5)
    prompts     a CLIP and ActionCLIP's transformer over frames              motion (equation 2)

The parts are found by their tensors' names: a ViT as timm, DINO, DeiT and BLIP name it, a BERT as transformers does, a CLIP as
OpenAI did. What is left over are linear layers, which are told apart by their shapes; where these do not say which is which,
the user does. Every tensor has a place or is dropped by name; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from anisora.errors import BadCheckpoint, BadRequest
from anisora.evaluation import published
from anisora.evaluation.encoders import TextEncoder, Towers, VisionEncoder, load_tokenizer
from anisora.evaluation.look import Look
from anisora.evaluation.network_scorer import HEAD_FILE, open_network, save_network
from anisora.evaluation.networks import FrameFusion, FramesNetwork, Network, PairNetwork, PromptsNetwork
from anisora.evaluation.scorer_card import FILE, Card, Output
from anisora.evaluation.weight_files import problems, read_tensors, without_prefix
from anisora.files import atomic_folder, existing_file, sha256_file

Layout = Literal["frames", "pair", "prompts"]

#: part -> a tensor that only it has, by which it is found
_MARKS = {
    "vision": "patch_embed.proj.weight",
    "text": "embeddings.word_embeddings.weight",
    "towers": "visual.conv1.weight",
    "fusion": "frame_position_embeddings.weight",
}

#: part -> what its names begin with, for a file in which it has no name of its own
_BEGINNINGS = {
    "vision": ("cls_token", "pos_embed", "patch_embed.", "blocks.", "norm."),
    "text": ("embeddings.", "encoder.", "pooler."),
    "towers": (
        "visual.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection",
        "logit_scale",
    ),
    "fusion": ("frame_position_embeddings.", "transformer."),
}  # fmt: skip

#: layout -> its parts, and the linear layers beside them
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "frames": (("vision",), ("head",)),
    "pair": (("vision", "text"), ("project_video", "project_other", "head")),
    "prompts": (("towers", "fusion"), ()),
}
_OPTIONAL = ("text", "fusion")

#: Among the weights of older libraries though they are none, and BERT's pooler, which no scorer reads.
_UNUSED = ("position_ids", "num_batches_tracked", "pooler.dense.weight", "pooler.dense.bias")

#: What the published scorers were shown: 24 frames of the first 144, of which motion takes 8, squeezed to a square, cubic.
_LOOKS = {"frames": 24, "pair": 24, "prompts": 8}
_FIRST_FRAMES = 144
_TEXT_TOKENS = 30
_MEAN, _SPREAD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What is to be made of a file.

    `names` says where parts and layers lie (`{"head": "regressor.2"}`) where the tensors do not, `drop` which beginnings of
    names are no part of it; `tokenizer` is a folder, or CLIP's `bpe_simple_vocab_16e6.txt.gz`.
    """

    layout: Layout
    dimension: str
    tokenizer: Path | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    text_tokens: int = _TEXT_TOKENS

    def __post_init__(self) -> None:
        if self.layout not in _PARTS:
            raise BadRequest("unknown layout", got=self.layout, expected=", ".join(_PARTS))
        known = [*_PARTS[self.layout][0], *_PARTS[self.layout][1]]
        if strange := [name for name in self.names if name not in known]:
            raise BadRequest(f"no parts of a {self.layout} scorer", got=", ".join(strange), expected=", ".join(known))


def convert_scorer(path: str | Path, out: str | Path, wanted: Conversion) -> dict[str, Any]:
    """Writes the folder `out`; returns `{path, layout, tensors, dropped, sha256}`: how many tensors each part has
    now, the names that were dropped, the file's hash.

    Raises BadCheckpoint that names all tensors that are missing, unexpected or misfit, BadRequest where a part or a layer
    cannot be told; then nothing is left behind.
    """
    state = read_tensors(path, "the scorer's weights")
    dropped = {n for n in state if (wanted.drop and n.startswith(wanted.drop)) or n.endswith(_UNUSED)}
    state = {name: tensor for name, tensor in state.items() if name not in dropped}
    taken = _Taken(state, Path(path), wanted)
    network, named, tensors = _BUILDERS[wanted.layout](taken)
    _fill(network, named, taken)
    card = _card(wanted, network, {"converted_from": Path(path).name, "sha256": sha256_file(path)})
    with atomic_folder(out, members=rf"{FILE}|{HEAD_FILE}|vision|text|towers") as folder:
        save_network(network, card, folder)
        open_network(card, folder, "cpu")
    return {
        "path": str(out),
        "layout": wanted.layout,
        "tensors": tensors,
        "dropped": sorted(dropped),
        "sha256": card.trained["sha256"],
    }


def _card(wanted: Conversion, network: Network, source: dict[str, Any]) -> Card:
    look = Look(num_frames=_LOOKS[wanted.layout], first_frames=_FIRST_FRAMES)
    fusion = getattr(network, "fusion", None)
    blocks = 0 if fusion is None else len(fusion.transformer["resblocks"])
    frames = {} if fusion is None else {"fusion_frames": fusion.frame_position_embeddings.num_embeddings}
    return Card(
        layout=wanted.layout, outputs=(Output(dimension=wanted.dimension),), look=look, fusion_layers=blocks, **frames,
        parts={name: name for name in network.parts()}, is_joint=getattr(network, "is_joint", True), trained=source,
        text_tokens=wanted.text_tokens if "text" in network.parts() else None,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------ who is who


class _Taken:
    """A file's tensors, handed out part by part; what nobody took is what remains."""

    def __init__(self, state: Mapping[str, Tensor], path: Path, wanted: Conversion) -> None:
        self.left, self.path, self.wanted = dict(state), path, wanted

    def part(self, name: str) -> dict[str, Tensor] | None:
        """The tensors of a part by their names within it; None where there is none that must be there."""
        prefix = self._prefix(name)
        if prefix is None:
            return None
        begins = (prefix,) if prefix else _BEGINNINGS[name]
        found = {key.removeprefix(prefix): tensor for key, tensor in self.left.items() if key.startswith(begins)}
        self.left = {key: tensor for key, tensor in self.left.items() if not key.startswith(begins)}
        return found

    def _prefix(self, name: str) -> str | None:
        if name in self.wanted.names:
            return self.wanted.names[name].rstrip(".") + "."
        mark = _MARKS[name]
        found = [key.removesuffix(mark) for key in self.left if key == mark or key.endswith(f".{mark}")]
        if len(found) > 1:
            raise BadRequest(
                f"several that could be the {name}", got=", ".join(found), hint=f"--name {name}={found[0].rstrip('.')}"
            )
        if not found and name not in _OPTIONAL:
            raise BadCheckpoint(f"no {name} in the file", got=self.path, expected=f"a tensor named ...{mark}")
        return found[0] if found else None

    def layer(self, name: str, fits: Sequence[str]) -> dict[str, Tensor]:
        """The weight and bias of a linear layer, by the name that the user gave or the one whose shape fits."""
        chosen = self.wanted.names.get(name)
        if chosen is None and len(fits) != 1:
            shapes = ", ".join(f"{key} {tuple(t.shape)}" for key, t in sorted(self.left.items())) or "nothing"
            raise BadRequest(
                f"which layer is the {name}?",
                got=shapes,
                expected="one whose shape says so",
                hint=f"--name {name}=LAYER",
            )
        prefix = f"{chosen or fits[0]}."
        found = without_prefix(self.left, prefix)
        self.left = {key: tensor for key, tensor in self.left.items() if not key.startswith(prefix)}
        return {f"{name}.{kind}": tensor for kind, tensor in found.items()}

    def layers(self, *shape: int | None) -> list[str]:
        """The names of the layers left whose weight has this shape; None takes any number."""
        return [
            key.removesuffix(".weight")
            for key, tensor in self.left.items()
            if key.endswith(".weight")
            and tensor.ndim == len(shape)
            and all(want in (None, got) for want, got in zip(shape, tensor.shape, strict=True))
            and key.removesuffix(".weight") not in self.wanted.names.values()
        ]


#: (the network, name in it -> tensor, part -> how many tensors)
_Built = tuple[Network, dict[str, Tensor], dict[str, int]]


def _frames(taken: _Taken) -> _Built:
    vision, named = _vision(taken)
    head = taken.layer("head", taken.layers(None, vision.width))
    rows = len(head["head.weight"]) if "head.weight" in head else 1
    network = FramesNetwork(vision, rows)
    return network, named | head, {"vision": len(named), "head": len(head)}


def _pair(taken: _Taken) -> _Built:
    vision, named = _vision(taken)
    counts = {"vision": len(named)}
    text, said = _text(taken)
    if text is not None:
        named |= said
        counts["text"] = len(said)
    width = vision.width
    other = width if text is None else text.width
    own = taken.layer("head", [*taken.layers(1, 2 * width), *taken.layers(1, 3 * width)])
    video_fits = taken.layers(width, width)
    own |= taken.layer("project_video", video_fits)
    own |= taken.layer("project_other", taken.layers(width, other))
    head = own.get("head.weight")
    network = PairNetwork(vision, text, is_joint=head is not None and head.shape[-1] == 3 * width)
    return network, named | own, counts | {"head": len(own)}


def _prompts(taken: _Taken) -> _Built:
    tokenizer = _tokenizer(taken.wanted)
    fused = taken.part("fusion")
    state = taken.part("towers")
    assert state is not None  # it must be there
    model, said = published.clip_of(state, taken.path, published.marks_of(tokenizer))
    side = model.config.vision_config.image_size
    towers = Towers(model, _processor(side), tokenizer)
    named, counts = {f"towers.model.{name}": tensor for name, tensor in said.items()}, {"towers": len(said)}
    fusion = None
    if fused is not None:
        places = fused.get("frame_position_embeddings.weight")
        numbers = {key.split(".")[2] for key in fused if key.startswith("transformer.resblocks.")}
        if places is None or places.ndim != 2:
            raise BadCheckpoint("no places of frames", got=taken.path, expected=_MARKS["fusion"])
        fusion = FrameFusion(towers.width, len(numbers), max_frames=len(places))
        named |= {f"fusion.{name}": tensor for name, tensor in fused.items()}
        counts["fusion"] = len(fused)
    return PromptsNetwork(towers, fusion=fusion), named, counts


_BUILDERS = {"frames": _frames, "pair": _pair, "prompts": _prompts}


def _fill(network: Network, named: Mapping[str, Tensor], taken: _Taken) -> None:
    """Puts the tensors in place. Raises BadCheckpoint with all that does not fit, also what nobody took."""
    found = problems(network, named)
    found["unexpected"] = sorted([*found["unexpected"], *taken.left])
    if any(found.values()):
        said = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names)
        raise BadCheckpoint(
            f"the tensors are not those of a {taken.wanted.layout} scorer", got=f"{taken.path} ({said})",
            hint="--drop NAME for what is not of it, --name PART=NAME for where a part lies",
        )  # fmt: skip
    network.load_state_dict(named)
    network.float().eval()


# ---------------------------------------------------------------------------------------------------------- the parts


def _vision(taken: _Taken) -> tuple[VisionEncoder, dict[str, Tensor]]:
    state = taken.part("vision")
    assert state is not None  # it must be there
    model, named = published.vit_of(state, taken.path)
    encoder = VisionEncoder(model, _processor(model.config.image_size), "first")
    return encoder, {f"vision.model.{name}": tensor for name, tensor in named.items()}


def _processor(side_px: int) -> Any:
    """Squeezes to a square, as the published scorers' frames were."""
    from transformers import ViTImageProcessorPil

    size = {"height": side_px, "width": side_px}
    return ViTImageProcessorPil(size=size, resample=3, image_mean=list(_MEAN), image_std=list(_SPREAD))


def _text(taken: _Taken) -> tuple[TextEncoder | None, dict[str, Tensor]]:
    from transformers import BertConfig, BertModel

    state = taken.part("text")
    if state is None:
        return None, {}
    tokenizer = _tokenizer(taken.wanted)
    words, places = (state.get(f"embeddings.{kind}_embeddings.weight") for kind in ("word", "position"))
    first = state.get("encoder.layer.0.intermediate.dense.weight")
    if words is None or places is None or first is None:
        raise BadCheckpoint("no BERT in the file", got=taken.path, expected="embeddings and layers under one name")
    if len(tokenizer) > len(words):
        raise BadCheckpoint("the tokenizer is another's", got=f"{len(tokenizer)} words", expected=f"{len(words)}")
    width = words.shape[1]
    config = BertConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=len(first), max_position_embeddings=len(places),
        num_hidden_layers=len({key.split(".")[2] for key in state if key.startswith("encoder.layer.")}),
        num_attention_heads=max(1, width // 64), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    encoder = TextEncoder(BertModel(config, add_pooling_layer=False), tokenizer, "first", taken.wanted.text_tokens)
    return encoder, {f"text.model.{name}": tensor for name, tensor in state.items()}


def _tokenizer(wanted: Conversion) -> Any:
    if wanted.tokenizer is None:
        raise BadRequest("no tokenizer", got=f"a {wanted.layout} scorer that reads text", expected="--tokenizer")
    if wanted.tokenizer.is_dir():
        return load_tokenizer(wanted.tokenizer)
    return published.load_bpe(existing_file(wanted.tokenizer, BadCheckpoint, "the tokenizer"))
