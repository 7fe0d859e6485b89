# SPDX-License-Identifier: MIT
"""Starting, stopping, dying."""

import contextlib
import ctypes
import json
import os
import pathlib
import pwd
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import types

import pytest
from safetensors.torch import load_file

import checkpoints
from compare import assert_same
from harness import (CONNECTIONS, PATIENCE, TOP, UNSHARD, Mount, Sanitizers, child_named,
                     connection_of, detach, is_alive, is_mounted, kill_with_supervisor, mounted,
                     processes_of, run, slow, wait_for)


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    detach(path)


@pytest.fixture
def foreground(llama, mountpoint):
    sanitizers = Sanitizers()
    process = subprocess.Popen([UNSHARD, "mount", "-f", str(llama), str(mountpoint)],
                               stderr=subprocess.DEVNULL, env=sanitizers.environment())
    try:
        wait_for(lambda: process.poll() is not None or is_mounted(mountpoint), what="mounted")
        assert process.poll() is None
        yield process
        sanitizers.check()
    finally:
        process.kill()
        detach(mountpoint)
        process.wait(PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_signal_unmounts_cleanly(foreground, mountpoint, number):
    assert (mountpoint / "model.safetensors").stat().st_size > 0
    foreground.send_signal(number)
    assert foreground.wait(PATIENCE) == 0
    assert not is_mounted(mountpoint)


def test_umount_ends_the_foreground_daemon(foreground, mountpoint):
    run("umount", mountpoint, check=True)
    assert foreground.wait(PATIENCE) == 0
    assert not is_mounted(mountpoint)


def test_signal_ends_the_background_daemon(llama):
    mount = Mount(llama)
    try:
        assert mount.result == 0, mount.output
        os.kill(mount.pid, signal.SIGTERM)
        wait_for(lambda: not is_alive(mount.pid) and not is_mounted(mount.path))
        mount.sanitizers.check()
    finally:
        mount.discard()


def test_signal_in_the_middle_of_a_prefetch(big):
    with slow(big, latency=5) as storage:
        mount = Mount(storage.path, "jobs=4")
        try:
            assert mount.result == 0, mount.output
            os.kill(mount.pid, signal.SIGTERM)
            wait_for(lambda: not is_alive(mount.pid) and not is_mounted(mount.path))
            mount.sanitizers.check()
        finally:
            mount.discard()


def test_mount_answers_when_the_command_returns(llama):
    for _ in range(5):
        with mounted(llama, "prefetch=off") as mount:
            assert os.listdir(mount.path)


def test_stale_mount_point_is_cleared(llama, mountpoint):
    first = Mount(llama, mountpoint=mountpoint)
    assert first.result == 0, first.output
    kill_with_supervisor(first.pid)
    with mounted(llama, mountpoint=mountpoint) as mount:
        assert mount.pid != first.pid
        expected = checkpoints.tensors_of(checkpoints.shard_files(llama))
        assert_same(load_file(mount / "model.safetensors"), expected)


READER = """
import sys
try:
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
except OSError as error:
    print(error.errno)
    sys.exit(3)
"""


def start_readers(path, count=4):
    return [subprocess.Popen([sys.executable, "-c", READER, str(path)],
                             stdout=subprocess.DEVNULL) for _ in range(count)]


@pytest.mark.heavy
@pytest.mark.parametrize("round_number", range(6))
def test_killed_in_the_middle_of_a_prefetch(big, mountpoint, round_number):
    # At this rate all of it takes two seconds: it is never over before it is looked at.
    with slow(big, latency=2 + 3 * round_number, total=48 << 20) as storage:
        mount = Mount(storage.path, mountpoint=mountpoint)
        assert mount.result == 0, mount.output
        readers = start_readers(mount / "model.safetensors")
        wait_for(lambda: storage.stats()["bytes"] > (round_number + 1) * (8 << 20),
                 what="the prefetch to be under way")
        os.kill(mount.pid, signal.SIGKILL)
        for reader in readers:
            assert reader.wait(PATIENCE * 3) == 0
        expected = checkpoints.tensors_of(checkpoints.shard_files(big))
        assert_same(load_file(mount / "model.safetensors"), expected)
        mount.unmount()


@pytest.mark.heavy
def test_killed_with_its_supervisor_in_the_middle_of_a_prefetch(big, mountpoint):
    with slow(big, latency=2, total=48 << 20) as storage:
        mount = Mount(storage.path, mountpoint=mountpoint)
        assert mount.result == 0, mount.output
        readers = start_readers(mount / "model.safetensors")
        wait_for(lambda: storage.stats()["bytes"] > 8 << 20, what="the prefetch to be under way")
        kill_with_supervisor(mount.pid)
        for reader in readers:
            # An error (3), or all read before the death (0): never a hang.
            assert reader.wait(PATIENCE) in (0, 3)
    with mounted(big, mountpoint=mountpoint) as again:
        expected = checkpoints.tensors_of(checkpoints.shard_files(big))
        assert_same(load_file(again / "model.safetensors"), expected)


def test_monitor_that_was_killed_is_replaced(llama, mountpoint, tmp_path):
    mount = Mount(llama, f"log={tmp_path}/log", mountpoint=mountpoint)
    try:
        assert mount.result == 0, mount.output
        first = child_named(mount.pid, "unshard-monitor")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: child_named(mount.pid, "unshard-monitor") not in (None, first),
                 what="another one")
        wait_for(lambda: "event=monitor-replaced" in (tmp_path / "log").read_text())
        os.kill(mount.pid, signal.SIGKILL)
        wait_for(lambda: mount.status()["pid"] != mount.pid, what="another daemon")
        mount.unmount()
    finally:
        mount.discard()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_killed_where_nobody_can_abort(llama, public_folder):
    """An ordinary user's, without fusectl, while it hangs in its source and cannot finish dying."""
    nobody = pwd.getpwnam("nobody")
    binary = shutil.copy(UNSHARD, public_folder)
    source = shutil.copytree(llama, public_folder + "/source")
    for path in (pathlib.Path(source), *pathlib.Path(source).iterdir()):
        path.chmod(0o755)
    mnt = f"{public_folder}/mnt"
    os.mkdir(mnt)
    os.chown(mnt, nobody.pw_uid, nobody.pw_gid)
    user = "setpriv --reuid=nobody --regid=nogroup --clear-groups env -u UNSHARD_CACHE_DIR HOME=/"
    with slow(source) as storage:
        script = f"""
            set -e
            umount -l {CONNECTIONS} 2>/dev/null || true
            mknod -m 666 {public_folder}/fuse c 10 229; mount --bind {public_folder}/fuse /dev/fuse
            {user} {binary} mount -o prefetch=off {storage.path} {mnt}
            daemon=$({user} grep -o '"pid":.[0-9]*' {mnt}/.unshard/status.json | tr -dc 0-9)
            echo 'stall *.safetensors 100000 1000000000' >{storage.path}/.slowfs/control
            {user} timeout -s KILL 15 cat {mnt}/model.safetensors >/dev/null & reader=$!
            for i in $(seq 500); do
                grep -q '"stalled": *[1-9]' {storage.path}/.slowfs/stats && break; sleep 0.01
            done
            kill -KILL $daemon
            for i in $(seq 1000); do
                {user} grep -q "\"pid\":.$daemon," {mnt}/.unshard/status.json || break; sleep 0.01
            done
            grep -q . /proc/$daemon/stat && echo the daemon hangs still
            echo release >{storage.path}/.slowfs/control; echo reset >{storage.path}/.slowfs/control
            wait $reader && echo all read || echo reader ended with $?
            {user} {binary} umount {mnt}"""
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", script],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE * 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "the daemon hangs still\nall read\n", done.stderr


