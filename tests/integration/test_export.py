# SPDX-License-Identifier: MIT
"""Exports that do not come to their end, and that the same command then finishes."""

import contextlib
import os
import shutil
import signal
import subprocess

import pytest
from safetensors.torch import load_file

import checkpoints
from compare import assert_same
from harness import PATIENCE, UNSHARD, run, slow, wait_for

JOURNAL = ".unshard-export"


def files_of(folder):
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def assert_whole(source, target):
    expected = checkpoints.tensors_of(checkpoints.shard_files(source))
    assert_same(load_file(target / "model.safetensors"), expected)
    assert not [name for name in files_of(target) if "unshard" in name]


@pytest.fixture
def source(big, tmp_path):
    folder = shutil.copytree(big, tmp_path / "source")
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL],
                         ids=["TERM", "INT", "KILL"])
def test_stopped_by_a_signal(source, tmp_path, number):
    target = tmp_path / "target"
    with slow(source, total=40 << 20) as storage:
        process = subprocess.Popen([UNSHARD, "export", "-o", "jobs=2", storage.path, target],
                                   stderr=subprocess.PIPE, text=True,
                                   # A shell in the background has it ignored.
                                   preexec_fn=lambda: signal.signal(number, signal.SIG_DFL)
                                   if number != signal.SIGKILL else None)
        try:
            wait_for((target / ".model.safetensors.unshard-tmp").exists,
                     what="a half written file")
            process.send_signal(number)
            assert process.wait(PATIENCE) == -number
        finally:
            process.kill()
            told = process.communicate()[1]
        left = files_of(target)
        assert JOURNAL in left and "model.safetensors" not in left, (list(left), told)
        if number != signal.SIGKILL:
            assert "the same command goes on" in told
            assert not [name for name in left if "unshard-tmp" in name]
        storage.command("reset")
        run("export", storage.path, target, check=True)
    assert_whole(source, target)


def test_stopped_while_storage_hangs(source, tmp_path):
    target = tmp_path / "target"
    with slow(source) as storage:
        storage.command("stall model-00006-of-00006.safetensors 8000000 4000000")
        process = subprocess.Popen([UNSHARD, "export", storage.path, target],
                                   stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: storage.stats()["stalled"] > 0, what="a read that hangs")
            process.terminate()
            wait_for(lambda: not [name for name in files_of(target) if "unshard-tmp" in name],
                     what="the half written file to go")
            storage.command("reset")  # the kernel does not let go before
            assert process.wait(PATIENCE) == -signal.SIGTERM
        finally:
            storage.command("reset")
            process.kill()
            process.wait(PATIENCE)
        run("export", storage.path, target, check=True)
    assert_whole(source, target)


@contextlib.contextmanager
def small_disk(folder, megabytes):
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", folder],
                   check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_was_full(source, tmp_path):
    size = sum(path.stat().st_size for path in files_of(source).values())
    with small_disk(tmp_path / "disk", size // 1048576 + 4) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(8 << 20))
        done = run("export", source, disk / "target")
        assert done.returncode == 1 and "No space left" in done.stderr
        assert not [name for name in files_of(disk / "target") if "unshard-tmp" in name]
        ballast.unlink()
        run("export", source, disk / "target", check=True)
        assert_whole(source, disk / "target")


def test_a_directory_of_somebody_else_is_refused(llama, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "config.json").write_text("mine")
    done = run("export", llama, target)
    assert done.returncode == 1 and "not empty" in done.stderr
    assert list(files_of(target)) == ["config.json"]
    assert (target / "config.json").read_text() == "mine"
