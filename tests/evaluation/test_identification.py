"""Telling characters apart: the figures against what must hold, and against a slow count."""

from __future__ import annotations

import numpy as np
import pytest

from anisora.evaluation.identification import apart, identification, stored_features


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def cast(spread: float, characters: int = 5, sources: int = 3, pictures: int = 2, seed: int = 0):
    """Features around a centre a character, `spread` apart from it; whose they are; which clip each is of."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(characters, 16)))
    labels = np.repeat(np.arange(characters), sources * pictures).astype(np.int32)
    names = [f"clip {n // pictures}" for n in range(len(labels))]
    return unit(centres[labels] + spread * rng.normal(size=(len(labels), 16))), labels, names


def test_characters_apart_are_all_known_and_noise_is_chance():
    apart = identification(*cast(0.01), 5)
    assert apart["accuracy"]["mean"] == apart["auc"] == 1
    assert apart["nearest_other"] < apart["threshold"] < apart["same"] > 0.99
    noise = [identification(*cast(100, seed=seed), 5) for seed in range(8)]
    assert np.mean([said["accuracy"]["mean"] for said in noise]) == pytest.approx(0.2, abs=0.1)
    assert np.mean([said["auc"] for said in noise]) == pytest.approx(0.5, abs=0.06)


def test_a_clip_does_not_know_itself():
    """Frames of one clip are all alike, clips of one character are not: nothing is known again, however alike twins are."""
    rng = np.random.default_rng(3)
    clips = unit(rng.normal(size=(12, 16)))
    features, labels = np.repeat(clips, 4, axis=0), np.repeat(np.arange(4), 12).astype(np.int32)
    sources = [str(n // 4) for n in range(48)]
    own = apart(features, labels, sources, 4)[np.arange(48), labels]
    for n in range(0, 48, 4):
        others = features[(labels == labels[n]) & (np.array(sources) != sources[n])]
        assert own[n] == pytest.approx(features[n] @ unit(others.mean(0)), abs=1e-5)
    assert identification(features, labels, sources, 4)["accuracy"]["mean"] < 0.6


def test_the_auc_is_that_of_all_pairs():
    features, labels, sources = cast(0.7, characters=4)
    cosines = apart(features, labels, sources, 4)
    own = cosines[np.arange(len(labels)), labels]
    others = np.array([cosines[n, c] for n in range(len(labels)) for c in range(4) if c != labels[n]])
    slow = np.mean([(o > others).mean() + (o == others).mean() / 2 for o in own])
    assert identification(features, labels, sources, 4)["auc"] == pytest.approx(slow, abs=1e-12)


def test_what_cannot_be_said_is_none():
    features, labels, sources = cast(0.1, characters=3, sources=1)
    assert identification(features, labels, sources, 3)["accuracy"] is None  # one clip each
    features, labels, sources = cast(0.1, characters=1)
    assert identification(features, labels, sources, 1)["threshold"] is None  # nobody else


def test_a_stored_feature_is_the_mean_direction():
    features, labels, _ = cast(0.3)
    stored = stored_features(features, labels, 5)
    assert np.linalg.norm(stored, axis=1) == pytest.approx(np.ones(5), abs=1e-6)
    assert stored[2] == pytest.approx(unit(features[labels == 2].mean(0)), abs=1e-6)
