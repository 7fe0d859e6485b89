# SPDX-License-Identifier: MIT
"""What a merged file says of its tensors comes from its shards as they are: when they say something
else, nobody gets the old words with the new bytes."""

import os

import torch
from safetensors import safe_open
from safetensors.torch import save_file

import gguf_files
from harness import mounted, wait_for


def shards(folder, value, scale):
    for number in (1, 2):
        save_file({f"t{number}": torch.full((4,), float(value))}, folder / "new",
                  metadata={"format": "pt", "scale": scale})
        os.replace(folder / "new", folder / f"model-0000{number}-of-00002.safetensors")


def read(path):
    """The scale, and the first tensor's value; None when it cannot be opened."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata()["scale"], file.get_tensor("t1")[0].item()
    except (OSError, FileNotFoundError):
        return None


def test_metadata(tmp_path):
    shards(tmp_path, 0, "1")
    with mounted(tmp_path) as mount:
        mount.wait_warm()
        path = mount / "model.safetensors"
        assert read(path) == ("1", 0)
        shards(tmp_path, 1, "2")
        wait_for(lambda: read(path) is None, what="the merged file is closed")
        error = wait_for(lambda: mount.component_of_shard("00001-of-00002.safetensors")[1]["error"],
                         what="the status says why")
        assert "header" in error["message"] and "mount" in error["message"]
        shards(tmp_path, 2, "1")  # what was mounted, with other values
        wait_for(lambda: read(path) == ("1", 2), what="the new values")


def splits(folder, rope):
    """Two splits of a GGUF file whose first one has this number."""
    for number in (0, 1):
        pairs = gguf_files.split_pairs(number, 2, 2)
        if number == 0:
            pairs.insert(0, gguf_files.pair("rope", gguf_files.F32, rope))
        data = gguf_files.build(pairs, [(f"t{number}", [8], 0, bytes(32))])
        (folder / "new").write_bytes(data)
        os.replace(folder / "new", folder / f"model-0000{number + 1}-of-00002.gguf")


def rope_of(path):
    try:
        return next(value for key, _, _, value in gguf_files.Reader(path).pairs if key == b"rope")
    except OSError:
        return None


def test_keys_of_gguf(tmp_path):
    splits(tmp_path, 1.0)
    with mounted(tmp_path) as mount:
        mount.wait_warm()
        assert rope_of(mount / "model.gguf") == 1.0
        splits(tmp_path, 2.0)
        wait_for(lambda: rope_of(mount / "model.gguf") is None, what="the merged file is closed")
