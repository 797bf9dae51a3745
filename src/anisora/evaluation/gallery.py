"""A gallery: characters by name, with the features of their figures, against which clips are held.

One file, `gallery.safetensors`: nothing in it is ever run. It names the networks that made it by their hashes, so that no
cosine is taken between features of two encoders. Beside it lie the cut-outs that the features are of, and a page of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadCheckpoint, BadInput
from anisora.evaluation import identity
from anisora.evaluation.ccip import is_ccip
from anisora.evaluation.characters import DROP, GALLERY, CutOut, Line, Progress
from anisora.evaluation.identification import identification, stored_features
from anisora.files import existing_file, write_atomic
from anisora.measures.salience import weights_sha256 as salience_sha256
from anisora.store import Figure, Section, Table, report_page

PAGE = "gallery.html"

SCHEMA = 1

#: How features are compared: by their cosine, or by CCIP's own network.
COSINE, CCIP = "cosine", "ccip"

#: Features that go through an encoder between two marks of the progress bar; pictures of a character on the page.
_STEP, _SHOWN = 64, 12


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the file says beside its numbers. Paths within the gallery's folder are relative to it; `alike` is what features
    are compared by."""

    schema: int
    names: tuple[str, ...]
    sources: tuple[str, ...]
    encoder: str
    encoder_sha256: str
    salience: str | None
    salience_sha256: str
    threshold: float | None
    alike: str = COSINE


@dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """Characters: a feature [N, D] for each cut-out (of length 1 for cosines), whose it is as [N] places in `facts.names`, of
    which picture or clip (`facts.sources`, one each). `threshold` is from where on a figure counts as known: CCIP's own, or
    the cosine that tells these characters from each other best."""

    facts: Facts
    features_ND: NDArray[np.float32]
    labels_N: NDArray[np.int32]

    @property
    def stored_CD(self) -> NDArray[np.float32]:
        """The stored feature of each character, in the order of the names."""
        return stored_features(self.features_ND, self.labels_N, len(self.facts.names))


