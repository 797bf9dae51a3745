"""The observers and measures of a run, from its settings: here, and nowhere else, the parts are put together."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from anisora.curation.cells import Wanted, config_key
from anisora.curation.config import CurateConfig
from anisora.curation.observers.default import default_observers
from anisora.curation.plan import Plan, file_key, measuring, plain_params, watch
from anisora.curation.shots import ShotParams, find_shots
from anisora.curation.table import MEASURES
from anisora.settings import read


def make_plan(config: CurateConfig, out: Path) -> Plan:
    """Everything a run measures under these settings. Raises BadConfig for settings that no part knows."""
    watches = tuple(watch(type(observer)) for observer in default_observers())
    by_name = {one.name: one for one in watches}
    params = read(ShotParams, config.shots, where="shots")
    cheap = _cheap(by_name)
    heavy: tuple[Any, ...] = ()
    return Plan(
        watches=watches,
        spans_key=config_key("shots", 1, [plain_params(params), config.longest_s, by_name["cut"].key]),
        find=partial(find_shots, params=params),
        cheap=cheap,
        heavy=heavy,
        kinds=MEASURES,
        crop=Wanted(name="crop", key=""),
        file=Wanted(name="file", key=file_key(config), follows_crop=True),
        caption=Wanted(name="caption", key="", follows_crop=True),
    )


def _cheap(by_name: dict[str, Any]) -> tuple[Any, ...]:
    from anisora.measures import standin

    return (
        measuring("duration_s", standin.duration_s, 1),
        measuring("flow", standin.flow, 1, reads=[by_name["flow"]]),
        measuring("quality", standin.quality, 1, reads=[by_name["sharpness"]]),
        measuring("camera", standin.camera, 1, reads=[by_name["flow"]]),
    )
