# SPDX-License-Identifier: MIT
"""What a person on call uses: metrics, schema, copies of the status, wait, evict, warm, list."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jsonschema
import pytest
from prometheus_client.openmetrics import parser

import harness
from harness import (PATIENCE, TOP, UNSHARD, Mount, connection_of, is_alive, is_mounted,
                     kill_with_supervisor, mounted, run, slow, wait_for)

SCHEMA = json.loads((TOP / "contrib/schema/status-1.json").read_text())
BAD = "diffusion_pytorch_model-00002-of-00005.safetensors"
VIEW = "transformer/diffusion_pytorch_model.safetensors"
# "Within 100 ms", with room for a busy machine.
PROMPT_SECONDS = 0.1 * (10 if harness.SANITIZER else 5)


@pytest.fixture
def broken(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "broken")
    (source / "transformer" / BAD).unlink()
    return source


# ---- schema --------------------------------------------------------------------------------------

def closed(schema):
    """The schema with every object closed, so that an undocumented field is found."""
    if isinstance(schema, dict):
        result = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and "type" in schema:
            result["additionalProperties"] = False
        return result
    return [closed(one) for one in schema] if isinstance(schema, list) else schema


def check_schema(status):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(status, SCHEMA)
    jsonschema.validate(status, closed(SCHEMA))


def test_schema_of_a_ready_mount(flux):
    with mounted(flux) as mount:
        mount.wait_warm()
        status = mount.status()
        check_schema(status)
        assert status["mountpoint"] == str(mount.path)
        assert status["connection"] == connection_of(mount.path)
        assert status["read_ahead_bytes"] % 4096 == 0


def test_schema_of_a_failed_mount(broken):
    with mounted(broken) as mount:
        wait_for(lambda: mount.status()["errors"] > 0, what="the component failed")
        status = mount.status()
        check_schema(status)
        assert status["state"] == "degraded"


def test_schema_while_everything_hangs(big):
    with slow(big) as storage, mounted(storage.path, "prefetch=follow") as mount:
        storage.command("stall *.safetensors")
        reader = subprocess.Popen(["head", "-c", "1000000", mount / "model.safetensors"],
                                  stdout=subprocess.DEVNULL)
        wait_for(lambda: storage.stats()["stalled"] > 0, what="a stalled read")
        status = wait_for(lambda: mount.status()["stuck"] and mount.status(), what="stuck")
        check_schema(status)
        assert status["stuck"][0]["file"].endswith(".safetensors")
        storage.command("release")
        assert reader.wait(PATIENCE) == 0


def test_schema_while_a_look_hangs(flux):
    with slow(flux.parent) as storage, mounted(storage.path) as mount:
        storage.command(f"stall {flux.name}/vae/*")
        looks = subprocess.Popen(["ls", mount / flux.name / "vae"], stdout=subprocess.DEVNULL)
        try:
            status = wait_for(lambda: (now := mount.status())["stuck_looks"] and now)
            check_schema(status)
            assert status["stuck_looks"][0]["directory"] == f"{flux.name}/vae"
            shown = run("status", mount.path, "--json", check=True)  # read and written again
            check_schema(json.loads(shown.stdout))
        finally:
            storage.command("release")
            looks.kill()
            looks.wait(PATIENCE)


def property_names(schema):
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for value in schema.values():
            yield from property_names(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from property_names(value)


def test_schema_and_page_name_the_same_fields():
    page = (TOP / "contrib/man/unshard-status.7").read_text()
    written = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"Va (.*)", page))))
    assert set(property_names(SCHEMA)) <= written, set(property_names(SCHEMA)) - written


def test_schema_finds_what_is_wrong(llama):
    """The schema is no formality: it refuses other types, words and missing fields."""
    with mounted(llama) as mount:
        status = mount.status()
    for change in ({"state": "fine"}, {"pid": "7"}, {"bytes_total": -1}, {"schema": 2},
                   {"time": "yesterday"}, {"components": [{}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**status, **change}, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**status, "undocumented": 1}, closed(SCHEMA))


def test_names_that_are_no_utf8(llama, tmp_path):
    """A component whose directory is not UTF-8 breaks neither JSON nor metrics."""
    name = os.fsencode(tmp_path / "source") + b"/sub-\xff\"\\"
    os.makedirs(name)
    for file in llama.glob("*.safetensors*"):
        shutil.copy(os.fsencode(file), name)
    with mounted(tmp_path / "source", "prefetch=all") as mount:
        raw = (mount / ".unshard/status.json").read_bytes()
        status = json.loads(raw.decode("utf-8"))
        check_schema(status)
        samples(mount)
        run("status", mount.path, check=True)


# ---- metrics -------------------------------------------------------------------------------------

def samples(mount):
    """All samples by name and labels, as the Prometheus project's parser reads them."""
    text = (mount / ".unshard/metrics").read_text()
    assert text.endswith("# EOF\n")
    found = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation, family.name
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(found, name, **labels):
    """The one sample of that name that has these labels among others."""
    values = [number for (other, pairs), number in found.items()
              if other == name and set(labels.items()) <= pairs]
    assert len(values) == 1, f"{name} {labels}: {values}"
    return values[0]


