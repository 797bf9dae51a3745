"""VBench's networks from files as they were released: against the networks and functions of its own package.

The networks are small and random, in files under the names and in the layout of the real ones.
"""

from __future__ import annotations

import functools
import gzip
import html
import json
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import ftfy
import numpy as np
import packaging.version
import pytest
import regex
import torch
import torch.nn.functional as F
from torch import nn

from anisora.errors import BadCheckpoint
from anisora.evaluation import published
from anisora.evaluation import vbench as formulas
from anisora.evaluation import vbench_networks as ours
from anisora.evaluation.weight_files import read_tensors
from anisora.measures import raft

from .tiny_encoders import timm_vit, write_dreamsim

SAME = pytest.approx
WIDTH, PATCH, SIDE_PX = 32, 14, 28


def rearrange(x, pattern, **sizes):
    """The two of einops that ViCLIP uses."""
    b, t = sizes["b"], sizes["t"]
    if pattern == "(b t) n m -> (b n) t m":
        return x.unflatten(0, (b, t)).transpose(1, 2).flatten(0, 1)
    assert pattern == "(b n) t m -> b (n t) m"
    return x.unflatten(0, (b, -1)).flatten(1, 2)


@pytest.fixture(scope="module")
def viclip_parts(vbench, tmp_path_factory):
    """ViCLIP's own code, with a short vocabulary in the place where it looks for it."""
    root = tmp_path_factory.mktemp("words")
    joins = ["a n", "an d</w>", "t h", "th e</w>", "c a", "ca t</w>", "r u", "ru n", "run s</w>", "u n</w>", "r un</w>"]
    vocabulary = root / ours.PLACES["CLIP's vocabulary"][0]
    vocabulary.parent.mkdir()
    vocabulary.write_bytes(gzip.compress("\n".join(["#version", *joins]).encode()))
    names = {
        "os": os, "torch": torch, "nn": nn, "F": F, "np": np, "functools": functools, "register_model": lambda f: f,
        "OrderedDict": OrderedDict, "DropPath": nn.Identity, "rearrange": rearrange, "packaging": packaging, "gzip": gzip,
        "html": html, "ftfy": ftfy, "re": regex, "lru_cache": functools.lru_cache, "CACHE_DIR": root,
        "_MODELS": {},
    }  # fmt: skip
    words = vbench("vbench/third_party/ViCLIP/simple_tokenizer.py", **names)
    text = vbench("vbench/third_party/ViCLIP/viclip_text.py", **names, _Tokenizer=lambda: None)
    vision = vbench("vbench/third_party/ViCLIP/viclip_vision.py", **names)
    tokenizer = words["SimpleTokenizer"](str(vocabulary))
    return SimpleNamespace(
        vocabulary=vocabulary, tokenizer=tokenizer, text=text["CLIP_TEXT"], vision=vision["VisionTransformer"]
    )


def randomised(network: nn.Module) -> nn.Module:
    """No parameter at 0 or 1, so that each is seen to be in its place."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return network.eval()


@pytest.fixture(scope="module")
def cache(tmp_path_factory, viclip_parts) -> Path:
    """A folder as VBench's cache, of small networks."""
    root = tmp_path_factory.mktemp("vbench")
    for place in (place for places in ours.PLACES.values() for place in places[:1]):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
    torch.save(_dino_state(), root / ours.PLACES["DINO"][0])
    write_dreamsim(root / ours.PLACES["DreamSim"][0], _dino_state())
    for name in ("CLIP B/32", "CLIP L/14"):
        _write_openai(root / ours.PLACES[name][0], _tower(viclip_parts, num_frames=1, temp_embed=False))
    torch.manual_seed(1)
    torch.save(nn.Linear(16, 1).state_dict(), root / ours.PLACES["LAION's head"][0])
    flow = raft.Raft().state_dict()
    torch.save({f"module.{name}": value for name, value in flow.items()}, root / ours.PLACES["RAFT"][0])
    (root / ours.PLACES["CLIP's vocabulary"][0]).write_bytes(viclip_parts.vocabulary.read_bytes())
    model = {f"vision_encoder.{n}": v for n, v in _tower(viclip_parts, num_frames=8).state_dict().items()}
    model |= {f"text_encoder.{n}": v for n, v in _words(viclip_parts).state_dict().items()}
    torch.save({"model": model | {"temp": torch.ones([])}}, root / ours.PLACES["ViCLIP"][0])
    return root


