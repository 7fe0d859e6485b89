# SPDX-License-Identifier: MIT
"""`unshard run`: a command sees merged files in the source's place, and nothing else is different for
it; with its last process all is gone."""

import contextlib
import json
import os
import pathlib
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

import checkpoints
import digests
from harness import PATIENCE, SANITIZER, UNSHARD, Sanitizers, processes_of, slow, wait_for

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
# A process with the threads of a sanitizer may not make a user namespace.
single = pytest.mark.skipif("thread" in SANITIZER, reason="the sanitizer's own thread is in the way")
ROUNDS = 4 if SANITIZER else 30


@pytest.fixture(scope="module")
def model():
    """In a folder that everybody can look into, with a program that everybody can run."""
    with tempfile.TemporaryDirectory(prefix="unshard-run-") as folder:
        os.chmod(folder, 0o755)
        source = checkpoints.save_shards(pathlib.Path(folder) / "model", checkpoints.random_tensors(3), 3)
        digests.by_sha256sum(source)
        (source / "sub").mkdir()
        (source / "sub/note.txt").write_text("below\n")
        for path in [source, *source.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield source


@pytest.fixture(scope="module")
def program(model):
    return shutil.copy(UNSHARD, model.parent)


def daemons_of(command):
    """Whatever of ours there is still that was started with these words."""
    return list(processes_of(list(map(str, command))))


def session_of(leader):
    """Processes of a session that run."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] not in "ZX":
                found.append(int(path.name))
    return found


def unshard_is_on(source):
    return any(line.split()[4] == str(source) and " fuse.unshard " in line
               for line in open("/proc/self/mountinfo"))


class Started:
    """`unshard run` in a process group of its own, as a shell has it."""

    def __init__(self, source, *script, options=(), sources=None, prefix=(), program=UNSHARD, **more):
        self.sanitizers = Sanitizers()
        more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        self.own = [str(program), "run", *map(str, options), *map(str, sources or [source]), "--",
                    *map(str, script)]
        self.process = subprocess.Popen([*prefix, *self.own], start_new_session=True,
                                        env={**self.sanitizers.environment(), **more.pop("env", {})},
                                        **more)

    def wait(self, bound=PATIENCE * 2, **more):
        out, err = self.process.communicate(timeout=bound, **more)
        return self.process.returncode, out.decode(), err.decode()

    def gone(self):
        wait_for(lambda: not daemons_of(self.own), what="no process of it is left")

    def discard(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in daemons_of(self.own):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr, self.process.stdin):
            if stream:
                stream.close()


@contextlib.contextmanager
def started(source, *script, **more):
    one = Started(source, *script, **more)
    try:
        yield one
        one.gone()
        assert not unshard_is_on(source)
        one.sanitizers.check()
    finally:
        one.discard()


def run_in(source, *script, input=None, **more):
    """Exit status, standard output and error of a command in the namespace."""
    with started(source, *script, stdin=subprocess.PIPE, **more) as one:
        return one.wait(input=input)


def shell(source, script, **more):
    return run_in(source, "sh", "-c", script, **more)


@pytest.fixture(scope="module")
def merged(model):
    """What the merged file is, as a mount elsewhere shows it."""
    status, out, err = shell(model, f"sha256sum <{model}/model.safetensors")
    assert status == 0, err
    return out


# ---- the same as without -------------------------------------------------------------------------

LOOK = """
    echo $PPID; id; umask; ulimit -a; pwd; env | grep -v SAN_OPTIONS | grep -v ^_= | sort
    grep -E '^(Sig(Blk|Ign|Cgt)|Cap|NoNewPrivs|Seccomp)' /proc/self/status; for fd in /proc/$$/fd/*; do echo ${fd##*/}; done
    cut -d' ' -f 5,6,7 /proc/$$/stat; head -c 4; cat; echo to standard error >&2; exit 42"""


@pytest.mark.parametrize("options", [(), ("--summary",)], ids=["exec", "summary"])
def test_nothing_else_is_different(model, options):
    def limits():
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 4096))
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    held = os.open("/dev/null", os.O_RDONLY)
    command = ["sh", "-c", LOOK]
    more = {"preexec_fn": limits, "pass_fds": [held], "cwd": "/usr", "umask": 0o027}
    plain = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True, env=dict(os.environ), **more)
    out, err = plain.communicate(b"some input\n", timeout=PATIENCE)
    with started(model, *command, options=options, stdin=subprocess.PIPE, **more) as one:
        status, said, complained = one.wait(input=b"some input\n")
    os.close(held)
    expected = out.decode().replace(str(plain.pid), "PID").splitlines()
    found = said.replace(str(one.process.pid), "PID").splitlines()
    if options:  # the parent is the process that waits
        assert found[0] == "PID"
        expected[0] = found[0]
    assert found == expected
    assert status == plain.returncode == 42
    assert complained.startswith(err.decode()) and bool(options) == (complained != err.decode())


@pytest.mark.parametrize("options", [(), ("--summary",)], ids=["exec", "summary"])
@pytest.mark.parametrize("script, expected", [
    ("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", -signal.SIGTERM), ("kill -KILL $$", -signal.SIGKILL),
    ("no-such-program-anywhere", 127),
], ids=["0", "3", "TERM", "KILL", "127"])
def test_exit_status(model, options, script, expected):
    assert shell(model, script, options=options)[0] == expected


def test_what_cannot_be_run(model):
    assert run_in(model, "no-such-program")[0] == 127
    assert run_in(model, model / "sub/note.txt")[0] == 126
    status, _, err = run_in(model / "absent", "true")
    assert status == 125 and "absent: No such file" in err


def test_the_source_is_as_it_was(model, merged):
    assert sorted(path.name for path in model.iterdir() if "safetensors" in path.name) == [
        *(f"model-{i:05}-of-00003.safetensors" for i in (1, 2, 3)), "model.safetensors.index.json"]


# ---- real programs -------------------------------------------------------------------------------

def test_a_shell_pipeline(model, merged):
    script = f"ls {model} | grep -c 'safetensors$'; cat {model}/model.safetensors | sha256sum"
    assert shell(model, script)[1] == "1\n" + merged


def test_tar_of_shards_as_they_are(model, tmp_path):
    command = ["tar", "cf", tmp_path / "model.tar", "-C", model, "."]
    assert run_in(model, *command, options=["-o", "layout=shards"])[0] == 0
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "xf", tmp_path / "model.tar", "-C", tmp_path / "out"], check=True)
    subprocess.run(["diff", "-r", model, tmp_path / "out"], check=True)


LOAD = """
import hashlib, pathlib, sys
from safetensors import safe_open
files = sorted(pathlib.Path(sys.argv[1]).glob("*.safetensors"))
tensors = {}
for file in files:
    with safe_open(file, "np") as opened:
        tensors.update({name: opened.get_tensor(name) for name in opened.keys()})
