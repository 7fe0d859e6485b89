# SPDX-License-Identifier: MIT
"""`python -m unshard ...` is `unshard ...`: this process becomes it."""

import os
import signal
import sys

from ._command import find_command
from ._errors import CommandNotFound


def main() -> None:
    try:
        command = find_command()
    except CommandNotFound as error:
        sys.exit(f"python -m unshard: {error}")
    # What Python ignores for itself would stay ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    os.execv(command, ["unshard", *sys.argv[1:]])


if __name__ == "__main__":
    main()
