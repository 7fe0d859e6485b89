# SPDX-License-Identifier: MIT
"""Mounting as the system does it: mount(8), fstab, service managers, descriptors, other users."""

import contextlib
import errno
import json
import os
import pathlib
import re
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile

import pytest

import checkpoints
import harness
from harness import PATIENCE, UNSHARD, detach, is_mounted, mounted, run, wait_for

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def mountpoint(tmp_path):
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    detach(path)


@pytest.fixture
def public_folder():
    """A folder that every user can reach: pytest's own are private."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-public-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "mnt").mkdir()
    yield folder
    detach(folder / "mnt")
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def foreground(*arguments, **more):
    """`unshard mount -f`, ended however the test ends."""
    process = subprocess.Popen([UNSHARD, "mount", "-f", *map(str, arguments)], **more)
    try:
        yield process
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)


# ---- mount(8) ------------------------------------------------------------------------------------

def in_namespace(script):
    """Runs a script as root in a mount namespace whose /sbin holds the helper and nothing else."""
    start = ("set -e; mount -t tmpfs none \"$(realpath /sbin)\"; "
             f"ln -s {UNSHARD} /sbin/mount.unshard; ")
    return subprocess.run(["unshare", "-m", "--propagation", "private", "/bin/sh", "-c",
                           start + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=PATIENCE * 3)


@root
@pytest.mark.parametrize("options", ["", "-o ro", "-o ro,allow_other,nofail,_netdev",
                                     "-o x-systemd.automount,x-systemd.device-timeout=5,nofail",
                                     "-o prefetch=follow,jobs=2,noauto,nodev,nosuid"])
def test_mount_t_unshard(llama, mountpoint, options):
    done = in_namespace(f"mount -t unshard {options} {llama} {mountpoint}; "
                        f"sha256sum {mountpoint}/model.safetensors; "
                        f"grep {mountpoint} /proc/self/mountinfo; umount {mountpoint}")
    assert done.returncode == 0, done.stderr
    with mounted(llama) as mount:
        assert done.stdout.split()[0] == checkpoints.sha256(mount / "model.safetensors")
    assert re.search(r" ro,.* - fuse\.unshard ", done.stdout)


@root
def test_fstab(llama, mountpoint, tmp_path):
    fstab = tmp_path / "fstab"
    fstab.write_text(f"{llama} {mountpoint} unshard "
                     "ro,allow_other,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=60,"
                     "chunk=1M,prefetch=follow 0 0\n")
    done = in_namespace(f"mount -T {fstab} {mountpoint}; cat {mountpoint}/.unshard/status.json; "
                        f"umount {mountpoint}")
    assert done.returncode == 0, done.stderr
    assert '"chunk_bytes":\t1048576' in done.stdout and '"prefetch":\t"follow"' in done.stdout


@root
def test_mount_t_unshard_fails_with_a_reason(mountpoint):
    done = in_namespace(f"mount -t unshard /dev/null/none {mountpoint}")
    assert done.returncode != 0 and "/dev/null/none" in done.stderr


@root
def test_remount_says_that_it_is_not_possible(llama, mountpoint):
    done = in_namespace(f"mount -t unshard {llama} {mountpoint}; "
                        f"mount -t unshard -o remount,jobs=2 {llama} {mountpoint} || echo exit $?; "
                        f"cat {mountpoint}/config.json; umount {mountpoint}")
    assert done.returncode == 0, done.stderr
    assert "(remount)" in done.stderr and "unmount it and mount it again" in done.stderr
    assert done.stdout.startswith("exit 1\n{")


# ---- who may read --------------------------------------------------------------------------------

@root
def test_allow_other_keeps_permissions(llama, public_folder):
    source = shutil.copytree(llama, public_folder / "source")
    source.chmod(0o755)
    for path in source.iterdir():
        path.chmod(0o644)
    (source / "config.json").chmod(0o600)
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "cat"]
    with mounted(source, "allow_other", mountpoint=public_folder / "mnt") as mount:
        for name, readable in (("model.safetensors", True), ("config.json", False),
                               (".unshard/status.json", True)):
            done = subprocess.run([*nobody, str(mount / name)], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)
            assert (done.returncode == 0) == readable, done.stderr
            assert readable or "Permission denied" in done.stderr
    with mounted(source, mountpoint=public_folder / "mnt") as mount:
        done = subprocess.run([*nobody, str(mount / "model.safetensors")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert done.returncode != 0


# ---- a descriptor that somebody else has mounted -------------------------------------------------

MOUNT = """
import ctypes, os, sys
descriptor, target = int(sys.argv[1]), sys.argv[2].encode()
data = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"unshard", target, b"fuse.unshard", 1 | 2 | 4, data.encode()):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
if len(sys.argv) > 3:
    sys.stdout.buffer.write(open(sys.argv[2] + "/" + sys.argv[3], "rb").read())
