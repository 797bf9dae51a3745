"""Trainable heads: small classifiers on stored features, learned from labels in a CSV, applied without decoding anything.

A head is calibrated multinomial logistic regression: few labels are all a team has at first, the weights can be read, and a
probability that means what it says can be thresholded later. scikit-learn trains; a trained head is a JSON file that
numpy applies, so workers need neither scikit-learn nor trust in a pickle. Those in `weights/heads` are trained the same way
(benchmarks/heads.py) and are what a head is compared with.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anisora.errors import BadInput
from anisora.files import existing_file, sha256_file, write_atomic
from anisora.records import Score

_log = logging.getLogger(__name__)

#: head -> its classes, from less to more
HEADS: dict[str, tuple[str, ...]] = {
    "quality_filter": ("drop", "keep"),
    "professional": ("no", "yes"),
    "talking": ("no", "yes"),
    "motion_grade": ("still", "small", "medium", "large"),
    "dimension": ("2d", "3d"),
}

#: Heads whose score is the probability of their last class; the others' is the likeliest class.
PROBABILITIES = frozenset({"quality_filter", "professional"})

#: A feature farther from its mean than this many spreads counts as that far: one odd clip must not decide.
_FARTHEST = 4.0

#: Strengths of regularisation that training chooses from (scikit-learn's C).
_STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)

#: Labels of each class without which there is nothing to cross-validate.
LEAST_LABELS = 5

Features = Mapping[str, Mapping[str, float]]
"""clip_id -> feature -> value, NaN or missing where it could not be measured"""

BUNDLED = Path(__file__).parents[1] / "weights" / "heads"


@dataclass(frozen=True, kw_only=True)
class Head:
    """A trained head. `weights` is [classes][features], on features less `mean` over `spread`; `temperature` calibrates.

    `trained_on` says with how many labels, of what, and how it did in cross-validation.
    """

    name: str
    version: int
    classes: tuple[str, ...]
    features: tuple[str, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    temperature: float
    trained_on: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _arrays(self) -> tuple[NDArray[np.float64], ...]:
        return tuple(np.array(values) for values in (self.mean, self.spread, self.weights, self.bias))

    def probabilities(self, features: Mapping[str, float]) -> NDArray[np.float64]:
        """The probability of each class; a missing feature counts as the mean."""
        mean, spread, weights, bias = self._arrays
        values = np.array([features.get(name, np.nan) for name in self.features], float)
        z = np.nan_to_num(np.clip((values - mean) / spread, -_FARTHEST, _FARTHEST), nan=0.0)
        return _softmax((weights @ z + bias) / self.temperature)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes NAME.json."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        return write_atomic(Path(folder) / f"{self.name}.json", text.encode())


def load_head(path: str | os.PathLike[str]) -> Head:
    """A head that `save` wrote. Raises BadInput for any other file."""
    path = existing_file(path, BadInput, "the head")
    try:
        stored = json.loads(path.read_text())
        for name in ("classes", "features", "mean", "spread", "bias"):
            stored[name] = tuple(stored[name])
        stored["weights"] = tuple(tuple(row) for row in stored["weights"])
        head = Head(**stored)
        shapes = [array.shape for array in head._arrays]
    except (ValueError, KeyError, TypeError) as reason:
        raise BadInput("not a head", got=f"{path} ({reason})", expected="a file of `anisora train heads`") from reason
    many, classes = len(head.features), len(head.classes)
    if shapes != [(many,), (many,), (classes, many), (classes,)] or HEADS.get(head.name) != head.classes:
        raise BadInput(
            "a head whose parts do not fit", got=path, expected=f"{HEADS.get(head.name)} and {many} features"
        )
    return head


def load_heads(folder: str | os.PathLike[str] | None = None) -> dict[str, tuple[Head, str]]:
    """The heads of a folder and the bundled ones for those it lacks, each with the sha256 of its file."""
    paths = {
        path.stem: path for place in (BUNDLED, Path(folder) if folder else BUNDLED) for path in place.glob("*.json")
    }
    return {name: (load_head(paths[name]), sha256_file(paths[name])) for name in HEADS if name in paths}


def apply_heads(
    features: Features, folder: str | os.PathLike[str] | None = None, *, only: Iterable[str] = HEADS
) -> dict[str, dict[str, Score]]:
    """clip_id -> head -> Score. `backend` is "full" for heads of `folder`, "bundled" for those that come with the package.

    `raw` is a probability for `PROBABILITIES`, else a class; `details` hold the probability of every class. A clip of
    which none of a head's features could be measured has no score, with the reason "no_features".
    """
    heads = load_heads(folder)
    return {
        clip_id: {name: _score(*heads[name], values, folder) for name in only if name in heads}
        for clip_id, values in features.items()
    }


def _score(head: Head, sha256: str, values: Mapping[str, float], folder: Any) -> Score:
    is_own = bool(folder) and (Path(folder) / f"{head.name}.json").exists()
    about: dict[str, Any] = {"name": head.name, "version": head.version, "weights_sha256": sha256}
    about |= {"backend": "full" if is_own else "bundled"}
    about |= {"unit": "probability" if head.name in PROBABILITIES else "class"}
    if not any(np.isfinite(values.get(name, np.nan)) for name in head.features):
        return Score(**about, raw=None, reason="no_features")
    odds = head.probabilities(values)
    raw = float(odds[-1]) if head.name in PROBABILITIES else head.classes[int(odds.argmax())]
    return Score(**about, raw=raw, details={name: float(p) for name, p in zip(head.classes, odds, strict=True)})


# -- labels and features on disk ---------------------------------------------------------------------------------------


def label_rows(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a CSV with the columns clip_id, head, label and, if they are there, rater and at (when), in order.

    Raises BadInput, naming the line, for missing columns and for heads or labels that there are not.
    """
    path = existing_file(path, BadInput, "the file of labels")
    rows = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if lacking := {"clip_id", "head", "label"} - set(reader.fieldnames or ()):
                raise BadInput(f"{path} lacks columns", got=reader.fieldnames, expected=", ".join(sorted(lacking)))
            for row in reader:
                head, label = row["head"], row["label"]
                if label not in HEADS.get(head, ()):
                    known = ", ".join(HEADS) if head not in HEADS else ", ".join(HEADS[head])
                    raise BadInput(f"{path}, line {reader.line_num}", got=f"{head}: {label}", expected=known)
                rows.append({name: row.get(name) or "" for name in ("clip_id", "head", "label", "rater", "at")})
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text", hint="exporting it as CSV in UTF-8") from None
    return rows


