# SPDX-License-Identifier: MIT
"""The status of a mount, schema 1: unshard-status(7) and contrib/schema/status-1.json explain it."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import typing
from dataclasses import dataclass
from typing import Any, Iterator, Literal, Mapping, Optional, Tuple, Type, TypeVar, Union

from ._errors import StatusFormatError

SCHEMA = 1

MountState = Literal["prefetching", "ready", "paused", "degraded", "failed", "stopping"]
DataState = Literal["pending", "reading", "verified", "unverified", "failed"]
PrefetchWord = Literal["all", "follow", "off", "open"]
RestartReason = Literal["killed", "crashed", "failed", "upgraded"]
VerifyWord = Literal["strict", "async", "off"]


@dataclass(frozen=True)
class Problem:
    """Why something failed. `offset` is one in the file that the message names."""
    code: str
    message: str
    offset: Optional[int]
    errno: Optional[int]
    time: Optional[datetime.datetime]


@dataclass(frozen=True)
class Mismatch:
    """A digest that was not met, in hexadecimal digits."""
    algorithm: Optional[str]
    expected: Optional[str]
    actual: Optional[str]
    origin: Optional[str]


@dataclass(frozen=True)
class Shard:
    """One source file of a component; `file` is its path in the source."""
    file: str
    state: DataState
    bytes_total: int
    bytes_read: int
    bytes_published: int
    reading_seconds: float
    algorithm: Optional[str]
    origin: Optional[str]
    error: Optional[Problem]
    mismatch: Optional[Mismatch]


@dataclass(frozen=True)
class Component:
    """What a loader loads as one; `view` is the path of its file in the mount."""
    name: str
    view: Optional[str]
    format: str
    prefix: Optional[str]
    state: DataState
    bytes_total: int
    bytes_published: int
    evicted: bool
    error: Optional[Problem]
    notes: Tuple[str, ...]
    shards: Tuple[Shard, ...]


@dataclass(frozen=True)
class Stuck:
    """A request to storage that has been under way for unusually long."""
    file: str
    offset: int
    seconds: float


@dataclass(frozen=True)
class StuckLook:
    """A look at a directory of the source, by its path in there, that has been under way for
    unusually long; "." is the source itself."""
    directory: str
    seconds: float


@dataclass(frozen=True)
class Failure:
    """One thing that has failed, with where it belongs. `shard` is the file's path in the source,
    `component` and `view` are those of the status; None where it is of none."""
    component: Optional[str]
    view: Optional[str]
    shard: Optional[str]
    code: str
    message: str
    offset: Optional[int]
    errno: Optional[int]
    time: Optional[datetime.datetime]
    mismatch: Optional[Mismatch]


@dataclass(frozen=True)
class Status:
    """A snapshot of a mount. The fields are those of the JSON, under the same names."""
    schema: int
    version: str
    pid: int
    source: str
    mountpoint: Optional[str]
    connection: Optional[int]
    restarts: int
    restart_time: Optional[datetime.datetime]
    restart_reason: Optional[RestartReason]
    state: MountState
    time: datetime.datetime
    uptime_seconds: float
    bytes_total: int
    bytes_published: int
    bytes_read: int
    bytes_stored: int
    rate_bytes_per_second: float
    reading_seconds: float
    workers: int
    jobs: int
    in_flight: int
    stalled: int
    oldest_request_seconds: float
    chunk_bytes: int
    buffer_bytes: int
    buffer_used_bytes: int
    window_bytes: Optional[int]
    unconsumed_bytes: int
    readers: int
    reads: int
    chunks_evicted: int
    store_errors: int
    read_ahead_bytes: Optional[int]
    bytes_dropped: int
    bytes_staged: int
    stuck: Tuple[Stuck, ...]
    looks_stalled: int
    oldest_look_seconds: float
    stuck_looks: Tuple[StuckLook, ...]
    prefetch: PrefetchWord
    verify: VerifyWord
    paused_reason: Optional[str]
    errors: int
    components: Tuple[Component, ...]
    problems: Tuple[Problem, ...]
    notes: Tuple[str, ...]

    @classmethod
    def from_json(cls, text: Union[str, bytes]) -> Status:
        """Of the text of .unshard/status.json, or of a copy that status_file= keeps. Fields that
        this module does not know are passed over; a number, a list or an optional field that the
        program of the mount did not know yet is 0, empty or None. Raises StatusFormatError."""
        try:
            value = json.loads(text)
        except ValueError as error:
            raise StatusFormatError(f"no JSON: {error}", code="status-format") from None
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise StatusFormatError(f"no status of schema {SCHEMA}; a newer unshard module may "
                                    "know it", code="status-format")
        return _build(cls, value)

    @property
    def ok(self) -> bool:
        """Nothing has failed."""
        return self.errors == 0 and self.state not in ("failed", "degraded")

    @property
    def failures(self) -> Tuple[Failure, ...]:
        """All that has failed: of each component its shards, or else its own error, then what is
        of no component."""
        return tuple(_failures(self))


def _failure(problem: Problem, component: Optional[Component] = None,
             shard: Optional[Shard] = None) -> Failure:
    return Failure(component=component.name if component else None,
                   view=component.view if component else None,
                   shard=shard.file if shard else None, code=problem.code,
                   message=problem.message, offset=problem.offset, errno=problem.errno,
                   time=problem.time, mismatch=shard.mismatch if shard else None)


def _failures(status: Status) -> Iterator[Failure]:
    for component in status.components:
        of_shards = [_failure(shard.error, component, shard)
                     for shard in component.shards if shard.error]
        yield from of_shards
        if component.error and not of_shards:
            yield _failure(component.error, component)
    for problem in status.problems:
        yield _failure(problem)


# ---- from JSON -----------------------------------------------------------------------------------

_T = TypeVar("_T")


@functools.lru_cache(maxsize=None)
def _hints(cls: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(cls)


def _build(cls: Type[_T], value: Any) -> _T:
    """An instance of a dataclass, whose annotations say what is expected."""
    if not isinstance(value, dict):
        raise StatusFormatError(f"{cls.__name__}: no object", code="status-format")
    return cls(**{name: _convert(hint, value.get(name, _absent(hint)), f"{cls.__name__}.{name}")
                  for name, hint in _hints(typing.cast(Any, cls)).items()})


def _absent(hint: Any) -> Any:
    """What stands for a field that is not there; None where that will not do."""
    return [] if typing.get_origin(hint) is tuple else 0 if hint in (int, float) else None


def _convert(hint: Any, value: Any, where: str) -> Any:
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin is Union:  # Optional[...]: nothing else is used above
        return None if value is None else _convert(arguments[0], value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_convert(arguments[0], one, where) for one in value)
    if origin is Literal and isinstance(value, str):
        return value  # a word that is new stays readable
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(Any, hint), value)
    return _convert_plain(hint, value, where)


def _convert_plain(hint: Any, value: Any, where: str) -> Any:
    if hint is datetime.datetime and isinstance(value, str):
        try:
            return datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(
                tzinfo=datetime.timezone.utc)
        except ValueError:
            pass
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif type(value) is hint:
        return value
    raise StatusFormatError(f"{where}: {value!r:.80}", code="status-format")
