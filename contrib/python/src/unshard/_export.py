# SPDX-License-Identifier: MIT
"""The merged files of a checkpoint, without a mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Optional, Sequence, Union

from . import _command
from ._command import StrPath
from ._errors import ExportError
from ._options import (IndexWord, LayoutWord, OrderWord, PickleWord, Size, arguments_of)
from ._status import VerifyWord


@dataclass(frozen=True)
class Export:
    """What was written."""
    source: str
    target: str
    bytes_total: int
    bytes_done: int
    seconds: float


def export(source: StrPath, target: StrPath, *, index: Optional[IndexWord] = None,
           order: Optional[OrderWord] = None, layout: Optional[LayoutWord] = None,
           pickle: Optional[PickleWord] = None, split: Union[None, str, Sequence[str]] = None,
           follow_symlinks: bool = False, verify: Optional[VerifyWord] = None,
           jobs: Optional[int] = None, buffer: Optional[Size] = None,
           progress: bool = False) -> Export:
    """Writes the merged files of the checkpoint `source` to the directory `target`, which must not
    exist, or be empty, or hold an export that did not come to its end: that goes on.

    The options are those of unshard-export(1). `progress` shows its bar on standard error. Raises
    ExportError with the code, offset and errno of what went wrong; what could be written is."""
    options = arguments_of({
        "index": index, "order": order, "layout": layout, "pickle": pickle, "split": split,
        "follow_symlinks": follow_symlinks, "verify": verify, "jobs": jobs, "buffer": buffer,
    })
    done = _command.run("export", "--json", *options, "--", os.fspath(source), os.fspath(target),
                        show_errors=progress)
    if done.returncode != 0:
        raise _command.failure(done, ExportError)
    found = _command.answer(done)
    return Export(source=found["source"], target=found["target"],
                  bytes_total=found["bytes_total"], bytes_done=found["bytes_done"],
                  seconds=float(found["seconds"]))
