"""How near one video is to another, pixel by pixel: PSNR, SSIM and fine detail.

Classical measures in numpy and OpenCV only, so that they run in workers without torch. Videos are uint8 THWC in sRGB.
A perceptual distance, which needs a network, is in `perceptual`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # [T, H, W, 3]
Mask = NDArray[np.bool_]

#: Rounding to 8 bit alone makes an error of 1/12 grey level squared, so no smaller error is told apart (58.9 dB).
ROUNDING_MSE = 1 / 12


def psnr_db(result_THWC: Frames, truth_THWC: Frames, where_THW: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB of all frames together (one mean squared error), over `where` if given.

    Errors below `ROUNDING_MSE` count as that, so identical videos give 58.9 dB and not infinity. NaN where nothing is
    selected.
    """
    _same_shape(result_THWC, truth_THWC)
    error_THW = ((result_THWC.astype(np.float32) - truth_THWC) ** 2).mean(axis=-1)
    chosen = error_THW if where_THW is None else error_THW[where_THW]
    if chosen.size == 0:
        return float("nan")
    return float(10 * np.log10(255**2 / max(float(chosen.mean(dtype=np.float64)), ROUNDING_MSE)))


def ssim(result_THWC: Frames, truth_THWC: Frames) -> float:
    """Structural similarity in [-1, 1], the mean over frames, channels and pixels.

    Wang et al. 2004, equation 13: Gaussian window of sigma 1.5 and radius 5, K1 = 0.01, K2 = 0.03, population
    covariance. Pixels nearer than 5 to the border are left out, as their window is not whole.
    """
    _same_shape(result_THWC, truth_THWC)
    return float(np.mean([_ssim_frame(a, b) for a, b in zip(result_THWC, truth_THWC, strict=True)]))


def _ssim_frame(a_HWC: NDArray[np.uint8], b_HWC: NDArray[np.uint8]) -> float:
    import cv2

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5))

    a, b = a_HWC.astype(np.float64), b_HWC.astype(np.float64)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    similarity /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(similarity[5:-5, 5:-5].mean())


def hf_energy(frames_THWC: Frames, where_THW: Mask | None = None) -> float:
    """Fine detail: the mean squared difference, in grey levels squared, of the luma and its blur of sigma 1 pixel.

    Blur lowers it, noise raises it: compare it with that of a reference and look for a ratio near 1.
    """
    import cv2

    luma_THW = luma(frames_THWC)
    detail_THW = luma_THW - np.stack([cv2.GaussianBlur(frame, (7, 7), 1.0) for frame in luma_THW])
    chosen = detail_THW if where_THW is None else detail_THW[where_THW]
    return float((chosen.astype(np.float64) ** 2).mean()) if chosen.size else float("nan")


def brightness_drift(frames_THWC: Frames, reference_HWC: NDArray[np.uint8]) -> float:
    """The largest departure of a frame's mean luma from that of a reference picture, as a share of the latter."""
    reference = float(luma(reference_HWC).mean())
    means = luma(frames_THWC).mean(axis=(1, 2))
    return float(np.abs(means - reference).max() / max(reference, 1.0))


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rec. 601 luma of RGB pixels [..., 3] in [0, 255], without rounding."""
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _same_shape(a: Frames, b: Frames) -> None:
    if a.shape != b.shape:
        raise ValueError(f"videos of one shape are compared: got {a.shape} and {b.shape}")
