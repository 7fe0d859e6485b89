# SPDX-License-Identifier: MIT
"""The unit under a systemd: a confined daemon whose mount everybody sees, and what comes of its ends."""

import re
import subprocess

import pytest

import checkpoints
import systemd_host
from harness import SANITIZER, TOP, UNSHARD

UNIT = (TOP / "contrib/systemd/unshard@.service").read_text()
PROGRAM = "/usr/bin/unshard"

# Each "NAME: VALUE" is looked at by a test.
TOOLS = r"""
    main() {{ systemctl show -P MainPID unshard@test; }}
    status() {{ sed -En 's/^\t"'$1'":\t"?([^",]*)"?,$/\1/p' {mountpoint}/.unshard/status.json; }}
    daemon() {{ status pid; }}
    kept() {{ systemctl show -P NFileDescriptorStore unshard@test; }}
    mounts() {{ grep -c {mountpoint} /proc/self/mountinfo; }}
    sum() {{ sha256sum <{mountpoint}/model.safetensors | cut -c 1-64; }}
    await() {{ for i in $(seq 400); do "$@" && break; sleep 0.02; done; }}
    runs_anew() {{ [ "$(systemctl show -P SubState unshard@test)" = running ] && [ "$(main)" != "$old" ]; }}
    kill_all() {{ old=$(main); systemctl kill -s KILL unshard@test; await runs_anew; }}
"""

SCRIPT = """\
    systemctl start unshard@test; echo "start: $?"
    echo "sum: $(sum)"
    {unshard} wait --timeout 20 {mountpoint} >/dev/null; echo "wait: $?"
    echo "capabilities: $(grep -E '^CapEff:' /proc/$(daemon)/status | cut -f 2)"
    [ "$(readlink /proc/$(daemon)/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; echo "confined: $?"
    exec 7<{mountpoint}/model.safetensors
    systemctl stop unshard@test; echo "stop with an open file: $? $(mounts) $(kept)"
    exec 7<&-
    systemctl start unshard@test; echo "again: $(sum)"
    systemctl stop unshard@test; echo "stop: $? $(mounts) $(kept) $(systemctl show -P Result unshard@test)"
"""

SURVIVAL = """\
    systemctl start unshard@test; echo "start: $?"
    echo "sum: $(sum)"
    {unshard} wait --timeout 20 {mountpoint} >/dev/null; echo "wait: $?"
    old=$(main); kill -9 $(daemon)
    echo "daemon: $(sum) $(status restarts) $(status restart_reason) $(kept)"
    [ "$(main)" = "$old" ]; echo "the same process: $?"

    exec 7<{mountpoint}/model.safetensors
    kill -STOP $(daemon); python3 -c 'import os; os.posix_fadvise(7, 0, 0, os.POSIX_FADV_DONTNEED)'
    sha256sum <&7 >{folder}/read & reader=$!
    sleep 0.2; [ -s {folder}/read ]; echo "waits: $?"
    kill_all; wait $reader; exec 7<&-
    echo "all: $(cut -c 1-64 <{folder}/read) $(status restarts) $(status restart_reason) $(kept)"
    {unshard} wait --timeout 20 {mountpoint} >/dev/null; echo "warm: $?"
    old=$(main); kill -9 $old; await runs_anew
    echo "supervisor: $(sum) $(status restarts) $(status restart_reason) $(kept)"

    mv {folder}/unshard.log {folder}/old.log
    systemctl reload unshard@test; echo "reloaded: $?"
    echo "reload: $(sum) $(status restarts) $(status restart_reason) $(kept)"
    [ -s {folder}/unshard.log ]; echo "log: $?"
    kill_all; echo "upgraded: $(sum) $(status restarts) $(status restart_reason) $(kept)"

    sed -i s:source:other: {folder}/test.conf
    kill_all; echo "another source: $(sum) $(status restarts) $(kept)"
    systemctl stop unshard@test; echo "stop: $? $(mounts) $(kept) $(systemctl show -P Result unshard@test)"
"""


