# SPDX-License-Identifier: MIT
"""Mounts."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from types import TracebackType
from typing import Any, Mapping, Optional, Sequence, Type, Union

from . import _command, _operations
from ._command import StrPath
from ._errors import LoadError, MountError, UnshardError
from ._explain import Cause, explain, mount_points
from ._options import IndexWord, LayoutWord, OrderWord, PickleWord, Size, arguments_of
from ._status import PrefetchWord, Status, VerifyWord


def unmount(path: StrPath, *, lazy: bool = False) -> None:
    """Unmounts and waits for the daemon to end. With `lazy` a mount that is in use is detached:
    what has a file of it open, or in memory, goes on reading, and the daemon ends with the last of
    them. Raises MountError."""
    done = _command.run("umount", *(["--lazy"] if lazy else []), "--", os.fspath(path))
    if done.returncode != 0:
        raise _command.failure(done, MountError)


class Mount:
    """A mount that `unshard.mount` has made. It stands for its path wherever a path is taken.

    As a context manager it is unmounted at the end of the block; what is still open of it then, as
    the tensors of a loader that maps files into memory are, stays readable. Otherwise it stays until
    `unmount`, also when the process ends."""

    def __init__(self, source: str, path: pathlib.Path, own: bool):
        self.source = source
        self.path = path
        self._own = own  # the directory was made for it

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<unshard.Mount of {self.source!r} on {str(self.path)!r}>"

    def __truediv__(self, name: StrPath) -> pathlib.Path:
        return self.path / name

    def __enter__(self) -> Mount:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if isinstance(error, Exception) and not isinstance(error, LoadError):
            for failure in self.explain(error).failures:
                _add_note(error, failure.message)
        try:
            self.unmount()
        except UnshardError as failed:
            if error is None:
                raise
            _add_note(error, failed.message)  # what went wrong first is what is to be told

    def status(self) -> Status:
        """As `unshard.status`."""
        return _operations.status(self.path)

    def wait(self, timeout: Optional[float] = None, verified: bool = False) -> Status:
        """As `unshard.wait`."""
        return _operations.wait(self.path, timeout, verified)

    def evict(self, component: Optional[str] = None) -> int:
        """As `unshard.evict`."""
        return _operations.evict(self.path, component)

    def warm(self, component: Optional[str] = None) -> int:
        """As `unshard.warm`."""
        return _operations.warm(self.path, component)

    def explain(self, error: Cause = None) -> LoadError:
        """As `unshard.explain`, of all that is in the mount."""
        return explain(error, self.path)

    def unmount(self) -> None:
        """Unmounts, lazily where it is in use. Does nothing when it is not mounted any more."""
        if self._is_mounted():
            try:
                unmount(self.path)
            except MountError:
                if self._is_mounted():
                    unmount(self.path, lazy=True)
        if self._own:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _is_mounted(self) -> bool:
        return str(self.path) in mount_points()


def _add_note(error: BaseException, message: str) -> None:
    """Python 3.11 and later show it below the exception."""
    if hasattr(error, "add_note"):
        error.add_note("unshard: " + message)


def _start(source: str, path: pathlib.Path, options: Mapping[str, Any]) -> None:
    done = _command.run("mount", "--json", *arguments_of(options), "--", source, str(path))
    if done.returncode != 0:
        raise _command.failure(done, MountError)


def mount(source: StrPath, mountpoint: Optional[StrPath] = None, *,
          index: Optional[IndexWord] = None, order: Optional[OrderWord] = None,
          layout: Optional[LayoutWord] = None, pickle: Optional[PickleWord] = None,
          split: Union[None, str, Sequence[str]] = None, follow_symlinks: bool = False,
          prefetch: Optional[PrefetchWord] = None, verify: Optional[VerifyWord] = None,
          timeout: Optional[float] = None, jobs: Optional[int] = None,
          chunk: Optional[Size] = None, buffer: Optional[Size] = None,
          window: Optional[Size] = None, budget: Optional[Size] = None,
          status_file: Optional[StrPath] = None, metrics_file: Optional[StrPath] = None,
          log: Optional[StrPath] = None, fsname: Optional[str] = None, over: bool = False,
          allow_other: bool = False, allow_root: bool = False) -> Mount:
    """Mounts the checkpoint `source` and returns as soon as that works, which is before all of it
    has been read.

    `mountpoint` is a directory; without it a temporary one is made, and removed in the end, or, with
    `over`, it is `source` itself. The options are those of unshard-mount(1); sizes are bytes, or a
    text such as "512M". Raises MountError with the code and errno of what stands in the way."""
    options = {
        "index": index, "order": order, "layout": layout, "pickle": pickle, "split": split,
        "follow_symlinks": follow_symlinks, "prefetch": prefetch, "verify": verify,
        "timeout": timeout, "jobs": jobs, "chunk": chunk, "buffer": buffer, "window": window,
        "budget": budget, "status_file": status_file, "metrics_file": metrics_file, "log": log,
        "fsname": fsname, "over": over, "allow_other": allow_other, "allow_root": allow_root,
    }
    if over and mountpoint is None:
        mountpoint = source
    own = mountpoint is None
    # As the kernel's table will have it; later it might not be looked at without a wait.
    path = pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix="unshard-")
                                         if mountpoint is None else mountpoint))
    try:
        if own and allow_other:
            path.chmod(0o755)
        _start(os.fspath(source), path, options)
    except BaseException:
        if own:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
    return Mount(os.fspath(source), path, own)
