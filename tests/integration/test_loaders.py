# SPDX-License-Identifier: MIT
"""Unmodified loaders through a mount get, bit for bit, what they get from the shards."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import checkpoints
import loaders
from compare import assert_same, assert_same_models
from harness import mounted

# What the daemon does in these, others have it do in less time.
pytestmark = pytest.mark.heavy

ORDERS = ["order=shard", "order=canonical"]


@pytest.mark.parametrize("order", ORDERS)
def test_safe_open_and_load_file(llama, order):
    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    with mounted(llama, order) as mount:
        view = mount / "model.safetensors"
        assert_same(load_file(view), expected)
        with safe_open(view, framework="pt") as file:
            assert set(file.keys()) == set(expected)
            assert file.metadata() == {"format": "pt"}
            assert_same({name: file.get_tensor(name) for name in file.keys()}, expected)
            slices = file.get_slice("model.embed_tokens.weight")[10:20]
            assert torch.equal(slices, expected["model.embed_tokens.weight"][10:20])
        del slices


def test_numpy_reader(t5):
    from safetensors.numpy import load_file as load_numpy

    expected = checkpoints.tensors_of(checkpoints.shard_files(t5))
    with mounted(t5) as mount:
        found = load_numpy(mount / "model.safetensors")
        assert_same({name: torch.from_numpy(array) for name, array in found.items()}, expected)


@pytest.mark.parametrize("index", ["index=rewrite", "index=hide"])
def test_transformers_decoder(llama, index):
    from transformers import AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(llama)
    with mounted(llama, index) as mount:
        assert_same_models(AutoModelForCausalLM.from_pretrained(mount.path), expected)


def test_transformers_variant(llama_fp16):
    from transformers import AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(llama_fp16, variant="fp16")
    with mounted(llama_fp16) as mount:
        found = AutoModelForCausalLM.from_pretrained(mount.path, variant="fp16")
        assert_same_models(found, expected)
        del found


def test_transformers_text_encoder(t5):
    from transformers import T5EncoderModel

    expected = T5EncoderModel.from_pretrained(t5)
    tokens = torch.arange(12).reshape(1, -1)
    with mounted(t5) as mount:
        found = T5EncoderModel.from_pretrained(mount.path)
        assert_same_models(found, expected)
        with torch.no_grad():
            assert torch.equal(found(tokens).last_hidden_state, expected(tokens).last_hidden_state)
        del found


def assert_same_pipelines(found, expected):
    for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert_same_models(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("index", ["index=rewrite", "index=hide"])
def test_diffusers_pipeline(flux, index):
    expected = checkpoints.load_flux(flux)
    with mounted(flux, index) as mount:
        assert_same_pipelines(checkpoints.load_flux(mount.path), expected)


def test_diffusers_without_mmap(flux):
    from diffusers import FluxTransformer2DModel

    expected = FluxTransformer2DModel.from_pretrained(flux, subfolder="transformer")
    with mounted(flux) as mount:
        found = FluxTransformer2DModel.from_pretrained(mount.path, subfolder="transformer",
                                                       disable_mmap=True)
        assert_same_models(found, expected)
        del found


@pytest.mark.parametrize("spelling", ["new", "old"])
def test_diffusers_variant(flux_fp16, tmp_path, spelling):
    import shutil

    expected = checkpoints.load_flux(flux_fp16, variant="fp16", dtype=torch.float16)
    source = shutil.copytree(flux_fp16, tmp_path / "source")
    if spelling == "old":
        checkpoints.respell_variant(source)
    with mounted(source) as mount:
        assert_same_pipelines(
            checkpoints.load_flux(mount.path, variant="fp16", dtype=torch.float16), expected)


def test_hub_load_torch_model(llama):
    from huggingface_hub import load_torch_model
    from transformers import AutoConfig, AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(llama)
    with mounted(llama) as mount:
        found = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(mount.path)).bfloat16()
        load_torch_model(found, mount.path)
        assert_same_models(found, expected)
        del found


def test_accelerate_load_checkpoint(llama):
    from accelerate import load_checkpoint_in_model
    from transformers import AutoConfig, AutoModelForCausalLM

    expected = AutoModelForCausalLM.from_pretrained(llama)
    with mounted(llama) as mount:
        found = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(mount.path)).bfloat16()
        load_checkpoint_in_model(found, mount.path)
        assert_same_models(found, expected)
        del found


@pytest.mark.parametrize("choose", [loaders.trtllm_visual_gen_files, loaders.vllm_files,
                                    loaders.trtllm_hf_weight_files])
@pytest.mark.parametrize("index", ["index=rewrite", "index=hide"])
def test_file_selection_of_servers(llama, choose, index):
    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    with mounted(llama, index) as mount:
        files = choose(mount.path)
        assert [path.name for path in files] == ["model.safetensors"]
        assert_same(checkpoints.tensors_of(files), expected)


def test_file_selection_with_shards_shown(llama):
    expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
    with mounted(llama, "layout=both") as mount:
        names = [path.name for path in checkpoints.shard_files(mount.path)]
        assert names == [path.name for path in checkpoints.shard_files(llama)]
        for name in names:
            assert (mount / name).read_bytes() == (llama / name).read_bytes()
        for choose in (loaders.trtllm_visual_gen_files, loaders.vllm_files):
            files = choose(mount.path)
            assert [path.name for path in files] == ["model.safetensors"]
        assert_same(checkpoints.tensors_of([mount / "model.safetensors"]), expected)


def test_visual_gen_components(flux):
    with mounted(flux) as mount:
        for part in ("transformer", "text_encoder_2", "vae", "text_encoder"):
            expected = checkpoints.tensors_of(loaders.trtllm_visual_gen_files(flux / part))
            files = loaders.trtllm_visual_gen_files(mount / part)
            assert len(files) == 1
            assert_same(checkpoints.tensors_of(files), expected)


def test_comfyui_sees_one_model_per_component(flux):
    with mounted(flux) as mount:
        assert [str(path.relative_to(mount.path)) for path in
                loaders.comfyui_models(mount.path)] == [
            "text_encoder/model.safetensors", "text_encoder_2/model.safetensors",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors"]
        parts = loaders.comfyui_diffusers_files(mount.path)
        for part in ("vae", "text_encoder", "text_encoder_2"):
            expected = checkpoints.tensors_of((flux / part).glob("*.safetensors"))
            assert_same(checkpoints.tensors_of([parts[part]]), expected)
