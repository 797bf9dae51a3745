"""The networks that score a clip, after the paper's equations: a few lines of arithmetic on encoders of transformers.

frames      appeal, equation 3: the mean over key frames of a regressor on each
pair        text-video and image-video, equations 4 and 5: a regressor on the clip's feature beside the text's or picture's
prompts     motion, equation 2 and section S1.2: how much more the clip is like the first of two sentences than the second
similarity  nothing is trained: the cosine between the frames and the text or picture, as CLIPScore has it

Each gives [clips, outputs]; what is in [0, 1] says so. `networks_vlm` holds the fifth, a vision-language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anisora.evaluation.encoders import TextEncoder, Towers, VisionEncoder, unit
from anisora.evaluation.look import Case, Picture

#: The two sentences of the paper's motion score (section S1.2), as printed.
MOTION_PROMPTS = (
    "The protagonist has a large range of movement, such as running, jumping, dancing, or waving arms.",
    "The protagonist remains stationary in the video with no apparent movement.",
)


class Network(nn.Module, ABC):
    """What all have in common: `parts`, encoders with folders of their own, and `own` tensors, which are all others."""

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """The encoders by the name of their folder."""

    def own(self) -> dict[str, Tensor]:
        """The tensors that are no encoder's."""
        return {name: t for name, t in self.state_dict().items() if name.partition(".")[0] not in self.parts()}

    def is_cut(self, case: Case) -> bool:
        """Whether the end of the case's text is not seen."""
        return False

    @abstractmethod
    def forward(self, cases: Sequence[Case]) -> Tensor:
        """[clips, outputs]."""


class FramesNetwork(Network):
    """S = 1/N sum_n R(E(K_n)): a regressor on each key frame, averaged (equation 3); in [0, 1]."""

    def __init__(self, vision: VisionEncoder, outputs: int = 1) -> None:
        super().__init__()
        self.vision = vision
        self.head = nn.Linear(vision.width, outputs)

    def parts(self) -> dict[str, Any]:
        return {"vision": self.vision}

    def forward(self, cases: Sequence[Case]) -> Tensor:
        values = [self.head(features.float()).sigmoid().mean(dim=0) for features in _by_case(self.vision, cases)]
        return torch.stack(values)


class PairNetwork(Network):
    """S = R(E_V(V), E_T(T)) (equation 4), or R(E_V(V), E_V(I)) without a text encoder (equation 5); in [0, 1].

    The mean of the frames' features and the other feature each go through a linear layer; a linear layer with a sigmoid reads
    them side by side. As released, that is all (`is_joint` false): a sum of what the clip says and of what the text says, which
    cannot tell whether the two agree. Here the head also reads their product, place by place.
    """

    def __init__(
        self, vision: VisionEncoder, text: TextEncoder | None, outputs: int = 1, is_joint: bool = True
    ) -> None:
        super().__init__()
        self.vision, self.text, self.is_joint = vision, text, is_joint
        self.project_video = nn.Linear(vision.width, vision.width)
        self.project_other = nn.Linear(vision.width if text is None else text.width, vision.width)
        self.head = nn.Linear((3 if is_joint else 2) * vision.width, outputs)

    def parts(self) -> dict[str, Any]:
        return {"vision": self.vision} | ({} if self.text is None else {"text": self.text})

    def is_cut(self, case: Case) -> bool:
        return self.text is not None and self.text.is_cut(case.prompt)

    def forward(self, cases: Sequence[Case]) -> Tensor:
        frames = torch.stack([features.mean(dim=0) for features in _by_case(self.vision, cases)])
        if self.text is None:
            reference = self.vision([case.reference for case in cases])
        else:
            reference = self.text([case.prompt for case in cases])
        video, other = self.project_video(frames.float()), self.project_other(reference.float())
        read = [video, other, video * other] if self.is_joint else [video, other]
        return self.head(torch.cat(read, dim=1)).sigmoid()


