# SPDX-License-Identifier: MIT
"""Many readers at random while the prefetcher runs and page cache is taken away beside them."""

import json
import subprocess
import sys
import threading
import time

import pytest

from harness import SANITIZER, drop_pages, mounted, slow

# One process of the stress: threads that compare random ranges of the view with a plain copy, by
# read and by mmap, until each has done its share.
PROCESS = """
import json, mmap, os, random, sys, threading
view, plain, seed, threads, rounds = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6])
expected = open(plain, "rb").read()
fd = os.open(view, os.O_RDONLY)
mapped = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
assert len(mapped) == len(expected)
wrong = []
def work(number):
    pick = random.Random(seed * 1000 + number)
    for _ in range(rounds):
        start = pick.randrange(len(expected))
        size = pick.choice([1, 100, 4096, 65536, 300000])
        end = min(start + size, len(expected))
        if pick.random() < 0.5:
            found = mapped[start:end]
        else:
            found = os.pread(fd, end - start, start)
        if found != expected[start:end]:
            wrong.append((start, end, len(found)))
            return
pool = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for thread in pool: thread.start()
for thread in pool: thread.join()
print(json.dumps(wrong))
"""


def drop_until(finished, view):
    while not finished.is_set():
        drop_pages(view)
        finished.wait(0.05)


@pytest.fixture(scope="module")
def plain_copy(big, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "copy"
    with mounted(big) as mount:
        path.write_bytes((mount / "model.safetensors").read_bytes())
    return path


def stress(view, plain, rounds, processes=4, threads=8, bound=150):
    """All processes end in time and find only right bytes."""
    finished = threading.Event()
    dropper = threading.Thread(target=drop_until, args=(finished, view))
    dropper.start()
    pool = [subprocess.Popen([sys.executable, "-c", PROCESS, str(view), str(plain), str(seed),
                              str(threads), str(rounds)], stdout=subprocess.PIPE)
            for seed in range(processes)]
    end = time.monotonic() + bound
    try:
        for process in pool:
            output, _ = process.communicate(timeout=max(1, end - time.monotonic()))
            assert process.returncode == 0
            assert json.loads(output) == []
    finally:
        finished.set()
        dropper.join()
        for process in pool:
            process.kill()
            process.wait()


@pytest.mark.parametrize("options", [("chunk=256K", "buffer=4M"), ()], ids=["small", "default"])
def test_right_bytes_while_prefetching(big, plain_copy, options):
    with mounted(big, *options) as mount:
        stress(mount / "model.safetensors", plain_copy, 20 if SANITIZER else 150)


def test_right_bytes_from_slow_storage(big, plain_copy):
    with slow(big, latency=1) as storage:
        with mounted(storage.path, "window=16M") as mount:
            stress(mount / "model.safetensors", plain_copy, 10 if SANITIZER else 60)


def test_mount_and_umount_under_readers(big, plain_copy):
    for _ in range(3):
        with mounted(big, "chunk=64K") as mount:
            stress(mount / "model.safetensors", plain_copy, 5, processes=2, threads=4)