total = hashlib.sha256()
for name in sorted(tensors):
    total.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].tobytes())
print(total.hexdigest(), file=sys.stderr)
print(len(files))
"""


def test_safetensors_loads_the_same(tmp_path):
    tensors = {name: tensor for name, tensor in checkpoints.random_tensors(5).items()
               if "bfloat" not in str(tensor.dtype) and "float8" not in str(tensor.dtype)}
    source = checkpoints.save_shards(tmp_path / "m", tensors, 3)
    command = [sys.executable, "-c", LOAD, source]
    plain = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
    status, files, tensors = run_in(source, *command)
    assert (status, files, tensors) == (0, "1\n", plain.stderr) and plain.stdout == "3\n"


def test_a_daemon_outlives_the_command(model, merged, tmp_path):
    """One that the command has started goes on seeing the mount, and ends it."""
    wait = f"while ! [ -e {tmp_path}/go ]; do sleep 0.02; done; sha256sum <{model}/model.safetensors"
    with started(model, "sh", "-c", f"setsid sh -c '{wait}' >{tmp_path}/out 2>&1 </dev/null & echo left") as one:
        assert one.wait()[:2] == (0, "left\n")
        assert daemons_of(one.own)
        (tmp_path / "go").touch()
        one.gone()
    assert (tmp_path / "out").read_text() == merged


def test_where_it_is_started_from(model):
    """Relative names are those of the mount, in the directory itself and below."""
    assert "model.safetensors\n" in run_in(".", "ls", cwd=model)[1]
    assert run_in(model, "sh", "-c", "pwd; cat note.txt; ls ..", cwd=model / "sub")[1].startswith(
        f"{model}/sub\nbelow\nSHA256SUMS\nmodel.safetensors\n")


def test_several_sources_and_other_places(model, merged, tmp_path):
    other = checkpoints.save_shards(tmp_path / "other", checkpoints.random_tensors(4), 2)
    place = tmp_path / "place"
    place.mkdir()
    script = f"sha256sum <{place}/model.safetensors; ls {other} {model}"
    status, said, err = shell(model, script, sources=[model, "--at", place, other])
    assert status == 0, err
    assert said.startswith(merged) and "model.safetensors\n" in said and "model-00003" in said
    assert not list(place.iterdir())


@pytest.mark.parametrize("words, said", [
    (["{model}"], "what is to be run"),
    (["--", "true"], "an argument is missing"),
    (["{model}", "{model}/sub", "--", "true"], "one would hide the other"),
    (["{model}", "{model}", "--", "true"], "one would hide the other"),
    (["{model}/sub/note.txt", "--", "true"], "not a directory"),
    (["/", "--", "true"], "root directory cannot be covered"),
    (["--at", "/mnt", "{model}", "--", "true"], "stands behind the SOURCE"),
    (["-o", "status_file=/tmp/x", "{model}", "/usr", "--", "true"], "is of one SOURCE"),
    (["--json", "{model}", "--", "true"], "say --summary"),
    (["-o", "status_file={model}/x", "{model}", "--", "true"], "a file in the source"),
])
def test_wrong_usage(model, words, said):
    done = subprocess.run([UNSHARD, "run", *(word.format(model=model) for word in words)],
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 125 and said in done.stderr, done.stderr


def test_one_in_the_other(model, merged, tmp_path):
    other = checkpoints.save_shards(tmp_path / "other", checkpoints.random_tensors(4), 2)
    inner = f"sha256sum <{model}/model.safetensors; {UNSHARD} run {model} -- true; echo $?"
    status, said, err = run_in(model, UNSHARD, "run", other, "--", "sh", "-c", inner)
    assert (status, said) == (0, merged + "125\n") and "mounted by unshard already" in err


def test_a_shard_that_is_bad(tmp_path):
    source = checkpoints.save_shards(tmp_path / "m", checkpoints.random_tensors(3), 3)
    digests.by_sha256sum(source)
    with open(source / "model-00002-of-00003.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    status, _, err = shell(source, f"cat {source}/model.safetensors >/dev/null", options=["--summary"])
    assert status == 1 and "Input/output error" in err and "model-00002" in err and "mismatch" in err


# ---- signals -------------------------------------------------------------------------------------

# A signal to a whole group comes twice when unshard passes it on: the first is the one that counts.
TRAPS = ("trap 'echo got TERM; exit 5' TERM; trap 'trap \"\" INT; echo got INT; exit 6' INT; "
         "echo ready; while :; do sleep 0.02; done")


@pytest.mark.parametrize("options", [(), ("--summary",)], ids=["exec", "summary"])
def test_signals(model, options):
    for send, number, expected, status in [
            (os.kill, signal.SIGTERM, "got TERM\n", 5), (os.killpg, signal.SIGINT, "got INT\n", 6)]:
        with started(model, "sh", "-c", TRAPS, options=options) as one:
            assert one.process.stdout.readline() == b"ready\n"
            send(one.process.pid, number)
            assert one.wait()[:2] == (status, expected)
    for send, number in [(os.kill, signal.SIGHUP), (os.killpg, signal.SIGINT), (os.kill, signal.SIGKILL)]:
        with started(model, "sh", "-c", "echo ready; exec sleep 1000", options=options) as one:
            assert one.process.stdout.readline() == b"ready\n"
            send(one.process.pid, number)
            assert one.wait()[0] == -number


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_stopped_and_continued_with_the_command(model):
    with started(model, "sh", "-c", "echo ready; kill -STOP $$; echo on", options=["--summary"]) as one:
        assert one.process.stdout.readline() == b"ready\n"
        wait_for(lambda: state_of(one.process.pid) == "T", what="stopped as its command is")
        os.kill(one.process.pid, signal.SIGCONT)
        assert one.wait()[:2] == (0, "on\n")


def test_only_the_command_ends_it(model, merged):
    """A daemon that is told to end goes on: the command may be on its way out, and reads still."""
    script = f"echo ready; read line; sha256sum <{model}/model.safetensors"
    with started(model, "sh", "-c", script, stdin=subprocess.PIPE) as one:
        assert one.process.stdout.readline() == b"ready\n"
        found = [pid for pid in daemons_of(one.own) if pid != one.process.pid]
        assert found
        for pid in found:
            os.kill(pid, signal.SIGTERM)
        assert one.wait(input=b"go on\n")[:2] == (0, merged)


@pytest.mark.parametrize("options", [(), ("--summary", "--progress")], ids=["exec", "summary"])
def test_killed_at_any_moment(model, options):
    moments = random.Random(7)
    for _ in range(ROUNDS):
        delay = moments.uniform(0, 0.4 if SANITIZER else 0.04)
        script = f"cat {model}/model.safetensors >/dev/null; exec sleep 1000"
        with started(model, "sh", "-c", script, options=options) as one:
            time.sleep(delay)  # the moment is what is tried
            one.process.kill()
            one.process.wait()
            wait_for(lambda: not session_of(one.process.pid), what="the command has ended with it")


def test_killed_while_storage_hangs(model):
    with slow(model) as storage:
        storage.command("stall *.safetensors")
        with started(storage.path, "cat", f"{storage.path}/sub/note.txt") as one:
            wait_for(lambda: storage.stats()["stalled"] > 0, what="a stalled read")
            one.process.kill()
            one.process.wait()
            storage.command("release", "reset")


def test_the_daemon_is_killed(model):
    """Its command notices nothing."""
    script = f"echo ready; read line; cat {model}/model.safetensors >/dev/null || echo failed"
    with started(model, "sh", "-c", script, stdin=subprocess.PIPE, options=["-o", "prefetch=off"]) as one:
        assert one.process.stdout.readline() == b"ready\n"
        for pid in daemons_of(one.own):
            if pathlib.Path(f"/proc/{pid}/comm").read_text() == "unshard\n":
                os.kill(pid, signal.SIGKILL)
        status, said, err = one.wait(input=b"go on\n")
        assert status == 0 and said == "", err


# ---- other users ---------------------------------------------------------------------------------

@pytest.fixture
def fuse_for_all():
    before = os.stat("/dev/fuse").st_mode & 0o777
    os.chmod("/dev/fuse", 0o666)  # as udev sets it; a bare container may lack that
    yield
    os.chmod("/dev/fuse", before)


def user(groups="nogroup"):
    keep = ["--clear-groups"] if groups == "nogroup" else [f"--groups={groups}"]
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", *keep,
            "env", "-u", "UNSHARD_CACHE_DIR", "HOME=/nonexistent", "PATH=/usr/sbin:/sbin:/bin:/usr/bin"]


@root
@single
def test_as_an_ordinary_user(model, merged, program, fuse_for_all):
    """Without fusermount3, with the rights of before and no others."""
    script = f"id -un; id -gn; grep -c CapEff:.0000000000000000 /proc/self/status; sha256sum <{model}/model.safetensors; " \
             f"! touch {model}/x 2>/dev/null; cat /etc/shadow 2>/dev/null; exit 4"
    hidden = ["unshare", "--mount", "sh", "-c", "mount --bind /dev/null /usr/bin/fusermount3; exec \"$@\"", "sh"]
    status, said, err = shell(model, script, prefix=[*hidden, *user()], program=program)
    assert (status, said) == (4, f"nobody\nnogroup\n1\n{merged}"), err


@root
@single
def test_groups_of_an_ordinary_user(model, program, fuse_for_all, tmp_path_factory):
    source = pathlib.Path(shutil.copytree(model, model.parent / "grouped"))
    try:
        for path in source.glob("*.safetensors"):
            os.chown(path, 0, 4321)
            path.chmod(0o640)
        read = f"cat {source}/model.safetensors | wc -c"
        _, said, err = shell(source, read, prefix=user("4321"), program=program)
        assert int(said) > 1000 and not err
        assert shell(source, f"cat {source}/model.safetensors", prefix=user(), program=program)[0] == 1
    finally:
        shutil.rmtree(source)


@root
@single
def test_root_of_a_container(model, merged, program):
    """Without CAP_SYS_ADMIN: all users keep their numbers, and no capability is gained."""
    script = f"setpriv --reuid=nobody --regid=nogroup --clear-groups sha256sum {model}/model.safetensors | " \
             "sed 's/ .*/  -/'; chown 77:88 /tmp/$0 && stat -c %u:%g /tmp/$0; grep CapEff /proc/self/status"
    prefix = ["setpriv", "--bounding-set=-sys_admin,-sys_ptrace"]
    caps = subprocess.run([*prefix, "grep", "CapEff", "/proc/self/status"], stdout=subprocess.PIPE,
                          text=True, check=True).stdout
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        status, said, err = run_in(model, "sh", "-c", script, os.path.basename(file.name), prefix=prefix,
                                   program=program,
                                   preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert (status, said) == (0, f"{merged}77:88\n{caps}"), err


FORBID = """
import ctypes, os, struct, sys
# A filter as containers have: unshare(2) is refused.
number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, ctypes.byref(Program(len(code), ctypes.addressof(program))), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
LIMIT = "echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin \"$@\""


