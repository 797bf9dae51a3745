"""What a clip looks like and how it moves, as some thirty numbers: the features that trainable heads read.

Each is a plain, explainable quantity of small frames (edges, flat areas, palette, grain, motion beyond the camera, a flapping
region); none has a threshold, and none needs a network. What cannot be measured, as motion in a single picture, is NaN.
They are computed once and stored; heads are trained and applied on the store.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from anisora.measures.clip import ClipView
from anisora.measures.flow import affine_flow, dis_flow, fit_camera

FEATURES_VERSION = 1

#: Frames for looks: few and larger. For motion: up to this many seconds at up to this rate, small.
LOOK_FRAMES, LOOK_WIDTH_PX = 4, 320
MOTION_FPS, MOTION_S, MOTION_WIDTH_PX = 16, 3, 160

#: Flow is measured at half of `MOTION_FPS`: limited animation holds each drawing for two or three frames.
FLOW_STRIDE = 2

#: Speech opens and closes a mouth this often a second.
FLAP_HZ = (2.0, 7.0)
_MOUTH_SHARE = 0.09  # side of the region that is looked at for flapping, as a share of the width


def clip_features(clip: ClipView) -> dict[str, float]:
    """The features of a clip by name. Speeds are in picture widths a second. Raises BadVideo."""
    looks = _small(clip.frames_at(clip.spread(LOOK_FRAMES)), LOOK_WIDTH_PX)
    step = max(1, round(float(clip.fps) / MOTION_FPS))
    last = min(clip.span.num_frames, step * MOTION_FPS * MOTION_S)
    indices = range(clip.span.start_frame, clip.span.start_frame + last, step)
    moving = _small(clip.frames_at(indices), MOTION_WIDTH_PX)
    fps = float(clip.fps) / step
    return picture_features(looks) | _steps(moving, fps) | _speeds(moving, fps) | _flap(moving, fps)


def _small(frames_THWC: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    import cv2

    height, width = frames_THWC.shape[1:3]
    if width <= width_px:
        return frames_THWC
    size = (width_px, max(8, round(height * width_px / width)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames_THWC])


def _grey(frames_THWC: NDArray[np.uint8]) -> NDArray[np.float32]:
    import cv2

    return np.stack([cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in frames_THWC]).astype(np.float32)


# -- looks -------------------------------------------------------------------------------------------------------------


def picture_features(frames_THWC: NDArray[np.uint8]) -> dict[str, float]:
    """The features of looks by name, each the mean over the frames."""
    each = [_picture(frame, grey) for frame, grey in zip(frames_THWC, _grey(frames_THWC), strict=True)]
    return {name: float(np.mean([features[name] for features in each])) for name in each[0]}


def _picture(rgb_HWC: NDArray[np.uint8], grey_HW: NDArray[np.float32]) -> dict[str, float]:
    import cv2

    smooth = cv2.GaussianBlur(grey_HW, (3, 3), 0)
    gradient = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0) / 8, cv2.Sobel(smooth, cv2.CV_32F, 0, 1) / 8)
    laplacian = cv2.Laplacian(grey_HW, cv2.CV_32F)
    edges = gradient > 12
    # A drawn line is darker than both of its sides; the outline of a shaded body is a step.
    darker = cv2.morphologyEx(grey_HW, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) - grey_HW
    flat = gradient < 0.5
    hsv = cv2.cvtColor(np.ascontiguousarray(rgb_HWC), cv2.COLOR_RGB2HSV).astype(np.float32) / 255
    shares = np.sort(np.unique(_coarse(rgb_HWC), return_counts=True)[1])[::-1] / grey_HW.size
    across, along = np.abs(np.diff(grey_HW, axis=1)), np.abs(np.diff(grey_HW, axis=0))
    return {
        "flat_share": float(flat.mean()),
        "shading_share": float(((gradient > 0.5) & (gradient < 4)).mean()),
        "edge_share": float(edges.mean()),
        "line_share": float((darker > 25).mean()),
        "line_of_edges": float((darker > 25).sum() / (edges.sum() + 0.01 * edges.size)),
        "sharpness_log": float(np.log1p(laplacian.var())),
        "sharpest_log": float(np.log1p(np.percentile(np.abs(laplacian), 99))),
        "grain_log": float(np.log1p(np.median(np.abs(laplacian)))),
        "blocking": grid_excess(across) + grid_excess(along.T),
        "palette_log": float(np.log(np.searchsorted(np.cumsum(shares), 0.9) + 1)),
        "main_color_share": float(shares[0]),
        "saturation": float(hsv[..., 1].mean()),
        "saturation_spread": float(hsv[..., 1].std()),
        "light": float(grey_HW.mean() / 255),
        "contrast": float(grey_HW.std() / 255),
        "clipped_share": float(((grey_HW < 3) | (grey_HW > 252)).mean()),
        "colorfulness_log": _colorfulness(rgb_HWC),
    }


def _coarse(rgb_HWC: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One number a colour, 4 bits a channel."""
    r, g, b = (rgb_HWC[..., c].astype(np.int64) >> 4 for c in range(3))
    return r * 256 + g * 16 + b


