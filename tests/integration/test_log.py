# SPDX-License-Identifier: MIT
"""Where the log goes: files that are renamed, terminals that go away, pipes that nobody reads."""

import contextlib
import os
import pathlib
import pty
import re
import signal
import subprocess

import pytest

from harness import PATIENCE, SANITIZER, TOP, UNSHARD, child_named, detach, is_mounted, mounted, run, wait_for

root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    detach(path)


def whom_logrotate_tells():
    """What the command of the example finds; other mounts of this machine are left alone."""
    text = (TOP / "contrib/logrotate/unshard").read_text()
    pattern = re.search(r"pkill -HUP -x -f '(.*)' \|\| true", text)[1]
    found = subprocess.run(["pgrep", "-x", "-f", pattern], stdout=subprocess.PIPE, text=True)
    return set(map(int, found.stdout.split()))


def test_sighup_opens_a_renamed_log_again(llama, tmp_path):
    log, old = tmp_path / "log", tmp_path / "log.1"
    with mounted(llama, f"log={os.path.relpath(log)}") as mount:
        assert log.stat().st_mode & 0o137 == 0
        wait_for(lambda: "event=mounted" in log.read_text())
        log.rename(old)
        run("warm", mount.path, check=True)
        wait_for(lambda: "event=warm" in old.read_text(), what="the line in the renamed file")
        assert not log.exists()
        assert mount.pid in whom_logrotate_tells()
        os.kill(mount.pid, signal.SIGHUP)
        wait_for(log.exists, what="the new log")
        run("evict", mount.path, check=True)
        wait_for(lambda: "event=evict" in log.read_text(), what="the line in the new file")
        assert is_mounted(mount.path)
    assert "event=unmounted" in log.read_text() and "event=unmounted" not in old.read_text()


def test_sighup_without_a_log_changes_nothing(llama):
    with mounted(llama) as mount:
        os.kill(mount.pid, signal.SIGHUP)
        run("evict", mount.path, check=True)
        os.kill(mount.pid, signal.SIGHUP)
        assert (mount / "model.safetensors").read_bytes()
        assert is_mounted(mount.path)


@contextlib.contextmanager
def on_a_terminal(*arguments):
    """In a session of its own with a terminal. Yields the process and our end of it."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(UNSHARD, [UNSHARD, *map(str, arguments)])
    try:
        yield process, terminal
    finally:
        with contextlib.suppress(OSError):
            os.close(terminal)
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


@pytest.mark.parametrize("log", [False, True], ids=["terminal", "file"])
def test_a_foreground_mount_ends_with_its_terminal(llama, mountpoint, tmp_path, log):
    options = ["-o", f"log={tmp_path / 'log'}"] if log else []
    with on_a_terminal("mount", "-f", *options, llama, mountpoint) as (process, terminal):
        wait_for(lambda: is_mounted(mountpoint), what="mounted")
        if log:
            wait_for(lambda: "event=mounted" in (tmp_path / "log").read_text())
            os.kill(process, signal.SIGHUP)  # of somebody who has renamed the log
            wait_for(lambda: "event=reopened" in (tmp_path / "log").read_text())
            assert is_mounted(mountpoint)
        os.close(terminal)
        wait_for(lambda: not is_mounted(mountpoint), what="unmounted")
        wait_for(lambda: os.waitpid(process, os.WNOHANG)[0] == process, what="ended")


def test_a_fifo_that_nobody_reads_is_no_reason_to_wait(llama, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with mounted(llama, f"log={fifo}") as mount:
        assert (mount / "model.safetensors").read_bytes()
        with open(fifo) as reader:
            assert "event=mounted" in reader.readline()


@root
def test_a_link_that_others_have_put_there_is_refused(llama, mountpoint, tmp_path):
    victim, link = tmp_path / "victim", pathlib.Path("/tmp") / f"unshard-{os.getpid()}.log"
    victim.touch()
    link.symlink_to(victim)
    try:
        os.chown(link, 12345, 12345, follow_symlinks=False)
        done = run("mount", "-o", f"log={link}", llama, mountpoint, timeout=PATIENCE)
        assert done.returncode == 1 and "belongs to another user" in done.stderr, done.stderr
        assert victim.read_text() == "" and not is_mounted(mountpoint)
    finally:
        link.unlink()


@pytest.mark.skipif(bool(SANITIZER), reason="what is started here reports by itself")
def test_sighup_to_both_processes_of_one_in_the_foreground(llama, mountpoint, tmp_path):
    """Which have the same words, so that both are told, and one tells the other."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    process = subprocess.Popen([UNSHARD, "mount", "-f", "-o", f"log={log}", llama, mountpoint],
                               start_new_session=True)  # without a terminal, as a service
    try:
        wait_for(lambda: log.exists() and "event=mounted" in log.read_text(), what="mounted")
        both = {process.pid, child_named(process.pid, "unshard")}
        assert both <= whom_logrotate_tells()
        log.rename(old)
        for pid in both:
            os.kill(pid, signal.SIGHUP)
        wait_for(log.exists, what="the new log")
        run("evict", mountpoint, check=True)
        wait_for(lambda: "event=evict" in log.read_text(), what="the line in the new file")
        assert child_named(process.pid, "unshard") in both and process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE) == 0 and "event=unmounted" in log.read_text()
    finally:
        process.kill()
        process.wait()
