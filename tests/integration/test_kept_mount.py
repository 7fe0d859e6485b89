# SPDX-License-Identifier: MIT
"""What a service manager keeps of a mount: readers wait for the next start when all was killed.

The manager here does what is written in sd_notify(3) and sd_listen_fds(3); test_systemd.py has the real
one."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading

import pytest
import torch

import checkpoints
from harness import (PATIENCE, SANITIZER, UNSHARD, abort_connection, child_named, connection_of, detach, is_alive,
                     is_mounted, run, slow, wait_for)

VIEW = "model.safetensors"
NEXT = str(pathlib.Path(UNSHARD).parent / "tests/unshard-next")  # of another layout of what is kept

# Puts what is given where it is looked for, as this process.
GIVE = """
import os, sys
names, fds, command = sys.argv[1], list(map(int, sys.argv[2].split(","))) if sys.argv[2] else [], sys.argv[3:]
for place, fd in enumerate(fds):
    os.dup2(fd, 3 + place)
    os.set_inheritable(fd, False)
os.environ["SYSTEMD_EXEC_PID"] = str(os.getpid())
if fds:
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""

pytestmark = pytest.mark.skipif("thread" in SANITIZER, reason="what is started here reports by itself")


class Manager:
    """Starts processes, hears what they say, and keeps descriptors for the next one."""

    def __init__(self, folder, keeps=True):
        self.address, self.keeps = str(folder / "notify"), keeps
        self.said, self.kept, self.process = [], [], None
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()

    def listen(self):
        while True:
            text, fds, _, _ = socket.recv_fds(self.socket, 4096, 16)
            words = dict(line.split("=", 1) for line in text.decode().splitlines())
            if "END" in words:
                return
            if "FDSTOREREMOVE" in words:
                for name, fd in [one for one in self.kept if one[0] == words["FDNAME"]]:
                    self.kept.remove((name, fd))
                    os.close(fd)
            elif "FDSTORE" in words:
                self.kept += [(words["FDNAME"], fd) for fd in fds]
            else:
                for fd in fds:
                    os.close(fd)
            self.said.append(text.decode())

    def close(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END=1", self.address)
        self.thread.join()
        for _, fd in self.kept:
            os.close(fd)
        if self.process:
            self.process.kill()
            self.process.wait()

    def environment(self):
        return {**os.environ, "NOTIFY_SOCKET": self.address, **({"FDSTORE": "4"} if self.keeps else {})}

    def prepare(self, *words):
        """ExecStartPre= of the unit."""
        return run("mount", "--prepare", *words, env=self.environment())

    def start(self, *words, program=UNSHARD):
        """ExecStart=, given what is kept; comes back when it is ready or has ended."""
        names, fds = [name for name, _ in self.kept], [fd for _, fd in self.kept]
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in fds]  # none is where another is to be
        self.said.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-c", GIVE, ":".join(names), ",".join(map(str, given)), program, "mount", "-f",
             *map(str, words)], pass_fds=given, env=self.environment(), stderr=subprocess.PIPE, text=True)
        for fd in given:
            os.close(fd)
        wait_for(lambda: any("READY=1" in text for text in self.said) or self.process.poll() is not None,
                 what="ready, or ended")
        return self.process.poll()

    def names(self):
        return sorted(name for name, _ in self.kept)

    def why(self):
        return self.process.communicate(timeout=PATIENCE)[1]

    def kill_all(self):
        """The unit's control group, at once: nobody has the time to follow anybody."""
        daemon = child_named(self.process.pid, "unshard")
        for pid in (daemon, self.process.pid):
            os.kill(pid, signal.SIGSTOP)
        for pid in (self.process.pid, daemon):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        wait_for(lambda: not is_alive(daemon), what="the daemon is gone")

    def stop(self):
        self.process.terminate()
        return self.process.wait(PATIENCE)


