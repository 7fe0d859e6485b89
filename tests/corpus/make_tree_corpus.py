#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/corpus/tree: directory trees as text, see tests/support/tree_input.h; and seeds for
tests/fuzz/fuzz_planner.c. (Those of fuzz_status_text are what mounts wrote, cut to size.)

accept-*: every component can be laid out. asis-*: all is shown as it is on disk. reject-*: a
component fails, and says why. refuse-*: the directory shows no component at all. The files are
committed too; tests/unit/test_tree.c and the fuzzer read those.
"""
import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


def header(**tensors):
    """Tensors of bytes, one after the other: NAME=SIZE or NAME=(DTYPE, SIZE)."""
    content, at = {}, 0
    for name, what in tensors.items():
        dtype, size = what if isinstance(what, tuple) else ("U8", what)
        width = {"U8": 1, "F16": 2, "F32": 4}[dtype]
        content[name] = {"dtype": dtype, "shape": [size // width], "data_offsets": [at, at + size]}
        at += size
    return content, at


def shard(path, metadata=None, **tensors):
    content, size = header(**tensors)
    if metadata is not None:
        content["__metadata__"] = metadata
    return f"s {path} {size} {json.dumps(content, separators=(',', ':'))}\n"


def index(path=INDEX, **files):
    return f"f {path} " + json.dumps({"metadata": {"total_size": 12}, "weight_map": files}) + "\n"


PAIR = shard(ONE, a=5, b=3) + shard(TWO, c=4)
MAP = {"a": ONE, "b": ONE, "c": TWO}


def good():
    yield "two-shards", PAIR
    yield "two-shards-and-index", PAIR + index(**MAP)
    yield "index-names-the-other-shard", PAIR + index(a=TWO, b=ONE, c=TWO)
    yield "index-tensor-nowhere", PAIR + index(**MAP, ghost=TWO)
    yield "same-tensor-twice-and-index", (shard(ONE, a=4, b=3) + shard(TWO, a=4, c=2) +
                                          index(a=ONE, b=ONE, c=TWO))
    yield "same-tensor-thrice-and-index", "".join(
        shard(f"model-0000{number}-of-00003.safetensors", a=4, **{f"t{number}": 1})
        for number in (1, 2, 3)) + index(**{"a": "model-00003-of-00003.safetensors"}, **{
            f"t{number}": f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)})
    yield "one-file", shard("model.safetensors", a=4)
    yield "mixed-dtypes-at-odd-places", (shard(ONE, a=3, b=("F32", 8)) + shard(TWO, c=("F16", 6)))
    yield "no-tensors", "s model.safetensors 0 {}\n"
    yield "metadata-differs", shard(ONE, {"format": "pt"}, a=1) + shard(TWO, {"format": "np"}, b=1)
    yield "metadata-in-one", shard(ONE, {"format": "pt"}, a=1) + shard(TWO, b=1)
    yield "pipeline", ('f model_index.json {"_class_name":"X","transformer":["a","B"]}\n' +
                       shard("transformer/model.safetensors", a=4))
    for word, name in {"parent": "..", "slash": "a/b", "number": 3}.items():
        content = {"_class_name": "X", "unet": ["a", "B"], str(name): name}
        yield f"model-index-name-{word}", (f"f model_index.json {json.dumps(content)}\n" +
                                           shard("unet/model.safetensors", a=4))
    yield "model-index-not-json", "f model_index.json [[[\n" + shard("model.safetensors", a=4)
    yield "links-inside", (shard("real/x.safetensors", a=4) +
                           "l model.safetensors real/x.safetensors\n")
    yield "hub-cache", (shard("models--a--b/blobs/" + "0" * 64, a=4) +
                        "l models--a--b/snapshots/c/model.safetensors ../../blobs/" + "0" * 64 +
                        "\n. models--a--b/snapshots/c\n")
    yield "checksums-above", ("".join(shard(f"a/unet/{name}", **tensors) for name, tensors in
                                      {ONE: {"a": 5}, TWO: {"c": 4}}.items()) +
                              f"f SHA256SUMS {'1' * 64}  a/unet/{ONE}\n" +
                              f"f a/SHA256SUMS {'2' * 64}  unet/{TWO}\n" +
                              f"f a/unet/{TWO}.sha256 {'2' * 64}\n" +
                              "f a/other.sha256 " + "3" * 64 + "  other/model.safetensors\n")
    yield "pipeline-below", ('f a/model_index.json {"_class_name":"X","vae":["a","B"],'
                             '"transformer":["a","B"]}\n' +
                             shard("a/transformer/model.safetensors", a=4) +
                             shard("a/vae/model.safetensors", a=4))
    yield "index-of-files-below", (shard("a/part/one.safetensors", a=5, b=3) +
                                   shard("a/part/two.safetensors", c=4) +
                                   index("a/" + INDEX, a="part/one.safetensors",
                                         b="part/one.safetensors", c="part/two.safetensors") +
                                   f"f a/SHA256SUMS {'4' * 64}  part/one.safetensors\n" +
                                   f"f a/part/SHA256SUMS {'5' * 64}  two.safetensors\n")
    yield "file-called-unshard", PAIR + "f .unshard hello\n"
    yield "directory-called-unshard", PAIR + "f .unshard/status hello\n"
    yield "loop-beside", PAIR + "l loop loop\n"
    yield "link-to-its-own-directory", PAIR + "l all .\n"
    yield "fifo-beside", PAIR + "p pipe\n"
    yield "deep", "d " + "/".join("d" * 60) + "\n" + PAIR
    yield "checksums-of-hostile-names", PAIR + ("f SHA256SUMS " + "0" * 64 + "  ../../etc/passwd\n")
    yield "manifest-not-json", PAIR + "f unshard-manifest.json {\n"


def contradictory():
    """Loaders differ on which files they take, so all is shown as it is."""
    single = shard("model.safetensors", a=5, b=3, c=4)
    yield "single-and-shards", PAIR + shard("model.safetensors", z=4)
    yield "single-and-index", PAIR + index(**MAP) + single
    yield "single-and-cut-set", shard(ONE, a=5) + index(**MAP) + single
    yield "single-and-index-of-what-is-gone", index(**MAP) + single
    yield "single-and-broken-index", PAIR + f"f {INDEX} {{\n" + single
    yield "single-is-named-with-others", PAIR + single + index(a=ONE, b=ONE, c="model.safetensors")
    yield "single-and-index-of-files-below", (
        single + shard("a/part.safetensors", a=5, b=3) + shard("b/part.safetensors", c=4) +
        index(a="a/part.safetensors", b="a/part.safetensors", c="b/part.safetensors"))
    yield "index-of-variant-never-fetched", single + index(
        "model.safetensors.index.fp16.json", a="model.fp16-00001-of-00002.safetensors")
    yield "index-never-fetched-beside-a-variant", (index(**MAP) +
                                                   shard("model.fp16.safetensors", a=4))
    yield "index-of-other-tensors", PAIR + index(x=ONE, y=TWO)
    yield "two-indexes-of-one-shard", PAIR + index(**MAP) + index(
        "model.safetensors.index.fp16.json", **MAP)
    yield "same-tensor-twice", shard(ONE, a=4) + shard(TWO, a=4)
    yield "same-tensor-other-shape", shard(ONE, a=4) + shard(TWO, a=8)
    yield "same-tensor-twice-not-in-index", (shard(ONE, a=4, b=1) + shard(TWO, b=1, c=2) +
                                             index(a=ONE, c=TWO))
    yield "no-index-and-a-pickle", PAIR + "f pytorch_model.bin what it holds does not matter\n"
    yield "several-totals", PAIR + shard("model-00001-of-00003.safetensors", a=5)
    yield "number-zero", shard("model-00000-of-00002.safetensors", a=5) + shard(ONE, b=3)
    yield "number-above-total", shard("model-00003-of-00002.safetensors", a=5) + shard(ONE, b=3)
    yield "training-steps", "".join(
        shard(f"lora-{step:05}-of-00010.safetensors", w=3, v=2) for step in (2, 4, 10))
    yield "training-step-alone", shard("lora-00004-of-00010.safetensors", a=4)
    yield "several-totals-and-a-link-to-nowhere", (
        PAIR + "l model-00001-of-00003.safetensors nowhere\n")
    yield "single-and-an-index-in-two-spellings", "".join(
        shard(f"model.fp16{part}.safetensors", **tensors)
        for part, tensors in {"": {"a": 5}, "-00001-of-00001": {"a": 4}}.items()) + "".join(
            index(f"model.safetensors.{words}.json", a="model.fp16-00001-of-00001.safetensors")
            for words in ("index.fp16", "fp16.index"))
    yield "merged-name-is-a-directory", PAIR + "d model.safetensors\n"


def bad_names():
    for word, name in {"parent": "../../etc/passwd", "absolute": "/etc/passwd", "drive": "C:\\x",
                       "backslash": "a\\..\\b", "dots": "..", "dot": ".", "empty": "",
                       "dot-inside": "a/./b", "nul": "a\0b", "newline": "a\nb",
                       "long": "x" * 300 + ".safetensors", "index-itself": INDEX,
                       "directory": "folder", "merged-name": "model.safetensors"}.items():
        extra = "d folder\n" if word == "directory" else ""
        yield f"index-names-{word}", PAIR + extra + index(a=ONE, b=ONE, c=name)


def bad():
    yield from bad_names()
    yield "index-not-json", PAIR + f"f {INDEX} {{\n"
    yield "index-no-weight-map", PAIR + f'f {INDEX} {{"metadata":{{}}}}\n'
    yield "shard-missing", shard(ONE, a=1)
    yield "shard-missing-of-any-name", "".join(
        shard(f"high_noise-0000{number}-of-00003.safetensors", **{f"t{number}": 4})
        for number in (1, 3))
    yield "number-missing", (shard("model-00001-of-00003.safetensors", a=1) +
                             shard("model-00003-of-00003.safetensors", b=1))
    yield "number-missing-of-large-shards", "".join(
        shard(f"model-0000{number}-of-00004.safetensors", **{f"t{number}": 65000})
        for number in (1, 2, 4))
    yield "shard-empty", shard(ONE, a=1) + f"f {TWO} \n"
    yield "shard-is-lfs-pointer", shard(ONE, a=1) + (f"f {TWO} version https://git-lfs.github.com"
                                                     "/spec/v1 oid sha256:00 size 1\n")
    yield "shard-cut-in-a-directory-below", (
        f's a/part/one.safetensors 2 {json.dumps(header(a=4)[0])}\n' +
        shard("a/part/two.safetensors", b=4) +
        index("a/" + INDEX, a="part/one.safetensors", b="part/two.safetensors"))
    yield "index-names-no-weights-below-and-a-list-does", (
        shard("a/part/one.safetensors", a=5) + shard("a/part/two.safetensors", c=4) +
        index("a/" + INDEX, a="part/one.safetensors", b="part/two.txt") +
        f"f a/SHA256SUMS {'4' * 64}  part/one.safetensors\n" +
        f"f a/part/SHA256SUMS {'5' * 64}  two.safetensors\n")
    yield "shard-cut", shard(ONE, a=1) + f's {TWO} 2 {json.dumps(header(b=4)[0])}\n'
    yield "shard-too-long", shard(ONE, a=1) + f's {TWO} 9 {json.dumps(header(b=4)[0])}\n'
    yield "shard-is-directory", shard(ONE, a=1) + f"d {TWO}\n"
    yield "shard-is-fifo", shard(ONE, a=1) + f"p {TWO}\n"
    yield "shard-is-loop", shard(ONE, a=1) + f"l {TWO} {TWO}\n"
    yield "shard-dangles", shard(ONE, a=1) + f"l {TWO} nowhere\n"
    yield "shard-is-dev-zero", shard(ONE, a=1) + f"l {TWO} /dev/zero\n"
    yield "shard-is-outside", shard(ONE, a=1) + f"l {TWO} /etc/passwd\n"
    yield "shard-is-above", (shard("in/" + ONE, a=1) + shard("secret.safetensors", b=1) +
                             f"l in/{TWO} ../secret.safetensors\n. in\n")
    yield "blob-of-another-repository", (
        shard("models--x--y/blobs/1", b=1) + shard("models--a--b/snapshots/c/" + ONE, a=1) +
        f"l models--a--b/snapshots/c/{TWO} ../../../models--x--y/blobs/1\n"
        ". models--a--b/snapshots/c\n")
    yield "header-of-brackets", shard(ONE, a=1) + f"s {TWO} 0 " + "[" * 5000 + "\n"


def none():
    yield "empty", "d nothing\n"
    yield "index-alone", index(**MAP)
    yield "only-links-out", "l model.safetensors /etc/passwd\nl folder /etc\n"
    yield "component-directory-is-outside", ('f model_index.json {"_class_name":"X",'
                                             '"unet":["a","B"]}\nl unet /etc\n')
    yield "only-loops", "l a b\nl b a\n"
    yield "distributed-metadata-is-directory", "f __0_0.distcp hello\nd .metadata\n"


def planner():
    def tensor(name, dtype, elements, place):
        return bytes([name, dtype, elements, place])

    yield "accept-empty", bytes([2])
    yield "accept-one-set", bytes([0]) + tensor(97, 0, 4, 0) + tensor(98, 1, 3, 0)
    yield "accept-two-sets-canonical", (bytes([0x81]) + tensor(97, 0, 4, 0) +
                                        tensor(98, 5, 3, 8) + tensor(99, 2, 0, 16))
    yield "accept-odd-sizes", bytes([3]) + b"".join(
        tensor(97 + i, i, (i * 7 + 1) % 250, (i * 8) % 256) for i in range(20))
    yield "reject-same-name", bytes([1]) + tensor(97, 0, 4, 0) + tensor(97, 0, 4, 8)


def main():
    for name, data in planner():
        (HERE / "planner" / name).write_bytes(data)
    folder = HERE / "tree"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for prefix, cases in (("accept", good()), ("asis", contradictory()), ("reject", bad()),
                          ("refuse", none())):
        for name, text in cases:
            (folder / f"{prefix}-{name}").write_text(text)


if __name__ == "__main__":
    main()
