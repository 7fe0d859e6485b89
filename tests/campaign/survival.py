#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Ends daemon and supervisor of a mount at random moments, while it is used in every way.

A daemon alone that is killed, or gives way to another program, is noticed by nobody: no error, no
wrong byte, nothing is read from storage again, and whoever waits does so for a moment. When nobody
is left who could serve the mount readers get an error soon, and the next mount works. Rounds:

  kill       the daemon, several times under load
  warm       the same when all is in the page cache: nothing is read from storage again
  upgrade    to another program and back, several times under load
  order      daemon and supervisor, in any order, one just after the other, or both at once
  ending     the daemon is told to end, and killed before it has
  pause      the daemon is stopped for a moment
  crash      the daemon crashes, twice
  interrupt  the command that mounts is ended before the mount stands

In half of the rounds the kernel is not asked to send again what the dead daemon had read, as it
cannot be before Linux 6.9; of those of root a third are of a user without rights, who mounts by
fusermount3 and cannot end a connection.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import rounds
from readers import (BOUND, VIEW, Readers, Sources, check_results, mount_options, read_all)
from rounds import Campaign, Fault, harness, require

WORKING = pathlib.Path(__file__).resolve().parent / "working.py"
HANG = 10  # seconds
LOG_LINES = 40
USER = 65534
UNPRIVILEGED = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]


# ---- who uses the mount ------------------------------------------------------------------------

