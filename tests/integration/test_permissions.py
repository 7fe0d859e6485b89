# SPDX-License-Identifier: MIT
"""With allow_other nobody reads by the mount what the source keeps from him: shards of several owners,
and names in directories that he may not list."""

import os
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from harness import mounted, wait_for

ALICE, BOB = 61001, 61002

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users are needed")


def reads(user, path):
    return subprocess.run(["cat", path], user=user, group=user, extra_groups=[], timeout=20,
                          capture_output=True, check=False).returncode == 0


def shards(folder):
    folder.mkdir()
    folder.chmod(0o755)
    names = [folder / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"t{number}": torch.zeros(64)}, name)
        name.chmod(0o644)
    return names


def test_a_merged_file_is_for_who_may_read_all_shards(tmp_path):
    for name, owner in zip(shards(tmp_path / "source"), (BOB, ALICE)):
        os.chown(name, owner, owner)
        name.chmod(0o600)
    with mounted(tmp_path / "source", "allow_other", "layout=both") as mount:
        index = mount.path / "model.safetensors.index.json"
        assert not reads(ALICE, index) and not reads(BOB, index) and index.read_bytes()
        view = mount.path / "model.safetensors"
        assert not reads(ALICE, view) and not reads(BOB, view) and view.read_bytes()


def test_the_status_tells_of_directories_that_one_may_list(tmp_path):
    """What lies in others may be read by who knows its name, as on disk."""
    source = tmp_path / "source"
    shards(source)
    shards(source / "hidden")
    os.chown(source / "hidden", BOB, BOB)
    (source / "hidden").chmod(0o711)
    with mounted(source, "allow_other") as mount:
        def told(user):
            done = subprocess.run(["cat", *(mount.path / ".unshard" / name for name in
                                            ("status", "status.json", "metrics", "errors"))],
                                  user=user, group=user, extra_groups=[], text=True, check=True,
                                  stdout=subprocess.PIPE)
            return done.stdout
        assert "hidden" not in told(ALICE) and '"model.safetensors"' in told(ALICE)
        assert "hidden" in told(BOB) and "hidden" in told(0)
        (source / "hidden").chmod(0o755)
        wait_for(lambda: "hidden" in told(ALICE), what="what Alice may list by now")


def test_modes_that_change_later(tmp_path):
    first, second = shards(tmp_path / "source")
    config = tmp_path / "source/config.json"
    config.write_text("{}")
    with mounted(tmp_path / "source", "allow_other", "layout=both") as mount:
        mount.wait_warm()
        view = mount.path / "model.safetensors"
        index = mount.path / "model.safetensors.index.json"
        assert reads(ALICE, index) and reads(ALICE, view) and reads(ALICE, mount.path / "config.json")
        second.chmod(0o600)
        config.chmod(0o600)
        wait_for(lambda: not reads(ALICE, index), what="an index that is made up, too")
        wait_for(lambda: not reads(ALICE, view), what="the mode of a shard is followed")
        wait_for(lambda: not reads(ALICE, mount.path / "config.json"), what="a file's, too")
        os.chown(second, ALICE, ALICE)
        wait_for(lambda: reads(ALICE, view), what="her own, and one that is for everybody")
        assert not reads(BOB, view)
        os.chown(first, BOB, BOB)
        first.chmod(0o600)
        wait_for(lambda: not reads(ALICE, view), what="one each")
        first.chmod(0o644)
        second.chmod(0o644)
        wait_for(lambda: reads(BOB, view), what="for everybody again")
        assert mount.status()["chunks_evicted"] == 0  # nobody had to read anything again
