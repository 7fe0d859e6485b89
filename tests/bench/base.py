# SPDX-License-Identifier: MIT
"""Another commit of this repository as a program, to be measured beside the one that is there."""

import os
import subprocess

from mounts import TOP


def git(*arguments, **more):
    return subprocess.run(["git", "-C", TOP, *arguments], check=True, stdout=subprocess.PIPE, **more)


def build(commit, compiler):
    """Its name in short, and the program, which is built below build/ unless it is there."""
    name = git("rev-parse", "--short", commit + "^{commit}", text=True).stdout.strip()
    folder = TOP / "build/base" / name
    program = folder / "build/unshard"
    if not program.exists():
        print(f"building {name} in {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", folder], input=git("archive", name).stdout, check=True)
        environment = {key: value for key, value in os.environ.items()
                       if key not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
        subprocess.run(["make", "-C", folder, f"-j{os.cpu_count()}", f"CC={compiler}", "all"],
                       check=True, stdout=subprocess.DEVNULL, env=environment)
    return name, program
