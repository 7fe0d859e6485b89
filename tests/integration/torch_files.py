# SPDX-License-Identifier: MIT
"""Checkpoints as torch.save writes them: single, in shards with an index, in the old layout."""

import json
import os
import pathlib

import torch


def weird_tensors():
    """Every dtype that both forms have, and every way in which a tensor can lie in its storage."""
    generator = torch.Generator().manual_seed(11)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    base = random(40, 30)
    tied = random(64, 8)
    return {
        "float64": random(7, 3).double(), "float32": random(257, 5), "float16": random(9).half(),
        "bfloat16": random(33, 3).bfloat16(), "complex64": torch.complex(random(6), random(6)),
        "bool": random(13) > 0, "uint8": torch.arange(11, dtype=torch.uint8),
        "int8": torch.arange(-5, 6, dtype=torch.int8),
        "int16": torch.arange(10, dtype=torch.int16), "int32": torch.arange(10, dtype=torch.int32),
        "int64": torch.arange(10) * (1 << 40), "uint16": torch.arange(9).to(torch.uint16),
        "uint32": torch.arange(9).to(torch.uint32), "uint64": torch.arange(9).to(torch.uint64),
        "float8_e4m3fn": random(19).to(torch.float8_e4m3fn),
        "float8_e5m2": random(19).to(torch.float8_e5m2),
        "float8_e4m3fnuz": random(19).to(torch.float8_e4m3fnuz),
        "scalar": torch.tensor(2.5), "scalar.bool": torch.tensor(True),
        "empty": torch.empty(0, 4), "empty.view": base[:0],
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "tied.a": tied, "tied.b": tied, "tied.part": tied[3:5],
        "parameter": torch.nn.Parameter(random(5, 5)), "buffer.blöck \"x\"": random(3),
        "transposed": base.t(), "transposed.half": random(300, 200).half().t(),
        "columns": base[:, 3:17], "every.other": base[::2, ::3], "rows": base[5:9],
        "expanded": random(6, 1).expand(6, 50), "one.row": base[7:8].expand(1, 30),
        "channels_last": torch.nn.Conv2d(64, 48, 3).to(memory_format=torch.channels_last).weight,
        "channels_last_3d": random(4, 6, 2, 3, 5).to(memory_format=torch.channels_last_3d),
        "permuted": random(3, 4, 5, 6).permute(2, 0, 3, 1),
        "unfolded": torch.arange(20.0).unfold(0, 5, 2),
        "large.transposed": random(1500, 1100).t(),
        "large.columns": random(900, 2000)[:, 100:1500],
        "large.rows": random(1000, 700)[::3],
    }


def detached(tensors):
    return {name: tensor.detach() for name, tensor in tensors.items()}


def save_bin(folder, tensors, count=1, stem="pytorch_model", variant="", index=True, **save):
    """Deals tensors out to shards of torch.save, with an index; one file when count is 1."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = f".{variant}" if variant else ""
    if count == 1:
        torch.save(tensors, folder / f"{stem}{suffix}.bin", **save)
        return folder
    names, weight_map = list(tensors), {}
    for number in range(count):
        file = f"{stem}{suffix}-{number + 1:05d}-of-{count:05d}.bin"
        part = {name: tensors[name] for name in names[number::count]}
        torch.save(part, folder / file, **save)
        weight_map.update(dict.fromkeys(part, file))
    if index:
        name = f"{stem}.bin.index{suffix}.json"
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        (folder / name).write_text(json.dumps({"metadata": {"total_size": total},
                                               "weight_map": weight_map}))
    return folder


def transformers_bin(folder, model, count):
    """A model of transformers as its older versions saved it."""
    model.config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    return save_bin(folder, model.state_dict(), count)


def load_all(files):
    tensors = {}
    for path in files:
        tensors.update(torch.load(path, weights_only=True))
    return detached(tensors)


class Call:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile_objects(marker):
    """Name as the status must give it -> an object whose loading would make the file `marker`."""
    import builtins
    import shutil
    import subprocess

    return {
        "posix.system": Call(os.system, f"touch {marker}"),
        "eval": Call(builtins.eval, f"open({str(marker)!r}, 'w')"),
        "exec": Call(builtins.exec, f"open({str(marker)!r}, 'w')"),
        "check_call": Call(subprocess.check_call, ["touch", str(marker)]),
        "getattr": Call(builtins.getattr, pathlib.Path(marker), "touch"),
        "shutil.copyfile": Call(shutil.copyfile, __file__, str(marker)),
    }