def test_busy_mount_is_not_torn_away(llama):
    with mounted(llama) as mount:
        with open(mount / "model.safetensors", "rb") as file:
            done = run("umount", mount.path)
            assert done.returncode != 0 and str(mount.path) in done.stderr
            assert file.read(8)


def test_unmount_lazily(llama):
    mount = Mount(llama)
    try:
        with open(mount / "model.safetensors", "rb") as file:
            run("umount", "--lazy", mount.path)
            wait_for(lambda: not is_mounted(mount.path))
            assert len(file.read()) > 1 << 20
        wait_for(lambda: not is_alive(mount.pid))
    finally:
        mount.discard()


@pytest.fixture
def public_folder():
    """A folder and a binary that nobody can reach: pytest's own folders are private."""
    folder = tempfile.mkdtemp(prefix="unshard-public-", dir="/tmp")
    os.chmod(folder, 0o755)
    yield folder
    detach(folder + "/mnt")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_as_an_ordinary_user(llama, public_folder):
    nobody = pwd.getpwnam("nobody")
    binary = shutil.copy(UNSHARD, public_folder)
    source = shutil.copytree(llama, public_folder + "/source")
    os.mkdir(public_folder + "/mnt")
    os.chown(public_folder + "/mnt", nobody.pw_uid, nobody.pw_gid)
    os.chmod(source, 0o755)
    for path in pathlib.Path(source).iterdir():
        path.chmod(0o644)
    before = os.stat("/dev/fuse").st_mode & 0o777
    os.chmod("/dev/fuse", 0o666)  # as udev sets it; a bare container may lack that
    command = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    script = (f"{binary} mount {source} {public_folder}/mnt && "
              f"cat {public_folder}/mnt/.unshard/status.json >/dev/null && "
              f"cat {public_folder}/mnt/model.safetensors | sha256sum && "
              f"{binary} umount {public_folder}/mnt")
    try:
        done = subprocess.run([*command, "sh", "-c", script], timeout=PATIENCE * 3,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    finally:
        os.chmod("/dev/fuse", before)
    assert done.returncode == 0, done.stderr
    with mounted(llama) as mount:
        expected = checkpoints.sha256(mount / "model.safetensors")
    assert done.stdout.split()[0] == expected
    assert not is_mounted(public_folder + "/mnt")


# ---- what is left of the process that started it -------------------------------------------------

def test_no_inherited_descriptor_is_kept(llama, mountpoint):
    """As of flock(1), of a job server, or of whoever reads a pipe to its end."""
    ends = os.pipe()
    done = run("mount", llama, mountpoint, pass_fds=[ends[1]])
    assert done.returncode == 0, done.stderr
    os.close(ends[1])
    assert select.select([ends[0]], [], [], PATIENCE)[0] and not os.read(ends[0], 1)
    os.close(ends[0])
    run("umount", mountpoint, check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL],
                         ids=["INT", "TERM", "KILL"])
