"""Draws display lists with Skia: the fast backend. Layers that repeat between frames are recorded once and replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import skia

from anisora.synthetic.display import Frame, Layer, Prim, shading, tiles

# A quarter of a circle as one cubic Bezier: the usual 4/3 (sqrt 2 - 1).
_ARC = 0.5522847498


def _argb(color: tuple[int, ...]) -> int:
    alpha = color[3] if len(color) == 4 else 255
    return (alpha << 24) | (color[0] << 16) | (color[1] << 8) | color[2]


def _ellipse(path: Any, pts: tuple[float, ...]) -> None:
    cx, cy, ux, uy, vx, vy = pts
    mx, my, nx, ny = _ARC * ux, _ARC * uy, _ARC * vx, _ARC * vy
    path.moveTo(cx + ux, cy + uy)
    path.cubicTo(cx + ux + nx, cy + uy + ny, cx + vx + mx, cy + vy + my, cx + vx, cy + vy)
    path.cubicTo(cx + vx - mx, cy + vy - my, cx - ux + nx, cy - uy + ny, cx - ux, cy - uy)
    path.cubicTo(cx - ux - nx, cy - uy - ny, cx - vx - mx, cy - vy - my, cx - vx, cy - vy)
    path.cubicTo(cx - vx + mx, cy - vy + my, cx + ux - nx, cy + uy - ny, cx + ux, cy + uy)
    path.close()


def _poly(path: Any, pts: tuple[float, ...]) -> None:
    path.moveTo(pts[0], pts[1])
    for i in range(2, len(pts), 2):
        path.lineTo(pts[i], pts[i + 1])
    path.close()


def _blob(path: Any, pts: tuple[float, ...]) -> None:
    # Closed Catmull-Rom spline, written as cubic Beziers.
    n = len(pts)
    path.moveTo(pts[0], pts[1])
    for i in range(0, n, 2):
        x0, y0, x1, y1 = pts[i - 2], pts[i - 1], pts[i], pts[i + 1]
        x2, y2, x3, y3 = pts[(i + 2) % n], pts[(i + 3) % n], pts[(i + 4) % n], pts[(i + 5) % n]
        path.cubicTo(x1 + (x2 - x0) / 6, y1 + (y2 - y0) / 6, x2 - (x3 - x1) / 6, y2 - (y3 - y1) / 6, x2, y2)
    path.close()


def _stroke(path: Any, pts: tuple[float, ...]) -> None:
    path.moveTo(pts[0], pts[1])
    for i in range(2, len(pts), 2):
        path.lineTo(pts[i], pts[i + 1])


def _segments(path: Any, pts: tuple[float, ...]) -> None:
    for i in range(0, len(pts), 4):
        path.moveTo(pts[i], pts[i + 1])
        path.lineTo(pts[i + 2], pts[i + 3])


def _dots(path: Any, pts: tuple[float, ...]) -> None:
    # Lines of no length: the round cap makes them discs.
    for i in range(0, len(pts), 2):
        path.moveTo(pts[i], pts[i + 1])
        path.lineTo(pts[i], pts[i + 1])


_PATHS = {"ellipse": _ellipse, "poly": _poly, "blob": _blob, "stroke": _stroke, "segments": _segments, "dots": _dots}
_STROKED = ("stroke", "segments", "dots")


class SkiaBackend:
    """Draws the frames of one clip into RGB arrays of (height_px, width_px, 3)."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._pictures: dict[object, Any] = {}
        self._still: list | None = None
        self._backdrop = np.zeros((height_px, width_px, 4), np.uint8)
        self._fill = skia.Paint(AntiAlias=True)
        # Its shader is set anew for each part; a paint cannot get rid of one.
        self._shaded = skia.Paint(AntiAlias=True)
        self._stroke = skia.Paint(
            AntiAlias=True,
            Style=skia.Paint.kStroke_Style,
            StrokeCap=skia.Paint.kRound_Cap,
            StrokeJoin=skia.Paint.kRound_Join,
        )

    def draw(self, frame: Frame) -> np.ndarray:
        """The frame as uint8 HWC."""
        # The layers that stand still are what they were in the frame before: begin with those pixels.
        still = [(layer.matrix, layer.cache_key) for layer in frame if layer.cache_key and not layer.is_camera]
        if still != self._still:
            self._backdrop = np.zeros((self.height_px, self.width_px, 4), np.uint8)
            canvas = skia.Surface(self._backdrop, skia.ColorType.kRGBA_8888_ColorType).getCanvas()
            for layer in frame[: len(still)]:
                self._draw_layer(canvas, layer)
            self._still = still
        pixels = self._backdrop.copy()
        canvas = skia.Surface(pixels, skia.ColorType.kRGBA_8888_ColorType).getCanvas()
        for layer in frame[len(still) :]:
            self._draw_layer(canvas, layer)
        rgb = np.empty((self.height_px, self.width_px, 3), np.uint8)
        for channel in range(3):  # four times as fast as one strided copy
            rgb[..., channel] = pixels[..., channel]
        return rgb

    def owners(self, frame: Frame) -> np.ndarray:
        """Which primitive is on top, int32 HW: its number in drawing order counted over all layers, from 0; -1 where
        nothing was drawn. Edges are not smoothed."""
        pixels = np.zeros((self.height_px, self.width_px, 4), np.uint8)
        canvas = skia.Surface(pixels, skia.ColorType.kRGBA_8888_ColorType).getCanvas()
        number = 0
        self._set_smooth(False)
        for layer in frame:
            for dx in tiles(layer, self.width_px):
                self._place(canvas, layer, dx)
                for k, prim in enumerate(layer.prims):
                    code = number + k + 1
                    color = (code & 255, code >> 8 & 255, code >> 16)
                    self._draw_prim(canvas, prim._replace(fill=color, line=color, shade=None, kind=_solid(prim.kind)))
            number += len(layer.prims)
        self._set_smooth(True)
        low, mid, high = (pixels[..., k].astype(np.int32) for k in range(3))
        return low + (mid << 8) + (high << 16) - 1

    def _set_smooth(self, smooth: bool) -> None:
        self._fill.setAntiAlias(smooth)
        self._stroke.setAntiAlias(smooth)

    def _place(self, canvas: Any, layer: Layer, dx: float) -> None:
        a, b, c, d, e, f = layer.matrix
        canvas.setMatrix(skia.Matrix.MakeAll(a, b, c + a * dx, d, e, f + d * dx, 0, 0, 1))

    def _draw_layer(self, canvas: Any, layer: Layer) -> None:
        if layer.cache_key is None:
            self._place(canvas, layer, 0.0)
            for prim in layer.prims:
                self._draw_prim(canvas, prim)
            return
        picture = self._pictures.get(layer.cache_key)
        if picture is None:
            picture = self._pictures[layer.cache_key] = self._record(layer)
        for dx in tiles(layer, self.width_px):
            self._place(canvas, layer, dx)
            canvas.drawPicture(picture)

    def _record(self, layer: Layer) -> Any:
        recorder = skia.PictureRecorder()
        # The tree lets a replay skip what lies outside the picture.
        canvas = recorder.beginRecording(skia.Rect(-100, -100, 100, 100), skia.RTreeFactory()())
        for prim in layer.prims:
            self._draw_prim(canvas, prim)
        return recorder.finishRecordingAsPicture()

    def _draw_prim(self, canvas: Any, prim: Prim) -> None:
        kind, _, _, pts, width, fill, line_width, line, shade, _ = prim
        if kind in ("gradient", "rect"):
            return self._draw_rect(canvas, prim)
        path = skia.Path()
        _PATHS[kind](path, pts)
        stroke = self._stroke
        if kind in _STROKED:
            if line_width:
                stroke.setStrokeWidth(width + 2 * line_width)
                stroke.setColor(_argb(line))
                canvas.drawPath(path, stroke)
            stroke.setStrokeWidth(width)
            stroke.setColor(_argb(fill))
            canvas.drawPath(path, stroke)
            return None
        if line_width:
            stroke.setStrokeWidth(2 * line_width)
            stroke.setColor(_argb(line))
            canvas.drawPath(path, stroke)
        if shade is None:
            self._fill.setColor(_argb(fill))
            canvas.drawPath(path, self._fill)
            return None
        x, y, radius, stops = shading(prim)
        self._shaded.setShader(skia.GradientShader.MakeRadial((x, y), radius, [_argb(fill), _argb(shade)], stops))
        canvas.drawPath(path, self._shaded)
        return None

    def _draw_rect(self, canvas: Any, prim: Prim) -> None:
        x0, y0, x1, y1 = prim.pts
        if prim.kind == "gradient" and prim.shade is not None:
            colors = [_argb(prim.fill), _argb(prim.shade)]
            self._shaded.setShader(skia.GradientShader.MakeLinear([(0, y0), (0, y1)], colors))
            canvas.drawRect(skia.Rect(x0, y0, x1, y1), self._shaded)
        else:
            self._fill.setColor(_argb(prim.fill))
            canvas.drawRect(skia.Rect(x0, y0, x1, y1), self._fill)


def _solid(kind: str) -> str:
    return "rect" if kind == "gradient" else kind