def build(
    out: Path,
    cuts: Sequence[CutOut],
    encoder: str,
    salience: Path | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> tuple[Gallery, dict[str, Any]]:
    """Writes `out/gallery.safetensors` and says how well the encoder tells its characters apart (`identification`).

    `encoder` and `salience` are paths, or the embedded encoder's name. Without cut-outs it is a gallery without characters.
    Raises BadCheckpoint.
    """
    names, labels, sources = _named(cuts)
    features = features_of(cuts, encoder, device, progress)
    alike = identity.alike_of(encoder)
    figures = identification(features, labels, sources, len(names), alike)
    facts = Facts(
        schema=SCHEMA, names=names, sources=sources, encoder=_place(encoder, out),
        encoder_sha256=identity.weights_sha256(encoder), salience=None if salience is None else _place(salience, out),
        salience_sha256=salience_sha256(salience), threshold=getattr(alike, "threshold", figures["threshold"]),
        alike=CCIP if is_ccip(encoder) else COSINE,
    )  # fmt: skip
    gallery = Gallery(facts=facts, features_ND=features, labels_N=labels)
    save(gallery, out)
    return gallery, figures


def figures_of(cuts: Sequence[CutOut], encoder: str, device: str | None = None) -> dict[str, Any]:
    """How well an encoder tells the characters of cut-outs apart (`identification`)."""
    names, labels, sources = _named(cuts)
    return identification(features_of(cuts, encoder, device), labels, sources, len(names), identity.alike_of(encoder))


def _named(cuts: Sequence[CutOut]) -> tuple[tuple[str, ...], NDArray[np.int32], tuple[str, ...]]:
    """(names, sorted; the place of each cut-out's among them; its source)."""
    names = tuple(sorted({cut.character for cut in cuts}))
    labels = np.array([names.index(cut.character) for cut in cuts], np.int32)
    return names, labels, tuple(cut.source for cut in cuts)


def features_of(
    cuts: Sequence[CutOut], encoder: str, device: str | None = None, progress: Progress | None = None
) -> NDArray[np.float32]:
    """The features [N, D] of cut-outs."""
    network = identity.load_encoder(encoder, device)
    found = [np.zeros((0, 0), np.float32)] if not cuts else []
    for start in range(0, len(cuts), _STEP):
        if progress:
            progress("features", start, len(cuts))
        found.append(identity.features(network, [read(cut) for cut in cuts[start : start + _STEP]]))
    if progress:
        progress("features", len(cuts), len(cuts))
    return np.concatenate(found)


def read(cut: CutOut) -> NDArray[np.uint8]:
    """The picture of a cut-out."""
    from anisora.media.image import load_image

    return np.array(load_image(cut.path))


# -- the file ----------------------------------------------------------------------------------------------------------


def save(gallery: Gallery, out: Path) -> Path:
    """Writes `out/gallery.safetensors`, whole or not at all."""
    from safetensors.numpy import save as bytes_of

    tensors = {"features": np.ascontiguousarray(gallery.features_ND), "labels": np.ascontiguousarray(gallery.labels_N)}
    metadata = {"gallery": json.dumps(asdict(gallery.facts), ensure_ascii=False, allow_nan=False)}
    return write_atomic(out / GALLERY, bytes_of(tensors, metadata))


def load(folder: str | os.PathLike[str]) -> Gallery:
    """The gallery of a folder. Raises BadInput for a missing file, another schema, or numbers that do not fit together."""
    from safetensors import SafetensorError, safe_open

    path = existing_file(Path(folder) / GALLERY, BadInput, "the gallery")
    try:
        with safe_open(path, framework="numpy") as file:
            said: dict[str, Any] = json.loads((file.metadata() or {})["gallery"])
            features, labels = file.get_tensor("features"), file.get_tensor("labels")
        facts = Facts(**{**said, "names": tuple(said["names"]), "sources": tuple(said["sources"])})
        _check(facts, features, labels)
    except (SafetensorError, ValueError, TypeError, KeyError) as problem:
        raise BadInput(
            "not a gallery", got=f"{path}: {problem}", expected=f"a {GALLERY} as `evaluate gallery` writes it"
        ) from problem
    return Gallery(facts=facts, features_ND=features, labels_N=labels)


def _check(facts: Facts, features: NDArray[Any], labels: NDArray[Any]) -> None:
    if facts.schema != SCHEMA:
        raise ValueError(f"schema {facts.schema!r}")
    if features.dtype != np.float32 or features.ndim != 2 or labels.dtype != np.int32:
        raise ValueError(f"features {features.dtype} {features.shape}, labels {labels.dtype}")
    if labels.shape != (len(features),) or len(facts.sources) != len(features):
        raise ValueError(f"{len(features)} features, {len(labels)} labels, {len(facts.sources)} sources")
    if len(set(facts.names)) != len(facts.names) or set(labels.tolist()) != set(range(len(facts.names))):
        raise ValueError(f"labels of {len(set(labels.tolist()))} characters for {len(facts.names)} names")
    if facts.alike not in (COSINE, CCIP):
        raise ValueError(f"features compared by {facts.alike!r}")
    lengths = np.linalg.norm(features, axis=1)
    if facts.alike == CCIP:
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError("features that are no numbers, or 0")
        return
    if not np.allclose(lengths, 1, atol=1e-3):  # also of what is no number
        raise ValueError(f"features of length {lengths.min():.3f} to {lengths.max():.3f}, not 1")


def networks(gallery: Gallery, folder: Path) -> tuple[str, Path | None]:
    """(encoder, salience network) that the gallery was made with. Raises BadCheckpoint where they are no longer there, or
    have other weights: build the gallery again then, what was cut out is kept."""
    facts = gallery.facts
    encoder = facts.encoder if facts.encoder == identity.EMBEDDED else str(folder / facts.encoder)
    salience = None if facts.salience is None else folder / facts.salience
    for what, place, wanted, found in (
        ("encoder", encoder, facts.encoder_sha256, identity.weights_sha256),
        ("salient-object network", salience, facts.salience_sha256, salience_sha256),
    ):
        try:
            got = found(place)  # type: ignore[operator]
        except OSError as reason:
            raise BadCheckpoint(f"the {what} of the gallery is gone", got=place, hint=_AGAIN) from reason
        if got != wanted:
            raise BadCheckpoint(
                f"the {what} is not the one of the gallery",
                got=f"{place}, {got[:12]}",
                expected=wanted[:12],
                hint=_AGAIN,
            )
    return encoder, salience


_AGAIN = "`anisora evaluate gallery` again with the encoder of today"


def _place(named: str | Path, out: Path) -> str:
    if str(named) == identity.EMBEDDED:
        return identity.EMBEDDED
    path, home = Path(named).absolute(), out.absolute()
    return str(path.relative_to(home) if path.is_relative_to(home) else path)


# -- the page ----------------------------------------------------------------------------------------------------------


def write_page(
    out: Path,
    lines: Sequence[Line],
    cuts: Sequence[CutOut],
    figures: Mapping[str, Mapping[str, Any]],
    lead: str = "",
) -> Path:
    """`out/gallery.html`: what was cut out of each character's pictures, what was not and why, and figures by name of row."""
    sections = []
    if figures:
        sections.append(Section(heading="Told apart", paragraphs=_MEANING, tables=[_table(figures)]))
    for name in sorted({cut.character for cut in cuts}):
        own = [cut for cut in cuts if cut.character == name]
        shown = [Figure(source=cut.path, caption=cut.path.stem, width_px=128) for cut in _spread(own)]
        more = f"{len(shown)} of {len(own)} shown" if len(own) > len(shown) else f"{len(own)} cut out"
        sections.append(Section(heading=name, paragraphs=[more], figures=shown))
    without = [f"{line['character']}, {line['source']}: {line['message']}" for line in lines if line["reason"]]
    if without:
        sections.append(Section(heading="Without a figure", paragraphs=without))
    said = f"{lead} Write the names of cut-outs that are no good into {DROP}, one a line, and run again.".strip()
    return write_atomic(out / PAGE, report_page("Gallery", sections, lead=said).encode())


_MEANING = (
    "Each figure against the stored features of all characters, its own made without the clip that it is of. Right: the"
    " nearest is its own, with a 95 % interval by character.",
)


def _table(figures: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [(name.replace("_", " "), *row(said)) for name, said in figures.items()]
    return Table(columns=("", *COLUMNS), rows=rows)


COLUMNS = ("characters", "figures", "right", "chance", "AUC", "own", "nearest other")


def row(said: Mapping[str, Any]) -> tuple[Any, ...]:
    """The cells of `identification`'s figures under `COLUMNS`."""
    right = said["accuracy"]
    shown = None if right is None else f"{right['mean']:.3f} [{right['low']:.3f}, {right['high']:.3f}]"
    rest = (said[name] for name in ("chance", "auc", "same", "nearest_other"))
    return said["characters"], said["pictures"], shown, *rest


def _spread(cuts: Sequence[CutOut]) -> list[CutOut]:
    places = np.unique(np.linspace(0, len(cuts) - 1, min(_SHOWN, len(cuts))).round().astype(int))
    return [cuts[i] for i in places]
