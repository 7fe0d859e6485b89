# SPDX-License-Identifier: MIT
"""How checkpoints lie around on disks."""

import json
import os
import shutil

import torch
from safetensors.torch import load_file, save_file

import checkpoints
from compare import assert_same, assert_same_models
from harness import mounted


def names(folder):
    return sorted(entry.name for entry in os.scandir(folder))


def test_hub_cache_snapshot(llama, tmp_path):
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM

    snapshot = checkpoints.hub_cache(tmp_path / "hub", llama)
    found = snapshot_download("acme/tiny", cache_dir=tmp_path / "hub", local_files_only=True)
    assert os.path.samefile(found, snapshot)
    expected = AutoModelForCausalLM.from_pretrained(llama)
    with mounted(found) as mount:
        assert names(mount.path) == ["config.json", "generation_config.json",
                                     "model.safetensors", "model.safetensors.index.json"]
        assert (mount / "config.json").read_bytes() == (llama / "config.json").read_bytes()
        assert_same_models(AutoModelForCausalLM.from_pretrained(mount.path), expected)


def test_hub_cache_snapshot_of_a_pipeline(flux, tmp_path):
    snapshot = checkpoints.hub_cache(tmp_path / "hub", flux)
    expected = checkpoints.load_flux(flux)
    with mounted(snapshot) as mount:
        found = checkpoints.load_flux(mount.path)
        assert_same_models(found.transformer, expected.transformer)
        assert_same_models(found.text_encoder_2, expected.text_encoder_2)
        del found


def test_local_download(llama, tmp_path):
    source = checkpoints.local_download(tmp_path / "local", llama)
    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    with mounted(source) as mount:
        assert_same(load_file(mount / "model.safetensors"), expected)


def test_component_directory_by_itself(flux):
    from diffusers import FluxTransformer2DModel

    expected = FluxTransformer2DModel.from_pretrained(flux / "transformer")
    with mounted(flux / "transformer") as mount:
        found = FluxTransformer2DModel.from_pretrained(mount.path)
        assert_same_models(found, expected)
        del found


def test_other_files_as_they_are(flux):
    with mounted(flux) as mount:
        for path in flux.rglob("*"):
            relative = path.relative_to(flux)
            if path.is_dir():
                assert (mount / relative).is_dir()
            elif "-of-" not in path.name and not path.name.endswith(".index.json"):
                assert (mount / relative).read_bytes() == path.read_bytes(), relative


def test_rewritten_index_lists_exactly_the_tensors(flux):
    with mounted(flux) as mount:
        folder = mount / "transformer"
        index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
        original = json.loads((flux / "transformer/diffusion_pytorch_model.safetensors.index.json")
                              .read_text())
        assert index["metadata"] == original["metadata"]
        assert set(index["weight_map"]) == set(original["weight_map"])
        assert set(index["weight_map"].values()) == {"diffusion_pytorch_model.safetensors"}


def test_hidden_index(llama):
    with mounted(llama, "index=hide") as mount:
        assert not (mount / "model.safetensors.index.json").exists()


def test_shards_are_opened_by_name_and_not_listed(llama, tmp_path):
    """Who knows a shard's name (a list of checksums, the listing of the repository that the hub's
    library keeps) finds what is on disk; who lists the directory sees each tensor once."""
    from harness import run

    source = checkpoints.local_download(tmp_path / "source", llama)  # with the digests of shards
    with mounted(source) as mount:
        assert not [name for name in names(mount.path) if "-of-" in name]
        mount.wait_warm()
        for path in checkpoints.shard_files(source):
            assert (mount / path.name).read_bytes() == path.read_bytes()
        component = mount.component("model.safetensors")
        assert component["state"] == "verified"
    run("export", source, tmp_path / "target", check=True)
    assert not list((tmp_path / "target").glob("*-of-*"))


def test_shards_without_an_index(llama, tmp_path):
    source = shutil.copytree(llama, tmp_path / "source")
    (source / "model.safetensors.index.json").unlink()
    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    with mounted(source) as mount:
        assert_same(load_file(mount / "model.safetensors"), expected)


def test_families_side_by_side(tmp_path):
    first, second = checkpoints.random_tensors(1), checkpoints.random_tensors(2)
    checkpoints.save_shards(tmp_path, first, 3, "high_noise_model")
    checkpoints.save_shards(tmp_path, second, 4, "low_noise_model")
    with mounted(tmp_path) as mount:
        assert_same(load_file(mount / "high_noise_model.safetensors"), first)
        assert_same(load_file(mount / "low_noise_model.safetensors"), second)


def test_consolidated_is_not_merged_with_the_rest(tmp_path):
    tensors = checkpoints.random_tensors(3)
    checkpoints.save_shards(tmp_path, tensors, 2)
    save_file(tensors, tmp_path / "consolidated.safetensors")
    with mounted(tmp_path) as mount:
        assert_same(load_file(mount / "model.safetensors"), tensors)
        assert (mount / "consolidated.safetensors").read_bytes() == \
            (tmp_path / "consolidated.safetensors").read_bytes()


def test_per_rank_files_and_adapters_stay(tmp_path):
    kept = ["rank0.safetensors", "rank1.safetensors", "adapter_model.safetensors"]
    for number, name in enumerate(kept):
        save_file({"w": torch.full((5,), float(number))}, tmp_path / name)
    with mounted(tmp_path) as mount:
        for name in kept:
            assert (mount / name).read_bytes() == (tmp_path / name).read_bytes()


def test_nothing_is_added_to_a_component_directory(flux):
    with mounted(flux) as mount:
        assert names(mount / "transformer") == [
            "config.json", "diffusion_pytorch_model.safetensors",
            "diffusion_pytorch_model.safetensors.index.json"]
        assert sorted(names(mount.path)) == sorted(names(flux))


def test_a_path_that_leaves_the_checkpoint_is_not_followed(tmp_path):
    source = tmp_path / "source"
    checkpoints.save_shards(source, {"w": torch.ones(4), "v": torch.ones(4)}, 2)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (source / "link.txt").symlink_to(secret)
    (source / "inside.json").write_text("{}")
    (source / "inner.json").symlink_to("inside.json")
    with mounted(source) as mount:
        try:
            assert (mount / "link.txt").read_text() != "secret" or \
                os.readlink(mount / "link.txt") == str(secret)
        except OSError:
            pass
        assert (mount / "inner.json").read_text() == "{}"
    with mounted(source, "follow_symlinks") as mount:
        assert (mount / "link.txt").read_text() == "secret"


def test_source_is_never_written(llama):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in llama.rglob("*")}
    with mounted(llama) as mount:
        mount.wait_warm()
    assert before == {path: (path.stat().st_mtime_ns, path.stat().st_size)
                      for path in llama.rglob("*")}
