"""What a shot costs before it is made: tokens, operations, bytes, and on which card it fits. Arithmetic on configs alone.

Operations count multiplications and additions of all matrix products of one pass of the denoising network (2 m n k each,
attention in full), as torch's own counter does; text encoder and VAE are not in it. Weights count every component.
Activations are an estimate, calibrated on nothing finer than how many copies of the hidden state are alive at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from anisora.geometry import Strides, latent_frames

BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
#: memory sizes of common cards, in GB; what `anisora doctor` and the docs tabulate
PRESETS_GB = (8, 12, 16, 24, 48, 80)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The sizes of a denoising transformer that its cost depends on, whichever family it is."""

    kind: str  # "wan", "vace" or "cogvideox"
    width: int
    head_width: int
    num_layers: int
    ffn_width: int
    in_channels: int
    out_channels: int
    patch: tuple[int, int, int]
    text_width: int
    text_tokens: int
    time_width: int = 256
    image_width: int | None = None
    image_tokens: int = 0
    control_layers: int = 0
    control_channels: int = 0

    @property
    def patch_values(self) -> int:
        return prod(self.patch)


def network_of(config: Mapping[str, Any], *, text_tokens: int = 512) -> Network:
    """The network that a transformer's config.json describes (WanTransformer3DModel, its VACE form, CogVideoX)."""
    width = config["num_attention_heads"] * config["attention_head_dim"]
    if "time_embed_dim" in config or "CogVideoX" in str(config.get("_class_name")):
        patch_t = config.get("patch_size_t") or 1
        return Network(
            kind="cogvideox",
            width=width,
            head_width=config["attention_head_dim"],
            num_layers=config["num_layers"],
            ffn_width=4 * width,
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            patch=(patch_t, config.get("patch_size", 2), config.get("patch_size", 2)),
            text_width=config.get("text_embed_dim", 4096),
            text_tokens=config.get("max_text_seq_length", 226),
            time_width=config.get("time_embed_dim", 512),
        )
    has_images = config.get("image_dim") is not None
    control = config.get("vace_layers") or ()
    return Network(
        kind="vace" if control else "wan",
        width=width,
        head_width=config["attention_head_dim"],
        num_layers=config["num_layers"],
        ffn_width=config["ffn_dim"],
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        patch=tuple(config.get("patch_size", (1, 2, 2))),
        text_width=config.get("text_dim", 4096),
        text_tokens=text_tokens,
        time_width=config.get("freq_dim", 256),
        image_width=config["image_dim"] if has_images else None,
        image_tokens=257 if has_images else 0,
        control_layers=len(control),
        control_channels=config.get("vace_in_channels", 96) if control else 0,
    )


