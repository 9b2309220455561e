"""Line and bar charts as SVG, written by hand: the benchmarks need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 56, 52
_MOST_LABELS = 12
_COLOURS = ("#1f6feb", "#d1642e", "#2b8a3e", "#8250df", "#b5179e", "#57606a", "#0b7285")
_BAR, _BARS_LEFT, _BARS_TOP, _KEY_WIDTH, _KEYS_A_LINE = 16, 150, 46, 160, 3


@dataclass(frozen=True)
class Chart:
    """Series over one axis.

    Attributes:
        series: points by name, ascending in x.
        log_x: powers of two apart on the axis; x is above 0.
        mark_x: a vertical line, with what it means.
    """

    title: str
    x_label: str
    y_label: str
    series: dict[str, Points]
    log_x: bool = False
    mark_x: tuple[float, str] | None = None

    def svg(self) -> str:
        """The picture."""
        xs = [x for points in self.series.values() for x, _ in points]
        top = _round_up(max((y for points in self.series.values() for _, y in points), default=1.0))
        scale = _Scale(xs, top, self.log_x)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
            f'<text x="{_LEFT}" y="20" font-size="15">{escape(self.title)}</text>',
            *self._grid(scale, top, _some(sorted(set(xs)))),
            *self._mark(scale),
            *(self._line(scale, place, name) for place, name in enumerate(self.series)),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _grid(self, scale: _Scale, top: float, xs: Sequence[float]) -> list[str]:
        parts = []
        for step in range(6):
            value = top * step / 5
            y = scale.y(value)
            parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#d0d7de"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for x in xs:
            place = scale.x(x)
            parts.append(f'<text x="{place:.1f}" y="{_HEIGHT - 32}" text-anchor="middle">{x:.4g}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(
            f'<text x="{middle:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(self.x_label)}</text>'
        )
        turned = f"rotate(-90 14 {(_TOP + _HEIGHT - _BOTTOM) / 2:.0f})"
        parts.append(
            f'<text x="14" y="{(_TOP + _HEIGHT - _BOTTOM) / 2:.0f}" text-anchor="middle" '
            f'transform="{turned}">{escape(self.y_label)}</text>'
        )
        return parts

    def _mark(self, scale: _Scale) -> list[str]:
        if self.mark_x is None:
            return []
        x, words = scale.x(self.mark_x[0]), escape(self.mark_x[1])
        return [
            f'<path d="M{x:.1f} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#57606a" stroke-dasharray="4 3"/>',
            f'<text x="{x - 4:.1f}" y="{_TOP + 12}" text-anchor="end" fill="#57606a">{words}</text>',
        ]

    def _line(self, scale: _Scale, place: int, name: str) -> str:
        colour = _colour(place)
        at = [(scale.x(x), scale.y(y)) for x, y in self.series[name]]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in at)
        key = _LEFT + 150 * place
        return (
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>{dots}'
            f'<rect x="{key}" y="32" width="12" height="4" fill="{colour}"/>'
            f'<text x="{key + 18}" y="38">{escape(name)}</text>'
        )


@dataclass(frozen=True)
class Bars:
    """Groups of horizontal bars.

    Attributes:
        groups: values by bar name, by group name; None where there is nothing to show.
    """

    title: str
    x_label: str
    groups: dict[str, dict[str, float | None]]

    def svg(self) -> str:
        """The picture, as high as it has bars."""
        names = list(dict.fromkeys(name for bars in self.groups.values() for name in bars))
        values = [value for bars in self.groups.values() for value in bars.values() if value is not None]
        top = _round_up(max(values, default=1.0))
        parts = [part for place, name in enumerate(names) for part in self._key(place, name)]
        y = _BARS_TOP + 18 * math.ceil(len(names) / _KEYS_A_LINE)
        for group, bars in self.groups.items():
            parts.append(_text(_BARS_LEFT - 8, y + _BAR * len(bars) / 2 + 4, group, "end"))
            for name, value in bars.items():
                parts += self._bar(y, names.index(name), value, top)
                y += _BAR
            y += _BAR // 2
        head = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y + 24}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{y + 24}" fill="#ffffff"/>',
            f'<text x="12" y="20" font-size="15">{escape(self.title)}</text>',
        ]
        return "\n".join([*head, *parts, _text(_BARS_LEFT, y + 12, self.x_label), "</svg>"]) + "\n"

    def _key(self, place: int, name: str) -> list[str]:
        x = _BARS_LEFT + _KEY_WIDTH * (place % _KEYS_A_LINE)
        y = _BARS_TOP + 18 * (place // _KEYS_A_LINE)
        square = f'<rect x="{x}" y="{y - 9}" width="12" height="9" fill="{_colour(place)}"/>'
        return [square, _text(x + 18, y, name)]

    def _bar(self, y: int, place: int, value: float | None, top: float) -> list[str]:
        if value is None:
            return [_text(_BARS_LEFT + 5, y + _BAR - 4, "not run")]
        width = value / top * (_WIDTH - _BARS_LEFT - 60)
        bar = f'width="{width:.1f}" height="{_BAR - 2}" fill="{_colour(place)}"'
        number = _text(_BARS_LEFT + width + 5, y + _BAR - 4, f"{value:.1f}")
        return [f'<rect x="{_BARS_LEFT}" y="{y}" {bar}/>', number]


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _colour(place: int) -> str:
    return _COLOURS[place % len(_COLOURS)]


class _Scale:
    """From values to places on the picture; the y axis begins at 0."""

    def __init__(self, xs: Sequence[float], top: float, log_x: bool) -> None:
        self._log = log_x
        self._low, self._high = self._turn(min(xs, default=0.0)), self._turn(max(xs, default=1.0))
        self._top = top

    def _turn(self, x: float) -> float:
        return math.log2(x) if self._log else x

    def x(self, value: float) -> float:
        span = self._high - self._low or 1.0
        return _LEFT + (self._turn(value) - self._low) / span * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - value / self._top * (_HEIGHT - _TOP - _BOTTOM)


def _some(xs: Sequence[float]) -> Sequence[float]:
    """At most `_MOST_LABELS` values, evenly taken, the first and the last among them."""
    if len(xs) <= _MOST_LABELS:
        return xs
    return [xs[round(n * (len(xs) - 1) / (_MOST_LABELS - 1))] for n in range(_MOST_LABELS)]


def _round_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7.5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= value)
