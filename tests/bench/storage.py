# SPDX-License-Identifier: MIT
"""Where the shards lie: memory, the disk, storage with latency, a mount below the mount."""

import contextlib
import dataclasses
import pathlib

import checkpoints
import mounts


@dataclasses.dataclass(frozen=True)
class Storage:
    """name: as it is shown. rules: of slowfs, "" without it. below: a mount that is put over it."""
    name: str
    place: str = "memory"
    rules: str = ""
    below: object = None

    @contextlib.contextmanager
    def cold(self, folder):
        """Nothing of the files in that folder is cached when this begins. The Source."""
        if self.place == "disk":
            checkpoints.drop_pages(path for path in folder.iterdir() if path.is_file())
        with contextlib.ExitStack() as stack:
            path = folder
            if self.rules:
                path = stack.enter_context(mounts.slowfs(path, self.rules)).path
            if self.below:
                path = stack.enter_context(self.below(path)).path
            yield Source(path, self)


@dataclasses.dataclass(frozen=True)
class Source:
    path: pathlib.Path
    storage: Storage

    def bytes_read(self, run, mount):
        """How often each byte of the checkpoint was asked of the storage; None: nobody has counted.
        run: what the loaders and the mount have told. mount: None without one."""
        if self.storage.rules and not self.storage.below:
            return mounts.slowfs_bytes(self.path) / run["bytes"]
        if self.storage.place == "disk":
            return (run["reader_storage"] + run.get("daemon_storage", 0)) / run["bytes"]
        if mount and (mount.path / ".unshard/status.json").exists():
            status = mount.status()
            return status["bytes_read"] / status["bytes_total"]
        return None


STREAM = 100_000_000
MEMORY = Storage("memory")
DISK = Storage("disk", place="disk")
SLOW = {ms: Storage(f"{ms} ms", rules=f"latency={ms}") for ms in (1, 2, 10)}
NARROW = {ms: Storage(f"{ms} ms, 100 MB/s a stream", rules=f"latency={ms},rate={STREAM}")
          for ms in (2, 10)}
# Slower than one core hashes.
SLOW_LINK = Storage("2 ms, 250 MB/s in all", rules="latency=2,total=250000000")
OVER_MOUNT = Storage("a FUSE mount (bindfs) of memory", below=mounts.bindfs)
FIELD = [MEMORY, DISK, SLOW[1], SLOW[2], SLOW[10], NARROW[2], NARROW[10], OVER_MOUNT]
