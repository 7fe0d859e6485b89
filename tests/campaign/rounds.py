# SPDX-License-Identifier: MIT
"""What the campaigns share: checkpoints with what is true of them, rounds, and their figures."""

import argparse
import collections
import concurrent.futures
import contextlib
import gc
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import traceback

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/integration"))
for name, value in (("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_VERBOSITY", "error"),
                    ("HF_HUB_DISABLE_PROGRESS_BARS", "1"), ("TOKENIZERS_PARALLELISM", "false")):
    os.environ.setdefault(name, value)

import checkpoints  # noqa: E402
import harness  # noqa: E402
from reading import PAGE, can_open, compare_pages, read_or_fail  # noqa: E402,F401


@contextlib.contextmanager
def scratch():
    """A folder in memory, gone at the end."""
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-campaign-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- what is true ------------------------------------------------------------------------------

def header_of(data):
    """The tensors of a safetensors file in memory, as absolute ranges."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    return {name: tuple(8 + length + end for end in tensor["data_offsets"])
            for name, tensor in header.items() if name != "__metadata__"}


class Truth:
    """A good checkpoint: the bytes of every view of weights, and where each shard is in it."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.views, self.shards = {}, {}
        with harness.mounted(folder, "verify=off") as mount:
            for component in mount.status()["components"]:
                self.views[component["view"]] = (mount / component["view"]).read_bytes()
                for shard in component["shards"]:
                    self.shards[shard["file"]] = component["view"]
        self.ranges = {view: header_of(data) for view, data in self.views.items()}
        self.pages = {shard: self.pages_of(shard) for shard in self.shards}

    def pages_of(self, shard):
        """The pages of its view that hold bytes of the shard."""
        view = self.shards[shard]
        data = (self.folder / shard).read_bytes()
        if data == self.views[view]:
            return set(range(-(-len(data) // PAGE)))
        ranges = [self.ranges[view][name] for name in header_of(data)]
        return {page for start, end in ranges if end > start
                for page in range(start // PAGE, (end - 1) // PAGE + 1)}


def compare_tensors(path, truth, ranges):
    """By the header that the file shows: names of tensors that can be read and are not true."""
    data_of = {name: truth[start:end] for name, (start, end) in ranges.items()}
    fd = os.open(path, os.O_RDONLY)
    try:
        head = read_or_fail(fd, 0, 8)
        header = head and read_or_fail(fd, 8, int.from_bytes(head, "little"))
        if not header:
            return []
        found = {name: read_or_fail(fd, start, end - start)
                 for name, (start, end) in header_of(head + header).items() if end > start}
    finally:
        os.close(fd)
    return [name for name, data in found.items()
            if data is not None and data != data_of.get(name)]


# ---- rounds ------------------------------------------------------------------------------------

class Fault(AssertionError):
    """What must not happen, happened."""


def require(condition, *what):
    if not condition:
        raise Fault(" ".join(map(str, what)))


class Campaign:
    """Runs numbered rounds, each with random numbers of its own, so that one can be run again."""

    def __init__(self, name, seed, jobs, only=None):
        self.name, self.seed, self.jobs, self.only = name, seed, jobs, only
        self.figures = collections.Counter()
        self.failures = []

    def run(self, kinds, work):
        """kinds: a word for each round. work(number, kind, random) returns words to count."""
        numbers = [number for number in range(len(kinds)) if self.only in (None, number)]
        gc.collect()
        gc.freeze()  # the libraries that made the checkpoints: else every unmount looks at them
        begin = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            running = {pool.submit(self.round, number, kinds[number], work): number
                       for number in numbers}
            for done, future in enumerate(concurrent.futures.as_completed(running), 1):
                future.result()
                if sys.stderr.isatty() and done % 10 == 0:
                    print(f"\r{done}/{len(numbers)}", end="", file=sys.stderr, flush=True)
        return self.report(len(numbers), time.monotonic() - begin)

    def round(self, number, kind, work):
        rng = random.Random(f"{self.name} {self.seed} {number}")
        try:
            words = work(number, kind, rng)
        except Exception as error:  # a round that goes wrong in any way has failed
            trace = "" if isinstance(error, Fault) else traceback.format_exc()
            self.failures.append(f"round {number} ({kind}): {error}\n{trace}")
            return
        self.figures[kind] += 1
        for word in words:
            self.figures[f"    {word}"] += 1

    def report(self, count, seconds):
        for word, value in sorted(self.figures.items(), key=lambda item: item[0].startswith(" ")):
            print(f"{word:<44} {value:6}")
        for failure in self.failures[:20]:
            print(f"FAILED {failure}")
        print(f"{self.name}: {count - len(self.failures)} of {count} rounds as they should be, "
              f"{len(self.failures)} not, {seconds:.0f} s; seed {self.seed} "
              f"(--seed {self.seed} --round N runs one of them again)")
        return 1 if self.failures else 0


def parser(description):
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--seed", type=int, default=1)
    # Most rounds wait for something most of the time.
    options.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 1),
                         help="rounds at a time")
    options.add_argument("--round", type=int, help="only this one")
    return options


def interleave(counts):
    """A word for each round; kinds are spread evenly, so that a few rounds are of all kinds."""
    total = sum(counts.values())
    places = [((index + 0.5) / count, kind) for kind, count in counts.items()
              for index in range(count)]
    assert len(places) == total
    return [kind for _, kind in sorted(places)]
