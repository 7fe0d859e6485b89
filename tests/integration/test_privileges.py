# SPDX-License-Identifier: MIT
"""What the daemon of a mount can still do when it is root's."""

import os
import pathlib

import pytest

import checkpoints
from harness import SANITIZER, mounted

SYS_ADMIN, DAC_OVERRIDE, DAC_READ_SEARCH = 1 << 21, 1 << 1, 1 << 2


def facts(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def processes_of(pid):
    """The daemon and its helpers."""
    yield pid
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        yield from map(int, (task / "children").read_text().split())


@pytest.mark.skipif(os.geteuid() != 0, reason="root only: others have nothing to give up")
def test_root_gives_up_what_it_does_not_need(tmp_path):
    checkpoints.save_shards(tmp_path, checkpoints.random_tensors(1), 2)
    with mounted(tmp_path) as mount:
        mount.wait_warm()
        for pid in processes_of(mount.pid):
            fact = facts(pid)
            for sort in ("CapPrm", "CapEff", "CapBnd"):
                assert int(fact[sort], 16) & ~(SYS_ADMIN | DAC_OVERRIDE | DAC_READ_SEARCH) == 0, fact
            assert fact["NoNewPrivs"].strip() == "1"
            assert SANITIZER or fact["Seccomp"].strip() == "2"
