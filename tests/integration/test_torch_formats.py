# SPDX-License-Identifier: MIT
"""PyTorch files through a mount: safetensors, bit for bit what torch.load gives."""

import json
import os
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import checkpoints
import torch_files
from compare import assert_same, assert_same_models
from harness import TOP, mounted, run, wait_for

LEGACY = {"_use_new_zipfile_serialization": False}


def names(folder):
    return sorted(os.listdir(folder))


@pytest.fixture(scope="module")
def weird():
    return torch_files.weird_tensors()


@pytest.mark.parametrize("order", ["order=shard", "order=canonical"])
@pytest.mark.parametrize("count", [1, 3])
def test_every_dtype_and_layout(weird, tmp_path, count, order):
    torch_files.save_bin(tmp_path, weird, count)
    expected = torch_files.load_all(tmp_path.glob("*.bin"))
    with mounted(tmp_path, order) as mount:
        # A file by itself may be ComfyUI's: it is listed, what is made of it is not.
        assert names(mount.path) == (["model.safetensors", "model.safetensors.index.json"]
                                     if count > 1 else ["pytorch_model.bin"])
        with safe_open(mount / "model.safetensors", framework="pt") as file:
            assert file.metadata() == {"format": "pt"}
        assert_same(load_file(mount / "model.safetensors"), expected)
        mount.wait_warm()
        component = mount.component("model.safetensors")
        assert component["state"] == "unverified" and component["error"] is None
        assert [shard["file"] for shard in component["shards"]] == \
            sorted(path.name for path in tmp_path.glob("*.bin"))


def test_canonical_is_what_the_library_writes(weird, tmp_path):
    from safetensors.torch import save_file

    torch_files.save_bin(tmp_path / "source", weird)
    contiguous = {name: tensor.detach().contiguous().clone() for name, tensor in weird.items()}
    save_file(contiguous, tmp_path / "expected", metadata={"format": "pt"})
    with mounted(tmp_path / "source", "order=canonical") as mount:
        assert (mount / "model.safetensors").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize("prefetch", ["prefetch=all", "prefetch=off"])
