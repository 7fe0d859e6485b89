# SPDX-License-Identifier: MIT
"""The README's section on what was measured, and its pictures."""

import statistics

import plots
import tables
from mounts import TOP

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
PICTURES = TOP / "contrib/bench"
COSTS = [("GB/s", "rate", 1), ("daemon s/GB", "daemon", 1)]


def of(cases, group):
    return [case for case in cases if case.group == group]


def touch(cases):
    values = [value for case in cases for value in case.first_touch]
    return f"{tables.number(statistics.median(values))} µs {tables.spread(values)}" if values else "-"


def field(cases):
    picture("field.svg", "until torch has a copy of every tensor, cold; GB/s", cases)
    costs = [("reader s/GB", "reader", 1), ("daemon s/GB", "daemon", 1),
             ("peak MiB", "daemon_peak", tables.MIB), ("source read", "source", 1)]
    shown = [case for case in cases if case.name in ("memory", "2 ms")]
    return ["Cold, mounting included, until torch has a copy of every tensor; GB/s:",
            "![the field](contrib/bench/field.svg)", tables.by_case(cases, "storage"),
            "What it cost: processor seconds a GB, memory of the daemon, reads of each byte:",
            tables.by_candidate(shown, "", costs)]


def ways(cases):
    picture("ways.svg", "unshard, until torch has a copy of every tensor; GB/s", cases,
            "cold", "first")
    return ["What unshard can be asked for; GB/s, processor seconds of the daemon a GB, reads of "
            "each byte:", "![ways](contrib/bench/ways.svg)",
            tables.by_candidate(cases, "", [*COSTS, ("read", "source", 1)])]


def scale(cases):
    titles = ["until it answers, s", "memory, MiB", "idle, ms of a processor a s", "look-ups a s",
              "change noticed, s"]
    return ["Large checkpoints (sparse files) that nobody reads yet:",
            tables.own_table(cases, "checkpoint", tables.SCALE, titles)]


def node(cases):
    titles = ["until it answers, s", "first look into a model, ms",
              "memory when all were listed, MiB", "a new model is there, s"]
    return ["One mount of many models (sparse files):",
            tables.own_table(cases, "root", tables.NODE, titles)]


def budget(cases):
    titles = ["GB/s", "page cache at most, of the budget", "reads of each byte"]
    return ["Models loaded in turn, three times:",
            tables.own_table(cases, "models", tables.BUDGET, titles)]


def many(cases):
    return ["One model that many threads read at once, each all of it from another place on:",
            tables.own_table(cases, "readers", tables.MANY, ["GB/s", "reads of each byte"])]


def simple(words, columns=(("", "rate", 1),)):
    return lambda cases: [words, tables.by_candidate(cases, "", columns)]


SECTIONS = {
    "field": field, "ways": ways,
    "readers": simple("A program that reads every byte and keeps none, and what the machine gives "
                      "at best; GB/s:"),
    "warm": simple("Once all is in the page cache; GB/s:"),
    "pickles": simple("PyTorch files (`.bin`), cold; GB/s:"),
    "run": simple("A whole program, with its start and its end: one that maps all files and adds up their "
                  "bytes, one that imports torch and loads them; GB/s:"),
    "verify": simple("Verification; GB/s, and processor seconds a GB:", COSTS),
    "scale": scale, "node": node, "budget": budget, "many": many,
}


def picture(name, title, cases, *ours):
    panels = [plots.Panel(case.name, [(one, case.values(one)) for one in case.runs],
                          ours or ("unshard",)) for case in cases]
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / name).write_text(plots.svg(title, panels))


def section(results):
    """All between the markers; writes the pictures, too."""
    cases = results["cases"]
    parts = [f"`{results['command']}` on {results['machine']}; {results['how']}. Medians; lines in "
             f"the pictures go from the slowest run to the fastest. A page's first touch cost "
             f"{touch(cases)}."]
    for group, write in SECTIONS.items():
        if of(cases, group):
            parts += write(of(cases, group))
    left = {name: why for case in cases for name, why in case.left_out.items()}
    if left:
        parts.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in left.items()) + ".")
    return "\n\n".join(parts)


def write(results):
    path = TOP / "README.md"
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{section(results)}\n{END}{after}")
