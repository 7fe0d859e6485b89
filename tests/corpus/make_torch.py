#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the corpora zip_archive, pickle, torch_file and dcp: one small file for each rule. A file
is called accept-WHAT, or reject-CODE--WHAT with the code that it must be refused with. Those of the
real torch are written by it when it is there and they are not: no two are alike."""

import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent


# ---- pickles -----------------------------------------------------------------------------------

def glob(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(string):
    raw = string if isinstance(string, bytes) else string.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(number):
    if 0 <= number < 256:
        return b"K" + bytes([number])
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    raw = number.to_bytes((number.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def items(*values):
    return b"(" + b"".join(values) + b"t"


def numbers(*values):
    return items(*map(integer, values))


def called(callee, *arguments):
    return callee + items(*arguments) + b"R"


def dictionary(*pairs):
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


ORDERED = called(glob("collections", "OrderedDict"))


def persistent(key="0", numel=6, kind="FloatStorage", module="torch", *more):
    return items(text("storage"), glob(module, kind), text(key) if isinstance(key, str) else key,
                 text("cpu"), integer(numel), *more) + b"Q"


def tensor(size=(2, 3), stride=(3, 1), offset=0, storage=None, flags=b"", version="_v2"):
    function = glob("torch._utils", "_rebuild_tensor" + version)
    rest = () if version == "" else (b"\x89", ORDERED)
    more = (flags,) if flags else ()
    return called(function, storage or persistent(), integer(offset), numbers(*size),
                  numbers(*stride), *rest, *more)


def tensor_v3(dtype, size, stride, storage):
    return called(glob("torch._utils", "_rebuild_tensor_v3"), storage, integer(0), numbers(*size),
                  numbers(*stride), b"\x89", ORDERED, glob("torch", dtype))


def pickled(body, protocol=2):
    return b"\x80" + bytes([protocol]) + body + b"."


def state(*pairs):
    return pickled(dictionary(*((text(name), value) for name, value in pairs)))


def pickles():
    nested = b"".join([b")"] + [b"\x85"] * 1000)
    yield "accept-empty-dict", pickled(b"}")
    yield "accept-state-dict", state(("w", tensor()), ("b", tensor((6,), (1,))))
    yield "accept-every-opcode", pickled(
        b"(" + b"N\x88\x89" + integer(5) + b"M\x34\x12" + integer(-7) + integer(1 << 70) + b"\x8a\x00"
        + b"G" + struct.pack(">d", 1.5) + text("x") + b"U\x01y" + b")\x85" + b"NN\x86" + b"NNN\x87"
        + b"]Na" + b"](NNe" + b"\x8f" + b"}NNs" + b"}(u" + b"q\x00h\x00" + b"r\x01\x00\x00\x00j\x01\x00\x00\x00" + b"t")
    yield "accept-build-on-dict", pickled(ORDERED + b"}b")
    yield "accept-ordered-dict-of-pairs", pickled(
        called(glob("collections", "OrderedDict"), b"](" + items(text("a"), b"N") + b"e"))
    yield "accept-list-in-itself", pickled(b"]q\x00h\x00a")
    yield "accept-nested-1000", pickled(nested)
    yield "accept-doubled-40", pickled(b")" + b"".join(
        b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(40)))
    yield "accept-set-and-bytes", pickled(items(
        called(glob("__builtin__", "set"), b"]"), called(glob("_codecs", "encode"), text("a"), text("latin1"))))
    yield "accept-memo-from-1", pickled(b"Nq\x01h\x01\x86")

    for name, (module, word) in {
            "os-system": ("os", "system"), "posix-system": ("posix", "system"), "eval": ("builtins", "eval"),
            "eval-2": ("__builtin__", "eval"), "exec": ("__builtin__", "exec"),
            "getattr": ("builtins", "getattr"), "import": ("builtins", "__import__"),
            "subprocess": ("subprocess", "Popen"), "os-path": ("os.path", "join"),
            "load-from-bytes": ("torch.storage", "_load_from_bytes"), "torch-load": ("torch", "load"),
            "pickle-loads": ("_pickle", "loads"), "import-module": ("importlib", "import_module"),
            "ctypes": ("ctypes", "CDLL"), "functools": ("functools", "partial")}.items():
        yield "reject-hostile-pickle--" + name, pickled(called(glob(module, word), text("true")))
    yield "reject-hostile-pickle--call-of-a-string", pickled(text("x") + b")R")
    yield "reject-hostile-pickle--call-of-a-call", pickled(ORDERED + b")R")
    yield "reject-hostile-pickle--in-a-state-dict", state(
        ("w", tensor()), ("x", called(glob("posix", "system"), text("true"))))
    # A list of pairs that a dict is made of over and over.
    yield "reject-unsupported-pickle--copies-of-copies", pickled(
        glob("collections", "OrderedDict") + b"q\x00](" + b"NN\x86" * 500 + b"e\x85q\x01" +
        b"h\x00h\x01R" * 500 + items())
    yield "reject-unsupported-pickle--own-class", pickled(glob("__main__", "Model") + b")\x81")
    yield "reject-unsupported-pickle--numpy", pickled(glob("numpy.core.multiarray", "scalar"))
    for module, word in (("pathlib", "PosixPath"), ("__builtin__", "slice"), ("argparse", "Namespace"),
                         ("_io", "BytesIO"), ("collections", "defaultdict"), ("osmosis", "Model")):
        yield f"reject-unsupported-pickle--{module}-{word}", pickled(called(glob(module, word), text("x")))
    yield "reject-hostile-pickle--io-open", pickled(called(glob("_io", "open"), text("x")))
    yield "reject-unsupported-pickle--newobj-of-a-function", pickled(
        glob("torch._utils", "_rebuild_tensor_v2") + b")\x81")
    yield "reject-unsupported-pickle--call-of-a-storage-class", pickled(glob("torch", "FloatStorage") + b")R")
    yield "reject-unsupported-pickle--build-on-a-tensor", pickled(tensor() + b"}b")
    yield "reject-unsupported-pickle--build-on-a-global", pickled(glob("torch", "Tensor") + b"}b")
    yield "reject-unsupported-pickle--protocol-3", pickled(b"N", 3)
    yield "reject-unsupported-pickle--protocol-4-opcode", pickled(b"\x8c\x01x")
    yield "reject-unsupported-pickle--stack-global", pickled(text("os") + text("system") + b"\x93")
    yield "reject-unsupported-pickle--inst", pickled(b"(ios\nsystem\n")
    yield "reject-unsupported-pickle--obj", pickled(b"(No")
    yield "reject-unsupported-pickle--persid", pickled(b"Px\n")
    yield "reject-unsupported-pickle--extension", pickled(b"\x82\x01")
    yield "reject-unsupported-pickle--long4", pickled(b"\x8b\x01\x00\x00\x00\x01")
    yield "reject-unsupported-pickle--pop", pickled(b"NN0")
    yield "reject-unsupported-pickle--byte-0", pickled(b"\0")
    yield "reject-unsupported-pickle--name-not-exact", pickled(glob("collections", "OrderedDict ") + b")R")
    yield "reject-unsupported-pickle--module-not-exact", pickled(glob("collection", "sOrderedDict") + b")R")
    yield "reject-malformed-pickle--stack-underflow", pickled(b"\x85")
    yield "reject-malformed-pickle--stack-below-mark", pickled(b"N(\x85t")
    yield "reject-malformed-pickle--setitem-underflow", pickled(b"}Ns")
    yield "reject-malformed-pickle--stop-on-empty", pickled(b"")
    yield "reject-malformed-pickle--stop-with-two", pickled(b"NN")
    yield "reject-malformed-pickle--stop-within-mark", pickled(b"(N")
    yield "reject-malformed-pickle--mark-missing", pickled(b"Nt")
    yield "reject-malformed-pickle--appends-without-mark", pickled(b"]Ne")
    yield "reject-malformed-pickle--append-to-dict", pickled(b"}Na")
    yield "reject-malformed-pickle--setitem-on-list", pickled(b"]NNs")
    yield "reject-malformed-pickle--odd-setitems", pickled(b"}(Nu")
    yield "reject-malformed-pickle--get-unset", pickled(b"h\x05")
    yield "reject-malformed-pickle--get-gap", pickled(b"Nq\x01h\x00\x86")
    yield "reject-malformed-pickle--put-far", pickled(b"Nr\xff\xff\xff\xff")
    yield "reject-malformed-pickle--put-on-empty", pickled(b"q\x00N")
    yield "reject-malformed-pickle--proto-in-the-middle", pickled(b"N\x80\x02")
    yield "reject-malformed-pickle--reduce-without-tuple", pickled(glob("collections", "OrderedDict") + b"]R")
    yield "reject-malformed-pickle--string-2-31", pickled(b"X\x00\x00\x00\x80")
    yield "reject-malformed-pickle--ordered-dict-of-names", pickled(
        called(glob("collections", "OrderedDict"), text("a")))
    yield "reject-truncated--empty", b""
    yield "reject-truncated--no-stop", pickled(b"N")[:-1]
    yield "reject-truncated--in-a-string", pickled(b"X\x05\x00\x00\x00ab")[:-1]
    yield "reject-truncated--long1-of-255", b"\x80\x02\x8a\xffabc"
    yield "reject-truncated--global-without-end", b"\x80\x02cos\nsystem"
    yield "reject-truncated--float", b"\x80\x02Gabc"


# ---- zip archives ------------------------------------------------------------------------------

class Zip:
    """An archive as PyTorch's writer makes it, with a knob for everything that can be wrong."""

    def __init__(self):
        self.data, self.entries = bytearray(), []

    def add(self, name, content, align=64, method=0, flags=0x0808, local_name=None, size=None,
            stored=None, extra=b"", offset=None):
        raw, local = name.encode(), (local_name or name).encode()
        start = len(self.data)
        padding = -(start + 30 + len(local) + 4) % align if align else 0
        field = struct.pack("<HH", 0x4246, padding) + b"Z" * padding if align else b""
        self.data += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 0, flags, method, 0, 0, 0, 0, 0,
                                 len(local), len(field)) + local + field + content
        if content:
            self.data += struct.pack("<4sIII", b"PK\7\x08", 0, len(content), len(content))
        self.entries.append((raw, len(content) if size is None else size,
                             len(content) if stored is None else stored,
                             start if offset is None else offset, flags, method, extra))
        return self

    def directory(self):
        result = b""
        for raw, size, stored, offset, flags, method, extra in self.entries:
            result += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 0, 0, flags, method, 0, 0, 0,
                                  stored, size, len(raw), len(extra), 0, 0, 0, 0, offset) + raw + extra
        return result

    def bytes(self, prefix=b"", comment=b"", count=None, size=None, offset=None, zip64=True,
              locator=None, record=None, tail=b"", directory=None):
        head = prefix + bytes(self.data)
        directory = self.directory() if directory is None else directory
        count = len(self.entries) if count is None else count
        size = len(directory) if size is None else size
        offset = len(head) if offset is None else offset
        result = head + directory
        if zip64:
            at = len(result)
            wide = record or (count, size, offset)
            result += struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 0, 0, 0, 0, wide[0], wide[0], wide[1], wide[2])
            result += struct.pack("<4sIQI", b"PK\6\7", 0, at if locator is None else locator, 1)
        return result + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, size, offset,
                                    len(comment)) + comment + tail


