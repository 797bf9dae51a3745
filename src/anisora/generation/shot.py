"""What the three pipelines share: the call, its defaults, decoding, loading and saving."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import BaseOutput

from anisora import geometry
from anisora.conditioning import inputs
from anisora.conditioning.composite import composite as composited
from anisora.conditioning.encode import Conditions, encode
from anisora.conditioning.plan import ConditionPlan, Landing, plan
from anisora.errors import BadRequest, BadSize, OutOfMemory
from anisora.media.frames import Fit
from anisora.models import catalog
from anisora.models.checkpoint import CheckpointInfo, Recipe, infer
from anisora.models.codec import Codec
from anisora.models.mask_projection import mask_added
from anisora.models.parts import load_parts, save_parts
from anisora.models.sampler import make_scheduler
from anisora.models.verify import OWN_PARTS
from anisora.records import Guide


@dataclass
class ShotOutput(BaseOutput):
    """A finished shot and how it was made.

    frames     by `output_type`: "np" float [B, T, H, W, 3] in [0, 1]; "pt" [B, T, 3, H, W]; "pil" lists of pictures;
               "latent" as the denoising left them, neither decoded nor composited
    landings   where each guide landed, in the order of the guides
    forwards   passes of the denoising networks for one prompt, each guidance branch counted
    tokens     video tokens a pass
    seconds    text, encode, denoise, decode (wall time)
    warnings   what the user should know
    plan       the checked plan that was made
    """

    frames: Any
    landings: tuple[Landing, ...]
    forwards: int
    tokens: int
    seconds: dict[str, float]
    warnings: tuple[str, ...]
    plan: ConditionPlan


@dataclass
class Shot:
    """One call under way."""

    plan: ConditionPlan
    codec: Codec
    family: str
    conditions: Conditions | None = None
    num_references: int = 0
    network_samples: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(("text", "encode", "denoise", "decode"), 0.0)
    )
    closing: ExitStack = field(default_factory=ExitStack)

    @property
    def num_latent_frames(self) -> int:
        return geometry.latent_frames(self.plan.num_frames, self.plan.strides.temporal)

    @property
    def tokens(self) -> int:
        """Video tokens a pass; CogVideoX 1.5 pads its latent frames to whole patches."""
        strides, (width, height) = self.plan.strides, self.plan.size_px
        cells = (width // strides.size_multiple_px) * (height // strides.size_multiple_px)
        return -(-self.num_latent_frames // strides.patch_temporal) * cells

    def encode(self, generator: torch.Generator | None = None) -> Conditions:
        """The condition tensors of the plan, made once."""
        if self.conditions is None:
            with self.timed("encode"):
                self.conditions = encode(self.plan, self.codec, self.family, generator)
        return self.conditions

    def add_mask(self, transformer: Any, projection: Any, mask_BMFYX: torch.Tensor) -> None:
        """Until the call ends, the transformer sees the projected mask."""
        projection.to(self.codec.device)
        self.closing.enter_context(mask_added(transformer, projection, mask_BMFYX))

    def count(self, networks: Sequence[Any]) -> None:
        """Until the call ends, passes of the networks are counted, by samples: stacked guidance branches count as two."""

        def add(module: Any, args: tuple, kwargs: dict) -> None:
            self.network_samples += (kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]).shape[0]

        for network in networks:
            handle = network.register_forward_pre_hook(add, with_kwargs=True)
            self.closing.callback(handle.remove)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] += time.perf_counter() - begin


class ShotMixin:
    """A stock diffusers image-to-video pipeline that is asked for shots. Comes before the stock class.

    A subclass names its `stock_class` and `networks`, replaces stock's conditioning methods, and may check sizes and texts.
    """

    stock_class: type
    networks: tuple[str, ...]
    mask_projection: Any = None
    guide_decoder: Any = None
    _checkpoint: CheckpointInfo | None = None
    _shot: Any = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **kwargs: Any) -> Any:
        """The pipeline of a checkpoint folder, or of a name that `models.catalog` finds; keywords as in diffusers.

        Its own parts (mask projection, guide-aware decoder) are loaded, and its recipe's sampler and shift are set. Raises
        UnknownModel, or BadCheckpoint naming every missing or unfitting tensor before anything is loaded.
        """
        info = catalog.resolve(name_or_path)
        if info.pipeline_class != cls.__name__:
            raise BadRequest(
                "a checkpoint of another family", got=f"{info.family} in {info.path}", expected=f"{info.pipeline_class}"
            )
        catalog.verify(info.path)
        pipeline = super().from_pretrained(str(info.path), **kwargs)  # type: ignore[misc]
        dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
        for name, part in load_parts(info.path, dtype if isinstance(dtype, torch.dtype) else None).items():
            setattr(pipeline, name, part)
        pipeline.use_checkpoint(info)
        return pipeline

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """Saves everything that `from_pretrained` loads; the folder also opens with the stock pipeline."""
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        parts = {name: getattr(self, name) for name in OWN_PARTS if getattr(self, name) is not None}
        save_parts(Path(save_directory), parts, self.checkpoint, self.stock_class.__name__)

    @classmethod
    def _get_signature_types(cls) -> dict[str, Any]:
        # A checkpoint may bring a VAE of our own; stock would warn that it is not AutoencoderKLWan.
        types = super()._get_signature_types()  # type: ignore[misc]
        return types | {"vae": (object,)}

    @property
    def checkpoint(self) -> CheckpointInfo:
        """What the checkpoint says about itself; for a pipeline built of parts, what its parts say."""
        if self._checkpoint is None:
            self._checkpoint = self._inferred()
        return self._checkpoint

    def _inferred(self) -> CheckpointInfo:
        index = dict(self.config) | {"_class_name": self.stock_class.__name__}  # type: ignore[attr-defined]
        parts = (self._networks()[0], self.vae, self.scheduler)  # type: ignore[attr-defined]
        transformer, vae, scheduler = (dict(part.config) for part in parts)
        fields = infer(index, transformer, vae, scheduler, masked=self.mask_projection is not None)
        return CheckpointInfo(name=type(self).__name__, path=Path(), **fields)

    def use_checkpoint(self, info: CheckpointInfo) -> None:
        """Takes over what a checkpoint says about itself, its recipe included."""
        self._checkpoint = info
        self.apply_recipe(info.recipe)

    def apply_recipe(self, recipe: Recipe) -> None:
        """Makes `recipe` the default of further calls: steps, guidance, sampler, shift, and the boundary of two experts.

        Raises BadRequest for a sampler or a shift that the checkpoint cannot have.
        """
        self.scheduler = make_scheduler(self.scheduler, recipe.sampler, recipe.shift)  # type: ignore[has-type]
        if recipe.boundary is not None and self.checkpoint.experts == 2:
            self.register_to_config(boundary_ratio=recipe.boundary)  # type: ignore[attr-defined]
        self._checkpoint = replace(self.checkpoint, recipe=recipe)

    def _networks(self) -> list[Any]:
        return [network for name in self.networks if (network := getattr(self, name, None)) is not None]

    def _check_text_tokens(self, num_tokens: int) -> None:
        """Raises BadRequest for a length of text that the network cannot read."""

    def _check_size(self, size_px: tuple[int, int]) -> None:
        """Raises BadSize for a legal size that this checkpoint cannot make."""

    def _stock_arguments(self) -> dict[str, Any]:
        """What stock's `__call__` insists on besides the arguments that all pipelines share."""
        return {}

    def _finished_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """[B, C, F, Y, X] of the shot alone, from what stock's denoising returns."""
        return latents

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        guides: Sequence[Guide] = (),
        motion_mask: Any = None,
        video: Any = None,
        keep_mask: Any = None,
        *,
        negative_prompt: str | list[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        fps: Fraction | int | float | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        shift: float | None = None,
        generator: Any = None,
        fit: Fit = "cover",
        snap: str | None = None,
        composite: bool = True,
        feather_px: int | None = None,
        image: Any = None,
        last_image: Any = None,
        max_sequence_length: int | None = None,
        prompt_embeds: torch.Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        **stock: Any,
    ) -> ShotOutput | tuple[Any]:
        """A finished shot (`ShotOutput`), or a tuple of its frames with `return_dict=False`.

        What is given, as in `conditioning.plan`: `guides`; `motion_mask` (1 = may move); `video` with `keep_mask` (1 = stays).
        `image` and `last_image` are stock's way to say guides at frames 0 and -1. None leaves size, length, rate, steps,
        guidance and shift to the checkpoint; the size then is its pixel area at the first guide's aspect. Guidance 1
        runs the network once a step. `composite=False` shows what the network made outside the motion area. Other keywords
        (`latents`, `negative_prompt_embeds`, `num_videos_per_prompt`, `callback_on_step_end`, `attention_kwargs`,
        `guidance_scale_2`, ...) go to the stock pipeline.

        Raises BadRequest, BadSize, BadPosition, BadMask, BadImage or BadVideo for what cannot be made, before any work;
        OutOfMemory with what to lower.
        """
        info, recipe = self.checkpoint, self.checkpoint.recipe
        guides = _all_guides(guides, image, last_image)
        num_tokens = self._num_text_tokens(prompt, prompt_embeds, max_sequence_length)
        size_px = self._size_px(width, height, guides, video)
        num_frames = info.native.frames if num_frames is None else num_frames
        warnings = _warnings(info, motion_mask, video, composite)
        with _memory(size_px, num_frames, self.device):  # type: ignore[attr-defined]
            made = plan(
                num_frames=num_frames,
                size_px=size_px,
                guides=guides,
                motion_mask=motion_mask,
                video=video,
                keep_mask=keep_mask,
                fps=Fraction(fps or info.native.fps),
                strides=info.strides,
                family=info.family,
                fit=fit,
                snap=snap or info.snap,
                feather_px=feather_px,
            )
        self._shot = shot = Shot(plan=made, codec=Codec(self.vae), family=info.family)  # type: ignore[attr-defined]
        arguments = {
            **self._stock_arguments(),
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "width": size_px[0],
            "height": size_px[1],
            "num_frames": made.num_frames,
            "num_inference_steps": recipe.steps if num_inference_steps is None else num_inference_steps,
            "guidance_scale": recipe.guidance if guidance_scale is None else guidance_scale,
            "generator": generator,
            "max_sequence_length": num_tokens,
            "prompt_embeds": prompt_embeds,
            **stock,
        }
        if recipe.guidance_2 is not None and guidance_scale is None:
            arguments.setdefault("guidance_scale_2", recipe.guidance_2)
        try:
            with shot.closing, _memory(size_px, num_frames, self.device), self._shifted(shift):  # type: ignore[attr-defined]
                shot.count(self._networks())
                begin = time.perf_counter()
                latents = super().__call__(**arguments, output_type="latent", return_dict=False)[0]  # type: ignore[misc]
                shot.seconds["denoise"] = time.perf_counter() - begin - shot.seconds["text"] - shot.seconds["encode"]
                with shot.timed("decode"):
                    frames = latents if output_type == "latent" else self._decode(latents, composite, output_type)
        finally:
            self._shot = None
        if not return_dict:
            return (frames,)
        return ShotOutput(
            frames=frames,
            landings=made.landings,
            forwards=shot.network_samples // latents.shape[0],
            tokens=shot.tokens,
            seconds=shot.seconds,
            warnings=warnings,
            plan=made,
        )

    def encode_prompt(self, *args: Any, **kwargs: Any) -> Any:
        """As in stock."""
        if self._shot is None:
            return super().encode_prompt(*args, **kwargs)  # type: ignore[misc]
        with self._shot.timed("text"):
            return super().encode_prompt(*args, **kwargs)  # type: ignore[misc]

    def _decode(self, latents: torch.Tensor, composite: bool, output_type: str) -> Any:
        """Latents to frames: VAE, guide-aware decoder where there is one, what may not change put back."""
        shot, made = self._shot, self._shot.plan
        video_BCTHW = shot.codec.decode(self._finished_latents(latents))
        if self.guide_decoder is not None:
            video_BCTHW = self._refined(video_BCTHW, made)
        if composite:
            shots = [composited(video_CTHW.transpose(0, 1), made).transpose(0, 1) for video_CTHW in video_BCTHW.float()]
            video_BCTHW = torch.stack(shots)
        frames = self.video_processor.postprocess_video(video_BCTHW, output_type=output_type)  # type: ignore[attr-defined]
        self.maybe_free_model_hooks()  # type: ignore[attr-defined]
        return frames

    def _refined(self, video_BCTHW: torch.Tensor, made: ConditionPlan) -> torch.Tensor:
        decoder = self.guide_decoder.to(video_BCTHW.device)
        batch = video_BCTHW.shape[0]
        reference_BCTHW = made.video_TCHW.transpose(0, 1)[None].expand(batch, -1, -1, -1, -1).to(video_BCTHW)
        # A weakened guide is not to be shown as it is, so the decoder does not get it.
        keep_T1HW = made.keep_T1HW * (made.strength_T == 1).view(-1, 1, 1, 1)
        keep_BTHW = keep_T1HW[:, 0][None].expand(batch, -1, -1, -1).to(video_BCTHW)
        return decoder.refine(video_BCTHW, reference_BCTHW, keep_BTHW)

    def _num_text_tokens(self, prompt: Any, prompt_embeds: Any, max_sequence_length: int | None) -> int:
        if prompt is None and prompt_embeds is None:
            raise BadRequest("no prompt", expected="prompt or prompt_embeds", hint='prompt="" for no text')
        if prompt_embeds is not None:
            num_tokens = prompt_embeds.shape[1]
        else:
            num_tokens = self.checkpoint.max_text_tokens if max_sequence_length is None else max_sequence_length
        self._check_text_tokens(num_tokens)
        return num_tokens

    def _size_px(self, width: int | None, height: int | None, guides: Sequence[Guide], video: Any) -> tuple[int, int]:
        """(width, height) as asked, or the checkpoint's area at the aspect of the first guide or the video."""
        info = self.checkpoint
        if (width is None) != (height is None):
            raise BadSize("half a size", got=f"width {width}, height {height}", expected="both or neither")
        if width is not None and height is not None:
            size_px = (width, height)
        else:
            shown = guides[0].image if guides else None if video is None else video[0]
            size_px = info.native.size if shown is None else _size_at_aspect_of(shown, info)
        self._check_size(size_px)
        return size_px

    @contextmanager
    def _shifted(self, shift: float | None) -> Iterator[None]:
        """Another flow shift for one call."""
        before = self.scheduler  # type: ignore[has-type]
        if shift is not None:
            self.scheduler = make_scheduler(before, shift=shift)
        try:
            yield
        finally:
            self.scheduler = before


