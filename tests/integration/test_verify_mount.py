# SPDX-License-Identifier: MIT
"""Verification through a mount: no byte of a shard that does not match its digest is ever read."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import checkpoints
import digests
from compare import assert_same_models
from harness import PATIENCE, mounted, run, slow, undisturbed, wait_for

PAGE = 4096
COUNT = 4
VIEW = "model.safetensors"
BAD = "model-00002-of-00004.safetensors"
CHUNK = 2 << 20  # of a manifest
ERRORS = pathlib.Path(".unshard/errors")


# ---- a checkpoint and what is true of it -------------------------------------------------------

@pytest.fixture(scope="session")
def pristine(tmp_path_factory):
    """20 MB in four shards of two and a half chunks of a manifest."""
    generator = torch.Generator().manual_seed(6)
    tensors = {f"layer.{number}.weight": torch.randint(0, 256, (size,), dtype=torch.uint8,
                                                       generator=generator)
               for number, size in enumerate([650003] * 32)}
    return checkpoints.save_shards(tmp_path_factory.mktemp("pristine") / "checkpoint", tensors,
                                   COUNT, metadata={"format": "pt"})


@pytest.fixture(scope="session")
def truth(pristine):
    """The bytes of the merged view, and which of them come from which shard."""
    with mounted(pristine, "verify=off") as mount:
        data = (mount / VIEW).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + length])
    ranges = {}
    for path in checkpoints.shard_files(pristine):
        with safe_open(path, framework="pt") as file:
            ranges[path.name] = [tuple(8 + length + end for end in header[name]["data_offsets"])
                                 for name in file.keys()]
    return data, ranges


@pytest.fixture
def copy(pristine, tmp_path):
    return shutil.copytree(pristine, tmp_path / "source")


def pages_of(ranges):
    return {page for start, end in ranges for page in range(start // PAGE, (end - 1) // PAGE + 1)}


def read_pages_of(fd, size):
    """Every page of what is open, or the errno that reading it gives."""
    pages = []
    for offset in range(0, size, PAGE):
        try:
            pages.append(os.pread(fd, PAGE, offset))
        except OSError as error:
            pages.append(error.errno)
    return pages


def read_pages(path, size):
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_pages_of(fd, size)
    finally:
        os.close(fd)


def count_failing(mount, truth):
    return sum(isinstance(page, int) for page in read_pages(mount / VIEW, len(truth[0])))


def assert_only_these_fail(mount, truth, bad_pages, at_most=False):
    """Pages in bad_pages are EIO, all others what they should be. at_most: those as well may."""
    data, _ = truth
    found = read_pages(mount / VIEW, len(data))
    wrong = [number for number, page in enumerate(found)
             if not isinstance(page, int) and page != data[number * PAGE:(number + 1) * PAGE]]
    failed = {number for number, page in enumerate(found) if isinstance(page, int)}
    assert not wrong, f"wrong bytes in pages {wrong[:5]}"
    assert failed == bad_pages or (at_most and failed < bad_pages), f"{len(failed)} pages fail, {len(bad_pages)} should: " \
        f"{sorted(failed ^ bad_pages)[:5]}"
    assert {found[number] for number in failed} <= {errno.EIO}


def flip(path, offset, bit=3, keep_times=True):
    path = pathlib.Path(path)
    times = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    if keep_times:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replace(path, data):
    """As downloads do it: another file, renamed."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.rename(path)


def wait_for_mismatch(mount, file=BAD):
    """The shard's status once it has failed."""
    def failed():
        _, shard = mount.component_of_shard(file)
        return shard if shard["state"] == "failed" else None
    return wait_for(failed, what=f"{file} failed")


def attribute(mount, name):
    return os.getxattr(mount / VIEW, f"user.unshard.{name}").decode()


# ---- strict, for every place where digests come from -------------------------------------------

