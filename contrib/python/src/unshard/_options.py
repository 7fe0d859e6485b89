# SPDX-License-Identifier: MIT
"""The options that stand under -o, as keyword arguments: unshard-mount(1) explains each."""

from __future__ import annotations

import os
from typing import Any, List, Literal, Mapping, Union

IndexWord = Literal["rewrite", "hide"]
OrderWord = Literal["shard", "canonical"]
LayoutWord = Literal["merged", "both", "shards"]
PickleWord = Literal["auto", "safetensors", "asis"]

Size = Union[int, str]  # bytes, or "512M"


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:f}"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _quoted(value: object) -> str:
    return _text(value).replace("\\", "\\\\").replace(",", "\\,")


def arguments_of(options: Mapping[str, Any]) -> List[str]:
    """What is given, as arguments of a command; None and False are what is not given."""
    words: List[str] = []
    for name, value in options.items():
        if value is True:
            words += ["-o", name]
        elif value is not None and value is not False:
            words += ["-o", f"{name}={_quoted(value)}"]
    return words
