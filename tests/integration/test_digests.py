# SPDX-License-Identifier: MIT
"""seal, verify, and the digests that checkpoints come with, as the real tools write them."""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import threading

import pytest
from safetensors.torch import load_file

import checkpoints
from compare import assert_same
from harness import mounted, run

MANIFEST = "unshard-manifest.json"
CHUNK = 2 << 20


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNSHARD_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(llama, tmp_path):
    """A copy of a transformers checkpoint in several shards, to change at will."""
    return pathlib.Path(shutil.copytree(llama, tmp_path / "model"))


@pytest.fixture
def large(big, tmp_path):
    """A copy of shards of several chunks each."""
    return pathlib.Path(shutil.copytree(big, tmp_path / "large"))


def verify(folder, *arguments):
    """The report, and the exit status."""
    done = run("verify", "--json", *arguments, folder)
    assert done.stdout, done.stderr
    return json.loads(done.stdout), done.returncode


def seal(folder, *arguments):
    return run("seal", *arguments, folder)


def of_file(report, name):
    found = [file for file in report["files"] if file["file"] == str(name)]
    assert len(found) == 1, f"{name}: {[file['file'] for file in report['files']]}"
    return found[0]


def states(report):
    return {file["file"]: file["state"] for file in report["files"]}


def flip(path, offset):
    """Flips one bit and keeps the time, as decaying storage would."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*")
                  if path.is_file())


# ---- seal and verify ----------------------------------------------------------------------------

def test_nothing_to_check_is_neither_good_nor_bad(model):
    report, status = verify(model)
    assert status == 2
    assert report["result"] == "nothing-to-check"
    assert set(states(report).values()) == {"unverified"}
    assert sorted(states(report)) == files_of(model)
    assert "nothing to check" in run("verify", model).stderr
    usage = run("verify")
    assert usage.returncode == 2 and "argument is missing" in usage.stderr


def test_sealed_files_are_verified(model):
    before = files_of(model)
    assert seal(model).returncode == 0
    assert files_of(model) == sorted(before + [MANIFEST])
    report, status = verify(model)
    assert status == 0, report
    assert report["result"] == "good"
    assert states(report) == dict.fromkeys(before, "verified")
    assert {file["origin"] for file in report["files"]} == {MANIFEST}
    assert report["bytes_checked"] == sum((model / name).stat().st_size for name in before)


def test_the_manifest_says_what_the_libraries_say(large):
    assert seal(large).returncode == 0
    manifest = json.loads((large / MANIFEST).read_text())
    assert manifest["version"] == 2 and manifest["chunk_bytes"] == CHUNK
    assert [file["path"] for file in manifest["files"]] == [name for name in files_of(large) if name != MANIFEST]
    shard = next(file for file in manifest["files"] if "00002-of" in file["path"])
    data = (large / shard["path"]).read_bytes()
    assert shard["size"] == len(data)
    assert shard["sha256"] == hashlib.sha256(data).hexdigest()
    assert len(shard["chunks"]) == -(-len(data) // CHUNK) > 5
    for number in (0, 3, len(shard["chunks"]) - 1):
        chunk = data[number * CHUNK:(number + 1) * CHUNK]
        assert shard["chunks"][number] == hashlib.sha256(chunk).hexdigest()


@pytest.mark.parametrize("chunk", [0, 2, -1])
def test_a_flipped_bit_is_found_in_its_shard_and_chunk(large, chunk):
    assert seal(large).returncode == 0
    shard = checkpoints.shard_files(large)[3]
    count = -(-shard.stat().st_size // CHUNK)
    begin = (chunk % count) * CHUNK
    flip(shard, min(begin + 12345, shard.stat().st_size - 1))
    report, status = verify(large)
    assert status == 1
    bad = of_file(report, shard.name)
    assert bad["state"] == "mismatch" and bad["algorithm"] == "sha256"
    assert bad["bad_offset"] == bad["error"]["offset"] == begin
    assert bad["actual"] == checkpoints.sha256(shard) != bad["expected"]
    assert report["counts"]["mismatch"] == 1
    assert report["counts"]["verified"] == len(report["files"]) - 1
    text = run("verify", large)
    assert text.returncode == 1
    assert f"mismatch: {shard.name}" in text.stdout and f"begins at byte {begin}" in text.stdout
    assert bad["expected"] in text.stdout and bad["actual"] in text.stdout


def test_truncated_extended_missing_and_unknown_files_are_told(model):
    assert seal(model).returncode == 0
    first, second, third = checkpoints.shard_files(model)[:3]
    size = first.stat().st_size
    os.truncate(first, size - 100)
    with open(second, "ab") as file:
        file.write(b"x")
    third.unlink()
    (model / "new.txt").write_text("new")
    report, status = verify(model)
    assert status == 1
    assert of_file(report, first.name)["error"]["code"] == "truncated"
    assert of_file(report, first.name)["bad_offset"] == size - 100
    assert of_file(report, second.name)["error"]["code"] == "too-long"
    assert of_file(report, third.name)["state"] == "missing"
    assert of_file(report, "new.txt")["state"] == "unverified"
    assert any(third.name in problem["message"] for problem in report["problems"])


def test_sealing_refuses_what_contradicts_and_says_so(model):
    assert seal(model).returncode == 0
    shard = checkpoints.shard_files(model)[1]
    sealed = (model / MANIFEST).read_bytes()
    flip(shard, shard.stat().st_size - 1)
    done = seal(model)
    assert done.returncode == 1
    assert shard.name in done.stderr and MANIFEST in done.stderr
    assert "nothing was written" in done.stderr
    assert (model / MANIFEST).read_bytes() == sealed
    report = json.loads(run("seal", "--json", model).stdout)
    assert report["error"]["code"] == "contradicts" and report["manifest"] is None
    assert of_file(report, shard.name)["state"] == "mismatch"
    # A deliberate change: the old manifest does not count, what others say does.
    assert seal(model, "--check-against", "others").returncode == 0
    assert verify(model)[1] == 0
    digests = subprocess.run(["sha256sum", shard.name], cwd=model, check=True,
                             stdout=subprocess.PIPE).stdout
    (model / "SHA256SUMS").write_bytes(digests)
    flip(shard, shard.stat().st_size - 1)
    assert seal(model, "--check-against=others").returncode == 1
    assert seal(model, "-c", "none").returncode == 0
    assert verify(model)[0]["counts"]["contradicted"] == 1


def test_sealing_refuses_a_broken_checkpoint(model):
    shard = checkpoints.shard_files(model)[0]
    shard.unlink()
    done = seal(model)
    assert done.returncode == 1 and shard.name in done.stderr
    assert not (model / MANIFEST).exists()
    assert seal(model, "--check-against=none").returncode == 0


def test_git_and_cache_directories_are_left_out(model):
    for name in (".git/objects/x", ".cache/y"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("z")
    assert seal(model).returncode == 0
    paths = [file["path"] for file in json.loads((model / MANIFEST).read_text())["files"]]
    assert not [path for path in paths if path.startswith(".")]
    assert verify(model)[1] == 0


def test_sealing_leaves_nothing_behind_when_it_cannot_write(model):
    (model / MANIFEST).mkdir()
    done = seal(model)
    assert done.returncode == 1 and "rename" in done.stderr
    assert [name for name in os.listdir(model) if "manifest" in name] == [MANIFEST]


def test_a_file_that_changes_while_it_is_sealed_is_an_error(large):
    """Somebody touches a shard all the while; the manifest is not written."""
    shard, stop = checkpoints.shard_files(large)[0], threading.Event()

    def change():
        time = 10 ** 18
        while not stop.is_set():
            time += 1
            os.utime(shard, ns=(time, time))

    writer = threading.Thread(target=change)
    writer.start()
    try:
        done = seal(large)
    finally:
        stop.set()
        writer.join()
    assert done.returncode == 1 and shard.name in done.stderr and "changed" in done.stderr
    assert not (large / MANIFEST).exists()


def test_a_mount_shows_the_manifest_and_works(model):
    assert seal(model).returncode == 0
    with mounted(model) as mount:
        assert (mount / MANIFEST).read_bytes() == (model / MANIFEST).read_bytes()
        assert mount.status()["problems"] == []
        mount.wait_warm()


# ---- lists of other tools -----------------------------------------------------------------------

def write_list(folder, name, *command):
    shards = [path.name for path in checkpoints.shard_files(folder)]
    output = subprocess.run([*command, *shards], cwd=folder, check=True,
                            stdout=subprocess.PIPE).stdout
    (folder / name).write_bytes(output)


@pytest.mark.parametrize("name,command,algorithm", [
    ("SHA256SUMS", ["sha256sum"], "sha256"),
    ("sha256sum.txt", ["sha256sum", "--tag"], "sha256"),
    ("SHA512SUMS", ["sha512sum", "--binary"], "sha512"),
    ("SHA1SUMS", ["sha1sum"], "sha1"),
    ("checklist.chk", ["md5sum"], "md5"),
    ("xxhsum.txt", ["xxhsum", "-H1"], "xxh64"),
    ("XXH32SUMS", ["xxhsum", "-H0"], "xxh32"),
    ("XXH3SUMS", ["xxhsum", "-H3"], "xxh3-64"),
    ("model.xxh128", ["xxhsum", "-H2", "--tag"], "xxh3-128"),
    ("le.xxh64", ["xxhsum", "-H1", "--tag", "--little-endian"], "xxh64"),
])
def test_lists_as_the_tools_write_them(model, name, command, algorithm):
    write_list(model, name, *command)
    shards = [path.name for path in checkpoints.shard_files(model)]
    report, status = verify(model)
    assert status == 0, report
    for number, shard in enumerate(shards):
        file = of_file(report, shard)
        assert file["state"] == "verified" and file["algorithm"] == algorithm
        assert file["origin"] == f"{name} line {number + 1}"
    assert of_file(report, "config.json")["state"] == "unverified"
    flip(model / shards[2], 5000)
    report, status = verify(model)
    assert status == 1
    assert [name for name, state in states(report).items() if state == "mismatch"] == [shards[2]]


def test_a_file_beside_each_shard(model):
    for shard in checkpoints.shard_files(model):
        (model / (shard.name + ".sha256")).write_text(checkpoints.sha256(shard) + "\n")
    (model / "checksums.json").write_text(json.dumps({"checksums": {
        "config.json": checkpoints.sha256(model / "config.json")}}))
    report, status = verify(model)
    assert status == 0
    assert report["counts"]["verified"] == len(checkpoints.shard_files(model)) + 1


def test_names_that_tools_escape(tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("a\nb.bin", "back\\slash.bin", "caf\udce9.bin", " space .bin"):
        (folder / name).write_text(name, errors="surrogateescape")
    names = sorted(os.listdir(folder))
    output = subprocess.run(["sha256sum", "--", *names], cwd=folder, check=True,
                            stdout=subprocess.PIPE).stdout
    (folder / "SHA256SUMS").write_bytes(output)
    report, status = verify(folder)
    assert status == 0 and report["counts"]["verified"] == len(names)


def test_a_malformed_list_is_told_everywhere(model):
    write_list(model, "SHA256SUMS", "sha256sum")
    with open(model / "SHA256SUMS", "a") as file:
        file.write("this is no digest\n")
    lines = len(checkpoints.shard_files(model)) + 1
    where = f"SHA256SUMS line {lines}:"
    report, status = verify(model)
    assert status == 1 and report["result"] == "bad"
    assert where in report["problems"][0]["message"]
    assert report["counts"]["verified"] == lines - 1
    listing = run("ls", model)
    assert listing.returncode == 3 and where in listing.stdout
    with mounted(model) as mount:
        status = mount.status()
        assert status["errors"] == 1
        assert where in status["problems"][0]["message"]
        assert status["problems"][0]["code"] == "malformed-checksums"
        assert where in (mount / ".unshard/errors").read_text()
        assert where in (mount / ".unshard/status").read_text()


def test_origins_that_differ(model):
    shard = checkpoints.shard_files(model)[0]
    write_list(model, "SHA256SUMS", "sha256sum")
    (model / "checksums.json").write_text(json.dumps({"checksums": {shard.name: "0" * 64}}))
    report, status = verify(model)
    assert status == 1
    bad = of_file(report, shard.name)
    assert bad["state"] == "contradicted"
    assert "SHA256SUMS line 1" in bad["error"]["message"]
    assert "checksums.json" in bad["error"]["message"]
    shards = json.loads(run("ls", "--json", model).stdout)["components"][0]["shards"]
    listed = next(one for one in shards if one["file"] == shard.name)
    assert listed["contradiction"]["code"] == "contradicting-digests"


def test_lists_in_every_directory(flux, tmp_path):
    folder = pathlib.Path(shutil.copytree(flux, tmp_path / "flux"))
    write_list(folder / "transformer", "SHA256SUMS", "sha256sum")
    report, status = verify(folder)
    assert status == 0
    checked = {name for name, state in states(report).items() if state == "verified"}
    assert checked == {f"transformer/{path.name}"
                       for path in checkpoints.shard_files(folder / "transformer")}


def test_large_files_of_no_component_are_not_read_unasked(model):
    other = model / "data.parquet"
    with open(other, "wb") as file:
        file.truncate(80 << 20)
    with open(model / "SHA256SUMS", "w") as sums:
        for path in [other, *checkpoints.shard_files(model)]:
            sums.write(f"{checkpoints.sha256(path)}  {path.name}\n")
    with mounted(model) as mount:
        assert run("wait", "--verified", "--timeout", "20", mount.path).returncode == 0
        assert mount.status()["bytes_read"] < 80 << 20
        assert (mount / other.name).read_bytes() == bytes(80 << 20)
        flip(other, 1000)
    with mounted(model) as mount:
        with pytest.raises(OSError):
            (mount / other.name).read_bytes()


# ---- the hub ------------------------------------------------------------------------------------

def tree_listing(folder):
    files = {}
    for name in files_of(folder):
        path = pathlib.Path(folder) / name
        entry = {"size": path.stat().st_size, "blob_id": checkpoints.git_blob(path)}
        if path.suffix == ".safetensors":
            entry |= {"blob_id": "0" * 40, "lfs_sha256": checkpoints.sha256(path),
                      "lfs_size": path.stat().st_size, "xet_hash": "f" * 64}
        files[name] = entry
    return {"format_version": 1, "files": files}


def test_a_snapshot_of_the_cache_is_checked_by_its_blob_names(llama, tmp_path):
    snapshot = checkpoints.hub_cache(tmp_path, llama)
    report, status = verify(snapshot)
    assert status == 0
    assert set(states(report).values()) == {"verified"}
    assert {file["origin"] for file in report["files"]} == {"hub cache blob name"}
    shard = checkpoints.shard_files(snapshot)[1]
    assert of_file(report, shard.name)["algorithm"] == "sha256"
    assert of_file(report, "config.json")["algorithm"] == "git-sha1"
    flip(shard.resolve(), 7000)
    report, status = verify(snapshot)
    assert status == 1
    assert [name for name, state in states(report).items() if state != "verified"] == [shard.name]


@pytest.mark.parametrize("shared", [False, True], ids=["old", "shared"])
def test_all_of_a_cache_is_checked_by_its_blob_names(llama, tmp_path, shared):
    snapshot = checkpoints.hub_cache(tmp_path, llama, shared=shared)
    other = checkpoints.hub_cache(tmp_path, llama, commit="f" * 40, shared=shared)
    shards = checkpoints.shard_files(snapshot)
    expected = checkpoints.tensors_of(shards)
    bad = shards[1].resolve()
    for source in (snapshot, snapshot.parent.parent, tmp_path):
        below = snapshot.relative_to(source)
        with mounted(source) as mount:
            assert run("wait", "--verified", "--timeout", "20", mount.path).returncode == 0
            assert_same(load_file(mount / below / "model.safetensors"), expected)
            assert all(shard["algorithm"] == "sha256" for component in
                       mount.status()["components"] for shard in component["shards"])
    flip(bad, 7000)
    for source in (snapshot, snapshot.parent.parent, tmp_path):
        report, status = verify(source)
        assert status == 1
        names = {name for name, state in states(report).items() if state == "mismatch"}
        assert str(shards[1].relative_to(source)) in names
        assert {(source / name).resolve() for name in names} == {bad}
        assert run("seal", source).returncode != 0
    with mounted(tmp_path) as mount:
        for one in (snapshot, other):
            with pytest.raises(OSError):
                (mount / one.relative_to(tmp_path) / "model.safetensors").read_bytes()
        blob = mount / "models--acme--tiny/blobs" / os.readlink(shards[1]).split("/")[-1]
        with pytest.raises(OSError):
            blob.read_bytes()
        assert (mount / "models--acme--tiny/refs/main").read_text() in (snapshot.name, other.name)


def test_a_snapshot_without_symlinks_is_checked_by_the_listing(llama, tmp_path):
    snapshot = checkpoints.hub_cache(tmp_path, llama)
    listing = tree_listing(snapshot)
    for path in list(snapshot.rglob("*")):
        target = path.resolve()
        path.unlink()
        shutil.copyfile(target, path)
    assert verify(snapshot)[1] == 2
    trees = snapshot.parent.parent / "trees"
    trees.mkdir()
    (trees / f"{snapshot.name}.json").write_text(json.dumps(listing, indent=1))
    report, status = verify(snapshot)
    assert status == 0
    assert {file["origin"] for file in report["files"]} == {f"trees/{snapshot.name}.json"}
    os.truncate(checkpoints.shard_files(snapshot)[0], 5000)
    report, status = verify(snapshot)
    assert status == 1 and report["counts"]["mismatch"] == 1


def test_a_download_is_checked_by_its_metadata(llama, tmp_path):
    folder = checkpoints.local_download(tmp_path / "local", llama)
    report, status = verify(folder)
    assert status == 0
    assert set(states(report).values()) == {"verified"}
    assert of_file(report, "config.json")["origin"] == \
        ".cache/huggingface/download/config.json.metadata"
    # Edited since: what the hub says of it does not count any more, and that is no error.
    config = folder / "config.json"
    config.write_text(config.read_text() + "\n")
    os.utime(config, (config.stat().st_atime, config.stat().st_mtime + 100))
    report, status = verify(folder)
    assert status == 0
    assert of_file(report, "config.json")["state"] == "unverified"
    flip(checkpoints.shard_files(folder)[0], 3000)
    assert verify(folder)[1] == 1


def test_metadata_and_listing_as_the_library_writes_them(llama, tmp_path):
    """Written by huggingface_hub's own functions."""
    local = pytest.importorskip("huggingface_hub._local_folder")
    trees = pytest.importorskip("huggingface_hub._tree_cache")
    folder = pathlib.Path(shutil.copytree(llama, tmp_path / "local"))
    commit = "c" * 40
    listing = tree_listing(folder)["files"]
    entries = {name: trees.TreeCacheEntry.from_json(dict(entry, xet_hash=None))
               for name, entry in listing.items()}
    trees.write_tree_cache(trees.tree_cache_folder_for_local_dir(str(folder)), commit, entries)
    for name, entry in listing.items():
        local.write_download_metadata(folder, name, commit,
                                      entry.get("lfs_sha256", entry["blob_id"]))
    report, status = verify(folder)
    assert status == 0, report["problems"]
    assert set(states(report).values()) == {"verified"} and report["problems"] == []
    listed = json.loads(run("ls", "--json", folder).stdout)["components"][0]["shards"][0]
    assert [one["algorithm"] for one in listed["digests"]] == ["sha256"]


