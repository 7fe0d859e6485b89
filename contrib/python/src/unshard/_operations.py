# SPDX-License-Identifier: MIT
"""What can be asked of a mount."""

from __future__ import annotations

import os
from typing import Optional

from . import _command
from ._command import StrPath
from ._errors import NotMountedError, WaitTimeout
from ._explain import load_error
from ._status import Status

# Exit statuses of the commands.
_UNWELL = 3
_TIMED_OUT = 2


def status(path: StrPath) -> Status:
    """The status of the mount at `path`, or of a copy of it that status_file= keeps there.

    Does not hang where the mount does: it gives up after five seconds. Raises NotMountedError, or
    CommandError with code "daemon-died", "no-answer", "no-permission" or "unreadable"."""
    done = _command.run("status", "--json", "--", os.fspath(path))
    if done.returncode in (0, _UNWELL):
        return Status.from_json(done.stdout)
    error = _command.failure(done)
    if error.code == "not-mounted":
        raise _command.failure(done, NotMountedError)
    raise error


def wait(path: StrPath, timeout: Optional[float] = None, verified: bool = False) -> Status:
    """Waits until the mount at `path` is warm, and `verified` as well if that is asked for; then
    returns its status.

    `timeout` is in seconds; until then the mount is also waited for to appear. Raises WaitTimeout
    then, LoadError when a shard has failed, or what was asked for can not come, and what `status`
    raises when there is no mount."""
    arguments = ["wait", "--json"]
    if timeout is not None:
        arguments += ["--timeout", f"{max(timeout, 0.001):f}"]
    if verified:
        arguments += ["--verified"]
    done = _command.run(*arguments, "--", os.fspath(path))
    if done.returncode == 0:
        return status(path)
    answer = _command.answer(done)
    if done.returncode == _TIMED_OUT:
        raise WaitTimeout(answer.get("message", "the time is over"),
                          bytes_published=answer.get("bytes_published", 0),
                          bytes_total=answer.get("bytes_total", 0))
    if answer.get("result") != "failed":
        raise _command.failure(done)
    raise load_error(status(path), answer["message"])


def evict(path: StrPath, component: Optional[str] = None) -> int:
    """Gives the page cache of a component back, or of all; the bytes that had been in it. It is not
    prefetched again until `warm`."""
    return _order("evict", path, component)


def warm(path: StrPath, component: Optional[str] = None) -> int:
    """Prefetches a component again, or all; how many bytes that are. Returns at once."""
    return _order("warm", path, component)


def _order(command: str, path: StrPath, component: Optional[str]) -> int:
    operands = [os.fspath(path)] + ([component] if component is not None else [])
    done = _command.run(command, "--json", "--", *operands)
    if done.returncode != 0:
        raise _command.failure(done)
    found = _command.answer(done)
    return int(found["bytes" if command == "evict" else "bytes_total"])
