#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Lets storage fail at random moments, one round each.

In every round readers get right bytes or an error, and get it within a bound; when the fault has
gone all can be read; nothing stays mounted. Faults: the k-th read fails, reads are short, hang until
they are released, or have a bit flipped, or a file vanishes.
"""

import errno
import os
import shutil
import sys
import time

import rounds
from readers import (BOUND, VIEW, Readers, Sources, check_results, mount_options, read_all)
from rounds import Campaign, Fault, harness, require

ERRNOS = [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM, errno.EAGAIN]


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


def main():
    parser = rounds.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=320)
    options = parser.parse_args()
    share = {"error": 0.25, "short": 0.16, "stall": 0.22, "vanish": 0.15}
    counts = {kind: round(options.rounds * part) for kind, part in share.items()}
    counts["flip"] = options.rounds - sum(counts.values())
    with rounds.scratch() as scratch:
        sources = Sources(scratch)
        campaign = Campaign("faults", options.seed, options.jobs, options.round)
        status = campaign.run(rounds.interleave(counts), lambda number, kind, rng: play_fault(sources, kind, rng))
    if harness.left_mounted():
        print("left mounted:", *harness.left_mounted())
    return 1 if harness.left_mounted() else status


if __name__ == "__main__":
    sys.exit(main())
