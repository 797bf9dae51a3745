"""The three pipelines: stock diffusers pipelines whose condition channels are filled from guides, motion areas and masks.

Every AniSora generation is a stock architecture; only what goes into its condition channels differs. So each class here is the
stock class with its conditioning methods replaced, and stock's own `__call__` does the denoising. With one guide on frame 0
they make what the stock pipeline makes.

    plan   -> stock: text, [ours: encode the plan], denoise -> decode -> guide-aware decoder -> composite

    B batch, C latent channels, M mask channels, T pixel frames, H W pixels, F latent frames, Y X latents
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import CogVideoXImageToVideoPipeline, WanImageToVideoPipeline, WanVACEPipeline
from diffusers.utils.torch_utils import randn_tensor

from anisora.errors import BadRequest, BadSize
from anisora.generation.shot import ShotMixin, ShotOutput

__all__ = ["AniSoraCogVideoXPipeline", "AniSoraVACEPipeline", "AniSoraWanPipeline", "ShotOutput"]

#: diffusers' CLIP branch splits image from text tokens by this number, whatever the length of the text.
CLIP_BRANCH_TEXT_TOKENS = 512


class AniSoraWanPipeline(ShotMixin, WanImageToVideoPipeline):
    """Wan image-to-video with guides at any frame, motion areas and kept video: AniSora V2, V3.x, any-mask, the bundled model.

    Wan 2.1 with the CLIP branch, Wan 2.2 with two experts, and checkpoints with neither. See `ShotMixin.__call__`.
    """

    stock_class = WanImageToVideoPipeline
    networks = ("transformer", "transformer_2")

    def _check_text_tokens(self, num_tokens: int) -> None:
        """Raises BadRequest where the CLIP branch would mistake text tokens for image tokens."""
        if self.checkpoint.image_branch and num_tokens != CLIP_BRANCH_TEXT_TOKENS:
            raise BadRequest(
                "a checkpoint with a CLIP branch reads text of one length only",
                got=f"{num_tokens} text tokens",
                expected=CLIP_BRANCH_TEXT_TOKENS,
                hint="leaving max_sequence_length out",
            )

    def _stock_arguments(self) -> dict[str, Any]:
        picture = self._shot.plan.reference_image
        if picture is None and self.checkpoint.image_branch:
            raise BadRequest(
                "this checkpoint looks at a picture", got="no guide and no video", expected="at least one guide"
            )
        # Stock wants a picture even where nothing looks at it: `prepare_latents` below goes by the plan.
        return {"image": torch.zeros(1, 3, 1, 1) if picture is None else picture}

    def prepare_latents(
        self,
        image: Any,
        batch_size: int,
        num_channels_latents: int,
        height: int,
        width: int,
        num_frames: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: Any = None,
        latents: torch.Tensor | None = None,
        last_image: Any = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(noise_BCFYX, condition): mask (M) and condition latents (C) on the channel axis, for stock's denoising loop."""
        conditions = self._shot.encode()
        condition = torch.cat([conditions.mask_BMFYX, conditions.latent_BCFYX], dim=1).to(device, dtype)
        shape = (batch_size, num_channels_latents, *condition.shape[2:])
        return _noise(shape, generator, device, dtype, latents), condition.expand(batch_size, -1, -1, -1, -1)


