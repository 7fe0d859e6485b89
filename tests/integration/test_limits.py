# SPDX-License-Identifier: MIT
"""What a checkpoint may ask for has a bound, and beside what passes it the rest works."""

import errno
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import PATIENCE, SANITIZER, UNSHARD, mounted, run, slow, wait_for

SHARDS = 120


@pytest.fixture(scope="module")
def many_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "checkpoint"
    folder.mkdir()
    for number in range(SHARDS):
        save_file({f"layer.{number}": torch.full((300,), number, dtype=torch.int32)},
                  folder / f"model-{number + 1:05}-of-{SHARDS:05}.safetensors")
    return folder


def values(path):
    """The one value of each layer."""
    tensors = load_file(path)
    return [int(tensors[f"layer.{number}"].unique()) for number in range(SHARDS)]


def with_descriptors(count):
    """What to put before a command that may have so many, now and later."""
    return ("sh", "-c", f'ulimit -n {count} && exec "$@"', "sh")


def test_more_shards_than_descriptors(many_shards):
    """One for each shard would be too many already, and two are wanted."""
    with mounted(many_shards, prefix=with_descriptors(100)) as mount:
        mount.wait_warm()
        assert values(mount / "model.safetensors") == list(range(SHARDS))
        assert (mount / ".unshard/errors").read_text() == ""
        assert len(list(pathlib.Path(f"/proc/{mount.pid}/fd").iterdir())) < 90


def test_the_soft_limit_of_descriptors_is_raised(many_shards):
    prefix = ("sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh")
    with mounted(many_shards, "prefetch=off", prefix=prefix) as mount:
        limits = pathlib.Path(f"/proc/{mount.pid}/limits").read_text()
        soft, hard = next(line for line in limits.splitlines() if "open files" in line).split()[3:5]
        assert soft == hard


