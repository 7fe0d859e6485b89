# SPDX-License-Identifier: MIT
"""What reaches a terminal: pictures only where it takes them, and nothing that a stranger's mount made up."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess

import pytest

import checkpoints
from harness import UNSHARD, mounted, run, slow, wait_for

HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u009b\x7f"
# What a terminal acts on: C0 but for the end of a line and tabs, DEL, and C1 in UTF-8.
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    source = tmp_path_factory.mktemp("terminal")
    checkpoints.save_shards(source, checkpoints.random_tensors(1), 2)
    return source


def on_a_terminal(arguments, environment, enough):
    """What a command writes to a terminal until `enough` of it has come, and when it is interrupted then."""
    master, slave = pty.openpty()
    process = subprocess.Popen([UNSHARD, *arguments], stdin=slave, stdout=slave, stderr=slave,
                               env=dict(os.environ, **environment))
    os.close(slave)
    seen = bytearray()

    def look():
        seen.extend(os.read(master, 65536))
        return enough(seen)

    try:
        wait_for(look, what="output on the terminal")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        with contextlib.suppress(OSError):  # EIO: nobody writes to it any more
            while more := os.read(master, 65536):
                seen.extend(more)
        os.close(master)
    return bytes(seen)


@pytest.mark.parametrize("environment, pictures", [
    ({"TERM": "xterm", "NO_COLOR": ""}, True),
    ({"TERM": "dumb", "NO_COLOR": ""}, False),
    ({"TERM": "", "NO_COLOR": ""}, False),
    ({"TERM": "xterm", "NO_COLOR": "1"}, False),
], ids=["xterm", "dumb", "unknown", "NO_COLOR"])
def test_pictures_where_the_terminal_takes_them(model, environment, pictures):
    with mounted(model) as mount:
        mount.wait_warm()
        seen = on_a_terminal(["status", "--watch", "--interval", "0.1", str(mount.path)],
                             environment, lambda text: text.count(b"ready") >= 2)
    assert (b"\x1b" in seen) == pictures, seen
    assert (b"\x1b[32mready\x1b[0m" in seen) == pictures
    # The cursor comes back.
    assert not pictures or b"\x1b[?25l" in seen and seen.endswith(b"\x1b[?25h"), seen


def hostile_status(folder):
    """A directory whose status a stranger has made up."""
    (folder / ".unshard").mkdir()
    shard = {"file": HOSTILE, "state": HOSTILE, "bytes_read": 1, "bytes_total": 2,
             "error": {"code": HOSTILE, "message": HOSTILE, "time": HOSTILE}}
    component = {"name": HOSTILE, "state": "failed" + HOSTILE, "view": HOSTILE, "shards": [shard],
                 "error": {"code": HOSTILE, "message": HOSTILE}, "notes": [HOSTILE]}
    status = {"schema": 1, "state": HOSTILE, "source": HOSTILE, "time": HOSTILE, "pid": 1,
              "paused_reason": HOSTILE, "components": [component], "notes": [HOSTILE], "problems": []}
    text = json.dumps(status, ensure_ascii=False).encode().replace(b"owned", b"\x9bowned")
    (folder / ".unshard/status.json").write_bytes(text + b"\n")


def said_by(*arguments):
    done = subprocess.run([UNSHARD, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    return done.stdout


def test_nothing_of_a_strangers_mount_is_printed_as_it_is(tmp_path):
    hostile_status(tmp_path)
    with slow(tmp_path, subtype="unshard") as storage:
        for command in (["list"], ["list", "--json"], ["status", storage.path],
                        ["status", "--json", storage.path], ["wait", "--timeout", "0.5", storage.path],
                        ["wait", "--json", "--timeout", "0.5", storage.path],
                        ["warm", storage.path], ["evict", storage.path], ["umount", storage.path]):
            said = said_by(*command)
            assert not CONTROL.search(said), (command, said)
            said.decode()


def test_json_of_a_mount_means_the_same(tmp_path):
    hostile_status(tmp_path)
    with slow(tmp_path) as storage:
        done = run("status", "--json", storage.path)
    assert json.loads(done.stdout)["source"] == HOSTILE.replace("owned", "\ufffdowned")
