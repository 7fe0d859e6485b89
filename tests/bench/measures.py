# SPDX-License-Identifier: MIT
"""What is measured: groups of cases. Each function takes the Bench of bench.py."""

import candidates
import ceilings
import checkpoints
import node
import scale
import storage
import warm
from measuring import Case, compare

BEST = candidates.BEST
PEAK_ALLOWED = 320  # MiB: buffer=256M and 64
IN_ORDER = ("order of the header", "order of names", "a quarter of the memory")
QUICK_FIELD = [storage.MEMORY, storage.SLOW[2], storage.NARROW[10]]
QUICK_PEERS = (*BEST, "load_file", "bindfs", "unshard")


def run(bench, group, where, wanted):
    """Measures these candidates on that storage; the Case."""
    case = Case(group, where.name)
    bench.begin(case)
    compare(case, where, bench.chosen(wanted), bench.folder(where), bench.options.rounds)
    bench.done(case)
    return case


def field(bench):
    """unshard, cold, beside what else reads the same shards."""
    wanted = [candidates.unshard(), *candidates.PEERS]
    reach = {storage.MEMORY: 0.75, storage.NARROW[2]: 1.3, storage.NARROW[10]: 1.3}
    if bench.options.quick:
        wanted = [one for one in wanted if one.name in QUICK_PEERS]
    for where in bench.places(QUICK_FIELD if bench.options.quick else storage.FIELD):
        case = run(bench, "field", where, wanted)
        bench.want(case, "unshard", reach.get(where, 1), BEST)
        if where == storage.MEMORY:
            bench.want_at_most(case, "unshard", "daemon_peak", PEAK_ALLOWED, "MiB")


def ways(bench):
    """What unshard can be asked for: where processors bound it, on a disk, and behind latency."""
    for where in bench.places([storage.MEMORY] if bench.options.quick else
                              [storage.MEMORY, storage.DISK, storage.SLOW[2]]):
        case = run(bench, "ways", where, candidates.WAYS)
        bench.want(case, "again, pages dropped", 0.95, ["cold"])
        for name in IN_ORDER:
            bench.want_at_most(case, name, "source", 1.02, "reads of each byte")
        bench.want_at_most(case, "O_DIRECT (fastsafetensors)", "source", 1.05, "reads of each byte")


def readers(bench):
    """A program that reads every byte and keeps none; and what storage gives at best."""
    size = bench.options.size
    reach = {storage.MEMORY: 1, storage.DISK: 1, storage.SLOW[2]: 8}
    for where in bench.places(reach):
        case = Case("readers", where.name)
        bench.begin(case)
        if where == storage.MEMORY:
            bench.ceiling(case, "filling fresh pages, nothing else",
                          lambda: ceilings.fill_pages(size))
        if where == storage.SLOW[2]:
            folder = bench.folder(where) / checkpoints.PLAIN
            bench.ceiling(case, "storage alone, 32 direct readers",
                          lambda where=where, folder=folder: ceilings.storage_alone(
                              folder, where.rules, bench.options.slow_size))
        compare(case, where, bench.chosen(candidates.READERS), bench.folder(where),
                bench.options.rounds)
        bench.done(case)
        beside = {storage.MEMORY: ["bindfs mmap", "mergerfs mmap"], storage.DISK: ["native read"],
                  storage.SLOW[2]: ["native mmap"]}
        bench.want(case, "unshard mmap", reach[where], beside[where])


def pickles(bench):
    """PyTorch files as safetensors, beside torch.load of the originals."""
    reach = {storage.SLOW[2]: 3, storage.DISK: 1}
    for where in bench.places(reach):
        with bench.pickles(where) as folder:
            case = Case("pickles", where.name)
            bench.begin(case)
            compare(case, where, bench.chosen(candidates.PICKLES), folder, bench.options.rounds)
            bench.done(case)
            bench.want(case, "unshard", reach[where], ["torch.load", "torch.load, mmap=True"])


def run_programs(bench):
    """Whole programs, and the same with `unshard run` in front."""
    for where in bench.places([storage.MEMORY, storage.DISK, storage.SLOW[2], storage.SLOW[10]]):
        case = run(bench, "run", where, candidates.RUN)
        for name in ("program", "program in Python"):
            if where != storage.MEMORY:
                bench.want(case, f"unshard run {name}", 0.9 if where == storage.DISK else 1, [name])


def verify(bench):
    """What verification costs: of chunks against a manifest; the first time, of whole files."""
    case = Case("verify", storage.MEMORY.name)
    bench.begin(case)
    folder = bench.folder(storage.MEMORY)
    bench.ceiling(case, "SHA-256 alone, one core", lambda: ceilings.hash_alone(
        folder / checkpoints.PLAIN, bench.options.size))
    compare(case, storage.MEMORY, bench.chosen(candidates.VERIFY), folder, bench.options.rounds)
    bench.done(case)
    bench.want(case, "manifest of chunks", 0.95, ["verify=off"])
    bench.want_at_most(case, "SHA-256 of files", "daemon", 1.1, "processor seconds a GB")
    slow = run(bench, "verify", storage.SLOW_LINK, candidates.VERIFY_SLOW)
    bench.want(slow, "SHA-256 of files", 0.95, ["verify=off"])


GROUPS = {"field": field, "ways": ways, "readers": readers, "warm": warm.measure,
          "pickles": pickles, "run": run_programs, "verify": verify, "scale": scale.measure,
          "node": node.measure}
QUICK = ["field", "ways", "scale", "node"]
