# SPDX-License-Identifier: MIT
"""Digests of PyTorch shards hold for gathered tensors, too: no reader sees a byte that is wrong."""

import hashlib
import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

import torch_files
from compare import assert_same
from harness import mounted, run, wait_for
from test_torch_formats import raw, tensor_bytes

BAD = "pytorch_model-00002-of-00002.bin"


@pytest.fixture(scope="module")
def tensors():
    """Two shards: a, c and b, d; the latter two and half of the former gathered."""
    generator = torch.Generator().manual_seed(41)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {"a": random(300, 700), "b": random(500, 700).t(), "c": random(600, 400).t(),
            "d": random(64, 48, 3, 3).to(memory_format=torch.channels_last)}


@pytest.fixture
def source(tensors, tmp_path):
    return torch_files.save_bin(tmp_path / "source", tensors, 2)


def write_sums(folder):
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
             for path in sorted(folder.glob("*.bin"))]
    (folder / "SHA256SUMS").write_text("".join(lines))


def seal(folder):
    run("seal", folder, check=True)


def spoil(folder, tensors, name="b"):
    """Changes a byte in the middle of a tensor's storage, and nothing that tells of it."""
    path = folder / BAD
    data, times = bytearray(path.read_bytes()), path.stat()
    needle = tensors[name].permute(*reversed(range(tensors[name].dim()))) if name == "b" \
        else tensors[name].permute(0, 2, 3, 1)
    start = data.find(needle.contiguous().numpy().tobytes()[:4096])
    assert start > 0
    data[start + 2048] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def assert_good(found, tensors, names):
    assert_same({name: found[name] for name in names},
                {name: tensors[name].contiguous() for name in names})


def is_readable(path, name, tensors):
    """Whether the tensor reads as it should; True or None. Pages that it shares with others, which
    fail with these, are left out."""
    whole = raw(tensors[name].contiguous())
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin = 8 + length + json.loads(file.read(length))[name]["data_offsets"][0]
        skip = -begin % 4096
        size = (begin + len(whole)) // 4096 * 4096 - begin - skip
        try:
            found = os.pread(file.fileno(), size, begin + skip)
        except OSError:
            return None
    assert found == whole[skip:skip + size]
    return True


@pytest.mark.parametrize("know", [write_sums, seal])
@pytest.mark.parametrize("options", [["prefetch=all"], ["prefetch=off", "chunk=64K"],
                                     ["verify=async"]])
def test_verified(source, tensors, know, options):
    know(source)
    with mounted(source, *options) as mount:
        assert_good(load_file(mount / "model.safetensors"), tensors, tensors)
        component = wait_for(lambda: (one := mount.component("model.safetensors"))["state"]
                             == "verified" and one, what="all verified")
        assert all(shard["state"] == "verified" for shard in component["shards"])
        assert component["bytes_total"] == sum(shard["bytes_total"]
                                               for shard in component["shards"])


@pytest.mark.parametrize("options", [[], ["prefetch=off"], ["chunk=64K"]])
def test_wrong_file_is_not_served(source, tensors, options):
    write_sums(source)
    spoil(source, tensors)
    with mounted(source, *options) as mount:
        path = mount / "model.safetensors"
        readable = {name: is_readable(path, name, tensors) for name in tensors}
        assert readable == {"a": True, "b": None, "c": True, "d": None}

        def blamed():
            _, shard = mount.component_of_shard(BAD)
            return shard["state"] == "failed" and shard["error"]

        error = wait_for(blamed, what="the shard failed")
        assert error["code"] == "mismatch" and error["message"].startswith(BAD)
        errors = (mount / ".unshard/errors").read_text()
        assert BAD in errors and "gathered" not in errors
        assert mount.component_of_shard("00001-of-00002.bin")[1]["error"] is None


def test_wrong_chunk_is_not_served(source, tensors):
    """A manifest tells which chunk is bad: what does not need it works."""
    seal(source)
    spoil(source, tensors, "d")
    with mounted(source, "chunk=64K") as mount:
        path = mount / "model.safetensors"
        readable = {name: is_readable(path, name, tensors) for name in "acd"}
        assert readable == {"a": True, "c": True, "d": None}
        _, shard = mount.component_of_shard(BAD)
        assert shard["state"] == "failed" and shard["error"]["code"] == "mismatch"


