# SPDX-License-Identifier: MIT
"""Checkpoints to measure with: shards full of bytes, the same with digests, and sparse ones."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import traceback

SHARDS = 8
BLOCK = 16 << 20
SMALL, MIDDLE = 8 << 10, 1 << 20
PATTERN = "model-*-of-*.safetensors"
PICKLES = "pytorch_model-*-of-*.bin"
MERGED = "model.safetensors"
# What lies beside the shards: nothing; the SHA-256 of whole files; a manifest with those of chunks.
PLAIN, SUMS, MANIFEST = "plain", "sums", "manifest"


def header_of(tensors):
    """The bytes before the data; tensors: (name, type, shape, size) in the order of the data."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def sizes_of_shard(size):
    """As in a transformer: many small tensors, some of a MiB, and the matrices."""
    sizes = [SMALL] * 32 + [MIDDLE] * 8
    left = size - sum(sizes)
    while left > 0:
        sizes.append(min(BLOCK, left))
        left -= sizes[-1]
    return sizes


def shard_name(number, count):
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"


def write_shard(path, number, size):
    """Random bytes, repeated each BLOCK. The names of its tensors."""
    tensors = [(f"layer.{number}.{one}.weight", "BF16", [of // 256, 128], of)
               for one, of in enumerate(sizes_of_shard(size))]
    block = os.urandom(BLOCK)
    with open(path, "wb") as file:
        file.write(header_of(tensors))
        for _, _, _, of in tensors:
            file.write(block[:of])
        file.flush()
        os.fsync(file.fileno())  # what is not on disk cannot be dropped from the page cache
    return [name for name, *_ in tensors]


def write_index(folder, weight_map, size):
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@contextlib.contextmanager
def folder(parent):
    path = pathlib.Path(tempfile.mkdtemp(prefix="unshard-bench-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def shards(parent, size, unshard=None):
    """A folder with one folder for each of PLAIN, SUMS and MANIFEST, which have the same files; the
    latter is sealed by that program, if one is given."""
    with folder(parent) as path:
        plain, weight_map = path / PLAIN, {}
        plain.mkdir()
        for number in range(SHARDS):
            name = shard_name(number, SHARDS)
            for tensor in write_shard(plain / name, number, size // SHARDS // 4096 * 4096):
                weight_map[tensor] = name
        write_index(plain, weight_map, size)
        same_files(plain, path / SUMS)
        write_sums(path / SUMS)
        if unshard:
            same_files(plain, path / MANIFEST)
            subprocess.run([unshard, "seal", path / MANIFEST], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        yield path


def same_files(source, target):
    target.mkdir()
    for path in source.iterdir():
        os.link(path, target / path.name)


def write_sums(source):
    files = sorted(path.name for path in source.glob("*.safetensors"))
    with open(source / "SHA256SUMS", "w") as sums:
        subprocess.run(["sha256sum", *files], cwd=source, check=True, stdout=sums)


def drop_pages(paths):
    """Out of the page cache, and nothing else: whoever shares the machine keeps his."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


@contextlib.contextmanager
def never_returns():
    """Around all that a forked process does: it must not unwind what is its parent's to unwind."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 1
    try:
        yield
        status = 0
    except BaseException:  # told here, since nobody above may
        traceback.print_exc()
    finally:
        os._exit(status)


@contextlib.contextmanager
def pickles(parent, size):
    """PLAIN as torch.save writes it."""
    with folder(parent) as path:
        (path / PLAIN).mkdir()
        # In a process of its own: loaders are forked from this one, in which torch has no threads.
        child = os.fork()
        if child == 0:
            with never_returns():
                write_pickles(path / PLAIN, size)
        if os.waitpid(child, 0)[1]:
            raise RuntimeError("torch.save has failed")
        yield path


def write_pickles(path, size):
    """A part of the tensors is transposed, as converted checkpoints have them."""
    import torch

    for number in range(SHARDS):
        block = torch.frombuffer(bytearray(os.urandom(BLOCK)), dtype=torch.float16)
        tensors = {f"layer.{number}.{one}.weight": block.clone().view(2048, 4096)
                   for one in range(max(1, (size // SHARDS) // BLOCK))}
        tensors[f"layer.{number}.conv"] = torch.randn(512, 256, 3, 3).to(
            memory_format=torch.channels_last)
        with open(path / f"pytorch_model-{number + 1:05d}-of-{SHARDS:05d}.bin", "wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())


def sparse_shard(path, number, size, tensors):
    """A shard of that size which takes no room: its data is a hole. The names of its tensors."""
    each = size // tensors // 4096 * 4096
    names = [f"model.layers.{number}.block.{one}.weight" for one in range(tensors)]
    text = header_of([(name, "U8", [each], each) for name in names])
    with open(path, "wb") as file:
        file.write(text)
        file.truncate(len(text) + each * tensors)
    return names


def sparse_component(path, count, size, tensors):
    """count shards of `size` bytes with `tensors` tensors each, and their index."""
    path.mkdir(parents=True, exist_ok=True)
    weight_map = {}
    for number in range(count):
        name = shard_name(number, count)
        for tensor in sparse_shard(path / name, number, size, tensors):
            weight_map[tensor] = name
    write_index(path, weight_map, count * size)