def plain():
    return Zip().add("a/one", b"1234").add("a/two", b"").add("a/three", bytes(100))


def zip_archives():
    yield "accept-three-entries", plain().bytes()
    yield "accept-no-entries", Zip().bytes()
    yield "accept-without-zip64", plain().bytes(zip64=False)
    yield "accept-comment", plain().bytes(comment=b"hello")
    yield "accept-long-comment", plain().bytes(comment=b"x" * 5000)
    yield "accept-end-record-in-the-data", Zip().add("a/one", b"PK\5\6" + bytes(18)).bytes()
    yield "accept-end-record-in-the-comment", plain().bytes(comment=b"PK\5\6" + b"\1" * 18)
    yield "accept-zip64-extra", Zip().add("a/one", b"1234", size=0xFFFFFFFF, stored=0xFFFFFFFF, extra=struct.pack(
        "<HHQQ", 1, 16, 4, 4)).bytes()
    yield "accept-zip64-offset-only", Zip().add("a/one", b"1234", offset=0xFFFFFFFF, extra=struct.pack(
        "<HHHHHQ", 9, 2, 7, 1, 8, 0)).bytes()
    yield "accept-compressed-entry", plain().add("a/code", b"xx", method=8, size=50).bytes()
    yield "accept-gap-between-entries", Zip().add("a/one", b"1", align=4096).add("a/two", b"2", align=4096).bytes()

    yield "reject-truncated--empty", b""
    yield "reject-truncated--no-end", bytes(plain().data)
    yield "reject-truncated--cut-in-end-record", plain().bytes()[:-1]
    yield "reject-truncated--trailing-byte", plain().bytes(tail=b"x")
    yield "reject-truncated--comment-length-lies", plain().bytes()[:-2] + b"\5\0"
    yield "reject-malformed-zip--prefix-data", plain().bytes(prefix=b"#!/bin/sh\n", offset=len(plain().data))
    yield "reject-malformed-zip--directory-past-end", plain().bytes(offset=1 << 30)
    yield "reject-malformed-zip--directory-offset-2-63", plain().bytes(
        record=(3, len(plain().directory()), 1 << 63), offset=0xFFFFFFFF)
    yield "reject-malformed-zip--directory-size-lies", plain().bytes(size=10)
    yield "reject-malformed-zip--count-too-high", plain().bytes(count=4)
    yield "reject-malformed-zip--count-too-low", plain().bytes(count=2)
    yield "reject-malformed-zip--count-2-63", plain().bytes(record=(1 << 63, len(plain().directory()), len(plain().data)),
                                                          count=0xFFFF)
    yield "reject-malformed-zip--end-records-disagree", plain().bytes(record=(
        2, len(plain().directory()), len(plain().data)))
    yield "reject-malformed-zip--locator-past-end", plain().bytes(locator=1 << 40)
    yield "reject-malformed-zip--locator-2-64", plain().bytes(locator=(1 << 64) - 1)
    yield "reject-malformed-zip--locator-at-zero", plain().bytes(locator=0)
    yield "reject-malformed-zip--header-offset-past-end", Zip().add("a/one", b"1", offset=5000).bytes()
    yield "reject-malformed-zip--header-offset-in-directory", Zip().add("a/one", b"1", offset=90).bytes()
    yield "reject-malformed-zip--header-offset-wrong", Zip().add("a/one", b"1").add("a/two", b"2", offset=3).bytes()
    yield "reject-malformed-zip--local-name-differs", Zip().add("a/one", b"1", local_name="a/two").bytes()
    yield "reject-malformed-zip--local-name-longer", Zip().add("a/one", b"1", local_name="a/onetwo").bytes()
    yield "reject-malformed-zip--data-past-directory", Zip().add("a/one", b"1", size=500, stored=500).bytes()
    yield "reject-malformed-zip--two-entries-one-place", Zip().add("a/one", b"1").add("a/two", b"2", offset=0).bytes()
    yield "reject-malformed-zip--overlapping", Zip().add("a/one", b"1", size=80, stored=80).add("a/two", bytes(80)).bytes()
    yield "reject-malformed-zip--same-name", Zip().add("a/one", b"1").add("a/one", b"2").bytes()
    yield "reject-malformed-zip--encrypted", Zip().add("a/one", b"1", flags=0x0809).bytes()
    yield "reject-malformed-zip--sizes-differ", Zip().add("a/one", b"1234", stored=3).bytes()
    yield "reject-malformed-zip--name-empty", Zip().add("", b"1").bytes()
    yield "reject-malformed-zip--name-with-nul", Zip().add("a/o\0ne", b"1").bytes()
    yield "reject-malformed-zip--zip64-extra-missing", Zip().add("a/one", b"1", size=0xFFFFFFFF, stored=0xFFFFFFFF).bytes()
    yield "reject-malformed-zip--zip64-extra-short", Zip().add("a/one", b"1", size=0xFFFFFFFF, stored=0xFFFFFFFF, extra=struct.pack(
        "<HHQ", 1, 8, 1)).bytes()
    yield "reject-malformed-zip--extra-past-end", Zip().add("a/one", b"1", size=0xFFFFFFFF, extra=struct.pack(
        "<HHQ", 1, 200, 1)).bytes()
    yield "reject-malformed-zip--directory-signature", plain().bytes(directory=b"XX" + plain().directory()[2:])
    yield "reject-malformed-zip--name-past-directory", plain().bytes(
        directory=plain().directory()[:28] + b"\xff\xff" + plain().directory()[30:])
    yield "reject-malformed-zip--several-parts", plain().bytes(zip64=False)[:-18] + b"\1\0" + plain().bytes(zip64=False)[-16:]


