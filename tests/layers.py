#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Which room may include which: the layers of lib/ and fs/, checked. Prints what breaks them."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(r'^#include ["<]([^">]+)[">]', re.M)
FORMAT_BY_NAME = re.compile(r'format_of_name\("(\w+)"\)')

# Each room of the library and those below it that it may include.
LIB = {
    "base": set(),
    "keep": {"base"},
    "json": {"base"},
    "formats": {"base", "json"},
    "view": {"base", "formats"},
    "digest": {"base", "json"},
    "tree": {"base", "json", "formats", "view", "digest"},
    "live": {"base", "tree"},
    "store": {"base", "formats", "tree"},
    "status": {"base", "digest"},
    "engine": {"base", "formats", "view", "digest", "tree", "store", "status"},
    "export": {"base", "formats", "digest", "tree", "store", "engine"},
    "verify": {"base", "json", "digest", "tree", "store"},
}
# Each format, a folder of formats/, and those whose files it takes apart or is shown as. Everybody
# else goes through formats/format.h, whose table alone (formats/format.c) names all of them.
FORMATS = {
    "safetensors": set(),
    "gguf": set(),
    "torch": {"safetensors"},
    "dcp": {"safetensors", "torch"},
}
# Parts of the engine that know nothing but what they are made of: each its own struct and those of
# parts below it, and never the engine.
PARTS = {
    "buffers": {"kept"},
    "chunk_runs": set(),
    "epoch": set(),
    "gate": set(),
    "held_pages": set(),
    "jobs": set(),
    "kept": set(),
    "runs": set(),
    "staging": {"buffers", "kept"},
    "streams": set(),
    "wanted": set(),
}
# Each room of fs/ and those that it may include besides lib/unshard.h.
FS = {
    "host": set(),
    "kernel": {"host"},
    "mount": {"kernel", "host", "cli"},
    "cli": {"host", "kernel", "mount"},
}


def includes(path):
    return INCLUDE.findall(path.read_text())


def format_breaches(path, parts):
    inside = parts[1] if parts[0] == "formats" and len(parts) > 2 else None
    known = FORMATS.get(inside, set()) | {inside}
    if parts != ("formats", "format.c"):
        for name in includes(path):
            other = name.split("/")
            if other[0] == "formats" and len(other) > 2 and other[1] not in known:
                yield f"knows {other[1]} by name ({name}), not through formats/format.h"
    for name in FORMAT_BY_NAME.findall(path.read_text()):
        yield f"knows {name} by name"


def lib_breaches(path):
    parts = path.relative_to(ROOT / "lib").parts
    yield from format_breaches(path, parts)
    room = parts[0]
    part = path.stem if room == "engine" else None
    for name in includes(path):
        if part in PARTS and name.startswith("engine/"):
            other = name[len("engine/"):-len(".h")]
            if other != part and other not in PARTS[part]:
                yield f"{part} is not above {other}"
        first = name.split("/")[0]
        if name.startswith(("fuse", "fs/")):
            yield f"lib/ knows nothing of {name}"
        elif first in LIB and first != room and first not in LIB[room]:
            yield f"{room}/ is not above {first}/ ({name})"


def fs_breaches(path):
    room = path.relative_to(ROOT / "fs").parts[0]
    for name in includes(path):
        parts = name.split("/")
        if name.startswith("fuse") and room != "kernel":
            yield f"only fs/kernel/ includes {name}"
        elif parts[0] == "fs" and parts[1] != room and parts[1] not in FS[room]:
            yield f"{room}/ may not use {name}"
        elif name != "unshard.h" and (parts[0] == "lib" or (ROOT / "lib" / name).exists()):
            yield f"fs/ knows of lib/ only unshard.h, not {name}"


def main():
    found = 0
    for side, breaches in (("lib", lib_breaches), ("fs", fs_breaches)):
        for path in sorted((ROOT / side).glob("*/**/*.[ch]")):
            for breach in breaches(path):
                print(f"{path.relative_to(ROOT)}: {breach}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
