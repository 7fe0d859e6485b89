# SPDX-License-Identifier: MIT
"""A source that fails, goes or comes back under the mount: the status tells of it, whatever it
concerns, and what can be served goes on."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import Mount, mounted, run, slow, wait_for


@pytest.fixture
def pair(tmp_path):
    return write_pair(tmp_path / "source", 0)


def write_pair(folder, value):
    folder.mkdir()
    for number in (1, 2):
        save_file({f"t{number}": torch.full((1024,), float(value))},
                  folder / f"model-0000{number}-of-00002.safetensors")
    (folder / "vocabulary.bin").write_bytes(bytes(100_000))
    return folder


def status(mount):
    return json.loads(run("status", "--json", mount.path).stdout)


def test_error_of_a_file_of_no_component(pair):
    with slow(pair, direct=1) as storage, mounted(storage.path) as mount:
        mount.wait_warm()
        storage.command("fail vocabulary.bin 0 100000 5")
        with pytest.raises(OSError):
            (mount / "vocabulary.bin").read_bytes()
        found = wait_for(lambda: (lambda now: now["errors"] and now)(status(mount)),
                         what="it is counted")
        assert found["state"] == "degraded"
        assert "vocabulary.bin" in found["problems"][0]["message"]
        assert "vocabulary.bin" in (mount / ".unshard/errors").read_text()
        assert run("status", mount.path).returncode == 3
        waited = run("wait", mount.path)
        assert waited.returncode == 1 and "vocabulary.bin" in waited.stderr


def is_readable(path):
    try:
        return len(load_file(path)) > 0
    except OSError:
        return False


def test_header_that_storage_did_not_give(pair):
    with slow(pair, direct=1) as storage:
        storage.command("fail model-00001-of-00002.safetensors 0 100000 5")
        mount = Mount(storage.path)
        try:
            message = status(mount)["components"][0]["error"]["message"]
            assert "once it can be read, it is shown to who looks again" in message
            storage.command("reset")
            wait_for(lambda: is_readable(mount / "model.safetensors"), what="it is shown")
            wait_for(lambda: status(mount)["errors"] == 0, what="no error is left")
        finally:
            mount.discard()


def test_directory_that_is_made_anew(pair):
    with mounted(pair) as mount:
        mount.wait_warm()
        shutil.rmtree(pair)
        gone = wait_for(lambda: (lambda now: now["problems"] and now)(status(mount)),
                        what="the status tells that it has gone")
        assert gone["problems"][0]["code"] == "source-gone"
        write_pair(pair, 3)
        wait_for(lambda: not status(mount)["problems"], what="it is back")

        def value():
            try:
                return load_file(mount / "model.safetensors")["t2"][0].item()
            except OSError:
                return None
        wait_for(lambda: value() == 3, what="what is there now is served")
