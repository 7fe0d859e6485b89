# SPDX-License-Identifier: MIT
"""Less memory than the checkpoint: still right, every byte read once, nobody killed."""

import contextlib
import os
import pathlib
import subprocess
import sys
import uuid

import pytest

import checkpoints
from harness import PATIENCE, mounted, slow, wait_for

ROOT = pathlib.Path("/sys/fs/cgroup")
LIMIT = 64 << 20


class MemoryGroup:
    """A memory control group, of either version."""

    def __init__(self, limit):
        self.version = 2 if "memory" in read(ROOT / "cgroup.controllers").split() else 1
        parent = ROOT if self.version == 2 else ROOT / "memory"
        if self.version == 2 and "memory" not in read(ROOT / "cgroup.subtree_control").split():
            (ROOT / "cgroup.subtree_control").write_text("+memory")
        self.path = parent / f"unshard-test-{uuid.uuid4().hex[:8]}"
        self.path.mkdir()
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.path / name).write_text(str(limit))

    def prefix(self):
        """What to put before a command so that it runs inside."""
        return ("sh", "-c", f'echo $$ >{self.path}/cgroup.procs && exec "$@"', "sh")

    def kills(self):
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        return int(dict(line.split() for line in read(self.path / name).splitlines())["oom_kill"])

    def remove(self):
        with contextlib.suppress(OSError):
            wait_for(lambda: not read(self.path / "cgroup.procs").strip(), what="group empty")
        with contextlib.suppress(OSError):
            self.path.rmdir()


def read(path):
    try:
        return path.read_text()
    except OSError:
        return ""


@pytest.fixture
def group():
    try:
        group = MemoryGroup(LIMIT)
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    yield group
    group.remove()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """384 MiB in 4 shards, six times the limit."""
    import torch

    generator = torch.Generator().manual_seed(9)
    tensors = {f"layer.{number}": torch.randint(0, 256, (8 << 20,), dtype=torch.uint8,
                                                generator=generator) for number in range(48)}
    folder = checkpoints.save_shards(tmp_path_factory.mktemp("large") / "checkpoint", tensors, 4)
    return folder


def digest_command(how, path):
    if how == "read":
        return ["sha256sum", str(path)]
    code = ("import hashlib,mmap,sys; f=open(sys.argv[1],'rb'); h=hashlib.sha256(); "
            "m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ)\n"
            "for i in range(0,len(m),1<<20): h.update(m[i:i+(1<<20)])\n"
            "print(h.hexdigest())")
    return [sys.executable, "-c", code, str(path)]


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["read", "mmap"])
def test_checkpoint_larger_than_memory(large, group, how):
    with mounted(large, "prefetch=off") as mount:
        expected = checkpoints.sha256(mount / "model.safetensors")
        size = os.stat(mount / "model.safetensors").st_size
    with slow(large) as storage:
        with mounted(storage.path, "buffer=16M", prefix=group.prefix()) as mount:
            done = subprocess.run([*group.prefix(),
                                   *digest_command(how, mount / "model.safetensors")],
                                  stdout=subprocess.PIPE, text=True, timeout=PATIENCE * 6)
            assert done.returncode == 0 and done.stdout.split()[0] == expected
            requested = storage.stats()["bytes"]
            assert group.kills() == 0
            assert requested <= 1.05 * size, f"{requested / size:.3f} reads of each byte"


@pytest.mark.heavy
def test_daemon_stays_small(large):
    """Resident memory: 64 MiB and the buffers."""
    with mounted(large, "buffer=32M") as mount:
        peak = 0

        def settled():
            nonlocal peak
            peak = max(peak, resident(mount.pid))
            return all(shard["state"] not in ("pending", "reading")
                       for component in mount.status()["components"]
                       for shard in component["shards"])

        wait_for(settled, 120, "warm")
        assert peak < (64 + 32) << 20, f"{peak >> 20} MiB resident"


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


@pytest.mark.heavy
def test_many_tensors_mount_fast(tmp_path):
    """200 shards and 100,000 tensors: a mount within a second, below 300 MiB."""
    import json
    import time

    for number in range(200):
        header = {f"model.layers.{number}.block.{one}.weight":
                  {"dtype": "BF16", "shape": [4], "data_offsets": [one * 8, one * 8 + 8]}
                  for one in range(500)}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (tmp_path / f"model-{number + 1:05d}-of-00200.safetensors").write_bytes(
            len(text).to_bytes(8, "little") + text + bytes(500 * 8))
    with mounted(tmp_path, "prefetch=off"):
        pass
    begin = time.monotonic()
    with mounted(tmp_path, "prefetch=off", "buffer=16M") as mount:
        took = time.monotonic() - begin
        assert resident(mount.pid) < 300 << 20
        from safetensors import safe_open

        with safe_open(mount / "model.safetensors", framework="pt") as file:
            assert len(list(file.keys())) == 100000
    # The bound is for the mount; starting a process and reading the status comes on top.
    assert took < 1.5, f"mounted in {took:.2f} s"


def test_a_page_of_two_chunks_reads_neither_again(big):
    """A reader behind whom nothing stays cached: what was read of the page is held for it."""
    with mounted(big, "prefetch=off", "chunk=64K") as mount:
        with open(mount / "model.safetensors", "rb", buffering=0) as file:
            while file.read(1 << 16):
                os.posix_fadvise(file.fileno(), 0, file.tell(), os.POSIX_FADV_DONTNEED)
        status = mount.status()
        assert status["bytes_read"] < 1.1 * status["bytes_total"]