class PromptsNetwork(Network):
    """S = softmax_j(scale cos(E_V(V), E_T(p_j)))_0 over two sentences (equation 2); in [0, 1].

    A CLIP, and `fusion` over its frames: None is their mean, else ActionCLIP's temporal transformer.
    """

    def __init__(
        self, towers: Towers, prompts: Sequence[str] = MOTION_PROMPTS, fusion: FrameFusion | None = None
    ) -> None:
        super().__init__()
        self.towers, self.prompts = towers, tuple(prompts)
        self.fusion = fusion

    def parts(self) -> dict[str, Any]:
        return {"towers": self.towers}

    def forward(self, cases: Sequence[Case]) -> Tensor:
        return self.logits(cases, self.prompts).softmax(dim=1)[:, :1]

    def logits(self, cases: Sequence[Case], texts: Sequence[str]) -> Tensor:
        """Scaled cosines [clips, texts]."""
        video = torch.stack([self._fused(features.float()) for features in _by_case(self.towers.of_frames, cases)])
        return self.towers.model.logit_scale.exp().float() * unit(video) @ self.towers.of_texts(texts).float().T

    def _fused(self, features_TC: Tensor) -> Tensor:
        return (features_TC if self.fusion is None else self.fusion(features_TC)).mean(dim=0)


class FrameFusion(nn.Module):
    """ActionCLIP's temporal transformer over frames [T, C] (Wang et al. 2021, "Transf"); names and sizes as there."""

    def __init__(self, width: int, layers: int = 6, heads: int | None = None, max_frames: int = 77) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(max_frames, width)
        nn.init.normal_(self.frame_position_embeddings.weight, std=0.01)
        blocks = [_Block(width, heads or max(1, width // 64)) for _ in range(layers)]
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(blocks)})

    def forward(self, features_TC: Tensor) -> Tensor:
        x = features_TC + self.frame_position_embeddings.weight[: len(features_TC)]
        blocks = self.transformer["resblocks"]
        assert isinstance(blocks, nn.ModuleList)
        for block in blocks:
            x = block(x)
        return x + features_TC


class _Block(nn.Module):
    """A block of CLIP's transformer: attention and a widened layer with its quick GELU, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})
        # As a fresh one begins: it adds nothing, so that the mean of the frames comes through as it was.
        nn.init.zeros_(self.attn.out_proj.weight)
        nn.init.zeros_(self.mlp["c_proj"].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.mlp["c_proj"].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        normed = self.ln_1(x)
        x = x + self.attn(normed, normed, normed, need_weights=False)[0]
        wide = self.mlp["c_fc"](self.ln_2(x))
        return x + self.mlp["c_proj"](wide * torch.sigmoid(1.702 * wide))


class SimilarityNetwork(Network):
    """The mean over frames of the cosine to the text, or to the picture where `of` is "image"; in [-1, 1]."""

    def __init__(self, towers: Towers, of: str = "text") -> None:
        super().__init__()
        self.towers, self.of = towers, of

    def parts(self) -> dict[str, Any]:
        return {"towers": self.towers}

    def is_cut(self, case: Case) -> bool:
        return self.of == "text" and self.towers.is_cut(case.prompt)

    def forward(self, cases: Sequence[Case]) -> Tensor:
        if self.of == "text":
            others = self.towers.of_texts([case.prompt for case in cases])
        else:
            others = unit(self.towers.of_frames([case.reference for case in cases]))
        by_case = zip(_by_case(self.towers.of_frames, cases), others, strict=True)
        return torch.stack([(unit(features) @ other).float().mean().reshape(1) for features, other in by_case])


def _by_case(encode: Any, cases: Sequence[Case]) -> tuple[Tensor, ...]:
    """The features [frames, width] of each case's frames, encoded together."""
    pictures: list[Picture] = [frame for case in cases for frame in case.frames]
    return encode(pictures).split([len(case.frames) for case in cases])
