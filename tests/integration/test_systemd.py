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

SCRIPT = """\
    daemon() {{ systemctl show -P MainPID unshard@test; }}
    running() {{ [ "$(systemctl show -P SubState unshard@test)" = running ] && [ "$(daemon)" != "$old" ]; }}
    mounts() {{ grep -c {mountpoint} /proc/self/mountinfo; }}
    sum() {{ sha256sum <{mountpoint}/model.safetensors | cut -c 1-64; }}
    systemctl start unshard@test; echo "start: $?"
    echo "sum: $(sum)"
    {unshard} wait --timeout 20 {mountpoint} >/dev/null; echo "wait: $?"
    echo "capabilities: $(grep -E '^CapEff:' /proc/$(daemon)/status | cut -f 2)"
    [ "$(readlink /proc/$(daemon)/ns/mnt)" = "$(readlink /proc/self/ns/mnt)" ]; echo "confined: $?"
    old=$(daemon); kill -9 $old
    for i in $(seq 400); do running && break; sleep 0.02; done
    echo "after a kill: $(sum)"
    exec 7<{mountpoint}/model.safetensors
    systemctl stop unshard@test; echo "stop with an open file: $? $(mounts)"
    exec 7<&-
    systemctl start unshard@test; echo "again: $(sum)"
    systemctl stop unshard@test; echo "stop: $? $(mounts) $(systemctl show -P Result unshard@test)"
"""


def unit_for(folder):
    """The unit, of this program and of a configuration below the folder."""
    unit = UNIT.replace(PROGRAM, UNSHARD).replace("/etc/unshard/%i.conf", f"{folder}/%i.conf")
    unit = unit.replace("RestartSec=2", "RestartSec=0")
    unit = unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n")
    return unit.replace("[Service]\n", f"[Service]\nStandardError=append:{folder}/log\n")


@pytest.mark.skipif(bool(SANITIZER), reason="a sanitizer's own threads are not for a sandbox")
@pytest.mark.skipif(systemd_host.why_not() is not None, reason=str(systemd_host.why_not()))
def test_confined_daemon(tmp_path):
    source, mountpoint = tmp_path / "source", tmp_path / "mnt"
    source.mkdir()
    mountpoint.mkdir()
    checkpoints.save_shards(source, checkpoints.random_tensors(1), 2)
    (tmp_path / "test.conf").write_text(f"SOURCE={source}\nMOUNTPOINT={mountpoint}\n")
    script = SCRIPT.format(mountpoint=mountpoint, unshard=UNSHARD)
    said = systemd_host.run_script(tmp_path, {"unshard@.service": unit_for(tmp_path)}, script)
    facts = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    why = said + (tmp_path / "log").read_text()
    right = facts.get("sum")
    assert facts["start"] == "0" and facts["wait"] == "0" and re.fullmatch("[0-9a-f]{64}", right), why
    assert int(facts["capabilities"], 16) == 0b110 and facts["confined"] == "1", why
    assert facts["after a kill"] == right and facts["again"] == right, why
    assert facts["stop with an open file"] == "0 0" and facts["stop"] == "0 0 success", why


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
