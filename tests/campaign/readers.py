# SPDX-License-Identifier: MIT
"""What the campaigns of faults and of survival share: a checkpoint, and readers that have a bound."""

import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from rounds import Fault, Truth, harness, require

import checkpoints
import digests

BOUND = 60
READING = pathlib.Path(__file__).resolve().parent / "reading.py"
VIEW = "model.safetensors"


class Sources:
    """One checkpoint of 12 MB in six shards, with digests of different kinds beside it."""

    def __init__(self, scratch):
        import torch

        self.scratch = scratch
        generator = torch.Generator().manual_seed(7)
        tensors = {f"layer.{number}.weight":
                   torch.randint(0, 256, (500009,), dtype=torch.uint8, generator=generator)
                   for number in range(24)}
        plain = checkpoints.save_shards(scratch / "none", tensors, 6, metadata={"format": "pt"})
        self.forms = {"none": plain}
        for origin in ("sha256sum", "manifest"):
            self.forms[origin] = shutil.copytree(plain, scratch / origin)
            digests.ORIGINS[origin](self.forms[origin])
        self.truth = Truth(plain)
        self.file = scratch / "truth"
        self.file.write_bytes(self.truth.views[VIEW])
        self.shards = sorted(self.truth.shards)


class Readers:
    """Processes that read all of a view, waited for with a bound."""

    def __init__(self, mountpoint, truth, ways, prefix=()):
        self.mountpoint = mountpoint
        self.processes = [subprocess.Popen(
            [*prefix, sys.executable, "-S", "-E", READING, way, mountpoint / VIEW, truth],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for way in ways]

    def results(self):
        """What each found; a mapping reader that was ended by SIGBUS has failed pages."""
        end = time.monotonic() + BOUND
        return [self.result_of(process, end) for process in self.processes]

    def result_of(self, process, end):
        try:
            output, errors = process.communicate(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            number = harness.connection_of(self.mountpoint)
            if number is not None:
                harness.abort_connection(number)
            process.kill()
            raise Fault(f"a reader hangs for {BOUND} s") from None
        if process.returncode == -signal.SIGBUS:
            return {"failing": 1, "wrong": []}
        require(process.returncode == 0, "the reader ended with", process.returncode, errors)
        return json.loads(output)

    def discard(self):
        for process in self.processes:
            process.kill()
            process.communicate()


def check_results(results, failed=False):
    """No wrong byte; whether all could be read. failed: the layout is not known at the mount."""
    for result in results:
        require(not result.get("wrong"), "wrong bytes in pages", result.get("wrong"))
        require(failed or result.get("error") != "size", "the view has another size")
    return all(result.get("failing") == 0 for result in results)


def read_all(mountpoint, truth):
    readers = Readers(mountpoint, truth, ["read"])
    try:
        return check_results(readers.results())
    finally:
        readers.discard()


def mount_options(rng, flips=False):
    options = [f"chunk={rng.choice(['64K', '256K', '2M'])}"]
    if rng.random() < 0.3:
        options.append("prefetch=off")
    if rng.random() < 0.5:
        options.append(f"jobs={rng.choice([1, 2, 8])}")
    if not flips and rng.random() < 0.2:
        options.append("verify=async")
    return options
