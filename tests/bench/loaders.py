# SPDX-License-Identifier: MIT
"""How programs load checkpoints. Each load is a process of its own, forked from one that has imported
everything, which waits for go(): what starting and importing take is not measured.

A loader is a function of (files, part, parts) that gives the tensors it has made, each with bytes of
its own; `part` of `parts` is for those of which several share the work."""

import concurrent.futures
import contextlib
import glob
import inspect
import json
import os
import pathlib
import random
import resource
import select
import signal
import subprocess
import sys
import time

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from checkpoints import never_returns
from mounts import TOP, storage_reads

READER = TOP / "build/tests/bench/reader"
DEVICE = "cpu"  # or cuda:0, see bench.py
POOL = 8
BOUND = 180
kept = []  # what a loader must not free before the clock stops


def own(tensor):
    """A copy, as a program has it in the end; what went to a GPU is one."""
    return tensor.clone() if DEVICE == "cpu" else tensor.to(DEVICE)


def one_file(path, **more):
    return {name: own(tensor)
            for name, tensor in load_file(path, device=DEVICE, **more).items()}


def merge(parts):
    tensors = {}
    for part in parts:
        tensors.update(part)
    return tensors


def load(files, _part, _parts):
    return merge(map(one_file, files))


def pread(files, _part, _parts):
    """safetensors 0.8 can read instead of mapping."""
    return merge(one_file(path, backend="pread") for path in files)


def prefetch(files, _part, _parts):
    """Of later ones."""
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt", device=DEVICE) as file:
            file.prefetch()
            tensors.update((name, own(file.get_tensor(name))) for name in file.keys())
    return tensors


def pool(files, _part, _parts):
    with concurrent.futures.ThreadPoolExecutor(POOL) as threads:
        return merge(threads.map(one_file, files))


def cat(files, part, parts):
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    return load(files, part, parts)


def runai(files, _part, _parts):
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(files)
        return {name: own(tensor) for name, tensor in streamer.get_tensors()}


def fast(files, _part, _parts):
    """fastsafetensors: O_DIRECT, 16 threads; its tensors lie in buffers that are the loader's own."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), DEVICE, nogds=True, set_numa=False)
    loader.add_filenames({0: files})
    buffers = loader.copy_files_to_device()
    kept.extend([loader, buffers])
    return {name: buffers.get_tensor(name) for name in buffers.key_to_rank_lidx}


def in_order(files, order):
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt", device=DEVICE) as file:
            for name in order(file):
                tensors[name] = own(file.get_tensor(name))
    return tensors


def by_header(files, _part, _parts):
    return in_order(files, lambda file: file.offset_keys())


def by_name(files, _part, _parts):
    return in_order(files, lambda file: sorted(file.keys()))


def at_random(files, _part, _parts):
    return in_order(files, lambda file: random.Random(1).sample(sorted(file.keys()),
                                                                len(file.keys())))


def places(files, part, parts):
    """Several readers, each of which begins elsewhere and reads on from there."""
    def mine(file):
        names = file.offset_keys()
        return names[part * len(names) // parts:(part + 1) * len(names) // parts]

    return in_order(files, mine)


def slices(files, part, parts):
    """A rank of tensor parallelism: of each matrix its rows or its columns, in turn."""
    tensors = {}
    for path in files:
        with safe_open(path, framework="pt", device=DEVICE) as file:
            for number, name in enumerate(file.offset_keys()):
                whole = file.get_slice(name)
                extent = whole.get_shape()[number % 2] // parts
                mine = slice(part * extent, (part + 1) * extent)
                tensors[name] = own(whole[mine] if number % 2 == 0 else whole[:, mine])
    return tensors


def torch_load(files, _part, _parts, **more):
    return merge(torch.load(path, weights_only=True, **more) for path in files)


def torch_load_mmap(files, part, parts):
    """Mapped tensors are copied: of those nothing is there before."""
    return {name: own(tensor) for name, tensor in torch_load(files, part, parts, mmap=True).items()}


def reader(how):
    """tests/bench/reader.c: reads all bytes, keeps none; answers bytes instead of tensors."""
    def run(files, _part, _parts):
        done = subprocess.run([READER, how, *files], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)["bytes"]

    return run


def verified(files, _part, _parts):
    """Nobody reads; until every shard of the mount has been verified."""
    mount = pathlib.Path(files[0])
    status = json.loads((mount / ".unshard/status.json").read_text())
    program = os.readlink(f"/proc/{status['pid']}/exe")
    subprocess.run([program, "wait", "--verified", mount], check=True, stdout=subprocess.DEVNULL)
    return status["bytes_total"]


LOAD = """import glob, json, sys
from safetensors.torch import load_file
kept = [{name: tensor.clone() for name, tensor in load_file(path).items()}
        for path in sorted(glob.glob(sys.argv[1] + "/model*.safetensors"))]
