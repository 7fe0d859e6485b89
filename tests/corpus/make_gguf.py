#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the small files of tests/corpus/gguf.

Each file breaks (reject-*) or touches (accept-*) one rule. The files are committed too: the tests
and the fuzzer read those, this script only says how they came about. What they must lead to stands
in tests/unit/test_gguf.c.
"""
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)


def string(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, raw):
    return string(key) + struct.pack("<I", kind) + raw


def u32(value):
    return struct.pack("<I", value)


def array(kind, count, raw):
    return struct.pack("<IQ", kind, count) + raw


def info(name, dims, kind, offset, rank=None):
    raw = string(name) + u32(len(dims) if rank is None else rank)
    for dim in dims:
        raw += struct.pack("<Q", dim % (1 << 64))
    return raw + struct.pack("<IQ", kind % (1 << 32), offset % (1 << 64))


def build(pairs=(), infos=(), data=0, version=3, counts=None, alignment=32, magic=b"GGUF"):
    tensors, keys = counts or (len(infos), len(pairs))
    head = magic + struct.pack("<IQQ", version, tensors % (1 << 64), keys % (1 << 64))
    head += b"".join(pairs) + b"".join(infos)
    if infos:
        head += bytes(-len(head) % alignment)
    return head + bytes(data)


def one(dims=(1,), kind=0, offset=0, name="a", data=32, **more):
    return build(infos=[info(name, dims, kind, offset, **more)], data=data)


def aligned(raw, kind=U32, alignment=32):
    return build([pair("general.alignment", kind, raw)], [info("a", (1,), 0, 0)], 1024,
                 alignment=alignment)


def starts():
    yield "reject-empty", b""
    yield "reject-magic", build(magic=b"GGML")
    yield "reject-cut-in-magic", b"GGU"
    yield "reject-cut-in-counts", build()[:20]
    yield "reject-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
    yield "reject-web-page", b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n"
    yield "reject-text", b"404: Not Found"
    for version in (0, 1, 4, 0x03000000, 0xffffffff):
        yield f"reject-version-{version:x}", build(version=version)
    for word, count in (("2-63", 1 << 63), ("minus-1", -1), ("2-62", 1 << 62), ("above-file", 9)):
        yield "reject-tensor-count-" + word, build(counts=(count, 0))
        yield "reject-key-count-" + word, build(counts=(0, count))
    yield "accept-empty", build()
    yield "accept-version-2", build(version=2)
    yield "accept-data-without-tensors", build(data=5)


def keys():
    word = struct.pack("<Q", 1 << 63)
    yield "reject-key-length-2-63", build([word + bytes(20)])
    yield "reject-key-length-above-file", build([struct.pack("<Q", 1000) + bytes(20)])
    yield "reject-key-empty", build([pair("", U64, bytes(8))])
    yield "reject-key-twice", build([pair("k", U8, b"1"), pair("k", U8, b"1")])
    yield "reject-key-nul", build([pair("k\0k", U8, b"1")])
    yield "reject-key-not-utf8", build([pair(b"k\xff", U8, b"1")])
    yield "reject-value-type-13", build([pair("key-key", 13, bytes(8))])
    yield "reject-value-type-minus-1", build([pair("key-key", 0xffffffff, bytes(8))])
    yield "reject-value-cut", build([pair("key-key", U64, bytes(4))])
    yield "reject-string-length-2-63", build([pair("key", STRING, word)])
    yield "reject-string-above-1-gib", build([pair("key", STRING, struct.pack("<Q", (1 << 30) + 1))])
    yield "reject-string-cut", build([pair("key", STRING, string("abcdef")[:-1])])
    yield "reject-array-of-arrays", build([pair("key", ARRAY, array(ARRAY, 1, array(U8, 1, b"1")))])
    yield "reject-array-count-2-61", build([pair("key", ARRAY, array(U64, 1 << 61, bytes(8)))])
    yield "reject-array-count-above-2-30", build([pair("key", ARRAY, array(U8, (1 << 30) + 1, b"1"))])
    yield "reject-array-cut", build([pair("key", ARRAY, array(U32, 3, bytes(11)))])
    yield "reject-array-strings-cut", build([pair("key", ARRAY, array(STRING, 2, string("a") + bytes(7)))])
    yield "reject-array-type-unknown", build([pair("key", ARRAY, array(99, 1, bytes(8)))])
    scalars = b"".join(pair(f"k{kind}", kind, bytes(size)) for kind, size in
                       ((U8, 1), (I8, 1), (U16, 2), (I16, 2), (U32, 4), (I32, 4), (F32, 4), (U64, 8),
                        (I64, 8), (F64, 8)))
    yield "accept-every-scalar", build([scalars, pair("b", BOOL, b"\x07"), pair("s", STRING, string("x"))],
                                       counts=(0, 12))
    yield "accept-arrays", build([pair("e", ARRAY, array(STRING, 0, b"")),
                                  pair("s", ARRAY, array(STRING, 2, string("a\0b") + string(b"\xff"))),
                                  pair("u", ARRAY, array(U16, 3, bytes(6)))])
    yield "accept-string-not-utf8", build([pair("key", STRING, string(b"\xff\0"))])


def alignments():
    for value in (0, 3, 48, 1 << 31, 1 << 21):
        yield f"reject-alignment-{value}", aligned(u32(value))
    yield "reject-alignment-string", aligned(string("32"), STRING)
    yield "reject-alignment-u64", aligned(struct.pack("<Q", 32), U64)
    yield "reject-alignment-array", aligned(array(U32, 1, u32(32)), ARRAY)
    yield "accept-alignment-64", aligned(u32(64), alignment=64)
    yield "accept-alignment-1", aligned(u32(1), alignment=1)


def shapes():
    for number in (4, 31, 38, 43, 99, -1):
        yield f"reject-type-{number % (1 << 32)}", one(kind=number)
    yield "reject-dimension-negative", one((4, -1))
    yield "reject-dimensions-overflow", one((1 << 32, 1 << 32))
    yield "reject-dimensions-overflow-then-zero", one((1 << 62, 4, 0))
    yield "reject-bytes-overflow", one((1 << 62,), 28)
    yield "reject-row-no-whole-block", one((31, 32), 2)
    yield "reject-five-dimensions", one((1, 1, 1, 1, 1))
    yield "reject-rank-2-32-minus-1", one((1,), rank=0xffffffff)
    yield "accept-no-dimensions", one(())
    yield "accept-dimension-zero", one((0, 3), data=0)
    yield "accept-four-dimensions", one((2, 2, 2, 2), data=64)
    yield "accept-blocks", one((256, 3), 12, data=432)
    yield "accept-newest-type", one((64,), 42)


def layouts():
    a, b = info("a", (3,), 0, 0), info("b", (1,), 0, 32)
    yield "reject-offset-hole", build(infos=[a, info("b", (1,), 0, 64)], data=96)
    yield "reject-offset-overlap", build(infos=[a, info("b", (1,), 0, 0)], data=64)
    yield "reject-offset-unaligned", build(infos=[a, info("b", (1,), 0, 12)], data=64)
    yield "reject-offset-past-end", one(offset=1 << 40)
    yield "reject-offset-minus-1", one(offset=-1)
    yield "reject-other-order", build(infos=[b, a], data=64)
    yield "reject-sizes-overflow", build(infos=[
        info("a", ((1 << 60) - 1,), 28, 0), info("b", (1 << 60,), 28, (1 << 63) - 8)], data=32)
    yield "reject-tensor-twice", build(infos=[a, info("a", (1,), 0, 32)], data=64)
    yield "reject-name-64-bytes", one(name="n" * 64)
    yield "reject-name-nul", one(name="a\0b")
    yield "reject-name-not-utf8", one(name=b"\xed\xa0\x80")
    yield "reject-cut-in-info", one()[:50]
    yield "reject-truncated-data", build(infos=[a, b], data=35)
    yield "reject-truncated-padding", one()[:58]
    yield "accept-two-tensors", build(infos=[a, b], data=64)
    yield "accept-no-padding-at-end", build(infos=[a, b], data=36)
    yield "accept-more-than-needed", build(infos=[a, b], data=100)
    keys = [pair("split.no", U16, bytes(2)), pair("split.count", U16, b"\1\0"),
            pair("split.tensors.count", I32, u32(2)), pair("b", BOOL, b"\7"),
            pair("s", ARRAY, array(STRING, 2, string("a\0b") + string("c")))]
    yield "accept-only-split", build(keys, [a, b], 64)
    yield "accept-name-63-bytes", one(name="n" * 63)
    yield "accept-name-empty", one(name="")
    yield "accept-name-utf8", one(name="\u00fc\u20ac\U0001f600")


def main():
    target = HERE / "gguf"
    target.mkdir(exist_ok=True)
    for part in (starts, keys, alignments, shapes, layouts):
        for name, content in part():
            (target / (name + ".gguf")).write_bytes(content)


if __name__ == "__main__":
    main()
