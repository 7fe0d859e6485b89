# SPDX-License-Identifier: MIT
"""fio over a view: verify mode, and random reads against the same bytes in a plain file."""

import json
import os
import shutil
import subprocess

import pytest

from harness import drop_pages, mounted

pytestmark = [pytest.mark.heavy,
              pytest.mark.skipif(not shutil.which("fio"), reason="fio is not installed")]


def fio(*options, directory):
    done = subprocess.run(["fio", "--output-format=json", "--name=job", *options], cwd=directory,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()[-3000:]
    text = done.stdout.decode()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    assert job["error"] == 0
    return job


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """A plain file that fio filled with blocks it can verify, seen through a mount."""
    source = tmp_path_factory.mktemp("fio")
    fio("--filename=data.bin", "--size=32M", "--rw=write", "--bs=64k", "--verify=crc32c",
        "--do_verify=0", directory=source)
    for left in source.glob("*.state"):
        left.unlink()
    return source


@pytest.mark.parametrize("engine", ["psync", "mmap"])
@pytest.mark.parametrize("pattern", ["read", "randread"])
def test_verify(verified, tmp_path, engine, pattern):
    with mounted(verified, "prefetch=follow") as mount:
        drop_pages(mount / "data.bin")
        job = fio(f"--filename={mount.path}/data.bin", "--size=32M", f"--rw={pattern}",
                  f"--ioengine={engine}", "--bs=64k", "--verify=crc32c", "--verify_only=1",
                  "--readonly", directory=tmp_path)
        assert job["read"]["io_bytes"] >= 32 << 20


@pytest.mark.parametrize("engine", ["psync", "mmap", "libaio"])
def test_random_reads_of_a_view(big, tmp_path, engine):
    with mounted(big) as mount:
        view = mount / "model.safetensors"
        job = fio(f"--filename={view}", "--rw=randread", f"--ioengine={engine}", "--bs=4k",
                  "--numjobs=1", "--io_size=32M", "--readonly", "--randseed=7",
                  "--invalidate=0", *(["--direct=1"] if engine == "libaio" else []),
                  directory=tmp_path)
        assert job["read"]["io_bytes"] == 32 << 20
        shutil.copyfile(view, tmp_path / "plain")
        subprocess.run(["cmp", view, tmp_path / "plain"], check=True)
        assert os.path.getsize(view) == os.path.getsize(tmp_path / "plain")