"""


@pytest.fixture
def fuse_descriptor():
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    yield descriptor
    with contextlib.suppress(OSError):
        os.close(descriptor)


@root
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_descriptor_as_mount_point(llama, public_folder, fuse_descriptor, user):
    """Mounted by root, served by a process that could not mount."""
    source, program = shutil.copytree(llama, public_folder / "source"), public_folder / "unshard"
    shutil.copy(UNSHARD, program)
    for path in (source, *source.iterdir()):
        path.chmod(0o755)
    subprocess.run([sys.executable, "-c", MOUNT, str(fuse_descriptor), public_folder / "mnt"],
                   pass_fds=[fuse_descriptor], check=True, stdout=subprocess.DEVNULL)
    become = [] if user == "root" else ["setpriv", f"--reuid={user}", "--regid=nogroup",
                                        "--clear-groups"]
    daemon = subprocess.Popen([*become, program, "mount", "-f", source,
                               f"/dev/fd/{fuse_descriptor}"], pass_fds=[fuse_descriptor])
    os.close(fuse_descriptor)
    try:
        run("wait", "--timeout", "20", public_folder / "mnt", check=True)
        with mounted(llama) as other:
            assert (public_folder / "mnt/model.safetensors").read_bytes() == \
                (other / "model.safetensors").read_bytes()
        assert is_mounted(public_folder / "mnt")
        daemon.terminate()
        assert daemon.wait(PATIENCE) == 0
    finally:
        daemon.kill()
        detach(public_folder / "mnt")


@root
def test_descriptor_mounted_out_of_sight(llama, mountpoint, fuse_descriptor):
    """The mount is in another mount namespace, as that of another container is."""
    reader = subprocess.Popen(["unshare", "-m", "--propagation", "private", sys.executable, "-c",
                               MOUNT, str(fuse_descriptor), mountpoint, "model.safetensors"],
                              pass_fds=[fuse_descriptor], stdout=subprocess.PIPE)
    assert reader.stdout.readline() == b"mounted\n"
    address = str(mountpoint.parent / "notify")
    with listening(address) as notify, \
            foreground(llama, f"/dev/fd/{fuse_descriptor}", pass_fds=[fuse_descriptor],
                       env={**os.environ, "NOTIFY_SOCKET": address}):
        os.close(fuse_descriptor)
        content, _ = reader.communicate(timeout=PATIENCE)
        assert "READY=1" in receive(notify)
        assert not is_mounted(mountpoint)
    with mounted(llama) as other:
        assert content == (other / "model.safetensors").read_bytes()


@root
def test_descriptor_that_is_not_mounted(llama, fuse_descriptor):
    done = run("mount", "-f", llama, f"/dev/fd/{fuse_descriptor}", pass_fds=[fuse_descriptor])
    assert done.returncode == 1 and "nothing is mounted" in done.stderr


def test_descriptor_of_something_else(llama):
    with open("/dev/null") as other:
        done = run("mount", llama, f"/dev/fd/{other.fileno()}", pass_fds=[other.fileno()])
        assert done.returncode == 1 and "/dev/fuse" in done.stderr
    done = run("mount", llama, "/dev/fd/987")
    assert done.returncode == 1 and "/dev/fd/987" in done.stderr


# ---- service managers ----------------------------------------------------------------------------

@contextlib.contextmanager
def listening(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        yield listener


def receive(listener):
    """The next message for a service manager."""
    assert select.select([listener], [], [], PATIENCE)[0], "no message"
    return listener.recv(4096).decode()


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_notifications(llama, mountpoint, tmp_path, kind):
    address = str(tmp_path / "notify") if kind == "path" else f"\0unshard-{os.getpid()}"
    environment = {**os.environ, "NOTIFY_SOCKET": address.replace("\0", "@")}
    with listening(address) as notify:
        with foreground(llama, mountpoint, env=environment) as daemon:
            ready = receive(notify)
            assert "READY=1" in ready and f"MAINPID={daemon.pid}" in ready
            assert is_mounted(mountpoint)
            status = receive(notify)
            assert re.match(r"STATUS=.*ready: .*100 %", status), status
        assert receive(notify) == "STOPPING=1"
    assert not is_mounted(mountpoint)


def test_no_ready_when_it_fails(tmp_path, mountpoint):
    address = str(tmp_path / "notify")
    with listening(address) as notify:
        done = run("mount", "-f", "/dev/null/none", mountpoint,
                   env={**os.environ, "NOTIFY_SOCKET": address})
        assert done.returncode == 1
        assert not select.select([notify], [], [], 0)[0]


# ---- --json ------------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["background", "foreground"])
def test_the_result_as_json(tmp_path, mountpoint, flags):
    done = run("mount", "--json", *flags, tmp_path / "nowhere", mountpoint)
    assert done.returncode == 1 and not done.stderr
    error = json.loads(done.stdout)["error"]
    assert set(error) == {"code", "message", "offset", "errno"}
    assert error["errno"] == errno.ENOENT and str(tmp_path / "nowhere") in error["message"]


def test_the_result_of_a_mount_that_works_as_json(llama, mountpoint):
    done = run("mount", "--json", llama, mountpoint, check=True)
    assert json.loads(done.stdout) == {"error": None} and is_mounted(mountpoint)
    run("umount", mountpoint, check=True)


# ---- the log -------------------------------------------------------------------------------------

LINE = r"(emerg|alert|crit|error|warning|notice|info|debug) [a-z]+ event=[a-z-]+( [a-z_]+=.*)?"


def test_log_to_standard_error_in_the_foreground(llama, mountpoint, tmp_path):
    with open(tmp_path / "log", "w+") as log:
        with foreground(llama, mountpoint, stderr=log):
            wait_for(lambda: "event=mounted" in (tmp_path / "log").read_text())
        lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) >= 3
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z " + LINE, line), line


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_log_to_the_journal(llama, mountpoint, tmp_path, background):
    """JOURNAL_STREAM names standard error: lines carry priorities and no time."""
    with open(tmp_path / "log", "w+") as log:
        attributes = os.fstat(log.fileno())
        environment = {**os.environ,
                       "JOURNAL_STREAM": f"{attributes.st_dev}:{attributes.st_ino}"}
        if background:
            subprocess.run([UNSHARD, "mount", llama, mountpoint], stderr=log, env=environment,
                           check=True)
            run("umount", mountpoint, check=True)
        else:
            with foreground(llama, mountpoint, stderr=log, env=environment):
                wait_for(lambda: "event=mounted" in (tmp_path / "log").read_text())
    lines = (tmp_path / "log").read_text().splitlines()
    assert any("event=mounted" in line for line in lines)
    assert any("event=unmounted" in line for line in lines)
    for line in lines:
        assert re.fullmatch(r"<[0-7]>" + LINE, line), line


def test_journal_of_somebody_else(llama, mountpoint, tmp_path):
    """The variable is inherited, standard error is not: not the journal."""
    with open(tmp_path / "log", "w+") as log:
        with foreground(llama, mountpoint, stderr=log,
                        env={**os.environ, "JOURNAL_STREAM": "1:1"}):
            wait_for(lambda: "event=mounted" in (tmp_path / "log").read_text())
    assert not (tmp_path / "log").read_text().startswith("<")


@root
def test_log_to_syslog_in_the_background(llama, mountpoint, tmp_path):
    """In a mount namespace with a /dev of its own, so that nobody else logs to our socket."""
    devices = tmp_path / "dev"
    devices.mkdir()
    for name, minor in (("null", os.makedev(1, 3)), ("fuse", os.makedev(10, 229))):
        os.mknod(devices / name, 0o666 | stat.S_IFCHR, minor)
    with listening(str(devices / "log")) as syslog:
        done = subprocess.run(["unshare", "-m", "--propagation", "private", "/bin/sh", "-ec",
                               f"mount --bind {devices} /dev; {UNSHARD} mount {llama} {mountpoint};"
                               f"{UNSHARD} umount {mountpoint}"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, timeout=PATIENCE * 3)
        assert done.returncode == 0, done.stderr
        line = receive(syslog)
    assert re.search(rf"<\d+>.*unshard\[\d+\]: {LINE}", line), line