def _tower(parts, **options):
    tower = parts.vision(SIDE_PX, PATCH, WIDTH, layers=2, heads=1, output_dim=16, **options)
    return randomised(tower)


def _words(parts):
    words = parts.text(16, 12, len(parts.tokenizer.encoder), WIDTH, 1, 2, checkpoint_num=0)
    words._tokenizer = parts.tokenizer
    return randomised(words)


def _write_openai(path: Path, tower: nn.Module) -> None:
    """A program with its weights, as OpenAI's CLIP came out: the tower is `visual` in it, its first layer one of pictures."""
    flat = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
    flat.weight.data = tower.conv1.weight.data[:, :, 0]
    tower.conv1 = flat
    whole = nn.Module()
    whole.visual = tower
    whole.forward = lambda pixels: tower.conv1(pixels)
    torch.jit.trace(whole, torch.zeros(1, 3, SIDE_PX, SIDE_PX), check_trace=False).save(str(path))


def _dino_state() -> dict[str, torch.Tensor]:
    return timm_vit(WIDTH, patch=16, places=197, blocks=2)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """uint8 [5, 60, 84, 3]: a picture that drifts."""
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (60, 120, 3), dtype=np.uint8), (0, 0), 3)
    return np.stack([picture[:, t * 8 : t * 8 + 84] for t in range(5)])


# ------------------------------------------------------------------------------------------------------------- networks


def test_dino_stretches_places_as_it_was_published():
    """Row i of n is taken at (i + 0.5) r / (n + 0.1) - 0.5 of the r stored rows, by Keys' cubic with a = -0.75."""
    rows, wanted = 14, 24
    values = np.random.default_rng(4).normal(size=rows)
    column = torch.from_numpy(values).float()[:, None].expand(rows, rows).reshape(1, -1, 1)
    stored = SimpleNamespace(position_embeddings=torch.cat([torch.zeros(1, 1, 1), column], dim=1), patch_size=16)
    found = published._dino_places(stored, torch.zeros(0), wanted * 16 + 3, (rows + 1) * 16)
    found = found[0, 1:, 0].reshape(wanted, rows + 1)
    expected = [_cubic(values, (i + 0.5) * rows / (wanted + 0.1) - 0.5) for i in range(wanted)]
    assert found[:, 5].tolist() == SAME(expected, abs=1e-4)
    assert published._dino_places(stored, torch.zeros(0), rows * 16, rows * 16) is stored.position_embeddings


def _cubic(values: np.ndarray, at: float, a: float = -0.75) -> float:
    total = 0.0
    for place in range(math.floor(at) - 1, math.floor(at) + 3):
        x = abs(at - place)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        total += (near if x <= 1 else far) * values[min(max(place, 0), len(values) - 1)]
    return total


def test_clip_is_the_network_of_its_program(cache, viclip_parts):
    tower = _tower(viclip_parts, num_frames=1, temp_embed=False)
    found = published.load_clip_vision(cache / ours.PLACES["CLIP B/32"][0])
    pixels = torch.randn(3, 3, SIDE_PX, SIDE_PX)
    with torch.no_grad():
        expected = tower(pixels[:, :, None])
        assert torch.allclose(found(pixel_values=pixels).image_embeds, expected, atol=1e-5)


@pytest.mark.parametrize("text", ["the cat runs and runs", "The CAT &amp;amp; the   café's 12 dogs!", "run " * 30])
def test_viclip_is_its_own(cache, viclip_parts, text):
    tower, words = _tower(viclip_parts, num_frames=8), _words(viclip_parts)
    found = published.load_viclip(*(cache / ours.PLACES[name][0] for name in ("ViCLIP", "CLIP's vocabulary")))
    pixels = torch.randn(8, 3, SIDE_PX, SIDE_PX)
    with torch.no_grad():
        assert torch.allclose(found.of_frames(pixels), tower(pixels.transpose(0, 1)[None])[0], atol=1e-5)
        assert torch.allclose(found.of_text(text), words(words.tokenize(text, context_length=12))[0], atol=1e-5)