@pytest.mark.parametrize("origin", sorted(digests.ORIGINS))
def test_a_flipped_bit_fails_just_its_shard(copy, truth, origin):
    source, name_of_origin, algorithm = digests.ORIGINS[origin](copy)
    flip((source / BAD).resolve(), CHUNK + 12345)
    with mounted(source) as mount:
        shard = wait_for_mismatch(mount)
        _, ranges = truth
        bad = pages_of(ranges[BAD])
        if origin == "manifest":
            bad = pages_of(of_chunk(source / BAD, ranges[BAD], 1))
        mount.wait_warm()
        assert_only_these_fail(mount, truth, bad)
        check_blame(mount, shard, source, origin, name_of_origin, algorithm)
        for component in mount.status()["components"]:
            for other in component["shards"]:
                assert other["error"] is None or other["file"] == BAD
                assert other["state"] == ("failed" if other["file"] == BAD else "verified")


def of_chunk(path, ranges, index):
    """The parts of the ranges (of its tensors, in the view) that lie in a chunk of the shard."""
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    parts = []
    for view_start, view_end in sorted(ranges):
        low, high = max(start, index * CHUNK), min(start + view_end - view_start,
                                                   (index + 1) * CHUNK)
        if low < high:
            parts.append((view_start + low - start, view_start + high - start))
        start += view_end - view_start
    return parts


def check_blame(mount, shard, source, origin, name_of_origin, algorithm):
    """Status, errors and attributes say what is wrong with what, and who says so."""
    mismatch = shard["mismatch"]
    if origin == "manifest":
        actual = hashlib.sha256((source / BAD).read_bytes()[CHUNK:2 * CHUNK]).hexdigest()
        assert shard["error"]["offset"] == CHUNK
    else:
        actual = digests.digest_of(source / BAD, algorithm)
    assert mismatch["algorithm"] == algorithm
    assert mismatch["actual"] == actual and mismatch["expected"] != actual
    assert name_of_origin in mismatch["origin"]
    assert shard["error"]["code"] == "mismatch" and shard["error"]["errno"] == errno.EIO
    wanted = [BAD, "component=\".\"", algorithm, actual, mismatch["expected"], name_of_origin]
    if origin == "manifest":
        wanted.append(f"offset={CHUNK}")
    for text in ((mount / ERRORS).read_text(), attribute(mount, "errors")):
        assert len(text.splitlines()) == 1
        for word in wanted:
            assert word in text, f"{word} is not in: {text}"
    assert BAD in (mount / ".unshard/status").read_text()
    assert attribute(mount, "state") == "failed"
    assert attribute(mount, "shards") == str(COUNT)
    assert algorithm in attribute(mount, "digest").split(",") or origin == "manifest"
    assert run("status", mount.path).returncode == 3


@pytest.mark.parametrize("origin", sorted(digests.ORIGINS))
def test_good_shards_are_verified(copy, truth, origin):
    source, name_of_origin, algorithm = digests.ORIGINS[origin](copy)
    with mounted(source) as mount:
        mount.wait_warm()
        assert mount.component(VIEW)["state"] == attribute(mount, "state") == "verified"
        for shard in mount.component(VIEW)["shards"]:
            assert shard["state"] == "verified"
            assert shard["algorithm"] == algorithm and name_of_origin in shard["origin"]
        assert attribute(mount, "digest") == algorithm
        assert attribute(mount, "errors") == "" == (mount / ERRORS).read_text()
        assert_only_these_fail(mount, truth, set())


def test_without_digests_unverified(copy, truth):
    with mounted(copy) as mount:
        mount.wait_warm()
        assert mount.component(VIEW)["state"] == "unverified"
        assert attribute(mount, "digest") == "none"
        assert_only_these_fail(mount, truth, set())


def test_demand_alone_is_verified_as_well(copy, truth):
    digests.by_sha256sum(copy)
    flip(copy / BAD, 777777)
    with mounted(copy, "prefetch=off", "chunk=64K") as mount:
        assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))


def test_sigbus_for_mmap_readers(copy, truth):
    digests.by_sha256sum(copy)
    flip(copy / BAD, 2222222)
    code = ("import mmap,sys; f=open(sys.argv[1],'rb'); "
            "m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ); print(m[int(sys.argv[2])])")
    with mounted(copy) as mount:
        for file, result in ((BAD, -signal.SIGBUS), (BAD.replace("2-of", "3-of"), 0)):
            offset = truth[1][file][0][0] + 5000
            done = subprocess.run([sys.executable, "-c", code, mount / VIEW, str(offset)],
                                  timeout=60, stdout=subprocess.PIPE)
            assert done.returncode == result, file
        assert int(done.stdout) == truth[0][offset]


