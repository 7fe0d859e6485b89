#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lets storage fail, and kills the daemon, at random moments, one round each.

In every round readers get right bytes or an error, and get it within a bound; when the fault has
gone all can be read; nothing stays mounted. Faults: the k-th read fails, reads are short, hang until
they are released, or have a bit flipped, a file vanishes; and the ends that a daemon can find in the
middle of a prefetch, followed by another mount at the same place: it is killed, alone, with its
monitor, just after its monitor, while it is stopped, or while it ends; it is stopped for a moment;
or the command is interrupted before the mount stands.
"""

import errno
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import rounds
from rounds import Campaign, Fault, Truth, harness, require

import checkpoints
import digests

BOUND = 60
READING = pathlib.Path(__file__).resolve().parent / "reading.py"
VIEW = "model.safetensors"
ERRNOS = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EAGAIN]


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


# ---- readers -----------------------------------------------------------------------------------

class Readers:
    """Processes that read all of a view, waited for with a bound."""

    def __init__(self, mountpoint, truth, ways):
        self.mountpoint = mountpoint
        self.processes = [subprocess.Popen(
            [sys.executable, "-S", "-E", READING, way, mountpoint / VIEW, truth],
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


# ---- faults ------------------------------------------------------------------------------------

def error_commands(sources, rng):
    if rng.random() < 0.6:
        return [f"failnth {rng.randint(1, 60)} {rng.choice(ERRNOS)}"]
    shard = rng.choice(sources.shards)
    offset = rng.randrange(2000000)
    count = rng.choice(["", " 1", " 3", " 10"])
    return [f"fail {shard} {offset} {rng.randint(1, 300000)} {rng.choice(ERRNOS)}{count}"]


def short_commands(sources, rng):
    return [f"short {rng.choice([*sources.shards, '*.safetensors'])} {rng.randint(1, 40)}"]


def stall_commands(sources, rng):
    shard = rng.choice([*sources.shards, "*.safetensors"])
    if rng.random() < 0.3:
        return [f"stall {shard}"]
    return [f"stall {shard} {rng.randrange(2000000)} {rng.randint(1, 300000)}"]


def flip_commands(sources, rng):
    shard = rng.choice(sources.shards)
    size = (sources.forms["none"] / shard).stat().st_size
    count = rng.choice(["", " 1", " 2"])
    return [f"flip {shard} {rng.randrange(size)} {rng.randrange(8)}{count}"]


def vanish_commands(sources, rng):
    return [f"vanish {rng.choice(sources.shards)}"]


COMMANDS = {"error": error_commands, "short": short_commands, "stall": stall_commands,
            "flip": flip_commands, "vanish": vanish_commands}


def mount_options(rng, flips=False):
    options = [f"chunk={rng.choice(['64K', '256K', '2M'])}"]
    if rng.random() < 0.3:
        options.append("prefetch=off")
    if rng.random() < 0.5:
        options.append(f"jobs={rng.choice([1, 2, 8])}")
    if not flips and rng.random() < 0.2:
        options.append("verify=async")
    return options


def release_when_stalled(storage, readers, rng):
    """Lets reads hang for a moment, if any does, then go on."""
    def hang_or_over():
        return storage.stats()["stalled"] > 0 or \
            all(process.poll() is not None for process in readers.processes)
    harness.wait_for(hang_or_over, BOUND, "a read that hangs, or the readers' end")
    time.sleep(rng.uniform(0, 0.05))
    storage.command("release")


def check_healed(storage, folder, sources, mount, touched):
    """The fault has gone: all can be read, at the latest after the file has changed."""
    storage.command("reset")
    if touched:  # what did not match is looked at again when the file is another one
        for shard in sources.shards:
            os.utime(folder / shard)
    end = time.monotonic() + BOUND
    while not read_all(mount.path, sources.file):
        require(time.monotonic() < end, "still failing though the fault has gone:",
                (mount / ".unshard/errors").read_text())


def play_fault(sources, kind, rng):
    origin = rng.choice(["sha256sum", "manifest"] + ["none"] * (kind != "flip"))
    folder = sources.forms[origin]
    if kind == "flip":  # its files will be touched
        folder = shutil.copytree(folder, sources.scratch / f"own-{rng.random()}")
    commands = COMMANDS[kind](sources, rng)
    before = kind != "stall" and rng.random() < 0.25
    options = mount_options(rng, flips=kind == "flip")
    ways = rng.choice([["read"], ["mmap"], ["read", "mmap"]])
    words = [f"{kind}, known from {origin}"]
    with harness.slow(folder, direct=1 if kind == "short" else rng.choice([0, 1]),
                      latency=rng.choice([0, 0.5, 2])) as storage:
        if before:
            storage.command(*commands)
        try:
            with harness.mounted(storage.path, *options) as mount:
                words += with_fault(sources, kind, rng, storage, folder, mount, ways,
                                    [] if before else commands)
        except AssertionError as error:
            raise Fault(f"{origin}, {options}, {commands}{', before the mount' * before}, {ways}: "
                        f"{error}") from error
    if kind == "flip":
        shutil.rmtree(folder)
    return words


def with_fault(sources, kind, rng, storage, folder, mount, ways, commands):
    failed = mount.component(VIEW)["error"]
    readers = Readers(mount.path, sources.file, ways)
    try:
        time.sleep(rng.uniform(0, 0.05) if rng.random() < 0.7 else 0)
        if commands:
            storage.command(*commands)
        if kind == "stall":
            release_when_stalled(storage, readers, rng)
        all_right = check_results(readers.results(), failed)
    finally:
        readers.discard()
    if failed:
        return ["the component failed at the mount"]
    check_healed(storage, folder, sources, mount, kind == "flip")
    return ["no reader noticed"] if all_right else ["readers got errors"]


# ---- the end of the daemon ---------------------------------------------------------------------

def kill(mount, rng):
    os.kill(mount.pid, signal.SIGKILL)


def kill_both(mount, rng):
    """As the end of a container does."""
    monitor = harness.child_named(mount.pid, "unshard-monitor")
    os.kill(monitor, signal.SIGSTOP)
    os.kill(mount.pid, signal.SIGKILL)
    os.kill(monitor, signal.SIGKILL)


def kill_monitor_first(mount, rng):
    os.kill(harness.child_named(mount.pid, "unshard-monitor"), signal.SIGKILL)
    time.sleep(rng.uniform(0, 0.02))
    os.kill(mount.pid, signal.SIGKILL)


def kill_stopped(mount, rng):
    os.kill(mount.pid, signal.SIGSTOP)
    time.sleep(rng.uniform(0, 0.05))
    os.kill(mount.pid, signal.SIGKILL)


def kill_ending(mount, rng):
    os.kill(mount.pid, signal.SIGTERM)
    time.sleep(rng.uniform(0, 0.03))
    os.kill(mount.pid, signal.SIGKILL)


# How it dies; whether readers get on by themselves, or when the next mount finds what is left.
DEATHS = {"kill": (kill, True), "kill-both": (kill_both, False),
          "kill-monitor": (kill_monitor_first, False), "kill-stopped": (kill_stopped, True),
          "kill-ending": (kill_ending, False)}


def check_next(sources, storage, options, first):
    with harness.mounted(storage.path, *options, mountpoint=first.path) as second:
        require(second.pid != first.pid, "the same daemon")
        require(read_all(first.path, sources.file), "another mount does not read all")
    require(not harness.is_mounted(first.path), "left mounted")


def die(sources, kind, rng, storage, options, first):
    death, alone = DEATHS[kind]
    ways = rng.choice([[], ["read"], ["mmap"], ["read", "mmap", "read"]])
    readers = Readers(first.path, sources.file, ways)
    try:
        time.sleep(rng.uniform(0, 0.15))
        death(first, rng)
        results = readers.results() if alone else None
        harness.wait_for(lambda: not harness.is_alive(first.pid), BOUND, "the daemon dead")
        check_next(sources, storage, options, first)
        all_right = check_results(results if alone else readers.results())
    finally:
        readers.discard()
    return ["killed after the readers had finished" if all_right else "killed under readers"]


def pause(sources, rng, first):
    """Stopped for a moment: nobody notices more than that."""
    readers = Readers(first.path, sources.file, ["read", "mmap"])
    try:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(first.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(first.pid, signal.SIGCONT)
        require(check_results(readers.results()), "a reader got an error")
    finally:
        readers.discard()
    first.unmount()
    return ["stopped and continued"]


def play_end(sources, kind, rng):
    origin = rng.choice(["sha256sum", "manifest", "none"])
    options = mount_options(rng)
    mountpoint = pathlib.Path(tempfile.mkdtemp(prefix="unshard-mnt-"))
    with harness.slow(sources.forms[origin], latency=rng.choice([0, 1, 3])) as storage:
        first = harness.Mount(storage.path, *options, mountpoint=mountpoint)
        try:
            require(first.result == 0, first.output)
            if kind == "pause":
                return pause(sources, rng, first)
            return die(sources, kind, rng, storage, options, first)
        except AssertionError as error:
            raise Fault(f"{origin}, {options}: {error}") from error
        finally:
            first.discard()
            mountpoint.rmdir()


def play_interrupt(sources, rng):
    """The command is ended before the mount stands, or just then."""
    mountpoint = pathlib.Path(tempfile.mkdtemp(prefix="unshard-mnt-"))
    with harness.slow(sources.forms["none"], latency=rng.choice([0, 1, 3])) as storage:
        command = [harness.UNSHARD, "mount", str(storage.path), str(mountpoint)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
            if process.wait(BOUND) == 0:
                harness.run("umount", mountpoint, check=True)
                return ["mounted before"]
            harness.wait_for(lambda: not list(harness.processes_of(command)), BOUND,
                             "nothing that goes on")
            require(not harness.is_mounted(mountpoint), "mounted all the same")
        finally:
            process.kill()
            process.wait()
            harness.detach(mountpoint)
            mountpoint.rmdir()
    return ["interrupted"]


def play(sources, number, kind, rng):
    if kind == "interrupt":
        return play_interrupt(sources, rng)
    if kind in DEATHS or kind == "pause":
        return play_end(sources, kind, rng)
    return play_fault(sources, kind, rng)


def main():
    parser = rounds.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    options = parser.parse_args()
    share = {"error": 0.16, "short": 0.1, "stall": 0.14, "flip": 0.14, "vanish": 0.1,
             "kill-both": 0.08, "kill-monitor": 0.04, "kill-stopped": 0.03, "kill-ending": 0.04,
             "interrupt": 0.04, "pause": 0.03}
    counts = {kind: round(options.rounds * part) for kind, part in share.items()}
    counts["kill"] = options.rounds - sum(counts.values())
    with rounds.scratch() as scratch:
        sources = Sources(scratch)
        campaign = Campaign("faults", options.seed, options.jobs, options.round)
        status = campaign.run(rounds.interleave(counts), lambda *round: play(sources, *round))
    if harness.left_mounted():
        print("left mounted:", *harness.left_mounted())
    return 1 if harness.left_mounted() else status


if __name__ == "__main__":
    sys.exit(main())
