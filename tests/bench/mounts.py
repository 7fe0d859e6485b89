# SPDX-License-Identifier: MIT
"""Mounts that always go away again, and what they cost: processor time, memory, bytes read."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
import uuid

import checkpoints

TOP = pathlib.Path(__file__).resolve().parents[2]
SLOWFS = TOP / "build/tests/slowfs/slowfs"
CONTROL_GROUPS = pathlib.Path("/sys/fs/cgroup")
BOUND = 60


class Left(Exception):
    """A candidate that cannot take part here, and why."""


def processor_seconds(pid):
    """Of all threads of that process so far, to the nanosecond."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock of another process, see clock_getcpuclockid


def storage_reads(pid):
    """Bytes that a process had its devices read."""
    for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("read_bytes:"):
            return int(line.split()[1])
    return 0


def memory_of(pid, what):
    """VmRSS or VmHWM, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) << 10
    return 0


class Mounted:
    """path: where; pid: of whoever serves it; answered: since when."""

    def __init__(self, path, pid):
        self.path, self.pid, self.answered = path, pid, time.monotonic()

    def status(self):
        return json.loads((self.path / ".unshard/status.json").read_text())

    def costs(self):
        return {"daemon": processor_seconds(self.pid),
                "daemon_peak": memory_of(self.pid, "VmHWM"),
                "daemon_storage": storage_reads(self.pid)}


def is_mounted(path):
    """Also when whoever served it is gone; without asking the mount."""
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4] == str(path) for line in table)


@contextlib.contextmanager
def mountpoint():
    path = pathlib.Path(tempfile.mkdtemp(prefix="unshard-bench-mnt-"))
    try:
        yield path
    finally:
        while is_mounted(path):  # a run that was interrupted leaves no mount either
            subprocess.run(["umount", "-l", path], check=False)
        path.rmdir()


@contextlib.contextmanager
def served(*command):
    """What `command MOUNTPOINT` serves in the foreground."""
    if not shutil.which(str(command[0])):
        raise Left(f"{pathlib.Path(command[0]).name} is not installed")
    with mountpoint() as path:
        process = subprocess.Popen([*map(str, command), str(path)], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + BOUND
            while not is_mounted(path):
                if process.poll() is not None or time.monotonic() > end:
                    raise Left(f"{command[0]} does not mount")
                time.sleep(0.001)
            yield Mounted(path, process.pid)
        finally:
            subprocess.run(["umount", path], stderr=subprocess.DEVNULL, check=False)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)
            if process.poll() is None:
                process.kill()
                subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
                process.wait()


def bindfs(source):
    return served("bindfs", "-f", "-r", source)


def mergerfs(source):
    return served("mergerfs", "-f", "-o", "ro", source)


@contextlib.contextmanager
def rclone(source):
    """With its cache of files, without which it is several times slower."""
    with checkpoints.folder(None) as cache, \
            served("rclone", "--config=/dev/null", f"--cache-dir={cache}", "mount", "--read-only",
                   "--vfs-cache-mode=full", "--max-read-ahead=1M", source) as mount:
        yield mount


def slowfs(source, rules):
    """keep: pages stay from one open to the next, as a file's do that has not changed."""
    return served(SLOWFS, "-f", "-o", rules + ",keep=1", source)


def slowfs_bytes(path):
    return json.loads((path / ".slowfs/stats").read_text())["bytes"]


def flags(options):
    return [part for option in options for part in ("-o", option)]


@contextlib.contextmanager
def unshard(program, source, options=(), prefix=()):
    """As a user mounts it: the command returns when the mount works. No digest is known from before."""
    with checkpoints.folder(None) as cache, mountpoint() as path:
        environment = dict(os.environ, UNSHARD_CACHE_DIR=str(cache))
        with tempfile.TemporaryFile("w+") as said:  # not a pipe, which the daemon would keep open
            done = subprocess.run([*prefix, program, "mount", *flags(options), source, path],
                                  stdout=said, stderr=said, timeout=BOUND, env=environment,
                                  check=False)
            said.seek(0)
            if done.returncode:
                raise Left("refused: " + said.read().splitlines()[0])
        mount = Mounted(path, None)
        try:
            mount.pid = mount.status()["pid"]
            yield mount
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run([program, "umount", path], timeout=BOUND, check=False)


def quiet(*command):
    subprocess.run(command, check=True, timeout=4 * BOUND, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def memory_group(limit):
    """A memory control group of either version; the words that run a command in it."""
    controllers = CONTROL_GROUPS / "cgroup.controllers"
    second = controllers.exists() and "memory" in controllers.read_text().split()
    path = (CONTROL_GROUPS if second else CONTROL_GROUPS / "memory") / f"bench-{uuid.uuid4().hex[:8]}"
    try:
        if second:
            (CONTROL_GROUPS / "cgroup.subtree_control").write_text("+memory")
        path.mkdir()
        (path / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as error:
        raise Left(f"no memory control group: {error}") from error
    try:
        yield ("sh", "-c", f'echo $$ >{path}/cgroup.procs && exec "$@"', "sh")
    finally:
        end = time.monotonic() + BOUND
        while (path / "cgroup.procs").read_text().strip() and time.monotonic() < end:
            time.sleep(0.01)
        path.rmdir()