def test_files_that_are_no_weights_are_verified(copy):
    (copy / "config.json").write_text('{"model_type": "llama", "hidden_size": 64}')
    (copy / "note.txt").write_text("hello\n")
    digests.by_sha256sum(copy, "*")
    flip(copy / "config.json", 20)
    with mounted(copy) as mount:
        assert (mount / "note.txt").read_text() == "hello\n"
        with pytest.raises(OSError) as failure:
            (mount / "config.json").read_bytes()
        assert failure.value.errno == errno.EIO
        assert 'shard="config.json" code=mismatch' in (mount / ERRORS).read_text()


# ---- async and off -----------------------------------------------------------------------------

def test_async_takes_away_what_was_served(copy, truth):
    digests.by_sha256sum(copy)
    flip(copy / BAD, 3333333)
    data, ranges = truth
    with slow(copy) as storage:
        # The end of the bad shard hangs: nobody can know yet that it is bad.
        storage.command(f"stall {BAD} {(copy / BAD).stat().st_size - 1} 1")
        with mounted(storage.path, "verify=async", "chunk=64K") as mount:
            start = min(ranges[BAD])[0]
            with open(mount / VIEW, "rb", buffering=0) as file:
                file.seek(start)
                assert file.read(PAGE) == data[start:start + PAGE]
            storage.command("release")
            wait_for_mismatch(mount)
            bad = pages_of(ranges[BAD])
            wait_for(lambda: isinstance(read_pages(mount / VIEW, (start // PAGE + 1) * PAGE)[-1],
                                        int), what="the page taken away")
            mount.wait_warm()
            assert_only_these_fail(mount, truth, bad)


def test_off_serves_what_is_there(copy, truth):
    digests.by_sha256sum(copy)
    data, ranges = truth
    flip(copy / BAD, (copy / BAD).stat().st_size - 1, bit=0)
    with mounted(copy, "verify=off") as mount:
        mount.wait_warm()
        found = (mount / VIEW).read_bytes()
        last = max(end for _, end in ranges[BAD]) - 1
        assert found[last] == data[last] ^ 1
        assert found[:last] == data[:last] and found[last + 1:] == data[last + 1:]
        assert mount.component(VIEW)["state"] == "unverified"
        assert (mount / ERRORS).read_text() == ""


# ---- digests of chunks, kept from mount to mount -----------------------------------------------

def test_tampering_between_two_mounts_is_found(copy, truth):
    digests.by_sha256sum(copy)
    with mounted(copy) as mount:
        mount.wait_warm()
        assert mount.component(VIEW)["state"] == "verified"
    # It keeps size and mtime. What the first mount has kept of the shard stands for it no more.
    inode = (copy / BAD).stat().st_ino
    flip(copy / BAD, CHUNK + 5)
    assert (copy / BAD).stat().st_ino == inode
    with mounted(copy) as mount:
        shard = wait_for_mismatch(mount)
        assert shard["mismatch"]["algorithm"] == "sha256"
        assert "SHA256SUMS" in shard["mismatch"]["origin"]
        mount.wait_warm()
        assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))


def test_the_cache_spares_the_pass(copy, truth):
    """With one read of a shard hanging, the rest of it is served: no pass over it is needed."""
    digests.by_sha256sum(copy)
    with mounted(copy, "chunk=64K") as mount:
        mount.wait_warm()
    data, ranges = truth
    # The storage in between gives files other numbers: the cache must be keyed by what it shows.
    with slow(copy) as storage:
        with mounted(storage.path, "chunk=64K") as mount:
            mount.wait_warm()
        storage.command(f"stall {BAD} {(copy / BAD).stat().st_size - 1} 1")
        with mounted(storage.path, "chunk=64K") as mount:
            start = min(ranges[BAD])[0]
            with open(mount / VIEW, "rb", buffering=0) as file:
                assert os.pread(file.fileno(), PAGE, start) == data[start:start + PAGE]
            storage.command("release")
            mount.wait_warm()
            assert mount.component(VIEW)["state"] == "verified"
            assert_only_these_fail(mount, truth, set())