def test_async_takes_it_away(source, tensors):
    write_sums(source)
    spoil(source, tensors)
    with mounted(source, "verify=async") as mount:
        path = mount / "model.safetensors"
        wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] == "failed",
                 what="the shard failed")
        wait_for(lambda: tensor_bytes(path, "b") is None, what="its bytes are taken away")
        assert tensor_bytes(path, "d") is None
        assert is_readable(path, "c", tensors)


def test_off(source, tensors):
    write_sums(source)
    spoil(source, tensors)
    with mounted(source, "verify=off") as mount:
        assert tensor_bytes(mount / "model.safetensors", "d") == raw(tensors["d"].contiguous())


def test_replaced_shard_is_read_anew(source, tensors):
    """Another shard with the same layout takes effect once nobody reads the file."""
    write_sums(source)
    good = (source / BAD).read_bytes()
    spoil(source, tensors)
    with mounted(source) as mount:
        path = mount / "model.safetensors"
        wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] == "failed",
                 what="the shard failed")
        (source / "new").write_bytes(good)
        os.replace(source / "new", source / BAD)
        wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] != "failed",
                 what="the shard is read anew")
        wait_for(lambda: tensor_bytes(path, "b") == raw(tensors["b"].contiguous()),
                 what="good bytes")
        assert tensor_bytes(path, "d") == raw(tensors["d"].contiguous())
        wait_for(lambda: mount.component("model.safetensors")["state"] == "verified",
                 what="all verified")


def test_verify_and_seal(source, tensors):
    write_sums(source)
    assert run("verify", source).returncode == 0
    seal(source)
    spoil(source, tensors)
    done = run("verify", source)
    assert done.returncode != 0 and BAD in done.stdout + done.stderr
    shutil.rmtree(source)


@pytest.mark.parametrize("gathered", [False, True])
def test_directory_of_the_archive_is_checked_too(tmp_path, gathered):
    """The views are planned from it, though no view shows it: here it lies behind a storage of
    which a tensor uses the beginning."""
    storage = torch.randn(500, 1000, generator=torch.Generator().manual_seed(42))
    tensors = {"a": torch.arange(1000.0), "z": storage[:5, ::2] if gathered else storage[:5]}
    folder = torch_files.save_bin(tmp_path / "source", tensors)
    seal(folder)
    path = folder / "pytorch_model.bin"
    with mounted(folder, "chunk=64K") as mount:
        assert_good(load_file(mount / "model.safetensors"), tensors, tensors)
        wait_for(lambda: mount.component("model.safetensors")["state"] == "verified",
                 what="all verified")
    data, times = bytearray(path.read_bytes()), path.stat()
    data[data.rfind(b"PK\1\2") + 12] ^= 1  # the time of an entry: nobody looks at it
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with mounted(folder, "chunk=64K") as mount:
        with pytest.raises(OSError):
            (mount / "model.safetensors").read_bytes()
        error = wait_for(lambda: mount.component_of_shard("pytorch_model.bin")[1]["error"],
                         what="the shard failed")
        assert error["code"] == "mismatch" and error["message"].startswith("pytorch_model.bin:")


def test_attributes_name_the_shard(source, tensors):
    write_sums(source)
    spoil(source, tensors)
    with mounted(source) as mount:
        wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] == "failed",
                 what="the shard failed")
        path = mount / "model.safetensors"
        assert os.getxattr(path, "user.unshard.digest") == b"sha256"
        errors = os.getxattr(path, "user.unshard.errors").decode()
        assert f'shard="{BAD}"' in errors and "gathered" not in errors
        # The same lines as of the whole, each once, and for the file itself, too.
        assert errors == (mount / ".unshard/errors").read_text()
        assert len(set(errors.splitlines())) == len(errors.splitlines())
        assert os.getxattr(mount / BAD, "user.unshard.errors").decode() == errors


def test_what_is_put_together_counts_once(source):
    with mounted(source) as mount:
        mount.wait_warm()
        status = mount.status()
        component, = status["components"]
        assert status["bytes_total"] == component["bytes_total"]
        assert status["bytes_published"] == component["bytes_published"]
        assert status["bytes_total"] == sum(shard["bytes_total"] for shard in component["shards"])