def unit_for(folder):
    """The unit, of this program and of a configuration below the folder."""
    unit = UNIT.replace(PROGRAM, UNSHARD).replace("/etc/unshard/%i.conf", f"{folder}/%i.conf")
    unit = unit.replace("RestartSec=2", "RestartSec=0")
    unit = unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
    return unit.replace("[Service]\n", f"[Service]\nStandardError=append:{folder}/log\n")


NO_SANDBOX = "a sanitizer's own threads are not for a sandbox" if SANITIZER else systemd_host.why_not()
sandboxed = pytest.mark.skipif(NO_SANDBOX is not None, reason=str(NO_SANDBOX))


class Facts(dict):
    """What a script said, of a unit whose configuration is in a folder."""

    def __init__(self, folder, script):
        source, mountpoint = folder / "source", folder / "mnt"
        for path in (source, mountpoint, folder / "other"):
            path.mkdir()
        checkpoints.save_shards(source, checkpoints.random_tensors(1), 2)
        checkpoints.save_shards(folder / "other", checkpoints.random_tensors(2), 2)
        (folder / "test.conf").write_text(f"SOURCE={source}\nMOUNTPOINT={mountpoint}\n"
                                          f"OPTIONS=allow_other,log={folder}/unshard.log\n")
        script = (TOOLS + script).format(mountpoint=mountpoint, unshard=UNSHARD, folder=folder)
        said = systemd_host.run_script(folder, {"unshard@.service": unit_for(folder)}, script)
        super().__init__(line.split(": ", 1) for line in said.splitlines() if ": " in line)
        self.why = said + (folder / "log").read_text() + (folder / "unshard.log").read_text()


@sandboxed
def test_confined_daemon(tmp_path):
    facts = Facts(tmp_path, SCRIPT)
    right = facts.get("sum")
    assert facts["start"] == "0" and facts["wait"] == "0", facts.why
    assert right and re.fullmatch("[0-9a-f]{64}", right) and facts["again"] == right, facts.why
    assert int(facts["capabilities"], 16) == 0b110 and facts["confined"] == "1", facts.why
    assert facts["stop with an open file"] == "0 0 0" and facts["stop"] == "0 0 0 success", facts.why


@sandboxed
def test_what_is_killed_goes_on(tmp_path):
    facts = Facts(tmp_path, SURVIVAL)
    right = facts.get("sum")
    assert facts["start"] == "0" and facts["wait"] == facts["warm"] == facts["reloaded"] == "0", facts.why
    assert right and re.fullmatch("[0-9a-f]{64}", right), facts.why
    assert facts["the same process"] == "0" and facts["waits"] == "1" and facts["log"] == "0", facts.why
    before = 0
    for name, why in {"daemon": "killed", "all": "killed", "supervisor": "killed", "reload": "upgraded",
                      "upgraded": "killed"}.items():
        read, restarts, reason, kept = facts[name].split()
        assert (read, reason, kept) == (right, why, "2"), f"{name}: {facts.why}"
        # They are killed one by one: a supervisor that is killed last has a daemon follow.
        assert before < int(restarts) <= before + 2, f"{name}: {facts.why}"
        before = int(restarts)
    other, restarts, kept = facts["another source"].split()
    assert other != right and (restarts, kept) == ("0", "2"), facts.why
    assert facts["stop"] == "0 0 0 success", facts.why


def test_exposure():
    """What systemd itself finds of the sandbox."""
    said = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager",
                           TOP / "contrib/systemd/unshard@.service"], check=False,
                          stdout=subprocess.PIPE, text=True).stdout
    level = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert level and float(level[1]) < 2.5, said


def test_mount_is_left_to_a_manager_only(tmp_path):
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    mountpoint.mkdir()
    done = subprocess.run([UNSHARD, "mount", "--prepare", source, mountpoint], check=False,
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "NOTIFY_SOCKET" in done.stderr
    assert not mountpoint.is_mount()
