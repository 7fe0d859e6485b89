# SPDX-License-Identifier: MIT
"""The table "Troubleshooting" of the README: each row is brought about, and what it says is shown
must be shown."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile

import pytest

import harness
from harness import PATIENCE, TOP, UNSHARD, Mount, is_alive, mounted, run, slow, wait_for

SHARD = "diffusion_pytorch_model-00002-of-00005.safetensors"
VIEW = "transformer/diffusion_pytorch_model.safetensors"


def table_rows():
    section = (TOP / "README.md").read_text().partition("\n## Troubleshooting\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines
            if line.startswith("| ")][1:]
    assert all(len(row) == 3 and all(row) for row in rows), rows
    return {row[0]: row[1] for row in rows}


ROWS = table_rows()
PRODUCERS = {}


def produces(symptom):
    def register(function):
        PRODUCERS[symptom] = function
        return function
    return register


def status_text(mount):
    return run("status", mount.path).stdout


def readable(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


@produces("The loader ends with SIGBUS or an I/O error")
@contextlib.contextmanager
def truncated(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    whole = (source / "transformer" / SHARD).read_bytes()
    (source / "transformer" / SHARD).write_bytes(whole[:-50000])
    with mounted(source) as mount:
        with pytest.raises(OSError):
            (mount / VIEW).read_bytes()
        text = status_text(mount)
        assert SHARD in text
        yield text
        (source / "transformer" / SHARD).write_bytes(whole)
        wait_for(lambda: readable(mount / VIEW), what="the whole shard to be served")


@produces("Shards are not merged")
@contextlib.contextmanager
def contradicted(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    shutil.copy(source / "transformer" / SHARD, source / VIEW)  # a file of their name
    with mounted(source) as mount:
        text = status_text(mount)
        assert VIEW in text and (mount / "transformer" / SHARD).exists()
        yield text
    (source / VIEW).unlink()
    with mounted(source) as mount:
        assert (mount / VIEW).exists()


@produces("A shard cannot be read, after a download")
@contextlib.contextmanager
def not_downloaded(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    (source / "transformer" / SHARD).write_text("<!DOCTYPE html><title>Sign in</title>")
    shutil.copytree(source / "vae", source / "vae_2")
    next((source / "vae_2").glob("*.safetensors")).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with mounted(source) as mount:
        yield status_text(mount)


@produces("The loader misses a part of the model")
@contextlib.contextmanager
def missing(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    (source / "transformer" / SHARD).unlink()
    with mounted(source) as mount:
        yield status_text(mount)


@produces("Reads hang")
@contextlib.contextmanager
def stalled(big, tmp_path):
    with slow(big) as storage, mounted(storage.path, "prefetch=follow") as mount:
        storage.command("stall *.safetensors")
        reader = subprocess.Popen(["head", "-c", "1000000", mount / "model.safetensors"],
                                  stdout=subprocess.DEVNULL)
        yield wait_for(lambda: (text := status_text(mount)) and "stalled:" in text and text,
                       what="a line about it")
        storage.command("release")
        assert reader.wait(PATIENCE) == 0


@produces("`ls`, or opening a file, hangs")
@contextlib.contextmanager
def listing_hangs(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "models/flux")
    with slow(source.parent) as storage, mounted(storage.path) as mount:
        storage.command("stall flux/transformer/*.safetensors")
        looks = subprocess.Popen(["ls", mount / "flux/transformer"], stdout=subprocess.DEVNULL)
        try:
            text = wait_for(lambda: (text := status_text(mount)) and "stalled:" in text and text,
                            what="a line about it")
            assert "flux/transformer\n" in text
            yield text
            storage.command("release")
            assert looks.wait(PATIENCE) == 0
        finally:
            storage.command("release")
            looks.kill()
            looks.wait(PATIENCE)


@produces("Storage was not up when a directory was looked at")
@contextlib.contextmanager
def not_up(flux, tmp_path):
    with slow(flux, direct=1) as storage:
        storage.command("fail *00002-of-00005.safetensors 0 1000 5")
        with mounted(storage.path) as mount:
            yield status_text(mount)
            storage.command("reset")
            wait_for(lambda: readable(mount / VIEW) is not None, what="it is there again")


@produces("Files of the source are missing")
@contextlib.contextmanager
def gone(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    with mounted(source) as mount:
        source.rename(tmp_path / "elsewhere")
        words = "not there any more"
        yield wait_for(lambda: (text := status_text(mount)) and words in text and text)
        (tmp_path / "elsewhere").rename(source)
        wait_for(lambda: words not in status_text(mount), what="the source is back")


@produces("Prefetching stops before the end")
@contextlib.contextmanager
def paused(big, tmp_path):
    with mounted(big, "chunk=64K", "window=1M") as mount:
        yield wait_for(lambda: (text := status_text(mount)) and "paused:" in text and text)


@produces("It was warm, and loading is slow again")
@contextlib.contextmanager
def lost_pages(flux, tmp_path):
    with mounted(flux) as mount:
        mount.wait_warm()
        with open(mount / VIEW, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read()
        yield status_text(mount)


@produces("One component is slow, the others are not")
@contextlib.contextmanager
def evicted(flux, tmp_path):
    with mounted(flux) as mount:
        mount.wait_warm()
        run("evict", mount.path, "transformer", check=True)
        yield status_text(mount)


@produces("Reads pause, and go on")
@contextlib.contextmanager
def killed(llama, tmp_path):
    with mounted(llama) as mount:
        os.kill(mount.pid, signal.SIGKILL)
        mount.pid = wait_for(lambda: (status := mount.status())["restarts"] and status["pid"],
                             what="another daemon")
        yield status_text(mount)


@produces("`Transport endpoint is not connected`")
@contextlib.contextmanager
def dead(llama, tmp_path):
    mount = Mount(llama)
    try:
        assert mount.result == 0, mount.output
        children = pathlib.Path(f"/proc/{mount.pid}/task/{mount.pid}/children").read_text()
        for pid in [*map(int, children.split()), mount.pid]:
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(mount.pid))

        def told():
            """What was under way at the death ends with ECONNABORTED first."""
            try:
                return os.listdir(mount.path) and None
            except OSError as error:
                return error.strerror == "Transport endpoint is not connected"

        wait_for(told, what="the kernel's word for it")
        yield run("status", mount.path).stderr
        run("umount", mount.path, check=True)
    finally:
        mount.discard()


@produces("Another user may not read the mount")
@contextlib.contextmanager
def another_user(llama, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-public-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "mnt").mkdir()
    program = shutil.copy(UNSHARD, folder)
    try:
        with mounted(llama, mountpoint=folder / "mnt"):
            yield subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup",
                                  "--clear-groups", program, "status", folder / "mnt"],
                                 stderr=subprocess.PIPE, text=True).stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@produces("Another user may not read a merged file")
@contextlib.contextmanager
def kept_from_others(flux, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("another user is needed")
    source = shutil.copytree(flux, tmp_path / "source")
    for path in (source / "transformer").iterdir():
        path.chmod(0o600 if path.name == SHARD else 0o644)
    with mounted(source, "allow_other") as mount:
        def told():
            return subprocess.run(["cat", mount / VIEW], user="nobody", group="nogroup",
                                  extra_groups=[], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True,
                                  env=dict(os.environ, LC_ALL="C")).stderr
        yield told()
        (source / "transformer" / SHARD).chmod(0o644)
        wait_for(lambda: not told(), what="the file for everybody")


@produces("`unshard umount` fails")
@contextlib.contextmanager
def busy(llama, tmp_path):
    with mounted(llama) as mount:
        with open(mount / "model.safetensors"):
            done = run("umount", mount.path)
            assert done.returncode == 1
            yield done.stderr


@produces("Reads fail after the source was changed")
@contextlib.contextmanager
def changed(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    with mounted(source, "prefetch=off") as mount:
        path = source / "transformer" / SHARD
        data = bytearray(path.read_bytes())
        data[-9] ^= 1
        path.write_bytes(data)
        with pytest.raises(OSError):
            (mount / VIEW).read_bytes()
        yield status_text(mount)


@produces("Nothing answers any more")
@contextlib.contextmanager
def stopped(llama, tmp_path):
    mount = Mount(llama)
    try:
        assert mount.result == 0, mount.output
        os.kill(mount.pid, signal.SIGSTOP)
        yield run("wait", "--timeout", "0.2", mount.path).stderr
        run("umount", "--force", mount.path, check=True)
        assert not harness.is_mounted(mount.path)
    finally:
        os.kill(mount.pid, signal.SIGCONT)
        mount.discard()


def test_every_row_has_a_producer():
    assert set(ROWS) == set(PRODUCERS)


@pytest.mark.parametrize("symptom", ROWS)
def test_row(symptom, tmp_path, request):
    producer = PRODUCERS[symptom]
    source = request.getfixturevalue(producer.__wrapped__.__code__.co_varnames[0])
    shown = re.findall(r"`([^`]+)`", ROWS[symptom])
    assert shown
    with producer(source, tmp_path) as text:
        for part in shown:
            assert part in text, f"{part!r} is not in:\n{text}"
