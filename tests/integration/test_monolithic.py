# SPDX-License-Identifier: MIT
"""Files that hold a whole pipeline: each component by itself beside them, its prefix taken off."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from compare import assert_same, assert_same_models
from harness import mounted, run, slow, wait_for

DIFFUSERS = "diffusion_pytorch_model.safetensors"
TRANSFORMERS = "model.safetensors"


def some(*names, seed=1):
    """Random tensors of several types, also of odd sizes, under these names."""
    generator = torch.Generator().manual_seed(seed)
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int64]
    tensors = {}
    for number, name in enumerate(names):
        raw = torch.randint(0, 256, (5 + number, 8 * 3), dtype=torch.uint8, generator=generator)
        tensors[name] = raw.view(dtypes[number % len(dtypes)])
    return tensors


def with_prefix(tensors, prefix):
    """The rule of the loaders: keys that start with the prefix, without it."""
    return {name[len(prefix):]: tensor for name, tensor in tensors.items()
            if name.startswith(prefix)}


def files_of(mount):
    return sorted(str(path.relative_to(mount.path)) for path in mount.path.rglob("*")
                  if path.is_file())


def check(folder, tensors, components, *options):
    """The mount shows each component, {directory/file: prefix}, and the file as it is."""
    [file] = folder.glob("*.safetensors")
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    with mounted(folder, *options) as mount:
        assert files_of(mount) == sorted([file.name, *components])
        assert (mount / file.name).read_bytes() == file.read_bytes()
        for path, prefix in components.items():
            assert_same(load_file(mount / path), with_prefix(tensors, prefix))
            with safe_open(mount / path, framework="pt") as opened:
                assert opened.metadata() == metadata
        total = mount.status()["bytes_total"]
        assert total == file.stat().st_size


def ltx_2():
    tensors = some("model.diffusion_model.patchify_proj.weight", "vae.encoder.conv_in.weight",
                   "model.diffusion_model.transformer_blocks.0.attn1.to_q.weight",
                   "vae.per_channel_statistics.mean-of-means", "audio_vae.decoder.conv_in.weight",
                   "vocoder.conv_pre.weight", "text_embedding_projection.aggregate_embed.weight",
                   "model.diffusion_model.video_embeddings_connector.learnable_registers")
    metadata = {"config": json.dumps({"transformer": {"num_layers": 48}, "vae": {"dims": 3},
                                      "audio_vae": {}, "vocoder": {}}),
                "license": "LTX-2 Community License", "encrypted_wandb_properties": "\u00e4" * 50,
                "_quantization_metadata": "{}"}
    return tensors, metadata, {
        f"transformer/{DIFFUSERS}": "model.diffusion_model.", f"vae/{DIFFUSERS}": "vae.",
        f"audio_vae/{DIFFUSERS}": "audio_vae.", f"vocoder/{DIFFUSERS}": "vocoder.",
        f"text_embedding_projection/{DIFFUSERS}": "text_embedding_projection."}


def stable_diffusion():
    tensors = some("model.diffusion_model.input_blocks.0.0.weight", "alphas_cumprod",
                   "model.diffusion_model.out.2.bias", "first_stage_model.encoder.conv_in.weight",
                   "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight")
    return tensors, {"format": "pt"}, {
        f"unet/{DIFFUSERS}": "model.diffusion_model.", f"vae/{DIFFUSERS}": "first_stage_model.",
        f"text_encoder/{TRANSFORMERS}": "cond_stage_model."}


def stable_diffusion_xl():
    tensors = some("model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.quant.w",
                   "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
                   "conditioner.embedders.1.model.ln_final.bias",
                   "conditioner.embedders.1.model.token_embedding.weight")
    return tensors, None, {
        f"unet/{DIFFUSERS}": "model.diffusion_model.", f"vae/{DIFFUSERS}": "first_stage_model.",
        f"text_encoder/{TRANSFORMERS}": "conditioner.embedders.0.",
        f"text_encoder_2/{TRANSFORMERS}": "conditioner.embedders.1."}


def comfy():
    tensors = some("model.diffusion_model.joint_blocks.0.x", "vae.decoder.conv_in.bias",
                   "text_encoders.clip_l.transformer.text_model.x",
                   "text_encoders.t5xxl.transformer.shared.weight")
    return tensors, {"modelspec.title": "tiny"}, {
        f"transformer/{DIFFUSERS}": "model.diffusion_model.", f"vae/{DIFFUSERS}": "vae.",
        f"text_encoder_clip_l/{TRANSFORMERS}": "text_encoders.clip_l.",
        f"text_encoder_t5xxl/{TRANSFORMERS}": "text_encoders.t5xxl."}


def visual_gen():
    tensors = some("transformer.blocks.0.attn.weight", "transformer.proj_out.bias",
                   "video_vae.decoder.conv.weight", "text_encoder.shared.weight")
    return tensors, {"format": "pt"}, {
        f"transformer/{DIFFUSERS}": "transformer.", f"video_vae/{DIFFUSERS}": "video_vae.",
        f"text_encoder/{TRANSFORMERS}": "text_encoder."}


@pytest.mark.parametrize("order", ["order=shard", "order=canonical"])
@pytest.mark.parametrize("style", [ltx_2, stable_diffusion, stable_diffusion_xl, comfy, visual_gen])
def test_recognised(tmp_path, style, order):
    tensors, metadata, components = style()
    save_file(tensors, tmp_path / "all-in-one.safetensors", metadata=metadata)
    check(tmp_path, tensors, components, order)


def test_off_and_named(tmp_path):
    tensors, metadata, _ = stable_diffusion()
    save_file(tensors, tmp_path / "sd.safetensors", metadata=metadata)
    check(tmp_path, tensors, {}, "split=off")
    check(tmp_path, tensors, {f"vae/{DIFFUSERS}": "first_stage_model."},
          "split=first_stage_model.")
    check(tmp_path, tensors, {f"text_encoder/{TRANSFORMERS}": "cond_stage_model.transformer.",
                              f"dit/{DIFFUSERS}": "model.diffusion_model."},
          "split=cond_stage_model.transformer=text_encoder\\,model.diffusion_model.=dit")
    check(tmp_path, tensors, {f"a/{DIFFUSERS}": "first_stage_model.",
                              f"b/{DIFFUSERS}": "model."}, "split=first_stage_model=a",
          "split=model=b:nothing.")


def test_named_in_shards(tmp_path):
    """A pipeline that is sharded as a whole is split as well when it is asked for."""
    import checkpoints

    tensors, metadata, components = visual_gen()
    checkpoints.save_shards(tmp_path, tensors, 2, metadata=metadata)
    with mounted(tmp_path, "split=transformer:video_vae:text_encoder") as mount:
        assert files_of(mount) == sorted(["model.safetensors", "model.safetensors.index.json",
                                          *components])
        assert_same(load_file(mount / "model.safetensors"), tensors)
        for path, prefix in components.items():
            assert_same(load_file(mount / path), with_prefix(tensors, prefix))


@pytest.mark.parametrize("names", [
    ("transformer.h.0.attn.weight", "transformer.wte.weight"),
    ("model.layers.0.mlp.weight", "lm_head.weight"),
    ("model.diffusion_model.input_blocks.0.weight",),
    ("transformer.h.0.attn.weight", "vae.decoder.weight", "lm_head.weight"),
])
def test_ordinary_models_stay_whole(tmp_path, names):
    save_file(some(*names), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with mounted(tmp_path) as mount:
        assert files_of(mount) == ["model.safetensors"]
        assert len(mount.status()["components"]) == 1


def test_existing_directories_are_left_alone(tmp_path):
    tensors, metadata, components = stable_diffusion()
    save_file(tensors, tmp_path / "sd.safetensors", metadata=metadata)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae/config.json").write_text("{}")
    (tmp_path / "unet").write_text("a file")
    with mounted(tmp_path) as mount:
        assert files_of(mount) == ["sd.safetensors", f"text_encoder/{TRANSFORMERS}", "unet",
                                   "vae/config.json"]
        notes = " ".join(mount.component("sd.safetensors")["notes"])
        assert "first_stage_model. is not split off: there is a vae already" in notes
        assert "there is a unet already" in notes
    with mounted(tmp_path, "split=first_stage_model.=decoder") as mount:
        assert_same(load_file(mount / "decoder" / DIFFUSERS),
                    with_prefix(tensors, "first_stage_model."))


def test_two_such_files_and_pipelines_in_directories(tmp_path):
    tensors, metadata, _ = stable_diffusion()
    for name in ("a", "b"):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
    with mounted(tmp_path) as mount:
        assert files_of(mount) == ["a.safetensors", "b.safetensors"]
        assert "so does another file" in mount.component("a.safetensors")["notes"][0]
    (tmp_path / "b.safetensors").unlink()
    (tmp_path / "model_index.json").write_text("{}")
    with mounted(tmp_path) as mount:
        assert files_of(mount) == ["a.safetensors", "model_index.json"]


def test_subdirectories_and_names(tmp_path):
    """Each in its own directory; status, ls and export name the components."""
    for name, style in (("x", visual_gen), ("y", stable_diffusion)):
        tensors, metadata, components = style()
        (tmp_path / "source" / name / "zz").mkdir(parents=True)
        save_file(tensors, tmp_path / "source" / name / "one.safetensors", metadata=metadata)
        (tmp_path / "source" / name / "zz/readme.txt").write_text(name)
    with mounted(tmp_path / "source", "prefetch=all", "split=auto") as mount:
        found = {one["name"]: one for one in mount.status()["components"]}
        assert {"x", "x/transformer", "x/video_vae", "y/unet"} <= set(found)
        assert found["x/video_vae"]["prefix"] == "video_vae." and found["x"]["prefix"] is None
        assert (mount / "y/zz/readme.txt").read_text() == "y"
        assert load_file(mount / "y/vae" / DIFFUSERS).keys() == {"encoder.conv_in.weight"}
        inodes = {path: os.stat(path).st_ino for path in mount.path.rglob("*")}
        assert len(set(inodes.values())) == len(inodes)
    listed = json.loads(run("ls", "--json", "--tensors", tmp_path / "source", check=True).stdout)
    [vae] = [one for one in listed["components"] if one["name"] == "y/vae"]
    assert [one["name"] for one in vae["tensors"]] == ["encoder.conv_in.weight"]
    assert vae["shards"][0]["file"] == "y/one.safetensors" and vae["tensor_count"] == 1
    for options, count in (((), 4), (("-o", "split=auto"), 10)):
        target = tmp_path / f"target{count}"
        run("export", *options, tmp_path / "source", target, check=True)
        assert len([path for path in target.rglob("*") if path.is_file()]) == count
    assert load_file(target / "x/video_vae" / DIFFUSERS).keys() == {"decoder.conv.weight"}


def large(folder):
    """24 MiB: a transformer of 16 and a VAE of 8."""
    generator = torch.Generator().manual_seed(2)
    tensors = {f"{prefix}.{number}.w": torch.randint(0, 256, (2 << 20,), dtype=torch.uint8,
                                                     generator=generator)
               for prefix, count in (("transformer", 8), ("vae", 4)) for number in range(count)}
    save_file(tensors, folder / "all.safetensors", metadata={"format": "pt"})
    return tensors


@pytest.mark.heavy
@pytest.mark.parametrize("split, prefetched", [("split=auto", {"all.safetensors"}),
                                               ("split=transformer:vae",
                                                {f"transformer/{DIFFUSERS}", f"vae/{DIFFUSERS}"})])
def test_every_byte_is_prefetched_once(tmp_path, split, prefetched):
    tensors = large(tmp_path)
    size = (tmp_path / "all.safetensors").stat().st_size
    with slow(tmp_path) as storage, mounted(storage.path, split, "chunk=256K") as mount:
        mount.wait_warm()
        wait_for(lambda: mount.status()["state"] == "ready", what="ready")
        status = mount.status()
        assert status["bytes_total"] == size and status["bytes_published"] == size
        data = sum(tensor.nbytes for tensor in tensors.values())  # views have headers of their own
        assert data <= status["bytes_stored"] <= size + (1 << 20)
        before = storage.stats()["bytes"]
        for path in prefetched:
            load_file(mount / path)
        assert storage.stats()["bytes"] - before < size // 10
        for component in status["components"][1:]:
            assert component["bytes_published"] == component["bytes_total"]
            assert component["bytes_total"] == os.stat(mount / component["view"]).st_size
        assert_same(load_file(mount / "vae" / DIFFUSERS), with_prefix(tensors, "vae."))


def test_truncated_file_stays_whole(tmp_path):
    tensors, metadata, _ = visual_gen()
    save_file(tensors, tmp_path / "all.safetensors", metadata=metadata)
    os.truncate(tmp_path / "all.safetensors", (tmp_path / "all.safetensors").stat().st_size - 9)
    with mounted(tmp_path) as mount:
        assert files_of(mount) == ["all.safetensors"]
        assert mount.component("all.safetensors")["error"]["code"] == "truncated"


def test_diffusers_and_transformers_load_components(tmp_path):
    """Real models, put into one file under prefixes, come back out of their directories."""
    import checkpoints
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel

    pipeline = checkpoints.flux_pipeline()
    parts = {"transformer": pipeline.transformer, "vae": pipeline.vae,
             "text_encoder": pipeline.text_encoder}
    source = tmp_path / "source"
    source.mkdir()
    tensors = {f"{name}.{key}": value.contiguous() for name, model in parts.items()
               for key, value in model.state_dict().items()}
    save_file(tensors, source / "pipeline.safetensors", metadata={"format": "pt"})
    with mounted(source) as mount:
        for name, kind in (("transformer", FluxTransformer2DModel), ("vae", AutoencoderKL),
                           ("text_encoder", CLIPTextModel)):
            local = tmp_path / name
            parts[name].config.save_pretrained(local) if name == "text_encoder" else \
                parts[name].save_config(local)
            for file in (mount / name).iterdir():
                (local / file.name).symlink_to(file)
            found = kind.from_pretrained(local)
            assert_same_models(found, parts[name])
            del found
            shutil.rmtree(local)


def test_from_single_file(tmp_path):
    """diffusers recognises the file itself by its keys, as it does without a mount; the VAE that is
    split off loads the same way."""
    from diffusers import AutoencoderKL

    source = tmp_path / "source"
    config = tmp_path / "config"
    source.mkdir()
    torch.manual_seed(3)
    vae = AutoencoderKL(block_out_channels=(32,), layers_per_block=1, latent_channels=4,
                        norm_num_groups=8, down_block_types=("DownEncoderBlock2D",),
                        up_block_types=("UpDecoderBlock2D",))
    vae.save_config(config)
    tensors = {f"first_stage_model.{name}": tensor.contiguous()
               for name, tensor in original_names(vae.state_dict()).items()}
    tensors |= some("model.diffusion_model.input_blocks.0.0.weight",
                    "cond_stage_model.transformer.x")
    save_file(tensors, source / "sd.safetensors")
    with mounted(source) as mount:
        for path in ("sd.safetensors", f"vae/{DIFFUSERS}"):
            found = AutoencoderKL.from_single_file(str(mount / path), config=str(config),
                                                   local_files_only=True)
            assert_same_models(found, vae)
            del found


def original_names(state):
    """Keys of a small AutoencoderKL of diffusers as the original Stable Diffusion has them."""
    replacements = [
        ("encoder.down_blocks.0.resnets.", "encoder.down.0.block."),
        ("decoder.up_blocks.0.resnets.", "decoder.up.0.block."),
        ("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2."),
        ("mid_block.attentions.0.group_norm.", "mid.attn_1.norm."),
        ("mid_block.attentions.0.to_q.", "mid.attn_1.q."),
        ("mid_block.attentions.0.to_k.", "mid.attn_1.k."),
        ("mid_block.attentions.0.to_v.", "mid.attn_1.v."),
        ("mid_block.attentions.0.to_out.0.", "mid.attn_1.proj_out."),
        ("conv_norm_out.", "norm_out."), ("conv_shortcut.", "nin_shortcut.")]
    renamed = {}
    for name, tensor in state.items():
        for old, new in replacements:
            name = name.replace(old, new)
        if ".attn_1." in name and name.endswith("weight") and "norm" not in name:
            tensor = tensor[:, :, None, None]
        renamed[name] = tensor
    return renamed


def test_each_component_shows_the_tensors_of_its_own_file(tmp_path):
    """Whatever lies in directories before: a file that turns out to be no weights moves nothing."""
    parts = {"unet": "model.diffusion_model.", "vae": "first_stage_model."}
    tensors = {}
    for number, folder in enumerate(("b", "c", "d")):
        (tmp_path / folder).mkdir()
        tensors[folder] = {prefix + "input_blocks.0.w": torch.full((4,), float(number))
                           for prefix in (*parts.values(), "cond_stage_model.")}
        save_file(tensors[folder], tmp_path / folder / f"{folder}.safetensors")
    for folder in ("a", "bb", "c"):
        (tmp_path / folder).mkdir(exist_ok=True)
        torch.save([1, 2, 3], tmp_path / folder / "junk.pt")
    named = {"unet": parts["unet"]}
    for option, shown in {"split=auto": parts, "split=model.diffusion_model.=unet": named}.items():
        with mounted(tmp_path, option) as mount:
            for folder, whole in tensors.items():
                for part, prefix in shown.items():
                    assert_same(load_file(mount / folder / part / DIFFUSERS),
                                with_prefix(whole, prefix))