print(json.dumps({"bytes": sum(tensor.nbytes for one in kept for tensor in one.values())}))
"""


def program(*words):
    """A whole program, from its start to its end, that looks itself what a directory has and prints
    how many bytes that were; behind the words of `front` and the directory."""
    def run(files, _part, _parts, *front):
        folder = os.path.dirname(files[0])
        before = [*front, folder, "--"] if front else []
        done = subprocess.run([*before, *words, folder], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)["bytes"]

    return run


LOADERS = {"load": load, "pread": pread, "prefetch": prefetch, "pool": pool, "cat": cat,
           "runai": runai, "fast": fast, "by header": by_header, "by name": by_name,
           "at random": at_random, "places": places, "slices": slices,
           "torch.load": torch_load, "torch.load mmap": torch_load_mmap,
           "mmap": reader("mmap"), "read": reader("read"), "direct": reader("direct"),
           "verified": verified, "program in Python": program(sys.executable, "-c", LOAD),
           "program": program("sh", "-c", 'exec "$0" mmap "$1"/model*.safetensors', READER)}


def why_not(how):
    """Why that loader cannot be had here; None: it can. Imports what it needs."""
    try:
        if how == "runai":
            import runai_model_streamer  # noqa: F401
        elif how == "fast":
            import fastsafetensors  # noqa: F401
        elif how == "pread" and "backend" not in inspect.signature(load_file).parameters:
            return "this safetensors has no backend= to choose"
        elif how == "prefetch" and not hasattr(safe_open, "prefetch"):
            return "this safetensors has none"
    except ImportError as error:
        return str(error)
    return None


def used():
    """Processor seconds of this process and of those it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in both)


def told(result):
    """What a load is reported to have given: all its bytes are looked at, after the clock."""
    if isinstance(result, int):
        return {"bytes": result}
    total = sum(tensor.numel() * tensor.element_size() for tensor in result.values())
    words = [tensor.contiguous().view(-1).view(torch.uint8) for tensor in result.values()]
    checked = sum(int(one[:one.numel() // 8 * 8].view(torch.int64).sum()) for one in words)
    return {"bytes": total, "sum": checked % (1 << 64)}


class Load:
    """A process that waits for go() and then loads what the pattern finds."""

    def __init__(self, how, part=0, parts=1, front=()):
        ready, self.ready = os.pipe()
        self.go_end, go = os.pipe()[::-1]
        self.result, result = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with never_returns():
                os.close(self.go_end)  # so that it ends with the one who would say go
                os.write(self.ready, b"r")
                pattern = os.read(go, 4096).decode()
                if pattern:
                    os.write(result, json.dumps(child(how, pattern, part, parts, front)).encode())
        os.read(ready, 1)
        for fd in (ready, self.ready, go, result):
            os.close(fd)

    def go(self, pattern):
        os.write(self.go_end, str(pattern).encode())

    def wait(self):
        """What told() says, with "seconds" of this process's clock when it had all."""
        if select.select([self.result], [], [], BOUND)[0]:
            text = os.read(self.result, 1 << 16)
            return json.loads(text or b'{"error": "the loader has died"}')
        return {"error": f"not loaded within {BOUND} s"}

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.go_end)
        os.close(self.result)


def child(how, pattern, part, parts, front):
    spent, read = used(), storage_reads("self")
    try:
        files = sorted(glob.glob(pattern))
        if not files:
            return {"error": "nothing to load: " + pattern}
        result = LOADERS[how](files, part, parts, *front)
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        end = time.monotonic()
        costs = {"end": end, "reader": used() - spent, "reader_storage": storage_reads("self") - read}
        return {**costs, **told(result)}
    except Exception as error:  # whatever a library raises
        return {"error": repr(error)[:300]}
