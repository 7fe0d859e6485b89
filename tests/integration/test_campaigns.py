# SPDX-License-Identifier: MIT
"""Short runs of the campaigns; `make campaign` runs the whole of them."""

import re
import subprocess
import sys

import pytest

from harness import TOP

RUNS = {"detection": ["--flips", "30", "--truncations", "10", "--swaps", "10", "--stale", "10",
                      "--control", "5", "--no-pipeline"],
        "faults": ["--rounds", "20"],
        "survival": ["--rounds", "40", "--times", "5"]}


@pytest.mark.heavy
@pytest.mark.parametrize("campaign", sorted(RUNS))
def test_short_run(campaign):
    done = subprocess.run([sys.executable, TOP / f"tests/campaign/{campaign}.py", *RUNS[campaign]],
                          stdout=subprocess.PIPE, text=True, timeout=300)
    found = re.search(r"(\d+) of (\d+) rounds as they should be, 0 not", done.stdout)
    assert done.returncode == 0 and found and found[1] == found[2], done.stdout[-4000:]
