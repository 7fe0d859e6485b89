# SPDX-License-Identifier: MIT
"""A mount outlives its daemon: readers notice a pause at most."""

import contextlib
import fcntl
import hashlib
import json
import mmap
import os
import pathlib
import random
import shutil
import signal
import subprocess
import threading
import time

import pytest
import torch

import checkpoints
import digests
from harness import (PATIENCE, SANITIZER, UNSHARD, Sanitizers, child_named, detach, is_alive, is_mounted,
                     mounted, run, slow, supervisor_of, wait_for)

VIEW = "model.safetensors"
KILLS = 3 if SANITIZER else 10
NEXT = str(pathlib.Path(UNSHARD).parent / "tests/unshard-next")  # of another layout of what is kept


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = checkpoints.save_shards(tmp_path_factory.mktemp("survival") / "m",
                                     {f"t{i}": torch.randn(1 << 20) for i in range(24)}, 4)
    (folder / "config.json").write_text('{"a": 1}')
    return folder


@pytest.fixture(params=["", "1"], ids=["resend", "journal"])
def resend(request, monkeypatch):
    """With what the kernel sends again, and as on one that cannot."""
    if request.param:
        monkeypatch.setenv("UNSHARD_TEST_NO_RESEND", request.param)


def daemon_of(mount):
    return mount.status()["pid"]


def kill_daemon(mount, number=signal.SIGKILL):
    """Kills it, and waits until another one answers. Its process number, and that one's."""
    before = daemon_of(mount)
    os.kill(before, number)
    after = wait_for(lambda: (pid := daemon_of(mount)) != before and pid, what="another daemon")
    mount.pid = after
    return before, after


class Reader(threading.Thread):
    """Does something again and again, and keeps what went wrong and the longest that it took."""

    def __init__(self, what):
        super().__init__(daemon=True)
        self.what, self.failure, self.longest, self.rounds, self.over = what, None, 0.0, 0, False

    def run(self):
        try:
            while not self.over:
                begun = time.monotonic()
                self.what()
                self.longest = max(self.longest, time.monotonic() - begun)
                self.rounds += 1
        except Exception as error:  # pylint: disable=broad-except
            self.failure = error


@contextlib.contextmanager
def reading(*whats):
    readers = [Reader(what) for what in whats]
    for reader in readers:
        reader.start()
    try:
        yield readers
    finally:
        for reader in readers:
            reader.over = True
        for reader in readers:
            reader.join(PATIENCE)
    for reader in readers:
        assert not reader.is_alive(), f"{reader.what.__name__} hangs"
        assert reader.failure is None, f"{reader.what.__name__}: {reader.failure!r}"
        assert reader.rounds > 0


@contextlib.contextmanager
def ways_to_read(path, truth):
    """Each as a function that checks what it gets."""
    view, size, names = path / VIEW, len(truth), sorted(os.listdir(path))
    held = os.open(view, os.O_RDONLY)
    straight = os.open(view, os.O_RDONLY | os.O_DIRECT)

    def somewhere():
        return random.randrange(size // 4096) * 4096

    def by_read():
        at = somewhere()
        assert os.pread(held, 65536, at) == truth[at:at + 65536]

    def opened_anew():
        at = somewhere()
        with open(view, "rb") as file:
            file.seek(at)
            assert file.read(4096) == truth[at:at + 4096]

    def by_mmap():
        at = somewhere()
        with mmap.mmap(held, 0, prot=mmap.PROT_READ) as mapping:
            assert mapping[at:at + 4096] == truth[at:at + 4096]

    def direct():
        at = somewhere()
        buffer = mmap.mmap(-1, 65536)
        got = os.preadv(straight, [buffer], at)
        assert buffer[:got] == truth[at:at + got] and got == min(65536, size - at)

    def dropped():
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)

    def by_stat():
        assert os.stat(view).st_size == size

    def listed():
        assert sorted(os.listdir(path)) == names

    def attribute():
        assert os.getxattr(view, "user.unshard.state")

    def status():
        assert (path / ".unshard/status.json").read_text().endswith("}\n")

    yield [by_read, opened_anew, by_mmap, direct, dropped, by_stat, listed, attribute, status]
    os.close(held)
    os.close(straight)


@pytest.mark.parametrize("options", [(), ("verify=strict",), ("prefetch=open",)], ids=" ".join)
def test_readers_notice_nothing(model, tmp_path, resend, options):
    if options == ("verify=strict",):
        digests.by_sha256sum(model)
    with mounted(model) as mount:
        truth = (mount / VIEW).read_bytes()
    with slow(model, latency=2) as storage, mounted(storage.path, *options) as mount:
        with ways_to_read(mount.path, truth) as ways, reading(*ways):
            for _ in range(KILLS):
                kill_daemon(mount)
        status = mount.status()
        assert status["restarts"] == KILLS and status["restart_reason"] == "killed"
        assert hashlib.sha256((mount / VIEW).read_bytes()).digest() == hashlib.sha256(truth).digest()


