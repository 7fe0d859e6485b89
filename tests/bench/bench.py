#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures unshard beside what else reads the same shards.

Every round runs the candidates one after the other, there and back, so that noise of the machine
hits all alike; the first round counts for nothing; what is printed is medians and their spread.

    make bench                            all of it, 16 minutes
    make bench MEASURE=--quick            3 minutes
    make bench MEASURE='--only field'     one group; see measures.py
    make bench BASE=HEAD~1                with the program of another commit beside this one
    make bench MEASURE=--readme           writes the README's section and its pictures, too
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import sys
import time

# Threads of torch that have nothing to do wait for more with all their might, which takes the cores
# from whoever brings the bytes where these are few: what is measured then is chance. Read when torch
# is loaded.
if "--spin" not in sys.argv:
    os.environ["OMP_WAIT_POLICY"] = "passive"

import base
import checkpoints
import loaders
import measures
import tables
from candidates import of_programs
from measuring import Case
from mounts import TOP


@dataclasses.dataclass
class Bench:
    """What the groups share. programs: "" is the one that is measured, " (NAME)" another commit's."""
    options: argparse.Namespace
    programs: dict
    stack: contextlib.ExitStack
    cases: list = dataclasses.field(default_factory=list)
    targets: list = dataclasses.field(default_factory=list)
    failures: list = dataclasses.field(default_factory=list)
    folders: dict = dataclasses.field(default_factory=dict)

    def chosen(self, candidates):
        """Those that take part, once for each program that they are of."""
        words = self.options.candidate
        return [one for one in of_programs(candidates, self.programs)
                if not words or any(word in one.name for word in words)]

    def places(self, storages):
        return [one for one in storages
                if not self.options.storage or one.name in self.options.storage]

    def folder(self, where):
        """The checkpoint for a storage; made when it is first asked for, kept to the end."""
        place, slow = place_of(where)
        if (place, slow) not in self.folders:
            self.folders[place, slow] = self.stack.enter_context(checkpoints.shards(
                self.parent(place), self.size(slow), self.programs[""]))
        return self.folders[place, slow]

    def pickles(self, where):
        place, slow = place_of(where)
        return checkpoints.pickles(self.parent(place), self.size(slow))

    def parent(self, place):
        return self.options.disk if place == "disk" else "/dev/shm"

    def size(self, slow):
        return self.options.slow_size if slow else self.options.size

    def begin(self, case):
        print(f"\n{case.group}: {case.name}", flush=True)

    def done(self, case):
        if case.group == "warm" or case.group in tables.OWN:
            self.begin(case)
        print(tables.text(case), flush=True)
        self.cases.append(case)
        self.failures += [f"{case.group}: {case.name}: {name}: {why}"
                          for name, why in case.failed.items()]
        self.compare_programs(case)

    def compare_programs(self, case):
        for suffix in list(self.programs)[1:]:
            both = [(name, case.median(name), case.median(name + suffix)) for name in case.runs]
            ratios = [f"{name} {here / there:.2f}" for name, here, there in both if here and there]
            if ratios:
                print(f"times{suffix}: " + ", ".join(ratios), flush=True)

    def ceiling(self, case, name, measure):
        case.runs[name] = [measure() for _ in range(self.options.rounds)]

    def failed(self, what):
        print(f"  FAILED: {what}", flush=True)
        self.failures.append(what)

    def want(self, case, name, ratio, beside):
        """That candidate is to reach so much of the best of the others."""
        rates = [rate for rate in map(case.median, beside) if rate]
        here = case.median(name)
        if here and rates:
            self.target(f"{case.group}: {case.name}: {name} / best of {', '.join(beside)}",
                        here / max(rates), ratio, here >= ratio * max(rates))

    def want_at_most(self, case, name, what, most, unit):
        """unit: its name."""
        here = case.median(name, what)
        if here:
            if unit == "MiB":
                here /= tables.MIB
            self.target(f"{case.group}: {case.name}: {name}, {unit}", here, most, here <= most)

    def target(self, title, value, wanted, reached):
        self.targets.append({"title": title, "value": value, "wanted": wanted, "reached": reached})

    def results(self):
        options = self.options
        return {"command": command(options), "machine": machine(), "programs": list(self.programs),
                "how": f"{options.rounds} interleaved rounds, {options.size >> 20} MiB in "
                       f"{checkpoints.SHARDS} shards, {options.slow_size >> 20} MiB where storage "
                       "has latency" + ("" if options.spin else ", OMP_WAIT_POLICY=passive"),
                "cases": self.cases, "targets": self.targets}