@pytest.mark.parametrize("chunk", ["64K", "2M"])
def test_small_chunks_and_odd_reads(weird, tmp_path, chunk, prefetch):
    torch_files.save_bin(tmp_path, weird)
    with mounted(tmp_path, "order=canonical", f"chunk={chunk}", prefetch) as mount:
        path = mount / "model.safetensors"
        whole = path.read_bytes()
        assert_same(load_file(path), torch_files.load_all([tmp_path / "pytorch_model.bin"]))
        with open(path, "rb") as file:
            for offset in range(1, len(whole), len(whole) // 97):
                length = offset % 70001 + 1
                assert os.pread(file.fileno(), length, offset) == whole[offset:offset + length]


def test_legacy_layout(weird, tmp_path):
    # Of other dtypes the old layout writes what torch itself cannot read again.
    old = {name: tensor for name, tensor in weird.items()
           if not name.startswith(("float8", "uint16", "uint32", "uint64"))}
    torch_files.save_bin(tmp_path, old, 2, **LEGACY)
    expected = torch_files.load_all(tmp_path.glob("*.bin"))
    with mounted(tmp_path) as mount:
        assert_same(load_file(mount / "model.safetensors"), expected)


def test_truncated_legacy_file(tmp_path):
    tensors = {f"w{number}": torch.randn(50000) for number in range(5)}
    torch_files.save_bin(tmp_path, tensors, **LEGACY)
    path = tmp_path / "pytorch_model.bin"
    os.truncate(path, path.stat().st_size - 1000)
    with mounted(tmp_path, "chunk=64K") as mount:
        component, shard = mount.component_of_shard("pytorch_model.bin")
        assert component["state"] == "failed" and shard["error"]["code"] == "truncated"
        readable = [name for name, tensor in tensors.items()
                    if tensor_bytes(mount / "model.safetensors", name) == raw(tensor)]
        assert len(readable) == 4


def raw(tensor):
    return tensor.numpy().tobytes()


def tensor_bytes(path, name):
    """What read() gives of a tensor; None: an error."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start, end = json.loads(file.read(length))[name]["data_offsets"]
        try:
            return os.pread(file.fileno(), end - start, 8 + length + start)
        except OSError:
            return None


def test_transformers_decoder(llama, tmp_path):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(llama)
    torch_files.transformers_bin(tmp_path, model, 4)
    with mounted(tmp_path) as mount:
        assert_same_models(AutoModelForCausalLM.from_pretrained(mount.path), model)
        index = json.loads((mount / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {"model.safetensors"}


def test_tied_weights_of_a_model(tmp_path):
    from transformers import T5EncoderModel

    model = checkpoints.t5_encoder_model()
    state = model.state_dict()
    assert state["shared.weight"].data_ptr() == state["encoder.embed_tokens.weight"].data_ptr()
    torch_files.transformers_bin(tmp_path, model, 1)
    with mounted(tmp_path) as mount:
        tensors = load_file(mount / "model.safetensors")
        assert torch.equal(tensors["shared.weight"], tensors["encoder.embed_tokens.weight"])
        found = T5EncoderModel.from_pretrained(mount.path)
        assert_same_models(found, model)
        del tensors, found


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_diffusers(tmp_path, variant):
    from diffusers import AutoencoderKL

    torch.manual_seed(12)
    model = AutoencoderKL(block_out_channels=(32, 64), layers_per_block=1, latent_channels=4,
                          down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2)
    if variant:
        model.half()
    model.save_pretrained(tmp_path, safe_serialization=False, max_shard_size="400KB",
                          variant=variant)
    assert len(list(tmp_path.glob("*.bin"))) > 2
    with mounted(tmp_path) as mount:
        assert names(mount.path) == ["config.json", *(
            ["diffusion_pytorch_model.fp16.safetensors",
             "diffusion_pytorch_model.safetensors.index.fp16.json"] if variant else
            ["diffusion_pytorch_model.safetensors",
             "diffusion_pytorch_model.safetensors.index.json"])]
        found = AutoencoderKL.from_pretrained(mount.path, variant=variant,
                                              torch_dtype=torch.float16 if variant else None)
        assert_same_models(found, model)
        del found


def test_training_checkpoint_is_unwrapped(tmp_path):
    tensors = {"a": torch.randn(4), "b": torch.randn(4, 4).t()}
    torch.save({"state_dict": tensors, "epoch": 3, "lr": 0.1, "names": ["a", ("b", None)]},
               tmp_path / "last.pth")
    torch.save({"params": tensors}, tmp_path / "upscaler.pth")
    with mounted(tmp_path) as mount:
        assert names(mount.path) == names(tmp_path)
    with mounted(tmp_path, "pickle=safetensors") as mount:
        assert names(mount.path) == ["last.pth", "last.safetensors", "upscaler.pth",
                                     "upscaler.safetensors"]
        for name in ("last", "upscaler"):
            assert_same(load_file(mount / f"{name}.safetensors"), tensors)
        assert "state_dict" in " ".join(mount.component("last.safetensors")["notes"])
        assert "params" in " ".join(mount.component("upscaler.safetensors")["notes"])


@pytest.mark.parametrize("pickle", ["pickle=auto", "pickle=safetensors"])
def test_files_that_are_no_weights_stay(tmp_path, pickle):
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    torch.save(model, tmp_path / "module.pt")
    torch.save(torch.randn(5), tmp_path / "tensor.pt")
    torch.jit.save(torch.jit.script(model), tmp_path / "script.pt")
    torch.save({"rng": [1, 2]}, tmp_path / "rng_state.pth")
    torch.save({"a": 1}, tmp_path / "training_args.bin")
    torch.save({"w": torch.randn(2)}, tmp_path / "adapter_model.bin")
    (tmp_path / "words.pt").write_text("no torch at all")
    with mounted(tmp_path, pickle) as mount:
        assert names(mount.path) == names(tmp_path)
        for path in tmp_path.iterdir():
            assert (mount / path.name).read_bytes() == path.read_bytes()
        status = mount.status()
        assert status["errors"] == 0 and status["components"] == []
        # By default nobody looks into a .pt.
        assert any("module.pt" in note for note in status["notes"]) == (pickle != "pickle=auto")


def test_a_model_directory_gets_no_further_safetensors(tmp_path):
    checkpoints.save_shards(tmp_path, checkpoints.random_tensors(7), 2)
    torch.save({"w": torch.randn(4)}, tmp_path / "extra.pth")
    with mounted(tmp_path) as mount:
        assert [name for name in names(mount.path) if name.endswith(".safetensors")] == \
            ["model.safetensors"]
        assert (mount / "extra.pth").read_bytes() == (tmp_path / "extra.pth").read_bytes()


def test_safetensors_form_wins(tmp_path):
    tensors = checkpoints.random_tensors(8)
    checkpoints.save_shards(tmp_path, tensors, 2)
    torch_files.save_bin(tmp_path, {"other": torch.randn(3)}, 2)
    with mounted(tmp_path) as mount:
        bins = [name for name in names(tmp_path) if "pytorch_model" in name]
        assert names(mount.path) == ["model.safetensors", "model.safetensors.index.json", *bins]
        assert_same(load_file(mount / "model.safetensors"), tensors)
        notes = " ".join(mount.component("model.safetensors")["notes"])
        assert "pytorch_model-00001-of-00002.bin" in notes
    with mounted(tmp_path, "layout=both") as mount:
        assert set(names(mount.path)) == set(names(tmp_path)) | {"model.safetensors"}


def test_asis_and_both(tmp_path):
    tensors = {name: torch.randn(50) for name in "abcd"}
    torch_files.save_bin(tmp_path, tensors, 2)
    with mounted(tmp_path, "pickle=asis") as mount:
        assert names(mount.path) == names(tmp_path)
        for path in tmp_path.iterdir():
            assert (mount / path.name).read_bytes() == path.read_bytes()
    with mounted(tmp_path, "layout=both") as mount:
        assert set(names(mount.path)) == set(names(tmp_path)) | {
            "model.safetensors", "model.safetensors.index.json"}
        for path in tmp_path.iterdir():
            assert (mount / path.name).read_bytes() == path.read_bytes()
        assert_same(load_file(mount / "model.safetensors"), tensors)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", list(torch_files.hostile_objects("x")))
def test_hostile_pickle(flux, tmp_path, name, legacy):
    """It is named, it is not run, and everything else loads."""
    marker = tmp_path / "marker"
    source = shutil.copytree(flux, tmp_path / "source")
    (source / "vae/diffusion_pytorch_model.safetensors").unlink()
    evil = {"w": torch.randn(3), "x": torch_files.hostile_objects(marker)[name]}
    torch.save(evil, source / "vae/diffusion_pytorch_model.bin",
               **(LEGACY if legacy else {}))
    with mounted(source) as mount:
        component, shard = mount.component_of_shard("vae/diffusion_pytorch_model.bin")
        assert component["state"] == "failed"
        assert shard["error"]["code"] == "hostile-pickle"
        assert name in shard["error"]["message"] and shard["error"]["offset"] > 0
        assert "hostile-pickle" in (mount / ".unshard/errors").read_text()
        assert mount.status()["state"] == "degraded"
        assert names(mount / "vae") == ["config.json", "diffusion_pytorch_model.bin"]
        assert (mount / "vae/diffusion_pytorch_model.bin").read_bytes() == \
            (source / "vae/diffusion_pytorch_model.bin").read_bytes()
        for part in ("transformer", "text_encoder_2"):
            file = next((mount / part).glob("*.safetensors"))
            assert_same(load_file(file),
                        checkpoints.tensors_of((flux / part).glob("*.safetensors")))
    assert not marker.exists()


def test_hostile_pth_among_others(tmp_path):
    marker = tmp_path / "marker"
    source = tmp_path / "source"
    source.mkdir()
    torch.save({"w": torch.ones(3)}, source / "good.pth")
    torch.save(torch_files.Call(os.system, f"touch {marker}"), source / "evil.pth")
    done = run("ls", "-o", "pickle=safetensors", source)
    assert done.returncode == 3 and "posix.system" in done.stdout
    with mounted(source, "pickle=safetensors") as mount:
        assert names(mount.path) == ["evil.pth", "good.pth", "good.safetensors"]
        assert mount.component("evil.safetensors")["state"] == "failed"
        assert_same(load_file(mount / "good.safetensors"), {"w": torch.ones(3)})
    assert not marker.exists()


def test_ls_and_export(weird, tmp_path):
    torch_files.save_bin(tmp_path / "source", weird, 2)
    listed = json.loads(run("ls", "--json", "--tensors", tmp_path / "source", check=True).stdout)
    (component,) = listed["components"]
    assert component["format"] == "torch" and component["tensor_count"] == len(weird)
    shapes = {tensor["name"]: tensor["shape"] for tensor in component["tensors"]}
    assert shapes == {name: list(tensor.shape) for name, tensor in weird.items()}
    run("export", tmp_path / "source", tmp_path / "target", check=True)
    assert names(tmp_path / "target") == ["model.safetensors", "model.safetensors.index.json"]
    assert_same(load_file(tmp_path / "target/model.safetensors"),
                torch_files.load_all((tmp_path / "source").glob("*.bin")))


def test_a_shard_that_vanishes_is_blamed_for_gathered_tensors(tmp_path):
    """A gathered tensor is no shard: the status tells of the file that its bytes come from."""
    generator = torch.Generator().manual_seed(3)
    tensors = {name: torch.randn(700, 900, generator=generator).t() for name in "abcd"}
    torch_files.save_bin(tmp_path, tensors, 2)
    with mounted(tmp_path, "prefetch=off") as mount:
        (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
        with safe_open(mount / "model.safetensors", framework="pt") as file:
            assert torch.equal(file.get_tensor("a"), tensors["a"])
        with open(mount / "model.safetensors", "rb") as file, pytest.raises(OSError):
            file.read()

        def blamed():
            component, shard = mount.component_of_shard("pytorch_model-00002-of-00002.bin")
            return component["state"] == "failed" and shard["error"]

        error = wait_for(blamed, what="the shard failed")
        assert error["message"].startswith("pytorch_model-00002-of-00002.bin:")
        _, other = mount.component_of_shard("pytorch_model-00001-of-00002.bin")
        assert other["error"] is None
        errors = (mount / ".unshard/errors").read_text()
        assert "gathered" not in errors and "pytorch_model-00002-of-00002.bin" in errors


def test_corpus_reads_as_torch_reads_it(tmp_path):
    """Every file of the corpus that is accepted: the same tensors as torch.load gives."""
    corpus = TOP / "tests/corpus/torch_file"
    files = sorted(corpus.glob("accept-*"))
    assert len(files) > 20
    for path in files:
        folder = tmp_path / path.stem
        folder.mkdir()
        shutil.copyfile(path, folder / f"{path.stem}.pt")
    with mounted(tmp_path, "pickle=safetensors") as mount:
        for path in files:
            expected = torch.load(path, weights_only=True)
            expected = expected.get("state_dict", expected.get("params", expected))
            expected = {name: value.detach() for name, value in expected.items()
                        if isinstance(value, torch.Tensor)}
            assert_same(load_file(mount / path.stem / f"{path.stem}.safetensors"), expected)


@pytest.mark.parametrize("options", [[], ["pickle=asis"]], ids=["default", "asis"])
def test_what_cannot_be_shown_otherwise_is_shown_as_it_is(tmp_path, options):
    torch.save({"w": torch.eye(3).to_sparse()}, tmp_path / "pytorch_model.bin")
    with mounted(tmp_path, *options) as mount:
        status = mount.status()
        assert status["errors"] == 0
        assert options or any("pytorch_model.bin" in note for note in status["notes"])
        found = torch.load(mount / "pytorch_model.bin", weights_only=True)
        assert torch.equal(found["w"].to_dense(), torch.eye(3))
