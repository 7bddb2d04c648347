"""Bars as SVG: medians, with a line from the least to the most."""

from collections.abc import Mapping
from html import escape

_ROW, _LEFT, _WIDTH, _RIGHT = 26, 190, 420, 110


def bars(title: str, values: Mapping[str, tuple[float, float, float]], *, unit: str) -> str:
    """Return a picture.

    Args:
        title: Above it.
        values: By name: median, least, most; none below 0.
        unit: Behind each median.
    """
    most = max((high for _, _, high in values.values()), default=0) or 1.0
    height = _ROW * len(values) + 44
    size = f'width="{_LEFT + _WIDTH + _RIGHT}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text x="8" y="22" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, (median, low, high)) in enumerate(values.items()):
        top = 36 + number * _ROW
        start, end, middle = (_LEFT + _WIDTH * one / most for one in (low, high, median))
        colour = "#2b6cb0" if name.startswith("mailq") else "#a0aec0"
        lines += [
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LEFT}" y="{top + 2}" width="{middle - _LEFT:.1f}" height="16" fill="{colour}"/>',
            f'<path d="M{start:.1f} {top + 10}H{end:.1f}" stroke="#1a202c" stroke-width="2"/>',
            f'<text x="{max(end, middle) + 6:.1f}" y="{top + 14}">{_figure(median)}{escape(unit)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"  # noqa: PLR2004 - two digits are enough
