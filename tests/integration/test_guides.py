# SPDX-License-Identifier: MIT
"""The guides of contrib/guides: what can run here runs as it is written there."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

import checkpoints
import gguf_files
from harness import PATIENCE, TOP, UNSHARD, detach, is_mounted, mounted

GUIDES = TOP / "contrib/guides"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRIED = {"transformers", "diffusers", "vllm", "tensorrt-llm", "comfyui", "llama-cpp", "loaders"}
# Programs of others that a shell block may start; they are not there.
OTHERS = ("vllm", "trtllm-serve")


@pytest.fixture
def folder(tmp_path):
    """Stands for / in a guide: /models has checkpoints, /mnt the mount points."""
    for name in ("models", "mnt"):
        (tmp_path / name).mkdir()
    yield tmp_path
    for path in (tmp_path / "mnt").iterdir():
        detach(path)


def blocks(name):
    found = BLOCK.findall((GUIDES / f"{name}.md").read_text())
    assert found, f"{name}.md has nothing to run"
    return found


def place(text, folder):
    return re.sub(r"(?<!\w)/(models|mnt)/", rf"{folder}/\1/", text)


def run_block(language, text, folder):
    if language == "sh":
        lines = [line for line in text.splitlines() if not line.startswith(OTHERS)]
        command = ["bash", "-e", "-c", "\n".join(lines)]
    else:
        command = [sys.executable, "-c", text]
    environment = {**os.environ, "PATH": f"{os.path.dirname(UNSHARD)}:{os.environ['PATH']}",
                   "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.PIPE, timeout=PATIENCE * 6)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run_guide(name, folder):
    """Runs every block in order; what all of them printed."""
    assert name in TRIED
    output = ""
    for language, text in blocks(name):
        if language in ("sh", "python"):
            output += run_block(language, place(text, folder), folder)
    assert not [path for path in (folder / "mnt").iterdir() if is_mounted(path)], "left mounted"
    return output


def provide(folder, name, source):
    shutil.copytree(source, folder / "models" / name)
    (folder / "mnt" / name).mkdir()


@pytest.mark.heavy
def test_transformers(folder, llama):
    provide(folder, "llama", llama)
    output = run_guide("transformers", folder)
    assert re.search(r"^\d+ parameters$", output, re.MULTILINE) and "evicted" in output


@pytest.mark.heavy
def test_diffusers(folder, flux):
    provide(folder, "flux", flux)
    output = run_guide("diffusers", folder)
    assert "'text_encoder_2'" in output and "evicted" in output


@pytest.mark.parametrize("name", ["vllm", "tensorrt-llm"])
def test_servers(folder, llama, name):
    provide(folder, "llama", llama)
    assert "warm" in run_guide(name, folder)


def test_loaders(folder, llama):
    provide(folder, "llama", llama)
    shards = len(checkpoints.shard_files(llama))
    output = run_guide("loaders", folder)
    assert f" tensors in {shards} files" in output and "warm" in output and "evicted" in output


def test_comfyui(folder, flux):
    provide(folder, "flux", flux)
    run_guide("comfyui", folder)
    (configuration,) = [text for language, text in blocks("comfyui") if language == "yaml"]
    paths = yaml.safe_load(place(configuration, folder))["unshard"]
    base = paths.pop("base_path")
    with mounted(flux, mountpoint=base):
        folders = [name for value in paths.values() for name in value.split()]
        assert len(folders) == 4
        for name in folders:
            files = [file for file in os.listdir(f"{base}/{name}") if file.endswith(".safetensors")]
            assert len(files) == 1, f"{name}: {files}"


def test_llama_cpp(folder):
    splits = folder / "models/gguf"
    splits.mkdir()
    (folder / "mnt/gguf").mkdir()
    gguf_files.write_model(splits, split_max_tensors=5)
    output = run_guide("llama-cpp", folder)
    assert "model.gguf" in output and "warm" in output


DOCUMENTS = ("lib/formats/README.md", "fs/kernel/README.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_names_is_there(name):
    """Files of ours, other documents, and sections that it or a comment refers to."""
    text = (TOP / name).read_text()
    assert all(len(line) <= 120 for line in text.splitlines())
    files = set(re.findall(r"`((?:lib|fs|tests|contrib)/[^` ]+)`", text))
    assert len(files) > 20
    assert not [file for file in files if not any(TOP.glob(file))]
    for target in re.findall(r"\]\(([^)#:]+)[)#]", text):
        assert (TOP / name).parent.joinpath(target).exists(), target
    sections = set(re.findall(r"^##+ (\d+[a-z]?(?:\.\d+)?)\.? ", text, re.MULTILINE))
    for path in (*TOP.glob("lib/**/*.[ch]"), *TOP.glob("fs/**/*.[ch]")):
        for section in re.findall(rf"{name.removeprefix('lib/')} (\d[\d.]*\d|\d)", path.read_text()):
            assert section in sections, f"{path}: {name} has no section {section}"


def test_every_guide_is_tried_and_named_in_the_readme():
    readme = (TOP / "README.md").read_text()
    assert {path.stem for path in GUIDES.glob("*.md")} == TRIED
    assert all(f"(contrib/guides/{name}.md)" in readme for name in TRIED)
