# SPDX-License-Identifier: MIT
"""Mounts model checkpoints with unshard, and tells what became of them.

    import unshard

    with unshard.mount("/models/flux", verify="strict") as flux:
        pipeline = DiffusionPipeline.from_pretrained(str(flux))

The module starts the command `unshard`, which comes with it, and reads its JSON; it needs nothing
besides the standard library. All that it raises of its own is an `unshard.UnshardError`.
"""

from __future__ import annotations

from ._command import find_command
from ._errors import (CommandError, CommandNotFound, ExportError, LoadError, MountError,
                      NotMountedError, StatusFormatError, UnshardError, WaitTimeout)
from ._export import Export, export
from ._explain import explain, explaining
from ._mount import Mount, mount, unmount
from ._operations import evict, status, wait, warm
from ._options import IndexWord, LayoutWord, OrderWord, PickleWord, Size
from ._status import (Component, DataState, Failure, Mismatch, MountState, PrefetchWord, Problem,
                      Shard, Status, Stuck, StuckLook, VerifyWord)

__all__ = [
    "CommandError", "CommandNotFound", "Component", "DataState", "Export", "ExportError",
    "Failure", "IndexWord", "LayoutWord", "LoadError", "Mismatch", "Mount", "MountError",
    "MountState", "NotMountedError", "OrderWord", "PickleWord", "PrefetchWord", "Problem",
    "Shard", "Size", "Status", "StatusFormatError", "Stuck", "StuckLook",
    "UnshardError", "VerifyWord",
    "WaitTimeout", "evict", "explain", "explaining", "export", "find_command", "mount", "status",
    "unmount", "wait", "warm",
]


def __getattr__(name: str) -> str:
    """`unshard.__version__`: of the installed wheel, which is that of the command in it."""
    if name != "__version__":
        raise AttributeError(f"module 'unshard' has no attribute '{name}'")
    import importlib.metadata
    try:
        return importlib.metadata.version("unshard")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # imported from the source, not installed
