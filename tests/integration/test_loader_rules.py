# SPDX-License-Identifier: MIT
"""What loaders find by their own rules for files is the same on disk and on the mount."""

import json
import os
import pathlib
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
import loaders
import torch_files
from compare import assert_same, assert_same_models
from harness import mounted, wait_for


def files_below(folder):
    folder = pathlib.Path(folder)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if path.is_file())


class Megatron:
    """Stands for the classes that training scripts put beside the weights."""


def deflated(path, content):
    torch.save(content, path.with_suffix(".stored"))
    with zipfile.ZipFile(path.with_suffix(".stored")) as source, \
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    path.with_suffix(".stored").unlink()


def odd_files(folder):
    """PyTorch files that are no plain dict of tensors that safetensors could hold."""
    import argparse

    import numpy

    torch.manual_seed(3)
    weights = {"w": torch.randn(4, 5)}
    linear = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(linear.parameters())
    linear(torch.ones(3)).sum().backward()
    optimizer.step()
    contents = {
        "wrapped": {"model": weights, "epoch": 3}, "state-dict": {"state_dict": weights},
        "numpy": {**weights, "step": numpy.float64(3)}, "complex": {"w": torch.ones(3).cdouble()},
        "sparse": {"w": torch.eye(3).to_sparse()}, "optimizer": optimizer.state_dict(),
        "quantised": {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        "meta": {"w": torch.empty(3, device="meta")}, "alone": torch.ones(3), "list": [weights],
        "namespace": {**weights, "args": argparse.Namespace(lr=1)}, "megatron": [Megatron()],
        "module": linear, "conjugate": {"w": torch.ones(3).cfloat().conj()},
        "numbered": {0: torch.ones(2)}, "none": {"rng": [1, 2]},
    }
    for name, content in contents.items():
        (folder / name).mkdir(parents=True)
        torch.save(content, folder / name / "pytorch_model.bin")
    (folder / "script").mkdir()
    torch.jit.save(torch.jit.script(linear), folder / "script/pytorch_model.bin")
    (folder / "deflated").mkdir()
    deflated(folder / "deflated/pytorch_model.bin", weights)
    (folder / "protocol").mkdir()
    torch.save(weights, folder / "protocol/pytorch_model.bin", pickle_protocol=4)
    (folder / "words").mkdir()
    (folder / "words/pytorch_model.bin").write_text("no weights at all")
    for inner in folder.iterdir():
        (inner / "config.json").write_text("{}")
        for ending in ("pt", "pth", "ckpt", "bin"):
            shutil.copyfile(inner / "pytorch_model.bin", inner / f"other.{ending}")
    # The latter stands against a view of its own; so that each has its say:
    for inner in folder.iterdir():
        (inner / "other.bin").rename(inner / "other.data")
    return folder


def test_what_is_no_dict_of_tensors_is_as_on_disk(tmp_path):
    source = odd_files(tmp_path / "source")
    with mounted(source, "prefetch=all") as mount:
        assert files_below(mount.path) == files_below(source)
        for name in files_below(source):
            assert (mount / name).read_bytes() == (source / name).read_bytes(), name
        status = mount.status()
        assert status["errors"] == 0 and status["components"] == []
        assert status["state"] not in ("failed", "degraded")
        for inner in os.listdir(source):
            assert any(note.startswith(f"{inner}/pytorch_model.bin") for note in status["notes"]), \
                (inner, status["notes"])


@pytest.mark.parametrize("count", [1, 3])
def test_transformers_takes_either_form(llama, tmp_path, count):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama)
    torch_files.transformers_bin(tmp_path, model, count)
    bins = sorted(path.name for path in tmp_path.glob("pytorch_model*"))
    with mounted(tmp_path) as mount:
        listed = os.listdir(mount.path)
        assert "model.safetensors" in listed
        assert ("pytorch_model.bin" in listed) == (count == 1)
        for name in bins:
            assert (mount / name).read_bytes() == (tmp_path / name).read_bytes()
        for use_safetensors in (None, True, False):
            found = AutoModelForCausalLM.from_pretrained(mount.path,
                                                         use_safetensors=use_safetensors)
            assert_same_models(found, model)
            del found
        # What is opened beside the component is not counted as a part of it.
        wait_for(lambda: (one := mount.component("model.safetensors"))["bytes_published"]
                 == one["bytes_total"], what="all of it, and no more")


