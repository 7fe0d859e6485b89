# SPDX-License-Identifier: MIT
"""layout=shards: what is mounted is the directory as it is on disk, prefetched and verified."""

import concurrent.futures
import errno
import json
import os
import pathlib
import shutil
import stat
import subprocess
import sys

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
import digests
import gguf_files
import loaders
import test_outcomes
import torch_files
from compare import assert_same, assert_same_models
from harness import PATIENCE, TOP, mounted, run, slow, wait_for
from test_digests import flip

SHARDS = "layout=shards"
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("UNSHARD_CACHE_DIR", str(tmp_path_factory.mktemp("digest-cache")))


@pytest.fixture
def model(llama, tmp_path):
    return pathlib.Path(shutil.copytree(llama, tmp_path / "model"))


def described(path):
    """What a program can see of an entry, but that nobody may write."""
    status = path.stat()
    if not path.is_file():
        return stat.S_IFMT(status.st_mode)
    return status.st_size, status.st_mtime_ns, status.st_mode & ~0o222, path.read_bytes()


def tree(folder):
    """All below a directory: links are followed on both sides, for a mount shows where they lead."""
    found = {}
    for top, folders, files in os.walk(folder, followlinks=True):
        for name in (*folders, *files):
            path = pathlib.Path(top, name)
            found[str(path.relative_to(folder))] = \
                described(path) if path.exists() else os.readlink(path)
    return found


def assert_untouched(mount, source):
    found, expected = tree(mount.path), tree(source)
    assert sorted(found) == sorted(expected)
    different = [name for name, what in expected.items() if found[name] != what]
    assert not different


def shards_of(mount):
    return {shard["file"]: shard for component in mount.status()["components"]
            for shard in component["shards"]}


# ---- kinds of checkpoints ------------------------------------------------------------------------

def safetensors_shards(folder):
    checkpoints.save_shards(folder, checkpoints.random_tensors(1), 5)


def numbered_without_index(folder):
    checkpoints.save_shards(folder, checkpoints.random_tensors(6), 11, index=False)


def other_numbers(folder):
    """Of which no set is made."""
    folder.mkdir()
    for number in range(1, 12):
        test_outcomes.save(folder / f"model-{number}-of-11.safetensors", **{f"t{number}": number})


def variant_in_the_old_spelling(folder):
    checkpoints.save_shards(folder, checkpoints.random_tensors(2), 3, stem="model.fp16")
    (folder / "model.fp16.safetensors.index.json").rename(
        folder / "model.safetensors.fp16.index.json")


def transformers_model(folder):
    checkpoints.llama(folder)


def pipeline(folder):
    checkpoints.flux(folder)


def monolithic(folder):
    folder.mkdir()
    test_outcomes.save(folder / "whole.safetensors", **{
        "model.diffusion_model.x": 1, "first_stage_model.y": 2, "cond_stage_model.z": 3})


def hub_repository(folder):
    saved = folder.with_name("saved")
    checkpoints.save_shards(saved, checkpoints.random_tensors(3), 3)
    snapshot = checkpoints.hub_cache(folder, saved)
    marker = snapshot.parents[1] / ".no_exist" / snapshot.name / "model.safetensors"
    marker.parent.mkdir(parents=True)
    marker.touch()


def hub_download(folder):
    saved = folder.with_name("saved")
    checkpoints.save_shards(saved, checkpoints.random_tensors(4), 3)
    checkpoints.local_download(folder, saved)


def pickle_shards(folder):
    torch_files.save_bin(folder, torch_files.weird_tensors(), 3)


def pickle_alone(folder):
    torch_files.save_bin(folder, torch_files.weird_tensors())
    (folder / "config.json").write_text("{}")


def pickle_of_anything(folder):
    folder.mkdir()
    torch.save({"a": [1, 2, {"x": torch.ones(3)}], "epoch": 5}, folder / "pytorch_model.bin")
    torch.save({"a": torch.ones(3)}, folder / "consolidated.00.pth")
    torch.save([1, 2], folder / "other.pt")


def old_pickle(folder):
    torch_files.save_bin(folder, {"a": torch.ones(300)}, _use_new_zipfile_serialization=False)


def distributed(folder):
    import torch.distributed.checkpoint as dcp
    dcp.save({"model": {"a": torch.ones(5000), "b": torch.arange(7)}, "step": 3},
             checkpoint_id=str(folder), no_dist=True)