def _all_guides(guides: Sequence[Guide], image: Any, last_image: Any) -> tuple[Guide, ...]:
    """The guides with their pictures read, stock's `image` and `last_image` among them."""
    stock = [Guide(image, 0)] if image is not None else []
    stock += [Guide(last_image, -1)] if last_image is not None else []
    return tuple(replace(guide, image=inputs.read_picture(guide.image)) for guide in [*stock, *guides])


def _size_at_aspect_of(picture_HWC: Any, info: CheckpointInfo) -> tuple[int, int]:
    height, width = picture_HWC.shape[:2]
    area_px = info.native.size[0] * info.native.size[1]
    return geometry.size_for_aspect(Fraction(width, height), area_px, info.strides.size_multiple_px)


def _warnings(info: CheckpointInfo, motion_mask: Any, video: Any, composite: bool) -> tuple[str, ...]:
    """What the user should know of a request that the checkpoint was not trained for."""
    asked = {"motion_area": motion_mask is not None, "keep_video": video is not None}
    unknown = [name.replace("_", " ") for name, wanted in asked.items() if wanted and name not in info.capabilities]
    if not unknown:
        return ()
    if info.family == "cogvideox" and not composite:
        raise BadRequest(
            "a motion mask that would change nothing",
            got=f"no compositing on {info.name}, whose network reads no masks",
            expected="compositing, or a checkpoint with motion_area among its capabilities",
        )
    held = "is held by compositing alone" if composite else "may not be held"
    return (f"{info.name} was not trained with a {unknown[0]}: what should stay {held}",)


@contextmanager
def _memory(size_px: tuple[int, int], num_frames: int, device: Any) -> Iterator[None]:
    """Raises OutOfMemory, with what to lower, for each way in which torch says that memory ran out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not _is_allocation_failure(error):
            raise
        raise OutOfMemory(
            "the shot needs more memory than there is",
            got=f"{size_px[0]}x{size_px[1]}, {num_frames} frames on {device}",
            hint="a smaller size, fewer frames, bfloat16, or the pipeline's enable_model_cpu_offload()",
        ) from error


def _is_allocation_failure(error: RuntimeError) -> bool:
    text = str(error).lower()
    return any(
        sign in text for sign in ("out of memory", "not enough memory", "can't allocate memory", "std::bad_alloc")
    )
