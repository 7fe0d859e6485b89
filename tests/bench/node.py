# SPDX-License-Identifier: MIT
"""One mount of many models: what it costs to have it, and to look into one of them.

"mount": seconds until it answers; "look": milliseconds of the first look into a model; "resident":
bytes of memory when all have been listed and none is open; "visible": seconds until a new model is
there. Then three models in turn where the budget holds two: "rate", "peak" (of the budget, what
was in the page cache at most), "source" (reads of each byte, where each model is loaded anew). And
one model that many read at once, each beginning at another place: "rate" of them together, "source"
again."""

import concurrent.futures
import contextlib
import dataclasses
import os
import shutil
import statistics
import time

import checkpoints
import measuring
import mounts
from measuring import Case

LOOKS, BOUND = 40, 30
TURNS = 3
READERS, BLOCK = 64, 8 << 20


@dataclasses.dataclass(frozen=True)
class Root:
    name: str
    models: int
    shards: int  # of each model
    rules: str = ""
    quick: bool = False


ROOTS = [
    Root("1,000 models of 50 shards", 1000, 50, quick=True),
    Root("those, storage with 10 ms", 1000, 50, "latency=10"),
    Root("10,000 models of 2 shards", 10000, 2),
]


def model_name(number):
    return f"model_{number:05d}"


def make(root, folder):
    for number in range(root.models):
        checkpoints.sparse_component(folder / model_name(number), root.shards, 100 << 20, 8)


def look_into(path):
    """As a loader does that finds out what there is: the names, and what each of them is."""
    begin = time.monotonic()
    found = [entry.stat().st_size for entry in os.scandir(path)]
    return (time.monotonic() - begin) * 1000, len(found)


def visible(folder, mount):
    """Seconds from when a new model lies in the source until the mount shows it, merged."""
    checkpoints.sparse_component(folder.parent / "new", 2, 1 << 20, 4)
    os.rename(folder.parent / "new", folder / "new")
    begin = time.monotonic()
    while time.monotonic() < begin + BOUND:
        with contextlib.suppress(OSError):
            os.stat(mount.path / "new" / checkpoints.MERGED)
            return time.monotonic() - begin
        time.sleep(0.005)
    return None


def once(root, program, folder):
    with contextlib.ExitStack() as stack:
        source = folder
        if root.rules:
            source = stack.enter_context(mounts.slowfs(folder, root.rules)).path
        begin = time.monotonic()
        mount = stack.enter_context(mounts.unshard(program, source, ("prefetch=open",)))
        run = {"mount": mount.answered - begin}
        step = max(1, root.models // LOOKS)
        looks = [look_into(mount.path / model_name(number))[0]
                 for number in range(0, root.models, step)]
        run["look"] = statistics.median(looks)
        if not root.rules:
            for number in range(root.models):
                look_into(mount.path / model_name(number))
            run["resident"] = mounts.memory_of(mount.pid, "VmRSS")
        run["visible"] = visible(folder, mount)
        shutil.rmtree(folder / "new")
        return run


def measure_root(bench, root):
    case = Case("node", root.name)
    with checkpoints.folder("/dev/shm") as parent:
        folder = parent / "root"
        make(root, folder)
        measuring.rounds(bench, case, lambda program, _: once(root, program, folder))
    bench.done(case)
    bench.want_at_most(case, "unshard", "mount", 0.2, "s until it answers")
    if not root.rules:
        bench.want_at_most(case, "unshard", "look", 20, "ms of the first look")
        bench.want_at_most(case, "unshard", "resident", 100, "MiB")
    bench.want_at_most(case, "unshard", "visible", 2, "s until a new model is there")


# ---- three models in turn --------------------------------------------------------------------


def read_model(path):
    """Bytes, all of them."""
    read, block = 0, bytearray(BLOCK)
    with open(path / checkpoints.MERGED, "rb", buffering=0) as file:
        while got := file.readinto(block):
            read += got
    return read


def cached(status):
    return sum(component["bytes_published"] for component in status["components"])


def in_turn(program, folder, names, budget):
    with mounts.unshard(program, folder, ("prefetch=open", f"budget={budget}")) as mount:
        begin, read, most = time.monotonic(), 0, 0
        before = mount.status()["bytes_read"]
        for _ in range(TURNS):
            for name in names:
                read += read_model(mount.path / name)
                most = max(most, cached(mount.status()))
        seconds = time.monotonic() - begin
        return {"rate": read / 1e9 / seconds, "peak": most / budget,
                "source": (mount.status()["bytes_read"] - before) / read}


def measure_budget(bench):
    case = Case("budget", "three models in turn, room for two")
    names = [model_name(number) for number in range(3)]
    size = bench.options.size
    with checkpoints.folder("/dev/shm") as parent:
        for name in names:
            with checkpoints.shards(parent, size // 2, bench.programs[""]) as made:
                os.rename(made / checkpoints.PLAIN, parent / name)
        measuring.rounds(bench, case,
                         lambda program, _: in_turn(program, parent, names, size * 21 // 20))
    bench.done(case)
    bench.want_at_most(case, "unshard", "peak", 1.05, "of the budget")
    bench.want_at_most(case, "unshard", "source", 1.05, "reads of each byte")


# ---- many readers of one model ---------------------------------------------------------------


def read_round(path, start):
    """All bytes, from `start` to the end and then what lies before it."""
    read, block = 0, bytearray(BLOCK)
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for begin, end in ((start, size), (0, start)):
            while begin < end:
                begin += os.preadv(file.fileno(), [memoryview(block)[:end - begin]], begin)
            read += end
    return read - start


def at_once(program, source):
    with mounts.unshard(program, source) as mount:
        path, begin = mount.path / checkpoints.MERGED, time.monotonic()
        size = path.stat().st_size
        starts = [size * number // READERS for number in range(READERS)]
        with concurrent.futures.ThreadPoolExecutor(READERS) as readers:
            read = sum(readers.map(read_round, [path] * READERS, starts))
        seconds = time.monotonic() - begin
        return {"rate": read / 1e9 / seconds, "source": mount.status()["bytes_read"] / size}


def measure_readers(bench):
    case = Case("many", f"{READERS} readers of one model")
    with checkpoints.folder("/dev/shm") as parent, \
            checkpoints.shards(parent, bench.options.size // 4, bench.programs[""]) as made:
        measuring.rounds(bench, case, lambda program, _: at_once(program, made / checkpoints.PLAIN))
    bench.done(case)
    bench.want_at_most(case, "unshard", "source", 1.005, "reads of each byte")


def measure(bench):
    for root in ROOTS:
        if root.quick or not bench.options.quick:
            try:
                measure_root(bench, root)
            except (mounts.Left, OSError) as error:
                bench.failed(f"{root.name}: {error}")
    measure_budget(bench)
    measure_readers(bench)
