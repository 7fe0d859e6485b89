# SPDX-License-Identifier: MIT
"""A mounted root follows what is below its source, and costs what is looked at."""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

import checkpoints
from harness import PATIENCE, UNSHARD, is_alive, mounted, run, slow, wait_for

# So soon a mount shows what has become of its source; under a sanitizer it is slower.
SOON = 2 if not os.environ.get("UNSHARD_SANITIZER") else PATIENCE


def shards(folder, sizes=(3, 5, 2), fill=0, rows=64):
    """A component in as many shards, with an index; what each file is to hold, by its name."""
    tensors, names, weight_map = {}, [], {}
    for number, count in enumerate(sizes):
        name = f"model-{number + 1:05d}-of-{len(sizes):05d}.safetensors"
        part = {f"layer.{number}.{i}": torch.full((rows, 32), fill + number + i / 8)
                for i in range(count)}
        names.append((name, part))
        tensors.update(part)
        weight_map.update(dict.fromkeys(part, name))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    for name, part in names:
        save_file(part, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(
        {"metadata": {}, "weight_map": weight_map}))
    return tensors


def same(loaded, expected):
    return loaded.keys() == expected.keys() and \
        all(torch.equal(loaded[name], expected[name]) for name in expected)


def names(folder):
    return sorted(entry.name for entry in os.scandir(folder))


@pytest.fixture
def root(tmp_path):
    """A root of two models."""
    source = tmp_path / "models"
    for name in ("one", "two"):
        shards(source / name)
    return source


# ---- what is there -------------------------------------------------------------------------------

def test_a_new_model_appears(root, tmp_path):
    with mounted(root) as mount:
        assert names(mount.path) == ["one", "two"]
        assert not (mount / "three").exists()
        expected = shards(tmp_path / "three", fill=7)
        (tmp_path / "three").rename(root / "three")
        wait_for(lambda: (mount / "three").exists(), SOON)
        assert names(mount.path) == ["one", "three", "two"]
        assert names(mount / "three") == \
            ["config.json", "model.safetensors", "model.safetensors.index.json"]
        assert same(load_file(mount / "three/model.safetensors"), expected)


def test_a_model_goes(root):
    with mounted(root) as mount:
        assert (mount / "two/model.safetensors").read_bytes()
        shutil.rmtree(root / "two")
        wait_for(lambda: not (mount / "two").exists(), SOON)
        assert names(mount.path) == ["one"]
        with pytest.raises(FileNotFoundError):
            os.listdir(mount / "two")
        wait_for(lambda: mount.status()["components"] == [], what="nothing to be told of it")


def test_nothing_is_told_of_what_has_gone(root):
    """The kernel would remember it until somebody asks for the name again."""
    with mounted(root) as mount:
        for name in ("one", "two"):
            load_file(mount / name / "model.safetensors")
        assert len(mount.status()["components"]) == 2
        (root / "one").rename(root / "three")
        (root / "two/model.safetensors.index.json").unlink()
        for path in (root / "two").glob("model-*"):
            path.unlink()
        wait_for(lambda: "three" in names(mount.path) and "two" in names(mount.path) and
                 names(mount / "two") == ["config.json"], what="it is seen")
        wait_for(lambda: mount.status()["components"] == [], what="nothing is told of them")


def test_a_set_becomes_complete(root):
    late = root / "one/model-00002-of-00003.safetensors"
    held = late.read_bytes()
    late.unlink()
    with mounted(root) as mount:
        with pytest.raises(OSError):
            (mount / "one/model.safetensors").read_bytes()
        late.with_suffix(".incomplete").write_bytes(held[:1000])
        late.with_suffix(".incomplete").write_bytes(held)
        late.with_suffix(".incomplete").rename(late)

        def complete():
            with contextlib.suppress(OSError):
                return (mount / "one/model.safetensors").read_bytes()
        wait_for(complete, SOON)
        assert names(mount / "one") == \
            ["config.json", "model.safetensors", "model.safetensors.index.json"]
        assert len(load_file(mount / "one/model.safetensors")) == 10


