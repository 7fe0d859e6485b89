# SPDX-License-Identifier: MIT
"""Who takes part: a way to mount the storage, or none, and a loader that reads what is there."""

import dataclasses

import checkpoints
import loaders
import mounts

COLD, WARM, AGAIN = "cold", "warm", "again"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """how: a loader. mount: gives a mount of a source, None: the files themselves. files: what is
    loaded. readers: how many share the work. begin: COLD is with the mount; WARM, once all is in the
    page cache; AGAIN, once it was loaded and the kernel has dropped its pages. checkpoint: which of
    the folders of `checkpoints`. memory: what the mount may use, as a share of the checkpoint.
    in_front: `unshard run` is what starts the loader, a whole program."""
    name: str
    how: str = "load"
    mount: object = None
    files: str = checkpoints.PATTERN
    readers: int = 1
    begin: str = COLD
    checkpoint: str = checkpoints.PLAIN
    options: tuple = ()
    program: object = None
    in_front: bool = False
    memory: float = 0

    def mounted(self, source, prefix=()):
        if self.program and not self.in_front:
            return mounts.unshard(self.program, source, self.options, prefix)
        return self.mount(source) if self.mount else None

    def front(self):
        return (self.program, "run") if self.in_front else ()


PEERS = [Candidate("thread pool", "pool"), Candidate("Run:ai streamer", "runai"),
         Candidate("fastsafetensors", "fast"), Candidate("load_file"),
         Candidate("load_file, pread", "pread"), Candidate("safetensors prefetch", "prefetch"),
         Candidate("cat, then load_file", "cat"),
         Candidate("bindfs", mount=mounts.bindfs), Candidate("mergerfs", mount=mounts.mergerfs),
         Candidate("rclone mount", mount=mounts.rclone)]
BEST = ("thread pool", "Run:ai streamer", "fastsafetensors")


def unshard(name="unshard", how="load", *options, files=checkpoints.MERGED, **more):
    """One for whichever program is measured, see of_programs()."""
    return Candidate(name, how, files=files, options=options, program="unshard", **more)


SHARDS = {"files": checkpoints.PATTERN}
# What unshard itself can be asked for: in memory, where processors bound it; and behind latency.
WAYS = [
    unshard("cold"),
    unshard("cold, verify=off", "load", "verify=off"),
    unshard("warm", begin=WARM),
    unshard("layout=shards, load_file", "load", "layout=shards", **SHARDS),
    unshard("layout=shards, thread pool", "pool", "layout=shards", **SHARDS),
    unshard("layout=shards, Run:ai", "runai", "layout=shards", **SHARDS),
    unshard("first strict load, SHA-256", checkpoint=checkpoints.SUMS),
    unshard("again, pages dropped", begin=AGAIN),
    unshard("O_DIRECT (fastsafetensors)", "fast"),
    unshard("4 readers at 4 places", "places", readers=4),
    unshard("4 ranks, slices", "slices", readers=4),
    unshard("order of the header", "by header"),
    unshard("order of names", "by name"),
    unshard("random order", "at random"),
    unshard("a quarter of the memory", "mmap", "buffer=16M", memory=0.25),
]
READERS = [Candidate("native mmap", "mmap"), Candidate("native read", "read"),
           Candidate("bindfs mmap", "mmap", mounts.bindfs),
           Candidate("mergerfs mmap", "mmap", mounts.mergerfs),
           unshard("unshard mmap", "mmap"), unshard("unshard read", "read")]
PICKLES = [unshard(), Candidate("torch.load", "torch.load", files=checkpoints.PICKLES),
           Candidate("torch.load, mmap=True", "torch.load mmap", files=checkpoints.PICKLES)]
RUN = [each for how in ("program", "program in Python")
       for each in (Candidate(how, how),
                    unshard(f"unshard run {how}", how, files=checkpoints.PATTERN, in_front=True))]
VERIFY = [unshard("manifest of chunks", checkpoint=checkpoints.MANIFEST),
          unshard("verify=off", "load", "verify=off"),
          unshard("SHA-256 of files", checkpoint=checkpoints.SUMS),
          unshard("SHA-256, nobody reads", "verified", files="", checkpoint=checkpoints.SUMS)]
VERIFY_SLOW = [unshard("SHA-256 of files", checkpoint=checkpoints.SUMS),
               unshard("verify=off", "load", "verify=off")]


def of_programs(candidates, programs):
    """Those of unshard once for each program; programs: name to add -> path."""
    for one in candidates:
        if one.program is None:
            yield one
            continue
        for suffix, path in programs.items():
            yield dataclasses.replace(one, name=one.name + suffix, program=path)


def why_not(candidate):
    return loaders.why_not(candidate.how)
