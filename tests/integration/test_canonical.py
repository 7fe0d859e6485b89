# SPDX-License-Identifier: MIT
"""order=canonical views and exports are the very bytes that the reference library saves."""

import filecmp
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

import checkpoints
import digests
from compare import assert_same
from harness import mounted, run

SEEDS = range(8)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}], ids=["bare", "format"])
@pytest.mark.parametrize("seed", SEEDS)
def test_canonical_view_is_byte_identical(tmp_path, seed, metadata):
    tensors = checkpoints.random_tensors(seed, 5 + 9 * seed)
    checkpoints.save_shards(tmp_path / "source", tensors, 1 + seed, metadata=metadata)
    save_file(tensors, tmp_path / "expected", metadata=metadata)
    with mounted(tmp_path / "source", "order=canonical") as mount:
        assert (mount / "model.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_shard_order_loads_the_same(tmp_path, seed):
    tensors = checkpoints.random_tensors(100 + seed, 30)
    checkpoints.save_shards(tmp_path / "source", tensors, 3 + seed % 3)
    with mounted(tmp_path / "source", "order=shard") as mount:
        assert_same(load_file(mount / "model.safetensors"), tensors)
        assert_aligned(mount / "model.safetensors")


def assert_aligned(path):
    """Every tensor starts at a multiple of its element size in the file."""
    import json

    widths = {"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2,
              "BF16": 2, "I16": 2, "U16": 2}
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            start = 8 + length + tensor["data_offsets"][0]
            assert start % widths.get(tensor["dtype"], 1) == 0, name


@pytest.mark.parametrize("seed", SEEDS)
def test_export_is_byte_identical(tmp_path, seed):
    tensors = checkpoints.random_tensors(200 + seed, 20)
    checkpoints.save_shards(tmp_path / "source", tensors, 4, metadata={"format": "pt"})
    save_file(tensors, tmp_path / "expected", metadata={"format": "pt"})
    run("export", tmp_path / "source", tmp_path / "out", check=True)
    assert filecmp.cmp(tmp_path / "out/model.safetensors", tmp_path / "expected", shallow=False)


def test_export_of_a_pipeline_loads(flux, tmp_path):
    from compare import assert_same_models

    run("export", flux, tmp_path / "out", check=True)
    found, expected = checkpoints.load_flux(tmp_path / "out"), checkpoints.load_flux(flux)
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert_same_models(getattr(found, name), getattr(expected, name))
    assert not list((tmp_path / "out").rglob("*-of-*"))
    assert not (tmp_path / "out/.unshard").exists()


def test_export_equals_the_view(flux, tmp_path):
    run("export", flux, tmp_path / "out", check=True)
    with mounted(flux, "order=canonical") as mount:
        exported = sorted(path.relative_to(tmp_path / "out")
                          for path in (tmp_path / "out").rglob("*") if path.is_file())
        for relative in exported:
            assert (tmp_path / "out" / relative).read_bytes() == \
                (mount / relative).read_bytes(), relative


def test_export_of_a_bad_checkpoint_fails_and_leaves_no_half(big, tmp_path):
    import shutil

    source = shutil.copytree(big, tmp_path / "source")
    (source / "model-00003-of-00006.safetensors").unlink()
    done = run("export", source, tmp_path / "out")
    assert done.returncode != 0
    assert "model-00003-of-00006.safetensors" in done.stderr
    assert not (tmp_path / "out/model.safetensors").exists()


def test_export_writes_nothing_that_does_not_match(llama, tmp_path):
    source = shutil.copytree(llama, tmp_path / "source")
    digests.by_sha256sum(source)
    bad = sorted(source.glob("model-*.safetensors"))[1]
    with open(bad, "r+b") as file:
        file.seek(-100, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    done = run("export", source, tmp_path / "target")
    assert done.returncode == 1 and bad.name in done.stderr and "sha256" in done.stderr
    assert not (tmp_path / "target/model.safetensors").exists()
    assert (tmp_path / "target/config.json").exists()
    run("export", "-o", "verify=off", source, tmp_path / "all", check=True)
    assert (tmp_path / "all/model.safetensors").exists()