def grid_excess(steps_HW: NDArray[np.float32]) -> float:
    """How much larger steps are on one of the eight columns of a compression grid than on the others, as log ratio.

    The phase is the worst of eight, so that a crop hides nothing. Small frames were made by averaging, which blurs the
    grid of large sources: then this says little, and what compression took shows in sharpness and grain.
    """
    columns = steps_HW.mean(axis=0)
    phases = np.array([columns[phase::8].mean() for phase in range(8)])
    return float(np.log((phases.max() + 0.25) / (np.median(phases) + 0.25)))


def _colorfulness(rgb_HWC: NDArray[np.uint8]) -> float:
    """Hasler and Suesstrunk 2003, M3, as log."""
    r, g, b = (rgb_HWC[..., c].astype(np.float32) for c in range(3))
    red_green, yellow_blue = r - g, (r + g) / 2 - b
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(np.log1p(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())))


# -- motion ------------------------------------------------------------------------------------------------------------


def _steps(frames_THWC: NDArray[np.uint8], fps: float) -> dict[str, float]:
    """How frames follow one another: change, holds, flicker, jumps."""
    if len(frames_THWC) < 3:
        return dict.fromkeys(("change_log", "held_share", "flicker", "jump_log"), float("nan"))
    grey = _grey(frames_THWC)
    steps = np.abs(np.diff(grey, axis=0)).mean(axis=(1, 2))
    light = grey.mean(axis=(1, 2))
    return {
        "change_log": float(np.log1p(steps.mean() * fps)),
        "held_share": float((steps < 0.4).mean()),
        "flicker": float(np.abs(np.diff(light, 2)).mean()),
        "jump_log": float(np.log((steps.max() + 0.2) / (np.median(steps) + 0.2))),
    }


def _speeds(frames_THWC: NDArray[np.uint8], fps: float) -> dict[str, float]:
    """Camera and own motion, apart: the camera is the affine map that most of the picture follows."""
    names = ("camera_speed_log", "own_speed_log", "own_speed_peak_log", "own_area")
    pictures = frames_THWC[::FLOW_STRIDE]
    if len(pictures) < 2:
        return dict.fromkeys(names, float("nan"))
    camera, own, area = [], [], []
    per_s = fps / FLOW_STRIDE / pictures.shape[2]
    for earlier, later in itertools.pairwise(pictures):
        flow = dis_flow(earlier, later)
        moved_by_camera = affine_flow(fit_camera(flow), *flow.shape[:2])
        rest = np.linalg.norm(flow - moved_by_camera, axis=-1) * per_s
        camera.append(float(np.linalg.norm(moved_by_camera, axis=-1).mean()) * per_s)
        own.append(float(np.sqrt((rest**2).mean())))
        area.append(float((rest > 0.05).mean()))
    values = (np.mean(camera), np.mean(own), np.percentile(own, 90), np.mean(area))
    logs = [float(np.log(value + 1e-3)) for value in values[:3]]
    return dict(zip(names, [*logs, float(values[3])], strict=True))


def _flap(frames_THWC: NDArray[np.uint8], fps: float) -> dict[str, float]:
    """Lip flap: a small region that goes to and fro several times a second while the rest of the picture hardly moves.

    `flap_focus`: how much stronger the change is in the most restless region than over the picture, as log; `flap_band`: the
    share of that region's change at `FLAP_HZ`; `flap_returns`: how often a second it changes direction; `flap_states`: how
    far it keeps to few states; `flap_height`: where it is, 0 at the top.
    """
    import cv2

    names = ("flap_focus", "flap_band", "flap_returns", "flap_states", "flap_height")
    if len(frames_THWC) < 8:
        return dict.fromkeys(names, float("nan"))
    grey = _grey(frames_THWC)
    side = max(3, round(_MOUTH_SHARE * grey.shape[2]))
    change = np.abs(np.diff(grey, axis=0)).mean(axis=0)
    local = cv2.boxFilter(change, -1, (side, side // 2 + 1))
    y, x = np.unravel_index(int(local.argmax()), local.shape)
    top, left = max(0, y - side // 4), max(0, x - side // 2)
    region = grey[:, top : top + side // 2 + 1, left : left + side].reshape(len(grey), -1)
    # The first principal component is how far open the mouth is, whatever it looks like.
    centred = region - region.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    signal = centred @ directions[0]
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)))) ** 2
    hertz = np.fft.rfftfreq(len(signal), 1 / fps)
    in_band = (hertz >= FLAP_HZ[0]) & (hertz <= FLAP_HZ[1])
    turns = np.diff(np.sign(np.diff(signal)[np.abs(np.diff(signal)) > 0.1 * np.ptp(signal) + 1e-6]))
    return {
        "flap_focus": float(np.log((local.max() + 0.1) / (change.mean() + 0.1))),
        "flap_band": float(spectrum[in_band].sum() / (spectrum[1:].sum() + 1e-6)),
        "flap_returns": float((turns != 0).sum() * fps / len(signal)),
        "flap_states": float(sizes[0] ** 2 / ((sizes**2).sum() + 1e-6)),
        "flap_height": float(y / grey.shape[1]),
    }