def test_raft_is_vbenchs_own(vbench, cache, frames):
    """The network, and the whole judgement with its padding and thinning."""
    names = {"torch": torch, "nn": nn, "F": F, "np": np}
    for part in ("utils_core/utils", "corr", "extractor", "update", "raft"):
        no_autocast = {"autocast": lambda enabled: torch.autograd.set_grad_enabled(False)}
        names = vbench(f"vbench/third_party/RAFT/core/{part}.py", **(names | no_autocast))
    args = type("Args", (SimpleNamespace,), {"__contains__": lambda self, name: hasattr(self, name)})
    theirs = names["RAFT"](args(small=False, mixed_precision=False, alternate_corr=False))
    network = raft.load(cache / ours.PLACES["RAFT"][0])
    theirs.load_state_dict(network.state_dict())
    rng = np.random.default_rng(1)
    noisy = np.clip(np.stack([f[:, :82] for f in frames[:2]]).astype(int) + rng.integers(-9, 9, (2, 60, 82, 3)), 0, 255)
    clip = cv2.resize(noisy.astype(np.uint8).transpose(1, 2, 0, 3).reshape(60, 82, 6), (141, 123)).reshape(
        123, 141, 2, 3
    )
    clip = np.ascontiguousarray(clip.transpose(2, 0, 1, 3))
    judge = vbench("vbench/dynamic_degree.py", **names)["DynamicDegree"]
    judge = judge.__new__(judge)
    judge.model = theirs.eval()
    judge.get_frames = lambda _: [torch.from_numpy(frame).permute(2, 0, 1)[None].float() for frame in clip]
    scores = []
    judge.check_move = scores.extend
    judge.infer("clip.mp4")
    networks = type("One", (), {"__getitem__": lambda self, name: network})()
    found = ours._dynamic(networks, ours.Seen(frames_THWC=clip, fps=Fraction(8)))["raft_top5_T"]
    assert found == SAME(scores, rel=1e-4)


# ---------------------------------------------------------------------------------------------------- what they are shown


@pytest.mark.parametrize(("height", "width"), [(60, 84), (84, 60), (50, 50), (24, 31)])
@pytest.mark.parametrize(("mode", "method"), [("bilinear", cv2.INTER_LINEAR), ("bicubic", cv2.INTER_CUBIC)])
def test_frames_are_resized_without_smoothing(height, width, mode, method):
    """As OpenCV does it, on numbers that are not whole."""
    picture = np.random.default_rng(2).uniform(0, 255, (height, width, 3)).astype(np.float32)
    found = ours.resized(torch.from_numpy(picture).permute(2, 0, 1)[None], 28, mode)[0].permute(1, 2, 0).numpy()
    scale = 28 / min(height, width)
    assert found.shape[:2] == (
        28 if height <= width else int(height * scale),
        28 if width <= height else int(width * scale),
    )
    assert np.allclose(found, cv2.resize(picture, found.shape[1::-1], interpolation=method), atol=0.02)


def test_frames_of_viclip_are_vbenchs(vbench):
    """The middles of eight parts, in short clips the last frame again."""
    choose = vbench("vbench/utils.py", np=np, os=os, Path=Path)["get_frame_indices"]
    for total in (1, 2, 5, 8, 9, 16, 49, 81):
        assert ours.middles(total, 8) == [int(i) for i in choose(8, total, sample="middle")]


def test_a_picture_and_a_frame_of_it_are_shown_alike():
    """The input picture goes through Pillow, frames do not; the two differ by rounding only."""
    from PIL import Image

    picture = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (300, 420, 3), dtype=np.uint8), (0, 0), 2)
    frame, still = ours.for_dino_i2v(picture[None]), ours.picture_for_dino_i2v(Image.fromarray(picture))
    assert frame.shape == still.shape == (1, 3, 224, 224)
    assert float((frame - still).abs().max()) < 2 / 255 / 0.224
    frame, still = ours.for_dreamsim(picture[None]), ours.picture_for_dreamsim(Image.fromarray(picture))
    assert frame.shape == still.shape == (1, 3, 224, 224)
    assert float((frame - still).abs().max()) < 2 / 255


def test_the_middle_is_cut_out_as_torchvision_does():
    """(H - side) / 2, halves to even."""
    frames = torch.arange(9).float()[None, None, :, None].expand(1, 3, 9, 9)
    assert ours.centre(frames, 4)[0, 0, :, 0].tolist() == [2, 3, 4, 5]  # 2.5 -> 2
    assert ours.centre(frames, 2)[0, 0, :, 0].tolist() == [4, 5]  # 3.5 -> 4


# ----------------------------------------------------------------------------------------------------------- whole clips


