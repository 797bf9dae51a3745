"""Following a thing through a clip with SAM 2 from a local folder, in place of optical flow.

transformers has the network; its processor needs torchvision, so the little that it does to pictures is done here: frames
to the network's square, normalised as its training was, the mask beside them, and masks back to the frames' size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadCheckpoint
from anisora.measures.pretrained import load_strict

#: ImageNet's, with which SAM 2 was trained (its published preprocessor_config.json)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: track(frames uint8 THWC, what to follow in the first of them, bool HW) -> where it is, bool THW
Tracker = Callable[[NDArray[np.uint8], NDArray[np.bool_]], NDArray[np.bool_]]


def open_sam2(folder: Path) -> Tracker:
    """SAM 2 of a folder in transformers' layout (facebook/sam2.1-hiera-*). Raises BadCheckpoint for another or a torn one."""
    import torch
    from transformers import AutoConfig, Sam2VideoModel

    if not (folder / "config.json").is_file():
        raise BadCheckpoint("no SAM 2 there", got=folder, expected="a folder with config.json and weights")
    try:
        kind = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError, KeyError) as reason:
        raise BadCheckpoint("the SAM 2 cannot be opened", got=f"{folder} ({reason})") from reason
    if kind != "sam2_video":
        raise BadCheckpoint("not a SAM 2 for videos", got=f"{folder} ({kind})", expected="model_type sam2_video")
    model = load_strict(Sam2VideoModel, folder).eval()
    side = int(model.config.image_size)

    @torch.inference_mode()
    def track(frames_THWC: NDArray[np.uint8], start_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = start_HW.shape
        video_TCHW = torch.stack([_prepared(frame, side) for frame in frames_THWC])
        session = Sam2VideoInferenceSession(
            video=video_TCHW, video_height=height, video_width=width, dtype=torch.float32
        )
        mask = torch.from_numpy(np.ascontiguousarray(start_HW))[None, None].float()
        mask = torch.nn.functional.interpolate(mask, size=(side, side), mode="bilinear", antialias=True)
        session.add_mask_inputs(session.obj_id_to_idx(1), 0, (mask >= 0.5).float())
        session.obj_with_new_inputs = [1]
        masks = np.zeros((len(frames_THWC), height, width), bool)
        for seen in model.propagate_in_video_iterator(session, start_frame_idx=0):
            logits = torch.nn.functional.interpolate(seen.pred_masks.float(), size=(height, width), mode="bilinear")
            masks[seen.frame_idx] = (logits[0, 0] > 0).numpy()
        masks[0] = start_HW
        return masks

    def _prepared(frame_HWC: NDArray[np.uint8], side_px: int) -> torch.Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1)[None].float() / 255
        pixels = torch.nn.functional.interpolate(pixels, size=(side_px, side_px), mode="bilinear", antialias=True)
        return ((pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1))[0]

    return track