def test_a_touched_shard_is_hashed_anew(copy, truth):
    digests.by_sha256sum(copy)
    with mounted(copy) as mount:
        mount.wait_warm()
    flip(copy / BAD, 4000000, keep_times=False)
    with mounted(copy) as mount:
        shard = wait_for_mismatch(mount)
        assert shard["mismatch"]["algorithm"] == "sha256"


@pytest.mark.parametrize("damage", ["cut", "garbage", "other"])
def test_a_damaged_cache_is_not_believed(copy, truth, monkeypatch, tmp_path, damage):
    cache = tmp_path / "cache"
    monkeypatch.setenv("UNSHARD_CACHE_DIR", str(cache))
    digests.by_sha256sum(copy)
    with mounted(copy) as mount:
        mount.wait_warm()
    entries = sorted(path for path in cache.rglob("[!.]*") if path.is_file())
    assert len(entries) == COUNT
    contents = [path.read_bytes() for path in entries]
    for number, path in enumerate(entries):
        if damage == "cut":
            path.write_bytes(contents[number][:-7])
        elif damage == "garbage":
            path.write_bytes(bytes(byte ^ 0x55 for byte in contents[number]))
        else:
            path.write_bytes(contents[(number + 1) % COUNT])
    with mounted(copy) as mount:
        mount.wait_warm()
        assert mount.component(VIEW)["state"] == "verified"
        assert_only_these_fail(mount, truth, set())


# ---- work goes on beside what is slow ----------------------------------------------------------

@pytest.mark.parametrize("origin", ["sha256sum", "manifest"])
def test_components_load_while_another_hangs(flux, tmp_path, origin):
    from transformers import T5EncoderModel

    copy = shutil.copytree(flux, tmp_path / "source")
    digests.ORIGINS[origin](copy)
    expected = T5EncoderModel.from_pretrained(flux / "text_encoder_2")
    file = "transformer/diffusion_pytorch_model-00002-of-00005.safetensors"
    with slow(copy) as storage:
        storage.command(f"stall {file} {(copy / file).stat().st_size - 1} 1")
        with mounted(storage.path) as mount:
            assert_same_models(T5EncoderModel.from_pretrained(mount / "text_encoder_2"), expected)
            assert mount.component("text_encoder_2/model.safetensors")["state"] == "verified"
            component, shard = mount.component_of_shard("00002-of-00005.safetensors")
            assert shard["state"] in ("pending", "reading") and component["state"] == "reading"
            storage.command("release")
            mount.wait_warm()
            assert {one["state"] for one in mount.status()["components"]} == {"verified"}


def test_shards_are_served_while_another_is_hashed(copy, truth):
    digests.by_sha256sum(copy)
    data, ranges = truth
    with slow(copy) as storage:
        storage.command(f"stall {BAD} 3000000 1")
        with mounted(storage.path) as mount:
            for file in sorted(set(ranges) - {BAD}):
                for start, end in ranges[file]:
                    inner = start + PAGE  # pages at seams need the shard that hangs
                    with open(mount / VIEW, "rb", buffering=0) as reader:
                        reader.seek(inner)
                        assert reader.read(end - PAGE - inner) == data[inner:end - PAGE]
            storage.command("release")


# ---- repair and change under the mount ---------------------------------------------------------

@pytest.mark.parametrize("origin", ["sha256sum", "manifest"])
def test_replacing_the_shard_heals(copy, truth, origin):
    digests.ORIGINS[origin](copy)
    good = (copy / BAD).read_bytes()
    flip(copy / BAD, CHUNK + 3)
    with mounted(copy) as mount:
        wait_for_mismatch(mount)
        mount.wait_warm()
        replace(copy / BAD, good)
        wait_for(lambda: mount.component(VIEW)["state"] == "verified", what="healed")
        assert_only_these_fail(mount, truth, set())
        assert (mount / ERRORS).read_text() == "" == attribute(mount, "errors")
        assert run("status", mount.path).returncode == 0