class Workers:
    """Processes that use a mount in every way, as long as this lives."""

    def __init__(self, mount, truth, rng, count=2):
        self.mount = mount
        self.processes = [subprocess.Popen(
            [*mount.prefix, sys.executable, "-S", "-E", WORKING, mount.path, VIEW, truth,
             str(rng.random())], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True) for _ in range(count)]
        for process in self.processes:
            require(process.stdout.readline() == "ready\n", "a worker did not begin")

    def end(self):
        """What each has found; one that hangs is a fault."""
        end = time.monotonic() + HANG
        found = []
        for process in self.processes:
            try:
                output, errors = process.communicate("", timeout=max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                where = [harness.where_it_hangs(pid, self.mount.path) for pid in (process.pid, self.mount.pid)]
                self.discard()
                raise Fault(f"a worker hangs for {HANG} s, in {where[0]}; the daemon in {where[1]}") from None
            require(process.returncode in (0, -signal.SIGBUS), "a worker ended with",
                    process.returncode, errors)
            found.append(json.loads(output) if output else {"done": 0, "failures": ["SIGBUS"], "slow": []})
        return found

    def discard(self):
        number = harness.connection_of(self.mount.path)
        if number is not None and any(process.poll() is None for process in self.processes):
            harness.abort_connection(number)
        for process in self.processes:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def working(mount, truth, rng):
    workers = Workers(mount, truth, rng)
    try:
        yield workers
    finally:
        for process in workers.processes:
            process.kill()
            process.wait()


def check_unnoticed(found):
    failures = [failure for one in found for failure in one["failures"]]
    require(not failures, "noticed:", failures[:5])
    return sum(one["done"] for one in found)


def check_bytes(found):
    """A mount that has gone shows other names; what could be read of it was right all the same."""
    wrong = [failure for one in found for failure in one["failures"]
             if "AssertionError" in failure and failure.startswith(("read", "map"))]
    require(not wrong, "wrong bytes:", wrong[:3])


def longest_between(found, begin, end):
    return max((until - since for one in found for since, until, _ in one["slow"]
                if since < end and until > begin), default=0.0)


# ---- processes of a mount ----------------------------------------------------------------------

def daemon_of(mount):
    """Which process serves it, as it says itself, within a bound."""
    done = subprocess.run([*mount.prefix, "cat", mount.path / ".unshard/status.json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=HANG)
    require(done.returncode == 0, "no status:", done.stderr)
    return json.loads(done.stdout)["pid"]


def supervisor_of(mount):
    """Found by the daemon, whose child or parent it is; None: there is none just now."""
    def is_one(pid):
        with contextlib.suppress(OSError):
            return pathlib.Path(f"/proc/{pid}/comm").read_text() == "unshard-monitor\n"
        return False
    child = harness.child_named(mount.pid, "unshard-monitor")
    if child:
        return child
    with contextlib.suppress(OSError):
        stat = pathlib.Path(f"/proc/{mount.pid}/stat").read_text()
        parent = int(stat.rpartition(")")[2].split()[1])
        return parent if is_one(parent) else None
    return None


def wait_for_successor(mount):
    before = mount.pid
    mount.pid = harness.wait_for(lambda: (pid := daemon_of(mount)) != before and pid, HANG,
                                 "another daemon")


@contextlib.contextmanager
def mounted(sources, storage, rng, *options):
    """A mount that is taken away in any case; by which user, and whether the kernel is asked to send
    again, is chosen."""
    environment = {"UNSHARD_TEST_NO_RESEND": "1"} if rng.random() < 0.5 else {}
    prefix = ["env", *(f"{name}={value}" for name, value in environment.items())]
    mountpoint = pathlib.Path(tempfile.mkdtemp(prefix="unshard-mnt-"))
    if os.geteuid() == 0 and rng.random() < 1 / 3:
        os.chown(mountpoint, USER, USER)
        prefix = [*UNPRIVILEGED, *prefix]
    log = sources.scratch / f"log-{mountpoint.name}"
    log.touch()
    log.chmod(0o666)
    mount = UserMount(storage.path, *options, f"log={log}", mountpoint=mountpoint, prefix=prefix)
    try:
        require(mount.result == 0, mount.output)
        yield mount
    except Exception as error:
        said = "\n    ".join(log.read_text().splitlines()[-LOG_LINES:])
        raise Fault(f"{prefix}, {options}: {error!r}\n    {said}") from error
    finally:
        mount.discard()
        kill_all(mount)
        mountpoint.rmdir()
        log.unlink()


class UserMount(harness.Mount):
    """Of a user; others, root among them, may not look into it."""

    def status(self):
        done = subprocess.run([*self.prefix, "cat", self.path / ".unshard/status.json"],
                              stdout=subprocess.PIPE, timeout=BOUND, check=True)
        return json.loads(done.stdout)

    def unmount(self):
        done = subprocess.run([*self.prefix, harness.UNSHARD, "umount", self.path],
                              stderr=subprocess.PIPE, text=True, timeout=BOUND)
        require(done.returncode == 0, done.stderr)
        harness.wait_for(lambda: not harness.is_mounted(self.path), BOUND, "unmounted")
        harness.wait_for(lambda: not harness.is_alive(self.pid), BOUND, "the daemon's end")
        self.pid = None
        self.sanitizers.check()


def kill_all(mount):
    for pid in harness.processes_of(mount.command[len(mount.prefix):]):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


# ---- what nobody notices -----------------------------------------------------------------------

def under_load(sources, storage, mount, rng, times, replace):
    """Has the daemon replaced again and again. How long workers stood, at most, each time."""
    moments = []
    with working(mount, sources.file, rng) as workers:
        for _ in range(times):
            time.sleep(rng.uniform(0, 0.15))
            begun = time.monotonic()
            replace()
            moments.append((begun, time.monotonic()))
        found = workers.end()
    check_unnoticed(found)
    return [longest_between(found, *moment) for moment in moments]


def play_kill(sources, storage, mount, rng, campaign):
    def replace():
        os.kill(mount.pid, signal.SIGKILL)
        wait_for_successor(mount)
    campaign.pauses += under_load(sources, storage, mount, rng, campaign.times, replace)
    require(mount.status()["restarts"] == campaign.times, "not all were counted")
    return [f"killed {campaign.times} times"]


def play_upgrade(sources, storage, mount, rng, campaign):
    programs = [harness.UNSHARD, str(sources.program)]

    def replace():
        programs.reverse()
        done = subprocess.run([*mount.prefix, programs[0], "upgrade", mount.path],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=BOUND)
        require(done.returncode == 0, done.stderr)
        mount.pid = daemon_of(mount)
        require(os.readlink(f"/proc/{mount.pid}/exe") == programs[0], "the old program")
    campaign.upgrade_pauses += under_load(sources, storage, mount, rng, campaign.times, replace)
    return [f"upgraded {campaign.times} times"]


def play_warm(sources, storage, mount, rng, campaign):
    mount.wait_warm()
    before = storage.stats()["bytes"]
    for _ in range(3):
        os.kill(mount.pid, signal.SIGKILL)
        wait_for_successor(mount)
        mount.wait_warm()
    again = storage.stats()["bytes"] - before
    readers = Readers(mount.path, sources.file, ["read", "mmap"], mount.prefix)
    try:
        require(check_results(readers.results()), "a reader got an error")
    finally:
        readers.discard()
    # What the kernel has dropped meanwhile, of itself, readers have brought in again, which does not count.
    # Headers are read anew to lay the directory out, and the kernel reads ahead of them.
    require(again <= 3 * len(sources.shards) * (128 << 10), "read again:", again)
    return ["warm stayed warm"]


def play_pause(sources, storage, mount, rng, campaign):
    with working(mount, sources.file, rng) as workers:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(mount.pid, signal.SIGSTOP)
        time.sleep(rng.uniform(0, 0.1))
        os.kill(mount.pid, signal.SIGCONT)
        check_unnoticed(workers.end())
    return ["stopped and continued"]


def play_crash(sources, storage, mount, rng, campaign):
    """With other requests each time: one that two daemons crash under is answered with an error."""
    for _ in range(2):
        with working(mount, sources.file, rng) as workers:
            time.sleep(rng.uniform(0, 0.1))
            os.kill(mount.pid, rng.choice([signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT]))
            wait_for_successor(mount)
            check_unnoticed(workers.end())
    require(mount.status()["restart_reason"] == "crashed", mount.status()["restart_reason"])
    return ["crashed twice"]


# ---- what may be noticed -----------------------------------------------------------------------

def check_next(sources, storage, mount, options):
    """Whatever is left of it, another mount takes its place, or finds that it is served."""
    other = UserMount(storage.path, *options, mountpoint=mount.path, prefix=mount.prefix)
    try:
        served = "already mounted" in other.output
        require(other.result == 0 or served, "no other mount:", other.output)
        if served:
            mount.pid = other.pid = daemon_of(mount)
        readers = Readers(mount.path, sources.file, ["read"], mount.prefix)
        try:
            require(check_results(readers.results()), "another mount does not read all")
        finally:
            readers.discard()
        other.unmount()
    finally:
        other.discard()
    mount.pid = None
    return served


def kill_in_order(mount, rng):
    """Whom, and what lies between."""
    deeds = rng.choice([["daemon", "supervisor"], ["supervisor", "daemon"], ["supervisor", "supervisor"],
                        ["stop", "supervisor", "daemon"], ["stop", "daemon"], ["both"],
                        ["daemon", "supervisor", "supervisor"]])
    for deed in deeds:
        supervisor = supervisor_of(mount)
        if deed == "both" and supervisor:
            os.kill(supervisor, signal.SIGSTOP)
        with contextlib.suppress(OSError):
            if deed == "stop":
                os.kill(mount.pid, signal.SIGSTOP)
            if deed in ("daemon", "both"):
                os.kill(mount.pid, signal.SIGKILL)
            if deed in ("supervisor", "both") and supervisor:
                os.kill(supervisor, signal.SIGKILL)
        time.sleep(rng.choice([0, 0, rng.uniform(0, 0.02), rng.uniform(0, 0.2)]))
    return deeds


def play_order(sources, storage, mount, rng, campaign, options):
    first = mount.pid
    with working(mount, sources.file, rng) as workers:
        time.sleep(rng.uniform(0, 0.15))
        deeds = kill_in_order(mount, rng)
        found = workers.end()
    check_bytes(found)
    harness.wait_for(lambda: not harness.is_alive(first) or "daemon" not in deeds + ["daemon"] * ("both" in deeds),
                     BOUND, "the daemon's end")
    return ["served on" if check_next(sources, storage, mount, options) else "ended"]


def play_ending(sources, storage, mount, rng, campaign, options):
    first = mount.pid
    with working(mount, sources.file, rng) as workers:
        time.sleep(rng.uniform(0, 0.1))
        os.kill(first, signal.SIGTERM)
        time.sleep(rng.uniform(0, 0.03))
        with contextlib.suppress(OSError):
            os.kill(first, signal.SIGKILL)
        found = workers.end()
    check_bytes(found)
    harness.wait_for(lambda: not harness.is_alive(first), BOUND, "the daemon's end")
    return ["served on" if check_next(sources, storage, mount, options) else "ended"]


def play_interrupt(sources, rng):
    mountpoint = pathlib.Path(tempfile.mkdtemp(prefix="unshard-mnt-"))
    with harness.slow(sources.forms["none"], latency=rng.choice([0, 1, 3])) as storage:
        command = [harness.UNSHARD, "mount", str(storage.path), str(mountpoint)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            time.sleep(rng.uniform(0, 0.1))
            process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
            if process.wait(BOUND) == 0:
                harness.run("umount", mountpoint, check=True)
                return ["mounted before"]
            harness.wait_for(lambda: not list(harness.processes_of(command)), BOUND,
                             "nothing that goes on")
            require(not harness.is_mounted(mountpoint), "mounted all the same")
        finally:
            process.kill()
            process.wait()
            harness.detach(mountpoint)
            mountpoint.rmdir()
    return ["interrupted"]


UNNOTICED = {"kill": play_kill, "upgrade": play_upgrade, "warm": play_warm, "pause": play_pause,
             "crash": play_crash}
NOTICED = {"order": play_order, "ending": play_ending}


def play(sources, campaign, kind, rng):
    if kind == "interrupt":
        return play_interrupt(sources, rng)
    origin = rng.choice(["sha256sum", "manifest", "none"])
    options = mount_options(rng)
    if kind == "warm":
        options = [option for option in options if option != "prefetch=off"]
    with harness.slow(sources.forms[origin], latency=rng.choice([0, 1, 3])) as storage, \
            mounted(sources, storage, rng, *options) as mount:
        if kind in NOTICED:
            return NOTICED[kind](sources, storage, mount, rng, campaign, options)
        words = UNNOTICED[kind](sources, storage, mount, rng, campaign)
        mount.unmount()
        return words


@contextlib.contextmanager
def fuse_for_all():
    """As udev has it; a bare container may not."""
    before = os.stat("/dev/fuse").st_mode & 0o777
    if os.geteuid() == 0:
        os.chmod("/dev/fuse", 0o666)
    try:
        yield
    finally:
        if os.geteuid() == 0:
            os.chmod("/dev/fuse", before)


def print_pauses(name, pauses):
    if not pauses:
        return
    pauses = sorted(pauses)
    at = {f"{part} %": pauses[min(len(pauses) - 1, len(pauses) * part // 100)] for part in (50, 90, 99)}
    print(f"{name}: {len(pauses)}; a worker stood for " +
          ", ".join(f"{1000 * value:.0f} ms ({part})" for part, value in at.items()) +
          f", {1000 * pauses[-1]:.0f} ms at most")


def main():
    parser = rounds.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--times", type=int, default=10, help="kills, or upgrades, in each of those rounds")
    parser.add_argument("--kind", help="rounds of this kind only")
    options = parser.parse_args()
    share = {"warm": 0.05, "upgrade": 0.085, "order": 0.5, "ending": 0.07, "pause": 0.025,
             "crash": 0.05, "interrupt": 0.05}
    counts = {kind: round(options.rounds * part) for kind, part in share.items()}
    counts["kill"] = options.rounds - sum(counts.values())
    if options.kind:
        counts = {options.kind: options.rounds}
    with rounds.scratch() as scratch, fuse_for_all():
        sources = Sources(scratch)
        sources.program = shutil.copy(harness.UNSHARD, scratch / "unshard")
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(path.stat().st_mode | 0o755)
        campaign = Campaign("survival", options.seed, options.jobs, options.round)
        campaign.pauses, campaign.upgrade_pauses, campaign.times = [], [], options.times
        status = campaign.run(rounds.interleave(counts),
                              lambda number, kind, rng: play(sources, campaign, kind, rng))
        print_pauses("kills", campaign.pauses)
        print_pauses("upgrades", campaign.upgrade_pauses)
    if harness.left_mounted():
        print("left mounted:", *harness.left_mounted())
    return 1 if harness.left_mounted() else status


if __name__ == "__main__":
    sys.exit(main())
