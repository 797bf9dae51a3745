"""The figures of one clip, from its record alone: a flat dict from a dotted name to a number.

NaN means that the clip has nothing to measure (no foreground, nothing moved); such clips are left out of a mean, and
counted. The definitions are those of `anisora.measures`; what is compared with what is decided here.
"""

from __future__ import annotations

import action_classifier
import numpy as np
from action_classifier import Body, Shape
from clip_record import ClipRecord, Frames
from extra_arms import COUNTS, free_frames, guided_frames
from numpy.typing import NDArray

from anisora.measures import motion, perceptual, similarity

#: First and last frame given: the checkpoint's recipe, its one-step mean, and what each must be compared with.
INBETWEEN_ARMS = ("model", "model_one_step", "vae_cross_fade", "guided_cross_fade", "cross_fade", "flow_warp")

#: What is compared through two to five guides.
GUIDED_ARMS = ("model", "cross_fade", "flow_warp", "rife")

Figures = dict[str, float]


def measure_clip(record: ClipRecord) -> Figures:
    """All figures of one clip."""
    figures: Figures = {}
    for part in (_codec, _inbetween, _guides, _motion, _mask, _image_to_video, _guide_counts, _actions, _perceptual):
        figures |= part(record)
    return figures


def inbetween_arms(record: ClipRecord) -> dict[str, tuple[Frames, NDArray[np.float32]]]:
    """Frames and latents of all that stands between a first and a last frame, RIFE among them where it was asked."""
    arms = {arm: (record.arms[arm], record.latents[arm]) for arm in INBETWEEN_ARMS}
    if extra := record.extras.get("rife"):
        arms["rife"] = extra.arms["two"], extra.latents["whole"]
    return arms


def guided_arms(record: ClipRecord) -> dict[str, tuple[Frames, NDArray[np.float32]]]:
    """ "ARM.COUNT" -> frames, and latents in which only the frames that no arm was given differ from the truth."""
    arms = {}
    for arm in GUIDED_ARMS:
        extra = record.extras.get("rife" if arm == "rife" else "guides")
        for count in COUNTS if extra else ():
            if arm == "rife":
                arms[f"{arm}.{count}"] = extra.arms[count], extra.latents[count]
            else:
                frames = guided_frames(record, extra.arms, arm, count)
                arms[f"{arm}.{count}"] = frames, extra.latents[f"{arm}_{count}"]
    return arms


def _perceptual(record: ClipRecord) -> Figures:
    """Distances of deep features; those of the truth are computed once."""
    truth = perceptual.features(record.arms["truth"])
    between, later = ([maps[part] for maps in truth] for part in (slice(1, -1), slice(1, None)))
    figures, known = {}, {}
    for arm, (frames, _) in inbetween_arms(record).items():
        known[id(frames)] = perceptual.features(frames[1:-1])
        figures[f"inbetween.perceptual.{arm}"] = perceptual.feature_distance(known[id(frames)], between)
    free = np.array(free_frames(len(record.arms["truth"])), int)
    for name, (frames, _) in guided_arms(record).items():
        # Two guides are arms that have just been looked at.
        maps = [each[free - 1] for each in known.get(id(frames), [])] or perceptual.features(frames[free])
        figures[f"guided.perceptual.{name}"] = perceptual.feature_distance(maps, [each[free] for each in truth])
    figures["vae_perceptual"] = perceptual.feature_distance(perceptual.features(record.arms["vae"]), truth)
    figures["i2v.perceptual"] = perceptual.feature_distance(perceptual.features(record.arms["no_control"][1:]), later)
    return {name: float(distances.mean()) for name, distances in figures.items()}


def _codec(record: ClipRecord) -> Figures:
    """What the checkpoint's VAE makes of the truth, and what the best linear code of equal rate makes of it."""
    truth = record.arms["truth"]
    return {
        "vae_psnr_db": similarity.psnr_db(record.arms["vae"], truth),
        "vae_guided_psnr_db": similarity.psnr_db(record.arms["vae_guided"], truth),
        "pca_psnr_db": similarity.psnr_db(record.arms["pca"], truth),
        "vae_ssim": similarity.ssim(record.arms["vae"], truth),
    }