def names(frames):
    """What VBench's functions import, the decoder answering the frames and its transforms ours."""
    floats = torch.from_numpy(frames).permute(0, 3, 1, 2).float()

    def back(show):
        return lambda *_: lambda x: show(x.permute(0, 2, 3, 1).numpy().astype(np.uint8))

    return {
        "np": np, "torch": torch, "F": F, "tqdm": lambda x, **_: x, "get_rank": lambda: 0, "batch_size": 4,
        "load_video": lambda *_: floats, "dino_transform": back(ours.for_dino),
        "clip_transform": back(lambda x: ours.for_clip(x, SIDE_PX)),
        "dino_transform_internet": back(ours.for_dino_i2v),
        "dino_transform_Image_internet": lambda: lambda x: ours.picture_for_dino_i2v(x)[0],
        "dreamsim_transform": back(ours.for_dreamsim),
        "dreamsim_transform_Image": lambda _: lambda x: ours.picture_for_dreamsim(x)[0],
        "read_frames_decord_by_fps": lambda *_, **__: None,
    }  # fmt: skip


def test_a_clip_has_the_values_of_vbenchs_functions(vbench, cache, frames, tmp_path, capsys):
    """One run of the command on files; the same networks in VBench's own functions."""
    from PIL import Image

    from anisora.media.writer import write_video
    from anisora.serving.cli import run

    write_video(tmp_path / "a.mp4", frames, 8, lossless=True)
    write_video(tmp_path / "the cat runs-0.mp4", frames[::-1].copy(), 8, lossless=True)
    Image.fromarray(frames[0]).save(tmp_path / "first.png")
    lines = [{"video": "a.mp4", "image": "first.png"}, {"video": "the cat runs-0.mp4"}]
    (tmp_path / "shots.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ["evaluate", "export-vbench", "--manifest", str(tmp_path / "shots.jsonl"), "--weights", str(cache)]
    command += ["--features", str(tmp_path / "features"), "--out", str(tmp_path / "x_eval_results.json"), "--json"]
    command += ["--device", "cpu"]
    assert run(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["values"]) == {"temporal_flickering", *ours.NEEDED}
    assert [found["clips"][name] for name in ("i2v_subject", "i2v_background", "overall_consistency")] == [1, 1, 1]
    assert found["without"] == ours.WITHOUT
    assert found["t2v"]["total"] is None
    assert {"motion_smoothness", "imaging_quality"} <= set(found["t2v"]["missing"])
    assert found["weights"].keys() == ours.PLACES.keys()

    networks = ours.Networks(cache, "cpu")
    dino = lambda x: ours._dino(networks["DINO"])(x)  # noqa: E731
    clip = SimpleNamespace(encode_image=lambda x: networks["CLIP B/32"](x).image_embeds, eval=lambda: None)
    with torch.no_grad():
        theirs = vbench("vbench/subject_consistency.py", **names(frames))
        subject = theirs["subject_consistency"](dino, ["a"], "cpu", False)[1][0]["video_results"]
        theirs = vbench("vbench/background_consistency.py", **names(frames))
        background = theirs["background_consistency"](clip, None, ["a"], "cpu", False)[1][0]["video_results"]
        theirs = vbench("vbench/aesthetic_quality.py", **names(frames))
        aesthetic = theirs["laion_aesthetic"](networks["LAION's head"], clip, ["a"], "cpu")[1][0]["video_results"]
        theirs = vbench("vbench2_beta_i2v/i2v_subject.py", **names(frames), Image=Image)
        i2v = theirs["i2v_subject"](dino, [(tmp_path / "first.png", "a")], "cpu")[1][0]["video_results"]
        theirs = vbench("vbench2_beta_i2v/i2v_background.py", **names(frames), Image=Image)
        dreamsim = SimpleNamespace(embed=networks["DreamSim"])
        scene = theirs["i2v_background"](dreamsim, [(tmp_path / "first.png", "a")], "cpu")[1][0]["video_results"]
    _, clips = formulas.read_results(found["path"])
    value = {name: results[0].value for name, results in clips.items()}
    assert value["subject_consistency"] == SAME(subject, abs=1e-6)
    assert value["background_consistency"] == SAME(background, abs=1e-6)
    assert value["aesthetic_quality"] == SAME(aesthetic, abs=1e-6)
    assert value["i2v_subject"] == SAME(i2v, abs=1e-6)
    assert value["i2v_background"] == SAME(scene, abs=1e-6)
    assert 0 < subject < 1

    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "features").rglob("*.npz")}
    assert len(stored) == 2
    assert run(command) == 0  # what is stored is not asked again
    again = json.loads(capsys.readouterr().out)
    assert again == found
    assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_a_part_of_the_weights_gives_a_part_of_the_dimensions(cache, tmp_path):
    with pytest.raises(BadCheckpoint, match="no weights of VBench's networks"):
        ours.Networks(tmp_path)
    place = ours.PLACES["DINO"][0]
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_bytes((cache / place).read_bytes())
    networks = ours.Networks(tmp_path, "cpu")
    assert networks.dimensions == ("subject_consistency", "i2v_subject")
    assert "raft-things.pth" in networks.missing()["dynamic_degree"]


