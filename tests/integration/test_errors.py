# SPDX-License-Identifier: MIT
"""A bad shard fails where it is needed, by name; everything else keeps working."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import checkpoints
import digests
from compare import assert_same_models, same
from harness import mounted, run, slow, wait_for

BAD = "diffusion_pytorch_model-00002-of-00005.safetensors"
VIEW = "transformer/diffusion_pytorch_model.safetensors"
INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def copy(flux, tmp_path):
    return shutil.copytree(flux, tmp_path / "source")


def assert_failed(mount, word):
    """The status blames BAD, errors names it, and the other components still load."""
    def failed():
        component, shard = mount.component_of_shard(BAD)
        return shard["error"]

    error = wait_for(failed, what="the shard failed")
    assert BAD in error["message"] and word in (error["code"] + error["message"]).lower(), error
    assert mount.component(VIEW)["state"] == "failed"
    assert BAD in (mount / ".unshard/errors").read_text()
    assert BAD in (mount / ".unshard/status").read_text()
    assert run("status", mount.path).returncode == 3


def assert_others_work(mount, source):
    from transformers import T5EncoderModel

    expected = T5EncoderModel.from_pretrained(source / "text_encoder_2")
    assert_same_models(T5EncoderModel.from_pretrained(mount / "text_encoder_2"), expected)


def test_missing_shard(copy):
    (copy / "transformer" / BAD).unlink()
    with mounted(copy) as mount:
        assert_failed(mount, "missing")
        assert_others_work(mount, copy)


def test_malformed_header(copy):
    path = copy / "transformer" / BAD
    data = bytearray(path.read_bytes())
    data[8] = ord("[")
    path.write_bytes(data)
    with mounted(copy) as mount:
        assert_failed(mount, "header")
        assert_others_work(mount, copy)


@pytest.mark.parametrize("length", [0, 5, 2 ** 63, 2 ** 64 - 8, 100000001])
def test_header_length_lies(copy, length):
    path = copy / "transformer" / BAD
    data = path.read_bytes()
    path.write_bytes(length.to_bytes(8, "little") + data[8:])
    with mounted(copy) as mount:
        assert_failed(mount, "")
        assert_others_work(mount, copy)


def test_overlapping_tensors(copy):
    path = copy / "transformer" / BAD
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    names = [name for name in header if name != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length:])
    with mounted(copy) as mount:
        assert_failed(mount, "")
        assert_others_work(mount, copy)


def test_duplicate_tensor(copy):
    first = copy / "transformer" / BAD.replace("00002-of", "00001-of")
    tensors = load_file(copy / "transformer" / BAD)
    name, tensor = next(iter(load_file(first).items()))
    save_file({**tensors, name: tensor + 1}, copy / "transformer" / BAD, metadata={"format": "pt"})
    with mounted(copy) as mount:
        index = json.loads((mount / "transformer" / INDEX).read_text())
        assert index["weight_map"][name] == "diffusion_pytorch_model.safetensors"
        with safe_open(mount / VIEW, "pt") as merged:
            meant = merged.get_tensor(name).clone()
        assert torch.equal(meant, load_file(first)[name])
        assert not (mount / ".unshard/errors").read_text()
    (copy / "transformer" / INDEX).unlink()
    with mounted(copy) as mount:
        assert sorted(os.listdir(mount / "transformer")) == sorted(os.listdir(copy / "transformer"))
        assert any(name in note and "00001-of" in note for note in mount.status()["notes"])
        assert not (mount / ".unshard/errors").read_text()
        assert_others_work(mount, copy)


def test_tensor_of_the_index_nowhere(copy):
    index = copy / "transformer/diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["ghost.weight"] = BAD
    index.write_text(json.dumps(content))
    with mounted(copy) as mount:
        mount.wait_warm()
        assert any("ghost.weight" in note for note in mount.component(VIEW)["notes"])
        assert "ghost.weight" not in (mount / "transformer" / INDEX).read_text()
        assert not (mount / ".unshard/errors").read_text()
        assert_others_work(mount, copy)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "", "a/../../b"])
def test_hostile_index_entry(copy, name):
    index = copy / "transformer/diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = name
    index.write_text(json.dumps(content))
    with mounted(copy) as mount:
        assert mount.component(VIEW)["state"] == "failed"
        assert_others_work(mount, copy)
        for path in mount.path.rglob("*"):
            if path.is_file() and path != mount / VIEW:
                assert b"root:x:0" not in path.read_bytes()
        with pytest.raises(OSError) as failure:
            (mount / VIEW).read_bytes()
        assert failure.value.errno == errno.EIO


def read_range(path, start, end):
    """The bytes, or the errno."""
    fd = os.open(path, os.O_RDONLY)
    found = b""
    try:
        while start + len(found) < end:  # the kernel gives what lies before an error first
            part = os.pread(fd, end - start - len(found), start + len(found))
            assert part, "a short read"
            found += part
        return found
    except OSError as error:
        return error.errno
    finally:
        os.close(fd)


def ranges_of_tensors(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {name: (8 + length + tensor["data_offsets"][0], 8 + length + tensor["data_offsets"][1])
            for name, tensor in header.items() if name != "__metadata__"}


def page_apart(ranges, mine, others):
    """Whether no page of `mine` holds bytes of any of `others`."""
    first, last = ranges[mine][0] // 4096, (ranges[mine][1] - 1) // 4096
    return all(ranges[other][1] <= first * 4096 or ranges[other][0] >= (last + 1) * 4096
               for other in others)


def assert_exactly_these_fail(mount, view, expected, bad):
    """Tensors in `bad` are EIO; all others, unless they share a page with those, are right."""
    ranges = ranges_of_tensors(mount / view)
    checked = 0
    for name, (start, end) in ranges.items():
        found = read_range(mount / view, start, end)
        if name in bad:
            assert found == errno.EIO, name
        elif page_apart(ranges, name, bad) and end > start:
            found = torch.frombuffer(bytearray(found), dtype=expected[name].dtype)
            assert same(found.reshape(expected[name].shape), expected[name]), name
            checked += 1
    assert checked


def test_truncated_after_the_mount(copy):
    expected = checkpoints.tensors_of((copy / "transformer").glob("*.safetensors"))
    with mounted(copy, "prefetch=off", "chunk=64K") as mount:
        with safe_open(copy / "transformer" / BAD, framework="pt") as file:
            bad = set(file.keys())
        os.truncate(copy / "transformer" / BAD, 100)
        assert_exactly_these_fail(mount, VIEW, expected, bad)
        _, shard = mount.component_of_shard(BAD)
        assert shard["state"] == "failed" and BAD in (mount / ".unshard/errors").read_text()
        assert_others_work(mount, copy)


def test_truncated_before_the_mount(copy):
    os.truncate(copy / "transformer" / BAD, 5000)
    with mounted(copy) as mount:
        assert_failed(mount, "")
        assert_others_work(mount, copy)


def test_read_error_in_the_middle(big):
    expected = checkpoints.tensors_of(checkpoints.shard_files(big))
    bad_file = "model-00002-of-00006.safetensors"
    with slow(big) as storage:
        with mounted(storage.path, "prefetch=off", "chunk=64K") as mount:
            ranges = ranges_of_tensors(big / bad_file)
            name = sorted(ranges, key=lambda one: ranges[one])[3]
            middle = (ranges[name][0] + ranges[name][1]) // 2
            storage.command(f"fail {bad_file} {middle} 1 {errno.EIO}")
            assert_exactly_these_fail(mount, "model.safetensors", expected, {name})
            _, shard = mount.component_of_shard(bad_file)
            assert shard["error"]["errno"] == errno.EIO
            assert bad_file in shard["error"]["message"]
            storage.command("reset")
            start, end = ranges_of_tensors(mount / "model.safetensors")[name]
            wait_for(lambda: isinstance(read_range(mount / "model.safetensors", start, end),
                                        bytes), what="the read to be retried on demand")


def test_an_outage_heals(big, tmp_path):
    """Nobody reads: what failed while storage was away is prefetched when it is back."""
    log = tmp_path / "log"
    with slow(big, total=4_000_000) as storage, mounted(storage.path, f"log={log}", "jobs=2") as mount:
        storage.command("fail * 0 100000000000 5")
        wait_for(lambda: mount.component("model.safetensors")["state"] == "failed")
        storage.command("reset")
        done = run("wait", "--timeout", "30", mount.path)
        assert done.returncode == 0, done.stderr
        status = mount.status()
        assert status["bytes_published"] == status["bytes_total"]
        lines = log.read_text().splitlines()
        assert any("event=shard-failed" in line for line in lines)
        assert any("event=shard-recovered" in line and "failures=" in line for line in lines)
        assert len(lines) < 40


def test_timeout_is_the_time_that_was_said(big):
    """The kernel asks again for what a READ ahead did not get; the reader does not wait again."""
    limit, took = 3, {}

    def read(path, offset, size):
        begin = time.monotonic()
        with pytest.raises(OSError), open(path, "rb", buffering=0) as file:
            os.pread(file.fileno(), size, offset)
        took[size] = time.monotonic() - begin

    with slow(big) as storage, mounted(storage.path, "prefetch=off", f"timeout={limit}") as mount:
        storage.command("stall *")
        view = mount / "model.safetensors"
        threads = [threading.Thread(target=read, args=(view, *place))
                   for place in ((3 << 20, 4096), (10 << 20, 1 << 20))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        storage.command("release", "reset")
        assert len(took) == 2 and limit - 0.1 < min(took.values())
        assert max(took.values()) < 2 * limit, took
        assert len(wait_for(lambda: view.read_bytes(), what="storage that gives again")) > 10 << 20


def test_verification_that_goes_on_is_no_timeout(tmp_path):
    save_file({"a": torch.arange(600_000, dtype=torch.float32)}, tmp_path / "model.safetensors")
    digests.by_sha256sum(tmp_path)
    expected = (tmp_path / "model.safetensors").read_bytes()
    with slow(tmp_path, total=1_000_000) as storage, \
            mounted(storage.path, "timeout=1", "chunk=64K") as mount:
        begin = time.monotonic()
        assert (mount / "model.safetensors").read_bytes() == expected
        assert time.monotonic() - begin > 1  # else nothing has been tried


def test_short_reads_are_completed(big):
    expected = checkpoints.tensors_of(checkpoints.shard_files(big))
    with slow(big, direct=1) as storage:
        with mounted(storage.path) as mount:
            storage.command("short *.safetensors 20")
            found = load_file(mount / "model.safetensors")
            different = [name for name in expected if not same(found[name], expected[name])]
            assert not different
            del found


def test_sigbus_for_mmap_readers_of_a_bad_range(copy):
    code = ("import mmap,sys; f=open(sys.argv[1],'rb'); "
            "m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); "
            "sum(m[i] for i in range(0,len(m),4096))")
    with mounted(copy, "prefetch=off", "chunk=64K") as mount:
        os.truncate(copy / "transformer" / BAD, 100)
        done = subprocess.run([sys.executable, "-c", code, mount / VIEW], timeout=60)
        assert done.returncode == -signal.SIGBUS


def test_all_shards_bad_still_mounts(copy):
    for path in (copy / "transformer").glob("*.safetensors"):
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with mounted(copy) as mount:
        assert mount.component(VIEW)["state"] == "failed"
        assert_others_work(mount, copy)


# ---- messages -----------------------------------------------------------------------------------

def test_a_saved_page_is_told(copy):
    (copy / "transformer" / BAD).write_text("<!DOCTYPE html><html><head><title>Sign in</title>")
    with mounted(copy) as mount:
        assert_failed(mount, "saved web page")
        assert "Sign in" in run("wait", "--timeout", "20", mount.path).stderr


def test_names_are_escaped_once(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    name = 'we"i\'rd\n\\\x1b.safetensors'
    (source / name).write_bytes(b"\xff" * 64)
    with mounted(source) as mount:
        shown = 'we"i\'rd\\x0a\\\\x1b.safetensors'
        for line in (mount / ".unshard/errors").read_text().split("\n")[:-1]:
            assert f'message="{shown}: '.replace('we"i', 'we\\"i') in line
        message = mount.status()["components"][0]["error"]["message"]
        assert message.startswith(shown + ": ")
        for text in ((mount / ".unshard/status").read_text(), run("ls", source).stdout,
                     run("wait", "--timeout", "20", mount.path).stderr):
            assert message in text and "x5c" not in text and "x22" not in text
