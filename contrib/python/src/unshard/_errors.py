# SPDX-License-Identifier: MIT
"""What the module raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence, Tuple, Type

if TYPE_CHECKING:
    from ._status import Failure


def _rebuild(kind: Type[UnshardError], arguments: Tuple[Any, ...],
             attributes: Dict[str, Any]) -> UnshardError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class UnshardError(Exception):
    """Base of all. `code` is a word for programs, `offset` one in a file, `errno` the system's
    number; None where there is none."""

    def __init__(self, message: str, *, code: str = "error", offset: Optional[int] = None,
                 errno: Optional[int] = None):
        super().__init__(message)
        self.message = message
        self.code = code
        self.offset = offset
        self.errno = errno

    def __reduce__(self) -> Tuple[Any, ...]:
        """A process of a pool hands it on as it is."""
        return _rebuild, (type(self), self.args, self.__dict__)


class CommandNotFound(UnshardError):
    """The program `unshard` is not there."""


class StatusFormatError(UnshardError):
    """The status is of a schema that this module does not know."""


class CommandError(UnshardError):
    """A command did not do what it was asked for. `command` are its words, `exit_status` is what it
    ended with; the message is its own."""

    def __init__(self, message: str, *, command: Sequence[str], exit_status: int,
                 code: str = "error", offset: Optional[int] = None, errno: Optional[int] = None):
        super().__init__(message, code=code, offset=offset, errno=errno)
        self.command = tuple(command)
        self.exit_status = exit_status


class MountError(CommandError):
    """A mount did not come up, or did not go away."""


class NotMountedError(CommandError):
    """There is no mount of unshard at that path."""


class ExportError(CommandError):
    """An export ended early; given again, it goes on."""


class WaitTimeout(UnshardError, TimeoutError):
    """What was waited for has not come in time. `bytes_published` of `bytes_total` have."""

    def __init__(self, message: str, *, bytes_published: int, bytes_total: int):
        UnshardError.__init__(self, message, code="timeout")
        self.bytes_published = bytes_published
        self.bytes_total = bytes_total


class LoadError(UnshardError):
    """A load failed: what the status of the mount says of it.

    `failures` are all that concern what was read, the first of them is told by `shard` (its path
    in the source), `component`, `offset`, `code` and `errno`. It is empty when nothing is known
    to have failed, and `code` then tells of the mount: "daemon-died", "not-mounted", or "unknown"
    when all of it is well.
    """

    def __init__(self, message: str, *, failures: Sequence[Failure] = (), code: str = "unknown",
                 errno: Optional[int] = None):
        first = failures[0] if failures else None
        super().__init__(message, code=first.code if first else code,
                         offset=first.offset if first else None,
                         errno=first.errno if first else errno)
        self.failures = tuple(failures)
        self.component: Optional[str] = first.component if first else None
        self.shard: Optional[str] = first.shard if first else None


# As tracebacks are to name them.
for _kind in (UnshardError, CommandNotFound, StatusFormatError, CommandError, MountError,
              NotMountedError, ExportError, WaitTimeout, LoadError):
    _kind.__module__ = "unshard"
