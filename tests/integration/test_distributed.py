# SPDX-License-Identifier: MIT
"""Checkpoints that torch.distributed.checkpoint saved from several processes appear as one file
with whole tensors."""

import os
import pathlib
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import torch_files
from compare import assert_same
from harness import PATIENCE, mounted, run

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distributed")
    environment = dict(os.environ, PYTHONWARNINGS="ignore", TORCH_CPP_LOG_LEVEL="ERROR")
    for name in ("LD_PRELOAD", "ASAN_OPTIONS", "TSAN_OPTIONS"):
        environment.pop(name, None)
    subprocess.run([sys.executable, HERE / "distributed_save.py", folder], check=True,
                   env=environment, timeout=PATIENCE * 10)
    return folder


@pytest.fixture(scope="module")
def whole(saved):
    return torch.load(saved / "expected.pt", weights_only=True)


def visible(folder):
    return sorted(os.listdir(folder))


def nested(tensors):
    expected = {f"model.{name}": tensor for name, tensor in tensors.items()}
    return {**expected, "optimizer.step": tensors["scalar"]}


@pytest.mark.parametrize("chunk", ["64K", "2M"])
def test_dcp(saved, whole, chunk):
    with mounted(saved / "dcp", f"chunk={chunk}") as mount:
        assert visible(mount.path) == [*visible(saved / "dcp"), "model.safetensors"]
        assert_same(load_file(mount / "model.safetensors"), nested(whole))
        with safe_open(mount / "model.safetensors", framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
        mount.wait_warm()
        component = mount.component("model.safetensors")
        assert component["format"] == "dcp" and component["error"] is None
        assert [shard["file"] for shard in component["shards"]] == \
            [f"__{rank}_0.distcp" for rank in range(4)]
        assert component["bytes_published"] == component["bytes_total"] > 0
        assert any("no tensors" in note for note in component["notes"])


def test_the_mount_loads_as_the_directory(saved, whole):
    """What torch.distributed.checkpoint reads is there as it is, whatever is shown besides."""
    import torch.distributed.checkpoint as dcp

    wanted = [name for name in whole if name not in ("scalar", "empty")]
    expected = {"model": {name: torch.zeros_like(whole[name]) for name in wanted}}
    found = {"model": {name: torch.zeros_like(whole[name]) for name in wanted}}
    dcp.load(expected, checkpoint_id=str(saved / "dcp"))
    with mounted(saved / "dcp") as mount:
        dcp.load(found, checkpoint_id=str(mount.path))
        for name in [".metadata", *(f"__{rank}_0.distcp" for rank in range(4))]:
            assert (mount / name).read_bytes() == (saved / "dcp" / name).read_bytes()
    assert_same(found["model"], expected["model"])


def test_the_hugging_face_flavour_loads_through_the_mount(saved, whole):
    import torch.distributed.checkpoint as dcp

    wanted = ["row.uneven", "row"]
    with mounted(saved / "hf") as mount:
        found = {name: torch.zeros_like(whole[name]) for name in wanted}
        dcp.load(found, storage_reader=dcp.HuggingFaceStorageReader(str(mount.path)))
        assert_same(found, {name: whole[name] for name in wanted})


@pytest.mark.parametrize("beside", ["model.bin", "meta.pt", "adapter_model.safetensors"])
def test_nothing_is_added_where_a_loader_finds_weights(saved, tmp_path, beside):
    source = shutil.copytree(saved / "dcp", tmp_path / "source")
    torch.save({"w": torch.ones(3)}, source / beside)
    with mounted(source) as mount:
        assert visible(mount.path) == visible(source)
        assert any(beside in note for note in mount.status()["notes"])


def test_dcp_is_what_torch_loads(saved, whole):
    """The reference: torch's own way to one file."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(saved / "dcp", saved / "whole.pt")
    assert_same(torch.load(saved / "whole.pt", weights_only=True)["model"], whole)


def test_canonical(saved, whole, tmp_path):
    from safetensors.torch import save_file

    expected = {name: tensor.contiguous() for name, tensor in nested(whole).items()}
    expected["optimizer.step"] = expected["optimizer.step"].clone()
    save_file(expected, tmp_path / "expected", metadata={"format": "pt"})
    with mounted(saved / "dcp", "order=canonical") as mount:
        assert (mount / "model.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


def test_sharded_tensors(saved, whole):
    with mounted(saved / "sharded") as mount:
        assert_same(load_file(mount / "model.safetensors"),
                    {name: whole[name] for name in ("row", "row.large")})


def test_hugging_face_flavour(saved, whole):
    with mounted(saved / "hf") as mount:
        assert visible(mount.path) == ["model.safetensors"]
        with safe_open(mount / "model.safetensors", framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
        expected = {name: tensor for name, tensor in whole.items() if name != "transposed"}
        assert_same(load_file(mount / "model.safetensors"), expected)


def test_consolidated_beside_its_pieces(saved, whole):
    with mounted(saved / "consolidated") as mount:
        pieces = [name for name in visible(saved / "consolidated") if name.startswith("shard-")]
        assert pieces and visible(mount.path) == ["model.safetensors", "model.safetensors.index.json",
                                                  *pieces]
        found = load_file(mount / "model.safetensors")
        assert "row.uneven" in found
        assert_same(found, {name: whole[name] for name in found})
        del found


def test_layouts(saved, whole):
    with mounted(saved / "dcp", "pickle=asis") as mount:
        assert visible(mount.path) == visible(saved / "dcp")
    with mounted(saved / "dcp", "layout=both") as mount:
        assert visible(mount.path) == [*visible(saved / "dcp"), "model.safetensors"]
        for name in visible(saved / "dcp"):
            assert (mount / name).read_bytes() == (saved / "dcp" / name).read_bytes()
        assert_same(load_file(mount / "model.safetensors"), nested(whole))


def test_export(saved, whole, tmp_path):
    run("export", saved / "dcp", tmp_path / "target", check=True)
    assert visible(tmp_path / "target") == ["model.safetensors"]
    assert_same(load_file(tmp_path / "target/model.safetensors"), nested(whole))


def test_missing_file(saved, tmp_path):
    source = shutil.copytree(saved / "dcp", tmp_path / "source")
    (source / "__2_0.distcp").unlink()
    with mounted(source) as mount:
        component, shard = mount.component_of_shard("__2_0.distcp")
        assert component["state"] == "failed" and shard["error"]["code"] == "missing"


def test_unfinished_save_is_left_alone(saved, tmp_path):
    source = shutil.copytree(saved / "dcp", tmp_path / "source")
    (source / ".metadata").unlink()
    with mounted(source) as mount:
        assert visible(mount.path) == visible(source)
        assert any(".metadata" in note for note in mount.status()["notes"])


def test_missing_rank(saved, tmp_path):
    source = shutil.copytree(saved / "hf", tmp_path / "source")
    (source / "shard-00002-model-00001-of-00001.safetensors").unlink()
    with mounted(source) as mount:
        component = mount.component("model.safetensors")
        assert component["state"] == "failed"
        assert component["error"]["code"] == "malformed-parts"


def test_hostile_metadata(saved, tmp_path):
    marker = tmp_path / "marker"
    source = shutil.copytree(saved / "dcp", tmp_path / "source")
    (source / ".metadata").write_bytes(
        pickle.dumps(torch_files.Call(os.system, f"touch {marker}"), protocol=4))
    with mounted(source) as mount:
        component = mount.component("model.safetensors")
        assert component["state"] == "failed"
        assert component["error"]["code"] == "hostile-pickle"
        assert "posix.system" in component["error"]["message"]
        with pytest.raises(OSError):
            (mount / "model.safetensors").read_bytes()
    assert not marker.exists()


def test_truncated_file(saved, tmp_path):
    source = shutil.copytree(saved / "dcp", tmp_path / "source")
    path = source / "__1_0.distcp"
    os.truncate(path, path.stat().st_size - 100)
    with mounted(source) as mount:
        component, shard = mount.component_of_shard("__1_0.distcp")
        assert component["state"] == "failed" and shard["error"]["code"] == "truncated"
