"""The judge of predictions: what learns from what, how hard it pulls, and where to."""

import pytest
import torch

from anisora.training.adversary import Judge, judged
from anisora.training.denoiser import DenoiserSettings, build_denoiser
from anisora.training.objectives import OBJECTIVES
from anisora.training.text import build_text_encoder

CHANNELS = 4
SHAPE = (6, CHANNELS, 2, 4, 4)


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    settings = DenoiserSettings(dim=24, num_layers=3, num_heads=2, ffn_dim=32, text_dim=16)
    return Judge(build_denoiser(settings, CHANNELS), build_text_encoder(20, 16, 1), OBJECTIVES["sample"])


def drawn(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.ones(SHAPE[0], 3, dtype=torch.long)
    return {
        "clean": torch.randn(SHAPE, generator=generator),
        "condition": torch.zeros(SHAPE[0], CHANNELS + 4, *SHAPE[2:]),
        "tokens": (tokens, tokens),
    }


def test_only_the_heads_are_parameters(judge):
    """What is frozen is neither trained nor saved, and is a copy: training the denoiser goes by it."""
    assert {name.split(".")[0] for name, _ in judge.named_parameters()} == {"heads"}
    assert {name.split(".")[0] for name in judge.state_dict()} == {"heads"}
    assert set(judge.heads) == {"0", "2"}  # every second block, from the last one on
    network = build_denoiser(DenoiserSettings(dim=24, num_layers=1, num_heads=2, ffn_dim=32, text_dim=16), CHANNELS)
    other = Judge(network, build_text_encoder(20, 16, 1), OBJECTIVES["sample"])
    given = drawn()
    times, noise, text = torch.full((SHAPE[0],), 0.3), torch.zeros(SHAPE), torch.zeros(SHAPE[0], 3, 16)
    before = other.features(given["clean"], times, noise, given["condition"], text)
    torch.nn.init.zeros_(network.blocks[0].ffn.net[2].weight)
    after = other.features(given["clean"], times, noise, given["condition"], text)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_pull_is_as_long_as_asked_and_each_learns_its_own_part(judge):
    given = drawn()
    predicted = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    (of_error,) = torch.autograd.grad((predicted - given["clean"]).square().mean(), predicted)

    def gradients(weight):
        predicted.grad = None
        judge.zero_grad()
        error = (predicted - given["clean"]).square().mean()
        made = 1 - 0.3 * predicted  # clean latents follow from what is predicted in one way or another
        generator = torch.Generator().manual_seed(2)
        loss, figures = judged(error, predicted, made, judge, weight, **given, generator=generator)
        loss.backward()
        assert loss.item() == pytest.approx(
            error.item() + figures["judge"], abs=1e-4
        )  # the pull has no value of its own
        return predicted.grad.clone(), [parameter.grad.clone() for parameter in judge.parameters()]

    alone, of_heads = gradients(0.0)
    torch.testing.assert_close(alone, of_error)
    named = zip(judge.named_parameters(), of_heads, strict=True)
    assert all(gradient.abs().sum() > 0 for (name, _), gradient in named if not name.endswith("answer.bias"))
    pulled, of_heads_again = gradients(0.5)
    for one, other in zip(of_heads, of_heads_again, strict=True):
        torch.testing.assert_close(one, other)
    half = slice(SHAPE[0] // 2)
    assert (pulled - of_error)[half].norm() == pytest.approx(0.5 * of_error[half].norm().item(), rel=1e-4)
    torch.testing.assert_close(pulled[SHAPE[0] // 2 :], of_error[SHAPE[0] // 2 :])


def test_the_gradient_is_that_of_the_whole_way(judge):
    """Cut in two at the features, it is what differentiating through heads and frozen network at once gives."""
    given = drawn()
    made = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_()
    _, downhill = judge.compare(made, **given, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(2)
    t_B = 0.05 + 0.6 * torch.rand(1, generator=generator).expand(SHAPE[0])
    noise = torch.randn(SHAPE, generator=generator)
    text = judge._frozen[1](*given["tokens"]).last_hidden_state
    seen = [judge.features(latent, t_B, noise, given["condition"], text) for latent in (given["clean"], made)]
    truer = judge(seen[0], SHAPE[2:]) - judge(seen[1], SHAPE[2:])
    (expected,) = torch.autograd.grad(torch.nn.functional.softplus(truer).mean(), made)
    torch.testing.assert_close(downhill, expected)
    assert expected.abs().sum() > 0


def test_what_is_pulled_is_judged_truer(judge):
    """The heads learn to tell clips from a smear of them; a short way along the pull the smear passes for truer."""
    given = drawn()
    smear = given["clean"].mean(dim=(3, 4), keepdim=True).expand(SHAPE)
    optimiser = torch.optim.Adam(judge.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        loss, downhill = judge.compare(smear, **given, generator=torch.Generator().manual_seed(step))
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < 0.6 < losses[0]  # log 2 = 0.69 tells nothing

    def truth_of(latent):
        times = torch.full((SHAPE[0],), 0.3)
        with torch.no_grad():
            noise, text = torch.zeros(SHAPE), torch.zeros(SHAPE[0], 3, 16)
            return judge(judge.features(latent, times, noise, given["condition"], text), SHAPE[2:]).mean()

    step = 0.1 * smear.norm() / downhill.norm()
    assert truth_of(smear - step * downhill) > truth_of(smear)