def test_an_input_picture_that_is_none_is_named_and_no_stop(cache, frames, tmp_path):
    from anisora.evaluation.samples import Sample
    from anisora.evaluation.vbench_export import export
    from anisora.media.writer import write_video

    place = ours.PLACES["DINO"][0]
    (tmp_path / place).parent.mkdir()
    (tmp_path / place).write_bytes((cache / place).read_bytes())
    (tmp_path / "first.png").write_bytes(b"no picture")
    video = write_video(tmp_path / "a.mp4", frames, 8, lossless=True)
    samples = [Sample(id="a", video=video, image=tmp_path / "first.png")]
    found = export(samples, tmp_path / "x_eval_results.json", weights=tmp_path, device="cpu")
    assert set(found["values"]) == {"temporal_flickering", "subject_consistency"}
    assert list(found["unreadable"]) == ["a, its input picture"]
    assert "input picture" in found["without"]["i2v_subject"]


def test_folders_of_transformers_do_as_well(tmp_path, cache):
    network = published.load_clip_vision(cache / ours.PLACES["CLIP B/32"][0])
    network.save_pretrained(tmp_path / "clip-vit-base-patch32")
    published.load_dino(cache / ours.PLACES["DINO"][0]).save_pretrained(tmp_path / "dino-vitb16")
    opened = ours.Networks(tmp_path, "cpu")
    assert opened.dimensions == ("subject_consistency", "background_consistency", "i2v_subject")
    pixels = torch.randn(1, 3, SIDE_PX, SIDE_PX)
    with torch.no_grad():
        assert torch.equal(opened["CLIP B/32"](pixels).image_embeds, network(pixels).image_embeds)
        assert opened["DINO"](torch.zeros(1, 3, 32, 64), interpolate_pos_encoding=True).last_hidden_state.shape[1] == 9


# ----------------------------------------------------------------------------------------------------------------- files


def test_wrong_tensors_are_named(cache, tmp_path):
    state = torch.load(cache / ours.PLACES["DINO"][0], weights_only=True)
    del state["blocks.1.norm2.bias"]
    state["head.weight"], state["norm.weight"] = torch.zeros(2), torch.zeros(3)
    state["cls_token"][0, 0, 5] = torch.nan
    torch.save(state, tmp_path / "dino.pth")
    with pytest.raises(BadCheckpoint) as problem:
        published.load_dino(tmp_path / "dino.pth")
    for name in (
        "layers.1.layernorm_after.bias",
        "head.weight",
        "layernorm.weight (3,) for (32,)",
        "finite: embeddings.cls",
    ):
        assert name in str(problem.value)
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    for load in (published.load_dino, published.load_clip_vision):
        with pytest.raises(BadCheckpoint, match="another network"):
            load(tmp_path / "other.pth")


class _Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_no_file_is_run(tmp_path):
    """Neither a pickle that calls something, nor one dressed as a TorchScript archive."""
    torch.save({"weight": torch.zeros(1), "x": _Evil(tmp_path / "made")}, tmp_path / "evil.pth")
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("evil/data.pkl", pickle.dumps(_Evil(tmp_path / "made")))
        archive.writestr("evil/constants.pkl", b"")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "evil.pth").read_bytes()[:200])
    for name in ("evil.pth", "evil.pt", "cut.pth"):
        with pytest.raises(BadCheckpoint, match="cannot be read"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "made").exists()


def test_programs_are_read_to_the_bit(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).half().eval()
    torch.jit.trace(network, torch.zeros(2, 3).half()).save(str(tmp_path / "x.pt"))
    found = read_tensors(tmp_path / "x.pt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(found[name], tensor)
    assert math.prod(found["0.weight"].shape) == 12