def _inbetween(record: ClipRecord) -> Figures:
    """The frames between a given first and last one, against the truth."""
    truth, foreground = record.arms["truth"][1:-1], record.foreground_THW[1:-1]
    # What the checkpoint's decoder, with the same guides, makes of the true latents: the detail it could show.
    detail = similarity.hf_energy(record.arms["vae_guided"][1:-1])
    detail_foreground = similarity.hf_energy(record.arms["vae_guided"][1:-1], foreground)
    detail_plain = similarity.hf_energy(record.arms["vae"][1:-1])
    true_latents = record.latents["truth"][:, 1:]
    figures: Figures = {}
    for arm, (all_frames, latents) in inbetween_arms(record).items():
        frames = all_frames[1:-1]
        figures |= {
            f"inbetween.psnr_db.{arm}": similarity.psnr_db(frames, truth),
            f"inbetween.psnr_foreground_db.{arm}": similarity.psnr_db(frames, truth, foreground),
            f"inbetween.ssim.{arm}": similarity.ssim(frames, truth),
            f"inbetween.latent_mse.{arm}": float(((latents[:, 1:] - true_latents) ** 2).mean()),
            f"inbetween.hf_energy.{arm}": _ratio(similarity.hf_energy(frames), detail),
            f"inbetween.hf_energy_plain_vae.{arm}": _ratio(similarity.hf_energy(frames), detail_plain),
            f"inbetween.hf_energy_foreground.{arm}": _ratio(
                similarity.hf_energy(frames, foreground), detail_foreground
            ),
        }
    return figures


def _guides(record: ClipRecord) -> Figures:
    """How exactly the guides are shown, and whether the motion runs through them evenly."""
    truth, ends, three = (
        record.arms["truth"],
        record.about["guides"]["model"],
        record.about["guides"]["three_guides"],
    )

    def psnr_db(arm: str, at: list[int]) -> float:
        return similarity.psnr_db(record.arms[arm][at], truth[at])

    figures = {
        "guide_psnr_db": psnr_db("model", ends),
        "guide_gap_db": psnr_db("vae", ends) - psnr_db("model", ends),
        "guide_gap_three_db": psnr_db("vae", three) - psnr_db("three_guides", three),
        # A decoder that sees the guides can copy them, and does when the latents are the true ones.
        "guide_gap_guided_db": psnr_db("vae_guided", ends) - psnr_db("model", ends),
        "guide_pop.inner": motion.guide_pop(record.arms["three_guides"], three[1]),
        "guide_pop.inner_truth": motion.guide_pop(truth, three[1]),
    }
    for name, arm in (("ends", "model"), ("ends_truth", "truth"), ("ends_vae", "vae_guided")):
        figures[f"guide_pop.{name}"] = float(np.mean([motion.guide_pop(record.arms[arm], at) for at in ends]))
    return figures


def _motion(record: ClipRecord) -> Figures:
    """How much moves beyond the camera, beside the truth, and whether the frames are blends of the guides."""
    truth, ends = record.arms["truth"], record.about["guides"]["model"]
    true_steps = motion.own_motion(truth, record.foreground_THW)
    true_motion = motion.amount_px(true_steps)
    # A truth that moves less than a tenth of a pixel a frame has no amount to compare with.
    moves = true_motion >= 0.1
    true_residual = motion.blend_residual(truth, truth[ends], ends)
    figures = {
        "true_motion_px": true_motion,
        "true_blend_residual": true_residual,
        "foreground_share": float(record.foreground_THW.mean()),
    }
    residuals = {}
    for arm in ("model", "vae_guided", "vae_cross_fade", "guided_cross_fade", "cross_fade", "flow_warp"):
        frames = record.arms[arm]
        steps = motion.own_motion(frames, record.foreground_THW)
        figures[f"motion_ratio.{arm}"] = motion.amount_px(steps) / true_motion if moves else float("nan")
        figures[f"motion_along.{arm}"] = motion.motion_along(steps, true_steps) if moves else float("nan")
        # An arm's own guide frames are what it would blend: its codec's errors are then in both and cancel.
        residuals[arm] = motion.blend_residual(frames, frames[ends], ends)
        figures[f"blend_residual_ratio.{arm}"] = _ratio(residuals[arm], true_residual)
    from_one_guide = motion.foreground_motion_px(record.arms["no_control"], record.foreground_THW)
    figures["i2v.motion_ratio"] = from_one_guide / true_motion if moves else float("nan")
    # The codec's own errors look like a residual too: those of a true blend, a fade through the same codec, come off.
    beyond = max(residuals["model"] ** 2 - residuals["vae_cross_fade"] ** 2, 0) ** 0.5
    return figures | {"blend_residual_beyond_codec": _ratio(beyond, true_residual)}