def place_of(where):
    """Where its files lie, and whether reading them takes long."""
    return ("disk", False) if where == "disk" else (where.place, bool(where.rules))


def machine():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    return f"{os.cpu_count()} cores, {memory} GiB, Linux {os.uname().release}"


def command(options):
    """How to have the same again."""
    words, shown = list(sys.argv[1:]), ["make bench"]
    for made in ("--build", "--compiler", "--base"):  # by the Makefile
        if made in words:
            del words[words.index(made):words.index(made) + 2]
    if options.base:
        shown.append(f"BASE={options.base}")
    if words:
        shown.append(f"MEASURE='{' '.join(words)}'" if len(words) > 1 else f"MEASURE={words[0]}")
    return " ".join(shown)


def size(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1].upper()] if text[-1].upper() in units else int(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build")
    parser.add_argument("--compiler", default="gcc", help="for --base")
    parser.add_argument("--base", metavar="COMMIT", help="measure that commit, too")
    parser.add_argument("--rounds", type=int, help="3, with --quick 1")
    parser.add_argument("--size", type=size, help="of the checkpoints (512M, with --quick 256M)")
    parser.add_argument("--slow-size", type=size, help="on slow storage (256M, with --quick 128M)")
    parser.add_argument("--disk", default=str(TOP / "build"), help="a folder on a local disk")
    parser.add_argument("--device", default="cpu", help="where the tensors go: cpu, cuda:0")
    parser.add_argument("--quick", action="store_true", help="less of all")
    parser.add_argument("--spin", action="store_true", help="leave torch's threads as they are")
    parser.add_argument("--storage", action="append", metavar="NAME",
                        help="only on that one, as it is called in the tables")
    parser.add_argument("--candidate", action="append", metavar="NAME",
                        help="only those whose name has that in it")
    parser.add_argument("--only", action="append", choices=list(measures.GROUPS))
    parser.add_argument("--json", metavar="FILE", default=str(TOP / "build/bench.json"))
    parser.add_argument("--readme", action="store_true", help="write the README's section")
    parser.add_argument("--from", dest="old", metavar="FILE", help="measure nothing, show that JSON")
    options = parser.parse_args()
    quick = options.quick
    options.rounds = options.rounds or (1 if quick else 3)
    options.size = options.size or (256 << 20 if quick else 512 << 20)
    options.slow_size = options.slow_size or (128 << 20 if quick else 256 << 20)
    return options


def measure(options):
    programs = {"": TOP / options.build / "unshard"}
    if options.base:
        name, program = base.build(options.base, options.compiler)
        programs[f" ({name})"] = program
    loaders.DEVICE = options.device
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        bench = Bench(options, programs, stack)
        print(f"{machine()}; {bench.results()['how']}", flush=True)
        for name in options.only or (measures.QUICK if options.quick else measures.GROUPS):
            measures.GROUPS[name](bench)
    print(f"\n{time.monotonic() - begin:.0f} s")
    return bench


def saved(results):
    return {**results, "cases": [dataclasses.asdict(case) for case in results["cases"]]}


def restored(path):
    results = json.loads(pathlib.Path(path).read_text())
    return {**results, "cases": [Case(**case) for case in results["cases"]]}


def show_targets(targets):
    print()
    for one in targets:
        print(f"{tables.number(one['value']):>8}  (wanted {tables.number(one['wanted'])}) "
              f"{'ok   ' if one['reached'] else 'BELOW'}  {one['title']}")


def main():
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that mounts are taken away
    failures = []
    if options.old:
        results = restored(options.old)
        for case in results["cases"]:
            print(f"\n{case.group}: {case.name}\n{tables.text(case)}")
    else:
        bench = measure(options)
        results, failures = bench.results(), bench.failures
        pathlib.Path(options.json).write_text(json.dumps(saved(results), indent=1) + "\n")
    show_targets(results["targets"])
    if options.readme:
        import report

        report.write(results)
    reached = sum(one["reached"] for one in results["targets"])
    print(f"\n{reached} of {len(results['targets'])} targets reached")
    for failure in failures:
        print("FAILED:", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
