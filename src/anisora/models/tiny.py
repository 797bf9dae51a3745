"""Small random checkpoints of every family, in the layout of the real ones.

Tests, bug reports and dry runs need a checkpoint that loads, runs in a second and fits in a megabyte. These have the real
folder layout, the real classes and a random network: what they draw is noise, how they are wired is exact.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anisora.errors import BadRequest
from anisora.models.parts import mend_index

#: what the maker writes, and the public checkpoint each one is laid out like
TINY_FAMILIES: dict[str, str] = {
    "wan": "Wan image-to-video without a CLIP branch, one expert",
    "wan-block": "the same with the block VAE and the guide-aware decoder (the bundled model)",
    "wan-clip": "Wan2.1-I2V-14B: CLIP branch, 512 text tokens",
    "wan-experts": "Wan2.2-I2V-A14B: two experts, no CLIP branch",
    "cogvideox": "CogVideoX-5B-I2V: 16 + 16 channels",
    "cogvideox-packed": "CogVideoX1.5-5B-I2V: two latent frames to a patch, offset embedding",
    "cogvideox-mask": "CogVideoX-5B-I2V with the mask projection of the paper's equation 1",
    "vace": "Wan2.1-VACE",
}

TINY_SIZE_PX, TINY_FRAMES, TINY_FPS = (48, 32), 9, 8
_TEXT = (
    "a girl with red hair turns her head and waves while the wind moves the grass and two birds cross the evening sky"
)


def write_tiny_checkpoint(
    folder: str | Path, family: str = "wan", seed: int = 0, *, max_shard_size: str | None = None, info: bool = True
) -> Path:
    """The folder, now holding a random checkpoint of `family` (a key of `TINY_FAMILIES`) that loads like a real one.

    The same seed gives the same weights. `max_shard_size` such as "60KB" splits the weights into several files with an
    index. With `info=False` no anisora.json is written, as in a folder that stock diffusers saved. Native size 48x32 px,
    9 frames. Raises BadRequest for an unknown family.
    """
    import torch

    if family not in TINY_FAMILIES:
        raise BadRequest("unknown tiny family", got=repr(family), expected=", ".join(TINY_FAMILIES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = _MAKERS[family]()
        folder = Path(folder)
        pipeline.save_pretrained(folder, max_shard_size=max_shard_size)
        mend_index(folder, type(pipeline).__name__)
        for name, part in _own_parts(family, pipeline).items():
            part.save_pretrained(folder / name)
    if info:
        (folder / "anisora.json").write_text(json.dumps(_info(family), indent=2) + "\n")
    return folder


def _own_parts(family: str, pipeline: Any) -> dict[str, Any]:
    """The parts that stock diffusers does not know, each in a folder of its own."""
    if family == "cogvideox-mask":
        from anisora.models.mask_projection import MaskProjection

        return {"mask_projection": MaskProjection.matching(pipeline.transformer)}
    if family == "wan-block":
        from anisora.models.guide_decoder import GuideDecoder

        return {"guide_decoder": GuideDecoder(dims=(4, 4, 4), features=4)}
    return {}


def _info(family: str) -> dict[str, Any]:
    cogvideox = family.startswith("cogvideox")
    recipe: dict[str, Any] = {"steps": 2, "guidance": 1.0}
    if not cogvideox:
        recipe |= {"shift": 3.0, "sampler": "euler"}
    if family == "wan-experts":
        recipe |= {"boundary": 0.9}
    return {
        "family": {"cogvideox-mask": "cogvideox_mask", "vace": "vace"}.get(family, "cogvideox" if cogvideox else "wan"),
        "capabilities": _CAPABILITIES.get(family, ["text", "guides", "motion_area", "keep_video"]),
        "recipe": recipe,
        "native": {"size": list(TINY_SIZE_PX), "frames": TINY_FRAMES, "fps": TINY_FPS},
        "motion_score_range": [0.5, 4.0],
        "max_text_tokens": 512 if family == "wan-clip" else 16 if cogvideox else 24,
        "snap": "exact",
    }


_CAPABILITIES = {
    "cogvideox": ["text", "guides"],
    "cogvideox-packed": ["text", "guides"],
    "cogvideox-mask": ["text", "guides", "motion_area"],
}


def tiny_tokenizer() -> Any:
    """A T5 tokenizer whose Unigram vocabulary is trained in memory on one sentence."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import T5TokenizerFast

    draft = Tokenizer(models.Unigram())
    draft.normalizer = normalizers.NFKC()
    draft.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    draft.train_from_iterator(
        [_TEXT], trainers.UnigramTrainer(vocab_size=96, special_tokens=special, unk_token="<unk>", show_progress=False)
    )
    vocab = [tuple(entry) for entry in json.loads(draft.to_str())["model"]["vocab"]]
    return T5TokenizerFast(vocab=vocab, extra_ids=0)


