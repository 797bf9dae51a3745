"""The bundled recipe in miniature: every stage for a few steps, stopped and resumed, exported, opened by stock diffusers."""

import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from anisora import synthetic
from anisora.errors import BadConfig
from anisora.models.tiny import write_tiny_checkpoint
from anisora.training import run
from anisora.training.codec import CodecSettings, fit_linear_code, pixels
from anisora.training.corpus import CorpusSettings, clip_indices, draw, open_corpus, open_flows, planned
from anisora.training.examples import ConditionSettings, draw_area, draw_plan
from anisora.training.run import load_config, main

RECIPE = Path(__file__).parents[2] / "configs" / "bundled.yaml"
MINIATURE = (
    "data.clips=12",
    "data.frames=17",
    "data.buckets=[[32, 32, 0.75], [48, 32, 0.25]]",
    "model.codec.z_dim=8",
    "model.codec.fit_clips=8",
    "model.codec.decoder_dims=[8, 8, 8]",
    "model.codec.crop_px=32",
    "model.denoiser.dim=24",
    "model.denoiser.num_layers=1",
    "model.denoiser.num_heads=2",
    "model.denoiser.ffn_dim=32",
    "model.denoiser.text_dim=16",
    "model.denoiser.text_layers=1",
    "model.denoiser.max_text_tokens=16",
    "model.denoiser.batch=2",
    "model.denoiser.frames=[9, 5]",
    "model.denoiser.half_rate_steps=2",
    "model.denoiser.usual_from_step=2",
    "model.denoiser.choosing_from_step=3",
    "model.sharpener.dims=[8, 8, 8]",
    "model.sharpener.features=4",
    "model.sharpener.batch=1",
    "model.sharpener.rows=2",
    "model.sharpener.frames=9",
    "model.sharpener.flow_clips=4",
    "model.sharpener.flow_frames=2",
    "model.sharpener.match_steps=1",
    "model.sharpener.perceptual_weight=0",
    "stages.codec.steps=4",
    "stages.sharpener.steps=3",
    "stages.denoiser.steps=4",
    "model.joint.denoiser_batch=2",
    "stages.joint.steps=2",
)


@pytest.fixture(scope="module")
def corpus_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("corpus")


@pytest.fixture(scope="module")
def buckets(corpus_folder):
    settings = CorpusSettings(clips=12, frames=17, buckets=((32, 32, 0.75), (48, 32, 0.25)))
    return open_corpus(settings, corpus_folder, workers=1)


def test_corpus_holds_the_clips_it_names(buckets, corpus_folder):
    from anisora.synthetic import render_clip

    assert [bucket.video_NTHWC.shape for bucket in buckets] == [(9, 17, 32, 32, 3), (3, 17, 32, 48, 3)]
    clip = render_clip(0, 2 * 2 + 1, n_frames=17, fps=16, size_px=(48, 32))
    assert np.array_equal(buckets[1].video_NTHWC[2], clip.video_THWC)
    assert buckets[1].captions[2] == clip.caption
    with pytest.raises(BadConfig, match="another corpus"):
        open_corpus(CorpusSettings(clips=13), corpus_folder)


