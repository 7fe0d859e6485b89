# SPDX-License-Identifier: MIT
"""GGUF files for tests: written by the gguf package or byte by byte, and a merge of splits of our
own, which follows what llama-gguf-split --merge does and knows nothing of unshard."""

import io
import pathlib
import struct

import gguf
import numpy

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
SCALARS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q",
           I64: "q", F64: "d"}


def string(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    return string(value) if kind == STRING else struct.pack("<" + SCALARS[kind], value)


def pair(key, kind, value, of=None):
    """A key and its value; of: the type of an array's elements."""
    if kind != ARRAY:
        return string(key) + struct.pack("<I", kind) + scalar(kind, value)
    return (string(key) + struct.pack("<IIQ", ARRAY, of, len(value)) +
            b"".join(scalar(of, one) for one in value))


def split_pairs(number, count, tensors):
    return [pair("split.no", U16, number), pair("split.count", U16, count),
            pair("split.tensors.count", I32, tensors)]


def tensor_bytes(dims, kind):
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    return int(numpy.prod(dims, dtype=numpy.int64)) // block * size


def build(pairs, tensors, alignment=32, version=3, pad=b"\0", tail=True):
    """A file of these pairs and of tensors (name, dims, type, data)."""
    infos, data = b"", b""
    for name, dims, kind, content in tensors:
        infos += string(name) + struct.pack("<I", len(dims))
        infos += b"".join(struct.pack("<q", dim) for dim in dims)
        infos += struct.pack("<IQ", kind, len(data))
        data += content + pad * (-len(content) % alignment)
    if not tail and tensors:
        data = data[:len(data) - (-len(tensors[-1][3]) % alignment)]
    header = b"GGUF" + struct.pack("<Iqq", version, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return header + (bytes(-len(header) % alignment) if tensors else b"") + data


class Reader:
    """The parts of a GGUF file."""

    def __init__(self, path):
        self.file = io.BytesIO(pathlib.Path(path).read_bytes())
        assert self.file.read(4) == b"GGUF"
        _, tensors, pairs = self.unpack("<Iqq")
        self.pairs = [self.read_pair() for _ in range(pairs)]
        self.alignment = next((value for key, _, _, value in self.pairs
                               if key == b"general.alignment"), 32)
        self.tensors = [self.read_tensor() for _ in range(tensors)]
        start = self.file.tell() + -self.file.tell() % self.alignment
        for tensor in self.tensors:
            self.file.seek(start + tensor["offset"])
            tensor["data"] = self.file.read(tensor_bytes(tensor["dims"], tensor["type"]))

    def unpack(self, form):
        return struct.unpack(form, self.file.read(struct.calcsize(form)))

    def read_string(self):
        return self.file.read(self.unpack("<Q")[0])

    def read_value(self, kind):
        return self.read_string() if kind == STRING else self.unpack("<" + SCALARS[kind])[0]

    def read_pair(self):
        key, (kind,) = self.read_string(), self.unpack("<I")
        if kind != ARRAY:
            return key, kind, None, self.read_value(kind)
        of, count = self.unpack("<IQ")
        return key, kind, of, [self.read_value(of) for _ in range(count)]

    def read_tensor(self):
        name, (rank,) = self.read_string(), self.unpack("<I")
        dims = self.unpack(f"<{rank}q")
        kind, offset = self.unpack("<IQ")
        return {"name": name, "dims": dims, "type": kind, "offset": offset}


def rewritten(kind, value):
    """Booleans become 0 or 1, strings end at their first NUL."""
    if kind == STRING:
        return value.split(b"\0")[0]
    return int(value != 0) if kind == BOOL else value


def merge(paths):
    """What llama-gguf-split --merge makes of these splits (alignment 32)."""
    splits = [Reader(path) for path in paths]
    pairs = []
    for key, kind, of, value in splits[0].pairs:
        if key == b"split.count":
            continue
        if kind == ARRAY:
            pairs.append(pair(key, kind, [rewritten(of, one) for one in value], of))
        else:
            pairs.append(pair(key, kind, rewritten(kind, value)))
    pairs.append(pair("split.count", U16, 0))
    tensors = []
    for split in splits:
        for tensor in split.tensors:
            dims = significant(tensor["dims"]) or (1,)
            tensors.append((tensor["name"], dims, tensor["type"], tensor["data"]))
    return build(pairs, tensors)


def split_names(folder, prefix, count):
    return [pathlib.Path(folder) / f"{prefix}-{number + 1:05d}-of-{count:05d}.gguf"
            for number in range(count)]


def write_vector(folder):
    """Two splits whose merged file is known from the tool itself. Returns their paths."""
    paths = split_names(folder, "vector", 2)
    first = [pair("general.name", STRING, "vector"), pair("a.bool", BOOL, 7),
             pair("a.u32s", ARRAY, [1, 2, 3], of=U32), pair("a.nul", STRING, b"ab\0cd"),
             pair("a.strings", ARRAY, ["x", "yz", b"q\0r"], of=STRING),
             *split_pairs(0, 2, 3), pair("z.after", F32, 1.5)]
    paths[0].write_bytes(build(first, [
        ("b", [3, 2], 0, bytes(range(24))), ("a", [5, 1], 1, bytes(range(100, 110)))], pad=b"\xee"))
    paths[1].write_bytes(build(split_pairs(1, 2, 3), [("c", [7, 1, 1], 0, bytes(range(200, 228)))],
                               tail=False))
    return paths


def write_model(folder, seed=1, prefix="model", **split):
    """A model as the gguf package writes it in splits: keys of every kind, quantised tensors."""
    generator = numpy.random.default_rng(seed)
    writer = gguf.GGUFWriter(pathlib.Path(folder) / f"{prefix}.gguf", "llama", **split)
    writer.add_name("tiny")
    writer.add_uint8("test.u8", 200)
    writer.add_int64("test.i64", -5)
    writer.add_float64("test.f64", 0.25)
    writer.add_bool("test.bool", True)
    writer.add_array("test.floats", [0.5, 1.5])
    writer.add_token_list(["<s>", "Hällo", "w", "x" * 300])
    writer.add_token_scores([0.0, -1.0, -2.5, 3.0])
    kinds = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q4_K", "Q6_K", "IQ4_NL"]
    for number in range(3 * len(kinds)):
        kind = gguf.GGMLQuantizationType[kinds[number % len(kinds)]]
        rows = int(generator.integers(1, 9))
        if kind.name in ("F32", "F16"):
            values = generator.standard_normal((rows, 3 + number)).astype(
                numpy.float32 if kind.name == "F32" else numpy.float16)
            writer.add_tensor(f"blk.{number}.weight", values)
            continue
        block, size = gguf.GGML_QUANT_SIZES[kind]
        width = (256 // block) * size if block > 1 else 10
        raw = generator.integers(0, 256, (rows, width), dtype=numpy.uint8)
        writer.add_tensor(f"blk.{number}.weight", raw, raw_dtype=kind)
    writer.add_tensor("output_norm.weight", numpy.arange(5, dtype=numpy.float32).reshape(1, 1, 5))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(pathlib.Path(folder).glob(f"{prefix}*.gguf"))


def significant(dims):
    """Without trailing dimensions of 1: llama.cpp does not write them."""
    dims = [int(dim) for dim in dims]
    while len(dims) > 1 and dims[-1] == 1:
        dims.pop()
    return tuple(dims)


def contents(path):
    """Keys and tensors as the gguf package reads them, copied out of the file."""
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: (tensor.tensor_type.name, significant(tensor.shape),
                             tensor.data.tobytes()) for tensor in reader.tensors}
    return fields, tensors