def _text_encoder(tokenizer: Any, class_name: str) -> Any:
    import transformers

    config = getattr(transformers, class_name.replace("EncoderModel", "Config"))(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4
    )
    return getattr(transformers, class_name)(config).eval()


def _image_encoder() -> dict[str, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    return {"image_encoder": CLIPVisionModel(config).eval(), "image_processor": processor}


def _wan_vae(z_dim: int) -> Any:
    from diffusers import AutoencoderKLWan

    # Means and spreads that differ per channel, so that a wrong normalisation shows.
    return AutoencoderKLWan(
        base_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        z_dim=z_dim,
        latents_mean=[0.1 * (channel % 5) - 0.2 for channel in range(z_dim)],
        latents_std=[0.5 + 0.1 * (channel % 7) for channel in range(z_dim)],
    ).eval()


def _wan_transformer(z_dim: int, **fields: Any) -> Any:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        **{**_WAN_FIELDS, "in_channels": 2 * z_dim + 4, "out_channels": z_dim, **fields}
    ).eval()


_WAN_FIELDS: dict[str, Any] = {
    "patch_size": (1, 2, 2),
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 32,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 64,
}


def _flow_scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(shift=3.0)


def _wan(**components: Any) -> Any:
    from diffusers import WanImageToVideoPipeline

    tokenizer = tiny_tokenizer()
    text_encoder = _text_encoder(tokenizer, "UMT5EncoderModel")
    return WanImageToVideoPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, scheduler=_flow_scheduler(), **components
    )


def _wan_plain() -> Any:
    # 8 latent channels, not 16: the number is read from the VAE, and this checkpoint holds us to it.
    return _wan(vae=_wan_vae(8), transformer=_wan_transformer(8))


def _wan_block() -> Any:
    from anisora.models.block_vae import AutoencoderKLBlock

    vae = AutoencoderKLBlock(z_dim=8, decoder_dims=(8, 8, 8)).eval()
    return _wan(vae=vae, transformer=_wan_transformer(8))


def _wan_clip() -> Any:
    transformer = _wan_transformer(16, image_dim=32, added_kv_proj_dim=24)
    return _wan(vae=_wan_vae(16), transformer=transformer, **_image_encoder())


def _wan_experts() -> Any:
    return _wan(
        vae=_wan_vae(16), transformer=_wan_transformer(16), transformer_2=_wan_transformer(16), boundary_ratio=0.9
    )


def _vace() -> Any:
    from diffusers import WanVACEPipeline, WanVACETransformer3DModel

    tokenizer = tiny_tokenizer()
    transformer = WanVACETransformer3DModel(
        **_WAN_FIELDS, in_channels=16, out_channels=16, vace_layers=[0, 1], vace_in_channels=96
    ).eval()
    return WanVACEPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(tokenizer, "UMT5EncoderModel"),
        vae=_wan_vae(16),
        scheduler=_flow_scheduler(),
        transformer=transformer,
    )


def _cogvideox(scheduler_class: str = "CogVideoXDDIMScheduler", invert: bool = False, **fields: Any) -> Any:
    import diffusers

    tokenizer = tiny_tokenizer()
    vae = diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=16,
        scaling_factor=0.7,
        invert_scale_latents=invert,
    ).eval()
    width, height = (side // 8 for side in TINY_SIZE_PX)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=32,
        out_channels=16,
        time_embed_dim=16,
        text_embed_dim=32,
        num_layers=2,
        sample_width=width,
        sample_height=height,
        sample_frames=TINY_FRAMES,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
        **fields,
    ).eval()
    scheduler = getattr(diffusers, scheduler_class)(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )
    return diffusers.CogVideoXImageToVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=_text_encoder(tokenizer, "T5EncoderModel"),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


def _cogvideox_packed() -> Any:
    return _cogvideox("CogVideoXDPMScheduler", invert=True, patch_size_t=2, ofs_embed_dim=16, patch_bias=False)


_MAKERS: dict[str, Callable[[], Any]] = {
    "wan": _wan_plain,
    "wan-block": _wan_block,
    "wan-clip": _wan_clip,
    "wan-experts": _wan_experts,
    "cogvideox": _cogvideox,
    "cogvideox-packed": _cogvideox_packed,
    "cogvideox-mask": _cogvideox,
    "vace": _vace,
}
