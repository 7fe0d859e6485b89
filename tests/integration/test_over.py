# SPDX-License-Identifier: MIT
"""-o over: the view stands in the place of its source, which the daemon reaches all the same."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile

import pytest

import checkpoints
import digests
from harness import (PATIENCE, UNSHARD, Mount, child_named, connection_of, is_alive, is_mounted, mounted, run, slow,
                     wait_for)
from test_mounting import in_namespace

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


@pytest.fixture
def model():
    """In a folder that everybody can look into."""
    with tempfile.TemporaryDirectory(prefix="unshard-over-") as folder:
        os.chmod(folder, 0o755)
        source = checkpoints.save_shards(pathlib.Path(folder) / "model", checkpoints.random_tensors(6), 3)
        digests.by_sha256sum(source)
        (source / "config.json").write_text('{"a": 1}\n')
        (source / "sub").mkdir()
        for path in [source, *source.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield source


def over(source, *options, **more):
    return mounted(source, "over", *options, mountpoint=source, **more)


@pytest.fixture
def merged(model):
    with mounted(model) as mount:
        return checkpoints.sha256(mount / "model.safetensors")


def test_in_the_place_of_the_source(model, merged):
    listed = sorted(os.listdir(model))
    with over(model) as mount:
        assert checkpoints.sha256(model / "model.safetensors") == merged
        assert not [name for name in os.listdir(model) if "-of-" in name]
        mount.wait_warm()
        status = mount.status()
        assert status["source"] == status["mountpoint"] == str(model) and status["errors"] == 0
        assert {shard["state"] for one in status["components"] for shard in one["shards"]} == {"verified"}
        assert str(model) in run("list").stdout
        # A second look at all of it, by the watcher, finds nothing that has changed.
        assert run("status", model).returncode == run("wait", "--verified", model).returncode == 0
    assert sorted(os.listdir(model)) == listed


def test_the_mount_point_may_be_left_out(model):
    try:
        assert run("mount", "-o", "over", ".", cwd=model).returncode == 0
        assert is_mounted(model) and "model.safetensors" in os.listdir(model)
        again = run("mount", "-o", "over", model)
        assert again.returncode == 1 and "already mounted" in again.stderr
    finally:
        run("umount", model)
    assert not is_mounted(model)


@root
def test_fstab(model):
    table = model.parent / "fstab"
    table.write_text(f"{model} {model} unshard over,noauto,nofail,x-systemd.automount 0 0\n")
    done = in_namespace(f"mount -T {table} {model}; ls {model}; umount {model}; ls {model}")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors\n" in done.stdout and "model-00002-of-00003.safetensors\n" in done.stdout


@root
def test_it_is_there_for_all(model, merged):
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    with over(model):
        done = subprocess.run([*nobody, "sha256sum", model / "model.safetensors"], check=True, text=True,
                              stdout=subprocess.PIPE)
        assert done.stdout.split()[0] == merged
        (model.parent / "refused").mkdir()
        done = run("mount", model, model.parent / "refused")  # a mount of a mount is one like others
        assert done.returncode == 0
        run("umount", model.parent / "refused", check=True)


# ---- ways that lead through the source's path ----------------------------------------------------

def test_symlinks_through_the_path_of_the_source(model):
    """Absolute ones, and those that climb: by their path they lead into the mount itself."""
    folder = os.open(model, os.O_RDONLY)
    links = {"sub/up.json": "../config.json", "sub/absolute.json": f"{model}/config.json",
             "around.json": f"../{model.name}/sub/../config.json", "sub/chain.json": "up.json",
             "sub/loop.json": "loop.json", "sub/out.json": "../../outside.json"}
    (model.parent / "outside.json").write_text("secret\n")
    for name, target in links.items():
        (model / name).symlink_to(target)
    try:
        with mounted(model) as mount:
            expected = {name: read(mount / name) for name in links}
        assert expected["sub/up.json"] == expected["around.json"] == '{"a": 1}\n'
        with over(model):
            assert {name: read(model / name) for name in links} == expected
            replace(folder, "config.json", '{"a": 2, "b": 3}\n')
            for name in ("config.json", "sub/up.json", "sub/absolute.json", "around.json"):
                wait_for(lambda: read(model / name) == '{"a": 2, "b": 3}\n', what=f"the new {name}")
    finally:
        os.close(folder)


def read(path):
    try:
        return path.read_text()
    except OSError as error:
        return error.errno


def replace(folder, name, text):
    """Puts another file in the place of one, beneath the mount that covers it."""
    fd = os.open(name + ".new", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    os.write(fd, text if isinstance(text, bytes) else text.encode())
    os.close(fd)
    os.rename(name + ".new", name, src_dir_fd=folder, dst_dir_fd=folder)


@pytest.mark.parametrize("shared", [False, True], ids=["own blobs", "shared blobs"])
def test_a_repository_of_the_hub(model, tmp_path, shared):
    """Snapshots lead to its blobs through its own directory; those may lead out of it."""
    snapshot = checkpoints.hub_cache(tmp_path, model, shared=shared)
    for source in (snapshot.parents[1], snapshot):
        with mounted(source) as mount:
            expected = {path: checkpoints.sha256(mount / path) for path in files_of(mount.path)}
        with over(source) as mount:
            assert {path: checkpoints.sha256(source / path) for path in files_of(source)} == expected
            mount.wait_warm()
            assert {shard["state"] for one in mount.status()["components"] for shard in one["shards"]} == {
                "verified"}


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def test_a_shard_is_replaced_beneath(model, merged):
    """It is noticed, and read by the new digest's leave only."""
    name = "model-00002-of-00003.safetensors"
    folder, data = os.open(model, os.O_RDONLY), (model / name).read_bytes()
    try:
        with over(model) as mount:
            mount.wait_warm()
            replace(folder, name, data[:-1] + bytes([data[-1] ^ 1]))
            wait_for(lambda: mount.status()["errors"] > 0, what="the bad shard is told of")
            with pytest.raises(OSError):
                (model / "model.safetensors").read_bytes()
            replace(folder, name, data)
            wait_for(lambda: mount.status()["errors"] == 0 and run("wait", "--verified", model).returncode == 0,
                     what="the good one is taken")
            assert checkpoints.sha256(model / "model.safetensors") == merged
    finally:
        os.close(folder)


