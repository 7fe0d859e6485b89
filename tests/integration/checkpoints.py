# SPDX-License-Identifier: MIT
"""Real checkpoints, small ones, as the real libraries write them, and the layouts around them."""

import hashlib
import json
import os
import pathlib
import shutil

import torch

SMALL_SHARD = "600KB"


def llama(folder, dtype=torch.bfloat16, **save):
    """A decoder model of about 4 MB in four or more shards."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=1500, hidden_size=192, intermediate_size=500,
                         num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=128)
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder, **{"max_shard_size": SMALL_SHARD, **save})
    return pathlib.Path(folder)


def t5_encoder_model():
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(2)
    return T5EncoderModel(T5Config(vocab_size=900, d_model=128, d_kv=16, d_ff=300, num_layers=3,
                                   num_heads=8))


def t5_encoder(folder):
    t5_encoder_model().save_pretrained(folder, max_shard_size="500KB")
    return pathlib.Path(folder)


def clip_text_model():
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(3)
    return CLIPTextModel(CLIPTextConfig(vocab_size=500, hidden_size=32, intermediate_size=37,
                                        num_hidden_layers=2, num_attention_heads=4,
                                        max_position_embeddings=77, projection_dim=32))


def flux_pipeline():
    from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline,
                           FluxTransformer2DModel)

    torch.manual_seed(4)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=2, num_single_layers=2, attention_head_dim=16,
        num_attention_heads=4, joint_attention_dim=128, pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8])
    vae = AutoencoderKL(sample_size=32, in_channels=3, out_channels=3, block_out_channels=(4,),
                        layers_per_block=1, latent_channels=1, norm_num_groups=1,
                        use_quant_conv=False, use_post_quant_conv=False)
    return FluxPipeline(scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae,
                        text_encoder=clip_text_model(), tokenizer=None,
                        text_encoder_2=t5_encoder_model(), tokenizer_2=None,
                        transformer=transformer)


def flux(folder, variant=None):
    """A pipeline whose transformer and second text encoder are sharded."""
    pipeline = flux_pipeline()
    if variant == "fp16":
        pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, max_shard_size="400KB", variant=variant)
    return pathlib.Path(folder)


def load_flux(folder, **arguments):
    from diffusers import FluxPipeline

    return FluxPipeline.from_pretrained(folder, tokenizer=None, tokenizer_2=None, **arguments)


def respell_variant(folder):
    """Renames NAME.fp16-0000i-of-0000n.safetensors to NAME-0000i-of-0000n.fp16.safetensors, the
    older spelling, or the other way round, whichever the library did not use; indexes as well."""
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.name.endswith(".safetensors") and "-of-" in path.name and ".fp16" in path.name:
            path.rename(path.with_name(respelled(path.name)))
    for index in pathlib.Path(folder).rglob("*.index.fp16.json"):
        content = json.loads(index.read_text())
        content["weight_map"] = {tensor: respelled(name)
                                 for tensor, name in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2))


def respelled(name):
    stem = name.removesuffix(".safetensors").replace(".fp16", "")
    base, number, total = stem.rsplit("-", 3)[0], stem.rsplit("-", 3)[1], stem.rsplit("-", 3)[3]
    if ".fp16-" in name:
        return f"{base}-{number}-of-{total}.fp16.safetensors"
    return f"{base}.fp16-{number}-of-{total}.safetensors"


def sha256(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def git_blob(path):
    data = pathlib.Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def share_blob(cache, blob):
    """Moves a blob to where the repositories of a cache share it, as huggingface_hub 1.32 does."""
    name = hashlib.sha256(b"another hash than " + blob.name.encode()).hexdigest()
    shared = cache / "blobs" / name[:2] / name
    shared.parent.mkdir(parents=True, exist_ok=True)
    (cache / "blobs/.huggingface-shared-blobs").write_text("1\n")
    blob.rename(shared)
    blob.symlink_to(os.path.relpath(shared, blob.parent))


def hub_cache(folder, saved, repository="acme/tiny", commit="0123456789abcdef" * 2 + "01234567",
              shared=False):
    """The cache of huggingface_hub around a saved checkpoint, or a further commit in it. Returns
    the snapshot's folder."""
    root = pathlib.Path(folder) / ("models--" + repository.replace("/", "--"))
    snapshot = root / "snapshots" / commit
    (root / "blobs").mkdir(parents=True, exist_ok=True)
    (root / "refs").mkdir(exist_ok=True)
    (root / "refs/main").write_text(commit)
    for path in sorted(path for path in pathlib.Path(saved).rglob("*") if path.is_file()):
        large = path.suffix == ".safetensors"
        blob = root / "blobs" / (sha256(path) if large else git_blob(path))
        if not blob.exists():
            shutil.copyfile(path, blob)
            if shared and large:
                share_blob(pathlib.Path(folder), blob)
        link = snapshot / path.relative_to(saved)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def local_download(folder, saved, commit="f" * 40):
    """What `hf download --local-dir` leaves: the files, and metadata below .cache/huggingface."""
    target = pathlib.Path(folder)
    shutil.copytree(saved, target)
    for path in sorted(path for path in target.rglob("*") if path.is_file()):
        digest = sha256(path) if path.suffix == ".safetensors" else git_blob(path)
        name = str(path.relative_to(target)) + ".metadata"
        metadata = target / ".cache/huggingface/download" / name
        metadata.parent.mkdir(parents=True, exist_ok=True)
        metadata.write_text(f"{commit}\n{digest}\n{path.stat().st_mtime + 1}\n")
    (target / ".cache/huggingface/.gitignore").write_text("*")
    return target


