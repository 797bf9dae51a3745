"""Samplers by name, and the flow shift: everything a recipe says about the scheduler, said to diffusers' schedulers.

Wan runs on flow matching with a shift; CogVideoX on v-prediction with zero terminal SNR (rescaled betas, trailing timesteps,
`snr_shift_scale`), whose noise schedule belongs to the weights and is kept when the sampler changes.
"""

from __future__ import annotations

from typing import Any

from anisora.errors import BadRequest

#: family -> recipe name -> diffusers class
SAMPLERS: dict[str, dict[str, str]] = {
    "flow": {"euler": "FlowMatchEulerDiscreteScheduler", "unipc": "UniPCMultistepScheduler"},
    # the same path, by a network that predicts the clean sample: stock Euler takes velocities only
    "sample": {"unipc": "UniPCMultistepScheduler"},
    "v_prediction": {"ddim": "CogVideoXDDIMScheduler", "dpm": "CogVideoXDPMScheduler"},
}


def make_scheduler(scheduler: Any, sampler: str | None = None, shift: float | None = None) -> Any:
    """A new scheduler like `scheduler`, with the named sampler and flow shift; None keeps what it has.

    Raises BadRequest for an unknown sampler, one of the other kind, or a shift on v-prediction.
    """
    prediction = scheduler.config.get("prediction_type")
    kind = prediction if prediction in SAMPLERS else "flow"
    names = SAMPLERS[kind]
    if sampler is not None and sampler not in names:
        raise BadRequest("unknown sampler for this checkpoint", got=repr(sampler), expected=" or ".join(names))
    if shift is not None and kind == "v_prediction":
        raise BadRequest("a flow shift on a checkpoint that predicts v", got=shift, hint="leaving shift out")
    if shift is not None and shift <= 0:
        raise BadRequest("flow shift out of range", got=shift, expected="above 0", hint="5.0")
    class_name = type(scheduler).__name__ if sampler is None else names[sampler]
    return _scheduler_class(class_name).from_config(scheduler.config, **_fields(scheduler, class_name, shift, kind))


def _scheduler_class(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)


def _fields(scheduler: Any, class_name: str, shift: float | None, kind: str) -> dict[str, Any]:
    """The fields that the two flow schedulers spell differently."""
    if shift is None:
        shift = scheduler.config.get("flow_shift", scheduler.config.get("shift"))
    if class_name == "UniPCMultistepScheduler":
        predicts = "sample" if kind == "sample" else "flow_prediction"
        return {"use_flow_sigmas": True, "prediction_type": predicts, "flow_shift": shift or 1.0}
    if class_name == "FlowMatchEulerDiscreteScheduler":
        return {"shift": shift or 1.0}
    return {}