def test_replaced_when_the_cache_knew_it(copy, truth):
    """Nothing had to be hashed on this mount; then there is another file, of which nothing is kept."""
    digests.by_sha256sum(copy)
    with mounted(copy) as mount:
        wait_for(lambda: mount.component(VIEW)["state"] == "verified", what="verified")
    log = copy.parent / "log"
    with mounted(copy, "timeout=20", f"log={log}") as mount:
        wait_for(lambda: mount.component(VIEW)["state"] == "verified", what="verified")
        assert "event=shard-verified" not in log.read_text()
        replace(copy / BAD, (copy / BAD).read_bytes())
        wait_for(lambda: "event=shard-replaced" in log.read_text(), what="noticed")
        wait_for(lambda: "event=shard-verified" in log.read_text(), what="hashed")
        assert_only_these_fail(mount, truth, set())


def test_healed_in_place_as_well(copy, truth):
    digests.by_sha256sum(copy)
    flip(copy / BAD, 100001)
    with mounted(copy) as mount:
        wait_for_mismatch(mount)
        flip(copy / BAD, 100001, keep_times=False)
        wait_for(lambda: mount.component(VIEW)["state"] == "verified", what="healed")
        assert_only_these_fail(mount, truth, set())


def test_replaced_by_another_bad_one(copy, truth):
    digests.by_sha256sum(copy)
    good = (copy / BAD).read_bytes()
    flip(copy / BAD, 100001)
    with mounted(copy) as mount:
        first = wait_for_mismatch(mount)["mismatch"]["actual"]
        replace(copy / BAD, good[:-1] + bytes([good[-1] ^ 2]))
        wait_for(lambda: (wait_for_mismatch(mount)["mismatch"] or {"actual": first})["actual"]
                 != first, what="the other mismatch")
        assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))


@pytest.mark.parametrize("origin", ["none", "sha256sum", "manifest"])
def test_rewritten_in_place_is_no_mixture(copy, truth, origin):
    """The shard gets other content of the same size while a reader is in the middle of it."""
    data, ranges = truth
    if origin != "none":
        digests.ORIGINS[origin](copy)
    old = (copy / BAD).read_bytes()
    length = 8 + int.from_bytes(old[:8], "little")
    new = old[:length] + bytes(byte ^ 0xff for byte in old[length:])
    with mounted(copy, "prefetch=off", "chunk=64K") as mount:
        with open(mount / VIEW, "rb", buffering=0) as reader:
            start = min(ranges[BAD])[0]
            assert os.pread(reader.fileno(), 65536, start) == data[start:start + 65536]
            (copy / BAD).write_bytes(new)

            def all_fail():
                found = read_pages_of(reader.fileno(), len(data))
                failing = {number for number, page in enumerate(found) if isinstance(page, int)}
                assert failing <= pages_of(ranges[BAD])
                assert all(page == data[number * PAGE:(number + 1) * PAGE]
                           for number, page in enumerate(found) if number not in failing)
                word = "changed" if origin == "none" else "mismatch"  # after "changed", for a moment
                return failing == pages_of(ranges[BAD]) and word in (mount / ERRORS).read_text()
            wait_for(all_fail, what="the change noticed")
            if origin != "none":
                wait_for(lambda: count_failing(mount, truth) == len(pages_of(ranges[BAD])) and
                         "mismatch" in (mount / ERRORS).read_text(), what="the bad content refused")
                assert_only_these_fail(mount, truth, pages_of(ranges[BAD]))
        if origin == "none":
            # By its name it is another file, with what is there now.
            expected = bytearray(data)
            for begin, end in ranges[BAD]:
                expected[begin:end] = bytes(byte ^ 0xff for byte in data[begin:end])

            def new_content():
                try:
                    return (mount / VIEW).read_bytes() == expected
                except OSError:
                    return False
            wait_for(new_content, what="the new content served whole")
        else:
            (copy / BAD).write_bytes(old)
            wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] != "failed", what="healed")
            assert_only_these_fail(mount, truth, set())


# ---- lists that are wrong ----------------------------------------------------------------------

