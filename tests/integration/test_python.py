# SPDX-License-Identifier: MIT
"""The Python wheel: built, installed in a clean environment, and used from there alone."""

import errno
import inspect
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import typing
import zipfile

import pytest
import torch

import checkpoints
import digests
from harness import PATIENCE, TOP, UNSHARD, detach, is_alive, slow, wait_for
from test_cli import help_of

PYTHON = TOP / "contrib/python"
TOOLS = TOP / "build/wheel/tools/bin"
SCHEMA = json.loads((TOP / "contrib/schema/status-1.json").read_text())
SHARD = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
VIEW = "transformer/diffusion_pytorch_model.safetensors"

# The module as it stands in the source, for what is compared with other files.
sys.path.insert(0, str(PYTHON / "src"))
import unshard  # noqa: E402
from unshard import _status  # noqa: E402

plain_build = pytest.mark.skipif(os.path.dirname(UNSHARD) != str(TOP / "build"),
                                 reason="a wheel is of a plain build")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def clean_environment(**more):
    """Nothing of the tests' own, and no other unshard on the PATH."""
    kept = {name: value for name, value in os.environ.items()
            if name not in ("UNSHARD_BIN", "PYTHONPATH") and not name.startswith("MAKE")}
    return {**kept, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **more}


@pytest.fixture(scope="module")
def wheel():
    environment = {name: value for name, value in os.environ.items()
                   if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(["make", "-s", "wheel-run"], cwd=TOP, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return next((TOP / "build/wheel").glob(f"*_{platform.machine()}.whl"))


@pytest.fixture(scope="module")
def public():
    """A folder that every user can reach: pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="unshard-wheel-") as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


@pytest.fixture(scope="module")
def installed(wheel, public):
    """The bin folder of an environment that has the wheel and nothing else, not even pip."""
    folder = public / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run([sys.executable, "-m", "pip", "-q", "--python", folder / "bin/python", "install",
                    "--no-index", "--no-deps", wheel], check=True)
    return folder / "bin"


@pytest.fixture(scope="module")
def model(public):
    """Two components, of which digests are known; tests must not change it."""
    folder = public / "flux"
    tensors = {f"block.{i}.weight": torch.randn(256, 512) for i in range(9)}
    checkpoints.save_shards(folder / "transformer", tensors, 3, "diffusion_pytorch_model")
    checkpoints.save_shards(folder / "vae", {"a": torch.randn(64)}, 1, "diffusion_pytorch_model")
    (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    digests.by_sha256sum(folder)
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
    return folder


@pytest.fixture
def damaged(model, tmp_path):
    """The second of three shards has one byte that is another."""
    folder = shutil.copytree(model, tmp_path / "damaged")
    with open(folder / SHARD, "r+b") as file:
        file.seek(300_000)
        byte = file.read(1)
        file.seek(300_000)
        file.write(bytes([byte[0] ^ 1]))
    return folder


@pytest.fixture
def temporary(public):
    """Where mounts make their directories; in the end there must be none."""
    folder = public / "temporary"
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(f"{folder}/"):
            detach(line.split()[4])
    left = list(folder.iterdir())
    shutil.rmtree(folder)
    assert not left


@pytest.fixture
def use(installed, temporary):
    """Runs code in the clean environment; what it prints is the result, in JSON."""
    def run_code(code, *arguments, rc=0, become=(), **environment):
        done = subprocess.run([*become, installed / "python", "-I", "-c",
                               "import json, os, sys, unshard\n" + inspect.cleandoc(code),
                               *map(str, arguments)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              timeout=PATIENCE * 3,
                              env=clean_environment(TMPDIR=str(temporary), **environment))
        assert done.returncode == rc, done.stderr
        return json.loads(done.stdout) if rc == 0 else done.stderr

    return run_code


# ---- the wheel -----------------------------------------------------------------------------------

@plain_build
def test_what_the_wheel_holds(wheel):
    """`make wheel` itself has it checked by auditwheel, see check_wheel.py."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        folder = next(name for name in names if name.endswith("METADATA")).rpartition("/")[0]
        metadata = archive.read(f"{folder}/METADATA").decode()
    version = re.search(r'UNSHARD_VERSION "(.*)"', (TOP / "lib/unshard.h").read_text())[1]
    assert wheel.name.startswith(f"unshard-{version}-py3-none-manylinux_2_17_")
    assert f"\nVersion: {version}\n" in metadata and "Requires-Dist" not in metadata
    sources = {f"unshard/{path.name}" for path in (PYTHON / "src/unshard").iterdir()
               if path.is_file()}
    assert "unshard/py.typed" in sources and sources <= names
    pages = {f"share/man/man{path.suffix[1:]}/{path.name}" for path in
             (TOP / "contrib/man").iterdir()}
    shared = {name.partition(".data/data/")[2] for name in names}
    assert pages | {"share/bash-completion/completions/unshard"} <= shared
    for library in ("unshard", "libfuse", "openssl", "cjson", "xxhash", "glibc"):
        assert f"{folder}/licenses/LICENSE.{library}" in names


@plain_build
def test_a_program_that_is_not_static_is_refused(wheel, tmp_path):
    """Else a wheel would say that it runs where it does not."""
    broken = tmp_path / wheel.name
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(broken, "w") as after:
        for name in before.namelist():
            program = name.endswith("scripts/unshard")
            after.writestr(name, pathlib.Path(UNSHARD).read_bytes() if program
                           else before.read(name))
    done = subprocess.run([TOOLS / "python", PYTHON / "check_wheel.py", broken],
                          stderr=subprocess.PIPE, text=True)
    assert done.returncode != 0 and "needs libfuse3.so.3" in done.stderr, done.stderr


@plain_build
@root
def test_the_program_runs_where_there_is_nothing_else(installed, model, tmp_path):
    """No C library, and an OpenSSL's configuration that asks for what is not there."""
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("SHA256SUMS"))
    shutil.copy(installed / "unshard", tmp_path)
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf=a\n[a]\nproviders=b\nalg_section=c\n[b]\nfips=d\n[d]\nactivate=1\n"
        "[c]\ndefault_properties=fips=yes\n")
    (tmp_path / "proc").mkdir()
    for command in ("ls", "seal", "verify"):
        script = f"mount -t proc none proc && exec chroot . /unshard {command} --json /model"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              env=clean_environment(OPENSSL_CONF="/openssl.cnf"))
        assert done.returncode == 0 and json.loads(done.stdout), (command, done.stderr)


