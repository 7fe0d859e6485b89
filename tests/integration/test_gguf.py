# SPDX-License-Identifier: MIT
"""GGUF splits through a mount: one file, the one that llama-gguf-split --merge writes."""

import hashlib
import json
import os
import shutil
import subprocess

import gguf
import numpy
import pytest

import gguf_files
from gguf_files import ARRAY, BOOL, STRING, U32, pair
from harness import mounted, run

# What llama-gguf-split of llama.cpp build 11434 made of gguf_files.write_vector.
VECTOR_SHA256 = "35932568d40777063b4e46520e512140607a1f4107e116d6f4bc5180199fc627"
TOOL = os.environ.get("LLAMA_GGUF_SPLIT") or shutil.which("llama-gguf-split")


def names(mount):
    return sorted(path.name for path in mount.path.iterdir())


def export(source, target, *options):
    done = run("export", *options, source, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("split", [{"split_max_tensors": 5}, {"split_max_size": 6000},
                                   {"split_max_tensors": 1}])
def test_splits_of_the_gguf_package(tmp_path, split):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    [single] = gguf_files.write_model(whole)
    shards = gguf_files.write_model(parts, **split)
    assert len(shards) > 2
    fields, tensors = gguf_files.contents(single)
    with mounted(parts) as mount:
        assert names(mount) == ["model.gguf"]
        found_fields, found_tensors = gguf_files.contents(mount / "model.gguf")
        assert (mount / "model.gguf").read_bytes() == gguf_files.merge(shards)
    assert found_tensors == tensors
    assert found_fields.pop("split.tensors.count") == len(tensors)
    assert found_fields.pop("split.no") == 0 and found_fields.pop("split.count") == 0
    for name in ("GGUF.kv_count", "GGUF.tensor_count"):
        fields.pop(name, None), found_fields.pop(name, None)
    assert found_fields == fields


def test_vector_of_the_tool(tmp_path):
    paths = gguf_files.write_vector(tmp_path)
    assert hashlib.sha256(gguf_files.merge(paths)).hexdigest() == VECTOR_SHA256
    with mounted(tmp_path) as mount:
        data = (mount / "vector.gguf").read_bytes()
    assert hashlib.sha256(data).hexdigest() == VECTOR_SHA256


def random_splits(folder, seed):
    """Splits with odd sizes, empty values, NULs, gaps of any content, and one without tensors."""
    generator = numpy.random.default_rng(seed)
    count = int(generator.integers(2, 6))
    paths = gguf_files.split_names(folder, "random.v1.Q4_K_M", count)
    plain = [0, 1, 8, 2, 24, 27, 30]
    numbers = [int(generator.integers(0, 7)) for _ in range(count)]
    numbers[int(generator.integers(0, count))] = 0
    total = sum(numbers)
    for index, path in enumerate(paths):
        tensors = []
        for number in range(numbers[index]):
            kind = plain[int(generator.integers(0, len(plain)))]
            block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)][0]
            dims = [block * int(generator.integers(1, 9))]
            dims += [int(generator.integers(1, 4)) for _ in range(int(generator.integers(0, 4)))]
            dims = [] if block == 1 and generator.integers(0, 8) == 0 else dims
            size = gguf_files.tensor_bytes(dims, kind)
            tensors.append((f"t{index}.{number}", dims, kind, generator.bytes(size)))
        pairs = gguf_files.split_pairs(index, count, total)
        pairs.insert(int(generator.integers(0, 3)), pair("k.bools", ARRAY, [0, 1, 2, 255], of=BOOL))
        pairs.insert(0, pair("k.empty", ARRAY, [], of=STRING))
        pairs.append(pair("k.text", STRING, b"x\0y" if seed % 2 else "wörter"))
        path.write_bytes(gguf_files.build(pairs, tensors, version=2 + seed % 2,
                                          pad=generator.bytes(1), tail=bool(seed % 3)))
    return paths


@pytest.mark.parametrize("seed", range(8))
def test_byte_identical_to_a_merge_in_python(tmp_path, seed):
    paths = random_splits(tmp_path, seed)
    with mounted(tmp_path) as mount:
        found = (mount / "random.v1.Q4_K_M.gguf").read_bytes()
    assert found == gguf_files.merge(paths)


@pytest.mark.skipif(not TOOL, reason="no llama-gguf-split here: Debian 12 has no llama.cpp, and "
                    "wheels do not carry the tool; LLAMA_GGUF_SPLIT=PATH names one")