def test_lists_that_contradict_each_other(copy, truth):
    digests.by_sha256sum(copy)
    (copy / f"{BAD}.sha256").write_text(f"{'0' * 64}  {BAD}\n")
    with mounted(copy) as mount:
        mount.wait_warm()
        assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))
        line = (mount / ERRORS).read_text()
        assert len(line.splitlines()) == 1
        for word in (BAD, "contradicting-digests", "SHA256SUMS line 2", f"{BAD}.sha256"):
            assert word in line
        _, shard = mount.component_of_shard(BAD)
        assert shard["state"] == "failed"


def test_a_malformed_line_does_not_turn_verification_off(copy, truth):
    digests.by_sha256sum(copy)
    lines = (copy / "SHA256SUMS").read_text().splitlines()
    lines[2] = lines[2][1:]  # a digit is missing
    (copy / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    flip(copy / BAD, 4321)
    with mounted(copy) as mount:
        wait_for_mismatch(mount)
        mount.wait_warm()
        assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))
        errors = (mount / ERRORS).read_text()
        assert "SHA256SUMS" in errors and "line 3" in errors and BAD in errors
        states = [shard["state"] for shard in mount.component(VIEW)["shards"]]
        assert states == ["verified", "failed", "unverified", "verified"]


# ---- storage -----------------------------------------------------------------------------------

def test_strict_reads_every_shard_once(big, tmp_path):
    """A reader from the start on; pages that two shards share are small beside the shards."""
    copy = shutil.copytree(big, tmp_path / "source")
    digests.by_sha256sum(copy)
    expected = checkpoints.tensors_of(checkpoints.shard_files(big))
    size = sum(path.stat().st_size for path in checkpoints.shard_files(copy))

    def reads_once():
        with slow(copy, direct=1, latency=1) as storage:
            with mounted(storage.path, "chunk=256K") as mount:
                found = load_file(mount / VIEW)
                mount.wait_warm()
                assert mount.component(VIEW)["state"] == "verified"
                assert all(torch.equal(found[name], expected[name]) for name in expected)
                del found
            files = storage.stats()["files"]
            read = sum(files[path.name]["bytes"] for path in checkpoints.shard_files(copy))
            assert read <= 1.05 * size, f"{read / size:.2f} times the size"

    undisturbed(reads_once)


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
@pytest.mark.parametrize("origin", ["none", "sha256sum", "manifest"])
def test_transient_errors_are_tried_again(copy, truth, origin, number):
    if origin != "none":
        digests.ORIGINS[origin](copy)
    with slow(copy) as storage:
        storage.command(f"fail {BAD} 1000000 2000000 {number} 2", f"failnth 20 {number}")
        with mounted(storage.path) as mount:
            mount.wait_warm()
            assert_only_these_fail(mount, truth, set())
            assert (mount / ERRORS).read_text() == ""


@pytest.mark.parametrize("origin", ["none", "sha256sum"])
def test_every_read_of_a_shard_that_is_gone_fails_soon(copy, truth, origin):
    if origin != "none":
        digests.ORIGINS[origin](copy)
    with slow(copy) as storage:
        with mounted(storage.path, "prefetch=off") as mount:
            storage.command(f"vanish {BAD}")
            begin = time.monotonic()
            assert_only_these_fail(mount, truth, pages_of(truth[1][BAD]))
            assert time.monotonic() - begin < PATIENCE, "each read waits for another attempt"
            storage.command("reset")
            wait_for(lambda: count_failing(mount, truth) == 0, what="all readable again")


def test_short_reads_are_completed_and_verified(copy, truth):
    digests.by_sha256sum(copy)
    with slow(copy, direct=1) as storage:
        with mounted(storage.path, "prefetch=off") as mount:
            storage.command("short *.safetensors 30")
            assert_only_these_fail(mount, truth, set())


def test_a_bit_that_the_storage_flips_once(copy, truth):
    """The file is good, what was read is not: never served."""
    digests.by_manifest(copy)
    data, ranges = truth
    with slow(copy) as storage:
        with mounted(storage.path, "prefetch=off") as mount:
            storage.command(f"flip {BAD} {CHUNK + 99} 5 1")
            bad = pages_of(of_chunk(copy / BAD, ranges[BAD], 1))
            found = read_pages(mount / VIEW, len(data))
            for number, page in enumerate(found):
                assert isinstance(page, int) or page == data[number * PAGE:(number + 1) * PAGE]
                assert not isinstance(page, int) or number in bad


