#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Records `unshard status --watch` on slow storage, and writes it as an animated SVG.

A small pipeline is sealed and mounted from storage that gives so many bytes a second; a bit of one shard
is wrong until, later, its file is replaced. Nothing of what is shown is made up, but that it starts anew.
Needs root: all of it happens in a mount namespace of its own."""

import argparse
import fcntl
import json
import os
import pathlib
import pty
import random
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

from animation import animated
from terminal import Terminal

TOP = pathlib.Path(__file__).resolve().parents[2]
SLOWFS = TOP / "build/tests/slowfs/slowfs"
MIB = 1 << 20
PATIENCE = 60
# Directories that every system has; file systems of our own lie over them here.
MODELS, MOUNTS = pathlib.Path("/srv"), pathlib.Path("/mnt")
# Shards of each component, MiB each for a run of full size.
PIPELINE = {"text_encoder": ("model", [24]), "text_encoder_2": ("model", [48, 44]),
            "transformer": ("diffusion_pytorch_model", [64, 60, 62]),
            "vae": ("diffusion_pytorch_model", [16])}
BAD = "text_encoder_2/model-00002-of-00002.safetensors"


def write_shard(path, name, size):
    """A safetensors file with one tensor of random bytes."""
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.write(random.Random(path.name).randbytes(size))


def write_pipeline(folder, scale):
    order = {name: ["diffusers", "Model"] for name in PIPELINE}
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline", **order}))
    for component, (stem, sizes) in PIPELINE.items():
        (folder / component).mkdir()
        (folder / component / "config.json").write_text("{}")
        weight_map = {}
        for number, size in enumerate(sizes, 1):
            part = f"-{number:05}-of-{len(sizes):05}" if len(sizes) > 1 else ""
            name = f"{stem}{part}.safetensors"
            write_shard(folder / component / name, f"block.{number}.weight", int(size * scale * MIB))
            weight_map[f"block.{number}.weight"] = name
        if len(sizes) > 1:
            index = {"metadata": {}, "weight_map": weight_map}
            (folder / component / f"{stem}.safetensors.index.json").write_text(json.dumps(index))


def command(storage, *lines):
    (storage / ".slowfs/control").write_text("\n".join(lines) + "\n")


class Recording:
    """Runs a command on a terminal, and keeps what it draws and when."""

    def __init__(self, words, columns, rows):
        self.terminal = Terminal(columns, rows)
        self.pictures, self.seconds = [], []
        self.begin = time.monotonic()
        pid, self.master = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm", NO_COLOR="")
            os.execv(words[0], [str(word) for word in words])
        self.pid = pid
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def take(self, seconds):
        """Records for so long; a picture is complete when nothing follows it for a moment."""
        end = time.monotonic() + seconds
        text = ""
        while (left := end - time.monotonic()) > 0:
            if select.select([self.master], [], [], min(left, 0.02))[0]:
                text += os.read(self.master, 65536).decode()
            elif text:
                self.terminal.feed(text)
                text = ""
                self.keep()
        self.terminal.feed(text)

    def keep(self):
        picture = self.terminal.picture()
        if any(picture) and (not self.pictures or picture != self.pictures[-1]):
            self.pictures.append(picture)
            self.seconds.append(time.monotonic() - self.begin)

    def take_until(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the mount does not come to where it should")
            self.take(0.1)

    def stop(self):
        os.kill(self.pid, signal.SIGINT)
        os.waitpid(self.pid, 0)
        os.close(self.master)


def record(options, storage, mountpoint):
    def state():
        return json.loads((mountpoint / ".unshard/status.json").read_text())["state"]

    words = [options.unshard, "status", "--watch", "--interval", options.interval, mountpoint]
    recording = Recording(words, options.columns, options.rows)
    try:
        recording.take_until(lambda: state() in ("degraded", "failed"))
        recording.take_until(lambda: not any(shard["state"] in ("pending", "reading")
                                             for component in components(mountpoint)
                                             for shard in component["shards"]))
        recording.take(6 * options.interval)
        command(storage, "reset", f"total {options.rate}")
        replace(MODELS / "flux-disk" / BAD)
        recording.take_until(lambda: state() == "ready")
        recording.take(2 * options.interval)
    finally:
        recording.stop()
    return recording


def components(mountpoint):
    return json.loads((mountpoint / ".unshard/status.json").read_text())["components"]


def replace(path):
    """As who copies a file anew does."""
    copy = path.with_suffix(".new")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)


def run(words):
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)


def stage(options):
    """Makes the pipeline, mounts it from slow storage and records. In a mount namespace of its own."""
    disk, storage, mountpoint = MODELS / "flux-disk", MODELS / "flux", MOUNTS / "flux"
    for folder in (MODELS, MOUNTS):
        run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder])
    for folder in (disk, storage, mountpoint):
        folder.mkdir()
    write_pipeline(disk, options.scale)
    run([options.unshard, "seal", disk])
    run([SLOWFS, disk, storage])
    try:
        command(storage, f"total {options.rate}", "latency 2", f"flip {BAD} 4000000 3")
        run([options.unshard, "mount", "-o", "chunk=256K,jobs=6,log=/dev/null", storage, mountpoint])
        try:
            return record(options, storage, mountpoint)
        finally:
            run([options.unshard, "umount", "--lazy", mountpoint])
    finally:
        run(["umount", "-l", storage])


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--unshard", type=pathlib.Path, default=TOP / "build/unshard")
    parser.add_argument("--scale", type=float, default=1, help="of the sizes of shards")
    parser.add_argument("--rate", type=int, default=40_000_000, help="bytes a second of the storage")
    parser.add_argument("--interval", type=float, default=0.4, help="seconds between pictures")
    parser.add_argument("--columns", type=int, default=96)
    parser.add_argument("--rows", type=int, default=30)
    return parser.parse_args()


def main():
    options = arguments()
    options.output, options.unshard = options.output.resolve(), options.unshard.resolve()
    with tempfile.TemporaryDirectory(prefix="unshard-picture-") as cache:
        os.environ["UNSHARD_CACHE_DIR"] = cache
        if os.environ.get("UNSHARD_PICTURE_STAGE") != "1":
            words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
            return subprocess.run(words, env=dict(os.environ, UNSHARD_PICTURE_STAGE="1")).returncode
        recording = stage(options)
    svg = animated(recording.pictures, [second - recording.seconds[0] for second in recording.seconds],
                   "unshard status --watch /mnt/flux", hold=4)
    options.output.write_text(svg)
    print(f"{options.output}: {len(svg) / 1024:.0f} KiB, {len(recording.pictures)} pictures, "
          f"{recording.seconds[-1]:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
