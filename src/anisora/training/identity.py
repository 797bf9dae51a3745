"""Fine-tuning an image encoder to know characters again: the paper's equation 6, made large for the right character.

    S(V, c) = 1/N sum_i cos(E(M_i * I_i), f_c)

A step draws characters, and of each two pictures or clips: of one the stored feature f_c is made, the other is the clip V
that is scored against all of them, and the other way round. The loss is the cross entropy of softmax_c(S / temperature), so
what is learned is what the score asks, for whichever characters are stored later.

RUN/run.json                     settings, and a hash of the pictures
RUN/{log.jsonl, checkpoints/}    see `training.loop`
RUN/export/                      the encoder, in the layout it came in
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from anisora.errors import BadConfig, BadInput
from anisora.files import atomic_folder, sha256_file, write_atomic
from anisora.settings import plain, setting
from anisora.store import canonical_json, content_hash
from anisora.training.loop import LoopSettings, Task, load_averaged, locked, train

#: character -> picture or clip it comes from -> its cut-outs
Cast = Mapping[str, Mapping[str, Sequence[Path]]]

#: Each cut-out is seen mirrored or not, so much smaller at most, shifted as far as that leaves room, as much lighter or
#: darker at most: nightfall and size are no change of identity.
_SMALLEST, _LIGHT = 0.8, 1.3


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """A fine-tuning run of an encoder."""

    characters: int = setting(8, "characters of a step, told from each other")
    frames: int = setting(2, "cut-outs of each picture or clip: N of equation 6")
    temperature: float = setting(0.07, "cosines are divided by it: smaller presses harder on the nearest others")
    seed: int = 0
    loop: LoopSettings = field(default_factory=lambda: settings_of_loop(300))


def settings_of_loop(steps: int, learning_rate: float = 1e-4) -> LoopSettings:
    """The loop for so many steps."""
    return LoopSettings(
        steps=steps, learning_rate=learning_rate, warmup_steps=min(20, steps // 5), ema_decay=0.98, log_every_steps=5
    )


def main(
    encoder: nn.Module, cast: Cast, settings: IdentitySettings, out: Path, *, max_minutes: float = math.inf
) -> Path | None:
    """Trains `encoder` (pictures to features, with a method `save`) and returns its new folder, or None when time is up; run
    again to go on.

    Raises BadInput for fewer than two characters with two pictures or clips each; BadConfig where `out` holds a run of
    other pictures or settings.
    """
    usable = {name: sources for name, sources in sorted(cast.items()) if len(sources) > 1}
    if len(usable) < 2:
        raise BadInput(
            "too few characters to learn from",
            got=f"{len(usable)} with two pictures or clips each",
            expected="at least 2; a character is known again from another picture",
        )
    encoder.float()
    with locked(out):
        _same_run(out, {**plain(settings), "pictures": _hash(usable), "encoder": _state_hash(encoder)})
        task = identity_task(encoder, usable, settings)
        if not train(task, settings.loop, out, seed=settings.seed, max_minutes=max_minutes):
            return None
        load_averaged(out, {"encoder": encoder})
        with atomic_folder(out / "export", members=r"[\w.-]+\.(json|safetensors)") as folder:
            encoder.save(folder)  # type: ignore[operator]
    return out / "export"


def identity_task(encoder: nn.Module, cast: Cast, settings: IdentitySettings) -> Task:
    """The loss of a step, and how often the right character was the nearest."""
    names = list(cast)
    count = min(settings.characters, len(names))

    def loss(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Any]]:
        rng = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        drawn = [cast[names[i]] for i in rng.choice(len(names), count, replace=False)]
        clips = [_drawn(sources, settings.frames, rng) for sources in drawn]
        features = functional.normalize(encoder([picture for clip in clips for picture in clip]), dim=-1)
        return equation_6_loss(features.view(count, 2, settings.frames, -1), settings.temperature)

    return Task(
        name="identity", modules={"encoder": encoder}, loss=loss, samples_per_step=count * 2 * settings.frames
    )  # fmt: skip


def equation_6_loss(features_CSND: Tensor, temperature: float) -> tuple[Tensor, dict[str, Any]]:
    """The loss of features of C characters, of each S = 2 pictures or clips of N frames, all of length 1."""
    stored_CSD = functional.normalize(features_CSND.mean(dim=2), dim=-1)
    own = torch.arange(len(features_CSND), device=features_CSND.device)
    losses, right = [], []
    for scored, held in ((0, 1), (1, 0)):
        scores_CC = (features_CSND[:, scored] @ stored_CSD[:, held].T).mean(dim=1)
        losses.append(functional.cross_entropy(scores_CC / temperature, own))
        right.append((scores_CC.argmax(dim=1) == own).float().mean())
    return torch.stack(losses).mean(), {"right": torch.stack(right).mean().item()}


# -- pictures ----------------------------------------------------------------------------------------------------------


def _drawn(sources: Mapping[str, Sequence[Path]], frames: int, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """`frames` cut-outs of each of two sources, varied; a source with fewer shows some twice."""
    names = sorted(sources)
    pictures = []
    for chosen in rng.choice(len(names), 2, replace=False):
        files = sources[names[chosen]]
        order = np.resize(rng.permutation(len(files)), frames)
        pictures += [_varied(_read(files[int(i)]), rng) for i in order]
    return pictures


def _varied(picture_HWC: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The cut-out mirrored or not, smaller, elsewhere, lighter or darker."""
    import cv2

    height, width = picture_HWC.shape[:2]
    scale, mirrored = rng.uniform(_SMALLEST, 1), rng.random() < 0.5
    x, y = rng.uniform(0, 1 - scale, 2) * (width, height)
    row = (-scale, 0, width * scale + x) if mirrored else (scale, 0, x)
    matrix = np.array([row, (0, scale, y)], np.float32)
    moved = cv2.warpAffine(picture_HWC, matrix, (width, height), flags=cv2.INTER_LINEAR)
    gain = math.exp(rng.uniform(-1, 1) * math.log(_LIGHT))
    return np.rint(np.clip(moved * gain, 0, 255)).astype(np.uint8)


@lru_cache(maxsize=2048)
def _read(path: Path) -> NDArray[np.uint8]:
    from anisora.media.image import load_image

    return np.array(load_image(path))


# -- the run -----------------------------------------------------------------------------------------------------------


def _same_run(out: Path, said: Mapping[str, Any]) -> None:
    """Writes run.json. Raises BadConfig where another run began: it would go on from weights that saw other characters."""
    path, text = out / "run.json", canonical_json(said)
    if path.exists() and path.read_text(encoding="utf-8").strip() != text:
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in said if before.get(name) != said[name]]
        raise BadConfig(
            "the folder holds a fine-tuning run of another kind",
            got=f"{out}: other {', '.join(changed)}",
            hint="another --out, or removing that folder",
        )
    write_atomic(path, text.encode() + b"\n")


def _hash(cast: Cast) -> str:
    return content_hash(
        {
            name: {source: [sha256_file(file) for file in files] for source, files in own.items()}
            for name, own in cast.items()
        }
    )


def _state_hash(encoder: nn.Module) -> str:
    """A hash of an encoder's weights, before it learns."""
    state = encoder.state_dict()
    return content_hash(
        {
            name: hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()
            for name, tensor in state.items()
        }
    )
