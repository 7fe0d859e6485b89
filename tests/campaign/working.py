#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Uses a mount in every way, one after the other at random, and checks what it gets.

As a program, so that what never returns can be waited for with a bound, and that no other thread
makes it wait: usage: working.py MOUNTPOINT VIEW TRUTH SEED. Works until its standard input ends;
then prints a line of JSON: how often it did what, what went wrong, and what took longer than
SLOW seconds, from when to when (CLOCK_MONOTONIC).
"""

import contextlib
import json
import mmap
import os
import pathlib
import random
import select
import sys
import time

PAGE = 4096
SLOW = 0.02
MOST_FAILURES = 20


class Work:
    def __init__(self, mountpoint, view, truth, seed):
        self.path = pathlib.Path(mountpoint)
        self.view = self.path / view
        self.truth = mmap.mmap(os.open(truth, os.O_RDONLY), 0, prot=mmap.PROT_READ)
        self.size = len(self.truth)
        self.random = random.Random(seed)
        self.held = os.open(self.view, os.O_RDONLY)
        self.straight = os.open(self.view, os.O_RDONLY | os.O_DIRECT)
        self.names = sorted(os.listdir(self.path))
        self.buffer = mmap.mmap(-1, 16 * PAGE)

    def somewhere(self):
        return self.random.randrange(self.size // PAGE) * PAGE

    def read(self):
        at, length = self.somewhere(), self.random.choice([1, PAGE, 1 << 16, 1 << 20])
        data, true = os.pread(self.held, length, at), self.truth[at:at + length]
        assert data == true[:len(data)]
        if len(data) < len(true):
            raise OSError("what lies before an error is given first")

    def read_anew(self):
        at = self.somewhere()
        with open(self.view, "rb", buffering=0) as file:
            assert os.pread(file.fileno(), PAGE, at) == self.truth[at:at + PAGE]

    def map(self):
        at = self.somewhere()
        with mmap.mmap(self.held, 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[at:at + PAGE] == self.truth[at:at + PAGE]

    def read_straight(self):
        at = self.somewhere()
        wanted = min(len(self.buffer), self.size - at)
        got = os.preadv(self.straight, [self.buffer], at)
        assert got == wanted and self.buffer[:got] == self.truth[at:at + got]

    def drop(self):
        os.posix_fadvise(self.held, self.somewhere(), 1 << 20, os.POSIX_FADV_DONTNEED)

    def stat(self):
        assert os.stat(self.view).st_size == self.size

    def miss(self):
        assert not os.path.lexists(self.path / f"none-{self.random.randrange(10)}")

    def list(self):
        assert sorted(os.listdir(self.path)) == self.names

    def attribute(self):
        assert os.getxattr(self.view, "user.unshard.state")

    def status(self):
        assert json.loads((self.path / ".unshard/status.json").read_text())["pid"] > 0

    def metrics(self):
        assert (self.path / ".unshard/metrics").read_text().endswith("\n")


WAYS = [Work.read, Work.read, Work.read, Work.read_anew, Work.map, Work.map, Work.read_straight,
        Work.drop, Work.drop, Work.stat, Work.miss, Work.list, Work.attribute, Work.status,
        Work.metrics]


def over():
    return select.select([sys.stdin], [], [], 0)[0]


def main():
    mountpoint, view, truth, seed = sys.argv[1:]
    done, failures, slow = 0, [], []
    work = Work(mountpoint, view, truth, seed)
    print("ready", flush=True)
    while not over():
        way = work.random.choice(WAYS)
        begun = time.monotonic()
        try:
            way(work)
        except (OSError, AssertionError, ValueError) as error:
            if len(failures) < MOST_FAILURES:
                failures.append(f"{way.__name__}: {error!r}"[:300])
        ended = time.monotonic()
        done += 1
        if ended - begun > SLOW:
            slow.append((begun, ended, way.__name__))
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"done": done, "failures": failures, "slow": slow}), flush=True)
    os._exit(0)  # without what closing could still ask of a mount that has gone


if __name__ == "__main__":
    main()
