# SPDX-License-Identifier: MIT
"""What a merged file says of its tensors comes from its shards as they are: when they say something
else, nobody gets the old words with the new bytes."""

import json
import os

import torch
from safetensors.torch import load, save_file

import gguf_files
from harness import mounted, wait_for


def shards(folder, value, scale):
    for number in (1, 2):
        save_file({f"t{number}": torch.full((4,), float(value))}, folder / "new",
                  metadata={"format": "pt", "scale": scale})
        os.replace(folder / "new", folder / f"model-0000{number}-of-00002.safetensors")


def read(path):
    """The scale, and the first tensor's value; None when it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    header = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])
    return header["__metadata__"].get("scale"), load(data)["t1"][0].item()


def test_metadata(tmp_path):
    shards(tmp_path, 0, "1")
    with mounted(tmp_path) as mount:
        mount.wait_warm()
        path = mount / "model.safetensors"
        assert read(path) == ("1", 0)
        shards(tmp_path, 1, "2")
        wait_for(lambda: read(path) == ("2", 1), what="a new merged file")
        shards(tmp_path, 2, "1")  # what was mounted, with other values
        wait_for(lambda: read(path) == ("1", 2), what="the new values")
        wait_for(lambda: (mount / ".unshard/errors").read_text() == "", what="nothing is wrong")


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
        wait_for(lambda: rope_of(mount / "model.gguf") == 2.0, what="a new merged file")
