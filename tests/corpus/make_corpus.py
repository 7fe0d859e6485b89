#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the small files of tests/corpus/safetensors and tests/corpus/index_file.

Each file breaks (reject-*) or touches (accept-*) one rule. The files are committed too: the tests
and the fuzzers read those, this script only says how they came about. What they must lead to stands
in tests/unit/test_safetensors.c and tests/unit/test_index_file.c.
"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent


def tensor(name, dtype="F32", shape="[1]", offsets="[0,4]"):
    return '"%s":{"dtype":"%s","shape":%s,"data_offsets":%s}' % (name, dtype, shape, offsets)


def one(**fields):
    return "{" + tensor("a", **fields) + "}"


def header(text, data=0, length=None):
    raw = text if isinstance(text, bytes) else text.encode()
    n = len(raw) if length is None else length
    return struct.pack("<Q", n) + raw + bytes(data)


def raw_name(name):
    return header(b'{"' + name + b'":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1)


def numbers():
    for word, text in {"negative": "-1", "fraction": "1.0", "exponent": "1e2", "leading-zero": "01",
                       "above-u64": "18446744073709551616", "string": '"0"', "boolean": "true",
                       "null": "null"}.items():
        yield "reject-shape-number-" + word, header(one(shape="[%s]" % text), 4)
        yield "reject-offset-number-" + word, header(one(offsets="[0,%s]" % text), 4)


WEB_PAGE = (b"<!DOCTYPE html>\n<html lang=en>\n<head><meta charset=utf-8>\n"
            b"<title>Access to this model is restricted</title></head></html>\n")


def safetensors():
    good = one()
    a, b = tensor("a"), tensor("b", offsets="[4,8]")
    yield "reject-empty", b""
    yield "reject-seven-bytes", bytes(7)
    yield "reject-length-zero", header("")
    yield "reject-length-one", header("{")
    yield "reject-length-above-limit", header(good, 4, 100000001)
    yield "reject-length-2-63", header(good, 4, 1 << 63)
    yield "reject-length-2-64-minus-1", header(good, 4, (1 << 64) - 1)
    yield "reject-length-2-64-minus-8", header(good, 4, (1 << 64) - 8)
    yield "reject-length-one-too-many", header(good, 0, len(good) + 1)
    yield "reject-cut-in-header", header(good, 4)[:30]
    yield "reject-length-one-less", header(good, 4, len(good) - 1)
    yield "reject-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
    yield "reject-web-page", WEB_PAGE
    yield "reject-web-page-behind-space", b"\xef\xbb\xbf\r\n " + WEB_PAGE.lower()
    yield "reject-server-answer", b'{"error": "Repository not found"}'
    yield "reject-server-answer-xml", (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code>'
                                       b"</Error>")
    yield "reject-text", b"404: Not Found"
    yield "reject-text-short", b"Gone\n"
    yield "reject-zip", b"PK\3\4" + bytes(40)
    yield "reject-gguf", b"GGUF\3\0\0\0" + b"\xff" * 8
    yield "reject-utf8-lone-byte", raw_name(b"\xff")
    yield "reject-utf8-overlong", raw_name(b"\xc0\xaf")
    yield "reject-utf8-surrogate", raw_name(b"\xed\xa0\x80")
    yield "reject-utf8-cut", raw_name(b"\xe2\x82")
    yield "reject-utf8-above-10ffff", raw_name(b"\xf4\x90\x80\x80")
    yield "reject-bom", header(b"\xef\xbb\xbf" + good.encode(), 4)
    yield "reject-trailing-nul", header(good + "\0", 4)
    yield "reject-trailing-brace", header(good + "}", 4)
    yield "reject-two-objects", header(good + "{}", 4)
    yield "reject-trailing-comma", header(good[:-1] + ",}", 4)
    yield "reject-comment", header("/**/" + good, 4)
    yield "reject-only-spaces", header(" " * 8)
    yield "reject-top-level-array", header("[]")
    yield "reject-nested-200", header('{"a":{"x":' + "[" * 200 + "]" * 200 + "}}")
    yield "reject-duplicate-tensor", header("{" + a + "," + a + "}", 4)
    yield "reject-duplicate-tensor-escaped", header(
        "{" + a + "," + tensor("\\u0061", offsets="[4,8]") + "}", 8)
    yield "reject-duplicate-dtype", header(good.replace('"shape"', '"dtype":"F32","shape"'), 4)
    yield "reject-metadata-twice", header('{"__metadata__":{},"__metadata__":{}}')
    yield "reject-metadata-null-then-object", header('{"__metadata__":null,"__metadata__":{}}')
    yield "reject-metadata-array", header('{"__metadata__":[]}')
    yield "reject-metadata-nested", header('{"__metadata__":{"a":{}}}')
    yield "reject-metadata-number", header('{"__metadata__":{"a":1}}')
    yield "reject-tensor-array-form", header('{"a":["F32",[1],[0,4]]}', 4)
    yield "reject-dtype-object-form", header('{"a":{"dtype":{"F32":null},"shape":[1],"data_offsets":[0,4]}}', 4)
    yield "reject-missing-dtype", header('{"a":{"shape":[1],"data_offsets":[0,4]}}', 4)
    yield "reject-missing-shape", header('{"a":{"dtype":"F32","data_offsets":[0,4]}}', 4)
    yield "reject-missing-offsets", header('{"a":{"dtype":"F32","shape":[1]}}', 4)
    yield "reject-one-offset", header(one(offsets="[0]"), 4)
    yield "reject-three-offsets", header(one(offsets="[0,4,8]"), 4)
    yield "reject-hole", header("{" + a + "," + tensor("b", offsets="[8,12]") + "}", 12)
    yield "reject-overlap", header("{" + tensor("a", shape="[2]", offsets="[0,8]") + ","
                                   + tensor("b", shape="[2]", offsets="[4,12]") + "}", 12)
    yield "reject-identical-ranges", header("{" + a + "," + tensor("b") + "}", 4)
    yield "reject-first-not-at-zero", header(one(offsets="[4,8]"), 8)
    yield "reject-end-before-begin", header("{" + a + "," + tensor("b", offsets="[4,0]") + "}", 4)
    yield "reject-begin-2-63", header(one(offsets="[9223372036854775808,4]"), 4)
    yield "reject-end-2-64-minus-1", header(one(offsets="[0,18446744073709551615]"), 4)
    yield "reject-empty-tensor-misplaced", header(
        "{" + a + "," + tensor("e", shape="[0]", offsets="[5,5]") + "}", 4)
    yield "reject-size-mismatch", header(one(shape="[2]"), 4)
    yield "reject-shape-overflow", header(one(shape="[4294967296,4294967296]"), 4)
    yield "reject-shape-overflow-then-zero", header(
        one(shape="[4611686018427387904,4,0]", offsets="[0,0]"))
    yield "reject-bits-overflow", header(one(dtype="U64", shape="[1152921504606846976]"), 4)
    yield "reject-f4-half-byte", header(one(dtype="F4", shape="[3]", offsets="[0,2]"), 2)
    yield "reject-trailing-byte", header(good, 5)
    yield "reject-missing-byte", header(good, 3)
    yield "reject-extended-by-page", header(good, 4100)
    yield "reject-trailing-byte-no-tensors", header("{}      ", 1)
    yield "reject-dtype-lower-case", header(one(dtype="f32"), 4)
    yield "reject-dtype-unknown", header(one(dtype="F128"), 4)
    yield "reject-dtype-empty", header(one(dtype=""), 4)
    yield "reject-escape-unknown", raw_name(b"\\x41")
    yield "reject-escape-cut", header('{"\\u00')
    yield "reject-escape-bad-hex", raw_name(b"\\u00g0")
    yield "reject-lone-high-surrogate", raw_name(b"\\ud800")
    yield "reject-lone-low-surrogate", raw_name(b"\\udc00")
    yield "reject-high-then-high-surrogate", raw_name(b"\\ud800\\ud800")
    yield "reject-raw-control-byte", raw_name(b"a\x01")
    yield "reject-raw-newline", raw_name(b"abcdefgh\n")
    yield from numbers()

    yield "accept-empty-object", header("{}      ")
    yield "accept-unpadded", header(good, 4)
    yield "accept-only-metadata", header('{"__metadata__":{"format":"pt"}}')
    yield "accept-metadata-null", header('{"__metadata__":null}')
    yield "accept-metadata-empty", header('{"__metadata__":{}}')
    yield "accept-metadata-last", header(good[:-1] + ',"__metadata__":{"k":"v"}}', 4)
    yield "accept-metadata-duplicate-key", header('{"__metadata__":{"k":"1","k":"2"}}')
    yield "accept-metadata-name-with-space", header("{" + tensor("__metadata__ ") + "}", 4)
    yield "accept-white-space-around", header(" \t\r\n" + good + " \n", 4)
    yield "accept-unknown-field", header(good.replace('"shape"', '"x":[{"y":-1.5e+3}],"shape"'), 4)
    yield "accept-key-order-is-not-data-order", header("{" + b + "," + a + "}", 8)
    yield "accept-empty-tensors", header("{" + tensor("e", shape="[0]", offsets="[0,0]") + "," + a + ","
                                         + tensor("f", shape="[3,0]", offsets="[4,4]") + "}", 4)
    yield "accept-zero-then-large", header(one(shape="[0,4611686018427387904]", offsets="[0,0]"))
    yield "accept-scalar", header(one(shape="[]"), 4)
    yield "accept-f4", header(one(dtype="F4", shape="[4]", offsets="[0,2]"), 2)
    yield "accept-odd-starts", header(
        "{" + tensor("a", dtype="U8", offsets="[0,1]") + "," + tensor("b", offsets="[1,5]") + "}", 5)
    yield "accept-name-empty", raw_name(b"")
    yield "accept-name-path", raw_name(b"../../etc/passwd")
    yield "accept-name-nul", raw_name(b"a\\u0000b")
    yield "accept-name-utf8", raw_name("\u00fc\u20ac\U0001f600".encode())
    yield "accept-name-surrogate-pair", raw_name(b"\\ud83d\\ude00")
    yield "accept-name-escapes", raw_name(b'\\"\\\\\\/\\b\\f\\n\\r\\t\\u007f')
    yield "accept-reference-vector", header(
        '{"__metadata__":{"format":"pt"},'
        '"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
        '"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},'
        '"c":{"dtype":"BF16","shape":[1,2],"data_offsets":[16,20]},'
        '"a":{"dtype":"U8","shape":[3],"data_offsets":[20,23]}}      '
    ) + bytes.fromhex("0700000000000000000000000000803f803f803f000000")
    yield "accept-reference-vector-empty", header(
        '{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}  ')


def index_files():
    def shard(name):
        return '{"weight_map":{"t":%s}}' % json.dumps(name)

    yield "reject-web-page", WEB_PAGE
    yield "reject-lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64
    for word, name in {"parent": "../../etc/passwd", "absolute": "/etc/passwd", "drive": "C:\\x",
                       "backslash-parent": "a\\..\\b", "dot-dot": "..", "dot": ".", "empty": "",
                       "dot-inside": "a/./b", "double-slash": "a//b", "trailing-slash": "a/",
                       "nul": "a\0b", "newline": "a\nb", "long-component": "x" * 300,
                       "index-itself": "model.safetensors.index.json"}.items():
        yield "reject-file-" + word, shard(name)
    yield "reject-weight-map-missing", '{"metadata":{}}'
    yield "reject-weight-map-null", '{"weight_map":null}'
    yield "reject-weight-map-list", '{"weight_map":[]}'
    yield "reject-weight-map-twice", '{"weight_map":{},"weight_map":{}}'
    yield "reject-value-number", '{"weight_map":{"t":1}}'
    yield "reject-tensor-twice", '{"weight_map":{"t":"a.safetensors","t":"b.safetensors"}}'
    yield "reject-metadata-list", '{"metadata":[],"weight_map":{}}'
    yield "reject-metadata-twice", '{"metadata":{},"metadata":{},"weight_map":{}}'
    yield "reject-trailing-text", '{"weight_map":{}}x'
    yield "reject-empty", ""
    yield "reject-array", "[]"
    yield "reject-nan", '{"metadata":{"x":NaN},"weight_map":{}}'
    yield "accept-minimal", '{"weight_map":{}}'
    yield "accept-total-size-odd", '{"metadata":{"total_size":1' + "0" * 30 + ',"x":-1},"weight_map":{"t":"a"}}'
    yield "accept-metadata-null", '{"metadata":null,"weight_map":{"t":"a.safetensors"}}'
    yield "accept-subdirectory", shard("sub/model-00001-of-00001.safetensors")
    yield "accept-differ-in-case", '{"weight_map":{"t":"a.safetensors","T":"A.safetensors"}}'
    yield "accept-usual", json.dumps({"metadata": {"total_size": 12}, "weight_map": {
        "b": "model-00001-of-00002.safetensors", "a": "model-00001-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors"}}, indent=2) + "\n"


def export_journals():
    def journal(*records, source="/models/x", end=b"\0"):
        return b"\0".join([f"unshard-export 1 {source}".encode(), *records]) + end

    done = b"d 17 1048576 1700000000000000000 1700000001000000000 1 18446744073709551615 "
    yield "accept-new", journal()
    yield "accept-usual", journal(b"t a/model.safetensors", b"b 17 1048576 1700000000000000000 "
                                  b"a/model.safetensors", done + b"a/model.safetensors")
    yield "accept-odd-names", journal(b"t  b", b"t a\nb", b"b 1 2 -3 \xff ", done + b" ")
    yield "accept-cut", journal(b"t a", b"b 1 2", end=b"")
    yield "accept-rubbish", journal(b"", b"x", b"t", b"t ", b"b 1 2 a", b"b x 2 3 a", b"b 1 2 3a",
                                    b"d 1 2 3 4 5 a", b"b 99999999999999999999 2 3 a",
                                    b"b 1 2 -9223372036854775808 a", b"b -1 2 3 a")
    yield "accept-unsafe-paths", journal(b"t ../a", b"t /etc/passwd", b"t a/../../b", b"t .",
                                         b"t a//b", b"t a/", b"b 1 2 3 ..")
    yield "reject-empty", b""
    yield "reject-other-file", b"[Desktop Entry]\n"
    yield "reject-version-2", b"unshard-export 2 /models/x\0"
    yield "reject-no-end", journal(end=b"")
    yield "reject-other-source", journal(source="/models/y")


def main():
    for folder, files, ending in (("safetensors", safetensors(), ".safetensors"),
                                  ("index_file", index_files(), ".json"),
                                  ("export_journal", export_journals(), "")):
        target = HERE / folder
        target.mkdir(exist_ok=True)
        for name, content in files:
            data = content if isinstance(content, bytes) else content.encode()
            (target / (name + ending)).write_bytes(data)


if __name__ == "__main__":
    main()