# ---- the cache ----------------------------------------------------------------------------------

def test_verified_chunks_are_kept_for_just_this_content(large, own_cache):
    write_list(large, "SHA256SUMS", "sha256sum")
    assert verify(large)[1] == 0
    kept = list((own_cache / "chunk-digests").glob("[!.]*"))
    assert len(kept) == len(checkpoints.shard_files(large))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in kept)
    shard = checkpoints.shard_files(large)[2]
    flip(shard, 3 * CHUNK + 17)
    report, status = verify(large)
    assert status == 1 and of_file(report, shard.name)["state"] == "mismatch"
    assert len(list((own_cache / "chunk-digests").glob("[!.]*"))) == len(kept) - 1


def test_verify_works_without_a_cache(large, monkeypatch):
    monkeypatch.setenv("UNSHARD_CACHE_DIR", "/proc/nowhere")
    write_list(large, "SHA256SUMS", "sha256sum")
    assert verify(large)[1] == 0


def test_a_mount_uses_what_verify_kept(large, own_cache):
    """It asks for the entries under the same keys: otherwise it would gain entries of its own."""
    write_list(large, "SHA256SUMS", "sha256sum")
    assert verify(large)[1] == 0
    kept = sorted(path.name for path in (own_cache / "chunk-digests").iterdir())
    with mounted(large) as mount:
        mount.wait_warm()
        shards = [shard for component in mount.status()["components"]
                  for shard in component["shards"]]
        assert {shard["state"] for shard in shards} == {"verified"}
    assert sorted(path.name for path in (own_cache / "chunk-digests").iterdir()) == kept
