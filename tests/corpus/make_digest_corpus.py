#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the small files of digests below tests/corpus: checksum_list, xxhsum_list, hub_metadata,
hub_tree, checksums_json, manifest and digest_cache_entry (without the digest at its end, see
fuzz_digest_cache_entry.c).

accept-* is used whole; partly-* has entries that are used and others that are reported; reject-* is
reported and not used at all. The files are committed too; tests/unit/test_digest_files.c and the
fuzzers read those.
"""
import json
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent
MD5 = "5d41402abc4b2a76b9719d911017c592"
SHA1 = "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d"
GIT = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0"
SHA256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
SHA512 = ("9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca7"
          "2323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043")
XXH32, XXH64, XXH3 = "fb0077f9", "26c7827d889f6da3", "9555e8555c62dcfd"
XXH128 = "b5e9c1ad071b3e7fc779cfaa5e523818"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def reverse(digits):
    return bytes.fromhex(digits)[::-1].hex()


def checksum_list():
    good = f"{SHA256}  a.safetensors\n"
    yield "accept-gnu", good + f"{SHA256.upper()} *b.safetensors\n"
    yield "accept-no-final-newline", good.rstrip("\n")
    yield "accept-crlf", good.replace("\n", "\r\n")
    yield "accept-comments-and-empty-lines", "# made by hand\n\n" + good + "\r\n#end\n"
    yield "accept-indented", " \t" + good
    yield "accept-tab-separator", f"{SHA256}\t a\n"
    yield "accept-reversed", f"{SHA256} a\n{SHA256} b c\n"
    yield "accept-reversed-one-letter", f"{SHA256} a\n"
    yield "accept-tagged", (f"MD5 (a) = {MD5}\nSHA1 (a) = {SHA1}\nSHA256 (a) = {SHA256}\n"
                            f"SHA512(a)= {SHA512}\nSHA256 (b (1).bin) \t=\t{SHA256}\n")
    yield "accept-all-lengths", f"{MD5}  a\n{SHA1}  a\n{SHA256}  a\n{SHA512}  a\n"
    yield "accept-escaped", f"\\{SHA256}  a\\nb\\\\c\\r\n\\SHA256 (x\\ny) = {SHA256}\n"
    yield "accept-backslash-unescaped", f"{SHA256}  a\\nb\n"
    yield "accept-dot-slash", f"{SHA256}  ./a\n{SHA256}  sub//./b\n"
    yield "accept-spaces-in-name", f"{SHA256}   a  \n"
    yield "accept-two-that-differ", good + "0" * 64 + "  a.safetensors\n"
    yield "accept-unsafe-names", (f"{SHA256}  ../x\n{SHA256}  /etc/passwd\n{SHA256}  a/../../x\n"
                                  f"{SHA256}  ..\n{SHA256}  .\n{SHA256}  a/\n{SHA256}  a/..\n")
    yield "accept-long-name", f"{SHA256}  {'x' * 5000}\n"
    yield "accept-unsupported-tag", good + f"SHA384 (a) = {'0' * 96}\nBLAKE2b (a) = {'0' * 128}\n"
    yield "accept-not-utf8", f"{SHA256}  caf".encode() + b"\xe9\n"
    yield "partly-mixed-forms", good + f"{SHA256} b\n"
    yield "partly-mixed-forms-reversed-first", f"{SHA256} b\n" + good
    yield "partly-bad-escape", good + f"\\{SHA256}  a\\xb\n"
    yield "partly-lone-backslash", good + f"\\{SHA256}  a\\\n"
    yield "partly-63-digits", good + f"{SHA256[1:]}  a\n"
    yield "partly-65-digits", good + f"{SHA256}0  a\n"
    yield "partly-not-hex", good + f"{SHA256[:-1]}g  a\n"
    yield "partly-no-name", good + f"{SHA256}  \n"
    yield "partly-nothing-behind-digest", good + f"{SHA256}\n"
    yield "partly-tag-without-equals", good + f"SHA256 (a) {SHA256}\n"
    yield "partly-tag-without-parenthesis", good + f"SHA256 (a = {SHA256}\n"
    yield "partly-tag-with-other-length", good + f"SHA256 (a) = {MD5}\n"
    yield "partly-unknown-tag", good + f"SHA999 (a) = {SHA256}\n"
    yield "partly-text", "These are the digests:\n" + good
    yield "partly-line-too-long", good + f"{SHA256}  {'x' * 40000}\n"
    yield "reject-empty", ""
    yield "reject-only-comments", "# nothing\n"
    yield "reject-html", "<!DOCTYPE html>\n<title>404</title>\n"
    yield "reject-nul", f"{SHA256}  a\0"
    yield "reject-nul-in-name", f"{SHA256}  a\0b\n"
    yield "reject-lfs-pointer", (f"version https://git-lfs.github.com/spec/v1\noid sha256:{SHA256}\n"
                                 "size 5\n")


def xxhsum_list():
    good = f"{XXH64}  a\n"
    yield "accept-gnu", f"{XXH32}  a\n{XXH64}  a\n{XXH128}  a\nXXH3_{XXH3}  a\n"
    yield "accept-bsd", (f"XXH32 (a) = {XXH32}\nXXH64 (a) = {XXH64}\nXXH128 (a) = {XXH128}\n"
                         f"XXH3 (a) = {XXH3}\n")
    yield "accept-little-endian", (f"XXH32_LE (a) = {reverse(XXH32)}\nXXH64_LE (a) = "
                                   f"{reverse(XXH64)}\nXXH128_LE (a) = {reverse(XXH128)}\n"
                                   f"XXH3_LE (a) = {reverse(XXH3)}\n")
    yield "accept-comments", "# xxhsum\n" + good
    yield "accept-upper-case", good.upper()
    yield "accept-other-separator", f"{XXH64} *a\n"
    yield "accept-crlf-names", good.replace("\n", "\r\n")
    yield "accept-parenthesis-in-name", f"XXH64 (b (1) = 2) = {XXH64}\n"
    yield "accept-escaped", f"\\{XXH64}  a\\nb\\\\\n\\XXH64 (a\\rb) = {XXH64}\n"
    yield "accept-stdin", f"{XXH64}  stdin\n"
    yield "accept-unsafe-names", f"{XXH64}  ../a\n{XXH64}  /a\n"
    yield "partly-33-digits", good + f"{XXH128}0  a\n"
    yield "partly-indented", good + " " + good
    yield "partly-prefix-with-32-digits", good + f"XXH3_{XXH128}  a\n"
    yield "partly-tag-with-other-length", good + f"XXH128 (a) = {XXH64}\n"
    yield "partly-unknown-tag", good + f"XXH256 (a) = {XXH64}\n"
    yield "partly-bsd-no-space-before-equals", good + f"XXH64 (a)= {XXH64}\n"
    yield "partly-bsd-no-name", good + f"XXH64 () = {XXH64}\nXXH64 ( = {XXH64}\nXXH64 (\n"
    yield "partly-no-name", good + f"{XXH64}\n{XXH64} \n{XXH64}  \n"
    yield "partly-bad-escape", good + f"\\{XXH64}  a\\tb\n\\\n"
    yield "partly-line-too-long", good + f"{XXH64}  {'x' * 32768}\n"
    yield "reject-empty", ""
    yield "reject-nul", f"{XXH64}  a\0\n"
    yield "reject-text", "no digests here\n"


def hub_metadata():
    def lines(commit=COMMIT, etag=SHA256, time="1718364512.1234567"):
        return f"{commit}\n{etag}\n{time}\n"
    yield "accept-sha256", lines()
    yield "accept-git", lines(etag=GIT)
    yield "accept-crlf", lines().replace("\n", "\r\n")
    yield "accept-no-final-newline", lines().rstrip("\n")
    yield "accept-spaces", lines().replace("\n", "  \n")
    yield "accept-whole-seconds", lines(time="1718364512")
    yield "accept-negative-time", lines(time="-1.5")
    yield "accept-more-lines", lines() + "more\n"
    yield "accept-commit-is-a-branch", lines(commit="main")
    yield "accept-etag-quoted", lines(etag=f'"{SHA256}"')
    yield "accept-etag-weak", lines(etag=f'W/"{SHA256}"')
    yield "accept-etag-upper-case", lines(etag=SHA256.upper())
    yield "accept-etag-multipart", lines(etag=MD5 + "-12")
    yield "accept-etag-64-not-hex", lines(etag="g" * 64)
    yield "accept-etag-4-kb", lines(etag="a" * 4096)
    yield "accept-long-fraction", lines(time="1." + "9" * 40)
    yield "reject-empty", ""
    yield "reject-one-line", COMMIT + "\n"
    yield "reject-two-lines", f"{COMMIT}\n{SHA256}\n"
    yield "reject-empty-etag", lines(etag="")
    for word in ("nan", "inf", "-inf", "1e999", "1e9", "1_000", "", "x", "-", ".", "0x10", "1.2.3"):
        yield "reject-time-" + (word or "empty"), lines(time=word)
    yield "reject-time-beyond-64-bits", lines(time="99999999999999999999")
    yield "reject-time-beyond-nanoseconds", lines(time="9223372037")
    yield "reject-too-long", lines() + "x" * 20000


def hub_tree():
    lfs = {"size": 5, "blob_id": GIT, "lfs_sha256": SHA256, "lfs_size": 5, "xet_hash": "00"}
    plain = {"size": 5, "blob_id": GIT}

    def tree(files, **more):
        return json.dumps({"format_version": 1, "files": files, **more}, indent=1)
    yield "accept-usual", tree({"a.safetensors": lfs, "config.json": plain})
    yield "accept-null-fields", tree({"a": {**lfs, "lfs_sha256": None, "lfs_size": None}})
    yield "accept-unknown-fields", tree({"a": {**plain, "new": [1]}}, more={})
    yield "accept-no-files", tree({})
    yield "accept-no-size", tree({"a": {"blob_id": GIT}})
    yield "accept-unsafe-names", tree({"../a": plain, "/etc/passwd": plain, "": plain,
                                       "a\0b": plain})
    yield "reject-version-2", tree({}).replace("1", "2")
    yield "reject-version-missing", '{"files": {}}'
    yield "reject-version-string", '{"format_version": "1", "files": {}}'
    yield "reject-files-missing", '{"format_version": 1}'
    yield "reject-files-list", '{"format_version": 1, "files": []}'
    yield "reject-files-twice", '{"format_version": 1, "files": {}, "files": {}}'
    yield "reject-file-twice", ('{"format_version": 1, "files": {"a": {"size": 1}, '
                                '"\\u0061": {"size": 2}}}')
    yield "reject-field-twice", ('{"format_version": 1, "files": {"a": {"lfs_sha256": "%s", '
                                 '"lfs_sha256": "%s"}}}' % (SHA256, "0" * 64))
    yield "reject-size-negative", tree({"a": {**plain, "size": -1}})
    yield "reject-size-fraction", tree({"a": {**plain, "size": 1.5}})
    yield "reject-size-above-u64", tree({"a": {**plain, "size": 1 << 64}})
    yield "reject-blob-id-short", tree({"a": {**plain, "blob_id": GIT[1:]}})
    yield "reject-sha256-number", tree({"a": {**lfs, "lfs_sha256": 7}})
    yield "reject-cut", tree({"a": lfs})[:60]
    yield "reject-empty", ""
    yield "reject-nested", '{"x": ' + "[" * 200 + "]" * 200 + "}"


def checksums_json():
    def table(**files):
        return json.dumps({"checksums": files})
    yield "accept-usual", json.dumps({"checksums": {"model-00001-of-00002.safetensors": SHA256,
                                                    "sub/b.safetensors": SHA256.upper()}})
    yield "accept-more-keys", json.dumps({"version": 1, "checksums": {"a": SHA256}, "x": [None]})
    yield "accept-empty-table", table()
    yield "accept-two-that-differ", '{"checksums": {"a": "%s", "a": "%s"}}' % (SHA256, "0" * 64)
    yield "accept-unsafe-names", '{"checksums": {"../a": "%s", "/a": "%s"}}' % (SHA256, SHA256)
    yield "reject-other-json", '{"a": 1}'
    yield "reject-not-hex", table(a="g" * 64)
    yield "reject-prefix", table(a="sha256:" + SHA256)
    yield "reject-number", table(a=1)
    yield "reject-list", '{"checksums": []}'
    yield "reject-twice", '{"checksums": {}, "checksums": {}}'
    yield "reject-array", "[]"
    yield "reject-cut", table(a=SHA256)[:-1]
    yield "reject-trailing", table(a=SHA256) + "x"
    yield "reject-empty", ""


def manifest():
    def whole(files, version=1, **more):
        return json.dumps({"version": version, "writer": "unshard 0.1.0", "chunk_bytes": 65536,
                           "files": files, **more})

    def file(path="a", size=5, chunks=1, **more):
        return {"path": path, "size": size, "sha256": SHA256, "chunks": [XXH128] * chunks, **more}

    def without(field):
        return {name: value for name, value in file().items() if name != field}
    yield "accept-usual", whole([file(), file("sub/b", 65536, 1), file("c", 65537, 2)])
    yield "accept-empty-file", whole([file("a", 0, 0)])
    yield "accept-no-files", whole([])
    yield "accept-utf8", json.dumps({"version": 1, "chunk_bytes": 65536, "files": [file("bl\u00f6ck")]},
                                    ensure_ascii=False)
    yield "accept-version-2", whole([file("a", chunks=0) | {"chunks": [SHA256]}], version=2)
    yield "reject-version-2-with-chunks-of-version-1", whole([file()], version=2)
    yield "reject-version-1-with-chunks-of-version-2", whole([file(chunks=0) | {"chunks": [SHA256]}])
    yield "reject-version-3", whole([]).replace('"version": 1', '"version": 3')
    yield "reject-version-missing", '{"chunk_bytes": 65536, "files": []}'
    yield "reject-version-twice", '{"version": 1, "version": 1, "chunk_bytes": 65536, "files": []}'
    yield "reject-chunk-bytes-missing", '{"version": 1, "files": []}'
    for number in (0, 1, 65535, 32768, 98304, 134217728, 1 << 63):
        yield f"reject-chunk-bytes-{number}", whole([], chunk_bytes=number)
    yield "reject-chunk-bytes-after-files", '{"version": 1, "files": [], "chunk_bytes": 65536}'
    yield "reject-files-twice", '{"version": 1, "chunk_bytes": 65536, "files": [], "files": []}'
    yield "reject-files-object", '{"version": 1, "chunk_bytes": 65536, "files": {}}'
    yield "reject-files-missing", '{"version": 1, "chunk_bytes": 65536}'
    yield "reject-unknown-field", whole([], more=1)
    yield "reject-unknown-file-field", whole([file(more=1)])
    for field in ("path", "size", "sha256", "chunks"):
        yield "reject-no-" + field, whole([without(field)])
    yield "reject-field-twice", whole([file()]).replace('"size": 5', '"size": 5, "size": 6')
    yield "reject-path-twice", whole([file(), file()])
    for word, path in {"absolute": "/a", "parent": "../a", "parent-inside": "a/../b", "dot": ".",
                       "dot-slash": "./a", "empty": "", "double-slash": "a//b", "slash": "a/",
                       "nul": "a\0b", "long": "a/" * 2100 + "b"}.items():
        yield "reject-path-" + word, whole([file(path)])
    yield "reject-chunk-missing", whole([file(size=65537)])
    yield "reject-chunk-too-many", whole([file(chunks=2)])
    yield "reject-chunk-of-empty-file", whole([file(size=0)])
    yield "reject-size-2-64-minus-1", whole([file(size=(1 << 64) - 1)])
    yield "reject-size-negative", whole([file(size=-1)])
    yield "reject-chunk-short", whole([file(chunks=0) | {"chunks": [XXH64]}])
    yield "reject-chunk-number", whole([file(chunks=0) | {"chunks": [1]}])
    yield "reject-sha256-short", whole([file(sha256=MD5)])
    yield "reject-not-utf8", whole([file("X")]).encode().replace(b'"X"', b'"\xff"')
    yield "reject-cut", whole([file()])[:100]
    yield "reject-trailing", whole([file()]) + "{}"
    yield "reject-empty", ""


def digest_cache_entry():
    def entry(chunk_bytes=65536, count=4, version=2, mtime=3, chunks=4, ctime=0):
        head = b"unshdig1" + struct.pack("<IIQQQqQII", version, 1, 1, 2, 200000, mtime,
                                         chunk_bytes, count, 0)
        return head.ljust(128, b"\0") + struct.pack("<qQ", ctime, 0) + bytes(range(16)) * chunks
    yield "accept-usual", entry()
    yield "accept-large-chunks", entry(1 << 18, 1, chunks=1)
    yield "reject-count", entry(count=5)
    yield "reject-cut", entry(chunks=3)
    yield "reject-longer", entry(chunks=5)
    yield "reject-version-1", entry(version=1)
    yield "reject-other-change-time", entry(ctime=5)
    yield "reject-other-time", entry(mtime=4)
    yield "reject-chunk-bytes-0", entry(chunk_bytes=0)
    yield "reject-short-header", entry()[:100]


def main():
    for make in (checksum_list, xxhsum_list, hub_metadata, hub_tree, checksums_json, manifest,
                 digest_cache_entry):
        target = HERE / make.__name__
        target.mkdir(exist_ok=True)
        for name, content in make():
            data = content if isinstance(content, bytes) else content.encode()
            (target / name).write_bytes(data)


if __name__ == "__main__":
    main()
