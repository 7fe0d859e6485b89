# SPDX-License-Identifier: MIT
"""Digests beside a checkpoint, made by the tools that people make them with."""

import hashlib
import pathlib
import subprocess

import checkpoints
from harness import run


def weights(folder, pattern="*.safetensors"):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob(pattern)
                  if path.is_file() and ".cache" not in path.parts)


def list_by(folder, name, *command, pattern="*.safetensors"):
    """What `command FILE...` prints, run in the folder, as the file `name` there."""
    done = subprocess.run([*command, *weights(folder, pattern)], cwd=folder, check=True,
                          stdout=subprocess.PIPE)
    (pathlib.Path(folder) / name).write_bytes(done.stdout)


def by_sha256sum(folder, pattern="*.safetensors"):
    list_by(folder, "SHA256SUMS", "sha256sum", pattern=pattern)
    return folder, "SHA256SUMS", "sha256"


def by_md5sum(folder):
    list_by(folder, "checklist.chk", "md5sum")
    return folder, "checklist.chk", "md5"


def by_xxhsum(folder):
    list_by(folder, "checksums.xxh128", "xxhsum", "-H2")
    return folder, "checksums.xxh128", "xxh3-128"


def by_xxh64sum(folder):
    list_by(folder, "model.xxh64", "xxhsum", "-H1")
    return folder, "model.xxh64", "xxh64"


def by_single_files(folder):
    for name in weights(folder):
        digest = checkpoints.sha256(pathlib.Path(folder) / name)
        (pathlib.Path(folder) / f"{name}.sha256").write_text(f"{digest}  {name}\n")
    return folder, ".sha256", "sha256"


def by_manifest(folder):
    run("seal", folder, check=True)
    return folder, "unshard-manifest.json", "sha256"


def by_hub_cache(folder):
    snapshot = checkpoints.hub_cache(pathlib.Path(folder).parent / "hub", folder)
    return snapshot, "blob", "sha256"


def by_local_download(folder):
    target = pathlib.Path(folder).parent / "download"
    return checkpoints.local_download(target, folder), ".metadata", "sha256"


# Each takes a folder of weights and returns where to mount from, what the origin is called in
# messages, and the algorithm that the status names.
ORIGINS = {"sha256sum": by_sha256sum, "md5sum": by_md5sum, "xxhsum": by_xxhsum,
           "xxh64": by_xxh64sum, "single": by_single_files, "manifest": by_manifest,
           "hub": by_hub_cache, "download": by_local_download}


def xxh3_128(data):
    done = subprocess.run(["xxhsum", "-H2", "-"], input=data, check=True, stdout=subprocess.PIPE)
    return done.stdout.split()[0].decode()


def digest_of(path, algorithm):
    if algorithm == "xxh3-128":
        return xxh3_128(pathlib.Path(path).read_bytes())
    if algorithm == "xxh64":
        done = subprocess.run(["xxhsum", "-H1", str(path)], check=True, stdout=subprocess.PIPE)
        return done.stdout.split()[0].decode()
    return hashlib.new(algorithm, pathlib.Path(path).read_bytes()).hexdigest()