def test_warm_stays_warm(model):
    with slow(model) as storage, mounted(storage.path) as mount:
        mount.wait_warm()
        truth = (mount / VIEW).read_bytes()
        before = storage.stats()["bytes"]
        kill_daemon(mount)
        mount.wait_warm()
        # Headers are read anew, to lay the directory out, with what the kernel reads ahead.
        assert storage.stats()["bytes"] - before < 1 << 20
        assert (mount / VIEW).read_bytes() == truth  # of which the kernel may have dropped some by itself


def test_what_is_half_read_goes_on(model):
    with mounted(model) as mount:
        status = os.open(mount / ".unshard/status.json", os.O_RDONLY)
        first = os.read(status, 100)
        listing = os.scandir(mount.path)
        names = [next(listing).name]
        kill_daemon(mount)
        rest = os.read(status, 1 << 20)
        assert (first + rest).decode().startswith("{") and (first + rest).endswith(b"}\n")
        names += [entry.name for entry in listing]
        assert sorted(names) == sorted(os.listdir(mount.path))
        os.close(status)


def test_a_shard_that_changes_meanwhile_is_noticed(model, tmp_path):
    """In a way that size and time do not tell: what it was when it was read is known still."""
    source = tmp_path / "m"
    subprocess.run(["cp", "-a", model, source], check=True)
    with mounted(source) as mount:
        mount.wait_warm()
        shard = sorted(source.glob("*.safetensors"))[1]
        status = shard.stat()
        kill_daemon(mount)
        with open(shard, "r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"changed!")
        os.utime(shard, ns=(status.st_atime_ns, status.st_mtime_ns))
        run("evict", mount.path, check=True)
        with pytest.raises(OSError):
            (mount / VIEW).read_bytes()


def test_a_supervisor_that_dies_is_replaced(model):
    with mounted(model) as mount:
        first = supervisor_of(daemon_of(mount))
        os.kill(first, signal.SIGKILL)
        second = wait_for(lambda: (pid := child_named(mount.pid, "unshard-monitor")) != first and pid)
        kill_daemon(mount)
        assert supervisor_of(daemon_of(mount)) == second
        kill_daemon(mount)


def test_both_dead_at_once(model):
    with mounted(model) as mount:
        mount.wait_warm()
        reader = subprocess.Popen(["cat", mount / VIEW], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        monitor, daemon = supervisor_of(daemon_of(mount)), mount.pid
        os.kill(daemon, signal.SIGSTOP)  # which would have another supervisor before it ends
        os.kill(monitor, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        reader.wait(PATIENCE)
        with mounted(model, mountpoint=mount.path) as again:
            assert (again / VIEW).stat().st_size > 0


def test_three_crashes_end_it(model):
    """A daemon that crashes again and again is not started for ever, and nobody hangs."""
    with mounted(model) as mount:
        mount.wait_warm()
        held = os.open(mount / VIEW, os.O_RDONLY)
        os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
        for _ in range(2):
            kill_daemon(mount, signal.SIGSEGV)
        os.kill(daemon_of(mount), signal.SIGSEGV)
        with pytest.raises(OSError):
            for _ in range(1000):
                os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(held, 4096, 0)
        os.close(held)
        wait_for(lambda: not is_mounted(mount.path), what="taken away")
        mount.pid = None


@contextlib.contextmanager
def in_the_foreground(model, at):
    """The process that was started; it ends with status 0, and the mount with it."""
    at.mkdir()
    process = subprocess.Popen([UNSHARD, "mount", "-f", model, at], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: is_mounted(at) and (at / VIEW).exists(), what="mounted")
        yield process
        assert process.wait(PATIENCE) == 0
        assert not is_mounted(at)
    finally:
        detach(at)
        process.kill()
        process.communicate()


@pytest.mark.skipif(bool(SANITIZER), reason="what is started here reports by itself")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground(model, tmp_path, number):
    at = tmp_path / "at"
    with in_the_foreground(model, at) as process:
        daemon = child_named(process.pid, "unshard")
        os.kill(daemon, signal.SIGKILL)
        wait_for(lambda: child_named(process.pid, "unshard") not in (None, daemon), what="another daemon")
        assert (at / VIEW).stat().st_size > 0
        process.send_signal(number)


# ---- upgrades -----------------------------------------------------------------------------------


def program_of(pid):
    return os.readlink(f"/proc/{pid}/exe")


def upgrade(mount, program=UNSHARD, *more):
    done = subprocess.run([program, "upgrade", "--json", *more, mount.path], capture_output=True, text=True,
                          timeout=PATIENCE * 3)
    outcome = json.loads(done.stdout)
    assert (done.returncode == 0) == outcome["upgraded"] == (outcome["reason"] is None), done
    return outcome


@pytest.fixture
def other_program(tmp_path):
    return pathlib.Path(shutil.copy(UNSHARD, tmp_path / "unshard"))


def test_upgrades_under_load(model, other_program, resend):
    with mounted(model) as mount:
        truth = (mount / VIEW).read_bytes()
    with slow(model, latency=2) as storage, mounted(storage.path) as mount:
        with ways_to_read(mount.path, truth) as ways, reading(*ways):
            for program in [other_program, UNSHARD] * (KILLS // 3):
                outcome = upgrade(mount, program)
                assert outcome["from"] == outcome["to"], outcome
        status = mount.status()
        assert (status["restarts"], status["restart_reason"]) == (KILLS // 3 * 2, "upgraded")


def test_daemon_and_supervisor_are_of_the_new_program(model, other_program):
    with mounted(model) as mount:
        assert upgrade(mount, other_program)["upgraded"]
        supervisor = wait_for(lambda: supervisor_of(daemon_of(mount)), what="a supervisor")  # it may be just becoming it
        wait_for(lambda: program_of(supervisor) == str(other_program), what="the supervisor is new")
        assert program_of(daemon_of(mount)) == str(other_program)
        kill_daemon(mount)
        assert program_of(daemon_of(mount)) == str(other_program)
        assert supervisor_of(daemon_of(mount)) == supervisor


def test_a_program_that_cannot_take_over_is_refused(model, tmp_path):
    with mounted(model) as mount:
        mount.wait_warm()
        before = daemon_of(mount)
        outcome = upgrade(mount, NEXT)
        assert not outcome["upgraded"] and "layout" in outcome["reason"], outcome
        done = subprocess.run([NEXT, "upgrade", mount.path], capture_output=True, text=True, timeout=PATIENCE * 3)
        assert done.returncode == 1 and "served as before" in done.stderr, done.stderr
        assert daemon_of(mount) == before and mount.status()["restarts"] == 0
        kill_daemon(mount)  # and is followed by what it was


def test_a_program_that_is_no_unshard_is_refused(model):
    with mounted(model) as mount, open(mount / ".unshard/status.json", "rb") as control:
        before = daemon_of(mount)
        for program in ["/bin/true", "/etc/passwd", "/nowhere", "build/unshard", "/etc", "", "/bin/sh"]:
            message = bytearray(4208)
            message[8:8 + len(program)] = program.encode()
            assert fcntl.ioctl(control, 0xC0000000 | 4208 << 16 | ord("u") << 8 | 4, message) == 0
            assert int.from_bytes(message[:8], "little") != 0, program
            assert message[8:].split(b"\0")[0], program
        assert daemon_of(mount) == before


def test_what_upgrade_is_told_makes_sense(tmp_path):
    assert run("upgrade").returncode == 2
    assert run("upgrade", "--all", tmp_path).returncode == 2
    done = run("upgrade", tmp_path)
    assert done.returncode == 1 and str(tmp_path) in done.stderr


@pytest.mark.skipif(bool(SANITIZER), reason="what is started here reports by itself")
def test_upgrades_in_the_foreground_keep_the_process(model, tmp_path, other_program):
    at = tmp_path / "at"
    with in_the_foreground(model, at) as process:
        done = subprocess.run([other_program, "upgrade", at], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        wait_for(lambda: program_of(process.pid) == str(other_program), what="the supervisor is new")
        process.send_signal(signal.SIGTERM)


def test_a_program_that_others_can_change_is_refused(model, other_program):
    with mounted(model) as mount:
        other_program.chmod(0o775)
        assert "would run" in upgrade(mount, other_program)["reason"]
        assert mount.status()["restarts"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace of processes")
def test_a_container_has_nothing_run_outside_of_it(model, other_program):
    """Whose root has the number of the daemon's."""
    with mounted(model) as mount:
        done = subprocess.run(["unshare", "--pid", "--fork", other_program, "upgrade", mount.path],
                              capture_output=True, text=True, timeout=PATIENCE * 3)
        assert done.returncode == 1 and "none of a container" in done.stderr, done.stderr
        assert mount.status()["restarts"] == 0


def test_a_file_that_is_open_and_is_another_one_now(model, tmp_path):
    source = tmp_path / "m"
    shutil.copytree(model, source, ignore=shutil.ignore_patterns("SHA256SUMS"))
    with mounted(source) as mount:
        mount.wait_warm()
        shard = sorted(source.glob("*.safetensors"))[1]
        with open(mount / VIEW, "rb"):
            shutil.copy(shard, tmp_path / "new")
            with open(tmp_path / "new", "r+b") as file:
                file.seek(-100, os.SEEK_END)
                file.write(b"changed!")
            os.replace(tmp_path / "new", shard)
            outcome = upgrade(mount)
            assert VIEW in outcome["reason"] and "is open" in outcome["reason"], outcome
        assert wait_for(lambda: upgrade(mount)["upgraded"], what="closed, it is no reason any more")
        assert b"changed!" in (mount / VIEW).read_bytes()