def read_labels(path: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """head -> clip_id -> label, of a CSV as `label_rows` reads it.

    The last label of a rater counts, then the majority of raters; a tie is no label, and says so in the log. Raises
    BadInput.
    """
    votes: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for row in label_rows(path):
        votes[row["head"], row["clip_id"]][row["rater"]] = row["label"]
    labels: dict[str, dict[str, str]] = defaultdict(dict)
    for (head, clip_id), by_rater in votes.items():
        (label, most), *others = Counter(by_rater.values()).most_common()
        if others and others[0][1] == most:
            _log.warning("%s: raters disagree about %s of %s; left out", path, head, clip_id)
        else:
            labels[head][clip_id] = label
    return dict(labels)


def write_features(path: str | os.PathLike[str], features: Features) -> Path:
    """Writes a Parquet table: clip_id and a column a feature."""
    import pyarrow
    import pyarrow.parquet

    names = sorted({name for values in features.values() for name in values})
    columns: dict[str, Any] = {"clip_id": list(features)}
    columns |= {name: [float(values.get(name, np.nan)) for values in features.values()] for name in names}
    table = pyarrow.table(columns)
    return write_atomic(path, lambda partial: pyarrow.parquet.write_table(table, partial))


def read_features(path: str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """What `write_features` wrote. Raises BadInput for any other file."""
    import pyarrow
    import pyarrow.parquet

    path = existing_file(path, BadInput, "the table of features")
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
        return {row.pop("clip_id"): {name: float(value) for name, value in row.items()} for row in rows}
    except (pyarrow.ArrowException, KeyError, TypeError, ValueError) as reason:
        raise BadInput("not a table of features", got=f"{path} ({reason})", expected="clip_id and numbers") from reason


# -- training ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How a head does on clips it was not trained on, by cross-validation over groups.

    `majority` is the accuracy of always saying the commonest class. `calibration_error` is the mean gap between stated
    and met probability over ten equal bins; `auc` the mean over classes of one against the rest.
    """

    labels: int
    groups: int
    accuracy: float
    balanced_accuracy: float
    majority: float
    auc: float
    log_loss: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]


def train_head(
    name: str,
    features: Features,
    labels: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
    *,
    use: Sequence[str] | None = None,
    seed: int = 0,
) -> tuple[Head, Evaluation]:
    """A head and its cross-validation. Clips of one group (a source, an episode) never stand on both sides of a split.

    `use` names the features, by default all. Labels of clips without features are left out. Raises BadInput when a class
    has fewer than `LEAST_LABELS` labels.
    """
    clip_ids = sorted(clip_id for clip_id in labels if clip_id in features)
    classes = HEADS[name]
    count = Counter(labels[clip_id] for clip_id in clip_ids)
    seen = tuple(label for label in classes if count[label])
    if len(seen) < 2 or min(count[label] for label in seen) < LEAST_LABELS:
        raise BadInput(
            f"too few labels for {name}",
            got=", ".join(f"{label}: {count[label]}" for label in classes),
            expected=f"{LEAST_LABELS} or more of two classes at least",
            hint="labelling more clips on the review page",
        )
    names = tuple(use or sorted({key for clip_id in clip_ids for key in features[clip_id]}))
    x = np.array([[features[clip_id].get(key, np.nan) for key in names] for clip_id in clip_ids], float)
    y = np.array([seen.index(labels[clip_id]) for clip_id in clip_ids])
    group = np.unique([(groups or {}).get(clip_id, clip_id) for clip_id in clip_ids], return_inverse=True)[1]
    evaluation = _cross_validate(x, y, group, seed, len(seen))
    model = _fit(x, y, group, seed)
    head = _as_head(name, classes, seen, names, model, {"labels": dict(count)} | asdict(evaluation))
    return head, evaluation


@dataclass(frozen=True, kw_only=True)
class _Model:
    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    temperature: float = 1.0
    offsets: NDArray[np.float64] | float = 0.0

    def evidence(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """What features say, whatever the classes' shares among the labels are."""
        z = np.nan_to_num(np.clip((x - self.mean) / self.spread, -_FARTHEST, _FARTHEST), nan=0.0)
        return z @ self.weights.T + self.bias

    def logits(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same, calibrated to the labels' shares."""
        return self.evidence(x) / self.temperature + self.offsets


def _fit(x: NDArray, y: NDArray, group: NDArray, seed: int) -> _Model:
    """Strength of regularisation and temperature from folds held out inside, then all of it."""
    splits = _splits(x, y, group, seed)
    held_out: dict[float, NDArray] = {}
    for strength in _STRENGTHS:
        logits = np.zeros((len(y), y.max() + 1))
        for train, test in splits:
            logits[test] = _fit_once(x[train], y[train], strength, y.max() + 1).evidence(x[test])
        held_out[strength] = logits
    calibrated = {strength: _calibration(logits, y) for strength, logits in held_out.items()}
    best = min(_STRENGTHS, key=lambda s: _log_loss(held_out[s] / calibrated[s][0] + calibrated[s][1], y))
    model = _fit_once(x, y, best, y.max() + 1)
    temperature, offsets = calibrated[best]
    return _Model(**{**model.__dict__, "temperature": temperature, "offsets": offsets})


def _fit_once(x: NDArray, y: NDArray, strength: float, num_classes: int) -> _Model:
    from sklearn.linear_model import LogisticRegression

    mean = np.nanmean(np.where(np.isfinite(x).any(axis=0), x, 0.0), axis=0)
    spread = np.nanstd(np.where(np.isfinite(x).any(axis=0), x, 0.0), axis=0)
    spread[~(spread > 1e-9)] = 1.0
    z = np.nan_to_num(np.clip((x - mean) / spread, -_FARTHEST, _FARTHEST), nan=0.0)
    # Balanced: with folds by source the shares of the classes differ between folds, and must not pass for evidence.
    fitted = LogisticRegression(C=strength, max_iter=2000, class_weight="balanced").fit(z, y)
    weights, bias = np.zeros((num_classes, x.shape[1])), np.full(num_classes, -30.0)
    if len(fitted.classes_) == 2:  # scikit-learn keeps one row for two classes
        weights[fitted.classes_] = np.stack([np.zeros(x.shape[1]), fitted.coef_[0]])
        bias[fitted.classes_] = (0.0, fitted.intercept_[0])
    else:
        weights[fitted.classes_], bias[fitted.classes_] = fitted.coef_, fitted.intercept_
    return _Model(mean=mean, spread=spread, weights=weights, bias=bias)


def _splits(x: NDArray, y: NDArray, group: NDArray, seed: int) -> list[tuple[NDArray, NDArray]]:
    """Up to five folds: fewer where a class is found in fewer groups. Raises BadInput when one class is in one group."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(set(group[y == label])) for label in set(y))
    if fewest < 2:
        raise BadInput(
            "all clips of one class come from one group", got=f"class {Counter(y).most_common()[-1][0]}",
            expected="clips of two sources at least", hint="labelling clips of another source",
        )  # fmt: skip
    folds = StratifiedGroupKFold(min(5, fewest), shuffle=True, random_state=seed)
    return [(train, test) for train, test in folds.split(x, y, group) if len(set(y[train])) > 1]


def _cross_validate(x: NDArray, y: NDArray, group: NDArray, seed: int, num_classes: int) -> Evaluation:
    """Everything that training chooses is chosen again inside of each fold."""
    logits, evidence = (np.zeros((len(y), num_classes)) for _ in range(2))
    for train, test in _splits(x, y, group, seed):
        try:
            model = _fit(x[train], y[train], group[train], seed)
        except BadInput:  # a class that two groups hold has one left here: fixed strength, not calibrated
            model = _fit_once(x[train], y[train], 0.1, num_classes)
        logits[test], evidence[test] = model.logits(x[test]), model.evidence(x[test])
    return evaluate(_softmax(logits), y, len(set(group.tolist())), ranked_by=_softmax(evidence))


def evaluate(
    odds: NDArray[np.float64], y: NDArray[np.int64], groups: int = 0, *, ranked_by: NDArray[np.float64] | None = None
) -> Evaluation:
    """The figures of stated probabilities [clips, classes] against true classes; `auc` is that of `ranked_by`."""
    from sklearn.metrics import confusion_matrix, roc_auc_score

    classes = odds.shape[1]
    said = odds.argmax(axis=1)
    confusion = confusion_matrix(y, said, labels=range(classes))
    found = [row[label] / row.sum() for label, row in enumerate(confusion) if row.sum()]
    ranks = odds if ranked_by is None else ranked_by
    aucs = [roc_auc_score(y == label, ranks[:, label]) for label in range(classes) if 0 < (y == label).sum() < len(y)]
    return Evaluation(
        labels=len(y),
        groups=groups,
        accuracy=float((said == y).mean()),
        balanced_accuracy=float(np.mean(found)),
        majority=float(np.bincount(y).max() / len(y)),
        auc=float(np.mean(aucs)),
        log_loss=float(-np.log(odds[np.arange(len(y)), y].clip(1e-12)).mean()),
        calibration_error=_calibration_error(odds, y),
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )


def _calibration_error(odds: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    """Guo et al. 2017, equation 3, with ten bins of equal width."""
    sure, right = odds.max(axis=1), odds.argmax(axis=1) == y
    bins = np.minimum((sure * 10).astype(int), 9)
    gaps = [(bins == b).mean() * abs(right[bins == b].mean() - sure[bins == b].mean()) for b in set(bins.tolist())]
    return float(sum(gaps))


def _calibration(logits: NDArray[np.float64], y: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """What held-out logits are divided by, and what is added to each class, for the least log loss.

    Temperature scaling (Guo et al. 2017, section 4.2) with the shares of the classes put back; both are held near no
    change by a prior worth one label.
    """
    from scipy.optimize import minimize

    def loss(values: NDArray[np.float64]) -> float:
        log_t, offsets = values[0], values[1:]
        return _log_loss(logits / np.exp(log_t) + offsets, y) + (values**2).sum() / (2 * len(y))

    found = minimize(loss, np.zeros(1 + logits.shape[1]), bounds=[(-1.5, 3.0)] + [(-6.0, 6.0)] * logits.shape[1]).x
    return float(np.exp(found[0])), found[1:]


def _log_loss(logits: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    return float(-np.log(_softmax(logits)[np.arange(len(y)), y].clip(1e-12)).mean())


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _as_head(
    name: str, classes: tuple[str, ...], seen: tuple[str, ...], names: tuple[str, ...], model: _Model, about: dict
) -> Head:
    """Classes without labels stay, at a probability of nearly 0."""
    rows = [classes.index(label) for label in seen]
    weights, bias = np.zeros((len(classes), len(names))), np.full(len(classes), -30.0)
    weights[rows], bias[rows] = model.weights, model.bias + np.asarray(model.offsets) * model.temperature

    def numbers(values: NDArray) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in values)

    return Head(
        name=name, version=1, classes=classes, features=names, mean=numbers(model.mean), spread=numbers(model.spread),
        weights=tuple(numbers(row) for row in weights), bias=numbers(bias), temperature=model.temperature,
        trained_on=json.loads(json.dumps(about)),
    )  # fmt: skip