def test_one_model_is_followed(root):
    """A source that is one model is told of as a whole, also when it has changed."""
    with mounted(root / "one") as mount:
        assert [one["name"] for one in mount.status()["components"]] == ["."]
        shards(root / "one/second", fill=3)
        wait_for(lambda: (mount / "second").exists(), SOON)
        wait_for(lambda: [one["name"] for one in mount.status()["components"]] == [".", "second"])
        mount.wait_warm()
        shutil.rmtree(root / "one/second")
        wait_for(lambda: not (mount / "second").exists(), SOON)
        wait_for(lambda: [one["name"] for one in mount.status()["components"]] == ["."])


def test_permissions_are_followed(root):
    config = root / "one/config.json"
    with mounted(root) as mount:
        def mode(path):
            return stat.S_IMODE(os.stat(mount / path).st_mode)
        assert mode("one/config.json") == stat.S_IMODE(config.stat().st_mode) & 0o555
        config.chmod(0o600)
        (root / "two").chmod(0o700)
        wait_for(lambda: mode("one/config.json") == 0o400, SOON)
        wait_for(lambda: mode("two") == 0o500, SOON)
        assert (mount / "one/config.json").read_text() == "{}"  # the engine has it from now on
        config.chmod(0o644)
        wait_for(lambda: mode("one/config.json") == 0o444, SOON)


# ---- one that is replaced ------------------------------------------------------------------------

def replace(folder, old, **more):
    """Another set in place of the old one, all of it at once."""
    shutil.rmtree(folder.with_name("staged"), ignore_errors=True)
    expected = shards(folder.with_name("staged"), **more)
    folder.rename(old)
    folder.with_name("staged").rename(folder)
    return expected


def test_another_layout_is_another_file(root, tmp_path):
    first = load_file(root / "one/model-00001-of-00003.safetensors")
    with mounted(root) as mount:
        path = mount / "one/model.safetensors"
        before = path.read_bytes()
        node = path.stat().st_ino, path.stat().st_size
        with open(path, "rb", buffering=0) as handle:
            expected = replace(root / "one", tmp_path / "old", sizes=(4, 4), fill=20, rows=128)
            wait_for(lambda: path.stat().st_size != node[1], SOON)
            assert same(load_file(path), expected)
            # Who has the old one open gets that, or an error: never anything of the new one.
            for offset in range(0, len(before), 4096):
                with contextlib.suppress(OSError):
                    assert os.pread(handle.fileno(), 4096, offset) == before[offset:offset + 4096]
        assert same(load_file(path), expected)
    assert first


def test_replaced_while_it_is_listed(root, tmp_path):
    """A listing is of one moment, however long it takes."""
    for number in range(2000):
        (root / f"one/note-{number:04d}.txt").touch()
    with mounted(root) as mount:
        with os.scandir(mount / "one") as listing:
            seen = [next(listing).name]
            replace(root / "one", tmp_path / "old")
            wait_for(lambda: not (mount / "one/note-0000.txt").exists(), SOON)
            seen += [entry.name for entry in listing]
        assert len(seen) == len(set(seen)) == 2003
        assert len(names(mount / "one")) == 3


# ---- one file under several names ----------------------------------------------------------------