@root
@single
@pytest.mark.parametrize("prefix, said", [
    ([sys.executable, "-c", FORBID], "a seccomp filter forbids it"),
    (["unshare", "--user", "--map-root-user", "sh", "-c", LIMIT, "sh"], "user.max_user_namespaces is 0"),
    (["unshare", "--mount", "sh", "-c", "mount --bind /dev/null /dev/fuse && mount -o remount,bind,nodev "
      "/dev/fuse && exec \"$@\"", "sh"], "/dev/fuse: Permission denied"),
    (["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /dev; exec \"$@\"", "sh"],
     "/dev/fuse: No such file or directory"),
], ids=["seccomp", "limit", "device", "no device"])
def test_what_forbids_it_is_named(model, program, prefix, said):
    status, out, err = run_in(model, "echo", "ran", prefix=prefix, program=program)
    assert status == 125 and not out and said in err, err


# ---- what it says --------------------------------------------------------------------------------

def test_summary(model):
    status, _, err = shell(model, f"cat {model}/model.safetensors >/dev/null", options=["--summary"])
    assert status == 0
    assert re.fullmatch(rf"unshard: {model}: \S+ \S+ of \S+ \S+ read in [0-9.]+ s, .*B/s; "
                        r"3 of 3 shards verified \(sha256\)(; slowest \S+, .*)?\n", err), err