def shard_files(folder):
    return sorted(path for path in pathlib.Path(folder).glob("*.safetensors")
                  if "-of-" in path.name)


def tensors_of(files):
    """Every tensor of the safetensors files, by the reference library."""
    from safetensors.torch import load_file

    tensors = {}
    for path in files:
        tensors.update(load_file(path))
    return tensors


def save_shards(folder, tensors, count, stem="model", metadata=None, index=True):
    """Random tensors dealt out to `count` shards by the reference library, with an index."""
    from safetensors.torch import save_file

    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    weight_map = {}
    for number in range(count):
        file = f"{stem}-{number + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name] for name in names[number::count]}
        save_file(part, folder / file, metadata=metadata)
        weight_map.update(dict.fromkeys(part, file))
    if index:
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        (folder / f"{stem}.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return folder


def big(folder):
    """96 MiB of random tensors in 6 shards, for what needs time or many chunks."""
    generator = torch.Generator().manual_seed(5)
    sizes = [2 << 20] * 47 + [2097143]
    tensors = {f"layer.{number}.weight": torch.randint(0, 256, (size,), dtype=torch.uint8,
                                                       generator=generator)
               for number, size in enumerate(sizes)}
    return save_shards(folder, tensors, 6, metadata={"format": "pt"})


def random_tensors(seed, count=24):
    """Tensors of many dtypes and shapes: scalars, empty ones, odd sizes; for byte identity."""
    generator = torch.Generator().manual_seed(seed)
    dtypes = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8,
              torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
              torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.uint16]

    def pick(limit):
        return int(torch.randint(0, limit, (1,), generator=generator))

    tensors = {}
    for number in range(count):
        dtype = dtypes[pick(len(dtypes))]
        shape = [pick(12) for _ in range(pick(4))]
        elements = 1
        for size in shape:
            elements *= size
        width = torch.empty(0, dtype=dtype).element_size()
        bound = 2 if dtype == torch.bool else 256
        raw = torch.randint(0, bound, (elements * width,), dtype=torch.uint8, generator=generator)
        name = "blöck.%d.\u0001\"%s" % (pick(50), number) if number % 7 == 0 else \
            f"block.{pick(50)}.{number}"
        tensors[name] = raw.view(dtype).reshape(shape) if elements else torch.empty(shape,
                                                                                   dtype=dtype)
    return tensors
