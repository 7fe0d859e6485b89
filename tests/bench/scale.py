# SPDX-License-Identifier: MIT
"""Large checkpoints, of sparse files: what a mount costs before anybody reads.

"mount": seconds until it answers; "resident": bytes of memory then; "idle": milliseconds of a
processor in each second while nothing happens; "look-ups": of shards, a second (system calls that
name one, counted by strace); "noticed": seconds until a replaced shard is known."""

import contextlib
import dataclasses
import os
import shutil
import subprocess
import time

import checkpoints
import measuring
import mounts
from measuring import Case

OPTIONS = ("prefetch=follow",)  # a hole of 700 GB is read for nothing
SETTLED, IDLE, BOUND = 1.5, 4, 60


@dataclasses.dataclass(frozen=True)
class Size:
    name: str
    components: int
    shards: int   # of each component
    size: int     # of each shard
    tensors: int  # of each shard
    options: tuple = OPTIONS
    rules: str = ""
    quick: bool = False


SIZES = [
    Size("700 GB in 163 shards, 91,000 tensors", 1, 163, 4_300_000_000, 560, quick=True),
    Size("the same, chunk=64K", 1, 163, 4_300_000_000, 560, (*OPTIONS, "chunk=64K")),
    Size("1,000 components of two shards", 1000, 2, 100 << 20, 8, quick=True),
    Size("those, storage with 10 ms", 1000, 2, 100 << 20, 8, rules="latency=10"),
    Size("50 components of 1,000 shards", 50, 1000, 16 << 20, 1),
    Size("2,000 shards, storage with 10 ms", 1, 2000, 100 << 20, 20, rules="latency=10", quick=True),
    Size("200 shards with 100,000 tensors", 1, 200, 1 << 30, 500),
    Size("the same, storage with 10 ms", 1, 200, 1 << 30, 500, rules="latency=10"),
]


def make(size, folder):
    for number in range(size.components):
        path = folder if size.components == 1 else folder / f"component_{number:04d}"
        checkpoints.sparse_component(path, size.shards, size.size, size.tensors)


def idle(mount):
    before = mounts.processor_seconds(mount.pid)
    time.sleep(IDLE)
    return (mounts.processor_seconds(mount.pid) - before) / IDLE * 1000


def lookups(mount):
    """None: there is no strace, or it may not."""
    if not shutil.which("strace"):
        return None
    done = subprocess.run(["timeout", "-s", "INT", str(IDLE), "strace", "-qq", "-f", "-y",
                           "-e", "trace=%file,fstat,statx", "-p", str(mount.pid)], check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines = done.stderr.splitlines()
    if any(b"ptrace" in line for line in lines[:3]):
        return None
    return sum(b".safetensors" in line and b"resumed" not in line for line in lines) / IDLE


def noticed(size, folder, log):
    """Replaces the last shard but one by another file with the same tensors; None: not within BOUND."""
    name = checkpoints.shard_name(size.shards - 1, size.shards)
    path = next(iter(sorted(folder.rglob(name))))
    checkpoints.sparse_shard(folder.parent / "new", size.shards - 1, size.size, size.tensors)
    said = log.stat().st_size
    os.replace(folder.parent / "new", path)
    begin = time.monotonic()
    while time.monotonic() < begin + BOUND:
        with open(log, "rb") as file:
            file.seek(said)
            if name.encode() in file.read():
                return time.monotonic() - begin
        time.sleep(0.005)
    return None


def once(size, program, folder, thorough):
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(checkpoints.folder(None))
        source = folder
        if size.rules:
            source = stack.enter_context(mounts.slowfs(folder, size.rules)).path
        begin = time.monotonic()
        mount = stack.enter_context(
            mounts.unshard(program, source, (*size.options, f"log={own}/log")))
        run = {"mount": mount.answered - begin}
        if thorough:
            time.sleep(SETTLED)
            run["resident"] = mounts.memory_of(mount.pid, "VmRSS")
            run["idle"] = idle(mount)
            run["look-ups"] = lookups(mount)
            if size.components == 1:  # of many nobody has looked at any yet
                run["noticed"] = noticed(size, folder, own / "log")
        return run


def measure_size(bench, size):
    case = Case("scale", size.name)
    with checkpoints.folder("/dev/shm") as parent:
        folder = parent / "checkpoint"
        make(size, folder)
        measuring.rounds(bench, case, lambda program, last: once(size, program, folder, last))
    bench.done(case)
    return case


def measure(bench):
    for size in SIZES:
        if size.quick or not bench.options.quick:
            try:
                measure_size(bench, size)
            except (mounts.Left, subprocess.SubprocessError, OSError) as error:
                bench.failed(f"{size.name}: {error}")