def test_commands_with_few_descriptors(many_shards, tmp_path):
    source, target = shutil.copytree(many_shards, tmp_path / "source"), tmp_path / "target"
    for arguments in (["ls", source], ["seal", source], ["verify", source],
                      ["export", source, target]):
        done = subprocess.run([*with_descriptors(40), UNSHARD, *map(str, arguments)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 0, done.stderr


def claim(path, name, size, data):
    """A safetensors file with one tensor of `size` bytes, of which it has `data`."""
    header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def resident(pid):
    """MiB of memory that the process has."""
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) >> 8


@pytest.fixture
def vast():
    """A directory on a file system that takes files of any length."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield pathlib.Path(folder)


def sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)


@pytest.mark.parametrize("option", ["chunk=2M", "chunk=64K"])
def test_what_is_only_claimed_costs_nothing(vast, option):
    """Neither memory, nor time, nor a line of the log for each chunk that is not there."""
    log = vast / "log"
    source = vast / "source"
    claim(source / "one/model.safetensors", "a", 1 << 45, b"x" * 32)
    claim(source / "two/model-00001-of-00002.safetensors", "a", 1 << 45, b"x" * 32)
    claim(source / "two/model-00002-of-00002.safetensors", "b", 64, b"y" * 64)
    claim(source / "three/model.safetensors", "a", 1 << 47, b"x" * 32)
    claim(source / "model.safetensors", "good", 1000, b"z" * 1000)
    for number in range(4):
        sparse(source / f"{number}.dat", (16 << 40) - 4096)
    with mounted(source, option, f"log={log}") as mount:
        mount.wait_warm()
        states = {one["name"]: one["state"] for one in mount.status()["components"]}
        assert states == {".": "unverified", "one": "failed", "two": "failed", "three": "failed"}
        assert bytes(load_file(mount / "model.safetensors")["good"].numpy()) == b"z" * 1000
        with open(mount / "3.dat", "rb") as file:
            for offset in (0, 8 << 40, (16 << 40) - 8192):
                assert os.pread(file.fileno(), 4096, offset) == bytes(4096)
        if not SANITIZER:
            assert resident(mount.pid) < 64
        assert len(log.read_text().splitlines()) < 50


def test_a_file_that_is_too_large_fails_alone(vast):
    claim(vast / "model.safetensors", "good", 1000, b"z" * 1000)
    claim(vast / "other/model.safetensors", "a", 16, bytes(16))
    os.truncate(vast / "other/model.safetensors", 9 << 50)
    sparse(vast / "notes.dat", 9 << 50)
    with mounted(vast) as mount:
        mount.wait_warm()
        assert bytes(load_file(mount / "model.safetensors")["good"].numpy()) == b"z" * 1000
        for name in ("notes.dat", "other/model.safetensors"):
            assert (mount / name).stat().st_size == 9 << 50
            with pytest.raises(OSError) as caught:
                (mount / name).open("rb").read(1)
            assert caught.value.errno == errno.EIO
            assert f"{name}: its size is {9 << 50} bytes" in (mount / ".unshard/errors").read_text()


def test_commands_pass_over_what_is_too_large(vast):
    source, target = vast / "source", vast / "target"
    source.mkdir()
    (source / "a.txt").write_text("hello")
    sparse(source / "huge.dat", 9 << 50)
    (source / "SHA256SUMS").write_text("0" * 64 + "  huge.dat\n")
    for arguments in (["verify", source], ["seal", source], ["export", source, target]):
        done = run(*arguments, timeout=PATIENCE)
        assert done.returncode == 1 and f"huge.dat: its size is {9 << 50}" in done.stderr + done.stdout
    assert (target / "a.txt").read_text() == "hello"
    assert not (target / "huge.dat").exists()


PEAK = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)"""


def peak_of_ls(source, *options):
    """The most memory that `unshard ls` has, in MiB. What forks has a size as well, which counts:
    so it is a small process of its own."""
    done = subprocess.run([sys.executable, "-c", PEAK, UNSHARD, "ls", *options, str(source)],
                          check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    return 0 if SANITIZER else int(done.stdout)


def test_a_pickle_that_grows_is_left_as_it_is(tmp_path):
    """A list of pairs that a dict is made of over and over, under six names."""
    pairs, copies = b"NN\x86" * 9000, b"h\x00h\x01R" * 9000
    pickle = (b"\x80\x02(ccollections\nOrderedDict\nq\x00](" + pairs + b"e\x85q\x01" + copies + b"t.")
    with zipfile.ZipFile(tmp_path / "f.pt", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickle)
    for number in range(5):
        (tmp_path / f"{number}.pt").symlink_to("f.pt")
    assert peak_of_ls(tmp_path, "-o", "pickle=safetensors") < 100
    with mounted(tmp_path, "pickle=safetensors") as mount:
        assert (mount / "4.pt").read_bytes() == (tmp_path / "f.pt").read_bytes()
        assert "4.pt: pickle: REDUCE at byte" in "".join(mount.status()["notes"])


def gguf_with_large_header(path, size, number=0, count=1):
    """Sparse, but for a tensor at its end. count: of splits, of which it is one."""
    def string(text):
        return struct.pack("<Q", len(text)) + text

    splits = (string(b"split.no") + struct.pack("<IH", 2, number) +
              string(b"split.count") + struct.pack("<IH", 2, count) +
              string(b"split.tensors.count") + struct.pack("<Ii", 5, count))
    with open(path, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 1, 4) + splits + string(b"blob"))
        file.write(struct.pack("<IIQ", 9, 0, size))
        file.seek(size, os.SEEK_CUR)
        file.write(string(b"t%d" % number) + struct.pack("<IQIQ", 1, 32, 0, 0))
        file.seek(-file.tell() % 32, os.SEEK_CUR)
        file.write(b"x" * 128)


def test_headers_have_one_account(tmp_path):
    """Names of one file cost one header, and another file that large finds nothing left."""
    gguf_with_large_header(tmp_path / "a.gguf", 130 << 20)
    gguf_with_large_header(tmp_path / "b.gguf", 130 << 20)
    for number in range(6):
        (tmp_path / f"{number}.gguf").symlink_to("a.gguf")
    assert peak_of_ls(tmp_path) < 300
    with mounted(tmp_path, "prefetch=off") as mount:
        notes = [note for one in mount.status()["components"] for note in one["notes"]]
        assert any("its header was not looked at" in note for note in notes)
        for name in ("a", "b", "5"):
            with open(mount / f"{name}.gguf", "rb") as file:
                assert os.pread(file.fileno(), 1 << 20, (130 << 20) + 64)[-128:].endswith(b"x" * 64)


def test_merging_headers_counts(tmp_path):
    """There is memory for two headers, not for a third one that is made of them."""
    for number in range(2):
        gguf_with_large_header(tmp_path / f"m-0000{number + 1}-of-00002.gguf", 90 << 20, number, 2)
    assert peak_of_ls(tmp_path) < 300
    with mounted(tmp_path, "prefetch=off") as mount:
        error = mount.component("m.gguf")["error"]
        assert error["code"] == "header-memory" and "256 MiB" in error["message"]


def test_an_index_of_many_megabytes(tmp_path):
    """It is read in pieces: all of them, or why not all of them could be is told."""
    names = {f"t{number}": f"model-0000{number % 2 + 1}-of-00002.safetensors" for number in (0, 1)}
    for number in (0, 1):
        save_file({f"t{number}": torch.full((4,), float(number))}, tmp_path / names[f"t{number}"])
    weight_map = json.dumps(names)
    (tmp_path / "model.safetensors.index.json").write_text(
        '{"metadata": {},' + " " * 3_000_000 + '"weight_map":' + weight_map + " " * 500_000 + "}")
    with slow(tmp_path, direct=1) as storage:
        with mounted(storage.path) as mount:
            assert load_file(mount / "model.safetensors")["t1"].tolist() == [1.0] * 4
        storage.command("fail model.safetensors.index.json 3400000 10 5")
        with mounted(storage.path) as mount:
            error = mount.component("model.safetensors")["error"]
            assert "index.json" in error["message"] and "Input/output error" in error["message"]


def test_directories_that_link_to_each_other(tmp_path):
    """Their paths are without end; each is shown in some places, and all below real ones."""
    names = [f"d{number}" for number in range(14)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.txt").write_text(name)
    for name in names:
        for other in names:
            if other != name:
                (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    with mounted(tmp_path) as mount:
        assert (mount / "d3/file.txt").read_text() == "d3"
        assert (mount / "d3/to-d9/file.txt").read_text() == "d9"
        # Somebody who goes on and on comes to an end.
        assert (mount / "d3/to-d9/to-d1/to-d2/file.txt").read_text() == "d2"
        assert not (mount / "d3/to-d9/to-d1/to-d2/to-d3").exists()
    told = json.loads(run("ls", "--json", tmp_path, check=True).stdout)
    assert any("lead to it from more places than are shown" in note for note in told["notes"])


def test_a_directory_may_be_linked_many_times(tmp_path):
    """Many pipelines share a part: nothing is left out."""
    claim(tmp_path / "shared/vae/model.safetensors", "a", 16, bytes(16))
    for number in range(40):
        folder = tmp_path / f"pipeline-{number}"
        folder.mkdir()
        (folder / "vae").symlink_to("../shared/vae")
    with mounted(tmp_path, "prefetch=off") as mount:
        assert len(list(mount.path.glob("pipeline-*/vae/model.safetensors"))) == 40
        assert mount.status()["notes"] == []


def test_status_files_that_stay_open(many_shards):
    """Who opens them at one moment shares a snapshot, and who holds many loses the oldest."""
    with mounted(many_shards, "prefetch=off") as mount:
        path = mount / ".unshard/status.json"
        before = resident(mount.pid)
        handles = []
        try:
            for _ in range(3000):
                handles.append(os.open(path, os.O_RDONLY))
            if not SANITIZER:
                assert resident(mount.pid) - before < 48
            assert json.loads(os.read(handles[-1], 1 << 22))["pid"] == mount.pid

            def first_is_stale():
                handles.append(os.open(path, os.O_RDONLY))
                json.loads(os.read(handles[-1], 1 << 22))
                try:
                    return not os.pread(handles[0], 1, 0)
                except OSError as error:
                    return error.errno == errno.ESTALE
            wait_for(first_is_stale, what="the oldest snapshot is given up")
        finally:
            for handle in handles:
                os.close(handle)
