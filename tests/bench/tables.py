# SPDX-License-Identifier: MIT
"""Cases as text for a terminal and as tables of Markdown."""

import statistics

MIB = 1 << 20


def number(value):
    """Three digits, without an exponent."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(values):
    return f"[{number(min(values))}-{number(max(values))}]" if len(values) > 1 else ""


def share(value, unit):
    return None if value is None else value / unit


COLUMNS = [("reader s/GB", "reader", 1), ("daemon s/GB", "daemon", 1),
           ("peak MiB", "daemon_peak", MIB), ("source read", "source", 1)]
SCALE = [("mount s", "mount", 1), ("resident MiB", "resident", MIB), ("idle ms/s", "idle", 1),
         ("look-ups/s", "look-ups", 1), ("noticed s", "noticed", 1)]


NODE = [("mount s", "mount", 1), ("first look ms", "look", 1), ("resident MiB", "resident", MIB),
        ("visible s", "visible", 1)]
BUDGET = [("GB/s", "rate", 1), ("of the budget", "peak", 1), ("source read", "source", 1)]
MANY = [("GB/s", "rate", 1), ("source read", "source", 1)]
OWN = {"scale": SCALE, "node": NODE, "budget": BUDGET, "many": MANY}  # groups with columns of their own


def text(case):
    """All that is known of a case."""
    if case.group in OWN:
        return own_text(case, OWN[case.group])
    lines = [f"{'':36}{'GB/s':>6} {'':13} n" + "".join(f"{name:>13}" for name, *_ in COLUMNS)]
    for name in case.runs:
        rates = case.values(name)
        costs = "".join(f"{number(share(case.median(name, what), unit)):>13}"
                        for _, what, unit in COLUMNS)
        lines.append(f"{name:36}{number(statistics.median(rates)):>6} {spread(rates):13} "
                     f"{len(rates)}{costs}")
    if case.first_touch:
        lines.append(f"first touch of a page: {number(statistics.median(case.first_touch))} µs "
                     f"{spread(case.first_touch)}")
    return "\n".join(lines)


def own_text(case, columns):
    lines = [f"{'':36}" + "".join(f"{name:>15}" for name, *_ in columns)]
    for name in case.runs:
        lines.append(f"{name:36}" + "".join(
            f"{number(share(case.median(name, what), unit)):>15}" for _, what, unit in columns))
    return "\n".join(lines)


def table(head, rows):
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def names_of(cases):
    """Of all candidates, in the order in which they stand."""
    return list(dict.fromkeys(name for case in cases for name in case.runs))


def by_case(cases, first, what="rate", left=()):
    """A row for each case, a column for each candidate."""
    names = [name for name in names_of(cases) if name not in left]
    return table([first, *names], [[case.name, *(number(case.median(name, what)) for name in names)]
                                   for case in cases])


def by_candidate(cases, first, columns):
    """A row for each candidate; columns: (title, what, unit), those of each case side by side."""
    head = [first, *(f"{case.name}: {title}" if title else case.name
                     for case in cases for title, *_ in columns)]
    return table(head, [[name, *(number(share(case.median(name, what), unit))
                                 for case in cases for _, what, unit in columns)]
                        for name in names_of(cases)])


def own_table(cases, first, columns, titles):
    rows = [[case.name + ("" if name == "unshard" else f", {name}"),
             *(number(share(case.median(name, what), unit)) for _, what, unit in columns)]
            for case in cases for name in case.runs]
    return table([first, *titles], rows)
