"""Four drawings of scores from 0 to 100 as SVG: a radar of dimensions, means with intervals, rows of dots by kind, and the
matrix of what fell when something was spoiled.

SVG by hand: the page stays one small file, text stays text, and no plotting library is wanted for four shapes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

#: told apart by most people with a colour deficiency too (Okabe and Ito 2008); more systems than this repeat
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
_INK = "#888"


def radar_svg(axes: Sequence[str], systems: Mapping[str, Sequence[float | None]]) -> bytes:
    """One polygon a system over the axes; an axis without a score is passed over, with a gap in the line."""
    centre, radius, width, height = (330.0, 190.0), 140.0, 660, 380 + 18 * len(systems)

    def point(axis: int, value: float) -> tuple[float, float]:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        return centre[0] + radius * value / 100 * math.cos(angle), centre[1] + radius * value / 100 * math.sin(angle)

    shapes = []
    for level in (25, 50, 75, 100):
        ring = " ".join(f"{x:.1f},{y:.1f}" for x, y in (point(axis, level) for axis in range(len(axes))))
        shapes.append(f'<polygon points="{ring}" fill="none" stroke="{_INK}" stroke-width="0.5"/>')
        shapes.append(_text(centre[0] + 3, point(0, level)[1] + 4, str(level), size=9))
    for axis, name in enumerate(axes):
        x, y = point(axis, 112)
        anchor = "middle" if abs(x - centre[0]) < 20 else "start" if x > centre[0] else "end"
        shapes.append(_text(x, y + 4, name, anchor=anchor))
    for number, (name, values) in enumerate(systems.items()):
        color = COLORS[number % len(COLORS)]
        shapes += _outline([None if value is None else point(axis, value) for axis, value in enumerate(values)], color)
        y = 372 + 18 * number
        shapes.append(f'<rect x="230" y="{y - 9}" width="10" height="10" fill="{color}"/>')
        shapes.append(_text(246, y, name))
    return _svg(width, height, shapes)


def _outline(points: Sequence[tuple[float, float] | None], color: str) -> list[str]:
    """The sides of a closed polygon between neighbours that both are there, and a dot on each point."""
    sides = zip(points, [*points[1:], *points[:1]], strict=True)
    shapes = [
        f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{color}" stroke-width="2"/>'
        for a, b in sides
        if a and b
    ]
    return shapes + [f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="3" fill="{color}"/>' for p in points if p]


def intervals_svg(means: Mapping[str, Mapping[str, Any]]) -> bytes:
    """One line a name: its mean as a dot on its interval, from 0 to 100. Names without a mean are left out."""
    shown = {name: entry for name, entry in means.items() if entry["mean"] is not None}
    left, span, height = 190, 440, 24 * len(shown) + 28
    shapes = [_tick(left + span * level / 100, height, level) for level in (0, 25, 50, 75, 100)]
    for number, (name, entry) in enumerate(shown.items()):
        y = 16 + 24 * number
        low, mean, high = (left + span * entry[key] / 100 for key in ("low", "mean", "high"))
        shapes.append(f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{COLORS[0]}" stroke-width="4"/>')
        shapes.append(f'<circle cx="{mean:.1f}" cy="{y}" r="5" fill="{COLORS[0]}"/>')
        shapes.append(_text(left - 10, y + 4, name, anchor="end"))
        shapes.append(_text(left + span + 10, y + 4, f"{entry['mean']:.1f}"))
    return _svg(left + span + 60, height, shapes)


def dots_svg(table: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> bytes:
    """One line a kind (an action, say), one dot a system at its mean: {kind: {system: interval}}."""
    systems = list(dict.fromkeys(system for entry in table.values() for system in entry))
    left, span, top = 190, 440, 20 * len(systems) + 10
    height = top + 20 * len(table) + 28
    shapes = [_tick(left + span * level / 100, height, level, top) for level in (0, 25, 50, 75, 100)]
    for number, system in enumerate(systems):
        color, y = COLORS[number % len(COLORS)], 14 + 20 * number
        shapes += [f'<circle cx="{left}" cy="{y}" r="5" fill="{color}"/>', _text(left + 12, y + 4, system)]
    for number, (kind, entry) in enumerate(table.items()):
        y = top + 14 + 20 * number
        shapes.append(f'<line x1="{left}" y1="{y}" x2="{left + span}" y2="{y}" stroke="{_INK}" stroke-width="0.3"/>')
        shapes.append(_text(left - 10, y + 4, kind, anchor="end"))
        shapes += [
            f'<circle cx="{left + span * entry[system]["mean"] / 100:.1f}" cy="{y}" r="4"'
            f' fill="{COLORS[index % len(COLORS)]}" fill-opacity="0.8"/>'
            for index, system in enumerate(systems)
            if system in entry and entry[system]["mean"] is not None
        ]
    return _svg(left + span + 60, height, shapes)


def matrix_svg(fallen: Mapping[str, Mapping[str, float | None]], own: Mapping[str, str | None]) -> bytes:
    """One row a kind of spoiling, one column a metric, in each cell how many points the score fell: {kind: {metric: fall}}.

    The deeper the blue the more it fell, the deeper the red the more it rose; the cell that `own` names for a kind is
    framed, and what was not measured stays empty.
    """
    metrics = list(dict.fromkeys(metric for row in fallen.values() for metric in row))
    left, top, wide, tall = 110, 28, 92, 22
    shapes = [
        _text(left + wide * (column + 0.5), 18, metric.removeprefix("anime."), anchor="middle")
        for column, metric in enumerate(metrics)
    ]
    for row, (kind, by_metric) in enumerate(fallen.items()):
        y = top + tall * row
        shapes.append(_text(left - 8, y + 15, kind, anchor="end"))
        for column, metric in enumerate(metrics):
            if (fall := by_metric.get(metric)) is None:
                continue
            x, depth = left + wide * column, min(1.0, abs(fall) / 60)
            cell = f'x="{x + 1}" y="{y + 1}" width="{wide - 2}" height="{tall - 2}"'
            shapes.append(f'<rect {cell} fill="{COLORS[0 if fall > 0 else 1]}" fill-opacity="{depth:.2f}"/>')
            if own.get(kind) == metric:
                shapes.append(f'<rect {cell} fill="none" stroke="{_INK}" stroke-width="2"/>')
            ink = "#fff" if depth > 0.5 else _INK
            shapes.append(_text(x + wide / 2, y + 15, f"{round(-fall):+d}", anchor="middle", color=ink))
    return _svg(left + wide * len(metrics) + 4, top + tall * len(fallen) + 4, shapes)


def _tick(x: float, height: float, level: int, top: float = 4) -> str:
    line = f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{height - 18}" stroke="{_INK}" stroke-width="0.5"/>'
    return line + _text(x, height - 5, str(level), anchor="middle", size=10)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, color: str = _INK) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'
    )


def _svg(width: float, height: float, shapes: Sequence[str]) -> bytes:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
    )
    return (head + "".join(shapes) + "</svg>").encode()