def test_metrics_of_a_ready_mount(flux):
    with mounted(flux) as mount:
        wait_for(lambda: mount.status()["state"] == "ready", what="all stored")
        found, status = samples(mount), mount.status()
        assert value(found, "unshard_size_bytes") == status["bytes_total"]
        assert value(found, "unshard_source_read_bytes_total") == status["bytes_read"]
        assert value(found, "unshard_state", state="ready") == 1
        assert value(found, "unshard_state", state="failed") == 0
        assert value(found, "unshard_mount_info", source=str(flux)) == 1
        component = mount.component(VIEW)
        assert value(found, "unshard_component_published_bytes",
                     component="transformer") == component["bytes_total"]
        assert all(dict(labels)["mountpoint"] == str(mount.path) for _, labels in found)
        assert not any(name == "unshard_shard_failed" for name, _ in found)


def test_metrics_of_a_daemon_that_was_killed(llama):
    with mounted(llama) as mount:
        found = samples(mount)
        assert value(found, "unshard_restarts_total") == 0
        assert not any(name.startswith("unshard_last_restart") for name, _ in found)
        begin = int(time.time())
        os.kill(mount.pid, signal.SIGKILL)
        status = wait_for(lambda: (status := mount.status())["restarts"] and status,
                          what="another daemon")
        mount.pid = status["pid"]
        check_schema(status)
        assert status["restarts"] == 1 and status["restart_reason"] == "killed"
        found = samples(mount)
        assert value(found, "unshard_restarts_total") == 1
        assert begin <= value(found, "unshard_last_restart_timestamp_seconds",
                              reason="killed") <= time.time()


def test_metrics_of_a_missing_shard(broken):
    with mounted(broken) as mount:
        wait_for(lambda: mount.status()["errors"] > 0, what="the component failed")
        found = samples(mount)
        assert value(found, "unshard_failed_components") == 1
        assert value(found, "unshard_component_state", component="transformer",
                     state="failed") == 1
        assert value(found, "unshard_shard_failed", component="transformer",
                     shard=f"transformer/{BAD}", code="missing") == 1


def test_metrics_of_a_component_without_layout(broken):
    """Neither the missing shard nor an index: nothing can be said of any shard."""
    (broken / "transformer/diffusion_pytorch_model.safetensors.index.json").unlink()
    with mounted(broken) as mount:
        assert value(samples(mount), "unshard_component_failed", component="transformer") == 1