def gguf_splits(folder):
    folder.mkdir()
    gguf_files.write_model(folder, split_max_tensors=9)


def gguf_alone(folder):
    folder.mkdir()
    gguf_files.write_model(folder)


def both_forms(folder):
    tensors = checkpoints.random_tensors(5)
    checkpoints.save_shards(folder, tensors, 2)
    torch_files.save_bin(folder, {"a": torch.ones(3)}, 2)


def files_of_all_sorts(folder):
    folder.mkdir()
    for name in ("empty.safetensors", "empty.bin", "config.json", ".hidden", "model.safetensors.tmp",
                 ".cache/x", "a/b/c/deep.txt", "._model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"" if "empty" in name else name.encode() * 1000)
    test_outcomes.save(folder / "a/real.sft", x=1)
    (folder / "link.safetensors").symlink_to("a/real.sft")
    (folder / "nowhere.safetensors").symlink_to("gone.safetensors")
    (folder / "linked").symlink_to("a")
    os.chmod(folder / "config.json", 0o640)


KINDS = [safetensors_shards, numbered_without_index, other_numbers, variant_in_the_old_spelling,
         transformers_model, pipeline, monolithic, hub_repository, hub_download, pickle_shards,
         pickle_alone, pickle_of_anything, old_pickle, distributed, gguf_splits, gguf_alone,
         both_forms, files_of_all_sorts]


@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_every_kind_is_as_it_is_on_disk(tmp_path, make):
    source = tmp_path / "source"
    make(source)
    with mounted(source, SHARDS, "prefetch=all") as mount:
        done = run("wait", mount.path)
        assert done.returncode == 0, done.stdout + done.stderr
        status = mount.status()
        assert status["state"] == "ready" and status["errors"] == 0
        assert status["bytes_published"] == status["bytes_total"]
        names = [component["name"] for component in status["components"]]
        assert names and len(set(names)) == len(names)
        assert_untouched(mount, source)
        for name, shard in shards_of(mount).items():
            assert shard["bytes_total"] == (source / name).stat().st_size
    target = tmp_path / "target"
    run("export", "-o", SHARDS, source, target, check=True)
    exported, expected = tree(target), tree(source)
    assert sorted(exported) == sorted(expected)
    assert all(exported[name][-1] == what[-1] for name, what in expected.items()
               if isinstance(what, tuple))


@pytest.mark.parametrize("make", [
    test_outcomes.single_and_set, test_outcomes.stale_index, test_outcomes.half_a_set,
    test_outcomes.index_names_single_and_shard, test_outcomes.two_indexes_of_the_shards,
    test_outcomes.index_of_other_tensors, test_outcomes.name_of_a_directory, test_outcomes.steps,
    test_outcomes.one_step, test_outcomes.two_totals, test_outcomes.doubled_without_index],
    ids=lambda make: make.__name__)
def test_contradictions_are_left_to_loaders(tmp_path, make):
    make(tmp_path)
    with mounted(tmp_path, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0
        assert mount.status()["errors"] == 0
        assert_untouched(mount, tmp_path)


def cut_short(folder, shards):
    os.truncate(shards[1], shards[1].stat().st_size - 1000)


def header_of_nothing(folder, shards):
    shards[1].write_bytes(b"<!DOCTYPE html>" * 500)


def one_missing(folder, shards):
    shards[1].unlink()


def link_to_nowhere(folder, shards):
    shards[1].unlink()
    shards[1].symlink_to("nothing")


def index_broken(folder, shards):
    (folder / INDEX).write_text('{"weight_map": {')


@pytest.mark.parametrize("spoil", [cut_short, header_of_nothing, one_missing, link_to_nowhere,
                                   index_broken], ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_with_a_set_is_noted(model, spoil):
    """Nobody is kept from bytes that are what they are on disk: the loader will say what it misses."""
    shards = checkpoints.shard_files(model)
    spoil(model, shards)
    culprit = INDEX if spoil == index_broken else shards[1].name
    with mounted(model, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0
        assert run("status", mount.path).returncode == 0
        assert_untouched(mount, model)
        component, = mount.status()["components"]
        assert component["state"] == "unverified" and component["error"] is None
        assert any(culprit in note for note in component["notes"])
        assert all(shard["error"] is None for shard in component["shards"])
    listed = run("ls", "-o", SHARDS, model)
    assert listed.returncode == 0 and culprit in listed.stdout


# ---- loaders and readers -------------------------------------------------------------------------

def test_loaders_take_the_shards(llama, flux):
    from transformers import AutoModelForCausalLM

    with mounted(llama, SHARDS) as mount:
        for choose in (loaders.vllm_files, loaders.trtllm_hf_weight_files,
                       loaders.trtllm_visual_gen_files):
            assert [path.name for path in choose(mount.path)] == \
                [path.name for path in choose(llama)]
        found = AutoModelForCausalLM.from_pretrained(mount.path)
        assert_same_models(found, AutoModelForCausalLM.from_pretrained(llama))
        del found
    with mounted(flux, SHARDS) as mount:
        found, expected = checkpoints.load_flux(mount.path), checkpoints.load_flux(flux)
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2"):
            assert_same_models(getattr(found, name), getattr(expected, name))
        del found


@pytest.mark.parametrize("verify", ["strict", "off"])
@pytest.mark.parametrize("prefetch", ["all", "follow", "off"])
def test_a_reader_for_each_file(big, tmp_path, prefetch, verify):
    """At once, as loaders do that read their files in parallel."""
    source = shutil.copytree(big, tmp_path / "big")
    digests.by_sha256sum(source)
    files = checkpoints.shard_files(source)
    with mounted(source, SHARDS, f"prefetch={prefetch}", f"verify={verify}") as mount:
        with concurrent.futures.ThreadPoolExecutor(len(files)) as pool:
            found = list(pool.map(lambda path: load_file(mount / path.name), files))
        for path, tensors in zip(files, found):
            assert_same(tensors, load_file(path))
        del found, tensors
        state = "verified" if verify == "strict" else "unverified"
        wait_for(lambda: all(shard["state"] == state for shard in shards_of(mount).values()))


def test_what_is_warm_is_not_read_again(big):
    """Unless somebody on this machine has dropped caches meanwhile."""
    with slow(big) as storage, mounted(storage.path, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0

        def nothing_is_read():
            before = mount.status()["bytes_read"]
            for path in checkpoints.shard_files(big):
                assert (mount / path.name).read_bytes() == path.read_bytes()
            return mount.status()["bytes_read"] == before

        wait_for(nothing_is_read)


def test_components_are_prefetched_in_the_order_of_loading(flux):
    """As those of merged files are, and each from its first shard to its last."""
    def order(layout):
        listed = run("ls", "--json", "-o", f"layout={layout}", flux, check=True).stdout
        return [shard["file"] for component in json.loads(listed)["components"]
                for shard in component["shards"]]

    shards = order("shards")
    assert shards == order("merged")
    total = sum((flux / name).stat().st_size for name in shards)
    # One job goes along the plan until the window ahead of readers, of whom there are none, is full.
    with slow(flux) as storage:
        storage.command("latency 5")
        with mounted(storage.path, SHARDS, "jobs=1", "chunk=64K", f"window={total}") as mount:
            wait_for(lambda: mount.status()["state"] == "paused", what="half of it")
            read = [name for name, shard in shards_of(mount).items() if shard["bytes_read"] > 0]
            assert 2 < len(read) < len(shards) and read == shards[:len(read)]


FASTSAFETENSORS = """
import sys
from fastsafetensors import fastsafe_open
with fastsafe_open(filenames=sys.argv[1:], nogds=True, device="cpu") as file:
    print(sum(file.get_tensor(key).numel() for key in file.keys()))
"""
RUNAI = """
import sys
from runai_model_streamer import SafetensorsStreamer
with SafetensorsStreamer() as streamer:
    streamer.stream_files(sys.argv[1:])
    print(sum(tensor.numel() for name, tensor in streamer.get_tensors()))
"""


@pytest.mark.heavy
@pytest.mark.parametrize("package,program,setting", [
    ("fastsafetensors", FASTSAFETENSORS, {"FASTSAFETENSORS_ODIRECT": "0"}),
    ("runai_model_streamer", RUNAI,
     {"RUNAI_STREAMER_FS_STRATEGY": "io_uring_buffered,sync_buffered"})])
def test_streamers_can_read_the_page_cache(big, package, program, setting):
    """The settings that contrib/guides/loaders.md names; by default these read with O_DIRECT."""
    pytest.importorskip(package)
    assert all(f"`{name}={value}`" in (TOP / "contrib/guides/loaders.md").read_text()
               for name, value in setting.items())
    files = [path.name for path in checkpoints.shard_files(big)]
    expected = sum(tensor.numel() for tensor in
                   checkpoints.tensors_of(checkpoints.shard_files(big)).values())
    with mounted(big, SHARDS) as mount:
        def little_is_read():
            assert run("wait", mount.path).returncode == 0
            before = mount.status()["bytes_read"]
            done = subprocess.run([sys.executable, "-c", program, *files], cwd=mount.path,
                                  check=True, env={**os.environ, **setting}, text=True,
                                  stdout=subprocess.PIPE, timeout=PATIENCE * 3)
            assert int(done.stdout.split()[-1]) == expected
            status = mount.status()
            return status["bytes_read"] - before < status["bytes_total"] // 3

        wait_for(little_is_read)


# ---- verification --------------------------------------------------------------------------------

@pytest.mark.parametrize("origin", ["sha256sum", "single", "manifest", "hub", "download", "xxhsum"])
def test_each_file_is_verified_by_what_is_known_of_it(model, origin):
    source, _, algorithm = digests.ORIGINS[origin](model)
    with mounted(source, SHARDS) as mount:
        assert run("wait", "--verified", mount.path).returncode == 0
        for shard in shards_of(mount).values():
            assert shard["state"] == "verified" and shard["algorithm"] == algorithm
        if origin != "hub":
            assert_untouched(mount, source)


def read_errno(path):
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno
    return 0


@pytest.mark.parametrize("origin", ["sha256sum", "manifest"])
def test_a_wrong_digest_is_an_error_of_that_file_alone(model, tmp_path, origin):
    digests.ORIGINS[origin](model)
    files = checkpoints.shard_files(model)
    bad, good = files[1], [files[0], *files[2:]]
    flip(bad, 50_000)
    with mounted(model, SHARDS) as mount:
        done = run("wait", mount.path)
        assert done.returncode == 1 and bad.name in done.stderr
        assert read_errno(mount / bad.name) == errno.EIO
        for path in [*good, model / INDEX]:
            assert (mount / path.name).read_bytes() == path.read_bytes()
        component, shard = mount.component_of_shard(bad.name)
        assert component["state"] == shard["state"] == "failed"
        assert shard["error"]["code"] == "mismatch" and shard["mismatch"]["expected"]
        wait_for(lambda: all(shards_of(mount)[path.name]["state"] == "verified" for path in good))
        assert os.getxattr(mount / bad.name, "user.unshard.state") == b"failed"
        assert os.getxattr(mount / good[0].name, "user.unshard.state") == b"verified"
        assert os.getxattr(mount / good[0].name, "user.unshard.shards") == b"1"
        assert bad.name in os.getxattr(mount / bad.name, "user.unshard.errors").decode()
        assert os.getxattr(mount / good[0].name, "user.unshard.errors") == b""
        assert run("status", mount.path).returncode == 3
        flip(bad, 50_000)
        os.utime(bad)
        wait_for(lambda: read_errno(mount / bad.name) == 0, what="the repaired file")
        assert (mount / bad.name).read_bytes() == bad.read_bytes()
        assert run("wait", "--verified", mount.path).returncode == 0
    flip(bad, 50_000)
    target = tmp_path / "target"
    done = run("export", "-o", SHARDS, model, target)
    assert done.returncode == 1 and bad.name in done.stderr
    assert sorted(path.name for path in target.iterdir() if not path.name.startswith(".")) == \
        sorted(path.name for path in model.iterdir() if path != bad)


def test_a_digest_tells_that_a_file_was_cut(model):
    digests.by_manifest(model)
    files = checkpoints.shard_files(model)
    os.truncate(files[0], 1000)
    with mounted(model, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 1
        assert read_errno(mount / files[0].name) == errno.EIO
        assert (mount / files[1].name).read_bytes() == files[1].read_bytes()


# ---- files that change ---------------------------------------------------------------------------

def longer(path):
    save_file({"another": torch.ones(700_000), "layout": torch.zeros(3)}, path)


def shorter(path):
    save_file({"small": torch.ones(10)}, path)


def emptied(path):
    path.write_bytes(b"")


def other_file(path):
    path.write_bytes(b"nothing of that kind" * 1000)


@pytest.mark.parametrize("change", [longer, shorter, emptied, other_file],
                         ids=lambda change: change.__name__)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_shard_may_become_another_file(model, change, in_place):
    """No merged file was made from what its header says: it is shown as it is now."""
    shard = checkpoints.shard_files(model)[1]
    with mounted(model, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0
        if in_place:
            change(shard)
        else:
            change(shard.with_name("new"))
            shard.with_name("new").rename(shard)
        expected = shard.read_bytes()

        def same():
            try:
                return (mount / shard.name).read_bytes() == expected
            except OSError:
                return False

        wait_for(same, what="the new file")
        wait_for(lambda: (mount / shard.name).stat().st_size == len(expected), what="its size")
        wait_for(lambda: run("wait", mount.path).returncode == 0, what="warm again")
        status = mount.status()
        assert shards_of(mount)[shard.name]["bytes_total"] == len(expected)
        assert status["errors"] == 0
        assert sum(one["bytes_published"] for one in shards_of(mount).values()) <= \
            sum(one["bytes_total"] for one in shards_of(mount).values())


# ---- commands ------------------------------------------------------------------------------------

def test_evict_and_warm_take_all_files_of_a_component(flux):
    with mounted(flux, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0

        def published(name):
            return next(component for component in mount.status()["components"]
                        if component["name"] == name)

        run("evict", mount.path, "transformer", check=True)
        evicted = published("transformer")
        assert evicted["evicted"] and evicted["bytes_published"] == 0
        assert not published("vae")["evicted"] and published("vae")["bytes_published"] > 0
        assert run("wait", mount.path).returncode == 0
        for path in checkpoints.shard_files(flux / "transformer"):
            assert (mount / "transformer" / path.name).read_bytes() == path.read_bytes()
        run("warm", mount.path, "transformer", check=True)
        assert run("wait", mount.path).returncode == 0
        warm = published("transformer")
        assert not warm["evicted"] and warm["bytes_published"] == warm["bytes_total"]


def test_list_and_status(llama, tmp_path):
    files = checkpoints.shard_files(llama)
    described = json.loads(run("ls", "--json", "-o", SHARDS, llama, check=True).stdout)
    component, = described["components"]
    merged, = json.loads(run("ls", "--json", llama, check=True).stdout)["components"]
    assert component["view"] is None and component["state"] == "ok"
    assert component["tensor_count"] == merged["tensor_count"]
    assert component["bytes"] == sum(path.stat().st_size for path in files)
    assert [shard["file"] for shard in component["shards"]] == [path.name for path in files]
    assert described["files"] == sum(path.is_file() for path in llama.iterdir())
    text = run("ls", "-o", SHARDS, "--tensors", llama, check=True).stdout
    assert all(path.name in text for path in files) and "model.embed_tokens.weight" in text
    with mounted(llama, SHARDS) as mount:
        assert run("wait", mount.path).returncode == 0
        text = run("status", mount.path, check=True).stdout
        assert all(path.stem in text for path in files)
        assert mount.status()["components"][0]["view"] is None


def test_pickles_that_may_be_weights(tmp_path):
    """Which files are weights is all that pickle= has to say."""
    pickle_of_anything(tmp_path / "source")
    named = {"asis": ["pytorch_model.bin"], "auto": ["pytorch_model.bin"],
             "safetensors": ["consolidated.00.pth", "pytorch_model.bin"]}
    for pickle, expected in named.items():
        with mounted(tmp_path / "source", SHARDS, f"pickle={pickle}") as mount:
            assert sorted(shards_of(mount)) == expected
            assert_untouched(mount, tmp_path / "source")


def test_other_options_cannot_contradict(llama, tmp_path):
    for option in ("split=vae.", "index=hide"):
        done = run("mount", "-o", f"{SHARDS},{option}", llama, tmp_path)
        assert done.returncode == 2 and "layout=shards shows what is on disk" in done.stderr


def test_gguf_reader(tmp_path):
    gguf_splits(tmp_path / "source")
    with mounted(tmp_path / "source", SHARDS) as mount:
        for path in (tmp_path / "source").glob("*.gguf"):
            found = gguf.GGUFReader(mount / path.name)
            expected = gguf.GGUFReader(path)
            assert [tensor.name for tensor in found.tensors] == \
                [tensor.name for tensor in expected.tensors]
            del found