def test_summary_as_json(model):
    with slow(model, latency=20) as storage:
        status, _, err = shell(storage.path, f"cat {storage.path}/model.safetensors >/dev/null",
                               options=["--summary", "--json"])
    assert status == 0
    (mount,) = json.loads(err)["mounts"]
    total = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    assert mount["mountpoint"] == mount["source"] == str(storage.path)
    assert (mount["shards"], mount["verified"], mount["failed"], mount["errors"]) == (3, 3, 0, 0)
    assert mount["digests"] == "sha256" and mount["bytes_total"] == total <= mount["bytes_read"]
    assert mount["slowest"]["file"].startswith("model-0000")
    assert mount["slowest"]["reading_seconds"] >= 0.02 <= mount["reading_seconds"]


def test_progress_on_a_terminal(model):
    master, slave = pty.openpty()
    with slow(model, latency=300) as storage:
        with started(storage.path, "sh", "-c", f"cat {storage.path}/*.safetensors >/dev/null; sleep 0.3; echo out",
                     options=["--progress"], stderr=slave, env={"TERM": "xterm", "NO_COLOR": ""}) as one:
            os.close(slave)
            assert one.process.communicate(timeout=PATIENCE)[0] == b"out\n"
            one.gone()
        seen = os.read(master, 65536)
    os.close(master)
    assert b"% " in seen and seen.endswith(b"\r\x1b[K"), seen