@pytest.fixture(name="manager")
def manager_of_a_test(tmp_path):
    manager = Manager(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def at(tmp_path):
    path = tmp_path / "at"
    path.mkdir()
    yield path
    detach(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = checkpoints.save_shards(tmp_path_factory.mktemp("kept") / "m",
                                     {f"t{i}": torch.randn(1 << 18) for i in range(8)}, 4)
    (folder / "config.json").write_text('{"a": 1}')
    return folder


def status_of(at):
    return json.loads((at / ".unshard/status.json").read_text())


@contextlib.contextmanager
def waiting_reader(manager, at):
    """Asks for what is not in memory while nobody answers; all is killed then."""
    daemon = child_named(manager.process.pid, "unshard")
    with open(at / VIEW, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.kill(daemon, signal.SIGSTOP)
        reader = subprocess.Popen(["sha256sum"], stdin=file, stdout=subprocess.PIPE, text=True)
    try:
        manager.kill_all()
        yield reader
    finally:
        if connection_of(at) and reader.poll() is None:
            abort_connection(connection_of(at))
        reader.communicate(timeout=PATIENCE)


def sum_of(reader):
    return reader.stdout.read().split()[0] if reader.wait(PATIENCE) == 0 else None


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "by itself"])
def test_all_killed_at_once(model, at, manager, prepared):
    with slow(model) as storage:
        assert not prepared or manager.prepare(storage.path, at).returncode == 0
        assert manager.names() == ["unshard"] * prepared
        assert manager.start(storage.path, at) is None
        assert manager.names() == ["unshard-kept"] * 2
        run("wait", "--timeout", PATIENCE, at, check=True)
        truth = checkpoints.sha256(at / VIEW)
        with waiting_reader(manager, at) as reader:
            if prepared:
                again = manager.prepare(storage.path, at)
                assert again.returncode == 0 and "goes on with it" in again.stderr
            assert manager.start(storage.path, at) is None
            assert sum_of(reader) == truth
        status = status_of(at)
        assert status["restarts"] == 1 and status["restart_reason"] == "killed"
        # What was in memory then was read again, and headers, to lay the directory out.
        run("wait", "--timeout", PATIENCE, at, check=True)
        before = storage.stats()["bytes"]
        manager.kill_all()
        assert manager.start(storage.path, at) is None
        run("wait", "--timeout", PATIENCE, at, check=True)
        assert checkpoints.sha256(at / VIEW) == truth and status_of(at)["restarts"] == 2
        assert storage.stats()["bytes"] - before < 1 << 20
        assert manager.names() == ["unshard-kept"] * 2
        assert manager.stop() == 0
        assert not manager.kept and sum("STOPPING=1" in text for text in manager.said) == 1
        assert is_mounted(at) == prepared  # what others have mounted they take away: ExecStopPost=


def test_one_daemon_after_the_other_is_no_matter_of_the_manager(model, at, manager):
    assert manager.start(model, at) is None
    kept = list(manager.kept)
    daemon = child_named(manager.process.pid, "unshard")
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: status_of(at)["restarts"] == 1, what="another daemon")
    assert manager.kept == kept and manager.process.poll() is None
    assert manager.stop() == 0 and not manager.kept


def test_no_daemon_outlives_the_process_that_the_manager_knows(model, at, manager):
    """It would be killed with what follows it, and while some are killed others would come."""
    assert manager.start(model, at) is None
    for restarts in (1, 3):
        daemon = child_named(manager.process.pid, "unshard")
        manager.process.kill()
        manager.process.wait()
        wait_for(lambda pid=daemon: not is_alive(pid), what="the daemon is gone")
        assert manager.start(model, at) is None
        assert status_of(at)["restarts"] == restarts
        # The next one neither.
        os.kill(child_named(manager.process.pid, "unshard"), signal.SIGKILL)
        wait_for(lambda: status_of(at)["restarts"] == restarts + 1, what="another daemon")
    assert manager.stop() == 0


def test_a_signal_to_a_daemon_that_dies_reaches_the_next(model, at, manager):
    assert manager.start(model, at) is None
    daemon = child_named(manager.process.pid, "unshard")
    os.kill(daemon, signal.SIGSTOP)
    manager.process.terminate()
    wait_for(lambda: any("STOPPING=1" in text for text in manager.said), what="the signal was heard")
    os.kill(daemon, signal.SIGKILL)
    assert manager.process.wait(PATIENCE) == 0
    assert not is_mounted(at) and not manager.kept


def test_unmounted_by_somebody(model, at, manager):
    assert manager.start(model, at) is None
    run("umount", at, check=True)
    assert manager.process.wait(PATIENCE) == 0 and not manager.kept


def test_a_manager_that_keeps_nothing_is_left_nothing(model, at, tmp_path):
    (tmp_path / "other").mkdir()
    manager = Manager(tmp_path / "other", keeps=False)
    try:
        assert manager.start(model, at) is None
        assert manager.stop() == 0
        assert not [text for text in manager.said if "FD" in text]
    finally:
        manager.close()


def test_over_the_source(model, tmp_path, manager):
    """There the path of the source leads to the mount."""
    source = shutil.copytree(model, tmp_path / "model")
    try:
        assert manager.start("-o", "over", source) is None
        assert manager.names() == ["unshard-kept"] * 3
        truth = checkpoints.sha256(source / VIEW)
        with waiting_reader(manager, source) as reader:
            assert manager.start("-o", "over", source) is None
            assert sum_of(reader) == truth
        assert manager.stop() == 0 and not is_mounted(source)
    finally:
        detach(source)


# ---- what is not gone on with --------------------------------------------------------------------

def given_up(manager, at, reader, *words, program=UNSHARD):
    """The start fails, and readers get an error; the next one mounts anew."""
    assert manager.start(*words, program=program) == 1
    why = manager.why()
    assert "started once more" in why
    assert reader.wait(PATIENCE) != 0 and not manager.kept
    return why


