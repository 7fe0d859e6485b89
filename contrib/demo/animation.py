# SPDX-License-Identifier: MIT
"""Pictures of a terminal as an animated SVG: CSS alone, no script, no font, for light and for dark pages."""

import html

WIDTH, HEIGHT, MARGIN, TITLE = 8.4, 18, 16, 34  # of a character; around the text; above it
CLASSES = {"1": "b", "2": "f", "31": "r", "1;31": "r b", "32": "g", "33": "y", "36": "c"}
STYLE = """
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre;fill:#1f2328}
.w{fill:#fff;stroke:#d0d7de}.f{fill:#8c959f}.r{fill:#cf222e}.g{fill:#1a7f37}.y{fill:#9a6700}.c{fill:#0969da}
.b{font-weight:bold}.n{text-anchor:middle;fill:#8c959f}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.w{fill:#0d1117;stroke:#30363d}.f,.n{fill:#6e7681}
.r{fill:#ff7b72}.g{fill:#3fb950}.y{fill:#d29922}.c{fill:#58a6ff}}
"""


def element(row, column, parts):
    """A run of text, as wide as its columns whatever the font."""
    x, y = MARGIN + column * WIDTH, TITLE + row * HEIGHT + 14
    length = sum(len(text) for text, _ in parts)
    spans = "".join(f'<tspan class="{CLASSES[style]}">{html.escape(text, quote=False)}</tspan>' if style
                    else html.escape(text, quote=False) for text, style in parts)
    return f'<text x="{x:g}" y="{y}" textLength="{length * WIDTH:g}">{spans}</text>'


def spans_of(pictures):
    """When each run of each row is to be seen: {(first, last + 1): elements}, numbers of pictures."""
    spans, open_since = {}, {}
    for number, picture in enumerate([*pictures, ()]):
        now = {(row, *run) for row, runs in enumerate(picture) for run in runs}
        for run in [run for run in open_since if run not in now]:
            spans.setdefault((open_since.pop(run), number), []).append(run)
        for run in now:
            open_since.setdefault(run, number)
    return {span: [element(*run) for run in sorted(runs)] for span, runs in sorted(spans.items())}


def animated(pictures, seconds, title, hold):
    """The SVG. seconds: when each picture came, from 0; the last one stays for `hold`."""
    end = seconds[-1] + hold
    times = [100 * second / end for second in seconds] + [100]
    rows = max(row for picture in pictures for row, runs in enumerate(picture) if runs) + 1
    columns = max(column + sum(len(text) for text, _ in parts)
                  for picture in pictures for runs in picture for column, parts in runs)
    width, height = 2 * MARGIN + columns * WIDTH, TITLE + rows * HEIGHT + MARGIN
    style, groups = [STYLE], []
    for number, ((first, last), elements) in enumerate(spans_of(pictures).items()):
        whole = first == 0 and last == len(pictures)
        # What shows nothing in motion shows the last picture.
        hidden = "" if last == len(pictures) else "visibility:hidden;"
        if not whole:
            style.append(f"#a{number}{{{hidden}animation:k{number} {end:.2f}s step-end infinite}}"
                         f"@keyframes k{number}{{" + keyframes(times[first], times[last]) + "}\n")
        groups.append((f'<g id="a{number}">' if not whole else "<g>") + "\n".join(elements) + "</g>\n")
    still = "@media(prefers-reduced-motion:reduce){g{animation:none!important}}\n"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height}" '
            f'viewBox="0 0 {width:g} {height}" role="img" aria-label="{html.escape(title)}">\n'
            f"<style>{''.join(style)}{still}</style>\n"
            f'<rect class="w" x=".5" y=".5" width="{width - 1:g}" height="{height - 1}" rx="8"/>\n'
            f'<text class="n" x="{width / 2:g}" y="22">{html.escape(title)}</text>\n'
            f"{''.join(groups)}</svg>\n")


def keyframes(begin, end):
    """Hidden but from `begin` to `end`, in percent. With step-end each holds until the next."""
    frames = ["0%{visibility:hidden}"] if begin > 0 else []
    frames.append(f"{begin:.2f}%{{visibility:visible}}")
    if end < 100:
        frames.append(f"{end:.2f}%,to{{visibility:hidden}}")
    else:
        frames.append("to{visibility:visible}")
    return "".join(frames)
