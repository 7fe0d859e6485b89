# SPDX-License-Identifier: MIT
"""What verification costs: chunks against a manifest, and the first mount of what only SHA-256 of
whole files is known of."""

import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time

SHARE = 2 << 20


def own_cache(folder):
    """Chunk digests of earlier mounts are kept there, and nowhere else."""
    os.environ["UNSHARD_CACHE_DIR"] = str(folder)


def chunks(bench, tools):
    """A cold load in memory, every chunk checked against a manifest, against verify=off."""
    with tools.checkpoint("/dev/shm", bench.options.size) as source:
        subprocess.run([bench.unshard, "seal", source], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        bench.compare("cold load, manifest / verify=off",
                      {"manifest": lambda: tools.cold_view(bench, source, "mmap"),
                       "off": lambda: tools.cold_view(bench, source, "mmap", "verify=off")},
                      ["off"], 0.95, 3 * bench.options.rounds)


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def hash_in_one_thread(source, size):
    """GB/s of SHA-256 in one thread, of bytes that are in memory already; and by its own time."""
    data = memoryview(bytearray((next(iter(source.glob("*.safetensors")))).read_bytes()))
    digest, done, begin, own = hashlib.sha256(), 0, time.monotonic(), time.thread_time()
    while done < size:
        for at in range(0, len(data) - SHARE, SHARE):
            digest.update(data[at:at + SHARE])
            done += SHARE
    return (done / (time.monotonic() - begin) / 1e9, done / (time.thread_time() - own) / 1e9)


def first_mount(bench, tools, source, size, *options):
    """GB/s from the start of the mount until all shards are verified, nothing being kept; and GB for
    each second of a processor that the daemon took for it."""
    cache = tempfile.mkdtemp(prefix="unshard-bench-cache-")
    own_cache(cache)
    try:
        begin = time.monotonic()
        with bench.mounted(source, *options) as mount:
            while not all(shard["state"] == "verified"
                          for component in tools.status(mount)["components"]
                          for shard in component["shards"]):
                if time.monotonic() - begin > 120:
                    raise TimeoutError("not verified within 120 s")
                time.sleep(0.005)
            seconds = time.monotonic() - begin
            own = processor_seconds(tools.status(mount)["pid"])
        return size / seconds / 1e9, size / own / 1e9
    finally:
        shutil.rmtree(cache)


def write_sums(source):
    """SHA256SUMS of the shards, as sha256sum writes it; the bytes that it covers."""
    files = sorted(source.glob("*.safetensors"))
    with open(source / "SHA256SUMS", "w") as sums:
        subprocess.run(["sha256sum", *(path.name for path in files)], cwd=source, check=True,
                       stdout=sums)
    return sum(path.stat().st_size for path in files)


def first(bench, tools):
    """The first strict mount of shards in memory, their SHA-256 known, against one thread's."""
    with tools.checkpoint("/dev/shm", bench.options.size) as source:
        size = write_sums(source)
        figures = {"unshard": [], "one thread": []}

        def measure_both(name, both):
            figures[name].append(both[1])
            return both[0]

        bench.compare("first mount, SHA-256 / one thread's",
                      {"unshard": lambda: measure_both(
                          "unshard", first_mount(bench, tools, source, size)),
                       "one thread": lambda: measure_both(
                           "one thread", hash_in_one_thread(source, size // 2))},
                      ["one thread"], 1.5)
        # The same of two processors that nobody else uses: what else this machine does has no
        # part in it.
        medians = {name: statistics.median(values) for name, values in figures.items()}
        bench.row("... for each second of a processor", medians,
                  medians["unshard"] / medians["one thread"], 0.75, figures)


def slower(bench, tools):
    """The same where storage is slower than hashing: a quarter of a gigabyte a second, 2 ms a request. The
    reader of a strict mount waits longer for the last shard, which is shown when all of it is there:
    the larger the checkpoint, the less that is."""
    with tools.checkpoint("/dev/shm", bench.options.size) as source:
        write_sums(source)

        def load(*options):
            with tools.other_mount([tools.SLOWFS, "-o", "latency=2,total=250000000"],
                                   source) as storage:
                cache = tempfile.mkdtemp(prefix="unshard-bench-cache-")
                own_cache(cache)
                try:
                    return tools.cold_view(bench, storage, "mmap", *options)
                finally:
                    shutil.rmtree(cache)

        bench.compare("0.25 GB/s storage, SHA-256 / verify=off",
                      {"SHA-256": load, "off": lambda: load("verify=off")}, ["off"], 0.95)


def measure(bench, tools):
    """tools: the module of bench.py."""
    with tempfile.TemporaryDirectory(prefix="unshard-bench-cache-") as cache:
        own_cache(cache)
        chunks(bench, tools)
    first(bench, tools)
    slower(bench, tools)
