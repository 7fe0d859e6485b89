# SPDX-License-Identifier: MIT
"""What a checkpoint may ask for has a bound, and beside what passes it the rest works."""

import pathlib
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import PATIENCE, UNSHARD, mounted

SHARDS = 120


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "checkpoint"
    folder.mkdir()
    for number in range(SHARDS):
        save_file({f"layer.{number}": torch.full((300,), number, dtype=torch.int32)},
                  folder / f"model-{number + 1:05}-of-{SHARDS:05}.safetensors")
    return folder


def values(path):
    """The one value of each layer."""
    tensors = load_file(path)
    return [int(tensors[f"layer.{number}"].unique()) for number in range(SHARDS)]


def with_descriptors(count):
    """What to put before a command that may have so many, now and later."""
    return ("sh", "-c", f'ulimit -n {count} && exec "$@"', "sh")


def test_more_shards_than_descriptors(many_shards):
    """One for each shard would be too many already, and two are wanted."""
    with mounted(many_shards, prefix=with_descriptors(100)) as mount:
        mount.wait_warm()
        assert values(mount / "model.safetensors") == list(range(SHARDS))
        assert (mount / ".unshard/errors").read_text() == ""
        assert len(list(pathlib.Path(f"/proc/{mount.pid}/fd").iterdir())) < 90


def test_the_soft_limit_of_descriptors_is_raised(many_shards):
    prefix = ("sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh")
    with mounted(many_shards, "prefetch=off", prefix=prefix) as mount:
        limits = pathlib.Path(f"/proc/{mount.pid}/limits").read_text()
        soft, hard = next(line for line in limits.splitlines() if "open files" in line).split()[3:5]
        assert soft == hard


def test_commands_with_few_descriptors(many_shards, tmp_path):
    source, target = shutil.copytree(many_shards, tmp_path / "source"), tmp_path / "target"
    for arguments in (["ls", source], ["seal", source], ["verify", source],
                      ["export", source, target]):
        done = subprocess.run([*with_descriptors(40), UNSHARD, *map(str, arguments)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
