# SPDX-License-Identifier: MIT
"""Single file, index and shards that say different things: each way of looking finds through the
mount what it finds on disk."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import checkpoints
import digests
from compare import assert_same
from harness import mounted

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def save(path, **values):
    save_file({name: torch.full((5,), float(value)) for name, value in values.items()}, path,
              metadata={"format": "pt"})


def index(folder, name=INDEX, **where):
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))


def load(path):
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name)[0].item() for name in file.keys()}


def by_index(folder, name=INDEX):
    """diffusers, the hub's library, SGLang: the index, and of each file it names all tensors."""
    if not (folder / name).exists():
        return None
    where = json.loads((folder / name).read_text())["weight_map"]
    files = sorted(set(where.values()))
    if not all((folder / file).exists() for file in files):
        return "a file of the index is missing"
    held = {file: load(folder / file) for file in files}
    return {tensor: held[file].get(tensor) for tensor, file in where.items()
            if tensor in held[file]}


def by_name(folder):
    """transformers, accelerate: the single file."""
    return load(folder / SINGLE) if (folder / SINGLE).is_file() else by_index(folder)


def by_glob(folder, follow_index):
    """vLLM (which keeps of all files those that the index names) and TensorRT-LLM: every file; how
    often a tensor is found, and with which values."""
    files = sorted(path for path in folder.glob("*.safetensors") if path.is_file())
    if follow_index and (folder / INDEX).exists():
        named = set(json.loads((folder / INDEX).read_text())["weight_map"].values())
        files = [path for path in files if path.name in named]
    found = {}
    for path in files:
        for tensor, value in load(path).items():
            found.setdefault(tensor, []).append(value)
    return {tensor: sorted(values) for tensor, values in found.items()}


