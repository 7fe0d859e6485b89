# SPDX-License-Identifier: MIT
"""The mount as a filesystem: read-only, sensible attributes, right bytes at every boundary."""

import errno
import json
import mmap
import os
import subprocess

import pytest

import checkpoints
from harness import drop_pages, mounted, run, slow, undisturbed, wait_for

WRITES = {
    "create": lambda root: os.open(root / "new", os.O_CREAT | os.O_WRONLY),
    "open for writing": lambda root: os.open(root / "model.safetensors", os.O_WRONLY),
    "open read-write": lambda root: os.open(root / "config.json", os.O_RDWR),
    "truncate": lambda root: os.truncate(root / "model.safetensors", 0),
    "unlink": lambda root: os.unlink(root / "config.json"),
    "mkdir": lambda root: os.mkdir(root / "folder"),
    "rmdir": lambda root: os.rmdir(root / ".unshard"),
    "rename": lambda root: os.rename(root / "config.json", root / "other"),
    "symlink": lambda root: os.symlink("x", root / "link"),
    "link": lambda root: os.link(root / "config.json", root / "link"),
    "chmod": lambda root: os.chmod(root / "config.json", 0o600),
    "chown": lambda root: os.chown(root / "config.json", 1, 1),
    "utime": lambda root: os.utime(root / "config.json"),
    "setxattr": lambda root: os.setxattr(root / "config.json", "user.a", b"b"),
    "write to status": lambda root: os.open(root / ".unshard/status", os.O_WRONLY),
}


@pytest.fixture(scope="module")
def mount(llama):
    with mounted(llama) as mount:
        yield mount


@pytest.mark.parametrize("operation", WRITES)
def test_read_only(mount, operation):
    with pytest.raises(OSError) as caught:
        WRITES[operation](mount.path)
    assert caught.value.errno == errno.EROFS


def test_stat(mount, llama):
    view = os.stat(mount / "model.safetensors")
    tensors = checkpoints.tensors_of(checkpoints.shard_files(llama))
    data = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert data < view.st_size < data + (1 << 20)
    assert view.st_blocks == (view.st_size + 511) // 512
    assert view.st_blksize & (view.st_blksize - 1) == 0
    assert view.st_mode & 0o222 == 0
    newest = max(path.stat().st_mtime for path in checkpoints.shard_files(llama))
    assert abs(view.st_mtime - newest) < 2
    config, original = os.stat(mount / "config.json"), os.stat(llama / "config.json")
    assert (config.st_size, config.st_mtime_ns) == (original.st_size, original.st_mtime_ns)


def inodes(root):
    return {os.path.relpath(os.path.join(folder, name), root):
            os.lstat(os.path.join(folder, name)).st_ino
            for folder, folders, files in os.walk(root) for name in folders + files}


def test_inode_numbers_are_stable_and_distinct(flux):
    with mounted(flux) as mount:
        first = inodes(mount.path)
    with mounted(flux) as mount:
        assert inodes(mount.path) == first
    assert len(set(first.values())) == len(first)


def test_readdir_agrees_with_stat(mount):
    entries = list(os.scandir(mount.path))
    assert sorted(entry.name for entry in entries) == [
        "config.json", "generation_config.json", "model.safetensors",
        "model.safetensors.index.json"]
    for entry in entries:
        assert entry.inode() == os.lstat(entry.path).st_ino
        assert entry.is_file()


def test_the_status_directory_is_there_but_not_listed(mount, tmp_path):
    """What copies or compares the mount, or takes its directories for repositories, meets the
    checkpoint and nothing else."""
    assert ".unshard" not in os.listdir(mount.path)
    assert os.path.isdir(mount / ".unshard")
    assert sorted(os.listdir(mount / ".unshard")) == ["errors", "metrics", "status", "status.json"]
    assert ".unshard" not in os.listdir(mount.path)
    subprocess.run(["cp", "-a", mount.path, tmp_path / "copy"], check=True)
    assert sorted(os.listdir(tmp_path / "copy")) == sorted(os.listdir(mount.path))
    names = subprocess.run(["tar", "-C", mount.path, "-c", "."], check=True,
                           stdout=subprocess.PIPE).stdout
    assert b"model.safetensors" in names and b".unshard" not in names


def test_statfs(mount):
    total = os.statvfs(mount.path)
    assert total.f_bsize >= 512 and total.f_blocks > 0
    assert total.f_blocks * total.f_frsize >= os.stat(mount / "model.safetensors").st_size
    assert total.f_flag & os.ST_RDONLY