# ---- the command ---------------------------------------------------------------------------------

@plain_build
def test_the_command_is_the_program(installed):
    assert (installed / "unshard").read_bytes()[:4] == b"\x7fELF"
    for command in ([installed / "unshard"], [installed / "python", "-I", "-m", "unshard"]):
        def run(*arguments):
            return subprocess.run([*command, *arguments], env=clean_environment(),
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert run("--version").stdout == f"unshard {unshard_version()}\n"
        assert run("mount").returncode == 2 and "Usage" not in run("mount").stdout
        assert run("status", "/nowhere").returncode == 1


def unshard_version():
    return subprocess.run([UNSHARD, "--version"], stdout=subprocess.PIPE,
                          text=True).stdout.split()[1]


@plain_build
def test_python_becomes_the_command(installed, model, tmp_path):
    """No interpreter stays in between: signals, and the exit status, are the program's."""
    (tmp_path / "mnt").mkdir()
    process = subprocess.Popen([installed / "python", "-I", "-m", "unshard", "mount", "-f", model,
                                tmp_path / "mnt"], env=clean_environment(),
                               stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: os.readlink(f"/proc/{process.pid}/exe") == str(installed / "unshard"))
        wait_for((tmp_path / "mnt" / VIEW).exists, what="mounted")
        ignored = re.search(r"SigIgn:\s*(\S+)",
                            pathlib.Path(f"/proc/{process.pid}/status").read_text())[1]
        assert not int(ignored, 16) & 1 << signal.SIGXFSZ - 1
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        detach(tmp_path / "mnt")


@plain_build
def test_the_command_runs_others(installed, in_place):
    """Namespaces, a mount and all its helpers, out of a static program."""
    done = subprocess.run([installed / "unshard", "run", in_place, "--", "sh", "-c",
                           f"wc -c <{in_place}/{VIEW}; exit 7"], env=clean_environment(),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          timeout=PATIENCE * 3)
    assert done.returncode == 7 and int(done.stdout) > 4 << 20, done.stderr
    assert not (in_place / VIEW).exists()


# ---- mounts --------------------------------------------------------------------------------------

@plain_build
def test_a_mount_for_a_block(use, model, tmp_path):
    found = use("""
        source, log = sys.argv[1:]
        with unshard.mount(source, verify="strict", chunk="1M", buffer=16 << 20, jobs=3, log=log,
                           timeout=17.5) as mount:
            status = mount.wait(60, verified=True)
            path = os.fspath(mount)
            data = (mount / "%s").read_bytes()
            with open(mount / ".unshard/status.json") as file:
                assert unshard.Status.from_json(file.read()).pid == status.pid
        print(json.dumps([
            len(data), status.ok, status.state, status.source, status.mountpoint == path,
            status.verify, status.chunk_bytes, status.buffer_bytes, status.jobs,
            [[one.name, one.view, one.state] for one in status.components],
            os.path.exists(path), status.time.utcoffset().total_seconds(), status.pid]))
        """ % VIEW, model, tmp_path / "a,log\\")
    size = sum(path.stat().st_size for path in (model / "transformer").glob("*.safetensors"))
    assert abs(found[0] - size) < 8192
    assert found[1:9] == [True, "ready", str(model), True, "strict", 1 << 20, 16 << 20, 3]
    assert found[9] == [["transformer", VIEW, "verified"],
                        ["vae", "vae/diffusion_pytorch_model.safetensors", "verified"]]
    assert found[10:12] == [False, 0] and not is_alive(found[12])
    assert "event=unmounted" in (tmp_path / "a,log\\").read_text()


@pytest.fixture
def in_place(model, tmp_path):
    """A copy that may be mounted over."""
    folder = shutil.copytree(model, tmp_path / "in-place")
    yield folder
    detach(folder)


@plain_build
def test_a_mount_in_the_place_of_its_source(use, in_place):
    found = use("""
        source, view = sys.argv[1:]
        before = os.listdir(source + "/transformer")
        with unshard.mount(source, over=True) as mount:
            merged = os.path.exists(os.path.join(source, view)), os.fspath(mount) == source
            assert mount.wait(60).ok
        print(json.dumps([*merged, before == os.listdir(source + "/transformer")]))
        """, in_place, VIEW)
    assert found == [True, True, True]


@pytest.fixture
def fuse_for_all():
    """As udev sets it; a bare container may lack that."""
    before = os.stat("/dev/fuse").st_mode & 0o777
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", before)


@plain_build
@root
def test_a_mount_of_an_ordinary_user(use, model, public, fuse_for_all):
    """By fusermount3, which the program of the wheel starts as any other does."""
    found = use("""
        with unshard.mount(sys.argv[1]) as mount:
            status = mount.wait(60)
            size = len((mount / sys.argv[2]).read_bytes())
        print(json.dumps([os.getuid(), status.ok, size, os.path.exists(mount)]))
        """, model, VIEW, HOME="/", UNSHARD_CACHE_DIR=public / "nowhere",
        become=["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"])
    assert found[0] > 0 and found[1] and found[2] > 4 << 20 and not found[3]


@plain_build
def test_what_is_mapped_outlives_the_block(use, model):
    found = use("""
        import mmap
        with unshard.mount(sys.argv[1]) as mount:
            pid = mount.status().pid
            with open(mount / sys.argv[2], "rb") as file:
                data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        gone = not os.path.exists(mount)
        print(json.dumps([gone, len(bytes(data)), pid]))
        """, model, VIEW)
    assert found[0] and found[1] > 4 << 20
    wait_for(lambda: not is_alive(found[2]), what="the daemon ended with its last reader")


@plain_build
def test_evict_and_warm(use, model):
    found = use("""
        with unshard.mount(sys.argv[1]) as mount:
            mount.wait(60)
            evicted = mount.evict("transformer"), mount.status().components[0].evicted
            warmed = mount.warm(), mount.wait(60).components[0].evicted
            print(json.dumps([*evicted, *warmed, mount.status().bytes_total]))
        """, model)
    evicted, is_evicted, warmed, is_evicted_after, total = found
    assert 4 << 20 < evicted < warmed == total and is_evicted and not is_evicted_after


# ---- failures ------------------------------------------------------------------------------------

@plain_build
def test_a_damaged_shard_is_named(use, damaged):
    """By all who ask: who waits, who reads, who waits for a process that died of SIGBUS."""
    found = use("""
        import pickle, subprocess
        source, view = sys.argv[1:]
        read = "import mmap, sys; f = open(sys.argv[1]); " \\
            "bytes(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ))"

        def told(error):
            error = pickle.loads(pickle.dumps(error))  # as a pool of processes hands it on
            one, = error.failures
            assert one == unshard.Failure(error.component, view, error.shard, error.code,
                                          one.message, error.offset, error.errno, one.time,
                                          one.mismatch)
            return [error.component, error.shard, error.offset, error.code, error.errno,
                    one.mismatch.expected, str(error)]

        results = []
        with unshard.mount(source, chunk="64K") as mount:
            try:
                unshard.wait(mount, timeout=60)
            except unshard.LoadError as error:
                results.append(told(error))
            try:
                (mount / view).read_bytes()
            except OSError as error:
                for path in (mount, mount / view, str(mount / "transformer")):
                    results.append(told(unshard.explain(error, path)))
                other = unshard.explain(error, mount / "vae")
                assert not other.failures and other.code == "unknown" and other.errno == 5
            try:
                subprocess.run([sys.executable, "-c", read, mount / view], check=True)
            except subprocess.CalledProcessError as error:
                results += [told(mount.explain(error)), told(mount.explain(error.returncode))]
            try:
                with unshard.explaining(mount):
                    raise RuntimeError("a loader's own error")
            except unshard.LoadError as error:
                assert isinstance(error.__cause__, RuntimeError)
                results.append(told(error))
        print(json.dumps(results))
        """, damaged, VIEW)
    digest = next(line.split()[0] for line in (damaged / "SHA256SUMS").read_text().splitlines()
                  if line.endswith(SHARD))
    assert len(found) == 7
    for component, shard, offset, code, number, expected, message in found:
        assert (component, shard, code, number) == ("transformer", SHARD, "mismatch", errno.EIO)
        assert expected == digest and os.path.basename(SHARD) in message
        assert offset is None or isinstance(offset, int)
    assert found[1][6].startswith("Input/output error: ") and found[4][6].startswith("SIGBUS: ")


@plain_build
def test_the_offset_of_a_read_error(use, model):
    with slow(model) as storage:
        storage.command(f"fail {SHARD} 300000 1 {errno.EIO}")
        found = use("""
            source, view = sys.argv[1:]
            with unshard.mount(source, prefetch="off", verify="off", chunk="64K") as mount:
                try:
                    (mount / view).read_bytes()
                except OSError as error:
                    found = unshard.explain(error, mount / view)
            print(json.dumps([found.shard, found.offset, found.errno, len(found.failures)]))
            """, storage.path, VIEW)
    assert found[0] == SHARD and found[2:] == [errno.EIO, 1]
    assert 300_000 - 65_536 < found[1] <= 300_000


@plain_build
def test_nothing_is_blamed_where_all_is_well(use, model):
    found = use("""
        with unshard.mount(sys.argv[1]) as mount:
            found = mount.explain(OSError(5, "of something else"))
            try:
                with unshard.explaining(mount):
                    raise KeyError("the loader's own mistake")
            except KeyError as error:
                raised = [str(error), getattr(error, "__notes__", [])]
        print(json.dumps([found.shard, found.code, found.errno, len(found.failures), *raised]))
        """, model)
    assert found == [None, "unknown", errno.EIO, 0, '"the loader\'s own mistake"', []]


@plain_build
def test_a_missing_shard_is_named(use, model, tmp_path):
    """By a note as well, in what a block ends with whose author thought of nothing."""
    source = shutil.copytree(model, tmp_path / "source")
    (source / SHARD).unlink()
    code = """
        with unshard.mount(sys.argv[1]) as mount:
            try:
                open(mount / sys.argv[2]).read(1)
            except OSError as error:
                if sys.argv[3]:
                    raise
                found = mount.explain(error)
        print(json.dumps([found.shard, found.code, found.errno, len(found.failures)]))
        """
    assert use(code, source, VIEW, "") == [SHARD, "missing", errno.ENOENT, 1]
    error = use(code, source, VIEW, "raise", rc=1)
    assert "OSError: [Errno 5]" in error
    note = error.partition("\nunshard: ")[2]
    assert sys.version_info < (3, 11) or os.path.basename(SHARD) in note, error


@plain_build
def test_a_mount_whose_daemon_was_killed(use, model):
    found = use("""
        import signal, subprocess
        mount = unshard.mount(sys.argv[1])
        daemon = mount.status().pid
        monitor = int(subprocess.check_output(["pgrep", "-P", str(daemon), "-x", "unshard-monitor"]))
        os.kill(daemon, signal.SIGSTOP)
        os.kill(monitor, signal.SIGKILL)
        os.kill(daemon, signal.SIGKILL)
        while True:
            try:
                mount.status()
            except unshard.CommandError as error:
                if error.code != "no-answer":
                    break
        explained = mount.explain()
        mount.unmount()
        print(json.dumps([explained.code, len(explained.failures)]))
        """, model)
    assert found[0] in ("daemon-died", "not-mounted") and found[1] == 0


@plain_build
def test_other_errors(use, model, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    found = use("""
        model, folder = sys.argv[1:]
        def caught(function, *arguments, **more):
            try:
                function(*arguments, **more)
            except unshard.UnshardError as error:
                return [type(error).__name__, error.code, error.errno, str(error)]
        print(json.dumps([
            caught(unshard.mount, folder + "/nowhere"),
            caught(unshard.mount, model, jobs=1000),
            caught(unshard.status, folder), caught(unshard.wait, folder),
            caught(unshard.wait, folder + "/mnt", timeout=0.2),
            caught(unshard.export, model, folder + "/full"),
            caught(unshard.unmount, folder),
            caught(unshard.evict, folder), [unshard.explain(None, folder).code],
            caught(unshard.Status.from_json, '{"schema": 2}'),
            caught(unshard.Status.from_json, '{"schema": 1}'),
        ]))
        """, model, tmp_path)
    kinds = [one[0] for one in found]
    assert kinds == ["MountError", "MountError", "NotMountedError", "NotMountedError",
                     "WaitTimeout", "ExportError", "MountError", "CommandError", "not-mounted",
                     "StatusFormatError", "StatusFormatError"]
    assert found[0][2] == errno.ENOENT and "nowhere" in found[0][3]
    assert "jobs=1000" in found[1][3] and found[2][1] == "not-mounted"
    assert found[5][1] == "target-not-empty"


@plain_build
def test_a_program_that_is_not_there(use):
    found = use("""
        try:
            unshard.status("/")
        except unshard.CommandNotFound as error:
            print(json.dumps(error.code))
        """, UNSHARD_BIN="/nowhere/unshard")
    assert found == "no-command"


@plain_build
def test_export(use, model, tmp_path):
    found = use("""
        done = unshard.export(sys.argv[1], sys.argv[2], index="hide", verify="strict", jobs=2)
        print(json.dumps([done.source, done.target, done.bytes_done, done.bytes_total]))
        """, model, tmp_path / "merged")
    assert found[:2] == [str(model), str(tmp_path / "merged")] and found[2] == found[3] > 4 << 20
    assert (tmp_path / "merged" / VIEW).stat().st_size > 4 << 20
    assert not list((tmp_path / "merged").rglob("*.index.json"))


# ---- what must agree with other files ------------------------------------------------------------

def annotation(schema):
    """The annotation that a property of the schema asks for."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        classes = {"component": _status.Component, "shard": _status.Shard, "error": _status.Problem,
                   "time": _status.datetime.datetime}
        return classes[name] if name in classes else annotation(SCHEMA["$defs"][name])
    if "oneOf" in schema:
        inner, = (one for one in schema["oneOf"] if one.get("type") != "null")
        return typing.Optional[annotation(inner)]
    if isinstance(schema.get("type"), list):
        inner, = set(schema["type"]) - {"null"}
        return typing.Optional[annotation({"type": inner})]
    if "enum" in schema:
        return typing.Literal[tuple(schema["enum"])]
    if schema.get("type") == "array":
        return typing.Tuple[annotation(schema["items"]), ...]
    if schema.get("type") == "object":
        return {frozenset(("file", "offset", "seconds")): _status.Stuck,
                frozenset(("directory", "seconds")): _status.StuckLook,
                frozenset(("algorithm", "expected", "actual", "origin")): _status.Mismatch,
                }[frozenset(schema["required"])]
    return {"integer": int, "number": float, "string": str, "boolean": bool,
            None: int}[schema.get("type")]


@pytest.mark.parametrize("kind, schema", [
    (_status.Status, SCHEMA), (_status.Component, SCHEMA["$defs"]["component"]),
    (_status.Shard, SCHEMA["$defs"]["shard"]), (_status.Problem, SCHEMA["$defs"]["error"]),
    (_status.Stuck, SCHEMA["properties"]["stuck"]["items"]),
    (_status.StuckLook, SCHEMA["properties"]["stuck_looks"]["items"]),
    (_status.Mismatch, SCHEMA["$defs"]["shard"]["properties"]["mismatch"]["oneOf"][1]),
], ids=lambda value: getattr(value, "__name__", ""))
def test_dataclasses_are_those_of_the_schema(kind, schema):
    hints = typing.get_type_hints(kind)
    assert set(hints) == set(schema["properties"]) == set(schema["required"])
    for name, value in schema["properties"].items():
        assert hints[name] == annotation(value), name
    assert SCHEMA["properties"]["schema"]["const"] == unshard._status.SCHEMA


def test_unknown_fields_and_words_are_passed_over():
    """As the schema says that readers must."""
    status = {name: None for name in SCHEMA["required"]}
    for name, hint in typing.get_type_hints(_status.Status).items():
        status[name] = {int: 7, float: 7, str: "x", typing.Tuple[str, ...]: []}.get(hint, None)
        if typing.get_origin(hint) is tuple:
            status[name] = []
        elif typing.get_origin(hint) is typing.Literal:
            status[name] = "a new word"
    status.update(schema=1, time="2026-11-27T03:31:20Z", more={"a": 1}, errors=0)
    found = unshard.Status.from_json(json.dumps(status))
    assert found.state == "a new word" and found.uptime_seconds == 7.0 and found.ok
    assert found.time.isoformat() == "2026-11-27T03:31:20+00:00" and found.failures == ()
    older = {name: one for name, one in status.items()
             if name not in ("reading_seconds", "notes", "window_bytes", "restarts",
                             "restart_time", "restart_reason")}
    found = unshard.Status.from_json(json.dumps(older))
    assert (found.reading_seconds, found.notes, found.window_bytes) == (0.0, (), None)
    assert (found.restarts, found.restart_time, found.restart_reason) == (0, None, None)
    for name, wrong in (("pid", "7"), ("time", "today"), ("stuck", [{}]), ("jobs", True),
                        ("restarts", "7"), ("restart_time", 7), ("restart_reason", 7)):
        with pytest.raises(unshard.StatusFormatError, match="Stuck|" + name):
            unshard.Status.from_json(json.dumps({**status, name: wrong}))


@pytest.mark.parametrize("function", [unshard.mount, unshard.export], ids=["mount", "export"])
def test_options_are_those_of_the_command(function):
    """Each of `--help` is a keyword argument, and takes the words that stand there."""
    section = help_of(function.__name__).partition("Under -o")[2].partition("\n\n")[0]
    options = dict(re.findall(r"^  ([a-z_]+)(?:=(\S+))?", section, re.MULTILINE))
    hints = typing.get_type_hints(function)
    keywords = {name for name, one in inspect.signature(function).parameters.items()
                if one.kind is one.KEYWORD_ONLY and name != "progress"}
    assert keywords == set(options)
    for name, words in options.items():
        if not words:
            assert hints[name] is bool
        elif "|" in words and "LIST" not in words:
            literal, = (one for one in typing.get_args(hints[name]) if one is not type(None))
            assert set(typing.get_args(literal)) == set(words.split("|")), name


EXAMPLES = re.findall(r"^```python\n(.*?)^```", (PYTHON / "README.md").read_text(), re.S | re.M)


@plain_build
@pytest.mark.parametrize("code", EXAMPLES, ids=[str(i) for i in range(len(EXAMPLES))])
def test_examples_of_the_documentation(installed, model, temporary, tmp_path, code):
    """With safetensors, which the environment does not have of its own."""
    code = code.replace("/models/flux", str(model)).replace("/data/flux-merged",
                                                            str(tmp_path / "merged"))
    subprocess.run([installed / "python", "-c", code], check=True, stdout=subprocess.DEVNULL,
                   timeout=PATIENCE * 3,
                   env=clean_environment(TMPDIR=str(temporary),
                                         PYTHONPATH=sysconfig.get_path("purelib")))


@plain_build
def test_types_reach_who_uses_it(installed, tmp_path):
    """The examples pass mypy with the installed package; what is wrong does not."""
    right = [code for code in EXAMPLES if "from safetensors" not in code]
    (tmp_path / "right.py").write_text("\n".join(right))
    (tmp_path / "wrong.py").write_text(
        'import unshard\nunshard.mount("/", verify="strickt")\n'
        'unshard.status("/").bytes_total.upper()\n')
    done = subprocess.run([TOOLS / "python", "-m", "mypy", "--strict", "--python-executable",
                           installed / "python", "--cache-dir", TOP / "build/wheel/mypy-users",
                           "--output", "json", "right.py", "wrong.py"], cwd=tmp_path,
                          stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["file"], one["line"], one["code"]) for one in found] == \
        [("wrong.py", 2, "arg-type"), ("wrong.py", 3, "attr-defined")], done.stdout
