"""Charts as inline SVG that stretches to its place: shapes only, the words beside them are HTML.

Text within an SVG would shrink on a phone, and no colour is needed to read a number.
"""

from collections.abc import Iterable, Sequence

WIDE, HIGH = 1000, 100


def stacked(parts: Iterable[tuple[str, float]], whole: float) -> str:
    """A bar of parts, each a class and a value; `whole` is the full width."""
    shapes = []
    begin = 0.0
    for kind, value in parts:
        width = value / whole * WIDE if whole > 0 else 0.0
        if width > 0:
            shapes.append(_rect(kind, begin, width))
        begin += width
    return _svg("bar", "".join(shapes))


def spread(low: float, middle: float, high: float, whole: float) -> str:
    """A span with a mark at its middle."""
    at = [value / whole * WIDE if whole > 0 else 0.0 for value in (low, middle, high)]
    span = _rect("span", at[0], max(at[2] - at[0], 2))
    return _svg("bar", span + _rect("mark", min(at[1], WIDE - 6), 6))


def line(values: Sequence[float]) -> str:
    """A line over the number of values, with the area between it and zero."""
    top, bottom = max(0.0, *values), min(0.0, *values)
    height = (top - bottom) or 1.0
    step = WIDE / max(len(values) - 1, 1)

    def y(value: float) -> float:
        return HIGH - (value - bottom) / height * HIGH

    points = " ".join(f"{place * step:.1f},{y(value):.1f}" for place, value in enumerate(values))
    zero = f"{y(0):.1f}"
    return _svg(
        "line",
        f'<polygon points="0,{zero} {points} {WIDE},{zero}"/>'
        f'<polyline points="{points}"/>'
        f'<path d="M0 {zero}H{WIDE}"/>',
    )


def _rect(kind: str, x: float, width: float) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" width="{width:.1f}" height="{HIGH}"/>'


def _svg(kind: str, shapes: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {WIDE} {HIGH}" preserveAspectRatio="none"'
        f' aria-hidden="true">{shapes}</svg>'
    )