# ---- files of torch.save -----------------------------------------------------------------------

DATA = struct.pack("<6f", *range(6))


def archive(pickle, storages=None, byteorder=b"little", prefix="archive/", more=()):
    result = Zip().add(prefix + "data.pkl", pickle)
    if byteorder is not None:
        result.add(prefix + "byteorder", byteorder)
    for key, content in (storages if storages is not None else {"0": DATA}).items():
        result.add(prefix + "data/" + key, content)
    for name, content in more:
        result.add(prefix + name, content)
    return result.add(prefix + "version", b"3\n").bytes()


def one(value, **more):
    return archive(state(("w", value)), **more)


MAGIC = pickled(b"\x8a\x0a" + bytes.fromhex("6cfc9c46f9206aa85019"))
SYSTEM = pickled(dictionary((text("protocol_version"), integer(1001)), (text("little_endian"), b"\x88"),
                            (text("type_sizes"), dictionary((text("short"), integer(2))))))


def legacy_tensor(view=b"N", **more):
    return tensor(storage=persistent("0", more.pop("numel", 6), more.pop("kind", "FloatStorage"),
                                     more.pop("module", "torch"), view), **more)


def legacy(body=None, keys=("0",), numel=6, data=DATA, protocol=integer(1001), system=SYSTEM, tail=b""):
    body = body or state(("w", legacy_tensor()))
    listed = pickled(b"](" + b"".join(text(key) for key in keys) + b"e")
    return MAGIC + pickled(protocol) + system + body + listed + \
        b"".join(struct.pack("<q", numel) + data for _ in keys) + tail


