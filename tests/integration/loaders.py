# SPDX-License-Identifier: MIT
"""Which files loaders choose, restated from their sources: those that are too large to install."""

import json
import pathlib


def trtllm_hf_weight_files(folder):
    """TensorRT-LLM, _torch/models/checkpoints/hf/weight_loader.py, HfWeightLoader.load_weights:
    every *.safetensors, less those with `consolidated` in the name if others remain; the index is
    not looked at."""
    files = sorted(pathlib.Path(folder).glob("*.safetensors"))
    kept = [path for path in files if "consolidated" not in path.name]
    files = kept or files
    for pattern in ("*.bin", "*.pth"):
        files = files or sorted(pathlib.Path(folder).glob(pattern))
    if not files:
        raise RuntimeError(f"No weight files found in {folder}.")
    return files


def trtllm_visual_gen_files(folder):
    """TensorRT-LLM, _torch/visual_gen/checkpoints/weight_loader.py, WeightLoader: the index if one
    of two names exists, else every *.safetensors (less consolidated ones if more than one)."""
    folder = pathlib.Path(folder)
    for name in ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json"):
        if (folder / name).exists():
            weight_map = json.loads((folder / name).read_text()).get("weight_map", {})
            return [folder / file for file in sorted(set(weight_map.values()))]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        files = [path for path in files if "consolidated" not in path.name]
    for pattern in ("*.bin", "*.pth"):
        files = files or sorted(folder.glob(pattern))
    if not files:
        raise ValueError(f"No weight files found in {folder}")
    return files


def vllm_files(folder):
    """vLLM, model_loader/default_loader.py and weight_utils.py: consolidated*.safetensors first
    (Mistral), else *.safetensors, *.bin, *.pt; of the safetensors only those that
    model.safetensors.index.json names, if there is one."""
    folder = pathlib.Path(folder)
    files = sorted(folder.glob("consolidated*.safetensors"))
    if files:
        return files
    for pattern in ("*.safetensors", "*.bin", "*.pt"):
        files = files or sorted(folder.glob(pattern))
    index = folder / "model.safetensors.index.json"
    if files and files[0].suffix == ".safetensors" and index.exists():
        named = set(json.loads(index.read_text())["weight_map"].values())
        files = [path for path in files if path.name in named]
    if not files:
        raise RuntimeError(f"Cannot find any model weights with `{folder}`")
    return files


COMFYUI_EXTENSIONS = {".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"}


def comfyui_models(folder):
    """ComfyUI, folder_paths.py: every file with a known extension, recursively, is one model."""
    return sorted(path for path in pathlib.Path(folder).rglob("*")
                  if path.suffix.lower() in COMFYUI_EXTENSIONS)


def comfyui_diffusers_files(folder):
    """ComfyUI, comfy/diffusers_load.py: one file for each part of a diffusers folder."""
    def first(part, names):
        return next((path for path in (pathlib.Path(folder) / part / name for name in names)
                     if path.exists()), None)

    stem = "diffusion_pytorch_model"
    unet = [f"{stem}.fp16.safetensors", f"{stem}.safetensors", f"{stem}.fp16.bin", f"{stem}.bin"]
    text = ["model.fp16.safetensors", "model.safetensors", "pytorch_model.fp16.bin",
            "pytorch_model.bin"]
    return {"unet": first("unet", unet), "vae": first("vae", unet),
            "text_encoder": first("text_encoder", text),
            "text_encoder_2": first("text_encoder_2", text)}
