"""Figures as inline SVG: the page's own fonts and colours, so they follow its dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

WIDTH, HEIGHT = 460, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 14, 16, 42


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear scale from values to pixels of the drawing."""

    low: float
    high: float
    start_px: float
    end_px: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def threshold_curve(
    thresholds: Sequence[float],
    per_threshold: npt.NDArray[np.float64],
    bands: npt.NDArray[np.float64],
) -> Markup:
    """Draw the score at each IoU threshold with its interval.

    Args:
        thresholds: T thresholds, ascending.
        per_threshold: (T,) scores in [0, 1].
        bands: (T, 2) lower and upper end of each score's interval.
    """
    x = _Axis(thresholds[0], thresholds[-1], _LEFT + 10, WIDTH - _RIGHT - 10)
    y = _Axis(0, 1, HEIGHT - _BOTTOM, _TOP)
    upper = [f"{x(t)},{y(band[1])}" for t, band in zip(thresholds, bands, strict=True)]
    lower = [f"{x(t)},{y(band[0])}" for t, band in zip(thresholds, bands, strict=True)]
    points = [f"{x(t)},{y(value)}" for t, value in zip(thresholds, per_threshold, strict=True)]
    parts = _share_grid(y)
    parts += [_text(x(t), HEIGHT - _BOTTOM + 18, f"{t:.2f}", "middle") for t in thresholds]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, "IoU threshold", "middle", "name"))
    parts.append(
        Markup('<polygon class="band" points="{}"/>').format(" ".join(upper + lower[::-1]))
    )
    parts.append(Markup('<polyline class="line" points="{}"/>').format(" ".join(points)))
    for t, value, band in zip(thresholds, per_threshold, bands, strict=True):
        parts.append(
            Markup('<circle class="dot" cx="{}" cy="{}" r="3.4"><title>{}</title></circle>').format(
                x(t), y(value), f"IoU > {t:.2f}: {value:.4f} ({band[0]:.4f} to {band[1]:.4f})"
            )
        )
    # The curve never rises, so above its first point and below its last one there is room.
    first, last = y(per_threshold[0]), y(per_threshold[-1])
    first += 22 if first < _TOP + 20 else -12
    last += 20 if last < HEIGHT - _BOTTOM - 24 else -12
    parts.append(_text(x(thresholds[0]), first, f"{per_threshold[0]:.3f}", "start", "value"))
    parts.append(_text(x(thresholds[-1]) + 6, last, f"{per_threshold[-1]:.3f}", "end", "value"))
    return _svg(parts, f"Score by IoU threshold, {per_threshold[0]:.3f} to {per_threshold[-1]:.3f}")


def score_histogram(per_image: npt.NDArray[np.float64], bins: int = 20) -> Markup:
    """Draw how many images have which score.

    Args:
        per_image: (M,) scores in [0, 1].
        bins: of equal width; the last one includes 1.
    """
    counts, edges = np.histogram(per_image, bins=bins, range=(0.0, 1.0))
    step = _tick_step(int(counts.max()))
    top = step * int(np.ceil(counts.max() / step))
    x = _Axis(0, 1, _LEFT, WIDTH - _RIGHT)
    y = _Axis(0, top, HEIGHT - _BOTTOM, _TOP)
    parts: list[Markup] = []
    for tick in range(0, top + 1, step):
        parts += [_rule(y(tick)), _text(_LEFT - 8, y(tick) + 4, str(tick), "end")]
    parts += [
        _text(x(tick), HEIGHT - _BOTTOM + 18, f"{tick:g}", "middle")
        for tick in (0, 0.25, 0.5, 0.75, 1)
    ]
    parts.append(
        _text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 5, "score of an image", "middle", "name")
    )
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            box = (x(low) + 1, y(count), round(x(high) - x(low) - 2, 2), round(y(0) - y(count), 2))
            parts.append(
                Markup(
                    '<rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="1.5">'
                    "<title>{}</title></rect>"
                ).format(*box, f"{low:.2f} to {high:.2f}: {count} images")
            )
    mean = float(per_image.mean())
    parts.append(
        Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
            x(mean), _TOP - 4, HEIGHT - _BOTTOM
        )
    )
    anchor, offset = ("start", 6) if mean < 0.7 else ("end", -6)
    parts.append(_text(x(mean) + offset, _TOP + 6, f"mean {mean:.3f}", anchor, "value"))
    return _svg(parts, f"Images by score, mean {mean:.3f}")


def interval_bar(low: float, estimate: float, high: float) -> Markup:
    """Draw a score on the scale from 0 to 1 with its interval."""
    x = _Axis(0, 1, 4, 316)
    return Markup(
        '<svg class="scale" viewBox="0 0 320 30" role="img" aria-label="{}">'
        '<line class="track" x1="4" x2="316" y1="9" y2="9"/>'
        '<line class="span" x1="{}" x2="{}" y1="9" y2="9"/>'
        '<circle class="dot" cx="{}" cy="9" r="5"/>'
        '<text x="4" y="27">0</text><text x="316" y="27" text-anchor="end">1</text></svg>'
    ).format(f"{estimate:.4f}, from {low:.4f} to {high:.4f}", x(low), x(high), x(estimate))


def _share_grid(y: _Axis) -> list[Markup]:
    parts: list[Markup] = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts += [_rule(y(tick)), _text(_LEFT - 8, y(tick) + 4, f"{tick:g}", "end")]
    return parts


def _tick_step(largest: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that gives at most five ticks."""
    step = 1
    while largest > 5 * step:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _rule(y: float) -> Markup:
    return Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        _LEFT, WIDTH - _RIGHT, y, y
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        kind, round(x, 2), round(y, 2), anchor, text
    )


def _svg(parts: Sequence[Markup], label: str) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>'
    ).format(WIDTH, HEIGHT, label, Markup("").join(parts))
