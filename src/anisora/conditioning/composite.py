"""The generated shot with what may not change put back, pixel for pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from anisora.conditioning.plan import ConditionPlan


def composite(generated_TCHW: Tensor, plan: ConditionPlan) -> Tensor:
    """`generated_TCHW` inside the plan's area, and outside it exactly what stays: the earliest guide, or the video.

    Both in [-1, 1]. Between them the blend is feathered inside the area, so that the guide comes back in uint8 as it
    was given. A plan without an area returns the generated shot as it is.
    """
    if plan.blend_T1HW is None or plan.still_TCHW is None:
        return generated_TCHW
    blend_T1HW = plan.blend_T1HW.to(generated_TCHW)
    still_TCHW = plan.still_TCHW.to(generated_TCHW)
    return torch.where(blend_T1HW > 0, torch.lerp(still_TCHW, generated_TCHW, blend_T1HW), still_TCHW)
