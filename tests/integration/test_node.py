# SPDX-License-Identifier: MIT
"""One mount for a whole node: the hub's cache, a trainer's output, and a root that never stands
still."""

import contextlib
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from harness import PATIENCE, mounted, wait_for

SANITIZED = bool(os.environ.get("UNSHARD_SANITIZER"))


# ---- the hub's cache -----------------------------------------------------------------------------

LOAD = """
import sys
from transformers import AutoConfig, AutoModelForCausalLM
for revision in sys.argv[2:]:
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], revision=revision)
    print(revision, sum(float(value.double().abs().sum()) for value in model.state_dict().values()))
"""


def load_by_name(cache, *revisions):
    """What a program prints that knows nothing but the name, in an environment as users set it."""
    environment = dict(os.environ, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1")
    done = subprocess.run([sys.executable, "-c", LOAD, "acme/tiny", *revisions], env=environment,
                          capture_output=True, text=True, timeout=PATIENCE * 6, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def facts(cache):
    """What the hub's own library finds in a cache."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(cache)
    assert not found.warnings, found.warnings
    return sorted((repo.repo_id, revision.commit_hash, sorted(revision.refs),
                   sorted(file.file_name for file in revision.files
                          if not file.file_name.endswith(".safetensors")))
                  for repo in found.repos for revision in repo.revisions)


@pytest.mark.heavy
@pytest.mark.parametrize("shared", [False, True], ids=["old", "shared"])
def test_a_cache_by_name_two_revisions_side_by_side(llama, tmp_path, shared):
    cache, other = tmp_path / "hub", tmp_path / "other"
    first = checkpoints.hub_cache(cache, llama, shared=shared)
    shutil.copytree(llama, other)
    (other / "README.md").write_text("the second one")
    second = checkpoints.hub_cache(cache, other, commit="f" * 40, shared=shared)
    for snapshot in (first, second):
        markers = snapshot.parent.parent / ".no_exist" / snapshot.name
        markers.mkdir(parents=True)
        for name in ("model.safetensors", "adapter_config.json"):
            (markers / name).touch()
    with mounted(cache) as mount:
        assert load_by_name(mount.path, first.name, second.name) == \
            load_by_name(cache, first.name, second.name)
        assert facts(mount.path) == facts(cache)
        assert (mount / second.relative_to(cache) / "README.md").read_text() == "the second one"


def test_a_pipeline_by_name(flux, tmp_path, monkeypatch):
    from diffusers import DiffusionPipeline

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    without = {"tokenizer": None, "tokenizer_2": None}
    cache = tmp_path / "hub"
    checkpoints.hub_cache(cache, flux, repository="acme/flux")
    with mounted(cache) as mount:
        pipeline = DiffusionPipeline.from_pretrained("acme/flux", cache_dir=mount.path,
                                                     local_files_only=True, **without)
        plain = DiffusionPipeline.from_pretrained(flux, **without)
        for name in ("transformer", "vae", "text_encoder"):
            found, expected = getattr(pipeline, name), getattr(plain, name)
            assert found.state_dict().keys() == expected.state_dict().keys()
            assert all(torch.equal(value, expected.state_dict()[key])
                       for key, value in found.state_dict().items())
        del pipeline, found


# ---- a trainer, and who evaluates what it writes -------------------------------------------------

def write_checkpoint(folder, step):
    """As trainers do: under a name that does not count, shard by shard, then renamed."""
    part = folder / f"tmp-checkpoint-{step}"
    tensors = {f"layer.{i}": torch.full((64, 64), float(step + i)) for i in range(6)}
    checkpoints.save_shards(part, tensors, 3)
    (part / "config.json").write_text(json.dumps({"step": step}))
    os.rename(part, folder / f"checkpoint-{step}")
    return tensors


def test_an_evaluator_follows_a_trainer(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    with mounted(output) as mount:
        for step in range(100, 600, 100):
            tensors = write_checkpoint(output, step)
            path = mount / f"checkpoint-{step}"
            wait_for(lambda path=path: (path / "model.safetensors").exists(), 2 if not SANITIZED
                     else PATIENCE, "the new checkpoint is there")
            assert json.loads((path / "config.json").read_text())["step"] == step
            found = load_file(path / "model.safetensors")
            assert found.keys() == tensors.keys()
            assert all(torch.equal(found[name], tensors[name]) for name in tensors)
            del found
            if step > 200:  # as trainers do that keep the last two
                shutil.rmtree(output / f"checkpoint-{step - 200}")
        wait_for(lambda: sorted(os.listdir(mount.path)) == ["checkpoint-400", "checkpoint-500"],
                 what="those that were deleted are gone")
        wait_for(lambda: mount.status()["errors"] == 0, what="no error is left of them")


@pytest.mark.parametrize("alone", [True, False], ids=["model", "root"])
def test_a_download_in_progress_is_no_error(tmp_path, alone):
    """A set of which a part is there yet is told as that; then it is whole."""
    source = tmp_path / "models"
    tensors = {f"layer.{i}": torch.full((64, 64), float(i)) for i in range(6)}
    checkpoints.save_shards(tmp_path / "whole", tensors, 3)
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.safetensors"))
    (source / "one").mkdir(parents=True)
    shutil.copy(tmp_path / "whole/model.safetensors.index.json", source / "one")
    for name in names[:2]:
        shutil.copy(tmp_path / "whole" / name, source / "one")
    part = source / "one" / (names[2] + ".incomplete")
    part.write_bytes((tmp_path / "whole" / names[2]).read_bytes()[:1000])
    with mounted(source / "one" if alone else source) as mount:
        model = mount.path if alone else mount / "one"
        assert names[0] in os.listdir(model) and "model.safetensors" not in os.listdir(model)
        status = mount.status()
        assert status["errors"] == 0
        if alone:
            assert any("its download has not come to its end" in note for note in status["notes"])
        shutil.copy(tmp_path / "whole" / names[2], part)
        os.rename(part, source / "one" / names[2])
        wait_for(lambda: "model.safetensors" in os.listdir(model), what="it is whole")
        if alone:
            wait_for(lambda: [one["view"] for one in mount.status()["components"]] ==
                     ["model.safetensors"] and not mount.status()["notes"],
                     what="nothing is told of what was there before")
        found = load_file(model / "model.safetensors")
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
        del found


# ---- nothing stands still ------------------------------------------------------------------------

class Disk:
    """A directory of models that changes at random. Every content that was ever there is known by
    its hash; `there` has for each name since when and until when it was there, and what it held."""

    def __init__(self, source, seed):
        self.source, self.random = source, random.Random(seed)
        self.lock = threading.Lock()
        self.contents = {}  # path: list of the hashes of what it has ever held
        self.serial = 0

    def note(self, path, data):
        with self.lock:
            self.contents.setdefault(str(path.relative_to(self.source)), set()).add(
                hashlib.sha256(data).hexdigest())

    def held(self, name):
        with self.lock:
            return set(self.contents.get(name, ()))

    def write(self, path, data):
        """Noted before it can be seen; by renaming, as who writes files that others read does."""
        self.note(path, data)
        part = path.with_name(path.name + ".part")
        part.write_bytes(data)
        os.rename(part, path)

    def tensor_file(self):
        self.serial += 1
        size = self.random.choice((1, 40, 3000))
        path = self.source.parent / "made.safetensors"
        save_file({f"weight.{self.serial}": torch.full((size, 8), float(self.serial))}, path)
        return path.read_bytes()

    def step(self):
        models = [path for path in self.source.iterdir() if path.is_dir()]
        kind = self.random.choice(("new", "weights", "weights", "text", "text", "delete", "rename",
                                   "mode", "forget"))
        if kind == "new" or not models:
            self.serial += 1
            path = self.source / f"model-{self.serial}"
            path.mkdir()
            self.write(path / "config.json", b"{}")
            self.write(path / "model.safetensors", self.tensor_file())
            return
        model = self.random.choice(models)
        if kind == "weights":
            self.write(model / "model.safetensors", self.tensor_file())
        elif kind == "text":
            self.serial += 1
            self.write(model / "config.json", json.dumps({"n": self.serial}).encode())
        elif kind == "delete":
            shutil.rmtree(model)
        elif kind == "rename":
            self.serial += 1
            target = self.source / f"model-{self.serial}"
            for file in model.iterdir():
                self.note(target / file.name, file.read_bytes())
            os.rename(model, target)
        elif kind == "mode":
            os.chmod(model / "config.json", self.random.choice((0o600, 0o644)))
        elif kind == "forget" and (model / "model.safetensors").exists():
            (model / "model.safetensors").unlink()


def look(mount, disk, chance, problems):
    """One look: whatever is read has at some time been under that name. What goes meanwhile may
    give an error; nothing else may."""
    try:
        models = sorted(path for path in mount.path.iterdir() if path.is_dir())
        if not models:
            return
        model = chance.choice(models)
        for path in sorted(model.iterdir()):
            name = str(path.relative_to(mount.path))
            known = disk.held(name)
            data = path.read_bytes()
            known |= disk.held(name)
            if hashlib.sha256(data).hexdigest() not in known:
                problems.append(f"{name}: {len(data)} bytes that never were there")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        if error.errno not in (5, 116):  # EIO, ESTALE: it changed while it was read
            problems.append(repr(error))


@pytest.mark.parametrize("seed", range(1 if SANITIZED else 2))
def test_what_is_read_was_there(tmp_path, seed):
    source = tmp_path / "models"
    source.mkdir()
    disk, problems, over = Disk(source, seed), [], threading.Event()
    for _ in range(6):
        disk.step()
    with mounted(source) as mount:
        def read(number):
            chance = random.Random(f"{seed} {number}")
            while not over.is_set():
                look(mount, disk, chance, problems)

        readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]
        for reader in readers:
            reader.start()
        end = time.monotonic() + 4
        try:
            while time.monotonic() < end and not problems:
                disk.step()
                over.wait(disk.random.choice((0, 0.01, 0.1)))  # the pace of who changes it
        finally:
            over.set()
            for reader in readers:
                reader.join()
        assert not problems, problems[:5]
        # In the end it is what is on disk.
        wait_for(lambda: tree_of(mount.path) == tree_of(source), what="the mount is the source")


def tree_of(top):
    """What is there; directories may go while they are listed."""
    found = {}
    for folder, _, files in os.walk(top):
        for path in (pathlib.Path(folder) / name for name in files):
            with contextlib.suppress(OSError):
                found[str(path.relative_to(top))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
