#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Corrupts shards of real checkpoints at random, one round each, and reads all of it through a mount.

In every round no reader may get a byte that is not true, the corrupted shard must be named and no
other one be blamed, and everything else must be readable. Rounds vary in what knows the digests
(SHA256SUMS, an unshard manifest, a Hugging Face cache, xxhsum), in whether the shard is corrupted
before the mount or under it, with or without its times kept, and in how it is read.
"""

import os
import pathlib
import shutil
import sys

import rounds
from rounds import Campaign, Truth, harness, require

import checkpoints
import digests

CHUNK = 64 << 10
KINDS = ["flip", "truncation", "swap", "stale", "control"]


# ---- checkpoints -------------------------------------------------------------------------------

class Sources:
    """The checkpoints in each form: what to copy for a round, and where to mount from in it."""

    def __init__(self, scratch, with_pipeline):
        self.scratch = scratch
        self.truths, self.forms, self.stale = {}, [], {}
        self.add("llama", checkpoints.llama)
        if with_pipeline:
            self.add("flux", checkpoints.flux)

    def add(self, name, build):
        plain = build(self.scratch / "plain" / name)
        self.truths[name] = Truth(plain)
        self.stale[name] = self.make_stale(name, plain)
        for origin in ("sha256sum", "manifest", "hub", "xxhsum"):
            home = self.scratch / "sealed" / name / origin
            home.mkdir(parents=True)
            folder = shutil.copytree(plain, home / "checkpoint")
            source, _, _ = digests.ORIGINS[origin](folder)
            if source != folder:
                shutil.rmtree(folder)
            self.forms.append((name, origin, home, pathlib.Path(source).relative_to(home)))

    def make_stale(self, name, plain):
        """Every shard as it was a training step ago: the same tensors with other values."""
        from safetensors import safe_open
        from safetensors.torch import load_file, save_file

        folder = self.scratch / "stale" / name
        for shard in self.truths[name].shards:
            with safe_open(plain / shard, framework="pt") as file:
                metadata = file.metadata()
            tensors = {key: (tensor.double() * 1.03 + 1e-3).to(tensor.dtype)
                       for key, tensor in load_file(plain / shard).items()}
            (folder / shard).parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / shard, metadata=metadata)
            assert (folder / shard).stat().st_size == (plain / shard).stat().st_size
        return folder


# ---- corruption --------------------------------------------------------------------------------

def chunk_pairs(rng, one, two):
    """Offsets of a chunk in each of two files whose contents differ and that are whole."""
    for _ in range(100):
        a = rng.randrange(len(one) // CHUNK) * CHUNK
        b = rng.randrange(len(two) // CHUNK) * CHUNK
        if one[a:a + CHUNK] != two[b:b + CHUNK]:
            return a, b
    return None


class Corruption:
    """Changes files of a checkpoint. `shards`: the ones that are bad then."""

    def __init__(self, kind, rng, truth, folder, stale):
        self.rng, self.folder, self.stale = rng, folder, stale
        self.names = sorted(truth.shards)
        self.shards, self.what = [], kind
        self.keep_times = rng.random() < 0.5
        self.apply = getattr(self, kind)

    def read(self, shard):
        return bytearray((self.folder / shard).read_bytes())

    def write(self, shard, data, in_place=True):
        path = (self.folder / shard).resolve()
        before = path.stat()
        if in_place:
            with open(path, "r+b") as file:
                file.write(data)
                file.truncate(len(data))
        else:
            temporary = path.with_name(path.name + ".part")
            temporary.write_bytes(data)
            temporary.rename(path)
        if self.keep_times:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.shards.append(shard)

    def flip(self):
        shard = self.rng.choice(self.names)
        data = self.read(shard)
        # One in ten in the header, which is small.
        length = 8 + int.from_bytes(data[:8], "little")
        end = length if self.rng.random() < 0.1 else len(data)
        offset, bit = self.rng.randrange(end), self.rng.randrange(8)
        data[offset] ^= 1 << bit
        self.what = f"bit {bit} of byte {offset} of {shard}"
        self.write(shard, data)
        return ["in a header"] if offset < length else []

    def truncation(self):
        shard = self.rng.choice(self.names)
        data = self.read(shard)
        size = self.rng.choice([len(data) - 1, self.rng.randrange(len(data)),
                                self.rng.randrange(len(data) // CHUNK + 1) * CHUNK])
        self.what = f"{shard} cut to {size}"
        self.write(shard, data[:min(size, len(data) - 1)])
        return []

    def swap(self):
        large = [name for name in self.names if (self.folder / name).stat().st_size >= 2 * CHUNK]
        one = self.rng.choice(large)
        two = self.rng.choice(large) if self.rng.random() < 0.5 else one
        data, other = self.read(one), self.read(two)
        pair = chunk_pairs(self.rng, data, other)
        require(pair, "no two chunks differ")
        a, b = pair
        first, second = bytes(data[a:a + CHUNK]), bytes(other[b:b + CHUNK])
        self.what = f"chunk {a} of {one} and {b} of {two}"
        data[a:a + CHUNK] = second
        if one == two:
            data[b:b + CHUNK] = first
        else:
            other[b:b + CHUNK] = first
            self.write(two, other)
        self.write(one, data)
        return ["between two shards"] if one != two else []

    def stale_version(self):
        shard = self.rng.choice(self.names)
        self.what = f"{shard} of a step ago"
        self.write(shard, (self.stale / shard).read_bytes(), in_place=self.rng.random() < 0.5)
        return []

    def control(self):
        return []


# ---- one round ---------------------------------------------------------------------------------

def read_everything(mount, truth, bad):
    """Compares all views with the truth. Returns words to count."""
    words = set()
    for view, data in truth.views.items():
        path = mount / view
        size = os.stat(path).st_size
        if not rounds.can_open(path):
            check_unreadable(mount.component(view),
                             [shard for shard in bad if truth.shards[shard] == view])
            words.add("the component failed at the mount")
            continue
        different = rounds.compare_tensors(path, data, truth.ranges[view])
        require(not different, "wrong bytes in tensors", different[:3], "of", view)
        mine = [shard for shard in bad if truth.shards[shard] == view]
        component = mount.component(view)
        if component["error"]:
            check_unreadable(component, mine)
            words.add("the component failed at the mount")
            continue
        if size != len(data) or not same_header(path, data):
            require(mine, view, "has another header though all its shards are good")
            words.add("names that a bad header gave, and no data of it")
            continue
        failing, wrong = rounds.compare_pages(path, data)
        # Its last page, which has data of a bad shard, may fail, and the others show its names.
        names = wrong & header_pages(data) if mine else set()
        if names:
            words.add("names that a bad header gave, and no data of it")
        wrong -= names
        require(not wrong, "wrong bytes in pages", sorted(wrong)[:5], "of", view)
        allowed = set().union(*[truth.pages[shard] for shard in mine])
        require(failing <= allowed, "pages of good shards fail:", sorted(failing - allowed)[:5])
        require(failing or not mine, "no page of", view, "fails")
    return words


def header_pages(data):
    """The pages of a view that hold nothing but its header."""
    return set(range((8 + int.from_bytes(data[:8], "little")) // rounds.PAGE))


def same_header(path, data):
    length = 8 + int.from_bytes(data[:8], "little")
    fd = os.open(path, os.O_RDONLY)
    try:
        return rounds.read_or_fail(fd, 0, length) in (data[:length], None)
    finally:
        os.close(fd)


def check_unreadable(component, bad):
    """A component that failed when its headers were read must name a shard that is bad."""
    message = component["error"]["message"] + "".join(
        shard["error"]["message"] for shard in component["shards"] if shard["error"])
    require(bad, "a component of good shards failed:", message)
    require(any(os.path.basename(shard) in message for shard in bad), bad, "is not named:", message)


def check_blame(mount, truth, bad):
    """Exactly the bad shards are told of; all others have been verified. Of a component whose headers
    make no sense one bad shard is told of, and none is looked at."""
    def settled():
        shards = [(shard, component) for component in mount.status()["components"]
                  for shard in component["shards"]]
        if all(shard["state"] in ("failed", "verified") or component["error"]
               for shard, component in shards):
            return shards
        # Noticed as changed, and nobody has asked since: then nobody has looked at it anew.
        read_everything(mount, truth, bad)
        return None
    shards = harness.wait_for(settled, what="every shard verified or failed")
    blamed = {shard["file"] for shard, _ in shards if shard["error"]}
    named = {shard["file"] for shard, component in shards if component["error"] and
             os.path.basename(shard["file"]) in component["error"]["message"]}
    require(blamed <= set(bad), "blamed though they are good:", sorted(blamed - set(bad)))
    never_looked_at = {shard["file"] for shard, component in shards if component["error"] and
                       any(other["file"] in blamed | named for other in component["shards"])}
    told = set(bad) - (never_looked_at - blamed - named)
    require(told <= blamed | named, "not blamed:", sorted(told - blamed - named))
    lines = (mount / ".unshard/errors").read_text().splitlines()
    for shard in told:
        require(any(shard in line or os.path.basename(shard) in line for line in lines),
                shard, "is not in errors:", lines)
    require(bool(lines) == bool(bad), "errors:", lines)


def play(sources, number, kind, rng):
    name, origin, home, below = sources.forms[number % len(sources.forms)]
    truth = sources.truths[name]
    work = sources.scratch / f"round-{number}"
    shutil.copytree(home, work, symlinks=True)
    folder = work / below
    method = "stale_version" if kind == "stale" else kind
    corruption = Corruption(method, rng, truth, folder, sources.stale[name])
    under = kind != "control" and rng.random() < 0.4
    options = [f"chunk={rng.choice(['64K', '256K', '2M'])}"]
    if under or rng.random() < 0.3:
        options.append("prefetch=off")
    words = [] if under else corruption.apply()
    try:
        with harness.mounted(folder, *options) as mount:
            if under:
                words = corruption.apply()
            try:
                words += read_everything(mount, truth, corruption.shards)
                check_blame(mount, truth, corruption.shards)
            except AssertionError as error:
                raise rounds.Fault(f"{name}, {origin}, {options}, {corruption.what}"
                                   f"{', under the mount' * under}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return words + [f"known from {origin}"] + ["under the mount"] * under + \
        ["times kept"] * (corruption.keep_times and kind != "control")


def main():
    parser = rounds.parser(__doc__)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--truncations", type=int, default=100)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--stale", type=int, default=100)
    parser.add_argument("--control", type=int, default=50, help="rounds with nothing corrupted")
    parser.add_argument("--no-pipeline", action="store_true", help="only one small model: faster")
    options = parser.parse_args()
    kinds = rounds.interleave({"flip": options.flips, "truncation": options.truncations,
                               "swap": options.swaps, "stale": options.stale,
                               "control": options.control})
    with rounds.scratch() as scratch:
        sources = Sources(scratch, not options.no_pipeline)
        campaign = Campaign("detection", options.seed, options.jobs, options.round)
        return campaign.run(kinds, lambda *round: play(sources, *round))


if __name__ == "__main__":
    sys.exit(main())