def torch_files():
    yield "accept-one", one(tensor())
    yield "accept-tied", archive(state(("a", tensor()), ("b", tensor()), ("c", tensor((2,), (1,), 3))))
    yield "accept-parameter", one(called(glob("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", ORDERED))
    yield "accept-parameter-with-state", one(called(glob("torch._utils", "_rebuild_parameter_with_state"), tensor(),
                                                    b"\x88", ORDERED, b"}"))
    yield "accept-from-type", one(called(
        glob("torch._tensor", "_rebuild_from_type_v2"), glob("torch._utils", "_rebuild_tensor_v2"),
        glob("torch", "Tensor"), items(persistent(), integer(0), numbers(6), numbers(1), b"\x89", ORDERED), b"}"))
    yield "accept-version-1", one(tensor(version=""))
    yield "accept-version-3", one(tensor_v3("float8_e4m3fn", (24,), (1,), persistent(
        "0", 24, "UntypedStorage", "torch.storage")))
    yield "accept-float4", one(tensor_v3("float4_e2m1fn_x2", (4, 6), (6, 1), persistent(
        "0", 24, "UntypedStorage", "torch.storage")))
    yield "accept-scalar", one(tensor((), (), 5))
    yield "accept-empty", one(tensor((0, 3), (3, 1)))
    yield "accept-transposed", one(tensor((3, 2), (1, 3)))
    yield "accept-expanded", one(tensor((2, 4), (3, 0)))
    yield "accept-size-1-any-stride", one(tensor((1, 6), (1 << 40, 1)))
    yield "accept-flags-empty", one(tensor(flags=b"}"))
    yield "accept-no-byteorder", one(tensor(), byteorder=None)
    yield "accept-other-prefix", one(tensor(), prefix="some model/")
    yield "accept-unwrapped", archive(pickled(dictionary(
        (text("epoch"), integer(3)), (text("state_dict"), dictionary((text("w"), tensor()))))))
    yield "accept-only-entry", archive(pickled(dictionary((text("params"), dictionary((text("w"), tensor()))))))
    yield "accept-plain-values-beside", archive(state(
        ("w", tensor()), ("n", integer(3)), ("l", b"](NNe"), ("d", dictionary((text("x"), b"N")))))
    yield "accept-build", archive(pickled(ORDERED + b"(" + text("w") + tensor() + b"u" + dictionary(
        (text("_metadata"), ORDERED)) + b"b"))
    yield "accept-legacy", legacy()
    yield "accept-legacy-view", legacy(state(("w", legacy_tensor(items(text("v"), integer(2), integer(4)), size=(4,), stride=(1,)))))
    yield "accept-legacy-two-storages", legacy(state(
        ("a", legacy_tensor()), ("b", tensor(storage=persistent("1", 6, "FloatStorage", "torch", b"N")))), ("0", "1"))

    yield "reject-not-a-state-dict--script", one(tensor(), more=[("constants.pkl", pickled(b")"))])
    yield "reject-not-a-state-dict--no-pickle", Zip().add("a/x", b"1").bytes()
    yield "reject-not-a-state-dict--no-directory", Zip().add("x", b"1").bytes()
    yield "reject-not-a-state-dict--tensor-alone", archive(pickled(tensor()))
    yield "reject-not-a-state-dict--no-tensor", archive(state(("a", b"N")))
    yield "reject-not-a-state-dict--optimizer", archive(pickled(dictionary(
        (text("state"), dictionary((integer(0), dictionary((text("exp_avg"), tensor()))))), (text("lr"), b"N"))))
    yield "reject-not-a-state-dict--list-of-tensors", archive(state(("a", tensor()), ("l", b"](" + tensor() + b"e")))
    yield "reject-not-a-state-dict--numbered", archive(pickled(dictionary((integer(0), tensor()), (integer(1), tensor()))))
    yield "reject-not-a-state-dict--some-text", b"no torch at all"
    yield "reject-not-a-state-dict--a-pickle", pickled(b"}")
    yield "reject-not-a-state-dict--nested-100", archive(pickled(dictionary(
        (text("w"), tensor()), (text("x"), b"]" * 100 + b"a" * 99))))
    yield "reject-web-page--page", b"<html><head><title>Sign in</title></head></html>\n"
    yield "reject-lfs-pointer--pointer", b"version https://git-lfs.github.com/spec/v1\n"
    yield "reject-truncated--empty", b""
    yield "reject-truncated--zip", one(tensor())[:-30]
    yield "reject-malformed-zip--storage-short", one(tensor(), storages={"0": DATA[:-1]})
    yield "reject-malformed-zip--storage-long", one(tensor(), storages={"0": DATA + b"x"})
    yield "reject-malformed-zip--storage-missing", one(tensor(), storages={"1": DATA})
    yield "reject-malformed-zip--storage-name-escapes", one(tensor(storage=persistent("../data/0")))
    yield "reject-malformed-zip--byteorder-x", one(tensor(), byteorder=b"x")
    yield "reject-malformed-zip--byteorder-long", one(tensor(), byteorder=b"little" * 2000)
    yield "reject-unsupported-zip--compressed-pickle", Zip().add("a/data.pkl", b"xx", method=8, size=100).bytes()
    yield "reject-unsupported-zip--compressed-storage", Zip().add(
        "a/data.pkl", state(("w", tensor()))).add("a/data/0", b"xx", method=8, size=len(DATA)).bytes()
    yield "reject-unsupported-pickle--byteorder-big", one(tensor(), byteorder=b"big")
    yield "reject-unsupported-pickle--conj", one(tensor(flags=dictionary((text("conj"), b"\x88"))))
    yield "reject-unsupported-pickle--neg-false", one(tensor(flags=dictionary((text("neg"), b"\x89"))))
    yield "reject-unsupported-pickle--neg", one(tensor(flags=dictionary((text("neg"), b"\x88"))))
    yield "reject-unsupported-pickle--complex128", one(tensor(storage=persistent(kind="ComplexDoubleStorage")))
    yield "reject-unsupported-pickle--qint8", one(tensor(storage=persistent(kind="QInt8Storage")))
    yield "reject-unsupported-pickle--bits8", one(tensor_v3("bits8", (24,), (1,), persistent(
        "0", 24, "UntypedStorage", "torch.storage")))
    for function in ("_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor"):
        yield "reject-unsupported-pickle-" + function, one(called(glob("torch._utils", function), b"N"))
    yield "reject-unsupported-pickle--other-persistent-id", one(tensor(storage=items(text("module"), b"N") + b"Q"))
    yield "reject-unsupported-pickle--name-surrogate", archive(pickled(dictionary((text(b"\xed\xa0\x80"), tensor()))))
    yield "reject-unsupported-pickle--name-metadata", archive(state(("__metadata__", tensor())))
    yield "reject-unsupported-pickle--expanded-too-far", one(tensor((1 << 28,), (0,)))
    yield "reject-hostile-pickle--os-system", one(called(glob("os", "system"), text("true")))
    yield "reject-duplicate-tensor--twice", archive(state(("w", tensor()), ("w", tensor())))
    for name, body in {
            "no-stop": archive(state(("w", tensor()))[:-1]), "after-stop": archive(state(("w", tensor())) + b"N."),
            "key-number": one(tensor(storage=persistent(integer(0)))), "key-empty": one(tensor(storage=persistent(""))),
            "numel-negative": one(tensor(storage=persistent(numel=-1))),
            "numel-2-62": one(tensor(storage=persistent(numel=1 << 62))),
            "stride-negative": one(tensor(stride=(3, -1))), "stride-huge": one(tensor(stride=(1 << 62, 1))),
            "offset-negative": one(tensor(offset=-1)), "offset-too-far": one(tensor(offset=1)),
            "offset-2-63": one(tensor(offset=(1 << 63) - 1)), "reach-overflows": one(tensor((3, 1 << 40), (1 << 62, 1 << 40))),
            "size-2-40-squared": one(tensor((1 << 40, 1 << 40), (0, 0))), "size-negative": one(tensor((-2, 3))),
            "70-dimensions": one(tensor((1,) * 70, (1,) * 70)), "strides-missing": one(tensor(stride=(1,))),
            "size-no-tuple": one(called(glob("torch._utils", "_rebuild_tensor"), persistent(), integer(0), integer(6), numbers(1))),
            "too-few-arguments": one(called(glob("torch._utils", "_rebuild_tensor_v2"), persistent())),
            "storage-none": one(tensor(storage=b"N")), "dtype-none": one(called(
                glob("torch._utils", "_rebuild_tensor_v3"), persistent("0", 24, "UntypedStorage", "torch.storage"),
                integer(0), numbers(6), numbers(1), b"\x89", ORDERED, b"N")),
            "parameter-of-nothing": one(called(glob("torch._utils", "_rebuild_parameter"), b"N", b"\x88", ORDERED)),
            "untyped-in-version-2": one(tensor(storage=persistent("0", 24, "UntypedStorage", "torch.storage"))),
            "float4-scalar": one(tensor_v3("float4_e2m1fn_x2", (), (), persistent("0", 24, "UntypedStorage", "torch.storage"))),
            "legacy-numel-differs": legacy(numel=5), "legacy-key-unknown": legacy(keys=("1",)),
            "legacy-key-twice": legacy(keys=("0", "0")), "legacy-keys-missing": legacy(keys=()),
            "legacy-trailing": legacy(tail=b"x"), "legacy-view-beyond": legacy(state(
                ("w", legacy_tensor(items(text("v"), integer(3), integer(4)), size=(4,), stride=(1,))))),
            "legacy-two-sizes": legacy(state(("a", legacy_tensor()), ("b", legacy_tensor(numel=5)))),
            "legacy-view-form": legacy(state(("a", legacy_tensor(items(text("v")))))),
            "legacy-no-byte-order": legacy(system=pickled(b"}"))}.items():
        yield "reject-malformed-pickle--" + name, body
    yield "reject-unsupported-pickle--legacy-big-endian", legacy(system=SYSTEM.replace(b"\x88", b"\x89"))
    yield "reject-unsupported-pickle--legacy-protocol", legacy(protocol=integer(1000))
    yield "reject-unsupported-pickle--legacy-untyped", legacy(state(("w", legacy_tensor(
        kind="UntypedStorage", module="torch.storage"))))
    yield "reject-hostile-pickle--legacy", legacy(state(("w", called(glob("posix", "system"), text("true")))))
    yield "reject-truncated--legacy-last-storage", legacy()[:-1]
    yield "reject-truncated--legacy-before-storage", legacy()[:-30]
    yield "reject-truncated--legacy-in-pickle", legacy()[:100]
    yield "reject-truncated--legacy-magic", MAGIC


def real_files():
    import io
    import torch

    generator = torch.Generator().manual_seed(1)
    base = torch.randn(4, 6, generator=generator)
    tensors = {"a": base, "b": base.t(), "c": base.half(), "d": torch.nn.Parameter(base[:, 2:4]),
               "e": torch.arange(3).to(torch.uint16), "f": torch.tensor(True)}
    for name, value, options in (("accept-real", tensors, {}), ("accept-real-legacy", dict(list(tensors.items())[:4]), {
            "_use_new_zipfile_serialization": False})):
        stream = io.BytesIO()
        torch.save(value, stream, **options)
        yield name, stream.getvalue()


# ---- .metadata ---------------------------------------------------------------------------------

def short(string):
    return b"\x8c" + bytes([len(string)]) + string.encode()


def named(name, module="torch.distributed.checkpoint.metadata"):
    return short(module) + short(name) + b"\x93"


def built(name, *fields, module="torch.distributed.checkpoint.metadata"):
    return named(name, module) + b")\x81" + dictionary(*((short(key), value) for key, value in fields)) + b"b"


def size(*values):
    return named("Size", "torch") + numbers(*values) + b"\x85R"


def properties(dtype="float32", layout="torch.strided"):
    memory = named("getattr", "builtins") + items(named("_MEM_FORMAT_ENCODING"), short("TORCH_CONTIGUOUS_FORMAT")) + b"R"
    return named("TensorProperties") + b")\x81" + items(
        named(dtype, "torch"), named("_get_layout", "torch.serialization") + short(layout) + b"\x85R", b"\x89", memory, b"\x89") + b"b"


def chunk(offsets, sizes):
    return built("ChunkStorageMetadata", ("offsets", size(*offsets)), ("sizes", size(*sizes)))


def of_tensor(shape, *chunks, **more):
    return built("TensorStorageMetadata", ("properties", properties(**more)), ("size", size(*shape)),
                 ("chunks", b"](" + b"".join(chunks) + b"e"))


def place(name, offsets, path="__0_0.distcp", offset=0, length=100, more=()):
    return (built("MetadataIndex", ("fqn", short(name)), ("offset", size(*offsets)), ("index", integer(0))),
            built("_StorageInfo", ("relative_path", short(path)), ("offset", integer(offset)), ("length", integer(length)),
                  *more, module="torch.distributed.checkpoint.filesystem"))


def metadata(tensors, places, *more):
    return pickled(built("Metadata", ("state_dict_metadata", dictionary(*((short(name) if isinstance(name, str) else name, value)
                                                                    for name, value in tensors))),
                         ("planner_data", b"}"), ("storage_data", dictionary(*places)), *more), 4)


def shared_chunks(count):
    """Many tensors with one list of chunks."""
    chunks = b"](" + b"".join(chunk((i,), (1,)) for i in range(count)) + b"eq\x00"
    for i in range(count):
        yield f"t{i}", built("TensorStorageMetadata", ("properties", properties()), ("size", size(count)),
                             ("chunks", chunks if i == 0 else b"h\x00"))


def shared_fields(count):
    """Many tensors with one state, that has many fields."""
    state_of = dictionary(*((integer(i), b"N") for i in range(count)), (short("properties"), properties()),
                          (short("size"), size(0)), (short("chunks"), b"]")) + b"q\x00"
    for i in range(count):
        yield f"t{i}", named("TensorStorageMetadata") + b")\x81" + (state_of if i == 0 else b"h\x00") + b"b"


def dcp():
    rows = of_tensor((4, 2), chunk((0, 0), (2, 2)), chunk((2, 0), (2, 2)))
    both = [place("w", (0, 0)), place("w", (2, 0), "__1_0.distcp")]
    single = of_tensor((4,), chunk((0,), (4,)))
    yield "accept-rows", metadata([("w", rows)], both)
    yield "accept-one-file", metadata([("w", rows)], [place("w", (0, 0)), place("w", (2, 0), offset=100)])
    yield "accept-bytes-entry", metadata([("w", single), ("epoch", built("BytesStorageMetadata"))],
                                         [place("w", (0,)), place("epoch", (), offset=100)])
    yield "accept-empty-chunk", metadata([("w", of_tensor((4,), chunk((0,), (4,)), chunk((4,), (0,))))],
                                         [place("w", (0,)), place("w", (4,), offset=100, length=0)])
    yield "accept-empty-tensor", metadata([("w", of_tensor((0, 3), chunk((0, 0), (0, 3))))], [place("w", (0, 0))])
    yield "accept-scalar", metadata([("w", of_tensor((), chunk((), ())))], [place("w", ())])
    yield "accept-transform-none", metadata([("w", single)], [place("w", (0,), more=[("transform_descriptors", b"N")])])
    yield "accept-storage-meta", metadata([("w", single)], [place("w", (0,))], ("storage_meta", built(
        "StorageMeta", ("checkpoint_id", named("PosixPath", "pathlib") + items(short("/"), short("x")) + b"R"))))
    yield "accept-subdirectory", metadata([("w", single)], [place("w", (0,), "a/b.distcp")])
    for name, path in {"parent": "../x", "absolute": "/etc/passwd", "empty": "", "dot": ".", "parent-inside": "a/../../b",
                       "backslash": "a\\b", "newline": "a\nb"}.items():
        yield "reject-malformed-pickle--path-" + name, metadata([("w", single)], [place("w", (0,), path)])
    yield "reject-malformed-pickle--places-overlap", metadata([("w", rows)], [place("w", (0, 0)), place("w", (2, 0), offset=99)])
    yield "reject-malformed-pickle--place-overflows", metadata([("w", rows)], [
        place("w", (0, 0), length=(1 << 63) - 1), place("w", (2, 0), offset=(1 << 63) - 1, length=(1 << 63) - 1)])
    yield "reject-malformed-pickle--place-negative", metadata([("w", single)], [place("w", (0,), offset=-1)])
    yield "reject-malformed-pickle--place-twice", metadata([("w", single)], [place("w", (0,)), place("w", (0,), offset=100)])
    yield "reject-malformed-pickle--place-missing", metadata([("w", rows)], both[:1])
    yield "reject-malformed-pickle--place-of-no-chunk", metadata([("w", single)], [place("w", (0,)), place("w", (1,), offset=100)])
    yield "reject-malformed-pickle--place-without-offset", metadata([("w", single)], [place("w", ())])
    yield "reject-malformed-pickle--chunk-outside", metadata([("w", of_tensor((4,), chunk((1,), (4,))))], [place("w", (1,))])
    yield "reject-malformed-pickle--chunk-offset-2-63", metadata([("w", of_tensor((4,), chunk(((1 << 63) - 1,), (4,))))], [])
    yield "reject-malformed-pickle--chunk-negative", metadata([("w", of_tensor((4,), chunk((-1,), (4,))))], [])
    yield "reject-malformed-pickle--chunk-rank", metadata([("w", of_tensor((4,), chunk((0, 0), (4, 1))))], [])
    yield "reject-malformed-pickle--chunk-twice", metadata([("w", of_tensor((4,), chunk((0,), (2,)), chunk((0,), (4,))))], [])
    yield "reject-malformed-pickle--no-chunk", metadata([("w", of_tensor((4,)))], [])
    yield "reject-malformed-pickle--no-metadata", pickled(b"}", 4)
    yield "reject-malformed-pickle--no-storage-data", pickled(built("Metadata", ("state_dict_metadata", b"}")), 4)
    yield "reject-malformed-pickle--tensor-twice", metadata([("w", single), ("w", single)], [place("w", (0,))])
    yield "reject-malformed-pickle--entry-none", metadata([("w", b"N")], [])
    # What many tensors share is not read for each of them.
    yield "reject-malformed-pickle--shared-chunks", metadata(shared_chunks(200), [])
    yield "reject-malformed-pickle--shared-fields", metadata(shared_fields(40), [])
    yield "reject-malformed-pickle--path-long", metadata([("w", single)], [
        (built("MetadataIndex", ("fqn", short("w")), ("offset", size(0)), ("index", integer(0))), built(
            "_StorageInfo", ("relative_path", text("a/" * 3000 + "b")), ("offset", integer(0)), ("length", integer(1)),
            module="torch.distributed.checkpoint.filesystem"))])
    yield "reject-unsupported-pickle--name-long", metadata([(text("w" * 20000), single)], [])
    yield "reject-malformed-pickle--trailing", metadata([("w", single)], [place("w", (0,))]) + b"x"
    yield "reject-unsupported-pickle--transformed", metadata([("w", single)], [place("w", (0,), more=[
        ("transform_descriptors", b"](" + short("zstd") + b"e")])])
    yield "reject-unsupported-pickle--complex128", metadata([("w", of_tensor((4,), chunk((0,), (4,)), dtype="complex128"))], [])
    yield "reject-unsupported-pickle--sparse", metadata([("w", of_tensor((4,), chunk((0,), (4,)), layout="torch.sparse_coo"))], [])
    yield "reject-unsupported-pickle--foreign-class", metadata([("w", single)], [place("w", (0,))], (
        "storage_meta", named("Thing", "my.module")))
    yield "reject-hostile-pickle--os-system", pickled(named("system", "os") + short("true") + b"\x85R", 4)
    yield "reject-hostile-pickle--getattr-of-path", pickled(
        named("getattr", "builtins") + items(named("PosixPath", "pathlib"), short("touch")) + b"R", 4)
    yield "reject-hostile-pickle--getattr-called", pickled(
        named("getattr", "builtins") + items(named("_MEM_FORMAT_ENCODING"), short("x")) + b"R)R", 4)
    yield "reject-malformed-pickle--frame-too-long", b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N."


def main():
    folders = {"pickle": ([pickles], ".pkl"), "zip_archive": ([zip_archives], ".zip"),
               "torch_file": ([torch_files, real_files], ".pt"), "dcp": ([dcp], ".metadata")}
    for folder, (makers, ending) in folders.items():
        target = HERE / folder
        target.mkdir(exist_ok=True)
        for maker in makers:
            try:
                for name, content in maker():
                    if maker is not real_files or not (target / (name + ending)).exists():
                        (target / (name + ending)).write_bytes(content)
            except ImportError:
                print(f"{maker.__name__}: no torch here")


if __name__ == "__main__":
    main()
