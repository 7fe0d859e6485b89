# SPDX-License-Identifier: MIT
"""From an error that a loader got to the shard that caused it.

A loader learns EIO or dies of SIGBUS, and neither says more. The status of the mount does: so who
reads through a mount asks it, in the process that failed or in the one that waited for it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from typing import Iterator, List, Optional, Sequence, Tuple, Union

from ._command import StrPath
from ._errors import LoadError, UnshardError
from ._status import Failure, Status

_MOUNT_TYPE = "fuse.unshard"

Cause = Union[BaseException, int, None]


def mount_points() -> List[str]:
    """Where something of unshard is mounted, in the order of the kernel's table. No mount is
    touched."""
    found = []
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields, _, kind = line.partition(b" - ")
            if os.fsdecode(kind.split(b" ")[0]) == _MOUNT_TYPE:
                name = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8)]),
                              fields.split(b" ")[4])
                found.append(os.fsdecode(name))
    return found


def _mount_of(path: str) -> Optional[str]:
    """The innermost mount that the path lies in."""
    inside = [one for one in mount_points() if os.path.commonpath([one, path]) == one]
    return max(inside, key=len, default=None)


def _locate(path: str) -> Tuple[Optional[str], str]:
    """The mount that a path lies in, and the rest of the path; "" for all of the mount."""
    for absolute in (os.path.abspath(path), os.path.realpath(path)):
        mountpoint = _mount_of(absolute)
        if mountpoint is not None:
            rest = os.path.relpath(absolute, mountpoint)
            return mountpoint, "" if rest == "." else rest
    return None, ""


def _concerns(failure: Failure, path: str) -> bool:
    """Whether a file or directory of the mount needs what has failed."""
    return any(name is not None and (name == path or name.startswith(path + "/"))
               for name in (failure.view, failure.shard))


def _relevant(failures: Sequence[Failure], path: str) -> Sequence[Failure]:
    """Those that concern a path. What is of no component names its file for people only: it is
    taken for the cause when nothing else is."""
    if not path:
        return failures
    return [one for one in failures if _concerns(one, path)] or \
        [one for one in failures if one.component is None]


def _word_of(cause: Cause) -> str:
    """What the loader got, as a prefix of the message."""
    if isinstance(cause, subprocess.CalledProcessError):
        cause = cause.returncode
    if isinstance(cause, int):
        number = cause - 128 if cause > 128 else abs(cause)
        try:
            return signal.Signals(number).name + ": "
        except ValueError:
            return ""
    return f"{cause.strerror}: " if isinstance(cause, OSError) and cause.strerror else ""


def load_error(status: Status, message: str) -> LoadError:
    """With all failures that the status has."""
    return LoadError(message, failures=status.failures,
                     code="degraded" if not status.ok else "unknown")


def explain(error: Cause, path: StrPath) -> LoadError:
    """Which shard made this error: to be raised, `raise unshard.explain(error, path) from error`.

    `path` is what was read: a file of a mount, a directory, or the mount itself, which an
    `unshard.Mount` stands for. `error` is what the loader got: the exception that it raised, of
    whatever type, the `subprocess.CalledProcessError` or the return code of a process that died of
    SIGBUS, or None. Raises nothing itself: when nothing is known to have failed, or the mount has
    died, the LoadError says so in its code and has no failures."""
    from ._operations import status
    if isinstance(error, LoadError):
        return error
    name = os.fspath(path)
    mountpoint, rest = _locate(name)
    number = error.errno if isinstance(error, OSError) else None
    if mountpoint is None:
        return LoadError(f"{name} is in no mount of unshard", code="not-mounted", errno=number)
    if not rest and isinstance(error, OSError) and isinstance(error.filename, (str, bytes)):
        inner, narrower = _locate(os.fsdecode(error.filename))
        rest = narrower if inner == mountpoint else rest
    try:
        found = _relevant(status(mountpoint).failures, rest)
    except UnshardError as failed:
        return LoadError(_word_of(error) + failed.message, code=failed.code,
                         errno=failed.errno)
    if not found:
        return LoadError(f"{_word_of(error)}{name}: nothing is known to have failed there, or not "
                         "any more", errno=number)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return LoadError(f"{_word_of(error)}{mountpoint}: {found[0].message}{more}", failures=found)


@contextlib.contextmanager
def explaining(path: StrPath) -> Iterator[None]:
    """An exception that leaves the block becomes a LoadError with the exception as its cause, when
    the mount of `path` tells of a failure there, or has died. All others pass."""
    try:
        yield
    except Exception as error:
        found = explain(error, path)
        if found is error or found.code in ("unknown", "not-mounted"):
            raise
        raise found from error
