"""Corruptions: what they keep, that they grow, and that the page's table is the code's."""

from __future__ import annotations

import ast
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import anisora
from anisora.errors import BadRequest
from anisora.evaluation.corruptions import CORRUPTIONS, corrupt

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_spoiled_clip_keeps_its_shape_and_grows_worse(moving_THWC, kind):
    other = moving_THWC[::-1, ::-1]
    spoiled = [corrupt(moving_THWC, kind, severity, other_THWC=other) for severity in range(6)]
    assert all(clip.shape == moving_THWC.shape and clip.dtype == np.uint8 for clip in spoiled)
    assert np.array_equal(spoiled[0], moving_THWC)
    assert np.array_equal(spoiled[3], corrupt(moving_THWC, kind, 3, other_THWC=other))
    off = [float(np.abs(clip.astype(int) - moving_THWC).mean()) for clip in spoiled]
    assert 0 < off[1] < off[5]


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (8, 200), (33, 5)])
def test_the_smallest_clips_are_spoiled_too(kind, size):
    clip = np.random.default_rng(0).integers(0, 255, (5, *size, 3), np.uint8)
    assert corrupt(clip, kind, 5).shape == clip.shape


def test_unknown_kinds_and_severities_are_refused(moving_THWC):
    with pytest.raises(BadRequest, match="unknown corruption"):
        corrupt(moving_THWC, "sepia", 1)
    with pytest.raises(BadRequest, match="unknown severity"):
        corrupt(moving_THWC, "blur", 6)


def test_the_table_of_the_page_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \| (fitting|held out) \|$", PAGE.read_text(), re.MULTILINE)
    assert [name for name, _, _ in rows] == list(CORRUPTIONS)
    for name, falls, use in rows:
        corruption = CORRUPTIONS[name]
        dimension = (corruption.dimension or "anime.nothing").removeprefix("anime.").replace("_", "-")
        assert falls.startswith(dimension), name
        assert use.replace(" ", "_") == corruption.use, name


def test_enough_kinds_are_held_out():
    own = [c for c in CORRUPTIONS.values() if c.dimension]
    assert len(own) >= 12
    assert sum(c.use == "held_out" for c in own) >= 4


def test_what_measures_knows_nothing_of_what_spoils():
    root = Path(anisora.__file__).parent
    measuring = [*(root / "measures").glob("*.py"), *(root / "evaluation" / f"{n}.py" for n in ("metrics", "suite"))]
    for path in [*measuring, root / "evaluation" / "calibration.py"]:
        imported = {
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        }
        assert not {"anisora.evaluation.corruptions", "anisora.evaluation.validation"} & imported, path


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
def test_a_long_clip_is_spoiled_in_the_memory_of_a_few(kind):
    """Beside the clip: the other one brought to its size, the result, and single frames in floats."""
    frames = np.random.default_rng(0).integers(0, 256, (96, 48, 64, 3), np.uint8)
    corrupt(frames[:2], kind, 5, other_THWC=frames[:2])  # what is imported and kept
    tracemalloc.start()
    try:
        corrupt(frames, kind, 5, other_THWC=frames)
        assert tracemalloc.get_traced_memory()[1] < 4 * frames.nbytes
    finally:
        tracemalloc.stop()