def num_tokens(network: Network, strides: Strides, size_px: tuple[int, int], num_frames: int) -> int:
    """Video tokens of one pass. Latent frames are padded up to the patch, as CogVideoX 1.5 does."""
    frames = -(-latent_frames(num_frames, strides.temporal) // network.patch[0])
    rows, columns = (side // strides.spatial // network.patch[1] for side in size_px[::-1])
    return frames * rows * columns


def forward_flops(network: Network, tokens: int) -> int:
    """Operations of one pass over `tokens` video tokens, batch 1."""
    d, n = network.width, tokens
    patch_in = 2 * n * network.in_channels * network.patch_values * d
    patch_out = 2 * n * d * network.out_channels * network.patch_values
    if network.kind == "cogvideox":
        joint = n + network.text_tokens
        block = 8 * joint * d * d + 4 * joint * joint * d + 4 * joint * d * network.ffn_width
        modulation = 2 * 2 * network.time_width * 6 * d
        embed = 2 * network.text_tokens * network.text_width * d + 2 * (d * network.time_width + network.time_width**2)
        final = 2 * network.time_width * 2 * d
        return network.num_layers * (block + modulation) + patch_in + patch_out + embed + final
    text, image = network.text_tokens, network.image_tokens
    block = (
        12 * n * d * d + 4 * n * n * d + 4 * n * d * network.ffn_width
    )  # self-attention, cross-attention's q and out
    block += (text + image) * (4 * d * d + 4 * n * d)  # cross-attention's k, v and products
    embed = 2 * (text * (network.text_width * d + d * d) + network.time_width * d + d * d + 6 * d * d)
    if network.image_width:
        embed += 2 * image * network.image_width * (network.image_width + d)
    control = network.control_layers * (block + 2 * n * d * d)  # and each layer's projection out
    if network.control_layers:
        control += 2 * n * d * (d + network.control_channels * network.patch_values)
    return network.num_layers * block + control + patch_in + patch_out + embed


def num_params(network: Network) -> int:
    """Parameters of one expert, biases and norms included (test: the stock class on the meta device)."""
    d, f, p = network.width, network.ffn_width, network.patch_values
    if network.kind == "cogvideox":
        t = network.time_width
        block = 4 * (d * d + d) + 4 * network.head_width + 2 * (t * 6 * d + 6 * d + 2 * d) + 2 * d * f + f + d
        ends = network.in_channels * p * d + d + network.text_width * d + d + d * t + t + t * t + t
        return (
            network.num_layers * block + ends + 2 * d + (t * 2 * d + 2 * d + 2 * d) + (d + 1) * network.out_channels * p
        )
    attention = 4 * (d * d + d) + 2 * d
    block = 2 * attention + 2 * d + 2 * d * f + f + d + 6 * d
    ends = network.in_channels * p * d + d + (d + 1) * network.out_channels * p + 2 * d
    embed = network.time_width * d + d + d * d + d + 6 * d * d + 6 * d + network.text_width * d + d + d * d + d
    if network.image_width:
        block += 2 * (d * d + d) + d
        embed += 2 * network.image_width + network.image_width * (network.image_width + 1 + d) + d + 2 * d
    control = network.control_layers * (block + d * d + d)
    if network.control_layers:
        control += d * d + d + network.control_channels * p * d + d
    return network.num_layers * block + control + ends + embed


# -- what is known of checkpoints that are not here --------------------------------------------------------------------

_WAN_14B = dict(
    num_attention_heads=40, attention_head_dim=128, num_layers=40, ffn_dim=13824, in_channels=36, out_channels=16
)
_WAN_I2V = dict(_WAN_14B, image_dim=1280, added_kv_proj_dim=5120)
_VACE_14B = dict(_WAN_14B, in_channels=16, vace_layers=list(range(0, 40, 5)), vace_in_channels=96)
_VACE_1B = dict(_VACE_14B, num_attention_heads=12, num_layers=30, ffn_dim=8960, vace_layers=list(range(0, 30, 2)))
_COGVIDEOX_5B = dict(
    num_attention_heads=48, attention_head_dim=64, num_layers=42, in_channels=32, out_channels=16, time_embed_dim=512
)

#: catalog name -> (transformer config as published, experts, parameters of text encoder, image encoder and VAE)
PUBLIC: dict[str, tuple[dict[str, Any], int, dict[str, int]]] = {}
_WAN_PARTS = {"text_encoder": 5_680_910_336, "vae": 126_892_531}
_COG_PARTS = {"text_encoder": 4_762_310_656, "vae": 215_583_907}
for _name in ("anisora-v2", "anisora-v3", "anisora-anymask", "wan2.1-i2v-14b-480p", "wan2.1-i2v-14b-720p"):
    PUBLIC[_name] = (_WAN_I2V, 1, {**_WAN_PARTS, "image_encoder": 632_076_800})
for _name in ("anisora-v3.2", "wan2.2-i2v-a14b"):
    PUBLIC[_name] = (_WAN_14B, 2, _WAN_PARTS)
PUBLIC["wan2.1-vace-14b"] = (_VACE_14B, 1, _WAN_PARTS)
PUBLIC["wan2.1-vace-1.3b"] = (_VACE_1B, 1, _WAN_PARTS)
for _name in ("anisora-v1", "cogvideox-5b-i2v"):
    PUBLIC[_name] = (_COGVIDEOX_5B, 1, _COG_PARTS)
PUBLIC["cogvideox1.5-5b-i2v"] = (dict(_COGVIDEOX_5B, patch_size_t=2), 1, _COG_PARTS)


# -- the plan of a shot ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one shot costs on one checkpoint.

    needs_bytes: (dtype, how) -> estimated peak memory of the device; how is "resident" (all weights there), "parts"
    (one component at a time) or "blocks" (a few layers at a time).
    """

    size: tuple[int, int]
    frames: int
    tokens: int
    forwards: int
    flops_per_forward: int
    params: dict[str, int]
    weights_bytes: dict[str, int]
    needs_bytes: dict[tuple[str, str], int]

    @property
    def flops(self) -> int:
        """Operations of all passes."""
        return self.forwards * self.flops_per_forward

    def fits(self, memory_bytes: int) -> tuple[str, str] | None:
        """The best (dtype, how) that fits: no offloading before offloading, more precise before less; None if none."""
        order = [(dtype, how) for how in ("resident", "parts", "blocks") for dtype in ("bfloat16", "float8")]
        return next((choice for choice in order if self.needs_bytes[choice] <= memory_bytes * 0.92), None)


def estimate(
    network: Network,
    params: Mapping[str, int],
    strides: Strides,
    *,
    size_px: tuple[int, int],
    num_frames: int,
    steps: int,
    guidance: float,
) -> Cost:
    """The cost of a shot: `params` has the parameters of each component, transformer experts included."""
    tokens = num_tokens(network, strides, size_px, num_frames)
    forwards = steps * (1 if guidance <= 1 else 2)
    weights = {dtype: sum(_part_bytes(params, dtype).values()) for dtype in BYTES}
    return Cost(
        size=size_px,
        frames=num_frames,
        tokens=tokens,
        forwards=forwards,
        flops_per_forward=forward_flops(network, tokens),
        params=dict(params),
        weights_bytes=weights,
        needs_bytes={
            (dtype, how): _needs(network, params, dtype, how, tokens, size_px, strides)
            for dtype in BYTES
            for how in ("resident", "parts", "blocks")
        },
    )


def _needs(
    network: Network,
    params: Mapping[str, int],
    dtype: str,
    how: str,
    tokens: int,
    size_px: tuple[int, int],
    strides: Strides,
) -> int:
    """Weights on the device and the larger of denoising's and decoding's activations."""
    compute = max(2, BYTES[dtype])
    parts = _part_bytes(params, dtype)
    blocks = 2 * num_params(network) * BYTES[dtype] // network.num_layers
    held = {"resident": sum(parts.values()), "parts": max(parts.values()), "blocks": blocks}[how]
    # alive in a block at once: the stream, its fp32 norm, q k v, attention out, the feed-forward's inside
    denoise = tokens * (compute * (6 * network.width + network.ffn_width) + 4 * 2 * network.width)
    # a causal VAE decodes one latent frame (`temporal` pixel frames) at a time, about 6 maps of 96 channels in fp32
    decode = size_px[0] * size_px[1] * strides.temporal * 96 * 6 * 4
    return held + max(denoise, decode)


def _part_bytes(params: Mapping[str, int], dtype: str) -> dict[str, int]:
    """Bytes of each component; float8 is for the denoising networks, the others then are bfloat16."""
    return {
        name: count * (BYTES[dtype] if name.startswith("transformer") else max(BYTES[dtype], 2))
        for name, count in params.items()
    }


def cost_of(info: Any, **shot: Any) -> Cost:
    """The cost of a shot on a checkpoint that is here; `shot` overrides size_px, num_frames, steps, guidance.

    Parameters are counted from the headers of the weights; nothing is loaded.
    """
    from anisora.models.checkpoint import read_json

    network = network_of(
        read_json(Path(info.path) / "transformer" / "config.json"),
        text_tokens=info.max_text_tokens,
    )
    return estimate(network, params_here(Path(info.path)), info.strides, **{**_native(info), **shot})


#: what a public checkpoint makes where the catalog does not say: family -> native shot, recipe
_USUAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "wan": ({"size": (832, 480), "frames": 81}, {"steps": 40, "guidance": 5.0}),
    "vace": ({"size": (832, 480), "frames": 81}, {"steps": 50, "guidance": 5.0}),
    "cogvideox": ({"size": (720, 480), "frames": 49}, {"steps": 50, "guidance": 6.0}),
}


def cost_of_public(name: str, defaults: Mapping[str, Any]) -> Cost:
    """The cost of a native shot on a public checkpoint that is not here: `name` is a key of `PUBLIC`, `defaults` what
    the catalog says about it (the fields of anisora.json)."""
    config, experts, parts = PUBLIC[name]
    network = network_of(config)
    native, recipe = (
        {**usual, **defaults.get(key, {})}
        for key, usual in zip(("native", "recipe"), _USUAL[network.kind], strict=True)
    )
    params = {f"transformer{'_2' if index else ''}": num_params(network) for index in range(experts)}
    return estimate(
        network,
        {**params, **parts},
        Strides(patch_temporal=network.patch[0]),
        size_px=tuple(native["size"]),
        num_frames=native["frames"],
        steps=recipe["steps"],
        guidance=recipe["guidance"],
    )


def _native(info: Any) -> dict[str, Any]:
    return {
        "size_px": info.native.size,
        "num_frames": info.native.frames,
        "steps": info.recipe.steps,
        "guidance": info.recipe.guidance,
    }


def params_here(folder: Path) -> dict[str, int]:
    """Parameters by component, from the headers of a checkpoint's weights."""
    from anisora.models.verify import safetensors_shapes, tensor_files

    params: dict[str, int] = {}
    for path in tensor_files(folder):
        part = path.relative_to(folder).parts[0]
        params[part] = params.get(part, 0) + sum(prod(shape) for shape in safetensors_shapes(path).values())
    return params
