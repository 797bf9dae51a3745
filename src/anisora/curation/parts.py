"""The observers and measures of a run, from its settings: here, and nowhere else, the parts are put together."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from anisora.curation.cells import Wanted, config_key
from anisora.curation.config import CurateConfig
from anisora.curation.observers.default import default_observers
from anisora.curation.plan import Plan, file_key, measuring, plain_params, watch
from anisora.curation.shots import ShotParams, find_shots
from anisora.curation.table import MEASURES, NUMBER
from anisora.curation.tasks import Measuring, Watch
from anisora.errors import BadConfig
from anisora.files import sha256_file
from anisora.measures.clip import ClipView
from anisora.records import Score
from anisora.settings import read

#: measures beyond those of the contract
MORE = {"damage": NUMBER, "borders": NUMBER, "edge_cover": NUMBER, "professional": NUMBER}


def make_plan(config: CurateConfig) -> Plan:
    """Everything a run measures under these settings. Raises BadConfig for settings that no part knows."""
    watches = tuple(watch(type(observer)) for observer in default_observers())
    by_name = {one.name: one for one in watches}
    params = read(ShotParams, config.shots, where="shots")
    heavy = _heavy(config)
    spans_key = config_key("shots", 3, [plain_params(params), config.longest_s, by_name["cut"].key])
    return Plan(
        watches=watches,
        spans_key=spans_key,
        find=partial(find_shots, params=params),
        cheap=_cheap(by_name),
        heavy=heavy,
        kinds={**MEASURES, **MORE},
        crop=Wanted(name="crop", key=_crop_key(config, [spans_key, by_name["phash"].key])),
        file=Wanted(name="file", key=file_key(config), follows_crop=True),
        caption=Wanted(name="caption", key=_caption_key(config), follows_crop=True),
        heads=_heads(config, heavy),
    )


def _cheap(by_name: dict[str, Watch]) -> tuple[Measuring, ...]:
    """Read from stored signals, for every clip."""
    from anisora.measures import borders, camera, flow_score, quality, text_cover, timing

    return (
        measuring("duration_s", timing.duration_s, 1),
        measuring("flow", flow_score.flow, 1, reads=[by_name["flow"]]),
        measuring("drawing_fps", timing.drawing_fps, 1, reads=[by_name["held"]]),
        measuring("camera", camera.camera, 1, reads=[by_name["held"]]),
        measuring("quality", quality.quality, 1, reads=[by_name["sharpness"]]),
        measuring("damage", quality.damage, 1),
        measuring("borders", borders.borders, 1, reads=[by_name["borders"]]),
        measuring("edge_cover", text_cover.edge_cover, 1, reads=[by_name["text_edges"]]),
    )


def _heavy(config: CurateConfig) -> tuple[Measuring, ...]:
    """Made from pixels, for clips that the cheap ones let pass; one after the other."""
    from anisora.measures import aesthetic, appearance, text_cover

    found = []
    if config.text != "none":
        detector: Any = "craft" if config.text == "accurate" else "pp-ocr"
        found.append(
            measuring(
                "text_cover", text_cover.text_cover, 1, settings={"detector": detector},
                weights_sha256=text_cover.weights_sha256(detector), follows_crop=True,
            )
        )  # fmt: skip
    if config.aesthetic is not None:
        settings = {"clip_model": config.aesthetic.clip_model, "head": config.aesthetic.head}
        weights = sha256_file(settings["head"]) if settings["head"] else None
        found.append(
            measuring("aesthetic", aesthetic.aesthetic, 1, settings=settings, weights_sha256=weights, follows_crop=True)
        )
    if config.heads != "none":
        found.append(measuring("features", appearance_features, appearance.FEATURES_VERSION, follows_crop=True))
    return tuple(found)


def appearance_features(clip: ClipView) -> Score:
    """What trainable heads read, as the details of a score: their number is its value."""
    from anisora.measures.appearance import FEATURES_VERSION, clip_features

    found = {name: float(value) for name, value in clip_features(clip).items() if math.isfinite(value)}
    return Score(name="features", version=FEATURES_VERSION, unit="features", raw=float(len(found)), details=found)


def _heads(config: CurateConfig, heavy: tuple[Measuring, ...]) -> tuple[Wanted, ...]:
    """The columns that trained heads make of stored features, keyed by features and weights."""
    from anisora.curation.heads import load_heads

    if config.heads == "none":
        return ()
    features = next(use for use in heavy if use.name == "features")
    return tuple(
        Wanted(name=name, key=config_key(name, head.version, [features.key], sha256), follows_crop=True)
        for name, (head, sha256) in load_heads(config.heads).items()
    )


def _crop_key(config: CurateConfig, logos_by: list[str]) -> str:
    """`logos_by`: the keys of what the logos of a source are found by."""
    if not config.crop.enabled:
        return ""
    from anisora.curation.overlays import OverlayParams

    return config_key("crop", 3, [plain_params(config.crop), plain_params(OverlayParams()), *logos_by])


def _caption_key(config: CurateConfig) -> str:
    from anisora.curation.captions import CaptionSettings

    if config.caption.backend == "none":
        return ""
    return config_key("caption", 1, [plain_params(config.caption), plain_params(CaptionSettings())])


def make_captioner(config: CurateConfig) -> Any:
    """The captioner that the settings name. Raises BadConfig, UnknownModel, BadCheckpoint."""
    settings = config.caption
    if settings.backend == "full":
        from anisora.curation.captions.vlm import VlmCaptioner, VlmSettings

        if not settings.model:
            raise BadConfig(
                "no captioner named", expected="caption.model, a folder", hint="models/Qwen2.5-VL-7B-Instruct"
            )
        return VlmCaptioner(VlmSettings(folder=settings.model, adapter=settings.adapter))
    if settings.backend == "service":
        from anisora.curation.captions.endpoint import EndpointCaptioner, EndpointSettings

        return EndpointCaptioner(EndpointSettings(base_url=settings.url or "", model=settings.model or ""))
    from anisora.curation.captions.measured import MeasuredCaptioner

    return MeasuredCaptioner()