def _mask(record: ClipRecord) -> Figures:
    """The motion area: composited, raw, and without any control on the same clip, guide, prompt and noise."""
    area, guide = record.area_HW, record.arms["truth"][0]
    if not area.any() or area.all():
        return {}
    figures: Figures = {"mask.area_share": float(area.mean())}
    arms = {"": "mask_composited", "_raw": "mask_raw", "_no_control": "no_control", "_truth": "truth"}
    for suffix, arm in arms.items():
        moved = motion.mask_motion(record.arms[arm], area)
        figures |= {
            f"mask.precision{suffix}": moved.precision,
            f"mask.recall{suffix}": moved.recall,
            f"mask.precision_rectangles{suffix}": moved.precision_rectangles,
            f"mask.leakage{suffix}": moved.leakage,
            f"mask.explained_by_flow{suffix}": motion.explained_by_flow(record.arms[arm], area),
        }
    outside = record.arms["mask_composited"][:, ~area].astype(int) - guide[~area]
    return figures | {"mask.outside_max_difference": float(np.abs(outside).max())}


def _image_to_video(record: ClipRecord) -> Figures:
    """Only the first frame given."""
    frames, truth = record.arms["no_control"], record.arms["truth"]
    return {
        "i2v.brightness_drift": similarity.brightness_drift(frames, truth[0]),
        "i2v.brightness_drift_truth": similarity.brightness_drift(truth, truth[0]),
        "i2v.psnr_db": similarity.psnr_db(frames[1:], truth[1:]),
        "brightness_drift": similarity.brightness_drift(record.arms["model"], truth[0]),
    }


def _guide_counts(record: ClipRecord) -> Figures:
    """Two to five guides, on the frames that were given in no arm."""
    truth, true_latents = record.arms["truth"], record.latents["truth"][:, 1:]
    free = free_frames(len(truth))
    figures: Figures = {}
    for name, (frames, latents) in guided_arms(record).items():
        figures |= {
            f"guided.psnr_db.{name}": similarity.psnr_db(frames[free], truth[free]),
            f"guided.ssim.{name}": similarity.ssim(frames[free], truth[free]),
            f"guided.latent_mse.{name}": float(((latents[:, 1:] - true_latents) ** 2).mean()),
        }
    return figures


def _actions(record: ClipRecord) -> Figures:
    """Which of the actions asked for are seen, by a classifier of motion and by one that sees the first frame only.

    `recognised`: the share of the shots in which it names the action of the prompt, out of all; `shuffled`: the same with
    the prompts of this first frame dealt out anew, the mean over all ways to do so, which is what following no prompt
    reaches; `chosen`: the share in which the asked action comes first among those asked of this frame.
    """
    if (extra := record.extras.get("actions")) is None:
        return {}
    told, prompts = extra.about, list(extra.about["prompts"])
    shape = Shape(**{**told["shape"], "size_px": tuple(told["shape"]["size_px"])})
    judge, body = action_classifier.judge_for(shape), Body(**told["body"])
    scores = {action: judge.motion_scores(extra.arms[action], body) for action in prompts}
    still = {action: judge.still_scores(extra.arms[action][0], body) for action in prompts}
    right = {action: best(scores[action]) == action for action in prompts}

    def named_in_truth(action: str) -> str:
        return best(judge.motion_scores(extra.arms[f"truth_{action}"], body))

    figures = {
        **_recognised("", scores),
        **_recognised("first_frame.", still),
        "actions.truth_asked": float(np.mean([named_in_truth(action) == action for action in prompts])),
        "actions.own": float(right[told["own"]]),
        "actions.other": float(np.mean([right[action] for action in prompts if action != told["own"]])),
        **{
            f"actions.{arm}": float(best(judge.motion_scores(extra.arms[arm], body)) == told["own"])
            for arm in ("truth", "truth_vae")
        },
    }
    return figures | {f"actions.asked.{action}": float(right[action]) for action in prompts}


def _recognised(prefix: str, scores: dict[str, dict[str, float]]) -> Figures:
    asked = list(scores)
    named = [best(scores[action]) for action in asked]
    chosen = [best({action: shot[action] for action in asked}) for shot in scores.values()]
    return {
        f"actions.{prefix}recognised": float(np.mean([a == b for a, b in zip(named, asked, strict=True)])),
        # Each name is right for one of the prompts, or for none.
        f"actions.{prefix}shuffled": float(np.mean([name in asked for name in named])) / len(asked),
        f"actions.{prefix}chosen": float(np.mean([a == b for a, b in zip(chosen, asked, strict=True)])),
    }


def best(scores: dict[str, float]) -> str:
    """The action with the highest score."""
    return max(scores, key=lambda action: scores[action])


def _ratio(value: float, reference: float) -> float:
    return value / reference if reference > 0 else float("nan")
