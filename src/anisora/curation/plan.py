"""What a run measures, in which order and under which keys: the one list of observers and measures.

A key holds everything that changes a result: name, version, parameters, weights. Change one parameter and only its column
is made again. Callables are plain functions or partials of them, because they travel to workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from anisora.curation.cells import Wanted, config_key
from anisora.curation.config import CurateConfig
from anisora.curation.materialise import describe
from anisora.curation.scan import Scan
from anisora.curation.tasks import Measuring, Watch


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a run as data. `cheap` measures read stored signals, `heavy` ones look at pixels of survivors.

    `find` gives the shots of a scan; `kinds` the measure columns of the table; the `Wanted` are keys of what is not a
    measure: crops, files, captions, and what trained heads make of stored features.
    """

    watches: tuple[Watch, ...]
    spans_key: str
    find: Callable[[Scan], Sequence[Any]]
    cheap: tuple[Measuring, ...]
    heavy: tuple[Measuring, ...]
    kinds: Mapping[str, pa.DataType]
    crop: Wanted
    file: Wanted
    caption: Wanted
    heads: tuple[Wanted, ...] = ()

    @property
    def measures(self) -> list[Wanted]:
        """The columns of the table that are measured."""
        made = [Wanted(name=use.name, key=use.key, follows_crop=use.follows_crop) for use in (*self.cheap, *self.heavy)]
        return [column for column in (*made, *self.heads) if column.name in self.kinds]


def plain_params(params: Any) -> Any:
    """Parameters as canonical JSON can hold them."""
    return asdict(params) if is_dataclass(params) and not isinstance(params, type) else params


def watch(make: Callable[[], Any]) -> Watch:
    """An observer with its key, read from a fresh one."""
    observer = make()
    key = config_key(observer.name, observer.version, plain_params(observer.params))
    return Watch(name=observer.name, key=key, make=make)


def measuring(
    name: str,
    function: Callable[..., Any],
    version: int,
    *,
    settings: Mapping[str, Any] | None = None,
    weights_sha256: str | None = None,
    reads: Sequence[Watch] = (),
    follows_crop: bool = False,
) -> Measuring:
    """A measure with its key. `settings` are its keyword arguments; `reads` the observers whose signals it needs."""
    settings = dict(settings or {})
    params = [{name: plain_params(value) for name, value in settings.items()}, [other.key for other in reads]]
    return Measuring(
        name=name,
        key=config_key(name, version, params, weights_sha256),
        version=version,
        measure=partial(function, **settings) if settings else function,
        follows_crop=follows_crop,
    )


def file_key(config: CurateConfig) -> str:
    """The key of a clip's file."""
    return config_key("file", 1, dict(describe(config.encode)))