class AniSoraCogVideoXPipeline(ShotMixin, CogVideoXImageToVideoPipeline):
    """CogVideoX image-to-video with guides in any latent frame (AniSora V1), with or without the mask projection.

    See `ShotMixin.__call__`. Rotary tables count patches by whole numbers at every size, as the networks were trained.
    """

    stock_class = CogVideoXImageToVideoPipeline
    networks = ("transformer",)

    def _check_text_tokens(self, num_tokens: int) -> None:
        wanted = self.transformer.config.max_text_seq_length
        if num_tokens != wanted:
            raise BadRequest(
                "this checkpoint reads text of one length only",
                got=f"{num_tokens} text tokens",
                expected=wanted,
                hint="leaving max_sequence_length out",
            )

    def _check_size(self, size_px: tuple[int, int]) -> None:
        config = self.transformer.config
        native = (
            config.sample_width * self.vae_scale_factor_spatial,
            config.sample_height * self.vae_scale_factor_spatial,
        )
        if config.use_learned_positional_embeddings and size_px != native:
            raise BadSize(
                "this checkpoint has learned positions for one size only",
                got="{}x{}".format(*size_px),
                expected="{}x{}".format(*native),
            )

    def _stock_arguments(self) -> dict[str, Any]:
        return {"image": torch.zeros(1, 3, 1, 1)}

    def prepare_latents(
        self,
        image: torch.Tensor,
        batch_size: int = 1,
        num_channels_latents: int = 16,
        num_frames: int = 13,
        height: int = 60,
        width: int = 90,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        generator: Any = None,
        latents: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(noise_BFCYX, condition_BFCYX), and the mask handed to the mask projection: BFCYX exists inside this call only."""
        # Stock draws the guide's latents from the posterior with the same generator; so do we, and the noise agrees.
        conditions = self._shot.encode(generator[0] if isinstance(generator, list) else generator)
        padding = self._padding_latent_frames(conditions.latent_BCFYX.shape[2])
        condition_BFCYX = padded_condition(conditions.latent_BCFYX, padding).transpose(1, 2).to(device, dtype)
        if self.mask_projection is not None:
            self._shot.add_mask(
                self.transformer, self.mask_projection, padded_condition(conditions.mask_BMFYX, padding)
            )
        shape = (batch_size, condition_BFCYX.shape[1], num_channels_latents, *condition_BFCYX.shape[3:])
        noise_BFCYX = _noise(shape, generator, device, dtype, latents) * self.scheduler.init_noise_sigma
        return noise_BFCYX, condition_BFCYX.expand(batch_size, -1, -1, -1, -1)

    def _padding_latent_frames(self, num_latent_frames: int) -> int:
        """Latent frames that CogVideoX 1.5 needs in front to fill its time patches; stock cuts them off again."""
        return -num_latent_frames % (self.transformer.config.patch_size_t or 1)

    def _finished_latents(self, latents_BFCYX: torch.Tensor) -> torch.Tensor:
        """[B, C, F, Y, X] without the padding."""
        padding = latents_BFCYX.shape[1] - self._shot.num_latent_frames
        return latents_BFCYX[:, padding:].transpose(1, 2)

    def _prepare_rotary_positional_embeddings(
        self, height: int, width: int, num_frames: int, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary (cos, sin) tables [F * Y/p * X/p, D] at whole-numbered patch positions, at any size.

        Stock squeezes the positions of other sizes into the grid of `sample_height` x `sample_width` (1.0), or cuts them off
        there (1.5). The networks were trained on whole numbers (SAT, and AniSora V1 at 720x1280); at the config's own size
        all agree.
        """
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        config = self.transformer.config
        patch_px = self.vae_scale_factor_spatial * config.patch_size
        grid = (height // patch_px, width // patch_px)
        return get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim,
            crops_coords=None,
            grid_size=grid,
            temporal_size=-(-num_frames // (config.patch_size_t or 1)),
            grid_type="slice",
            max_size=grid,
            device=device,
        )


class AniSoraVACEPipeline(ShotMixin, WanVACEPipeline):
    """Wan VACE with guides at any frame, motion areas and kept video; `reference_images` and `conditioning_scale` as in stock.

    See `ShotMixin.__call__`.
    """

    stock_class = WanVACEPipeline
    networks = ("transformer", "transformer_2")

    def preprocess_conditions(self, video: Any, mask: Any, reference_images: Any, *args: Any) -> tuple[Any, Any, Any]:
        """Stock's reference pictures; the plan stands in for its video and mask."""
        batch_size, height, width, _, dtype, device = args
        return super().preprocess_conditions(None, None, reference_images, batch_size, height, width, 1, dtype, device)

    def prepare_video_latents(
        self, video: Any, mask: Any, reference_images: Any = None, generator: Any = None, device: Any = None
    ) -> torch.Tensor:
        """[1, 2C, R + F, Y, X]: references in front (their reactive half zero), then inactive and reactive latents."""
        latent_BCFYX = self._shot.encode().latent_BCFYX
        references = [picture_CHW for pictures in reference_images or [] for picture_CHW in pictures]
        for picture_CHW in references:
            reference_BCFYX = self._shot.codec.encode_condition(picture_CHW[None, :, None])
            reference_BCFYX = torch.cat([reference_BCFYX, torch.zeros_like(reference_BCFYX)], dim=1)
            latent_BCFYX = torch.cat([reference_BCFYX, latent_BCFYX], dim=2)
        self._shot.num_references = len(references)
        return latent_BCFYX.to(device)

    def prepare_masks(self, mask: Any, reference_images: Any = None, generator: Any = None) -> torch.Tensor:
        """[1, 64, R + F, Y, X]: 1 - keep, and 0 on the references."""
        mask_BMFYX = self._shot.encode().mask_BMFYX
        references = torch.zeros_like(mask_BMFYX[:, :, :1]).expand(-1, -1, self._shot.num_references, -1, -1)
        return torch.cat([references, mask_BMFYX], dim=2).to(self._execution_device)

    def _finished_latents(self, latents_BCFYX: torch.Tensor) -> torch.Tensor:
        return latents_BCFYX[:, :, self._shot.num_references :]


def _noise(
    shape: tuple[int, ...], generator: Any, device: Any, dtype: Any, latents: torch.Tensor | None
) -> torch.Tensor:
    """The given latents, checked against the shot, or fresh noise drawn as stock draws it."""
    if latents is None:
        return randn_tensor(shape, generator=generator, device=device, dtype=dtype)
    if tuple(latents.shape) != shape:
        raise BadRequest("latents of a wrong shape", got=list(latents.shape), expected=list(shape))
    return latents.to(device, dtype)


def padded_condition(x_BCFYX: torch.Tensor, padding: int) -> torch.Tensor:
    """CogVideoX 1.5 repeats the first frame in front and shows the guide in the first copy only; zeros fill the others."""
    first, rest = x_BCFYX[:, :, :1], x_BCFYX[:, :, 1:]
    return torch.cat([first, torch.zeros_like(first).expand(-1, -1, padding, -1, -1), rest], dim=2)
