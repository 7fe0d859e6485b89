# SPDX-License-Identifier: MIT
"""A systemd of its own, first process of its own namespaces, that runs one script and ends.

What a unit file asks for is only true when systemd has done it; this needs root, and a control group
of version 2 that groups can be made in."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import textwrap

from harness import wait_for

SYSTEMD = "/lib/systemd/systemd"

# Nothing of the machine can be changed but the folder: systemd pulls in units that would clean up.
BOOT = """\
set -e
mount --make-rprivate /
mount --bind /tmp /tmp
mount --bind {folder} {folder}
mount -o remount,bind,ro /
mount --make-rshared /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var
umount -R /sys/fs/cgroup || true
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/system
ln -s /dev/null /run/systemd/system/systemd-tmpfiles-setup.service
ln -s /dev/null /run/systemd/system/systemd-tmpfiles-clean.service
cp {folder}/units/* /run/systemd/system
export container=test
exec {systemd} --system --unit=script.target --show-status=no
"""

TARGET = """\
[Unit]
DefaultDependencies=no
Requires=script.service
"""

SCRIPT = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/bash {folder}/script
ExecStopPost=/bin/touch {folder}/ended
StandardOutput=append:{folder}/said
StandardError=append:{folder}/said
"""


def group_root():
    """Where control groups of version 2 are mounted, or None."""
    for line in pathlib.Path("/proc/self/mounts").read_text().splitlines():
        if line.split()[2] == "cgroup2":
            return pathlib.Path(line.split()[1])
    return None


def why_not():
    """Why there can be no such systemd here, or None."""
    if os.geteuid() != 0:
        return "only root can start a systemd"
    if not pathlib.Path(SYSTEMD).exists() or not shutil.which("unshare"):
        return "systemd is not installed"
    if not group_root():
        return "no control groups of version 2"
    return None


def remove(group):
    """Whether it is gone. Processes that were killed are in there until they are."""
    for inner in sorted(group.glob("**/"), reverse=True):
        with contextlib.suppress(OSError):
            inner.rmdir()
    return not group.exists()


@contextlib.contextmanager
def control_group(name):
    group = group_root() / name
    group.mkdir()
    try:
        yield group
    finally:
        wait_for(lambda: remove(group), what=f"{group} is empty")


def run_script(folder, units, script, bound=60):
    """Starts systemd with `units` ({name: text}) and has it run the bash script. What that said."""
    (folder / "units").mkdir()
    for name, text in {**units, "script.target": TARGET,
                       "script.service": SCRIPT.format(folder=folder)}.items():
        (folder / "units" / name).write_text(text)
    (folder / "script").write_text(textwrap.dedent(script))
    (folder / "boot").write_text(BOOT.format(folder=folder, systemd=SYSTEMD))
    with control_group(f"unshard-test-{os.getpid()}") as group:
        enter = f'echo $$ >{group}/cgroup.procs; exec "$@"'
        with open(folder / "boot.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(["sh", "-c", enter, "sh", "unshare", "--pid", "--mount", "--uts",
                                        "--ipc", "--cgroup", "--fork", "--mount-proc",
                                        "--kill-child", "bash", folder / "boot"],
                                       stdout=log, stderr=log)
            # Killed, not asked: the end of a systemd takes loop devices away that are not its own.
            try:
                wait_for((folder / "ended").exists, bound, "the end of the script")
            finally:
                process.kill()
                process.wait()
    said = folder / "said"
    return said.read_text() if said.exists() else (folder / "boot.log").read_text()