def test_over_a_mount(model, merged):
    """The source is a file system by itself, and one that tells nothing of changes."""
    with slow(model, latency=5) as storage:
        mount = Mount(storage.path, "over", mountpoint=storage.path)
        try:
            mount.wait_warm()
            assert checkpoints.sha256(storage.path / "model.safetensors") == merged
        finally:
            done = run("umount", storage.path)
        assert done.returncode == 0 and "model-00001-of-00003.safetensors" in os.listdir(storage.path)
        wait_for(lambda: not is_alive(mount.pid))
        mount.sanitizers.check()


# ---- ends ----------------------------------------------------------------------------------------

def test_a_killed_daemon_is_followed_by_one_that_sees_the_source(model):
    with over(model, "prefetch=off") as mount:
        names = os.listdir(model)
        os.kill(mount.pid, signal.SIGKILL)
        wait_for(lambda: mount.status()["pid"] != mount.pid, what="another daemon")
        assert os.listdir(model) == names


def test_daemons_that_crash_bring_the_source_back(model):
    with over(model, "prefetch=off") as mount:
        for _ in range(3):
            pid = mount.status()["pid"]
            os.kill(pid, signal.SIGSEGV)
            wait_for(lambda: not is_alive(pid), what="the crash")
        wait_for(lambda: not is_mounted(model), what="the monitor takes it away")
        assert "model-00001-of-00003.safetensors" in os.listdir(model)


def test_a_dead_mount_over_the_source_is_cleared(model, merged):
    with over(model, "prefetch=off") as mount:
        os.kill(child_named(mount.pid, "unshard-monitor"), signal.SIGSTOP)
        monitor = child_named(mount.pid, "unshard-monitor")
        os.kill(mount.pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(mount.pid))
        os.kill(monitor, signal.SIGKILL)
        wait_for(lambda: not is_alive(monitor))
        assert is_mounted(model)
        with over(model):
            assert checkpoints.sha256(model / "model.safetensors") == merged
    assert connection_of(model) is None


@root
def test_as_an_ordinary_user(model, merged):
    nobody = pwd.getpwnam("nobody")
    for path in [model, *model.rglob("*")]:
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    binary = shutil.copy(UNSHARD, model.parent)
    before = os.stat("/dev/fuse").st_mode & 0o777
    os.chmod("/dev/fuse", 0o666)  # as udev sets it; a bare container may lack that
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "env", "-u", "UNSHARD_CACHE_DIR",
            "HOME=/nonexistent"]
    script = f"{binary} mount -o over {model} && sha256sum <{model}/model.safetensors && {binary} umount {model}"
    try:
        done = subprocess.run([*user, "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=PATIENCE * 2)
    finally:
        os.chmod("/dev/fuse", before)
        subprocess.run(["umount", "-l", model], stderr=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (0, f"{merged}  -\n"), done.stderr


@pytest.mark.parametrize("words, said", [
    (["{model}"], "an argument is missing"),
    (["{model}", "{model}"], "-o over mounts over the source"),
    (["-o", "over", "{model}", "{model}/sub"], "leave the mount point out"),
    (["-o", "over", "/"], "root directory cannot be mounted over"),
    (["-o", "over", "-p", "{model}"], "neither --prepare nor"),
    (["-o", "over,status_file={model}/x", "{model}"], "a file in the source"),
])
def test_wrong_usage(model, words, said):
    done = run("mount", *(word.format(model=model) for word in words))
    assert done.returncode in (1, 2) and said in done.stderr, done.stderr
    assert not is_mounted(model)


def test_a_mount_is_not_sealed(model):
    with over(model):
        done = run("seal", model)
        assert done.returncode == 1 and "this is a mount of unshard" in done.stderr
