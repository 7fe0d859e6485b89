# SPDX-License-Identifier: MIT
"""`unshard doctor`: each row, by making true what it looks for."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

import checkpoints
from harness import UNSHARD, connection_of, mounted
from test_memory import MemoryGroup

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root only: mount namespaces, other users")

NOBODY = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
WITHOUT_DEV = "mount -t tmpfs tmpfs /dev; "
ALL = ["fuse-device", "mounting", "run", "other-users", "fusectl", "kernel", "descriptors", "memory", "cache"]


def rows(output):
    return {row["check"]: row for row in json.loads(output)}


def doctor(*operands, setup=":", prefix=(), environment=None, program=UNSHARD):
    """Runs it in a mount namespace of its own, after `setup`. Exit status, and the rows by name."""
    script = f'mount --make-rprivate / && {setup} && exec "$@"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *prefix, program, "doctor",
                           "--json", *map(str, operands)], check=False, stdout=subprocess.PIPE,
                          env=dict(os.environ, **(environment or {})), timeout=60)
    return done.returncode, rows(done.stdout)


@pytest.fixture(scope="module")
def program():
    """A copy that others can run, in a folder that they can look into."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        os.chmod(folder, 0o755)
        shutil.copy(UNSHARD, folder)
        yield pathlib.Path(folder) / pathlib.Path(UNSHARD).name


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return checkpoints.save_shards(tmp_path_factory.mktemp("doctor") / "model",
                                   checkpoints.random_tensors(1), 2)


def test_nothing_in_the_way(model, tmp_path):
    control = "{ mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections; }"
    status, found = doctor(model, setup=control, environment={"UNSHARD_CACHE_DIR": str(tmp_path / "c")})
    assert status == 0
    assert list(found) == ALL + ["source-components", "source-size", "source-reads"]
    assert {row["level"] for row in found.values()} == {"good"}, found


@pytest.mark.parametrize("row, level, setup, prefix, words", [
    ("fuse-device", "problem", WITHOUT_DEV + ":", [], "there is no /dev/fuse"),
    ("fuse-device", "problem", "mount --bind /dev/null /dev/fuse && mount -o remount,bind,nodev /dev/fuse",
     [], "Permission denied"),
    ("mounting", "problem", ":", ["setpriv", "--bounding-set=-sys_admin"], "CAP_SYS_ADMIN"),
    ("mounting", "problem", ":", [*NOBODY, "env", "PATH=/nowhere"], "fusermount3 is not installed"),
    ("mounting", "problem", ":", [*NOBODY, "--no-new-privs"], "programs gain no privileges"),
    ("run", "note", ":", ["unshare", "--user", "--map-root-user", "sh", "-c",
                          "echo 0 >/proc/sys/user/max_user_namespaces; "
                          "exec setpriv --bounding-set=-sys_admin \"$@\"", "sh"], "user.max_user_namespaces is 0"),
    ("other-users", "note", "mount --bind /dev/null /etc/fuse.conf", NOBODY, "refused"),
    ("fusectl", "note", "mount -t tmpfs tmpfs /sys/fs/fuse/connections", [], "not mounted"),
    ("kernel", "problem", ":", ["setarch", "--uname-2.6"], "Linux 2.6"),
    ("descriptors", "note", ":", ["prlimit", "--nofile=512:512"], "at most 512 files"),
], ids=lambda value: value if isinstance(value, str) and " " not in value else None)
def test_machine(program, row, level, setup, prefix, words):
    status, found = doctor(setup=setup, prefix=prefix, program=program,
                           environment={"HOME": "/nonexistent"})
    assert found[row]["level"] == level and words in found[row]["found"], found[row]
    assert found[row]["advice"]
    assert status == (3 if "problem" in {one["level"] for one in found.values()} else 0)


def test_fusermount_without_its_bit(program):
    copy = program.parent / "fusermount3"
    shutil.copy("/usr/bin/fusermount3", copy)
    copy.chmod(0o755)
    _, found = doctor(prefix=[*NOBODY, "env", f"PATH={program.parent}"], program=program)
    assert "not set-user-ID" in found["mounting"]["found"]


def test_user_allow_other(program, tmp_path):
    conf = tmp_path / "fuse.conf"
    conf.write_text("# user_allow_other\n  user_allow_other  # yes\n")
    _, found = doctor(setup=f"mount --bind {conf} /etc/fuse.conf", prefix=NOBODY,
                      program=program)
    assert found["other-users"]["level"] == "good"


def test_cache_that_others_may_write(tmp_path):
    cache = tmp_path / "cache"
    (cache / "chunk-digests").mkdir(parents=True)
    (cache / "chunk-digests").chmod(0o777)
    _, found = doctor(environment={"UNSHARD_CACHE_DIR": str(cache)})
    assert found["cache"]["level"] == "note" and "mode 0700" in found["cache"]["found"]


def test_memory_is_short(model):
    try:
        group = MemoryGroup(128 << 20)
    except OSError as error:
        pytest.skip(f"no memory control group can be made here: {error}")
    try:
        status, found = doctor(model, prefix=group.prefix())
    finally:
        group.remove()
    assert status == 3 and found["memory"]["level"] == "problem" and "buffer=" in found["memory"]["advice"]


def test_source_larger_than_memory(tmp_path):
    header = b'{"t":{"dtype":"U8","shape":[4398046511104],"data_offsets":[0,4398046511104]}}'
    header += b" " * (-len(header) % 8)
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (4 << 40))
    _, found = doctor(tmp_path)
    assert found["source-size"]["level"] == "note" and "4.0 TiB" in found["source-size"]["found"]


def test_source_without_direct_reads(model, tmp_path):
    setup = f"mount -t ramfs ramfs {tmp_path} && cp -r {model}/. {tmp_path}"
    status, found = doctor(tmp_path, setup=setup)
    assert status == 0 and found["source-reads"]["level"] == "note" and "ramfs" in found["source-reads"]["found"]


@pytest.mark.parametrize("damage, level", [(True, "problem"), (False, "note")], ids=["damaged", "none"])
def test_components(tmp_path, damage, level):
    if damage:
        (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"\x10")
    status, found = doctor(tmp_path)
    assert found["source-components"]["level"] == level and status == (3 if damage else 0)


def test_source_that_is_none(tmp_path):
    status, found = doctor(tmp_path / "nowhere")
    assert status == 3 and "nowhere" in found["source"]["found"]


def test_mount(model):
    with mounted(model) as mount:
        mount.wait_warm()
        status, found = doctor(mount.path)
        assert status == 0 and found["mount"]["level"] == "good"
        bdi = pathlib.Path(f"/sys/class/bdi/0:{connection_of(mount.path)}/read_ahead_kb")
        assert found["read-ahead"]["found"] == f"{bdi.read_text().strip()} KiB"
        bdi.write_text("16")
        _, found = doctor(mount.path)
        assert found["read-ahead"]["level"] == "note" and str(bdi) in found["read-ahead"]["found"]


def test_table(model):
    done = subprocess.run([UNSHARD, "doctor", model], check=False, stdout=subprocess.PIPE, text=True)
    assert [line.split()[1] for line in done.stdout.splitlines() if line[0] != " "][:len(ALL)] == ALL
