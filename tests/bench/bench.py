#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what a reader gets through a mount, side by side with what it gets otherwise.

Every round runs the candidates one after the other, so that noise of the machine hits all alike;
what is printed is medians and their ratios. Figures are GB/s of a reader that touches every byte.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
READER = TOP / "build/tests/bench/reader"
SLOWFS = TOP / "build/tests/slowfs/slowfs"
SHARDS = 8
MEASURES = ["warm", "tmpfs", "slow", "disk", "torch", "memory", "verify"]


# ---- checkpoints and mounts --------------------------------------------------------------------

def write_shard(path, number, size):
    """One safetensors file with tensors of 16 MiB, random bytes repeated."""
    tensor = 16 << 20
    count = max(1, size // tensor)
    header = {f"layer.{number}.{one}.weight":
              {"dtype": "BF16", "shape": [tensor // 2],
               "data_offsets": [one * tensor, (one + 1) * tensor]} for one in range(count)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    block = os.urandom(tensor)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in range(count):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def checkpoint(parent, size):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-bench-", dir=parent))
    try:
        for number in range(SHARDS):
            write_shard(folder / f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors", number,
                        size // SHARDS)
        yield folder
    finally:
        shutil.rmtree(folder)


def shards(folder):
    return sorted(pathlib.Path(folder).glob("model-*-of-*.safetensors"))


@contextlib.contextmanager
def mountpoint():
    path = tempfile.mkdtemp(prefix="unshard-bench-mnt-")
    try:
        yield pathlib.Path(path)
    finally:
        # Detached lazily: a benchmark that was interrupted must not leave a mount either.
        if os.path.ismount(path):
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL)
        os.rmdir(path)


@contextlib.contextmanager
def other_mount(command, *arguments):
    """A filesystem that `command ARGUMENTS MOUNTPOINT` mounts, ended with its mount."""
    with mountpoint() as path:
        subprocess.run([*map(str, command), *map(str, arguments), str(path)], check=True,
                       stdout=subprocess.DEVNULL)
        yield path
        subprocess.run(["umount", str(path)], check=True)


class Bench:
    def __init__(self, options):
        self.options = options
        self.unshard = TOP / options.build / "unshard"
        self.rows = []

    @contextlib.contextmanager
    def mounted(self, source, *options):
        with mountpoint() as path:
            flags = [part for option in options for part in ("-o", option)]
            subprocess.run([self.unshard, "mount", *flags, source, path], check=True)
            yield path
            subprocess.run([self.unshard, "umount", path], check=True)

    def compare(self, title, candidates, base, wanted, rounds=None):
        """Runs each candidate once a round; candidates: name -> function that gives GB/s.
        base: the names to compare the first candidate with, the best of them."""
        figures = {name: [] for name in candidates}
        for _ in range(rounds or self.options.rounds):
            for name, measure in candidates.items():
                figures[name].append(measure())
        medians = {name: statistics.median(values) for name, values in figures.items()}
        first = next(iter(candidates))
        ratio = medians[first] / max(medians[name] for name in base)
        self.row(title, medians, ratio, wanted, figures)

    def row(self, title, medians, ratio, wanted, figures):
        self.rows.append({"title": title, "medians": medians, "ratio": ratio, "wanted": wanted,
                          "reached": ratio >= wanted, "figures": figures})
        shown = ", ".join(f"{name} {value:.3g}" for name, value in medians.items())
        print(f"{title:<38} {ratio:7.2f}  (wanted {wanted:g}) "
              f"{'ok' if ratio >= wanted else 'BELOW'}\n    {shown}", flush=True)


def reader(how, files):
    """GB/s of one reader process."""
    done = subprocess.run([READER, how, *files], check=True, stdout=subprocess.PIPE)
    result = json.loads(done.stdout)
    return result["bytes"] / result["seconds"] / 1e9


def drop_caches():
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("1")


def status(path):
    return json.loads((path / ".unshard/status.json").read_text())


def settled(path):
    return all(shard["state"] not in ("pending", "reading")
               for component in status(path)["components"] for shard in component["shards"])


def wait_warm(path, bound=300):
    end = time.monotonic() + bound
    while not settled(path):
        if time.monotonic() > end:
            raise TimeoutError(f"not warm within {bound} s")
        time.sleep(0.01)


# ---- what is measured --------------------------------------------------------------------------

def warm(bench):
    """The view after its pages are stored, against the same bytes in the page cache of a file: one
    of tmpfs, whose pages are as small as those of FUSE, and one of the local disk, whose file
    system may keep many pages together in one folio, which FUSE cannot (Linux 6.18).

    How fast pages are read depends on where in memory they happen to lie: the small pages that are
    filled first after a gigabyte was freed lie scattered, and are read a fifth slower, whosever
    they are. So each round fills all of them anew, in turn in this order and in the reverse."""
    figures = {how: {"unshard": [], "tmpfs": [], "local disk": []} for how in ("read", "mmap")}
    with checkpoint(bench.options.disk, bench.options.size) as source, \
            tempfile.TemporaryDirectory(prefix="unshard-bench-", dir="/dev/shm") as memory:
        plains = {"tmpfs": pathlib.Path(memory) / "plain", "local disk": source / "plain"}
        with bench.mounted(source) as mount:
            shutil.copyfile(mount / "model.safetensors", source / "bytes")
        for number in range(2 * bench.options.rounds):
            with contextlib.ExitStack() as stack:
                warm_round(bench, stack, number, source, plains, figures)
    for how, of_how in figures.items():
        medians = {name: statistics.median(values) for name, values in of_how.items()}
        for name in plains:
            bench.row(f"warm {how} / page cache of {name}",
                      {one: medians[one] for one in ("unshard", name)},
                      medians["unshard"] / medians[name], 0.95, of_how)


def warm_round(bench, stack, number, source, plains, figures):
    def fill_view():
        mount = stack.enter_context(bench.mounted(source))
        wait_warm(mount)
        return mount / "model.safetensors"

    def fill_plain(path):
        shutil.copyfile(source / "bytes", path)
        stack.callback(path.unlink)
        return path

    fills = {"unshard": fill_view,
             **{name: lambda path=path: fill_plain(path) for name, path in plains.items()}}
    names = list(fills) if number % 2 == 0 else list(fills)[::-1]
    files = {name: fills[name]() for name in names}
    for how, of_how in figures.items():
        for name in names:
            reader(how, [files[name]])
        for name in names:
            of_how[name].append(max(reader(how, [files[name]]) for _ in range(2)))


def cold_view(bench, source, how, *options):
    with bench.mounted(source, *options) as mount:
        return reader(how, [mount / "model.safetensors"])


def cold_other(source, how, command, *arguments):
    with other_mount(command, *arguments) as mount:
        return reader(how, shards(mount))


def fio(*arguments):
    """GB/s of what fio does."""
    done = subprocess.run(["fio", "--name=bench", "--thread", "--group_reporting", "--bs=1M",
                           "--output-format=json", *arguments], check=True, stdout=subprocess.PIPE)
    job = json.loads(done.stdout)["jobs"][0]
    return max(job["read"]["bw_bytes"], job["write"]["bw_bytes"]) / 1e9


def fill_pages(size):
    """GB/s at which all processors, doing nothing else, fill fresh pages with bytes that they have:
    the least that any page cache costs."""
    processors = os.cpu_count()
    with tempfile.TemporaryDirectory(prefix="unshard-bench-", dir="/dev/shm") as folder:
        return fio(f"--directory={folder}", "--rw=write", f"--numjobs={processors}",
                   "--fallocate=none", f"--size={size // processors}")


def tmpfs(bench):
    """Source in memory, cold view, a reader that starts with the mount."""
    with checkpoint("/dev/shm", bench.options.size) as source:
        others = {"bindfs": (["bindfs"], source),
                  "mergerfs": (["mergerfs"], source)}
        others = {name: how for name, how in others.items() if shutil.which(name)}
        candidates = {"unshard": lambda: cold_view(bench, source, "mmap")}
        for name, (command, *arguments) in others.items():
            candidates[name] = lambda command=command, arguments=arguments: \
                cold_other(source, "mmap", command, *arguments)
        candidates["filling pages alone"] = lambda: fill_pages(bench.options.size)
        bench.compare("tmpfs cold mmap / bindfs, mergerfs", candidates, list(others), 3)


def slow(bench):
    """Storage with 2 ms a request; native mmap of the shards on the same storage."""
    with checkpoint("/dev/shm", bench.options.slow_size) as source:
        def through_view():
            with other_mount([SLOWFS, "-o", "latency=2"], source) as storage:
                return cold_view(bench, storage, "mmap")

        def native(how):
            return cold_other(source, how, [SLOWFS, "-o", "latency=2"], source)

        def storage_alone():
            """What it gives to many direct readers that do nothing with the bytes."""
            with other_mount([SLOWFS, "-o", "latency=2"], source) as storage:
                files = ":".join(map(str, shards(storage)))
                return fio(f"--filename={files}", "--rw=read", "--direct=1", "--numjobs=32",
                           f"--size={bench.options.slow_size // 8}")

        bench.compare("2 ms storage, mmap / native mmap",
                      {"unshard": through_view, "native mmap": lambda: native("mmap"),
                       "native read": lambda: native("read"),
                       "storage alone": storage_alone}, ["native mmap"], 40)


def disk(bench):
    """Cold local disk, against native read of the shards."""
    with checkpoint(bench.options.disk, bench.options.size) as source:
        def through_view(how):
            drop_caches()
            return cold_view(bench, source, how)

        def native():
            drop_caches()
            return reader("read", shards(source))

        bench.compare("cold disk, read / native read",
                      {"unshard": lambda: through_view("read"), "native read": native,
                       "unshard mmap": lambda: through_view("mmap")}, ["native read"], 1)


class TorchLoader:
    """A process that has imported what it needs and waits for files to load."""

    def __init__(self, how):
        self.process = subprocess.Popen([sys.executable, TOP / "tests/bench/torch_loader.py", how],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def load(self, files):
        """The bytes of all tensors, once they are in memory."""
        self.process.stdin.write("\t".join(map(str, files)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        assert self.process.wait() == 0


@contextlib.contextmanager
def torch_checkpoint(parent, size):
    """Shards of torch.save; a part of the tensors transposed, as converted checkpoints have them."""
    import torch

    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-bench-", dir=parent))
    try:
        for number in range(SHARDS):
            block = torch.frombuffer(bytearray(os.urandom(16 << 20)), dtype=torch.float16)
            tensors = {f"layer.{number}.{one}.weight": block.clone().view(2048, 4096)
                       for one in range(max(1, (size // SHARDS) >> 24))}
            tensors[f"layer.{number}.conv"] = torch.randn(512, 256, 3, 3).to(
                memory_format=torch.channels_last)
            torch.save(tensors, folder / f"pytorch_model-{number + 1:05d}-of-{SHARDS:05d}.bin")
        yield folder
    finally:
        shutil.rmtree(folder)


def torch(bench):
    """From cold to all tensors in memory, mounting included: safetensors' loader through the mount,
    against torch.load of the originals, on storage with 2 ms a request and on the local disk."""
    def through_view(source):
        loader = TorchLoader("safetensors")
        begin = time.monotonic()
        with bench.mounted(source) as mount:
            total = loader.load([mount / "model.safetensors"])
            seconds = time.monotonic() - begin
            loader.end()
        return total / seconds / 1e9

    def original(source, how):
        loader = TorchLoader(how)
        begin = time.monotonic()
        total = loader.load(sorted(source.glob("*.bin")))
        seconds = time.monotonic() - begin
        loader.end()
        return total / seconds / 1e9

    def candidates(run):
        return {"unshard": lambda: run(through_view),
                "torch.load": lambda: run(lambda source: original(source, "torch.load")),
                "torch.load mmap": lambda: run(lambda source: original(source, "torch.load-mmap"))}

    with torch_checkpoint("/dev/shm", bench.options.slow_size) as source:
        def on_slow_storage(load):
            with other_mount([SLOWFS, "-o", "latency=2"], source) as storage:
                return load(storage)

        bench.compare("2 ms storage, .bin / torch.load", candidates(on_slow_storage),
                      ["torch.load", "torch.load mmap"], 3)
    with torch_checkpoint(bench.options.disk, bench.options.size) as source:
        def on_disk(load):
            drop_caches()
            return load(source)

        bench.compare("cold disk, .bin / torch.load", candidates(on_disk),
                      ["torch.load", "torch.load mmap"], 1)


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0


def memory(bench):
    """Peak resident memory of the daemon while it prefetches; MiB, the less the better."""
    buffer_mib = 256
    with checkpoint("/dev/shm", bench.options.size) as source, \
            bench.mounted(source, f"buffer={buffer_mib}M") as mount:
        pid, peak, done = status(mount)["pid"], [0.0], threading.Event()

        def watch():
            while not done.is_set():
                peak[0] = max(peak[0], resident(pid))
                done.wait(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        reader("mmap", [mount / "model.safetensors"])
        wait_warm(mount)
        done.set()
        watcher.join()
    bench.row("memory allowed / resident", {"resident MiB": peak[0], "allowed MiB":
                                            buffer_mib + 64}, (buffer_mib + 64) / peak[0], 1,
              {"resident MiB": peak})


def verify(bench):
    """What verification costs, see verify.py."""
    import verify as measures

    measures.measure(bench, sys.modules[__name__])


def size(text):
    units = {"K": 10, "M": 20, "G": 30}
    return int(text[:-1]) << units[text[-1].upper()] if text[-1].upper() in units else int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=size, default=1 << 30, help="of the checkpoints (1G)")
    parser.add_argument("--slow-size", type=size, default=256 << 20, help="on slow storage (256M)")
    parser.add_argument("--disk", default=str(TOP / "build"), help="a folder on a local disk")
    parser.add_argument("--only", action="append", choices=MEASURES)
    parser.add_argument("--json", metavar="FILE", help="write all figures there as well")
    options = parser.parse_args()
    bench = Bench(options)
    print(f"{os.cpu_count()} CPUs, Linux {os.uname().release}, {options.rounds} rounds, "
          f"{options.size >> 20} MiB in {SHARDS} shards; medians, GB/s\n")
    for name in options.only or MEASURES:
        globals()[name](bench)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(bench.rows, indent=1) + "\n")
    below = [row["title"] for row in bench.rows if not row["reached"]]
    print(f"\n{len(bench.rows) - len(below)} of {len(bench.rows)} targets reached")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
