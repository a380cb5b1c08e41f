"""The curves of a bench as a picture: SVG, text in and text out. Pure.

Two panels over the same axis of requests at a time: lines per second, and p99 of batches. One
colour a curve; the recommended point has a ring, an uncertain one is hollow. No script, no font, no
link: it opens anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ctbatch.tuning.figures import Figures, Setting, rank, shown

__all__ = ["picture", "ticks"]

_WIDTH, _HEIGHT = 900, 620
_LEFT, _RIGHT = 84, 230
_PANEL_HEIGHT, _TOP, _BETWEEN = 220, 64, 64

# Okabe and Ito's colours, told apart by colour-blind eyes too; their yellow is too pale on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")

_Value = Callable[[Figures], float]


def picture(figures: Sequence[Figures], chosen: Setting | None, title: str) -> str:
    """The whole file."""
    return "\n".join(_all(figures, chosen, title)) + "\n"


def ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 to just above ``top``, at most ``most`` steps of 1, 2 or 5 times a
    power of ten.
    """
    if top <= 0:
        return [0.0, 1.0]
    power = 10 ** math.floor(math.log10(top / most))
    step = next(power * n for n in (1, 2, 5, 10, 20) if power * n * most >= top)
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class _Panel:
    """Where a value is drawn."""

    name: str
    top: float
    right_x: float
    marks: Sequence[float]

    def x(self, concurrency: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * concurrency / self.right_x

    def y(self, value: float) -> float:
        return self.top + _PANEL_HEIGHT * (1 - value / self.marks[-1])


def _all(figures: Sequence[Figures], chosen: Setting | None, title: str) -> Iterator[str]:
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield _text(_LEFT, 30, title, 'font-size="16" font-weight="bold"')
    curves = _curves(figures)
    tried = sorted({found.setting.concurrency for found in figures})
    for number, (name, value) in enumerate(_PANELS):
        top = _TOP + number * (_PANEL_HEIGHT + _BETWEEN)
        marks = ticks(max((value(found) for found in figures), default=0.0))
        panel = _Panel(name, top, max(tried, default=1), marks)
        yield from _frame(panel, tried)
        for (_, points), colour in zip(curves, _colours(len(curves)), strict=True):
            yield from _curve(panel, points, value, colour, chosen)
    yield from _legend(curves)
    yield "</svg>"


def _colours(count: int) -> list[str]:
    return [_COLOURS[n % len(_COLOURS)] for n in range(count)]


_PANELS: tuple[tuple[str, _Value], ...] = (
    ("lines per second", lambda found: found.lines_per_s),
    ("99 % of batches are settled within (ms)", lambda found: found.batch_p99_ms or 0.0),
)


def _curves(figures: Sequence[Figures]) -> list[tuple[str, list[Figures]]]:
    """The figures by batch size and workers, each over rising concurrency."""
    curves: dict[tuple[int, int | None], list[Figures]] = {}
    for found in sorted(figures, key=lambda found: found.setting.concurrency):
        setting = found.setting
        curves.setdefault((setting.batch_size, setting.workers), []).append(found)
    falling = sorted(curves.items(), key=lambda item: (item[0][0], rank(item[0][1])), reverse=True)
    return [
        (f"{size:,} a batch, {shown(workers)} worker{'' if workers == 1 else 's'}", points)
        for (size, workers), points in falling
    ]


def _frame(panel: _Panel, tried: Sequence[int]) -> Iterator[str]:
    right, bottom = panel.x(panel.right_x), panel.y(0)
    yield _text(_LEFT, panel.top - 12, panel.name, 'font-weight="bold"')
    for mark in panel.marks:
        y = panel.y(mark)
        yield f'<path d="M{_LEFT} {y:.1f}H{right:.1f}" stroke="#ddd"/>'
        yield _text(_LEFT - 8, y + 4, f"{mark:,g}", 'text-anchor="end" fill="#555"')
    yield f'<path d="M{_LEFT} {bottom:.1f}H{right:.1f}" stroke="#555"/>'
    for concurrency in tried:
        x = panel.x(concurrency)
        yield f'<path d="M{x:.1f} {bottom:.1f}v4" stroke="#555"/>'
        yield _text(x, bottom + 18, f"{concurrency}", 'text-anchor="middle" fill="#555"')
    yield _text(right, bottom + 34, "requests at a time", 'text-anchor="end" fill="#555"')


def _curve(
    panel: _Panel, points: Sequence[Figures], value: _Value, colour: str, chosen: Setting | None
) -> Iterator[str]:
    places = [(panel.x(p.setting.concurrency), panel.y(value(p)), p) for p in points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in places)
    yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y, point in places:
        fill = colour if point.certain else "white"
        yield (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{fill}" stroke="{colour}">'
            f"<title>{escape(point.setting.options)}: {value(point):,.0f}</title></circle>"
        )
        if point.setting == chosen:
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{colour}" '
                'stroke-width="2"/>'
            )


def _legend(curves: Sequence[tuple[str, Sequence[Figures]]]) -> Iterator[str]:
    x = _WIDTH - _RIGHT + 20
    for number, ((name, _), colour) in enumerate(zip(curves, _colours(len(curves)), strict=True)):
        y = _TOP + 10 + 22 * number
        yield f'<path d="M{x} {y}h20" stroke="{colour}" stroke-width="3"/>'
        yield _text(x + 28, y + 4, name)
    y = _TOP + 26 + 22 * len(curves)
    yield f'<circle cx="{x + 10}" cy="{y}" r="8" fill="none" stroke="#555" stroke-width="2"/>'
    yield _text(x + 28, y + 4, "the setting to use")
    yield f'<circle cx="{x + 10}" cy="{y + 24}" r="3.5" fill="white" stroke="#555"/>'
    yield _text(x + 28, y + 28, "too short to be certain")


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'