def test_a_header_that_was_read_wrong(copy):
    """The storage flips a bit of a tensor's name while the mount begins, and only then."""
    digests.by_sha256sum(copy)
    (copy / "model.safetensors.index.json").unlink()
    header = (copy / BAD).read_bytes()[:4096]
    offset = header.index(b"layer.") + 1
    with slow(copy, direct=1) as storage:
        storage.command(f"flip {BAD} {offset} 0 1")
        with mounted(storage.path) as mount:
            wait_for(lambda: mount.component_of_shard(BAD)[1]["state"] == "failed",
                     what="the header blamed")
            assert "header" in (mount / ERRORS).read_text()


def test_a_stalled_read_is_told_and_stops_nothing_else(copy, truth):
    digests.by_sha256sum(copy)
    data, ranges = truth
    with slow(copy) as storage:
        storage.command(f"stall {BAD} 3000000 1")
        with mounted(storage.path, "chunk=64K") as mount:
            def others_verified():
                states = {shard["file"]: shard["state"] for shard in
                          mount.component(VIEW)["shards"]}
                return all(state == "verified" for file, state in states.items() if file != BAD)
            wait_for(others_verified, what="the other shards verified")
            status = wait_for(lambda: (lambda now: now if now["stuck"] else None)(mount.status()),
                              what="the read told as stuck")
            assert status["oldest_request_seconds"] > 1
            (stuck,) = status["stuck"]
            assert stuck["file"] == BAD and stuck["seconds"] > 1
            assert stuck["offset"] <= 3000000 < stuck["offset"] + 65536
            assert "00002-of" in (mount / ".unshard/status").read_text()
            storage.command("release")
            mount.wait_warm()
            assert mount.status()["stuck"] == []
            assert_only_these_fail(mount, truth, set())


@pytest.mark.parametrize("origin", ["none", "sha256sum"])
def test_a_read_that_hangs_fails_after_the_timeout(copy, truth, origin):
    if origin != "none":
        digests.ORIGINS[origin](copy)
    data, ranges = truth
    start = min(ranges[BAD])[0] + PAGE
    with slow(copy) as storage:
        with mounted(storage.path, "prefetch=off", "timeout=1") as mount:
            storage.command(f"stall {BAD}")
            with open(mount / VIEW, "rb", buffering=0) as file:
                with pytest.raises(OSError) as failure:
                    os.pread(file.fileno(), PAGE, start)
                assert failure.value.errno == errno.EIO
                storage.command("release")

                def readable():
                    try:
                        return os.pread(file.fileno(), PAGE, start) == data[start:start + PAGE]
                    except OSError:
                        return False
                wait_for(readable, what="readable after the release")
            assert_only_these_fail(mount, truth, set())


def test_loaders_get_an_error_or_the_truth(copy, pristine):
    digests.by_sha256sum(copy)
    flip(copy / BAD, 999999)
    expected = checkpoints.tensors_of(checkpoints.shard_files(pristine))
    with mounted(copy) as mount:
        with safe_open(copy / BAD, framework="pt") as file:
            bad = set(file.keys())
        for name in expected:
            code = ("import sys, hashlib; from safetensors import safe_open\n"
                    "with safe_open(sys.argv[1], 'pt') as f:\n"
                    "    t = f.get_tensor(sys.argv[2])\n"
                    "    print(hashlib.sha256(t.numpy().tobytes()).hexdigest())")
            if name in list(sorted(bad))[:1] + sorted(set(expected) - bad)[:1]:
                done = subprocess.run([sys.executable, "-c", code, mount / VIEW, name],
                                      stdout=subprocess.PIPE, text=True, timeout=60)
                assert (done.returncode != 0) == (name in bad)
                assert name in bad or len(done.stdout) == 65
        with pytest.raises(OSError):
            (mount / VIEW).read_bytes()
    assert load_file(pristine / BAD)
