# SPDX-License-Identifier: MIT
"""Mounts that always go away again, and waiting for conditions with a bound."""

import atexit
import contextlib
import gc
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
UNSHARD = os.environ.get("UNSHARD_BIN", str(TOP / "build/unshard"))
SLOWFS = str(TOP / "build/tests/slowfs/slowfs")
SANITIZER = os.environ.get("UNSHARD_SANITIZER", "")
CONNECTIONS = pathlib.Path("/sys/fs/fuse/connections")
# Under a sanitizer everything takes longer.
PATIENCE = 60 if SANITIZER else 20


# Programs that we start would inherit what nohup(1), or a shell's "&", has these ignored for.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def use_own_digest_cache():
    """No test reads or fills the cache of whoever runs it."""
    folder = tempfile.mkdtemp(prefix="unshard-digest-cache-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["UNSHARD_CACHE_DIR"] = folder


use_own_digest_cache()


def wait_for(predicate, bound=PATIENCE, what=""):
    """The first true value of predicate(), asked again and again for at most `bound` seconds."""
    end = time.monotonic() + bound
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {bound} s: {what or predicate}")
        time.sleep(0.01)


def refaults():
    """Pages of files that the kernel had taken away by itself and that came back, on this machine."""
    return int(re.search(r"^workingset_refault_file (\d+)$", pathlib.Path("/proc/vmstat").read_text(),
                         re.M)[1])


def undisturbed(measure, attempts=6):
    """Calls measure(), which asserts how much storage was read: once more where it is wrong and the
    kernel took pages away meanwhile, of which each may cost a whole chunk."""
    for left in reversed(range(attempts)):
        before = refaults()
        try:
            return measure()
        except AssertionError:
            if not left or refaults() == before:
                raise


def run(*arguments, timeout=PATIENCE * 3, check=False, **options):
    """Runs the command-line tool and returns the finished process, its output as text."""
    done = subprocess.run([UNSHARD, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=timeout, **options)
    if check:
        assert done.returncode == 0, f"unshard {arguments}: {done.returncode}\n{done.stderr}"
    return done


def connection_of(mountpoint):
    """The number of the FUSE connection, without touching the mount; None: not mounted."""
    wanted = str(mountpoint).replace(" ", "\\040")
    for line in open("/proc/self/mountinfo"):
        fields = line.split()
        if fields[4] == wanted and " - fuse" in line:
            return int(fields[2].split(":")[1])
    return None


_used = set()  # where this process has mounted anything


def left_mounted():
    """Mount points of this process that are mounted still."""
    return sorted(path for path in _used if is_mounted(path))


def is_mounted(mountpoint):
    return connection_of(mountpoint) is not None


def abort_connection(number):
    if not (CONNECTIONS / str(number)).exists():
        subprocess.run(["mount", "-t", "fusectl", "none", str(CONNECTIONS)],
                       stderr=subprocess.DEVNULL)
    with contextlib.suppress(OSError):
        (CONNECTIONS / str(number) / "abort").write_text("1")


def detach(mountpoint):
    """Gets rid of a mount whatever state it is in."""
    for _ in range(8):
        number = connection_of(mountpoint)
        if number is None:
            return
        abort_connection(number)
        subprocess.run(["umount", "-l", str(mountpoint)], stderr=subprocess.DEVNULL)


def is_alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def child_named(parent, name):
    """The number of a process's child; None: there is none."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] not in "ZX" and \
                    (folder / "comm").read_text() == name + "\n":
                return int(folder.name)
    return None


def supervisor_of(daemon):
    """The process that watches over a daemon: a child of it, or, in the foreground and after a
    restart, its parent. None: there is none just now."""
    child = child_named(daemon, "unshard-monitor")
    if child:
        return child
    with contextlib.suppress(OSError):
        parent = int(pathlib.Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[1])
        if pathlib.Path(f"/proc/{parent}/comm").read_text() == "unshard-monitor\n":
            return parent
    return None


def kill_with_supervisor(daemon):
    """As the end of a container does: nobody is left who could go on."""
    supervisor = supervisor_of(daemon)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(daemon, signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)
    wait_for(lambda: not is_alive(daemon) and not is_alive(supervisor), what="both are gone")


def processes_of(command):
    """Those that were started with these words, zombies left out."""
    wanted = b"\0".join(os.fsencode(word) for word in command) + b"\0"
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes() == wanted and is_alive(int(folder.name)):
                yield int(folder.name)


def where_it_hangs(pid, mountpoint):
    """Where each thread of a process waits in the kernel, and who else has its mount, for a person."""
    lines = []
    for path in pathlib.Path("/proc").glob("[0-9]*/mountinfo"):
        with contextlib.suppress(OSError):
            if str(mountpoint) in path.read_text():
                lines.append(f"still mounted for {path.parent.name}: {path.with_name('cmdline').read_text()!r}")
    for folder in sorted(pathlib.Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            lines.append(" ".join((folder / name).read_text().strip() for name in ("comm", "wchan", "syscall")))
    return "\n".join(lines)


class Sanitizers:
    """Where the daemon's sanitizer writes reports, so that a report fails the test."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="unshard-sanitizer-")

    def environment(self):
        environment = dict(os.environ)
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
            environment[name] = (environment.get(name, "") + f":log_path={self.folder}/log")
        return environment

    def check(self):
        reports = sorted(pathlib.Path(self.folder).glob("log*"))
        text = "\n".join(path.read_text(errors="replace") for path in reports)
        shutil.rmtree(self.folder, ignore_errors=True)
        # What a killed process leaves may be an empty file.
        assert not text.strip(), f"sanitizer reports:\n{text[:8000]}"


class Mount:
    """A mount of `unshard mount`, in the background as a user starts it."""

    def __init__(self, source, *options, mountpoint=None, prefix=()):
        self.source = pathlib.Path(source)
        self.own = mountpoint is None
        self.path = pathlib.Path(mountpoint or tempfile.mkdtemp(prefix="unshard-mnt-"))
        _used.add(str(self.path))
        self.sanitizers = Sanitizers()
        self.pid = None
        self.prefix = prefix
        flags = [part for option in options for part in ("-o", option)]
        self.command = [*prefix, UNSHARD, "mount", *flags, str(source), str(self.path)]
        with tempfile.TemporaryFile("w+") as log:
            # Not a pipe: a daemon that kept it open would keep us waiting.
            try:
                done = subprocess.run(self.command, stdout=log, stderr=log, timeout=PATIENCE * 3,
                                      env=self.sanitizers.environment())
            except subprocess.TimeoutExpired:
                self.kill_daemons()  # which would go on and mount later
                self.discard()
                raise
            log.seek(0)
            self.output = log.read()
        self.result = done.returncode
        if done.returncode == 0:
            self.pid = self.status()["pid"]

    def __truediv__(self, name):
        return self.path / name

    def status(self):
        return json.loads((self.path / ".unshard/status.json").read_text())

    def component(self, view):
        """The status of the component whose view has that path below the mount."""
        found = [one for one in self.status()["components"] if one["view"] == str(view)]
        assert len(found) == 1, f"{view}: {[one['view'] for one in self.status()['components']]}"
        return found[0]

    def component_of_shard(self, file):
        for component in self.status()["components"]:
            for shard in component["shards"]:
                if shard["file"].endswith(file):
                    return component, shard
        raise AssertionError(f"no shard {file} in the status")

    def wait_warm(self, bound=PATIENCE * 3):
        """Waits until the prefetcher has read every shard that it can read, and stored it."""
        def settled():
            status = self.status()  # a shard that is verified may still be on its way to its pages
            return status["state"] != "prefetching" and all(
                shard["state"] not in ("pending", "reading")
                for component in status["components"] for shard in component["shards"])
        wait_for(settled, bound, "all shards read")

    def unmount(self):
        """Unmounts cleanly and checks that daemon and mount are gone and no sanitizer spoke."""
        gc.collect()
        done = run("umount", self.path)
        assert done.returncode == 0, done.stderr + where_it_hangs(self.pid, self.path)
        wait_for(lambda: not is_mounted(self.path), what="unmounted")
        if self.pid:
            wait_for(lambda: not is_alive(self.pid), what="daemon ended")
            self.pid = None
        self.sanitizers.check()

    def kill_daemons(self):
        """Ends every process that was started by our command, known by its command line, and
        whoever would start another one."""
        for pid in list(processes_of(self.command[len(self.prefix):])):
            supervisor = supervisor_of(pid)
            for process in (supervisor, pid):
                with contextlib.suppress(OSError, TypeError):
                    os.kill(process, signal.SIGKILL)

    def discard(self):
        detach(self.path)
        self.kill_daemons()
        if self.own:
            with contextlib.suppress(OSError):
                self.path.rmdir()


@contextlib.contextmanager
def mounted(source, *options, **more):
    mount = Mount(source, *options, **more)
    try:
        assert mount.result == 0, f"{mount.command}: {mount.result}\n{mount.output}"
        yield mount
        if mount.pid and is_alive(mount.pid):
            mount.unmount()
    finally:
        mount.discard()


class Slow:
    """A slow filesystem over a directory; see tests/slowfs/rules.h for its commands."""

    def __init__(self, directory, **settings):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="slowfs-"))
        _used.add(str(self.path))
        options = ",".join(["allow_other"] * (os.geteuid() == 0) +
                           [f"{name}={value}" for name, value in settings.items()])
        subprocess.run([SLOWFS, *(["-o", options] if options else []), str(directory),
                        str(self.path)], check=True, timeout=PATIENCE)

    def command(self, *lines):
        with open(self.path / ".slowfs/control", "w") as control:
            control.write("\n".join(lines) + "\n")

    def stats(self):
        return json.loads((self.path / ".slowfs/stats").read_text())

    def discard(self):
        with contextlib.suppress(OSError):
            self.command("reset")
        subprocess.run(["umount", "-l", str(self.path)], stderr=subprocess.DEVNULL)
        detach(self.path)
        with contextlib.suppress(OSError):
            self.path.rmdir()


@contextlib.contextmanager
def slow(directory, **settings):
    storage = Slow(directory, **settings)
    try:
        yield storage
    finally:
        storage.discard()


def drop_pages(path):
    """Has the kernel drop what it has of a file, as far as nobody has it mapped; other mounts of the
    machine keep theirs."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
