# SPDX-License-Identifier: MIT
"""Says for which machines the wheel is. The program in it is static: any C library will do, which
check_wheel.py checks."""

import os
import platform
from typing import Any, Dict

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SYSTEMS = ("manylinux_2_17", "manylinux2014", "musllinux_1_1")


class PlatformTag(BuildHookInterface):
    def initialize(self, version: str, build_data: Dict[str, Any]) -> None:
        machine = os.environ.get("MACHINE", platform.machine())
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-" + ".".join(f"{one}_{machine}" for one in SYSTEMS)
