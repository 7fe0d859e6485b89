#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What large checkpoints cost before anybody reads: time until the mount answers, memory, and the
processor time of a mount that nobody uses. All files are sparse, nothing is prefetched."""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
SLOWFS = TOP / "build/tests/slowfs/slowfs"
TICKS = os.sysconf("SC_CLK_TCK")
SHARD = 4300 << 20


def shard(path, names, size):
    """A safetensors file with a tensor for each name, `size` bytes in all, nothing of it written."""
    each = max(2, size // len(names) // 2 * 2)
    header = {name: {"dtype": "BF16", "shape": [each // 2],
                     "data_offsets": [at * each, (at + 1) * each]} for at, name in enumerate(names)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + each * len(names))


def shards(folder, count, tensors, size):
    folder.mkdir(parents=True)
    for number in range(count):
        shard(folder / f"model-{number + 1:05d}-of-{count:05d}.safetensors",
              [f"model.layers.{number}.block.{one}.weight" for one in range(tensors)], size)


def components(folder, count):
    for number in range(count):
        shards(folder / f"component-{number:04d}", 2, 4, 1 << 20)


SCALES = {
    "163 shards, 700 GB": (lambda folder: shards(folder, 163, 7, SHARD), [], {}),
    "the same, chunk=64K": (lambda folder: shards(folder, 163, 7, SHARD), ["chunk=64K"], {}),
    "1,000 components": (lambda folder: components(folder, 1000), [], {}),
    "50,000 shards": (lambda folder: shards(folder, 50000, 1, 4096), [], {}),
    "100,000 tensors in 200 shards": (lambda folder: shards(folder, 200, 500, 1 << 20), [], {}),
    "the same, on 10 ms storage": (lambda folder: shards(folder, 200, 500, 1 << 20), [],
                                   {"latency": 10}),
    "2,000 shards on 10 ms storage": (lambda folder: shards(folder, 2000, 1, 4096), [],
                                      {"latency": 10}),
}


@contextlib.contextmanager
def mountpoint():
    path = tempfile.mkdtemp(prefix="unshard-scale-mnt-")
    try:
        yield path
    finally:
        if os.path.ismount(path):
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
        os.rmdir(path)


@contextlib.contextmanager
def storage(folder, settings):
    """The folder, or a slow storage over it."""
    if not settings:
        yield folder
        return
    with mountpoint() as path:
        options = ",".join(f"{name}={value}" for name, value in settings.items())
        subprocess.run([SLOWFS, "-o", options, folder, path], check=True)
        yield path
        subprocess.run(["umount", path], check=True)


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid):
    """MiB of memory that the process has."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) / 256


def measure(unshard, folder, options, settings, idle):
    """Seconds until the mount answers, MiB, per cent of a core while nothing happens."""
    flags = [part for option in ["prefetch=off", *options] for part in ("-o", option)]
    with storage(folder, settings) as source, mountpoint() as path:
        start = time.monotonic()
        subprocess.run([unshard, "mount", *flags, source, path], check=True)
        seconds = time.monotonic() - start
        with open(f"{path}/.unshard/status.json", encoding="utf8") as file:
            pid = json.load(file)["pid"]
        time.sleep(1)  # the prober looks up views of components
        before = processor_seconds(pid)
        time.sleep(idle)
        busy = (processor_seconds(pid) - before) / idle * 100
        memory = resident(pid)
        subprocess.run([unshard, "umount", path], check=True)
    return seconds, memory, busy


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unshard", default=TOP / "build/unshard", help="the program to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=float, default=10, help="seconds to watch an idle mount for")
    parser.add_argument("--only", default="", help="a part of the names of what to measure")
    parser.add_argument("--folder", help="where the checkpoints are made")
    options = parser.parse_args()
    print("| | until it answers | memory | idle |\n|---|---|---|---|")
    for name, (make, flags, settings) in SCALES.items():
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="unshard-scale-", dir=options.folder) as folder:
            make(pathlib.Path(folder) / "source")
            figures = [measure(options.unshard, f"{folder}/source", flags, settings, options.idle)
                       for _ in range(options.rounds)]
        seconds, memory, busy = map(statistics.median, zip(*figures))
        print(f"| {name} | {seconds:.2f} s | {memory:.0f} MiB | {busy:.2f} % |", flush=True)


if __name__ == "__main__":
    main()
