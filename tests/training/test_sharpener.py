"""Laws of what the guide decoder learns from: the matching loss is lowest at the true match, and counts only real pairs; the
change loss asks for movement, not for its place."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler

from anisora.generation.pipeline import AniSoraWanPipeline
from anisora.models import catalog
from anisora.models.codec import Codec
from anisora.models.guide_decoder import GuideDecoder, Matched, Parts
from anisora.records import Guide
from anisora.training.objectives import OBJECTIVES, own_path, sampling_times
from anisora.training.sharpener import (
    SharpenerSettings,
    bend,
    between_only,
    change_loss,
    change_ratio,
    frames_loss,
    held_target,
    match_loss,
    predict_with,
)
from anisora.training.text import embed, tokenize

PAIR, SINGLE = torch.tensor([[-0.4, 1.2]]), torch.tensor([[0.3, 0.3]])


def flow_of(before: tuple[float, float], after: tuple[float, float]) -> torch.Tensor:
    return torch.tensor([*before, *after]).view(1, 4, 1, 1).expand(1, 4, 16, 16)


def matched(*logits: torch.Tensor, coarse: torch.Tensor) -> Matched:
    """Given logits and a given coarse flow; nothing else counts here."""
    nothing = torch.zeros(1)
    return Matched((nothing, coarse, nothing), logits, nothing)


def know_nothing() -> list[torch.Tensor]:
    return [torch.zeros(1, 81, 2, 2) for _ in range(3)] + [torch.zeros(1, 25, 4, 4) for _ in range(2)]


def test_knowing_nothing_costs_the_log_of_the_choices():
    still = torch.zeros(1, 4, 4, 4)
    loss = match_loss(matched(*know_nothing(), coarse=still), PAIR, flow_of((-4, 0), (8, 0)))
    assert loss.item() == pytest.approx(3 * math.log(81) + 2 * math.log(25), abs=1e-4)
    alone = match_loss(matched(*know_nothing(), coarse=still), SINGLE, flow_of((-4, 0), (-4, 0)))
    assert alone.item() == pytest.approx(2 * math.log(81) + 2 * math.log(25), abs=1e-4)  # no path without two guides


@pytest.mark.parametrize("offset", [(1.25, -2.5), (4, -4), (0, 0), (2, 3.5)])
def test_its_gradient_asks_for_the_true_offset(offset: tuple[float, float]):
    matches = know_nothing()
    logits = matches[0].requires_grad_()
    pixels = (8 * offset[0], 8 * offset[1])
    match_loss(matched(*matches, coarse=torch.zeros(1, 4, 4, 4)), SINGLE, flow_of(pixels, pixels)).backward()
    assert logits.grad is not None
    wanted = (1 / 81 - 4 * logits.grad[0, :, 0, 0]).view(9, 9)  # a mean over four cells
    reach = torch.arange(-4.0, 5)
    assert wanted.sum().item() == pytest.approx(1, abs=1e-4)
    assert (wanted * reach).sum().item() == pytest.approx(offset[0], abs=1e-4)
    assert (wanted * reach[:, None]).sum().item() == pytest.approx(offset[1], abs=1e-4)


def test_the_finer_match_is_asked_for_what_the_coarse_flow_left():
    matches = know_nothing()
    logits = matches[3].requires_grad_()
    coarse = torch.tensor([-8.0, 0, 8, 0]).view(1, 4, 1, 1).expand(1, 4, 4, 4)
    match_loss(matched(*matches, coarse=coarse), PAIR, flow_of((-12, 4), (8, 0))).backward()
    assert logits.grad is not None
    wanted = (1 / 25 - 16 * logits.grad[0, :, 0, 0]).view(5, 5)
    assert wanted[2 + 1, 2 - 1].item() == pytest.approx(1, abs=1e-4)  # one cell down, one to the left


def test_what_lies_out_of_reach_does_not_count():
    matches = [torch.randn_like(match) for match in know_nothing()]
    assert match_loss(matched(*matches, coarse=torch.zeros(1, 4, 4, 4)), PAIR, flow_of((99, 0), (-99, 0))).item() == 0


def test_matching_reaches_every_feature():
    torch.manual_seed(0)
    decoder = GuideDecoder(dims=(8, 8, 8), features=4)
    found = decoder.matched(torch.rand(2, 3, 32, 32), torch.rand(2, 6, 32, 32), PAIR.expand(2, 2))
    match_loss(found, PAIR.expand(2, 2), torch.ones(2, 4, 32, 32)).backward()
    for name in ("to_quarter.0.0.weight", "to_eighth.1.0.weight", "to_path.weight", "middle_logits.weight"):
        gradient = decoder.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name


def moving_square(starts: list[int]) -> torch.Tensor:
    """Rows [N, 3, 16, 32] of a bright square two pixels wide, each with it at one place."""
    rows = -torch.ones(len(starts), 3, 16, 32)
    for row, start in zip(rows, starts, strict=True):
        row[:, 6:8, start : start + 2] = 1
    return rows


def test_change_is_asked_for_and_not_its_place():
    truth, one_clip = moving_square([4, 12, 20]), torch.zeros(3, dtype=torch.long)
    guides = torch.cat([moving_square([0]), moving_square([24])] * 2, dim=1).expand(3, -1, -1, -1)
    still = guides[:, :3]  # the guide before, held
    beside = moving_square([5, 13, 21])  # moves as much, one pixel off
    losses = [change_loss(out, truth, guides, one_clip).item() for out in (truth, beside, still)]
    assert losses[0] == 0
    assert losses[1] < losses[2] / 3
    assert change_ratio(still, truth, guides, one_clip) == 0
    assert change_ratio(beside, truth, guides, one_clip) == pytest.approx(1, abs=0.1)


def test_rows_of_different_clips_are_not_set_beside_each_other():
    truth, guides = moving_square([4, 4, 20, 20]), torch.zeros(4, 12, 16, 32)
    two_clips = torch.tensor([0, 0, 1, 1])
    assert math.isnan(change_ratio(truth, truth, guides, two_clips))  # within each, nothing changes
    assert change_ratio(truth, truth, guides, torch.zeros(4, dtype=torch.long)) == 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_predictions_made_by_steps_are_those_of_the_sampler(steps: int):
    def clean_in(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.tanh(noisy) * (1 - 0.5 * t.view(-1, 1, 1))

    sampler = UniPCMultistepScheduler(
        prediction_type="sample", use_flow_sigmas=True, flow_shift=2.0, solver_order=1, disable_corrector=range(steps)
    )
    sampler.set_timesteps(steps)
    noise = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(1))
    noisy = noise
    for t, sigma in zip(sampler.timesteps, sampler.sigmas, strict=False):
        noisy = sampler.step(clean_in(noisy, sigma.expand(3)), t, noisy, return_dict=False)[0]
    levels = [torch.full((3,), t) for t in sampling_times(steps, 2.0)]
    before_the_last = own_path(clean_in, noise, levels, OBJECTIVES["sample"])
    assert torch.allclose(clean_in(before_the_last, levels[-1]), noisy, atol=1e-5)


def test_rows_with_one_guide_are_held_to_what_the_decoder_made_of_them():
    torch.manual_seed(0)
    decoder = GuideDecoder(dims=(8, 8, 8), features=4)
    torch.nn.init.normal_(decoder.out.weight)  # a new one gives back an even blend
    inputs = torch.rand(2, 3, 32, 32), torch.rand(2, 12, 32, 32), torch.cat([PAIR, SINGLE])
    target = torch.rand(2, 3, 32, 32)
    held = held_target(decoder, inputs, target)
    assert torch.equal(held[0], target[0])
    assert torch.equal(held[1], decoder(*inputs)[1])
    assert not held.requires_grad


@pytest.mark.parametrize(("quantile", "best"), [(0.5, 5), (0.7, 7), (0.9, 9)])
def test_who_does_not_know_how_much_moves_answers_with_the_quantile(quantile: float, best: int):
    amounts = torch.arange(1, 10) / 10  # of change, from black guides; as likely as each other
    truths = amounts.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    guides, clips = torch.zeros(9, 12, 8, 8), torch.arange(9)
    losses = [
        change_loss(amount * torch.ones_like(truths), truths, guides, clips, quantile).item() for amount in amounts
    ]
    assert 1 + int(torch.tensor(losses).argmin()) == best


def test_rows_behind_a_single_guide_teach_nothing_to_who_predicts():
    torch.manual_seed(0)
    decoder = GuideDecoder(dims=(8, 8, 8), features=4)
    torch.nn.init.normal_(decoder.out.weight)
    decoded, guides = (torch.rand(2, channels, 32, 32).requires_grad_() for channels in (3, 12))
    decoder(*between_only((decoded, guides, torch.cat([PAIR, SINGLE])))).square().sum().backward()
    for gradient in (decoded.grad, guides.grad):
        assert gradient[0].abs().sum() > 0
        assert gradient[1].abs().sum() == 0
    assert decoder.out.weight.grad.abs().sum() > 0


def test_what_moves_as_one_is_not_bent():
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    turned = torch.stack([0.1 * y + 3, -0.1 * x, 0.2 * x - 0.1 * y, x + 1])[None]
    assert bend(turned).item() == pytest.approx(0, abs=1e-5)
    torn = torch.where(x < 10, 0.0, 8.0).expand(1, 4, -1, -1)
    assert bend(torn).item() == pytest.approx(2 * 8 / 18)  # two of the 18 places across see the tear


def put_together(own: float, *, before: torch.Tensor, flow: torch.Tensor | None = None) -> Parts:
    """Frames of the guide before alone, and `own` grey levels more that are in no guide."""
    rows, _, h, w = before.shape
    weight = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(rows, 3, h, w)
    flow = torch.zeros(rows, 4, h, w) if flow is None else flow
    still = torch.zeros(1)
    return Parts(
        before.repeat(1, 4, 1, 1), weight, torch.full((rows, 3, h, w), own), flow, Matched((still,) * 3, (), still)
    )


Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def loss_of(
    parts: Parts, inputs: Inputs, target: torch.Tensor, clip_B: torch.Tensor, settings: SharpenerSettings
) -> torch.Tensor:
    return frames_loss(parts, parts.frame(inputs[0]), inputs, target, clip_B, settings)[0]


PIXELS_ONLY = SharpenerSettings(detail_weight=0, change_weight=0, alone_weight=1, own_weight=0, own_alone_weight=0)


@pytest.mark.parametrize(("distance", "cost"), [(PAIR, 2.0), (SINGLE, 5.0)])
def test_what_is_in_no_guide_costs_by_how_many_guides_there_are(distance: torch.Tensor, cost: float):
    picture = torch.zeros(1, 3, 16, 16)
    inputs, one_clip = (picture, torch.zeros(1, 12, 16, 16), distance), torch.zeros(1, dtype=torch.long)
    settings = replace(PIXELS_ONLY, own_weight=2.0, own_alone_weight=5.0)
    losses = [
        [loss_of(put_together(own, before=picture), inputs, picture, one_clip, each) for own in (0.0, 0.3)]
        for each in (PIXELS_ONLY, settings)
    ]
    assert (losses[1][0] - losses[0][0]).item() == 0
    assert (losses[1][1] - losses[0][1]).item() == pytest.approx(0.3 * cost, abs=1e-4)


@pytest.mark.parametrize(("distance", "counts"), [(PAIR, 1.0), (SINGLE, 0.3)])
def test_pixels_count_less_after_a_single_guide(distance: torch.Tensor, counts: float):
    picture, one_clip = torch.rand(1, 3, 16, 16), torch.zeros(1, dtype=torch.long)
    inputs, parts = (picture, torch.zeros(1, 12, 16, 16), distance), put_together(0.0, before=picture)
    whole, part = (
        loss_of(parts, inputs, torch.zeros_like(picture), one_clip, replace(PIXELS_ONLY, alone_weight=weight))
        for weight in (1.0, 0.3)
    )
    assert part.item() == pytest.approx(counts * whole.item(), rel=1e-5)


def test_after_a_single_guide_the_guide_itself_has_to_move_and_not_to_tear():
    """A frame that comes to look as it should by what is in no guide does not count as movement there; between two it does."""
    truth, one_clip = moving_square([4, 12, 20]), torch.zeros(3, dtype=torch.long)
    still = moving_square([4, 4, 4])
    guides = torch.cat([still] * 4, dim=1)
    settings = replace(PIXELS_ONLY, change_weight=1.0, bend_weight=0.0)

    def loss(parts: Parts, distance: torch.Tensor, settings: SharpenerSettings = settings) -> float:
        inputs = still, guides, distance.expand(3, 2)
        pixels_only = replace(settings, change_weight=0.0, bend_weight=0.0)
        both = [loss_of(parts, inputs, truth, one_clip, each) for each in (settings, pixels_only)]
        return (both[0] - both[1]).item()

    painted = put_together(0.0, before=still)._replace(residual_B3HW=truth - still)
    held, moved = put_together(0.0, before=still), put_together(0.0, before=truth)
    assert loss(moved, SINGLE) == pytest.approx(0, abs=1e-6)
    assert loss(painted, PAIR) == pytest.approx(0, abs=1e-6)
    assert loss(painted, SINGLE) == pytest.approx(loss(held, SINGLE))
    assert loss(held, SINGLE) > 0.01
    torn = put_together(0.0, before=truth, flow=torch.rand(3, 4, 16, 32, generator=torch.Generator().manual_seed(0)))
    bent = replace(settings, bend_weight=1.0)
    assert loss(torn, SINGLE, bent) == pytest.approx(bend(torn.flow_B4HW).item(), rel=1e-5)
    assert loss(torn, PAIR, bent) == pytest.approx(0, abs=1e-6)


def test_a_prediction_made_as_a_shot_is_the_shot():
    """With the bundled weights: the latents that the pipeline ends with, from the same noise, guidance included."""
    pipeline = AniSoraWanPipeline.from_pretrained(catalog.resolve("bundled").path, torch_dtype=torch.float32)
    recipe, max_tokens = pipeline.checkpoint.recipe, pipeline.checkpoint.max_text_tokens
    picture = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    picture = np.repeat(np.repeat(picture[::16, ::16], 16, axis=0), 16, axis=1)
    prompt = "A little fox waves."

    def embed_texts(captions: list[str]) -> torch.Tensor:
        return embed(pipeline.text_encoder, *tokenize(pipeline.tokenizer, captions, max_tokens))

    video = torch.from_numpy(picture).permute(2, 0, 1)[None, :, None].expand(-1, -1, 17, -1, -1) / 127.5 - 1

    def predicted(steps: int, guidance: float) -> torch.Tensor:
        predict = predict_with(
            pipeline.transformer,
            embed_texts,
            Codec(pipeline.vae),
            "sample",
            times=sampling_times(steps, recipe.shift),
            sampled_prob=1.0,
            guidance=guidance,
        )
        with torch.no_grad():
            return predict(video, [[0]], [prompt], torch.Generator().manual_seed(5))

    as_asked = predicted(recipe.steps, recipe.guidance)
    noise = torch.randn(as_asked.shape, generator=torch.Generator().manual_seed(5))
    made = pipeline(prompt, [Guide(picture)], width=96, height=64, num_frames=17, latents=noise, output_type="latent")
    off = (made.frames - as_asked).abs().mean()
    assert off < 0.01  # the sampler calls the network at whole thousandths of t
    for steps, guidance in ((recipe.steps, 1.0), (recipe.steps - 1, recipe.guidance)):
        assert (made.frames - predicted(steps, guidance)).abs().mean() > 4 * off