def test_another_source(model, at, tmp_path, manager):
    other = shutil.copytree(model, tmp_path / "other")
    (other / "config.json").write_text('{"b": 2}')
    assert manager.start(model, at) is None
    with waiting_reader(manager, at) as reader:
        assert f"it is of {model}, mounted on {at}" in given_up(manager, at, reader, other, at)
    assert manager.start(other, at) is None
    assert (at / "config.json").read_text() == '{"b": 2}' and status_of(at)["restarts"] == 0
    assert manager.stop() == 0


def test_another_source_prepared(model, at, tmp_path, manager):
    other = shutil.copytree(model, tmp_path / "other")
    (other / "config.json").write_text('{"b": 2}')
    assert manager.prepare(model, at).returncode == 0
    assert manager.start(model, at) is None
    with waiting_reader(manager, at) as reader:
        assert manager.prepare(other, at).returncode == 0
        assert reader.wait(PATIENCE) != 0
    assert manager.start(other, at) is None
    assert (at / "config.json").read_text() == '{"b": 2}' and status_of(at)["restarts"] == 0
    assert manager.names() == ["unshard-kept"] * 2
    assert manager.stop() == 0


def test_another_place(model, at, tmp_path, manager):
    """What is kept is of the old one, what is prepared of the new one."""
    place = tmp_path / "place"
    place.mkdir()
    try:
        assert manager.prepare(model, at).returncode == 0
        assert manager.start(model, at) is None
        with waiting_reader(manager, at) as reader:
            assert manager.prepare(model, place).returncode == 0
            assert manager.start(model, place) is None
            assert reader.wait(PATIENCE) != 0
        assert status_of(place)["restarts"] == 0 and manager.names() == ["unshard-kept"] * 2
        assert manager.stop() == 0
    finally:
        detach(place)


def test_another_layout(model, at, manager):
    assert manager.start(model, at) is None
    with waiting_reader(manager, at) as reader:
        assert "layout" in given_up(manager, at, reader, model, at, program=NEXT)


def test_a_part_is_missing(model, at, manager):
    assert manager.start(model, at) is None
    with waiting_reader(manager, at) as reader:
        for name, fd in list(manager.kept):
            if not stat.S_ISCHR(os.fstat(fd).st_mode):
                manager.kept.remove((name, fd))
                os.close(fd)
        assert "missing" in given_up(manager, at, reader, model, at)


def test_a_source_that_is_gone(model, at, tmp_path, manager):
    source = shutil.copytree(model, tmp_path / "source")
    assert manager.start(source, at) is None
    with waiting_reader(manager, at) as reader:
        shutil.rmtree(source)
        assert str(source) in given_up(manager, at, reader, source, at)


def test_what_has_ended_is_mounted_anew(model, at, manager):
    assert manager.start(model, at) is None
    manager.kill_all()
    abort_connection(connection_of(at))
    assert manager.start(model, at) is None
    assert (at / VIEW).stat().st_size > 0 and status_of(at)["restarts"] == 0
    assert manager.names() == ["unshard-kept"] * 2
    assert manager.stop() == 0


def test_another_daemon_is_left_alone(model, at, manager):
    """The manager starts a second process while the first one is there."""
    assert manager.start(model, at) is None
    first, daemon = manager.process, child_named(manager.process.pid, "unshard")
    assert manager.start(model, at) == 1
    assert "another daemon" in manager.why()
    manager.process = first
    assert status_of(at)["pid"] == daemon and manager.names() == ["unshard-kept"] * 2
    assert manager.stop() == 0 and not manager.kept


def test_a_first_daemon_that_fails_leaves_nothing(model, at, tmp_path, manager):
    source = shutil.copytree(model, tmp_path / "source")
    assert manager.prepare(source, at).returncode == 0 and manager.kept
    shutil.rmtree(source)
    assert manager.start(source, at) == 1
    assert not manager.kept
    source.mkdir()
    assert manager.prepare(source, at).returncode == 0  # it does not wait for the old mount
    assert manager.start(source, at) is None and manager.stop() == 0


def test_a_mount_that_was_prepared_and_not_served(model, at, manager):
    """The unit was killed in between."""
    assert manager.prepare(model, at).returncode == 0
    assert "goes on with it" in manager.prepare(model, at).stderr
    assert manager.names() == ["unshard"]
    assert manager.start(model, at) is None and (at / VIEW).stat().st_size > 0
    assert manager.stop() == 0 and not manager.kept


def test_three_crashes_end_it(model, at, manager):
    assert manager.start(model, at) is None
    for restarts in range(3):
        daemon = wait_for(lambda: child_named(manager.process.pid, "unshard"), what="a daemon")
        wait_for(lambda: status_of(at)["restarts"] == restarts, what="serving")
        os.kill(daemon, signal.SIGSEGV)
        wait_for(lambda: not is_alive(daemon), what="dead")
    assert manager.process.wait(PATIENCE) != 0 and not manager.kept
