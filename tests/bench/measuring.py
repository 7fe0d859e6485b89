# SPDX-License-Identifier: MIT
"""Runs, and interleaved rounds of them."""

import contextlib
import dataclasses
import functools
import json
import statistics
import subprocess
import time

import candidates
import checkpoints
import loaders
import mounts

PATIENCE = 8  # seconds after which one run of a candidate says enough
TOUCHED = 256 << 20


@dataclasses.dataclass
class Case:
    """What was measured side by side: by candidate, what each of its runs has told."""
    group: str
    name: str
    runs: dict = dataclasses.field(default_factory=dict)
    failed: dict = dataclasses.field(default_factory=dict)
    left_out: dict = dataclasses.field(default_factory=dict)
    first_touch: list = dataclasses.field(default_factory=list)  # microseconds a page, each round

    def values(self, name, what="rate"):
        values = [run.get(what) for run in self.runs.get(name, [])]
        return [value for value in values if value is not None]

    def median(self, name, what="rate"):
        values = self.values(name, what)
        return statistics.median(values) if values else None


def first_touch():
    """Microseconds that a page costs which nobody has touched: what the machine itself adds to a
    run, and on a virtual one what swings most."""
    done = subprocess.run([loaders.READER, "touch", str(TOUCHED)], check=True,
                          stdout=subprocess.PIPE)
    said = json.loads(done.stdout)
    return said["seconds"] / (said["bytes"] / 4096) * 1e6


def rounds(bench, case, once):
    """Runs once(program, last) of every program in turn, and again; the first round counts for
    nothing."""
    for number in range(bench.options.rounds + 1):
        for suffix, program in bench.programs.items():
            run = once(program, number == bench.options.rounds)
            if number:
                case.runs.setdefault("unshard" + suffix, []).append(run)


def together(loads, pattern):
    """Lets all go at once; when the last one has what it wants."""
    for load in loads:
        load.go(pattern)
    said = [load.wait() for load in loads]
    for one in said:
        if "error" in one:
            raise RuntimeError(one["error"])
    return {"end": max(one["end"] for one in said),
            **{what: sum(one[what] for one in said)
               for what in ("bytes", "reader", "reader_storage")},
            **({"sum": sum(one["sum"] for one in said) % (1 << 64)} if "sum" in said[0] else {})}


@contextlib.contextmanager
def forked(candidate):
    loads = []
    try:
        for part in range(candidate.readers):
            loads.append(loaders.Load(candidate.how, part, candidate.readers, candidate.front()))
        yield loads
    finally:
        for load in loads:
            load.end()


def prepare(candidate, mount):
    """Brings a mount into the state in which the clock starts."""
    program = candidate.program
    if candidate.begin == candidates.WARM:
        mounts.quiet(program, "wait", mount.path)
    if candidate.begin == candidates.AGAIN:
        with forked(candidate) as loads:
            together(loads, mount.path / candidate.files)
        mounts.quiet(program, "wait", mount.path)
        checkpoints.drop_pages([mount.path / candidate.files])


def once(storage, candidate, folder):
    """One run: {"seconds", "bytes", "rate" (GB/s), "reader" and "daemon" (processor seconds a GB),
    "daemon_peak" (bytes), "source" (reads of each byte), "sum"}, as far as there is such a thing."""
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(storage.cold(folder / candidate.checkpoint))
        prefix = ()
        if candidate.memory:
            size = sum(path.stat().st_size for path in source.path.glob(checkpoints.PATTERN))
            prefix = stack.enter_context(mounts.memory_group(int(candidate.memory * size)))
        loads, mount = stack.enter_context(forked(candidate)), None
        begin = time.monotonic()
        path = source.path
        mounting = candidate.mounted(source.path, prefix)
        if mounting:
            mount = stack.enter_context(mounting)
            path = mount.path
        if candidate.begin != candidates.COLD:
            prepare(candidate, mount)
            begin = time.monotonic()
        run = together(loads, path / candidate.files)
        run["seconds"] = run.pop("end") - begin
        return with_costs(run, source, mount, candidate)


def with_costs(run, source, mount, candidate):
    size = run["bytes"] / 1e9
    run["rate"] = size / run["seconds"]
    run["reader"] /= size
    if mount:
        run.update(mount.costs())
        run["daemon"] /= size
    if candidate.begin != candidates.COLD:
        run.pop("daemon", None)  # that was before the clock started, too
    elif source.storage.rules or not candidate.in_front:  # whose daemon's share nobody tells
        run["source"] = source.bytes_read(run, mount)
    return run


def takes_part(case, candidate):
    why = candidates.why_not(candidate)
    if why:
        leave_out(case, candidate.name, why)
    return not why


@functools.cache
def say_once(words):
    print(words, flush=True)


def leave_out(case, name, why):
    case.left_out[name] = why
    say_once(f"  left out: {name}: {why}")


def run_one(case, storage, candidate, folder):
    """None: it failed, or cannot take part."""
    try:
        return once(storage, candidate, folder)
    except mounts.Left as error:
        leave_out(case, candidate.name, str(error))
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        case.failed[candidate.name] = str(error)
        print(f"  FAILED: {candidate.name}: {error}", flush=True)
    return None


def compare(case, storage, wanted, folder, rounds):
    """Runs all in turn, there and back, the first time for nothing: what is cached, allocated and
    compiled then is there for all. Whoever takes long in it has that one run counted."""
    wanted = [one for one in wanted if takes_part(case, one)]
    case.runs.update({one.name: [] for one in wanted})
    for number in range(rounds + 1):
        case.first_touch.append(first_touch())
        for candidate in list(wanted if number % 2 == 0 else wanted[::-1]):
            run = run_one(case, storage, candidate, folder)
            if run and (number or run["seconds"] > PATIENCE):
                case.runs[candidate.name].append(run)
            if not run or (number == 0 and run["seconds"] > PATIENCE):
                wanted.remove(candidate)
    case.runs = {name: runs for name, runs in case.runs.items() if runs}
    check_sums(case)
    return case


def check_sums(case):
    """All of them must have loaded the same bytes."""
    sums = {name: runs[0]["sum"] for name, runs in case.runs.items() if "sum" in runs[0]}
    usual = statistics.mode(sums.values()) if sums else None
    for name, one in sums.items():
        if one != usual:
            case.failed[name] = "it has loaded other bytes than the others"
            print(f"  FAILED: {name}: {case.failed[name]}", flush=True)
