# SPDX-License-Identifier: MIT
"""The guides of contrib/guides: what can run here runs as it is written there."""

import os
import re
import shutil
import subprocess
import sys

import pytest

import checkpoints
import gguf_files
from harness import PATIENCE, TOP, UNSHARD, detach, is_mounted

# What the daemon does in these, others have it do in less time.
pytestmark = pytest.mark.heavy

GUIDES = TOP / "contrib/guides"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRIED = {"transformers", "diffusers", "vllm", "tensorrt-llm", "comfyui", "llama-cpp", "loaders"}
# Programs of others that a shell block may start and that are not there: in their place stands one that
# reads the files of the checkpoint that it is given.
OTHERS = ("vllm", "trtllm-serve", "llama-server")
STAND_IN = """#!/bin/sh
for word; do
    [ -f "$word" ] && echo "$(wc -c <"$word") bytes of one file"
    [ -d "$word" ] && set -- "$word"/*.safetensors && cat "$@" >/dev/null && echo "$# files read"
done
exit 0
"""


@pytest.fixture
def folder(tmp_path):
    """Stands for / in a guide: /models has checkpoints, /mnt the mount points."""
    for name in ("models", "mnt", "bin"):
        (tmp_path / name).mkdir()
    for name in OTHERS:
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    yield tmp_path
    for path in [*(tmp_path / "mnt").iterdir(), *(tmp_path / "models").iterdir()]:
        detach(path)


def blocks(name):
    found = BLOCK.findall((GUIDES / f"{name}.md").read_text())
    assert found, f"{name}.md has nothing to run"
    return found


def place(text, folder):
    return re.sub(r"(?<!\w)/(models|mnt)/", rf"{folder}/\1/", text)


def run_block(text, folder):
    path = [os.path.dirname(UNSHARD), os.path.dirname(sys.executable), f"{folder}/bin", os.environ["PATH"]]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment.update(PATH=":".join(path), HOME=str(folder), HF_HUB_OFFLINE="1")
    done = subprocess.run(["bash", "-e", "-c", text], env=environment, stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.PIPE, cwd=folder, timeout=PATIENCE * 6)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def write_program(text, folder):
    """Its first line is a comment that says what the file is called."""
    name = re.match(r"# (\w+\.py)\n", text)[1]
    (folder / name).write_text(text)


def run_guide(name, folder):
    """Runs every block in order; what all of them printed. The first command is `unshard run`."""
    assert name in TRIED
    output = ""
    commands = "".join(text for language, text in blocks(name) if language == "sh")
    assert re.search(r"^unshard (\w+)", commands.replace("unshard ls", ""), re.MULTILINE)[1] == "run"
    for language, text in blocks(name):
        if language == "python":
            write_program(place(text, folder), folder)
        elif language == "sh":
            output += run_block(place(text, folder), folder)
    places = [*(folder / "mnt").iterdir(), *(folder / "models").iterdir()]
    assert not [path for path in places if is_mounted(path)], "left mounted"
    return output


def provide(folder, name, source):
    shutil.copytree(source, folder / "models" / name)
    (folder / "mnt" / name).mkdir()


@pytest.mark.heavy
def test_transformers(folder, llama):
    provide(folder, "llama", llama)
    checkpoints.hub_cache(folder / ".cache/huggingface/hub", llama, repository="org/name")
    output = run_guide("transformers", folder)
    assert re.search(r"^\d+ parameters$", output, re.MULTILINE) and "evicted" in output
    assert "llama by its name\n" in output and "sha256" in output


@pytest.mark.heavy
def test_diffusers(folder, flux):
    provide(folder, "flux", flux)
    output = run_guide("diffusers", folder)
    assert "'text_encoder_2'" in output and "evicted" in output


@pytest.mark.parametrize("name", ["vllm", "tensorrt-llm"])
def test_servers(folder, llama, name):
    provide(folder, "llama", llama)
    shards = len(checkpoints.shard_files(llama)) if name == "tensorrt-llm" else 1
    output = run_guide(name, folder)
    assert "warm" in output and output.count(f"{shards} files read\n") == 2, output


def test_loaders(folder, llama):
    provide(folder, "llama", llama)
    shards = len(checkpoints.shard_files(llama))
    output = run_guide("loaders", folder)
    assert f" tensors in {shards} files" in output and "warm" in output and "evicted" in output


# What ComfyUI's loaders would have to choose from, of each folder that its configuration names.
COMFYUI = """import os, sys, yaml

places = yaml.safe_load(open(sys.argv[2]))["unshard"]
base = places.pop("base_path")
for kind, names in places.items():
    for name in names.split():
        print(kind, *(file for file in os.listdir(f"{base}/{name}") if file.endswith(".safetensors")))
"""


def test_comfyui(folder, flux):
    provide(folder, "flux", flux)
    (configuration,) = [text for language, text in blocks("comfyui") if language == "yaml"]
    (folder / "extra_model_paths.yaml").write_text(place(configuration, folder))
    (folder / "main.py").write_text(COMFYUI)
    output = run_guide("comfyui", folder)
    for kind, name, count in (("diffusion_models", "diffusion_pytorch_model", 1), ("text_encoders", "model", 2),
                              ("vae", "diffusion_pytorch_model", 1)):
        assert output.splitlines().count(f"{kind} {name}.safetensors") == count, output


def test_llama_cpp(folder):
    splits = folder / "models/gguf"
    splits.mkdir()
    (folder / "mnt/gguf").mkdir()
    gguf_files.write_model(splits, split_max_tensors=5)
    output = run_guide("llama-cpp", folder)
    assert "model.gguf" in output and "warm" in output
    assert len(re.findall(r"^[1-9]\d+ bytes of one file$", output, re.MULTILINE)) == 2


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
