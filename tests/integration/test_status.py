# SPDX-License-Identifier: MIT
"""The status files and the commands that show them."""

import errno
import json
import os
import subprocess

from harness import UNSHARD, is_alive, mounted, run, slow, wait_for

STATES = {"pending", "reading", "verified", "unverified", "failed"}


def check_schema(status):
    assert status["schema"] == 1
    for key, kind in (("pid", int), ("source", str), ("state", str), ("components", list)):
        assert isinstance(status[key], kind), key
    for component in status["components"]:
        for key, kind in (("name", str), ("view", str), ("state", str), ("bytes_total", int),
                          ("bytes_published", int), ("shards", list)):
            assert isinstance(component[key], kind), key
        assert component["state"] in STATES
        assert 0 <= component["bytes_published"] <= component["bytes_total"]
        for shard in component["shards"]:
            check_shard(shard)


def check_shard(shard):
    assert isinstance(shard["file"], str) and shard["state"] in STATES
    assert 0 <= shard["bytes_read"] <= shard["bytes_total"]
    error = shard["error"]
    assert (error is not None) == (shard["state"] == "failed")
    if error is not None:
        assert set(error) >= {"code", "message", "offset", "errno", "time"}


def test_schema_and_content(flux):
    with mounted(flux) as mount:
        mount.wait_warm()
        status = mount.status()
        check_schema(status)
        assert is_alive(status["pid"])
        assert os.path.samefile(status["source"], flux)
        views = {component["view"] for component in status["components"]}
        assert {"transformer/diffusion_pytorch_model.safetensors",
                "text_encoder_2/model.safetensors"} <= views
        component = mount.component("transformer/diffusion_pytorch_model.safetensors")
        size = os.stat(mount / "transformer/diffusion_pytorch_model.safetensors").st_size
        assert 0 < size - component["bytes_total"] < 1 << 20  # the header
        assert component["bytes_published"] == component["bytes_total"]
        shards = sorted(os.path.basename(shard["file"]) for shard in component["shards"])
        assert shards == sorted(path.name for path in (flux / "transformer").glob("*-of-*"))
        for shard in component["shards"]:
            assert shard["state"] in ("unverified", "verified")
            assert shard["bytes_read"] == shard["bytes_total"]


def test_text_and_errors_when_all_is_well(llama):
    with mounted(llama) as mount:
        mount.wait_warm()
        assert (mount / ".unshard/errors").read_text() == ""
        text = (mount / ".unshard/status").read_text()
        assert "model.safetensors" in text


def test_snapshot_is_consistent_while_open(big):
    with slow(big, latency=1) as storage, mounted(storage.path) as mount:
        with open(mount / ".unshard/status.json") as file:
            first = file.read(40)
            mount.wait_warm()
            json.loads(first + file.read())


def test_readable_while_storage_hangs(big):
    with slow(big) as storage:
        with mounted(storage.path, "prefetch=off") as mount:
            storage.command("stall *.safetensors")
            reader = subprocess.Popen(["cat", mount / "model.safetensors"],
                                      stdout=subprocess.DEVNULL)
            wait_for(lambda: storage.stats()["stalled"] > 0, what="a stalled read")
            check_schema(mount.status())
            assert (mount / ".unshard/status").read_text()
            assert (mount / ".unshard/errors").read_text() == ""
            assert (mount / "model.safetensors.index.json").stat().st_size > 0
            storage.command("release")
            assert reader.wait(60) == 0


def test_status_command(llama):
    with mounted(llama) as mount:
        mount.wait_warm()
        found = json.loads(run("status", "--json", mount.path, check=True).stdout)
        check_schema(found)
        assert found["pid"] == mount.pid
        assert "model.safetensors" in run("status", mount.path, check=True).stdout


def test_watch_shows_progress_and_ends_with_the_mount(llama):
    with mounted(llama) as mount:
        watch = subprocess.Popen([UNSHARD, "status", "--watch", "-n", "0.1", str(mount.path)],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert any("100 %" in watch.stdout.readline() for _ in range(100))
            watch.terminate()
            watch.wait(20)
        finally:
            watch.kill()


def test_status_of_something_else_fails(tmp_path):
    done = run("status", tmp_path)
    assert done.returncode not in (0, 3) and str(tmp_path) in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    error = json.loads(run("status", "--json", tmp_path).stdout)["error"]
    assert error["code"] == "not-mounted" and error["errno"] == errno.ENOENT
    assert str(tmp_path) in error["message"] and error["offset"] is None


def test_ls(flux):
    text = run("ls", flux, check=True).stdout
    assert "transformer" in text and "diffusion_pytorch_model-00001-of-00005" in text
    json.loads(run("ls", "--json", flux, check=True).stdout)


def find_tensors(value):
    """Every object in the JSON that describes a tensor."""
    if isinstance(value, dict):
        if {"name", "dtype", "shape"} <= set(value):
            yield value
        for one in value.values():
            yield from find_tensors(one)
    elif isinstance(value, list):
        for one in value:
            yield from find_tensors(one)


def test_ls_tensors(llama):
    import checkpoints

    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    described = json.loads(run("ls", "--json", "--tensors", llama, check=True).stdout)
    found = {tensor["name"]: tensor for tensor in find_tensors(described)}
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name]["dtype"] == "BF16" and found[name]["shape"] == list(tensor.shape)
        assert found[name]["bytes"] == tensor.numel() * 2