def test_diffusers_takes_either_form(tmp_path):
    from diffusers import AutoencoderKL

    torch.manual_seed(12)
    model = AutoencoderKL(block_out_channels=(32,), layers_per_block=1, latent_channels=4,
                          down_block_types=("DownEncoderBlock2D",),
                          up_block_types=("UpDecoderBlock2D",))
    model.save_pretrained(tmp_path / "one", safe_serialization=False)
    model.save_pretrained(tmp_path / "many", safe_serialization=False, max_shard_size="100KB")
    with mounted(tmp_path) as mount:
        for name in ("one", "many"):
            assert (mount / name / "diffusion_pytorch_model.safetensors").is_file()
            for use_safetensors in (None, False):
                found = AutoencoderKL.from_pretrained(mount / name,
                                                      use_safetensors=use_safetensors)
                assert_same_models(found, model)
                del found


def test_accelerate_and_the_hub_library(tmp_path):
    from accelerate import load_checkpoint_in_model
    from huggingface_hub import load_torch_model

    model = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 2))
    for count in (1, 2):
        torch_files.save_bin(tmp_path / str(count), model.state_dict(), count)
        (tmp_path / str(count) / "config.json").write_text("{}")
    with mounted(tmp_path) as mount:
        for count in ("1", "2"):
            for load in (load_checkpoint_in_model, load_torch_model):
                found = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 2))
                load(found, mount / count)
                assert_same_models(found, model)


GLOBS = {"vllm": loaders.vllm_files, "trtllm": loaders.trtllm_hf_weight_files}
WEIGHTS = {name: {f"{name}.{i}": torch.full((3, 4), float(i)) for i in range(2)} for name in "abc"}
# What lies in a directory: name -> which weights.
DIRECTORIES = {
    "one": {"pytorch_model.bin": "a"},
    "an adapter": {"pytorch_model.bin": "a", "adapter_model.bin": "b"},
    "an adapter in the other form": {"pytorch_model.bin": "a", "adapter_model.safetensors": "b"},
    "another name": {"model.bin": "a", "vae.pth": "b"},
    "an average": {"pytorch_model.bin": "a", "ema.pt": "b"},
    "a variant": {"pytorch_model.bin": "a", "pytorch_model.fp16.bin": "b"},
    "two stems": {"pytorch_model.bin": "a", "open_clip_pytorch_model.bin": "a"},
    "both forms": {"pytorch_model.bin": "a", "model.safetensors": "a"},
    "of training": {"pytorch_model.bin": "a", "optimizer.pt": None, "training_args.bin": None},
    "a wrapped variant": {"pytorch_model.bin": "a", "pytorch_model.fp16.bin": "wrapped"},
    "Meta's": {"consolidated.00.pth": "a", "consolidated.01.pth": "b"},
    "shards": {"pytorch_model-00001-of-00002.bin": "a", "pytorch_model-00002-of-00002.bin": "b"},
    "shards and one more": {"pytorch_model-00001-of-00002.bin": "a",
                            "pytorch_model-00002-of-00002.bin": "b", "extra.bin": "c"},
}


def make_directory(folder, files, configured):
    folder.mkdir(parents=True)
    for name, which in files.items():
        if name.endswith(".safetensors"):
            save_file(WEIGHTS[which], folder / name)
        elif which == "wrapped":
            torch.save({"model": WEIGHTS["b"], "epoch": 1}, folder / name)
        else:
            torch.save(WEIGHTS[which] if which else {"step": 1}, folder / name)
    if configured:
        (folder / "config.json").write_text("{}")


def tensors_by(rule, folder):
    """The tensors that a loader finds that takes all files of its rule."""
    found = {}
    try:
        files = rule(folder)
    except RuntimeError:  # it finds none
        return {}
    for path in files:
        content = load_file(path) if path.suffix == ".safetensors" else \
            torch.load(path, weights_only=True)
        found.update({name: tensor for name, tensor in content.items()
                      if isinstance(tensor, torch.Tensor)})
    return found


def test_who_takes_all_files_finds_the_same(tmp_path):
    source = tmp_path / "source"
    for name, files in DIRECTORIES.items():
        make_directory(source / name, files, False)
        make_directory(source / f"{name}, configured", files, True)
    with mounted(source) as mount:
        for inner in sorted(os.listdir(source)):
            for loader, rule in GLOBS.items():
                assert_same(tensors_by(rule, mount / inner), tensors_by(rule, source / inner))
            for name in os.listdir(source / inner):
                assert (mount / inner / name).read_bytes() == (source / inner / name).read_bytes()
        assert "model.safetensors" in os.listdir(mount / "one, configured")
        assert "model.safetensors" in os.listdir(mount / "of training, configured")
        assert not (mount / "shards and one more/model.safetensors").exists()
        assert_same(load_file(mount / "one/model.safetensors"), WEIGHTS["a"])
        assert mount.status()["errors"] == 0


