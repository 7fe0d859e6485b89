# SPDX-License-Identifier: MIT
"""Bars as SVG. Light or dark as the reader's system is; text and ground change together."""

from html import escape

from tables import number

WIDTH, GAP, ROW, HEAD = 440, 20, 17, 30
LABEL, VALUE = 210, 44
STYLE = """
.ground{fill:#ffffff}.text{fill:#1f2328}.faint{fill:#59636e}.bar{fill:#9aa7b5}.ours{fill:#1a7f64}
.spread{stroke:#1f2328;stroke-width:1}
@media (prefers-color-scheme:dark){.ground{fill:#0d1117}.text{fill:#f0f6fc}.faint{fill:#9198a1}
.bar{fill:#56616d}.ours{fill:#2fa37f}.spread{stroke:#f0f6fc}}
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}
.title{font-weight:600}"""


class Panel:
    """title; bars: (label, values); ours: the prefix of labels that stand out."""

    def __init__(self, title, bars, ours="unshard"):
        self.title, self.bars, self.ours = title, [bar for bar in bars if bar[1]], ours

    def height(self):
        return HEAD + ROW * len(self.bars) + GAP


def text(x, y, words, kind="text", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def rectangle(x, y, width, height, kind):
    return (f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'class="{kind}"/>')


def bar(x, y, label, values, scale, ours):
    """One row: its name, a bar up to the median, a line from the least to the most, the median."""
    ordered = sorted(values)
    middle, left = ordered[len(ordered) // 2], x + LABEL
    parts = [text(left - 6, y + 12, label, "text", "end"),
             rectangle(left, y + 2, middle * scale, ROW - 5, "ours" if ours else "bar")]
    if len(ordered) > 1:
        parts.append(f'<line x1="{left + ordered[0] * scale:.1f}" x2="{left + ordered[-1] * scale:.1f}"'
                     f' y1="{y + ROW / 2:.1f}" y2="{y + ROW / 2:.1f}" class="spread"/>')
    parts.append(text(left + ordered[-1] * scale + 5, y + 12, number(middle), "faint"))
    return parts


def panel(one, x, y):
    most = max((max(values) for _, values in one.bars), default=1)
    scale = (WIDTH - LABEL - VALUE) / most
    parts = [text(x + LABEL, y + HEAD - 12, one.title, "text title")]
    for row, (label, values) in enumerate(one.bars):
        parts += bar(x, y + HEAD + row * ROW, label, values, scale, label.startswith(one.ours))
    return parts


def svg(title, panels, columns=2):
    """The panels in rows; title: also what a screen reader says."""
    parts, y = [text(GAP, 24, title, "text title")], 30
    for first in range(0, len(panels), columns):
        row = panels[first:first + columns]
        for number_in_row, one in enumerate(row):
            parts += panel(one, number_in_row * (WIDTH + GAP), y)
        y += max(one.height() for one in row)
    width = columns * (WIDTH + GAP)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
            f'viewBox="0 0 {width} {y}" role="img"><title>{escape(title)}</title>'
            f"<style>{STYLE}</style>{rectangle(0, 0, width, y, 'ground')}\n"
            + "\n".join(parts) + "\n</svg>\n")
