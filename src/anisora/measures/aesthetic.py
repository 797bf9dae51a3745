"""How a clip looks: LAION's predictors on CLIP where the user has the weights, plain features of the picture where not.

No package carries a CLIP, and classical features are no judge of beauty: the `bundled` score says how colourful,
contrasty, sharp and uncluttered a clip is. It orders clips of one source and is to be read by percentiles; its values
are never compared with LAION's. The paper itself finds that scores of this kind hardly separate animation.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadCheckpoint
from anisora.files import existing_file, sha256_file
from anisora.measures.clip import ClipView
from anisora.measures.pretrained import load_clip_vision
from anisora.records import Score

if TYPE_CHECKING:
    import torch

NUM_FRAMES = 3

#: The p10 and p90 of each feature over 53 real clips of hand-drawn, 3D and generated animation; a feature counts by its
#: share of the way from the one to the other.
RANGES = {
    "colourfulness": (12.0, 72.0),
    "contrast": (0.12, 0.30),
    "saturation": (0.07, 0.60),
    "sharpness": (20.0, 102.0),
}


def aesthetic(
    clip: ClipView,
    *,
    clip_model: str | Path | None = None,
    head: str | Path | None = None,
    num_frames: int = NUM_FRAMES,
) -> Score:
    """The mean over a few frames, on a scale of about 0 to 10.

    With `clip_model` (a folder of a transformers CLIP) and `head` (a LAION predictor's .pth) the backend is `full`:
    their score. Otherwise `bundled`: the mean of `picture_features`, each on its range. The features are in `details`.
    Raises BadCheckpoint, BadVideo.
    """
    if (clip_model is None) != (head is None):
        raise BadCheckpoint("half of a predictor", expected="a CLIP folder and a head, or neither")
    frames_THWC = clip.frames_at(clip.spread(num_frames))
    if clip_model is not None and head is not None:
        predictor = _predictor(str(clip_model), str(head))
        values, details, weights = predictor.scores(frames_THWC), {}, predictor.weights_sha256
    else:
        features = [picture_features(frame) for frame in frames_THWC]
        values = np.array([_combined(f) for f in features], np.float32)
        details = {key: float(np.mean([f[key] for f in features])) for key in features[0]}
        weights = None
    return Score(
        name="aesthetic",
        version=1,
        unit="0-10",
        raw=float(values.mean()),
        backend="full" if clip_model else "bundled",
        weights_sha256=weights,
        per_frame=values,
        details=details,
    )


def picture_features(frame_HWC: NDArray[np.uint8]) -> dict[str, float]:
    """Plain features of a picture, measured at 320 pixels of width.

    colourfulness: Hasler and Suesstrunk 2003, equation for M3; contrast: spread of the luma, in [0, 0.5]; saturation:
    mean of HSV's, in [0, 1]; sharpness: the 95th percentile of the Laplacian's size, in grey levels (line work is sparse,
    so not its mean); clutter: share of 16 x 16 blocks with an edge in more than a third of their pixels.
    """
    import cv2

    height = max(1, round(320 * frame_HWC.shape[0] / frame_HWC.shape[1]))
    rgb = cv2.resize(np.ascontiguousarray(frame_HWC), (320, height), interpolation=cv2.INTER_AREA)
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    rg, yb = red - green, (red + green) / 2 - blue
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    edges = cv2.Canny(grey, 60, 160) > 0
    blocks = edges[: height // 16 * 16].reshape(height // 16, 16, 20, 16).mean(axis=(1, 3))
    return {
        "colourfulness": float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "contrast": float(grey.std() / 255),
        "saturation": float(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255),
        "sharpness": float(np.percentile(np.abs(cv2.Laplacian(grey, cv2.CV_32F)), 95)),
        "clutter": float((blocks > 1 / 3).mean()) if blocks.size else 0.0,
    }


def _combined(features: dict[str, float]) -> float:
    """0 to 10: the mean share of the way along each range, less what is cluttered."""
    shares = [np.clip((features[key] - low) / (high - low), 0, 1) for key, (low, high) in RANGES.items()]
    return float(10 * np.mean(shares) * (1 - features["clutter"] / 2))


# --------------------------------------------------------------------------------------------------------------------
# CLIP and LAION's heads


class _Predictor:
    """A CLIP picture encoder and a head on its unit-length embedding."""

    def __init__(self, clip_model: str, head: str) -> None:
        self.encoder, self.processor = load_clip(clip_model)
        self.head = load_head(head)
        width = next(self.head.parameters()).shape[1]
        if width != self.encoder.config.projection_dim:
            raise BadCheckpoint(
                "the head is for another CLIP",
                got=f"embeddings of {self.encoder.config.projection_dim}",
                expected=f"{width} (768 is ViT-L/14, 512 ViT-B/32 and ViT-B/16)",
            )
        self.weights_sha256 = sha256_file(head)

    def scores(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        inputs = self.processor(images=list(frames_THWC), return_tensors="pt")
        with torch.inference_mode():
            embedding = self.encoder(pixel_values=inputs["pixel_values"]).image_embeds
            unit = embedding / embedding.norm(dim=-1, keepdim=True)
            return np.asarray(self.head(unit.float())[:, 0])


_predictor = functools.cache(_Predictor)


def load_clip(folder: str | Path) -> tuple[Any, Any]:
    """(picture encoder with projection, its processor) of a local transformers CLIP folder. Raises BadCheckpoint
    that names tensors which lack or misfit.

    The processor is the one on Pillow, with which the heads were trained; the other one needs torchvision.
    """
    from transformers import CLIPImageProcessorPil

    encoder = load_clip_vision(folder)
    try:
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as reason:
        raise BadCheckpoint("the CLIP cannot be opened", got=f"{folder} ({reason})") from reason
    return encoder, processor


def load_head(path: str | Path) -> torch.nn.Module:
    """LAION's predictor of either kind: a single linear layer, or the "improved" one of five. Raises BadCheckpoint.

    The five layers have no activation between them (as published: the dropouts do nothing here), so they are one linear
    map in fact; they are kept apart to load the file as it is.
    """
    import torch
    from torch import nn

    file = existing_file(path, BadCheckpoint, "the aesthetic head")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as reason:
        raise BadCheckpoint("not a file of weights", got=file, expected="a LAION aesthetic predictor") from reason
    layers = {name.removeprefix("layers."): value for name, value in state.items()}
    numbers = sorted({int(name.split(".")[0]) for name in layers if name.split(".")[0].isdigit()})
    if not numbers and set(layers) == {"weight", "bias"}:
        layers, numbers = {f"0.{name}": value for name, value in layers.items()}, [0]
    try:
        linear = [nn.Linear(layers[f"{n}.weight"].shape[1], layers[f"{n}.weight"].shape[0]) for n in numbers]
        head = nn.Sequential(*linear)
        head.load_state_dict(
            {f"{i}.{part}": layers[f"{n}.{part}"] for i, n in enumerate(numbers) for part in ("weight", "bias")}
        )
    except (KeyError, RuntimeError, IndexError, AttributeError) as reason:
        raise BadCheckpoint("the weights are not an aesthetic head", got=file) from reason
    if not linear or linear[-1].out_features != 1:
        raise BadCheckpoint("the weights are not an aesthetic head", got=file, expected="one number at the end")
    return head.eval()