def test_interrupted_before_it_stands(llama, mountpoint, number):
    """Nothing goes on and mounts when the storage comes back."""
    with slow(llama) as storage:
        storage.command("stall *")
        command = [UNSHARD, "mount", str(storage.path), str(mountpoint)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL,
                                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        wait_for(lambda: storage.stats()["stalled"] > 0, what="a header that is waited for")
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
        storage.command("release", "reset")
        wait_for(lambda: not list(processes_of(command)), what="all processes gone")
        assert not is_mounted(mountpoint)


# ---- what is at the mount point already ----------------------------------------------------------

def start_mount(source, mountpoint):
    return subprocess.Popen([UNSHARD, "mount", source, mountpoint], stderr=subprocess.PIPE,
                            text=True)


def test_one_of_several_mounts_wins(llama, mountpoint):
    """Retried while the first still reads headers."""
    with slow(llama, latency=20) as storage:
        begun = [start_mount(storage.path, mountpoint) for _ in range(3)]
        said = [process.communicate(timeout=PATIENCE * 3)[1] for process in begun]
        assert sorted(process.returncode for process in begun) == [0, 1, 1], said
        for process, words in zip(begun, said):
            assert (process.returncode == 0) == (words == "")
            assert not words or "under way" in words or "already mounted" in words
        status = json.loads(run("status", "--json", mountpoint).stdout)
        assert status["connection"] == connection_of(mountpoint)
        run("umount", mountpoint, check=True)
        assert not is_mounted(mountpoint)


@pytest.fixture
def wedged_mount(tmp_path):
    """As a daemon leaves it that was killed together with its monitor and cannot finish dying: the
    connection goes on, and nobody answers."""
    path = tmp_path / "wedged"
    path.mkdir()
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    data = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"source", os.fsencode(path), b"fuse.unshard", 7, data.encode()) == 0
    yield types.SimpleNamespace(path=path, descriptor=descriptor)
    detach(path)
    os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_mount_over_one_that_does_not_answer(llama, wedged_mount):
    """A dead one is got rid of; one whose daemon is stopped is left alone. Neither is waited for."""
    with mounted(llama) as frozen:
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            over_frozen = start_mount(llama, frozen.path)
            # The other spelling would have what is mounted looked into.
            over_wedged = start_mount(llama, str(wedged_mount.path) + "/")
            _, words = over_frozen.communicate(timeout=PATIENCE)
            assert over_frozen.returncode == 1
            assert "does not answer" in words and f"process {frozen.pid}" in words
            _, words = over_wedged.communicate(timeout=PATIENCE)
            assert over_wedged.returncode == 0, words
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert (wedged_mount.path / "model.safetensors").read_bytes() == \
            (frozen / "model.safetensors").read_bytes()
    run("umount", wedged_mount.path, check=True)
    assert not is_mounted(wedged_mount.path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_lazy_unmount_of_one_that_hangs(wedged_mount):
    """Ended before it is detached: whoever waits for it would wait for ever."""
    waiting = subprocess.Popen(["stat", "-f", wedged_mount.path], stderr=subprocess.DEVNULL)
    try:
        run("umount", "--lazy", wedged_mount.path, check=True)
        assert not is_mounted(wedged_mount.path)
        assert waiting.wait(PATIENCE) != 0
    finally:
        waiting.kill()
        waiting.wait(PATIENCE)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_mount_that_would_propagate_into_its_source(llama, tmp_path):
    """Through a bind mount, as the paths alone do not tell."""
    script = f"""
        set -e
        mount -t tmpfs none {tmp_path}; mount --make-rshared {tmp_path}
        cd {tmp_path}; mkdir -p source/vae alias
        cp -r {llama}/. source; cp -r {llama}/. source/vae
        mount --bind source alias
        ! {UNSHARD} mount {tmp_path}/source {tmp_path}/alias/vae
        ! grep fuse.unshard /proc/self/mountinfo
        cd /; umount -l {tmp_path}"""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", script],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE * 3)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lies inside the source" in done.stderr


# ---- a daemon that does not answer ---------------------------------------------------------------

def test_commands_answer_when_the_daemon_does_not(llama):
    """Stopped, as a frozen container is: every command says so within its bound."""
    with mounted(llama) as mount:
        mount.wait_warm()
        with open(mount / "model.safetensors", "rb") as file:
            os.kill(mount.pid, signal.SIGSTOP)
            try:
                commands = (["status"], ["status", "--json"], ["status", "--watch"], ["wait"],
                            ["warm"], ["evict"], ["umount"])
                begun = [subprocess.Popen([UNSHARD, *words, mount.path], stderr=subprocess.PIPE,
                                          stdout=subprocess.PIPE, text=True) for words in commands]
                for words, process in zip(commands, begun):
                    output, errors = process.communicate(timeout=PATIENCE)
                    assert process.returncode == 1, (words, errors)
                    if "--json" in words:
                        assert json.loads(output)["error"]["code"] == "no-answer"
                    else:
                        assert not output, words
                    assert "did not answer within 5" in errors, (words, errors)
                    assert "unshard umount --force" in errors, (words, errors)
                run("umount", "--force", mount.path, check=True)
            finally:
                os.kill(mount.pid, signal.SIGCONT)
        wait_for(lambda: not is_alive(mount.pid), what="a daemon without a mount ends")


def answer_init(descriptor):
    unique = struct.unpack_from("<Q", os.read(descriptor, 1 << 20), 8)[0]
    init = struct.pack("<IIIIHHII", 7, 31, 0, 0, 12, 9, 1 << 20, 1).ljust(64, b"\0")
    os.write(descriptor, struct.pack("<IiQ", 16 + len(init), 0, unique) + init)


def take_requests(descriptor):
    with contextlib.suppress(OSError):
        while os.read(descriptor, 2 << 20):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
def test_commands_leave_what_cannot_be_killed(wedged_mount):
    """A request that the daemon took before it stopped cannot be given up: whoever made it stays.
    It keeps nobody waiting who reads what the command prints."""
    answer_init(wedged_mount.descriptor)
    threading.Thread(target=take_requests, args=(wedged_mount.descriptor,), daemon=True).start()
    path = str(wedged_mount.path)
    expected = {words: (1, "did not answer within") for words in (
        f"status {path}", f"status --json {path}", f"wait {path}", f"warm {path}", f"evict {path}",
        f"umount {path}")}
    expected["list"] = (3, f"{path}  no answer")
    expected[f"doctor {path}"] = (3, "umount --force")
    begun = {words: subprocess.Popen([UNSHARD, *words.split()], stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True) for words in expected}
    for words, process in begun.items():
        said, _ = process.communicate(timeout=PATIENCE)
        status, part = expected[words]
        assert process.returncode == status and part in said, (words, process.returncode, said)


BAD_COMMANDS = {
    "no such source": ["mount", "/nonexistent/source", "{mnt}"],
    "source is a file": ["mount", "{file}", "{mnt}"],
    "no such mount point": ["mount", "{source}", "/nonexistent/mnt"],
    "mount point is a file": ["mount", "{source}", "{file}"],
    "unknown option": ["mount", "-o", "nonsense", "{source}", "{mnt}"],
    "bad value": ["mount", "-o", "order=random", "{source}", "{mnt}"],
    "bad size": ["mount", "-o", "chunk=3M", "{source}", "{mnt}"],
    "negative jobs": ["mount", "-o", "jobs=-1", "{source}", "{mnt}"],
    "huge buffer": ["mount", "-o", "buffer=99999999999T", "{source}", "{mnt}"],
    "missing argument": ["mount", "{source}"],
    "too many": ["mount", "{source}", "{mnt}", "more"],
    "unknown command": ["mouth", "{source}", "{mnt}"],
    "nothing mounted": ["umount", "{mnt}"],
    "export of nothing": ["export", "/nonexistent/source", "{mnt}/out"],
    "ls of nothing": ["ls", "/nonexistent/source"],
}


@pytest.mark.parametrize("what", BAD_COMMANDS)
def test_bad_arguments(llama, mountpoint, tmp_path, what):
    file = tmp_path / "file"
    file.write_text("x")
    arguments = [argument.format(mnt=mountpoint, source=llama, file=file)
                 for argument in BAD_COMMANDS[what]]
    done = run(*arguments)
    assert done.returncode not in (0, 139) and done.returncode > 0
    lines = done.stderr.strip().splitlines()
    assert lines and lines[0].startswith("unshard") and len(lines) <= 2, done.stderr
    assert not is_mounted(mountpoint)


def test_no_connection_is_left_behind(llama):
    def connections():
        return set(os.listdir(CONNECTIONS)) if CONNECTIONS.is_dir() else set()

    before = connections()
    with mounted(llama):
        pass
    wait_for(lambda: connections() <= before, what="connections closed")


def test_two_mounts_of_one_checkpoint(llama):
    with mounted(llama) as first, mounted(llama, "order=canonical") as second:
        assert first.pid != second.pid
        assert_same(load_file(first / "model.safetensors"),
                    load_file(second / "model.safetensors"))


def test_install(tmp_path):
    build = os.path.dirname(UNSHARD)
    if build != str(TOP / "build"):
        pytest.skip("installs what a plain build makes")
    subprocess.run(["make", "-s", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr"], cwd=TOP,
                   check=True, stdout=subprocess.DEVNULL)
    for name in ("bin/unshard", "lib/libunshard.so.0", "lib/libunshard.a", "include/unshard.h"):
        assert (tmp_path / "usr" / name).stat().st_size > 0
    program = tmp_path / "program.c"
    program.write_text("#include <unshard.h>\nint main(void)\n{\n    struct unshard_error error;\n"
                       "    struct unshard_checkpoint *checkpoint;\n"
                       "    return unshard_checkpoint_open(\"/dev/null/nothing\", 0, &checkpoint,"
                       " &error) < 0 ? 0 : 1;\n}\n")
    subprocess.run(["gcc", f"-I{tmp_path}/usr/include", "-o", tmp_path / "program", program,
                    f"-L{tmp_path}/usr/lib", "-lunshard"], check=True)
    subprocess.run([tmp_path / "program"], check=True,
                   env={"LD_LIBRARY_PATH": f"{tmp_path}/usr/lib"})
