# SPDX-License-Identifier: MIT
"""A view after its pages are stored, beside the same bytes in the page cache of a file: one of tmpfs,
whose pages are as small as those of FUSE, and one of the local disk, whose file system may keep many
pages together in one folio, which FUSE cannot (Linux 6.18).

How fast pages are read depends on where in memory they happen to lie: the small pages that are
filled first after a gigabyte was freed lie scattered, and are read a fifth slower, whosever they
are. So each round fills all of them anew, in turn in this order and in the reverse."""

import contextlib
import json
import pathlib
import shutil
import subprocess

import checkpoints
import loaders
import mounts
from measuring import Case

HOW = ["read", "mmap"]
TMPFS, LOCAL = "a file of tmpfs", "a file of the local disk"


def reader(how, path):
    done = subprocess.run([loaders.READER, how, path], check=True, stdout=subprocess.PIPE)
    said = json.loads(done.stdout)
    return said["bytes"] / said["seconds"] / 1e9


def fill_view(stack, program, source):
    mount = stack.enter_context(mounts.unshard(program, source))
    mounts.quiet(program, "wait", mount.path)
    return mount.path / checkpoints.MERGED


def fill_plain(stack, original, path):
    shutil.copyfile(original, path)
    stack.callback(path.unlink)
    return path


def one_round(fills, names, cases):
    with contextlib.ExitStack() as stack:
        files = {name: fills[name](stack) for name in names}
        for case in cases:
            for name in names:
                reader(case.name, files[name])
            for name in names:
                rate = max(reader(case.name, files[name]) for _ in range(2))
                case.runs.setdefault(name, []).append({"rate": rate})


def measure(bench):
    cases = [Case("warm", how) for how in HOW]
    source = bench.folder("disk") / checkpoints.PLAIN
    with checkpoints.folder(bench.options.disk) as disk, checkpoints.folder("/dev/shm") as memory:
        original = disk / "bytes"
        with mounts.unshard(bench.programs[""], source) as mount:
            shutil.copyfile(mount.path / checkpoints.MERGED, original)
        fills = {"unshard" + suffix: lambda stack, program=program: fill_view(stack, program, source)
                 for suffix, program in bench.programs.items()}
        for name, folder in ((TMPFS, memory), (LOCAL, disk)):
            fills[name] = lambda stack, path=pathlib.Path(folder) / "plain": \
                fill_plain(stack, original, path)
        for number in range(2 * bench.options.rounds):
            one_round(fills, list(fills) if number % 2 == 0 else list(fills)[::-1], cases)
    for case in cases:
        bench.done(case)
        bench.want(case, "unshard", 0.95, [TMPFS])
