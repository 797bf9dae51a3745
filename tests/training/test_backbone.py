"""Training calls the network as generation does: same tensors in, same out, for every family; nothing of them is dropped."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anisora import Guide
from anisora.conditioning.encode import encode
from anisora.conditioning.plan import plan_from_tensors
from anisora.errors import BadConfig
from anisora.models.tiny import TINY_FAMILIES
from anisora.training.backbone import load_backbone


def loaded(folder, **more):
    backbone = load_backbone(
        str(folder), device=torch.device("cpu"), frozen_dtype=torch.float32, trained_dtype=torch.float32, **more
    )
    backbone.pipeline.set_progress_bar_config(disable=True)
    if backbone.pipeline.mask_projection is not None:  # as if trained: a new one has no effect
        with torch.no_grad():
            backbone.pipeline.mask_projection.proj.weight.normal_(generator=torch.Generator().manual_seed(0))
    return backbone


def heard(network, call):
    """What the network is handed and gives back in the first pass that `call` makes of it."""
    passes = []
    hook = network.register_forward_hook(
        lambda module, args, kwargs, out: passes.append((kwargs, out[0])), with_kwargs=True
    )
    try:
        result = call()
    finally:
        hook.remove()
    return *passes[0], result


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_network_reads_what_generation_hands_it(family, tiny, picture):
    backbone = loaded(tiny(family))
    guides = [Guide(picture(seed), frame) for seed, frame in ((1, 0), (2, 6))]
    network = backbone.pipeline.transformer
    theirs, their_output, shot = heard(
        network,
        lambda: backbone.pipeline(
            "a girl waves", guides=guides, num_frames=9, width=48, height=32, num_inference_steps=1, guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0), output_type="latent",
        ),
    )  # fmt: skip
    is_cog = family.startswith("cogvideox")
    hidden = theirs["hidden_states"].transpose(1, 2) if is_cog else theirs["hidden_states"]
    t_B = (theirs["timestep"].float() + (0.5 if is_cog else 0)) / 1000
    # stock CogVideoX draws a guide's latents from the posterior, so the same draw is asked for here
    generator = torch.Generator().manual_seed(0) if is_cog else None
    conditions = encode([shot.plan], backbone.codec, backbone.info.family, generator)
    channels = backbone.codec.channels
    ours, our_output, predicted = heard(
        network,
        lambda: backbone.predict(
            "transformer", hidden[:, :channels], t_B, conditions, backbone.text(["a girl waves"])
        ),
    )  # fmt: skip
    for name, value in theirs.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(ours[name].to(value), value, rtol=1e-5, atol=1e-5, msg=name)
        elif isinstance(value, tuple):
            torch.testing.assert_close(ours[name], value, msg=name)
    torch.testing.assert_close(our_output, their_output, rtol=1e-4, atol=1e-5)
    assert predicted.shape == hidden[:, :channels].shape


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_another_guide_or_caption_is_another_prediction(family, tiny, picture):
    backbone = loaded(tiny(family))
    info = backbone.info

    def predicted(seed, caption):
        picture_HWC = torch.from_numpy(picture(seed).astype(np.float32)) / 127.5 - 1
        video_TCHW = picture_HWC.permute(2, 0, 1).expand(9, -1, -1, -1)
        plans = [plan_from_tensors(video_TCHW, [4], strides=info.strides, family=info.family)]
        clean = backbone.target(torch.zeros(1, 3, 9, 32, 48), plans)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            return backbone.predict(
                "transformer", noise, torch.tensor([0.95]), backbone.conditions(plans), backbone.text([caption])
            )

    base = predicted(1, "a girl")
    assert torch.equal(base, predicted(1, "a girl"))
    assert not torch.allclose(base, predicted(2, "a girl"), atol=1e-6)
    assert not torch.allclose(base, predicted(1, "two birds"), atol=1e-6)


def test_a_mask_projection_is_added_to_cogvideox_alone(tiny):
    backbone = load_backbone(
        str(tiny("cogvideox")), device=torch.device("cpu"), frozen_dtype=torch.float32, trained_dtype=torch.float32,
        mask_projection=True,
    )  # fmt: skip
    assert backbone.info.family == "cogvideox_mask"
    assert not backbone.pipeline.mask_projection.proj.weight.any()
    with pytest.raises(BadConfig, match="mask_projection: got a checkpoint of family wan"):
        loaded(tiny("wan"), mask_projection=True)
