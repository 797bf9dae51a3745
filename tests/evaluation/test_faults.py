"""The networks for faults: what they say of drawn pictures, and how they learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anisora.errors import BadCheckpoint, BadInput
from anisora.evaluation import fault_training
from anisora.evaluation.corruptions import CORRUPTIONS, corrupt
from anisora.evaluation.fault_families import FAMILIES, spoil
from anisora.evaluation.fault_training import FaultSettings, Pictures, begun, gather, learn, looks_sound
from anisora.measures.faults import FaultNetwork, fault_odds, network, weights_file
from anisora.serving.scorer_loop import fit
from anisora.synthetic import render_clip


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    return [render_clip(41, i, n_frames=2, fps=16, size_px=(384, 256)).video_THWC for i in range(4)]


@pytest.mark.parametrize("kind", sorted(set(fault_training.SPOILED["pictures"]) & set(CORRUPTIONS)))
def test_spoiled_pictures_look_spoiled(drawn, kind):
    odds = [[fault_odds("pictures", corrupt(clip, kind, s)[:1])[0] for clip in drawn] for s in (0, 3, 5)]
    sound, spoiled, worse = np.median(odds, axis=1)
    assert sound < 0
    assert sound + 1 < min(spoiled, worse)  # colours that have run are gone at the worst: no more to see


@pytest.mark.parametrize("family", FAMILIES)
def test_random_faults_look_spoiled(drawn, family):
    pictures = [(clip[0], seed) for clip in drawn for seed in range(3)]
    sound = np.median([fault_odds("pictures", clip[:1])[0] for clip in drawn])
    spoiled = [fault_odds("pictures", spoil(picture, family, 4, seed=seed)[None])[0] for picture, seed in pictures]
    assert sound + 1 < np.median(spoiled)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_fault_is_one_fault_in_five_degrees(drawn, family):
    picture = drawn[0][0]
    for seed in range(6):
        spoiled = [spoil(picture, family, severity, seed=seed) for severity in (1, 2, 3, 4, 5)]
        assert all(one.shape == picture.shape and one.dtype == np.uint8 for one in spoiled)
        off = [float(np.abs(one.astype(int) - picture).mean()) for one in spoiled]
        assert 0 < off[0] < off[2] < off[4]
        assert np.array_equal(spoiled[1], spoil(picture, family, 2, seed=seed))
    assert not np.array_equal(spoil(picture, family, 3, seed=0), spoil(picture, family, 3, seed=1))


def test_what_is_bent_out_of_shape_looks_so(drawn):
    sound, melted = (np.array([fault_odds("figures", corrupt(c, "melt", s)[1:])[0] for c in drawn]) for s in (0, 4))
    assert (melted > sound + 2).all()
    assert np.median(sound) < 0


def test_each_picture_is_seen_alone_whatever_the_threads(drawn):
    frames = np.concatenate(drawn)
    together = fault_odds("pictures", frames)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert [float(fault_odds("pictures", frame[None])[0]) for frame in frames] == together.tolist()
    finally:
        torch.set_num_threads(threads)


def test_the_package_holds_both_networks_and_they_are_small():
    for subject in ("pictures", "figures"):
        assert isinstance(network(subject), FaultNetwork)
        assert weights_file(subject).stat().st_size < 2_000_000


def test_nothing_is_learned_from_kinds_that_are_held_out():
    for kinds in fault_training.SPOILED.values():
        named = [kind for kind in kinds if kind not in FAMILIES]
        assert named
        assert all(CORRUPTIONS[kind].use == "fitting" for kind in named)
    assert not set(FAMILIES) & set(CORRUPTIONS)  # one name, one thing


def test_a_network_begins_with_what_the_pretrained_one_knows():
    from anisora.measures.perceptual import network as pretrained

    made, whole = begun(), pretrained()
    assert torch.equal(made.stem.weight, whole._conv_stem.weight)
    assert torch.equal(made.blocks[10]._project_conv.weight, whole._blocks[10]._project_conv.weight)
    before = made.stem_norm.running_mean.clone()
    made.train()
    made(torch.rand(2, 3, 64, 64) * 255)
    assert torch.equal(made.stem_norm.running_mean, before)  # the statistics stay


def test_a_picture_is_spoiled_turned_in_any_way_and_comes_back(drawn):
    picture = drawn[0][0]
    for quarters in range(4):
        for mirrored in (False, True):
            spoiled = fault_training._spoiled(picture, picture, "veil", 5, (quarters, mirrored), 0)
            assert spoiled.shape == picture.shape
            lit = (spoiled.astype(int) - picture).mean(axis=-1)
            thirds = [lit[:, :128].mean(), lit[:, 256:].mean(), lit[:85].mean(), lit[170:].mean()]
            # the haze lies to the right, then below, to the left and above; mirrored, sideways the other way round
            side = [1, 3, 0, 2][quarters]
            expected = {0: 1, 1: 0}.get(side, side) if mirrored else side
            assert int(np.argmax(thirds)) == expected


def test_stills_are_gathered_and_cut_outs_stand_in_scenes(tmp_path, drawn):
    Image.fromarray(drawn[0][0]).save(tmp_path / "scene.png")
    cut_out = np.zeros((200, 100, 4), np.uint8)
    cut_out[40:, 20:80] = (255, 0, 0, 255)
    Image.fromarray(cut_out).save(tmp_path / "cut_out.png")
    found = gather(sorted(tmp_path.glob("*.png")), [], drawn=1)
    assert not looks_sound(np.full((300, 400, 3), 128, np.uint8))
    scene, laid_over = found.stills
    red = (laid_over == (255, 0, 0)).all(axis=-1)
    assert np.array_equal(scene, drawn[0][0])
    assert 100 < red.sum() < red.size / 2
    assert np.array_equal(laid_over[~red][:1000], scene[~red][:1000])  # above it the scene is as it was
    assert len(found.drawn) == 2
    assert not found.clips


def test_a_run_resumes_and_writes_whole_weights(tmp_path, drawn):
    pictures = Pictures(stills=[], drawn=[clip[0] for clip in drawn], clips=[list(drawn[0])])
    with pytest.raises(BadInput, match="no picture to learn from"):
        learn("pictures", Pictures(stills=[], drawn=[], clips=[]), tmp_path, fit, FaultSettings())
    flat = Pictures(stills=[np.full((256, 256, 3), 90, np.uint8)], drawn=[], clips=[])
    with pytest.raises(BadInput, match="nothing can be seen to be wrong"):  # and no search without end
        learn("figures", flat, tmp_path / "flat", fit, FaultSettings(steps=1))
    assert learn("figures", pictures, tmp_path, fit, FaultSettings(steps=2, max_minutes=0)) is None
    path = learn("figures", pictures, tmp_path, fit, FaultSettings(steps=2))
    assert path == tmp_path / "figures.safetensors"
    from safetensors.torch import load_file

    FaultNetwork().load_state_dict(load_file(path))
    assert torch.equal(begun(path).odds.weight, load_file(path)["odds.weight"].float())  # another run may go on from it
    (tmp_path / "other.safetensors").write_bytes(b"no tensors")
    for file in (tmp_path / "other.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(BadCheckpoint, match="network for faults"):
            begun(file)


def test_the_command_says_what_it_learns_from(tmp_path, drawn, capsys):
    from anisora.serving.cli import run as command

    Image.fromarray(drawn[0][0]).save(tmp_path / "scene.PNG")
    Image.fromarray(np.full((300, 400, 3), 128, np.uint8)).save(tmp_path / "flat.png")
    out = tmp_path / "faults"
    words = ["evaluate", "train-faults", "figures", "--out", str(out), "--drawn", "1", "--steps", "1", "--stills"]
    assert command([*words, str(tmp_path)]) == 0
    assert "1 of 2 stills look sound; 0 of 0 clips are for this" in capsys.readouterr().err
    assert (out / "figures.safetensors").is_file()
    assert command([*words, str(tmp_path / "none")]) == 2
    assert "--stills FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_learning_tells_spoiled_from_sound(tmp_path, drawn):
    """Thirty steps on four drawn clips: what they look like spoiled is above what they look like sound."""
    pictures = Pictures(stills=[], drawn=[clip[0] for clip in drawn], clips=[])
    path = learn("pictures", pictures, tmp_path, fit, FaultSettings(steps=30))
    from safetensors.torch import load_file

    learned = FaultNetwork().eval()
    learned.load_state_dict({name: tensor.float() for name, tensor in load_file(Path(path)).items()})

    def mean(severity: int) -> float:
        frames = [corrupt(clip[:1], "mosaic", severity)[0] for clip in drawn]
        with torch.no_grad():
            return float(learned(torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float()).mean())

    assert mean(4) > mean(0) + 0.5