def single_and_set(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    save(folder / SINGLE, a=10, b=20)
    index(folder, a=ONE, b=TWO)


def single_and_numbers(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    save(folder / SINGLE, a=10, b=20)


def stale_index(folder):
    save(folder / SINGLE, a=10, b=20)
    index(folder, a=ONE, b=TWO)


def half_a_set(folder):
    save(folder / ONE, a=1)
    save(folder / SINGLE, a=10, b=20)
    index(folder, a=ONE, b=TWO)


def index_of_the_single(folder):
    save(folder / SINGLE, a=10, b=20)
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    index(folder, a=SINGLE, b=SINGLE)


def index_names_single_and_shard(folder):
    save(folder / ONE, a=1)
    save(folder / SINGLE, b=20)
    index(folder, a=ONE, b=SINGLE)


def variant_never_fetched(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    index(folder, a=ONE, b=TWO)
    index(folder, "model.safetensors.index.fp16.json", a="model.fp16-00001-of-00002.safetensors")


def two_indexes_of_the_shards(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    index(folder, a=ONE, b=TWO)
    index(folder, "model.safetensors.index.fp16.json", a=ONE, b=TWO)


def index_of_other_tensors(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    index(folder, x=ONE, y=TWO)


def name_of_a_directory(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    index(folder, a=ONE, b=TWO)
    (folder / "model.safetensors").mkdir()


def steps(folder):
    for step in (1, 2, 3):
        save(folder / f"lora-0000{step}-of-00003.safetensors", up=step, down=step)


def some_steps(folder):
    for step in (3, 7):
        save(folder / f"lora-0000{step}-of-00010.safetensors", up=step, down=step)


def one_step(folder):
    save(folder / "lora-00004-of-00010.safetensors", up=1)


def two_totals(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    for number in (1, 2, 3):
        save(folder / f"model-0000{number}-of-00003.safetensors", **{f"t{number}": number})


def doubled_without_index(folder):
    save(folder / ONE, a=1, b=9)
    save(folder / TWO, b=2)


@pytest.mark.parametrize("make", [
    single_and_set, single_and_numbers, stale_index, half_a_set, index_of_the_single,
    index_names_single_and_shard, variant_never_fetched, two_indexes_of_the_shards,
    index_of_other_tensors, name_of_a_directory, steps, some_steps, one_step, two_totals,
    doubled_without_index], ids=lambda make: make.__name__)
def test_every_loader_finds_what_it_finds_on_disk(tmp_path, make):
    make(tmp_path)
    with mounted(tmp_path) as mount:
        status = mount.status()
        assert status["errors"] == 0 and status["state"] != "failed", status
        components = [component["name"] for component in status["components"]]
        assert len(set(components)) == len(components)
        assert by_name(mount.path) == by_name(tmp_path)
        assert by_index(mount.path) == by_index(tmp_path)
        assert by_glob(mount.path, True) == by_glob(tmp_path, True)
        assert by_glob(mount.path, False) == by_glob(tmp_path, False)
        for path in filter(os.path.isfile, tmp_path.iterdir()):  # and where one of them has gone, it is in the merged file
            if (mount / path.name).exists() and path.name not in (INDEX, SINGLE):
                assert (mount / path.name).read_bytes() == path.read_bytes()


def single_beside(folder, index_name):
    """An older save, of other values."""
    name = index_name.removesuffix(".index.json")
    tensors = checkpoints.tensors_of(checkpoints.shard_files(folder))
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, folder / name,
              metadata={"format": "pt"})


def stale_copy(folder, index_name):
    """In the first shard, of a tensor that the index has in the last one."""
    first, *_, last = checkpoints.shard_files(folder)
    name, tensor = next(iter(load_file(last).items()))
    save_file({**load_file(first), name: tensor + 1}, folder / "new", metadata={"format": "pt"})
    os.replace(folder / "new", first)


def tensor_nowhere(folder, index_name):
    content = json.loads((folder / index_name).read_text())
    content["weight_map"]["ghost.weight"] = checkpoints.shard_files(folder)[0].name
    (folder / index_name).write_text(json.dumps(content))


def index_lost_beside_a_pickle(folder, index_name):
    (folder / index_name).unlink()
    tensors = checkpoints.tensors_of(checkpoints.shard_files(folder))
    stem = index_name.split(".")[0]
    torch.save({key: tensor + 1 for key, tensor in tensors.items()},
               folder / {"model": "pytorch_model.bin"}.get(stem, stem + ".bin"))


def outcome(load, folder):
    """What a loader makes of a directory: tensors, or the kind of error."""
    try:
        return {name: tensor.clone() for name, tensor in load(folder).items()}
    except Exception as error:  # whatever it is, it has to be the same on disk and here
        return type(error).__name__


def by_transformers(folder):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def by_the_hub(folder):
    from huggingface_hub import load_torch_model
    from transformers import AutoConfig, AutoModelForCausalLM
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    load_torch_model(model, folder)
    return model.state_dict()


def by_accelerate(folder):
    from accelerate import load_checkpoint_in_model
    from transformers import AutoConfig, AutoModelForCausalLM
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    load_checkpoint_in_model(model, folder)
    return model.state_dict()


def by_diffusers(folder):
    from diffusers import FluxTransformer2DModel
    return FluxTransformer2DModel.from_pretrained(folder).state_dict()


@pytest.mark.heavy
@pytest.mark.parametrize("spoil", [single_beside, stale_copy, tensor_nowhere,
                                   index_lost_beside_a_pickle], ids=lambda spoil: spoil.__name__)
def test_real_loaders_load_what_they_load_from_disk(llama, flux, tmp_path, spoil):
    for folder, name, loaders in (
            (llama, INDEX, (by_transformers, by_the_hub, by_accelerate)),
            (flux / "transformer", "diffusion_pytorch_model." + INDEX.removeprefix("model."),
             (by_diffusers,))):
        source = shutil.copytree(folder, tmp_path / folder.name)
        spoil(source, name)
        with mounted(source) as mount:
            assert mount.status()["errors"] == 0
            for load in loaders:
                if (load, spoil) == (by_the_hub, stale_copy):
                    continue  # it takes the shards in any order, and so either copy
                expected, found = outcome(load, source), outcome(load, mount.path)
                if isinstance(expected, str) or isinstance(found, str):
                    assert found == expected, (load.__name__, found, expected)
                else:
                    assert_same(found, expected)


def test_index_says_which_of_two_is_meant(tmp_path):
    save(tmp_path / ONE, a=1, b=9)
    save(tmp_path / TWO, b=2)
    index(tmp_path, a=ONE, b=TWO)
    with mounted(tmp_path) as mount:
        assert os.listdir(mount.path).count(SINGLE) == 1 and ONE not in os.listdir(mount.path)
        assert by_index(mount.path) == load(mount / SINGLE) == {"a": 1, "b": 2}
        assert any("two shards" in note for note in mount.component(SINGLE)["notes"])


def test_index_says_which_of_three_is_meant(tmp_path):
    names = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        save(tmp_path / name, a=number, **{f"t{number}": number})
    index(tmp_path, a=names[2], **{f"t{number}": name for number, name in enumerate(names)})
    with mounted(tmp_path) as mount:
        assert load(mount / SINGLE) == {"a": 2, "t0": 0, "t1": 1, "t2": 2}


def test_shards_of_any_name_are_missed(tmp_path):
    """Several files that hold different tensors are parts of one model, whatever it is called."""
    for number in (1, 3):
        save(tmp_path / f"high_noise-0000{number}-of-00003.safetensors", **{f"t{number}": number})
    with mounted(tmp_path) as mount:
        component = mount.component("high_noise.safetensors")
        assert component["state"] == "failed" and "00002-of" in component["error"]["message"]


def test_missing_shard_stays_an_error(tmp_path):
    save(tmp_path / ONE, a=1)
    index(tmp_path, a=ONE, b=TWO)
    with mounted(tmp_path) as mount:
        component = mount.component(SINGLE)
        assert component["state"] == "failed" and TWO in component["error"]["message"]


@pytest.mark.parametrize("with_index", [True, False])
def test_both_layouts_and_loaders_that_take_every_file(tmp_path, with_index):
    """Those that look at an index load each tensor once."""
    save(tmp_path / ONE, a=1)
    save(tmp_path / TWO, b=2)
    if with_index:
        index(tmp_path, a=ONE, b=TWO)
    with mounted(tmp_path, "layout=both") as mount:
        assert sorted(os.listdir(mount.path)) == sorted([ONE, TWO, SINGLE, INDEX])
        assert by_glob(mount.path, True) == {"a": [1], "b": [2]}
        assert by_name(mount.path) == by_index(mount.path) == {"a": 1, "b": 2}


def test_index_in_another_spelling_is_opened_by_name(tmp_path):
    """What diffusers wrote before: the index that is shown has the name of today."""
    shards = [f"model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(shards):
        save(tmp_path / name, **{f"t{number}": number})
    old, new = "model.safetensors.fp16.index.json", "model.safetensors.index.fp16.json"
    index(tmp_path, old, t0=shards[0], t1=shards[1])
    with mounted(tmp_path) as mount:
        assert sorted(os.listdir(mount.path)) == ["model.fp16.safetensors", new]
        assert (mount / old).read_bytes() == (tmp_path / old).read_bytes()
        assert by_index(mount.path, old) == by_index(mount.path, new) == {"t0": 0, "t1": 1}
    with mounted(tmp_path, "index=hide") as mount:
        assert not (mount / old).exists() and not (mount / new).exists()


def spoil(path):
    """Another value of a tensor than its digest says."""
    digests.by_sha256sum(path.parent, path.name)
    data = bytearray(path.read_bytes())
    data[data.index(bytes.fromhex("0000803f"))] ^= 1  # 1.0
    path.write_bytes(data)


def a_set(folder):
    save(folder / ONE, a=1)
    save(folder / TWO, b=2)
    spoil(folder / ONE)
    return SINGLE, {"a", "b"}


def a_component_of_a_file(folder):
    save(folder / "whole.safetensors", **{"model.diffusion_model.x": 1, "first_stage_model.y": 2})
    spoil(folder / "whole.safetensors")
    return "vae/diffusion_pytorch_model.safetensors", {"y"}


def a_pickle(folder):
    torch.save({"a": torch.ones(5)}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text("{}")
    spoil(folder / "pytorch_model.bin")
    return SINGLE, {"a"}


@pytest.mark.parametrize("make", [a_set, a_component_of_a_file, a_pickle],
                         ids=lambda make: make.__name__)
def test_header_is_read_whatever_shard_is_bad(tmp_path, make):
    view, tensors = make(tmp_path)
    with mounted(tmp_path, "split=first_stage_model.=vae") as mount:
        mount.wait_warm()
        with open(mount / view, "rb", buffering=0) as file:
            length = int.from_bytes(file.read(8), "little")
            assert set(json.loads(file.read(length))) - {"__metadata__"} == tensors
            assert (8 + length) % 4096 == 0
            with pytest.raises(OSError):
                file.read(1)


def test_splits_show_their_own_file(tmp_path):
    """Whatever lies in the directories before theirs."""
    for number, name in enumerate("abcd"):
        folder = tmp_path / name
        folder.mkdir()
        save(folder / "whole.safetensors",
             **{"model.diffusion_model.input_blocks.0.w": number, "first_stage_model.x": number,
                "cond_stage_model.y": number})
        torch.save([1, 2, 3], tmp_path / name / "other.pt")
        shutil.copy(tmp_path / name / "other.pt", tmp_path / name / "another.pth")
    with mounted(tmp_path, "split=auto") as mount:
        for number, name in enumerate("abcd"):
            for path in (mount / name).rglob("*.safetensors"):
                assert set(load(path).values()) == {number}, path
