# SPDX-License-Identifier: MIT
"""The program that the wheel brings, and what it says in JSON."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sysconfig
from typing import Any, Iterator, Mapping, Type, Union

from ._errors import CommandError, CommandNotFound

StrPath = Union[str, "os.PathLike[str]"]


def _recorded() -> Iterator[pathlib.Path]:
    """Where the installer says that it has put the program."""
    import importlib.metadata
    try:
        files = importlib.metadata.files("unshard")
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files or ():
        if file.parts[-2:] == ("bin", "unshard"):
            yield pathlib.Path(str(file.locate()))


def _candidates() -> Iterator[pathlib.Path]:
    chosen = os.environ.get("UNSHARD_BIN")
    if chosen:
        yield pathlib.Path(chosen)
        return
    yield from _recorded()
    yield pathlib.Path(sysconfig.get_path("scripts")) / "unshard"
    # pip install --target puts it beside the package.
    yield pathlib.Path(__file__).parent.parent / "bin" / "unshard"
    found = shutil.which("unshard")
    if found:
        yield pathlib.Path(found)


@functools.lru_cache(maxsize=None)
def find_command() -> str:
    """The path of the program `unshard`: what UNSHARD_BIN names, else what was installed with this
    module, else the first on the PATH. Looked for once."""
    for path in _candidates():
        if path.is_file() and os.access(path, os.X_OK):
            return str(path.resolve())
    raise CommandNotFound("the program 'unshard' is not there: install the wheel again, or name it "
                          "in UNSHARD_BIN", code="no-command")


def run(*arguments: str, show_errors: bool = False) -> "subprocess.CompletedProcess[str]":
    """Runs it to its end, which Ctrl-C brings about as well. `show_errors`: what it says on
    standard error goes to ours."""
    return subprocess.run([find_command(), *arguments], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE,
                          stderr=None if show_errors else subprocess.PIPE, encoding="utf-8",
                          errors="surrogateescape")


def answer(done: "subprocess.CompletedProcess[str]") -> Mapping[str, Any]:
    """The object on its standard output; empty when there is none."""
    try:
        found = json.loads(done.stdout)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def failure(done: "subprocess.CompletedProcess[str]",
            kind: Type[CommandError] = CommandError) -> CommandError:
    """The error of a command that has failed: from its JSON, else its words as they are."""
    error = answer(done).get("error")
    told: Mapping[str, Any] = error if isinstance(error, dict) else {}
    message = told.get("message") or (done.stderr or "").strip() or f"exit status {done.returncode}"
    return kind(message, command=done.args, exit_status=done.returncode,
                code=told.get("code", "error"), offset=told.get("offset"),
                errno=told.get("errno"))