def test_revisions_that_share_a_blob_share_its_pages(llama, tmp_path):
    cache = tmp_path / "hub"
    first = checkpoints.hub_cache(cache, llama, commit="a" * 40)
    second = checkpoints.hub_cache(cache, llama, commit="b" * 40)
    with slow(cache) as storage, mounted(storage.path) as mount:
        paths = [mount / folder.relative_to(cache) / "model.safetensors"
                 for folder in (first, second)]
        nodes = {(path.stat().st_ino, path.stat().st_dev) for path in paths}
        assert len(nodes) == 1
        paths[0].open("rb").close()  # all of it is read now
        wait_for(lambda: 0 < mount.status()["bytes_published"] == mount.status()["bytes_total"])
        content = paths[0].read_bytes()
        before = sum(file["bytes"] for file in storage.stats()["files"].values())
        assert paths[1].read_bytes() == content
        after = sum(file["bytes"] for file in storage.stats()["files"].values())
        # Read for each name it would be all of it twice; a page that the kernel takes is a chunk.
        assert after - before < len(content) // 2
        assert mount.status()["bytes_read"] < len(content) * 1.5


# ---- what it costs -------------------------------------------------------------------------------

def test_a_root_of_many_is_mounted_and_listed_without_a_header(root):
    for number in range(50):
        shards(root / f"model-{number:02d}", sizes=(1, 1), rows=1)
    with slow(root) as storage, mounted(storage.path) as mount:
        assert len(names(mount.path)) == 52
        subprocess.run(["ls", "-l", str(mount.path)], check=True, stdout=subprocess.DEVNULL)
        assert not any("safetensors" in name for name in storage.stats()["files"])
        assert mount.status()["prefetch"] == "open" and mount.status()["components"] == []
        names(mount / "model-07")
        read = [name for name in storage.stats()["files"] if "safetensors" in name]
        assert read and all("model-07/" in name for name in read)
        assert mount.status()["bytes_read"] == 0


def test_what_is_opened_is_prefetched_with_its_pipeline(flux, root):
    shutil.copytree(flux, root / "flux")
    with mounted(root) as mount:
        assert mount.status()["components"] == []
        with open(mount / "flux/text_encoder_2/model.safetensors", "rb") as file:
            file.read(1)

            def prefetched():
                found = {one["name"]: one["state"] for one in mount.status()["components"]}
                return len(found) == 4 and set(found.values()) == {"unverified"} and found
            found = wait_for(prefetched)
            # In the order of loading, those first that come after it; of "one" and "two" nothing.
            assert set(found) == {f"flux/{name}" for name in
                                  ("text_encoder", "text_encoder_2", "transformer", "vae")}
            wait_for(lambda: mount.status()["bytes_stored"] > 0)
        before = mount.status()["reads"]
        for name in ("transformer/diffusion_pytorch_model", "vae/diffusion_pytorch_model",
                     "text_encoder/model"):
            wait_for(lambda: mount.status()["state"] == "ready")
            content = (mount / f"flux/{name}.safetensors").read_bytes()
            assert len(content) > 1000
        assert mount.status()["reads"] - before <= 3 * 4, "the pages were not there"
        run("wait", mount.path, check=True)


@pytest.mark.parametrize("prefetch, found", [("all", ["one", "two"]), ("follow", []), ("off", [])])
def test_what_is_said_counts(root, prefetch, found):
    with mounted(root, f"prefetch={prefetch}") as mount:
        assert mount.status()["prefetch"] == prefetch
        assert [one["name"] for one in mount.status()["components"]] == found
        mount.wait_warm()
        assert names(mount / "one")
        assert [one["name"] for one in mount.status()["components"]] == found


def test_open_of_one_model(flux):
    with mounted(flux, "prefetch=open") as mount:
        assert len(mount.status()["components"]) == 4
        assert mount.status()["bytes_read"] == 0
        (mount / "vae/diffusion_pytorch_model.safetensors").read_bytes()
        mount.wait_warm()


def test_a_directory_is_warmed_and_evicted(root):
    shards(root / "group/three", fill=3)
    shards(root / "group/deeper/four", fill=4)
    with mounted(root) as mount:
        told = json.loads(run("warm", "--json", mount.path, "group/", check=True).stdout)
        assert told["bytes_total"] > 2 * 10 * 64 * 32 * 4
        mount.wait_warm()
        found = {one["name"]: one for one in mount.status()["components"]}
        assert set(found) == {"group/three", "group/deeper/four"}
        assert all(one["state"] == "unverified" for one in found.values())
        run("evict", mount.path, "group/deeper", check=True)
        found = {one["name"]: one for one in mount.status()["components"]}
        assert [found[name]["evicted"] for name in sorted(found)] == [True, False]
        done = run("warm", mount.path, "group/nothing")
        assert done.returncode == 1 and "no component or directory 'group/nothing'" in done.stderr