@pytest.mark.parametrize("seed", range(4))
def test_byte_identical_to_the_tool(tmp_path, seed):
    paths = random_splits(tmp_path, seed)
    merged = tmp_path / "merged"
    merged.mkdir()
    subprocess.run([TOOL, "--merge", paths[0], merged / "tool.gguf"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    target = export(tmp_path, tmp_path / "target")
    assert (target / "random.v1.Q4_K_M.gguf").read_bytes() == (merged / "tool.gguf").read_bytes()


def test_alignment_of_its_own(tmp_path):
    count, values = 2, numpy.arange(5, dtype=numpy.float32)
    paths = gguf_files.split_names(tmp_path, "m", count)
    for index, path in enumerate(paths):
        pairs = gguf_files.split_pairs(index, count, 4)
        pairs += [pair("general.alignment", U32, 128)] if index == 0 else []
        tensors = [(f"t{index}.{number}", [5], 0, (values + index).tobytes()) for number in range(2)]
        path.write_bytes(gguf_files.build(pairs, tensors, alignment=128 if index == 0 else 32))
    with mounted(tmp_path) as mount:
        reader = gguf.GGUFReader(mount / "m.gguf")
        assert reader.alignment == 128
        for tensor in reader.tensors:
            assert tensor.data_offset % 128 == 0
            assert numpy.array_equal(tensor.data, values + int(tensor.name[1]))
        notes = mount.component("m.gguf")["notes"]
        assert "general.alignment" in notes[0]
        del reader, tensor


def test_layout_both_and_single_files(tmp_path):
    shards = gguf_files.write_model(tmp_path, split_max_tensors=10)
    [single] = gguf_files.write_model(tmp_path, prefix="other")
    with mounted(tmp_path, "layout=both") as mount:
        for path in [*shards, single]:
            assert (mount / path.name).read_bytes() == path.read_bytes()
        assert (mount / "model.gguf").read_bytes() == gguf_files.merge(shards)
    with mounted(tmp_path) as mount:
        assert names(mount) == ["model.gguf", "other.gguf"]


def test_export(tmp_path):
    shards = gguf_files.write_model(tmp_path, split_max_tensors=10)
    target = export(tmp_path, tmp_path.parent / (tmp_path.name + "-target"))
    assert [path.name for path in target.iterdir()] == ["model.gguf"]
    assert (target / "model.gguf").read_bytes() == gguf_files.merge(shards)


def test_ls_shows_ggml_types(tmp_path):
    gguf_files.write_model(tmp_path, split_max_tensors=10)
    listed = json.loads(run("ls", "--json", "--tensors", tmp_path, check=True).stdout)
    [component] = listed["components"]
    assert component["format"] == "gguf" and component["view"] == "model.gguf"
    tensors = {tensor["name"]: tensor for tensor in component["tensors"]}
    assert {name: (one["dtype"], tuple(one["shape"]), one["bytes"])
            for name, one in tensors.items()} == tensors_by_package(tmp_path)
    text = run("ls", "--tensors", tmp_path, check=True).stdout
    assert "blk.6.weight  Q4_K [256, " in text


def tensors_by_package(folder):
    """Name: (type, shape, bytes) of all tensors of the splits in a folder."""
    return {tensor.name: (tensor.tensor_type.name, tuple(int(dim) for dim in tensor.shape),
                          int(tensor.n_bytes))
            for path in folder.glob("*.gguf") for tensor in gguf.GGUFReader(path).tensors}


def test_a_split_missing(tmp_path):
    shards = gguf_files.write_model(tmp_path, split_max_tensors=10)
    shards[1].unlink()
    done = run("ls", tmp_path)
    assert done.returncode == 3 and "shard 2 of 3 is missing" in done.stdout


def test_numbered_models_that_are_no_splits(tmp_path):
    """They are several models, as none of them says that it is a part of one."""
    for number in (1, 3):
        (tmp_path / f"step-0000{number}-of-00009.gguf").write_bytes(gguf_files.build(
            [pair("x", U32, number)], [("t", [1], 0, b"abcd")]))
    with mounted(tmp_path) as mount:
        assert names(mount) == sorted(path.name for path in tmp_path.iterdir())
        for path in tmp_path.iterdir():
            assert (mount / path.name).read_bytes() == path.read_bytes()
        assert mount.status()["errors"] == 0


def swap(a, b):
    kept = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(kept)


@pytest.mark.parametrize("damage, words", [
    (lambda a, b: swap(a, b), 'split 1: key "split.no" is 1, it should be 0'),
    (lambda a, b: a.write_bytes(gguf_files.build([pair("x", U32, 1)], [("t", [1], 0, b"abcd")])),
     'key "split.no" is missing'),
    (lambda a, b: b.write_bytes(b"GGUF\1" + bytes(40)), "version 1"),
    (lambda a, b: b.write_bytes(gguf_files.build(gguf_files.split_pairs(1, 2, 3), [
        ("b", [1], 0, b"abcd")])), 'tensor "b" is in both'),
])
def test_what_is_no_set_fails_alone(tmp_path, damage, words):
    first, second = gguf_files.write_vector(tmp_path)
    [other] = gguf_files.write_model(tmp_path, prefix="other")
    damage(first, second)
    with mounted(tmp_path) as mount:
        assert names(mount) == ["other.gguf", "vector.gguf"]
        with pytest.raises(OSError):
            (mount / "vector.gguf").read_bytes()
        assert (mount / "other.gguf").read_bytes() == other.read_bytes()
        failed = [one for one in mount.status()["components"] if one["state"] == "failed"]
        assert len(failed) == 1 and words in failed[0]["error"]["message"]


def test_malformed_single_file_is_named_and_shown(tmp_path):
    (tmp_path / "odd.gguf").write_bytes(b"GGUF\1\0\0\0" + bytes(100))
    with mounted(tmp_path) as mount:
        component = mount.component("odd.gguf")
        assert component["state"] == "failed" and "version 1" in component["error"]["message"]
        assert (mount / "odd.gguf").read_bytes() == (tmp_path / "odd.gguf").read_bytes()


def test_truncated_split_gives_what_is_there(tmp_path):
    [*_, last] = gguf_files.write_model(tmp_path, split_max_tensors=10)
    whole = gguf_files.merge(sorted(tmp_path.glob("*.gguf")))
    os.truncate(last, last.stat().st_size - 100)
    with mounted(tmp_path) as mount:
        component = mount.component("model.gguf")
        assert component["state"] == "failed" and component["error"]["code"] == "truncated"
        with open(mount / "model.gguf", "rb") as file:
            assert file.read(4096) == whole[:4096]
            file.seek(len(whole) - 64)
            with pytest.raises(OSError):
                file.read()