def test_a_corpus_of_another_version_holds_its_clips(tmp_path):
    from anisora.synthetic import render_clip

    settings = CorpusSettings(clips=3, frames=3, buckets=((32, 32, 1.0),), corpus_version=3)
    (bucket,) = open_corpus(settings, tmp_path / "3", workers=1)
    clip = render_clip(0, 2, n_frames=3, fps=16, size_px=(32, 32), version=3)
    assert np.array_equal(bucket.video_NTHWC[2], clip.video_THWC)
    assert bucket.captions[2] == clip.caption
    with pytest.raises(BadConfig, match="another corpus"):
        open_corpus(CorpusSettings(clips=3, frames=3, buckets=((32, 32, 1.0),)), tmp_path / "3")
    with pytest.raises(BadConfig, match="unknown version of the corpus"):
        open_corpus(CorpusSettings(corpus_version=1), tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_a_corpus_drawn_before_versions_could_be_chosen_is_still_known(buckets, corpus_folder):
    """What trains for days must not be drawn anew: the stamp says what it said then."""
    before = {"buckets": [[32, 32, 0.75], [48, 32, 0.25]], "clips": 12, "corpus_version": 2, "fps": 16, "frames": 17}
    assert (corpus_folder / "corpus.json").read_text() == json.dumps({**before, "seed": 0}, sort_keys=True)


def test_whole_bodies_show_every_action_as_often():
    """Half of the clips of each bucket; the other half are the usual ones in their order, and none comes twice."""
    usual = CorpusSettings(buckets=((32, 32, 0.5), (48, 32, 0.5)))
    settings = replace(usual, whole_bodies=0.5)
    actions = synthetic.whole_body_actions(settings.corpus_version)
    each = 2 * len(actions)
    seen = []
    for number in range(2):
        assert clip_indices(usual, number, 3) == [number, number + 2, number + 4]
        indices = clip_indices(settings, number, 2 * each)
        assert indices[::2] == [number + 2 * k for k in range(each)]
        plans = [synthetic.plan_clip(settings.seed, index) for index in indices[1::2]]
        assert all(plan.shows_whole_body for plan in plans)
        assert Counter(plan.action for plan in plans) == dict.fromkeys(actions, 2)
        seen += indices
    assert len(set(seen)) == len(seen)
    with pytest.raises(BadConfig, match="is a share: got 2"):
        open_corpus(replace(usual, whole_bodies=2.0), Path("nowhere"))


def test_some_whole_bodies_begin_in_the_pose_of_another_action():
    """About so many as asked, none of what is reserved, and the usual clips as they were."""
    settings = CorpusSettings(buckets=((32, 32, 1.0),), corpus_version=3, whole_bodies=0.5, taken_up=0.7)
    indices = clip_indices(settings, 0, 400)
    plans = [planned(settings, index) for index in indices]
    assert not any(plan.is_reserved for plan in plans)
    assert all(
        plan == synthetic.plan_clip(0, index, version=3) for plan, index in zip(plans[::2], indices[::2], strict=True)
    )
    share = np.mean([plan.people[0].before is not None for plan in plans[1::2]])
    assert abs(share - 0.7) < 0.1
    assert plans == [planned(settings, index) for index in indices]
    assert all(planned(replace(settings, taken_up=0.0), i).people[0].before is None for i in indices)


def test_their_flow_is_that_of_the_clips_that_were_drawn(tmp_path):
    settings = CorpusSettings(clips=3, frames=5, buckets=((32, 32, 1.0),), whole_bodies=1.0, taken_up=1.0)
    (bucket,) = open_corpus(settings, tmp_path, workers=1)
    flows = open_flows(settings, 3, 5, 2, tmp_path, workers=1)
    for at, index in enumerate(clip_indices(settings, 0, 3)):
        plan = planned(settings, index)
        assert np.array_equal(bucket.video_NTHWC[at], synthetic.render_plan(plan, 5, Fraction(16), (32, 32)).video_THWC)
        pairs = [(int(t), to) for t in flows.frames_NK[at] for to in (0, 4)]
        exact = synthetic.flows_between(plan, pairs, 16, (32, 32))
        assert np.abs(flows.flow_NK4HW[at] - exact.transpose(0, 3, 1, 2).reshape(2, 4, 32, 32)).max() < 0.02


def test_a_corpus_with_whole_bodies_is_another_one(tmp_path):
    settings = CorpusSettings(clips=2, frames=2, buckets=((32, 32, 1.0),), whole_bodies=1.0)
    (bucket,) = open_corpus(settings, tmp_path, workers=1)
    first, second = clip_indices(settings, 0, 2)
    for at, index in enumerate((first, second)):
        clip = synthetic.render_clip(0, index, n_frames=2, fps=16, size_px=(32, 32))
        assert np.array_equal(bucket.video_NTHWC[at], clip.video_THWC)
    with pytest.raises(BadConfig, match="another corpus"):
        open_corpus(replace(settings, whole_bodies=0.0), tmp_path)


def test_interrupted_rendering_goes_on(buckets, corpus_folder):
    folder = corpus_folder / "1-48x32"
    before = np.array(buckets[1].video_NTHWC)
    (folder / "0.json").unlink()
    settings = CorpusSettings(clips=12, frames=17, buckets=((32, 32, 0.75), (48, 32, 0.25)))
    again = open_corpus(settings, corpus_folder, workers=1)
    assert np.array_equal(again[1].video_NTHWC, before)


def test_linear_code_is_the_best_one_of_its_rank(buckets):
    """Principal components beat any other orthonormal code of the same size on the clips they were fitted on."""
    settings = CodecSettings(z_dim=8, fit_clips=64, decoder_dims=(8, 8, 8))
    vae = fit_linear_code(buckets, settings, seed=0)
    video = pixels(draw(buckets, 8, np.random.default_rng(0))[0])

    def error(code):
        with torch.no_grad():
            vae.code.copy_(code)
            return (vae.decode_linear(vae.encode(video).latent_dist.mode()) - video).square().mean()

    fitted = vae.code.detach().clone()
    torch.testing.assert_close(fitted @ fitted.T, torch.eye(8), rtol=0, atol=1e-4)
    random = torch.linalg.qr(torch.randn(768, 8, generator=torch.Generator().manual_seed(0)))[0].T
    assert error(fitted) < 0.5 * error(random)


def test_motion_area_examples_give_the_still_outside(buckets):
    video_TCHW = pixels(buckets[0].video_NTHWC[:1].copy())[0].transpose(0, 1)
    rng = np.random.default_rng(0)
    plan = draw_plan(video_TCHW, ConditionSettings(guide_dropout=0.0, motion_area_prob=1.0), rng)
    area = draw_area(video_TCHW, rng)
    assert area.shape == (1, 32, 32)
    assert set(area.unique().tolist()) <= {0.0, 1.0}
    assert plan.motion_T1HW is not None
    outside = plan.keep_T1HW[5, 0] == 1
    assert torch.equal(plan.video_TCHW[5][:, outside], video_TCHW[0][:, outside])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a miniature run that was stopped at once and gone on with."""
    out = tmp_path_factory.mktemp("recipe") / "run"
    overrides = (f"output={out}", *MINIATURE)
    assert main(RECIPE, overrides, max_minutes=0) is None
    assert main(RECIPE, overrides) == out / "export"
    return out


def test_recipe_trains_resumes_and_exports(finished):
    for stage, steps in (("codec", 4), ("denoiser", 4), ("sharpener", 3), ("joint", 2)):
        rows = [json.loads(line) for line in (finished / stage / "log.jsonl").open()]
        assert rows[-1]["step"] == steps - 1
    _stock_and_ours_open(finished / "export")
    _frames_teach_the_denoiser((f"output={finished}", *MINIATURE), finished)


def tensors(folder):
    """Every tensor of a checkpoint by its file and name."""
    from safetensors.torch import load_file

    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.parent.name}/{name}": tensor for path in files for name, tensor in load_file(path).items()}


def test_a_run_begins_with_what_another_has_learned(finished, tmp_path):
    """A step that learns nothing exports what it began with, but for the words that only the new corpus has."""
    stay = "{denoiser: {steps: 1, learning_rate: 0}, joint: {steps: 1, learning_rate: 0}}"
    more = (f"start_from={finished / 'export'}", "data.corpus_version=3", f"stages={stay}")
    folder = main(RECIPE, (f"output={tmp_path}", *MINIATURE[:-3], *more, "model.denoiser.half_rate_steps=0"))
    assert not any(str(tmp_path.parent) in path.read_text() for path in folder.rglob("*.json")), (
        "it tells where it was made"
    )
    before, after = tensors(finished / "export"), tensors(folder)
    words = {name for name in before if before[name].shape != after[name].shape}
    assert words == {name for name in before if name.endswith(("shared.weight", "embed_tokens.weight"))}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - words)
    had, has = (
        json.loads((each / "tokenizer" / "tokenizer.json").read_text()) for each in (finished / "export", folder)
    )
    old, new = had["model"]["vocab"], has["model"]["vocab"]
    assert old.keys() & new.keys() > {"a", "the"}
    assert new.keys() - old.keys()
    (name,) = words
    for word in old.keys() & new.keys():
        assert torch.equal(before[name][old[word]], after[name][new[word]])


def test_a_start_of_another_size_is_refused(finished, tmp_path):
    overrides = (f"output={tmp_path}", *MINIATURE, f"start_from={finished / 'export'}", "model.denoiser.dim=48")
    with pytest.raises(BadConfig, match="transformer has other sizes than the config's"):
        main(RECIPE, overrides, stage="denoiser")
    with pytest.raises(BadConfig, match="another width: got 16 numbers"):
        main(RECIPE, (*overrides, "model.denoiser.text_dim=32"), stage="denoiser")


def test_clips_smaller_than_the_crops_of_the_codec_are_refused(tmp_path):
    with pytest.raises(BadConfig, match="crop_px: larger than the clips: got 48 px; expected at most 32 px"):
        main(RECIPE, (f"output={tmp_path}", *MINIATURE, "model.codec.crop_px=48"), stage="codec")


def test_a_start_that_no_recipe_made_is_refused(finished, tmp_path):
    stock = write_tiny_checkpoint(tmp_path / "stock", "wan")
    with pytest.raises(BadConfig, match="no guide_decoder/"):
        main(RECIPE, (f"output={tmp_path / 'run'}", *MINIATURE, f"start_from={stock}"), stage="denoiser")


def _frames_teach_the_denoiser(overrides, out):
    """The loss on finished frames alone reaches the transformer and its text."""
    config = load_config(RECIPE, (*overrides, "model.joint.predicted_prob=1"))
    task = run._joint(config, open_corpus(config.data, out / "corpus"), out)
    on_frames, _ = next(iter(task.loss(0, torch.Generator().manual_seed(0))))
    on_frames.backward()
    for part in ("transformer", "text_encoder", "guide_decoder"):
        gradients = [p.grad for p in task.modules[part].parameters() if p.grad is not None]
        assert sum(gradient.abs().sum().item() for gradient in gradients) > 0, part


def test_steps_on_the_own_path_start_where_the_steps_before_led(finished):
    """The network is called as a shot calls it, from noise alone, and only its last call learns."""
    config = load_config(RECIPE, (f"output={finished}", *MINIATURE, "model.denoiser.own_path_prob=1"))
    task = run._denoiser(config, open_corpus(config.data, finished / "corpus"), finished)
    calls = []
    task.modules["transformer"].register_forward_hook(
        lambda module, given, made: calls.append((given[0][:, :8], float(given[1][0]), made[0]))
    )
    lengths = set()
    for step in range(6):
        calls.clear()
        loss, _ = task.loss(step, torch.Generator().manual_seed(step))
        lengths.add(len(calls))
        assert [made.requires_grad for *_, made in calls] == [False] * (len(calls) - 1) + [True]
        assert [t for _, t, _ in calls] == pytest.approx([1000 * t for t in run.recipe_times()[: len(calls)]])
        assert calls[0][0].std() == pytest.approx(1, abs=0.1)
        if len(calls) == 2:
            sigma = calls[1][1] / 1000
            expected = (1 - sigma) * calls[0][2] + sigma * calls[0][0]
            torch.testing.assert_close(calls[1][0], expected)
        assert torch.isfinite(loss)
    assert lengths == {1, 2}


def test_steps_on_the_own_path_aim_at_the_clip(finished):
    """The gradient at the network's last answer says where it is to go: to the same latents as over the noised clip."""
    aims = {}
    for prob in (0, 1):
        config = load_config(RECIPE, (f"output={finished}", *MINIATURE, f"model.denoiser.own_path_prob={prob}"))
        task = run._denoiser(config, open_corpus(config.data, finished / "corpus"), finished)
        answers = []
        task.modules["transformer"].register_forward_hook(
            lambda _, given, made, kept=answers: kept.append((given[1], made[0]))
        )
        for seed in range(4):
            answers.clear()
            loss, _ = task.loss(0, torch.Generator().manual_seed(seed))
            t_B, made = answers[-1]
            (slope,) = torch.autograd.grad(loss, made)  # of mean((made - aim)^2 weight(t))
            weight = (t_B / 1000).clamp_min(0.5).view(-1, 1, 1, 1, 1) ** -2
            aims[prob, seed] = made.detach() - slope * made.numel() / (2 * weight)
    for seed in range(4):
        torch.testing.assert_close(aims[1, seed], aims[0, seed], rtol=1e-3, atol=1e-3)
    assert min(aim.std() for aim in aims.values()) > 0.1


def test_a_judge_without_an_own_path_is_refused(finished):
    config = load_config(RECIPE, (f"output={finished}", *MINIATURE, "model.denoiser.judge_weight=0.3"))
    with pytest.raises(BadConfig, match="own_path_prob"):
        run._denoiser(config, open_corpus(config.data, finished / "corpus"), finished)


def test_a_judge_pulls_harder_while_it_learns(finished):
    """From the first step with an own path on, not from the run's; and the joint stage has none."""
    slopes = {}
    for weight in (0, 0.5):
        asked = (
            "model.denoiser.own_path_prob=1",
            "model.denoiser.own_path_from_step=10",
            f"model.denoiser.judge_weight={weight}",
        )
        config = load_config(RECIPE, (f"output={finished}", *MINIATURE, *asked))
        buckets = open_corpus(config.data, finished / "corpus")
        task = run._denoiser(config, buckets, finished)
        made = []
        task.modules["transformer"].register_forward_hook(lambda _, __, out, kept=made: kept.append(out[0]))
        for step in (10, 60, 110, 500):
            loss, _ = task.loss(step, torch.Generator().manual_seed(0))
            (slopes[weight, step],) = torch.autograd.grad(loss, made[-1])
        assert "judge" not in run._joint(config, buckets, finished).modules
    for step, expected in ((10, 0), (60, 0.25), (110, 0.5), (500, 0.5)):
        plain, pulled = slopes[0, step][:1], slopes[0.5, step][:1]  # of the half that is judged
        assert (pulled - plain).norm() == pytest.approx(expected * plain.norm().item(), rel=1e-3, abs=1e-9)


def test_a_judge_leaves_no_trace_in_the_checkpoint(finished, tmp_path):
    """What is exported has the same files with it and without, also of a run that was stopped and gone on with."""
    more = (
        f"start_from={finished / 'export'}",
        "model.denoiser.own_path_prob=1",
        "model.denoiser.judge_weight=0.3",
        "model.denoiser.judge_warmup_steps=1",
        "stages={denoiser: {steps: 3, log_every_steps: 1}}",
    )
    overrides = f"output={tmp_path}", *(each for each in MINIATURE if not each.startswith("stages.")), *more
    assert main(RECIPE, overrides, max_minutes=0) is None
    folder = main(RECIPE, overrides)
    assert {path.relative_to(folder) for path in folder.rglob("*")} == {
        path.relative_to(finished / "export") for path in (finished / "export").rglob("*")
    }
    rows = [json.loads(line) for line in (tmp_path / "denoiser" / "log.jsonl").open()]
    assert all(row["judge"] > 0 for row in rows)
    _stock_and_ours_open(folder)


def _stock_and_ours_open(folder):
    from diffusers import WanImageToVideoPipeline
    from PIL import Image

    from anisora import AniSoraWanPipeline, Guide

    stock = WanImageToVideoPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert stock.vae.config.z_dim == 8
    assert json.loads((folder / "model_index.json").read_text())["vae"] == ["anisora", "AutoencoderKLBlock"]
    pipeline = AniSoraWanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    picture = Image.new("RGB", (32, 32), (200, 40, 40))
    shot = pipeline(
        "a girl waves",
        guides=[Guide(picture, frame=0)],
        width=32,
        height=32,
        num_frames=9,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    assert np.asarray(shot.frames[0]).shape == (9, 32, 32, 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.codec.zdim=8", "unknown key"),
        ("model.codec.z_dim=eight", "z_dim"),
        ("stages.polish={steps: 3}", "polish"),
        ("method=dance", "dance"),
    ],
)
def test_bad_configs_say_what_is_wrong(override, message):
    with pytest.raises(BadConfig, match=message):
        load_config(RECIPE, (override,))