# ---- storage that does not answer ----------------------------------------------------------------

@contextlib.contextmanager
def hanging(root, *options):
    """A mount of the root, in which to look into "one" hangs."""
    with slow(root) as storage, mounted(storage.path, *options) as mount:
        storage.command("stall one/*")
        looks = subprocess.Popen(["ls", str(mount / "one")], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: storage.stats()["stalled"] > 0, what="the look to hang")
            yield mount, storage, looks
        finally:
            storage.command("release")
            looks.kill()
            looks.wait(PATIENCE)


def test_one_directory_that_hangs_holds_up_no_other(root):
    with hanging(root) as (mount, storage, looks):
        more = [subprocess.Popen(["stat", str(mount / f"one/{number}")],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for number in range(100)]
        try:
            assert len(load_file(mount / "two/model.safetensors")) == 10
            assert names(mount.path) == ["one", "two"]
            assert looks.poll() is None
            # Who gives up may go.
            looks.send_signal(signal.SIGKILL)
            looks.wait(PATIENCE)
            storage.command("release", "reset")
            for one in more:
                assert one.wait(PATIENCE) == 1
        finally:
            for one in more:
                one.kill()
                one.wait(PATIENCE)
        wait_for(lambda: "model.safetensors" in names(mount / "one"))


def test_a_look_that_hangs_is_told(root, tmp_path):
    """Everywhere where a read that hangs is told, as long as it does, and in the log."""
    def shown(name):
        return (mount / ".unshard" / name).read_text()

    log = tmp_path / "log"
    with hanging(root, f"log={log}") as (mount, storage, looks):
        status = wait_for(lambda: (now := mount.status())["stuck_looks"] and now, what="the look")
        (look,) = status["stuck_looks"]
        assert look["directory"] == "one" and 2 <= look["seconds"] <= status["oldest_look_seconds"]
        assert status["looks_stalled"] == 1 and status["stuck"] == [] and status["stalled"] == 0
        # Nothing has failed, and nothing is fetched: as of a read that hangs, it is no state.
        assert status["state"] == "ready" and shown("errors") == ""
        wait_for(lambda: "stalled: 1 look at directories; the oldest waits" in shown("status"))
        assert re.search(r"^stalled: 1 look .* s: one$", run("status", mount.path).stdout, re.M)
        metrics = shown("metrics")
        assert re.search(r"^unshard_looks_stalled\{[^}]*\} 1$", metrics, re.M)
        assert float(re.search(r"^unshard_oldest_look_seconds\S* (\S+)$", metrics, re.M)[1]) >= 5
        wait_for(lambda: "event=look-stuck" in log.read_text(), what="a line in the log")
        assert looks.poll() is None
        storage.command("release")
        assert looks.wait(PATIENCE) == 0
        status = mount.status()
        assert (status["looks_stalled"], status["stuck_looks"]) == (0, [])
        assert "stalled" not in shown("status")
        wait_for(lambda: "event=look-ended" in log.read_text(), what="the end in the log")
        lines = [line for line in log.read_text().splitlines() if "event=look-" in line]
        assert [re.sub(r"seconds=\d+$", "seconds=n", line.partition("engine ")[2])
                for line in lines] == ['event=look-stuck directory="one" seconds=n',
                                       'event=look-ended directory="one" seconds=n']


def test_the_directory_that_hangs_is_told_not_who_waits(root):
    """Whoever goes through it waits for the same look; the source itself is "."."""
    (root / "one/deeper").mkdir()
    with hanging(root) as (mount, storage, _):
        waits = subprocess.Popen(["stat", str(mount / "one/deeper/x")], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        try:
            status = wait_for(lambda: (now := mount.status())["stuck_looks"] and now)
            assert [look["directory"] for look in status["stuck_looks"]] == ["one"]
        finally:
            storage.command("release")
            waits.kill()
            waits.wait(PATIENCE)
    with slow(root / "one") as storage, mounted(storage.path, "prefetch=off") as mount:
        storage.command("stall *.safetensors")
        try:
            for shard in (root / "one").glob("*.safetensors"):
                shard.touch()  # its header is read again
            status = wait_for(lambda: mount.path.exists() and
                              (now := mount.status())["stuck_looks"] and now)
            assert [look["directory"] for look in status["stuck_looks"]] == ["."]
        finally:
            storage.command("release")


def test_unmounted_while_a_look_hangs(root):
    with hanging(root) as (mount, storage, looks):
        os.kill(mount.pid, signal.SIGTERM)
        wait_for(lambda: not is_alive(mount.pid), what="the daemon's end")
        assert looks.wait(PATIENCE) != 0
        mount.pid = None


def test_the_status_can_be_read_while_the_source_hangs(root):
    """The kernel asks for the root's attributes before it looks into `.unshard`."""
    with slow(root / "one") as storage, mounted(storage.path, "prefetch=off") as mount:
        storage.command("stall *.safetensors")
        try:
            for shard in (root / "one").glob("*.safetensors"):
                shard.touch()  # its header is read again
            wait_for(lambda: run("status", mount.path).returncode != 1 and
                     storage.stats()["stalled"] > 0)
            began = time.monotonic()
            while time.monotonic() < began + 3:  # longer than the kernel believes anything
                assert run("status", mount.path).returncode != 1
            assert storage.stats()["stalled"] > 0
        finally:
            storage.command("release", "reset")
        wait_for(lambda: len(load_file(mount / "model.safetensors")) == 10)


# ---- who may know --------------------------------------------------------------------------------

ALICE, GROUP = 61001, 61099
needs_users = pytest.mark.skipif(os.geteuid() != 0, reason="other users are needed")


def shown(mount, file="status.json", user=ALICE, groups=()):
    done = subprocess.run(["cat", mount / ".unshard" / file], user=user, group=user, timeout=20,
                          extra_groups=list(groups), capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if file == "status.json" else done.stdout


def models(*who, **more):
    return sorted(one["name"] for one in shown(*who, **more)["components"])


def test_the_status_can_be_opened_by_who_gets_there(root):
    with mounted(root) as mount:
        assert stat.S_IMODE(os.stat(mount / ".unshard/status.json").st_mode) == 0o444
    with mounted(root / "one") as mount:
        assert stat.S_IMODE(os.stat(mount / ".unshard/status.json").st_mode) == 0o444


@needs_users
@pytest.mark.parametrize("prefetch", ["open", "all"])
def test_the_status_of_many_tells_of_what_one_may_list(root, prefetch):
    for path in (root, root / "one", root / "two"):
        path.chmod(0o755)
    (root / "two").chmod(0o700)
    (root / "two/SHA256SUMS").write_text("nonsense\n")
    with mounted(root, "allow_other", f"prefetch={prefetch}") as mount:
        for name in ("one", "two"):
            load_file(mount / name / "model.safetensors")
        with open(mount / "two/model.safetensors"):
            whole = mount.status()
            assert [one["name"] for one in whole["components"]] == ["one", "two"]
            assert whole["errors"] == 1 and whole["readers"] == 1
            seen = shown(mount)
        assert [one["name"] for one in seen["components"]] == ["one"]
        assert seen["bytes_total"] == seen["components"][0]["bytes_total"] < whole["bytes_total"]
        assert seen["bytes_published"] <= seen["bytes_total"]
        assert seen["errors"] == seen["readers"] == 0 and not seen["problems"] and not seen["notes"]
        for file in ("status", "status.json", "metrics", "errors"):
            text = json.dumps(shown(mount, file))
            assert "two" in (mount / ".unshard" / file).read_text() and "two" not in text
            assert "one" in text or file == "errors"
        assert "nonsense" not in shown(mount, "errors") and not shown(mount, "errors")
        # By owner, group and mode as they are now; a snapshot is for one user in the same groups.
        os.chown(root / "two", 0, GROUP)
        (root / "two").chmod(0o750)
        wait_for(lambda: models(mount, groups=[GROUP]) == ["one", "two"], SOON)
        assert models(mount) == ["one"] and models(mount, groups=[GROUP + 1]) == ["one"]
        (root / "two").chmod(0o705)
        wait_for(lambda: models(mount) == ["one", "two"], SOON)
        assert models(mount, groups=[GROUP, GROUP + 1]) == ["one"]
        os.chown(root / "two", ALICE, 0)
        (root / "two").chmod(0o700)
        wait_for(lambda: models(mount, user=ALICE + 1) == ["one"], SOON)
        assert models(mount) == ["one", "two"] and shown(mount)["errors"] == 1
        root.chmod(0o711)
        wait_for(lambda: models(mount) == [], SOON)
        assert shown(mount)["bytes_total"] == 0 and not shown(mount, "errors")
        root.chmod(0o755)
        wait_for(lambda: models(mount) == ["one", "two"], SOON)
        assert len(mount.status()["components"]) == 2


@needs_users
def test_commands_of_who_may_not_list_all(root, tmp_path):
    """`status` and `wait` are about what he sees: neither errors nor reads that hang elsewhere."""
    shards(root / "two", rows=1 << 15)
    for path in (root, root / "one"):
        path.chmod(0o755)
    (root / "two").chmod(0o700)
    program = shutil.copy(UNSHARD, tempfile.mkdtemp(dir="/tmp", prefix="unshard-public-"))
    os.chmod(os.path.dirname(program), 0o755)
    try:
        with slow(root) as storage, mounted(storage.path, "allow_other") as mount:
            def as_alice(*arguments):
                return subprocess.run([program, *arguments, mount.path], user=ALICE, group=ALICE,
                                      extra_groups=[], capture_output=True, text=True, timeout=60)
            load_file(mount / "one/model.safetensors")
            wait_for(lambda: mount.status()["state"] == "ready")
            storage.command("stall two/model-00001* 8388608 4096")
            try:
                reader = subprocess.Popen(["cat", mount / "two/model.safetensors"],
                                          stdout=subprocess.DEVNULL)
                wait_for(lambda: mount.status()["stuck"])
                assert mount.status()["state"] == "prefetching"
                assert not shown(mount)["stuck"] and shown(mount)["state"] == "ready"
                done = as_alice("wait", "--timeout", "30")
                assert done.returncode == 0, done.stderr
                done = as_alice("status")
                assert done.returncode == 0 and "two" not in done.stdout, done.stderr
            finally:
                storage.command("release", "reset")
                reader.wait(PATIENCE)
            os.truncate(root / "two/model-00002-of-00003.safetensors", 100)
            wait_for(lambda: run("status", mount.path).returncode == 3)
            done = as_alice("status", "--json")
            assert done.returncode == 0 and json.loads(done.stdout)["errors"] == 0
    finally:
        shutil.rmtree(os.path.dirname(program))


def test_ids_are_not_used_again(root):
    """A name that comes back is another file, and the pages of the old one are not its own."""
    with mounted(root) as mount:
        path = mount / "one/note.txt"
        for content in ("first", "x" * 10000):
            staged = root / "note"
            staged.write_text(content)
            staged.rename(root / "one/note.txt")
            wait_for(lambda: path.exists() and path.read_text() == content, SOON)
            (root / "one/note.txt").unlink()
            wait_for(lambda: not path.exists(), SOON)