def test_missing_names(mount):
    for name in ("nothing", "model-00001-of-00099.safetensors", "config.json/x", "x" * 300):
        with pytest.raises(OSError) as caught:
            os.stat(mount / name)
        assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


def test_cp_and_tar_make_true_copies(mount, tmp_path):
    subprocess.run(["cp", "-r", mount / "model.safetensors", tmp_path / "copy"], check=True)
    expected = (mount / "model.safetensors").read_bytes()
    assert (tmp_path / "copy").read_bytes() == expected
    archive = tmp_path / "all.tar"
    subprocess.run(["tar", "-C", mount.path, "-cf", archive, "model.safetensors"], check=True)
    out = subprocess.run(["tar", "-xOf", archive, "model.safetensors"], check=True,
                         stdout=subprocess.PIPE).stdout
    assert out == expected


def boundaries(data):
    """Offsets where tensors meet, and the header's end, and pages: each and one byte beside."""
    length = int.from_bytes(data[:8], "little")
    points = {0, 8, 8 + length, len(data), 4096, 131072, 1 << 20, 2 << 20}
    for name, tensor in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            points.update(8 + length + offset for offset in tensor["data_offsets"])
    return sorted({point + beside for point in points for beside in (-1, 0, 1)
                   if 0 <= point + beside <= len(data)})


@pytest.mark.parametrize("prefetch", ["prefetch=off", "prefetch=follow", "prefetch=all"])
@pytest.mark.parametrize("chunk", ["chunk=64K", "chunk=2M"])
def test_reads_at_every_boundary(llama, prefetch, chunk):
    with mounted(llama, "order=shard", prefetch, chunk) as mount:
        path = mount / "model.safetensors"
        data = path.read_bytes()
        points = boundaries(data)
        drop_pages(path)
        fd = os.open(path, os.O_RDONLY)
        for number, point in enumerate(points):
            for size in (1, 2, 4097, 700001):
                assert os.pread(fd, size, point) == data[point:point + size]
            if number % 16 == 0:
                drop_pages(path)
        os.close(fd)


def test_direct_reads(mount):
    path = mount / "model.safetensors"
    expected = path.read_bytes()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)
    found = b""
    while True:
        got = os.preadv(fd, [buffer], len(found))
        if got <= 0:
            break
        found += buffer[:got]
    os.close(fd)
    assert found == expected


def read_directly(path, size=1 << 20):
    found, buffer = bytearray(), mmap.mmap(-1, size)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        while (got := os.preadv(fd, [buffer], len(found))) > 0:
            found += buffer[:got]
    finally:
        os.close(fd)
    return bytes(found)


@pytest.mark.parametrize("verify", ["strict", "off"])
def test_a_direct_reader_of_warm_pages_reads_no_storage(big, verify):
    """What is in the page cache is taken back from there; what the kernel has dropped is read."""
    with slow(big, latency=1) as storage, mounted(storage.path, f"verify={verify}") as mount:
        mount.wait_warm()
        view = mount / "model.safetensors"

        def takes_it_back():
            first, before = view.read_bytes(), mount.status()["bytes_read"]
            assert read_directly(view) == first
            # Now and then the kernel's answer takes too long, and storage is as good.
            assert mount.status()["bytes_read"] <= before + len(first) // 2
            return first

        first = undisturbed(takes_it_back)
        with open(view, "rb") as file:  # every third MiB is not there any more
            for offset in range(0, len(first), 3 << 20):
                os.posix_fadvise(file.fileno(), offset, 1 << 20, os.POSIX_FADV_DONTNEED)
        assert read_directly(view, 256 << 10) == first


def test_warm_pages_survive_close_and_open(big):
    """Unless somebody on this machine has taken pages meanwhile."""
    with mounted(big) as mount:
        mount.wait_warm()
        view = mount / "model.safetensors"

        def nothing_is_read():
            first = view.read_bytes()
            before = mount.status()["bytes_read"]
            assert view.read_bytes() == first
            return mount.status()["bytes_read"] == before

        wait_for(nothing_is_read)


def test_zero_tensor_and_tiny_shards(tmp_path):
    import torch

    from compare import assert_same
    from safetensors.torch import load_file, save_file

    parts = [{}, {"a": torch.tensor([7], dtype=torch.uint8)}, {"e": torch.empty(0, 3)},
             {"b": torch.tensor([1.5])}]
    for number, part in enumerate(parts):
        save_file(part, tmp_path / f"model-{number + 1:05d}-of-00004.safetensors")
    with mounted(tmp_path) as mount:
        expected = {name: tensor for part in parts for name, tensor in part.items()}
        assert_same(load_file(mount / "model.safetensors"), expected)
    assert run("ls", tmp_path).returncode == 0
