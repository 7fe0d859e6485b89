# SPDX-License-Identifier: MIT
"""What the machine can do at best: what no loader and no mount can pass."""

import hashlib
import json
import os
import subprocess
import time

import checkpoints
import mounts

SHARE = 2 << 20


def fio(*arguments):
    """GB/s of what fio does."""
    done = subprocess.run(["fio", "--name=bench", "--thread", "--group_reporting", "--bs=1M",
                           "--output-format=json", *arguments], check=True, stdout=subprocess.PIPE)
    job = json.loads(done.stdout)["jobs"][0]
    return {"rate": max(job["read"]["bw_bytes"], job["write"]["bw_bytes"]) / 1e9}


def fill_pages(size):
    """All processors, doing nothing else, fill fresh pages with bytes that they have: the least that
    any page cache costs."""
    with checkpoints.folder("/dev/shm") as folder:
        return fio(f"--directory={folder}", "--rw=write", f"--numjobs={os.cpu_count()}",
                   "--fallocate=none", f"--size={size // os.cpu_count()}")


def storage_alone(folder, rules, size):
    """What slow storage gives to many direct readers that do nothing with the bytes."""
    with mounts.slowfs(folder, rules) as storage:
        files = ":".join(map(str, sorted(storage.path.glob(checkpoints.PATTERN))))
        return fio(f"--filename={files}", "--rw=read", "--direct=1", "--numjobs=32",
                   f"--size={size // checkpoints.SHARDS}")


def hash_alone(folder, size):
    """SHA-256 in one thread, of bytes that are in memory already; "daemon": processor seconds a GB."""
    data = memoryview(next(iter(folder.glob(checkpoints.PATTERN))).read_bytes())
    digest, done, begin, own = hashlib.sha256(), 0, time.monotonic(), time.thread_time()
    while done < size:
        for at in range(0, len(data) - SHARE, SHARE):
            digest.update(data[at:at + SHARE])
            done += SHARE
    return {"rate": done / (time.monotonic() - begin) / 1e9,
            "daemon": (time.thread_time() - own) / (done / 1e9)}
