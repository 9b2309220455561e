"""The result of an evaluation as a picture: metrics as bars, and whether confidence is how often an answer is
right. Written by hand as SVG: the client needs no plotting library."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from chorus.cli.evaluation_tables import metrics_of
from chorus.cli.output import clean
from chorus.types import Evaluation

_COLOURS = ("#1f6feb", "#d1642e", "#2b8a3e", "#8250df", "#b5179e", "#57606a", "#0b7285", "#9a6700")
_WIDTH, _LEFT, _BAR, _SQUARE = 720, 130, 16, 300
_GREY = "#d0d7de"


def evaluation_svg(job: Evaluation) -> str:
    """The picture, as high as it has bars."""
    subjects = job.result.get("subjects") or []
    names = metrics_of(job)
    title = f"{job.result.get('rows')} rows of {job.spec.get('file')}"
    parts = [_text(12, 22, title, size=15)]
    for place, each in enumerate(subjects):
        y = 34 + 18 * place
        parts.append(f'<rect x="12" y="{y}" width="12" height="12" fill="{_colour(place)}"/>')
        parts.append(_text(30, y + 11, f"{each['name']} ({each['answer_by']})"))
    top = 52 + 18 * len(subjects)
    bars, bottom = _bars(subjects, names, top)
    curve, height = _reliability(subjects, bottom + 40)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="12">'
    )
    background = f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>'
    return "\n".join((opening, background, *parts, *bars, *curve, "</svg>")) + "\n"


def _bars(subjects: Sequence[Any], names: Sequence[str], top: int) -> tuple[list[str], int]:
    """A group of bars for each metric, from 0 to 1; a value below 0 has none."""
    parts, y, room = [], top, _WIDTH - _LEFT - 70
    for name in names:
        parts.append(_text(_LEFT - 8, y + _BAR * len(subjects) / 2 + 4, name, anchor="end"))
        for place, each in enumerate(subjects):
            value = float(each["metrics"].get(name) or 0.0)
            width = max(0.0, value) * room
            parts.append(
                f'<rect x="{_LEFT}" y="{y + 2}" width="{width:.1f}" height="{_BAR - 4}" '
                f'fill="{_colour(place)}"/>'
            )
            parts.append(_text(_LEFT + width + 6, y + _BAR - 4, f"{value:.3f}"))
            y += _BAR
        y += _BAR // 2
    return parts, y


def _reliability(subjects: Sequence[Any], top: int) -> tuple[list[str], int]:
    """Accuracy over confidence, a point for each bin, larger for more rows; the diagonal is perfect."""
    left, bottom = _LEFT, top + _SQUARE
    parts = [
        _text(left, top - 10, "How often answers of a confidence are right"),
        f'<rect x="{left}" y="{top}" width="{_SQUARE}" height="{_SQUARE}" fill="none" stroke="{_GREY}"/>',
        f'<path d="M{left} {bottom}L{left + _SQUARE} {top}" stroke="{_GREY}" stroke-dasharray="4 3"/>',
        _text(left + _SQUARE / 2, bottom + 34, "confidence", anchor="middle"),
    ]
    for tenth in (0, 5, 10):
        share = tenth / 10 * _SQUARE
        parts.append(_text(left + share, bottom + 16, f"{tenth / 10:g}", anchor="middle"))
        parts.append(_text(left - 6, bottom - share + 4, f"{tenth / 10:g}", anchor="end"))
    for place, each in enumerate(subjects):
        reliability = each.get("reliability") or {"bins": [], "ece": 0.0}
        rows = sum(found["rows"] for found in reliability["bins"]) or 1
        points = [
            (left + found["confidence"] * _SQUARE, bottom - found["accuracy"] * _SQUARE, found["rows"] / rows)
            for found in reliability["bins"]
        ]
        if points:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points)
            parts.append(f'<path d="M{path}" fill="none" stroke="{_colour(place)}"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{2 + 8 * share**0.5:.1f}" fill="{_colour(place)}" '
            'fill-opacity="0.7"/>'
            for x, y, share in points
        ]
        text = f"ECE {reliability['ece']:.3f}"
        parts.append(_text(left + _SQUARE + 20, top + 14 + 18 * place, text, colour=_colour(place)))
    return parts, bottom + 50


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", size: int = 12, colour: str = "#24292f"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{escape(clean(words))}</text>'
    )