def test_metrics_of_a_failed_shard(flux, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    os.truncate(source / "transformer" / BAD, 100000)
    with mounted(source) as mount:
        wait_for(lambda: mount.status()["errors"] > 0, what="the component failed")
        assert value(samples(mount), "unshard_shard_failed", component="transformer",
                     shard=f"transformer/{BAD}", code="truncated") == 1


def test_metrics_escape_labels(llama, tmp_path):
    source = shutil.copytree(llama, tmp_path / 'a "quoted" \\ name')
    with mounted(source) as mount:
        assert value(samples(mount), "unshard_mount_info", source=str(source)) == 1


# ---- while everything hangs ----------------------------------------------------------------------

@pytest.mark.parametrize("name", ["status", "status.json", "metrics", "errors"])
def test_prompt_while_every_worker_hangs(big, name):
    with slow(big) as storage, mounted(storage.path, "prefetch=follow", "jobs=4") as mount:
        storage.command("stall *.safetensors")
        readers = [subprocess.Popen(["dd", f"if={mount / 'model.safetensors'}", "of=/dev/null",
                                     "bs=64k", "count=1", f"skip={96 * number}"],
                                    stderr=subprocess.DEVNULL) for number in range(12)]
        wait_for(lambda: storage.stats()["stalled"] >= 4, what="every worker in a stalled read")
        times = []
        for _ in range(5):
            begin = time.monotonic()
            (mount / ".unshard" / name).read_text()
            times.append(time.monotonic() - begin)
        assert sorted(times)[2] < PROMPT_SECONDS, times
        storage.command("release")
        assert all(reader.wait(PATIENCE) == 0 for reader in readers)


# ---- copies outside the mount --------------------------------------------------------------------

def test_copies_outside_the_mount(flux, tmp_path):
    status_file, metrics_file = tmp_path / "status.json", tmp_path / "flux.prom"
    with mounted(flux, f"status_file={status_file}", f"metrics_file={metrics_file}") as mount:
        mount.wait_warm()

        def copied():
            return status_file.exists() and json.loads(status_file.read_text())["state"] == "ready"

        wait_for(copied, what="a copy of the ready status")
        check_schema(json.loads(status_file.read_text()))
        list(parser.text_string_to_metric_families(metrics_file.read_text()))
        assert json.loads(run("status", "--json", status_file, check=True).stdout)["pid"] == \
            mount.pid
        inode = status_file.stat().st_ino
        wait_for(lambda: status_file.stat().st_ino != inode, what="replaced by renaming")
    wait_for(lambda: not status_file.exists() and not metrics_file.exists(),
             what="the copies gone with the mount")
    assert os.listdir(tmp_path) == []


def test_copies_go_when_the_daemon_is_killed(llama, tmp_path):
    status_file = tmp_path / "status.json"
    mount = Mount(llama, f"status_file={status_file}")
    try:
        assert mount.result == 0, mount.output
        wait_for(status_file.exists, what="the copy")
        os.kill(mount.pid, signal.SIGKILL)
        wait_for(lambda: json.loads(status_file.read_text())["pid"] != mount.pid, what="that of the next one")
        kill_with_supervisor(mount.status()["pid"])
        wait_for(lambda: not status_file.exists(), what="the copy is gone")
    finally:
        mount.discard()


def test_copy_on_a_file_system_that_hangs(llama, tmp_path):
    """Neither the mount nor its end waits for the copy: its file system is dead, requests to it
    hang for ever."""
    stuck = tmp_path / "stuck"
    stuck.mkdir()
    daemon = subprocess.Popen([harness.SLOWFS, "-f", str(llama), str(stuck)],
                              stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: is_mounted(stuck), what="the file system to be stuck")
        with mounted(llama, f"status_file={stuck}/status.json") as mount:
            os.kill(daemon.pid, signal.SIGSTOP)
            children = pathlib.Path(f"/proc/{mount.pid}/task/{mount.pid}/children")
            writer = [child for child in children.read_text().split() if
                      "mirror" in pathlib.Path(f"/proc/{child}/comm").read_text()]
            assert len(writer) == 1
            wchan = pathlib.Path(f"/proc/{writer[0]}/wchan")
            wait_for(lambda: "request_wait" in wchan.read_text(), what="the writer to hang")
            wait_for(lambda: mount.status()["state"] == "ready", what="all stored")
            begin = time.monotonic()
            mount.unmount()
            assert time.monotonic() - begin < PATIENCE
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
        daemon.kill()
        harness.detach(stuck)
        daemon.wait(PATIENCE)


@pytest.mark.parametrize("where", ["{source}/status.json", "{mnt}/status.json",
                                   "/dev/null/status.json", "{tmp}/.."])
def test_copies_that_cannot_be_written(llama, tmp_path, where):
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    path = where.format(source=llama, mnt=mountpoint, tmp=tmp_path)
    try:
        done = run("mount", "-o", f"status_file={path}", llama, mountpoint)
        assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not is_mounted(mountpoint)
    finally:
        harness.detach(mountpoint)


# ---- wait ----------------------------------------------------------------------------------------

def test_wait_until_warm(big):
    with slow(big, latency=5) as storage, mounted(storage.path) as mount:
        done = run("wait", "--timeout", "60", mount.path)
        assert done.returncode == 0, done.stderr
        status = mount.status()
        assert status["bytes_published"] == status["bytes_total"]
        told = json.loads(run("wait", "--json", mount.path, check=True).stdout)
        assert told["result"] == "warm" and told["bytes_published"] == status["bytes_total"]


def test_wait_tells_a_failure(broken):
    with mounted(broken) as mount:
        done = run("wait", "--timeout", "60", mount.path)
        assert done.returncode == 1 and BAD in done.stderr
        done = run("wait", "--json", "--timeout", "60", mount.path)
        assert done.returncode == 1 and json.loads(done.stdout)["result"] == "failed"


def test_wait_times_out(big):
    with slow(big) as storage:
        storage.command("stall *.safetensors 1000000 1000000000")  # headers can be read
        with mounted(storage.path) as mount:
            done = run("wait", "--timeout", "0.3", mount.path)
            assert done.returncode == 2 and str(mount.path) in done.stderr
            assert json.loads(run("wait", "-j", "-t", "0.3", mount.path).stdout)["result"] == \
                "timeout"
            storage.command("release")


def test_wait_for_verification_that_cannot_come(llama):
    """No digest is known, so it would wait for ever: it says so instead."""
    with mounted(llama) as mount:
        done = run("wait", "--verified", "--timeout", "60", mount.path)
        assert done.returncode == 1 and "digest" in done.stderr


def test_wait_without_a_mount(tmp_path):
    assert run("wait", tmp_path).returncode == 1
    assert run("wait", "--timeout", "0.2", tmp_path).returncode == 2
    assert run("wait", "--timeout", "never", tmp_path).returncode == 64


def test_wait_for_the_mount_to_appear(llama, tmp_path):
    mountpoint = tmp_path / "mnt"
    mountpoint.mkdir()
    waiting = subprocess.Popen([UNSHARD, "wait", "--timeout", "60", str(mountpoint)],
                               stdout=subprocess.DEVNULL)
    with mounted(llama, mountpoint=mountpoint):
        assert waiting.wait(PATIENCE * 3) == 0


# ---- evict and warm ------------------------------------------------------------------------------

def cached_bytes(path):
    done = subprocess.run(["fincore", "-b", "-n", "-o", "RES", str(path)], check=True,
                          stdout=subprocess.PIPE, text=True)
    return int(done.stdout)


def test_evict_and_warm(flux):
    with mounted(flux) as mount:
        run("wait", "--timeout", "60", mount.path, check=True)
        content, other = (mount / VIEW).read_bytes(), mount / "text_encoder_2/model.safetensors"
        assert cached_bytes(mount / VIEW) > 0.9 * len(content)
        told = json.loads(run("evict", "--json", mount.path, "transformer", check=True).stdout)
        assert told["bytes"] == mount.component(VIEW)["bytes_total"]
        assert cached_bytes(mount / VIEW) == 0
        assert cached_bytes(other) > 0.9 * other.stat().st_size
        component = mount.component(VIEW)
        assert component["evicted"] and component["bytes_published"] == 0
        assert "evicted" in run("status", mount.path, check=True).stdout
        check_schema(mount.status())
        assert (mount / VIEW).read_bytes() == content  # on demand
        run("warm", mount.path, VIEW, check=True)
        run("wait", "--timeout", "60", mount.path, check=True)
        assert not mount.component(VIEW)["evicted"]
        assert cached_bytes(mount / VIEW) > 0.9 * len(content)
        assert (mount / VIEW).read_bytes() == content


def test_evict_all_while_it_is_mapped_and_read(big, tmp_path):
    """Readers get the right bytes through any number of evictions."""
    with mounted(big) as mount:
        path = mount / "model.safetensors"
        expected = path.read_bytes()
        script = ("import mmap, sys\nfile = open(sys.argv[1], 'rb')\n"
                  "view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
                  "want = open(sys.argv[2], 'rb').read()\n"
                  "for _ in range(6):\n    assert view[:] == want\n")
        copy = tmp_path / "copy"
        copy.write_bytes(expected)
        readers = [subprocess.Popen([sys.executable, "-c", script, str(path), str(copy)])
                   for _ in range(2)]
        while any(reader.poll() is None for reader in readers):
            run("evict", mount.path, check=True)
            run("warm", mount.path, check=True)
        assert [reader.returncode for reader in readers] == [0, 0]


def test_evict_of_what_is_not_there(llama, tmp_path):
    with mounted(llama) as mount:
        done = run("evict", mount.path, "nonsense")
        assert done.returncode == 1 and "nonsense" in done.stderr
    assert run("evict", tmp_path).returncode == 1
    assert run("warm", tmp_path).returncode == 1


@pytest.fixture
def public_folder():
    """A folder that every user can reach: pytest's own are private."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="unshard-public-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    harness.detach(folder / "mnt")
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_evict_is_not_for_everybody(llama, public_folder):
    program, mountpoint = shutil.copy(UNSHARD, public_folder), public_folder / "mnt"
    mountpoint.mkdir()
    source = shutil.copytree(llama, public_folder / "source")
    for path in (source, *source.iterdir()):
        path.chmod(0o755)
    with mounted(source, "allow_other", mountpoint=mountpoint) as mount:
        mount.wait_warm()
        done = subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
                               program, "evict", str(mountpoint)],
                              stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "only root" in done.stderr, done.stderr
        assert not mount.status()["components"][0]["evicted"]


def test_evict_waits_for_no_stalled_read(big):
    """An eviction that hangs behind a stalled read delays neither status nor the end."""
    with slow(big) as storage:
        with mounted(storage.path, "prefetch=follow") as mount:
            storage.command("stall *.safetensors")
            reader = subprocess.Popen(["head", "-c", "4000000", mount / "model.safetensors"],
                                      stdout=subprocess.DEVNULL)
            wait_for(lambda: storage.stats()["stalled"] > 0, what="a stalled read")
            evict = subprocess.Popen([UNSHARD, "evict", str(mount.path)],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: mount.status()["components"][0]["evicted"], what="the eviction")
            begin = time.monotonic()
            mount.status()
            assert time.monotonic() - begin < 1
            storage.command("release")
            assert evict.wait(PATIENCE) == 0
            assert reader.wait(PATIENCE) == 0


# ---- list ----------------------------------------------------------------------------------------

def listed():
    return {one["mountpoint"]: one for one in json.loads(run("list", "--json").stdout)}


def test_list(llama, flux):
    with mounted(llama) as first, mounted(flux) as second:
        for mount in (first, second):
            wait_for(lambda mount=mount: mount.status()["state"] == "ready", what="all stored")
        found = listed()
        assert found[str(first.path)]["state"] == "ready"
        assert found[str(first.path)]["pid"] == first.pid
        assert found[str(second.path)]["source"] == str(flux)
        text = run("list").stdout
        assert f"{first.path}" in text and f"{second.path}" in text


def test_list_does_not_hang(llama):
    """A mount whose daemon is stopped, and one whose daemon has died without its monitor."""
    stopped, dead = Mount(llama), Mount(llama)
    try:
        assert stopped.result == 0 and dead.result == 0
        os.kill(stopped.pid, signal.SIGSTOP)
        os.kill(dead.pid, signal.SIGSTOP)  # it would replace its monitor
        children = pathlib.Path(f"/proc/{dead.pid}/task/{dead.pid}/children")
        for child in map(int, children.read_text().split()):
            os.kill(child, signal.SIGKILL)
        os.kill(dead.pid, signal.SIGKILL)
        wait_for(lambda: not is_alive(dead.pid))
        begin = time.monotonic()
        found = listed()
        assert time.monotonic() - begin < PATIENCE
        assert found[str(stopped.path)]["state"] == "no answer"
        assert found[str(dead.path)]["state"] == "dead"
        assert run("list").returncode == 3
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
        stopped.discard()
        dead.discard()