def comfyui_tree(folder):
    """What the folders of ComfyUI hold: one file is one model, under the name that people know."""
    tensors = {"conv.weight": torch.randn(3, 4), "conv.bias": torch.randn(3)}
    wide = {f"{prefix}{i}.weight": torch.randn(4, 3) for i in range(8)
            for prefix in ("model.diffusion_model.input_blocks.", "first_stage_model.encoder.",
                           "cond_stage_model.transformer.")}
    saves = {"checkpoints/sd15.safetensors": wide, "checkpoints/older.ckpt": {"state_dict": wide},
             "Stable-diffusion/web-ui.safetensors": wide,
             "upscale_models/4x.pth": {"params_ema": tensors}, "upscale_models/2x.pth": tensors,
             "embeddings/negative.pt": {"string_to_param": {"*": torch.zeros(3)}, "step": 5},
             "vae/v.safetensors": tensors, "vae/v.pt": {f"o.{k}": v for k, v in tensors.items()},
             "loras/style.safetensors": tensors, "loras/old.pt": tensors,
             "loras/lora-00001-of-00004.safetensors": tensors, "clip/t5.bin": tensors,
             "clip_vision/pytorch_model.bin": tensors, "controlnet/model.bin": tensors,
             "unet/sub/diffusion_pytorch_model.bin": tensors, "style_models/x.sft": tensors,
             "gligen/diffusion_pytorch_model.safetensors": tensors}
    for name, content in saves.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".safetensors", ".sft"):
            save_file(content, path)
        else:
            torch.save(content, path)
    return folder


def test_comfyui_lists_and_opens_what_is_on_disk(tmp_path):
    source = comfyui_tree(tmp_path / "models")

    def listed(folder):
        return [path.relative_to(folder).as_posix() for path in loaders.comfyui_models(folder)]

    with mounted(source) as mount:
        assert listed(mount.path) == listed(source)
        for name in listed(source):
            assert (mount / name).read_bytes() == (source / name).read_bytes(), name
        assert mount.status()["errors"] == 0
    # A folder of it by itself is no other thing.
    with mounted(source / "checkpoints") as mount:
        assert listed(mount.path) == listed(source / "checkpoints")


def hub(folder, saved, missing):
    """A cache in which an earlier run has asked for names that the repository does not have."""
    snapshot = checkpoints.hub_cache(folder, saved)
    marker = snapshot.parent.parent / ".no_exist" / snapshot.name
    for name in missing:
        (marker / name).parent.mkdir(parents=True, exist_ok=True)
        (marker / name).touch()
    return snapshot


@pytest.mark.parametrize("form", ["safetensors", "bin", "one bin"])
def test_the_hub_library_is_not_told_that_what_is_there_is_not(llama, tmp_path, monkeypatch, form):
    from huggingface_hub import scan_cache_dir
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model, saved = AutoModelForCausalLM.from_pretrained(llama), llama
    if form != "safetensors":
        saved = tmp_path / "saved"
        torch_files.transformers_bin(saved, model, 1 if form == "one bin" else 3)
    missing = ["model.safetensors", "adapter_config.json"]
    if form != "safetensors":
        missing.append("model.safetensors.index.json")
    snapshot = hub(tmp_path / "hub", saved, missing)
    commit = snapshot.name
    with mounted(tmp_path / "hub") as mount:
        found = AutoModelForCausalLM.from_pretrained("acme/tiny", cache_dir=mount.path,
                                                     local_files_only=True)
        assert_same_models(found, model)
        del found
        markers = mount / "models--acme--tiny/.no_exist" / commit
        # What is added is not said to be missing; of the rest nothing changes.
        assert "model.safetensors" not in os.listdir(markers)
        assert (markers / "adapter_config.json").exists()
        info = scan_cache_dir(mount.path)
        assert not info.warnings and [repo.repo_id for repo in info.repos] == ["acme/tiny"]
    with mounted(snapshot) as mount:
        assert (mount / "config.json").is_file()


def test_a_snapshot_is_complete_by_the_listing_that_the_hub_library_keeps(llama, tmp_path):
    """trees/COMMIT.json names the shards: they are there for who asks by name."""
    from huggingface_hub import snapshot_download

    snapshot = checkpoints.hub_cache(tmp_path / "hub", llama)
    tree = {path.name: {"size": path.stat().st_size, "blob_id": "0" * 40}
            for path in llama.iterdir()}
    folder = snapshot.parent.parent / "trees"
    folder.mkdir()
    (folder / f"{snapshot.name}.json").write_text(json.dumps({"format_version": 1, "files": tree}))
    with mounted(tmp_path / "hub") as mount:
        found = snapshot_download("acme/tiny", cache_dir=mount.path, local_files_only=True)
        assert sorted(os.listdir(found)) == sorted(os.listdir(mount.path /
                                                              snapshot.relative_to(tmp_path / "hub")))
