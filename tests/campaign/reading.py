#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads a file and compares it with what it should be: every page is right or fails with EIO.

As a program, so that a read that never returns can be waited for with a bound:
usage: reading.py read|mmap FILE TRUTH...      prints a line of JSON for each pair
"""

import errno
import json
import mmap
import os
import pathlib
import sys

PAGE = 4096
READ = 128 << 10


def read_or_fail(fd, offset, size):
    """The bytes, or None for EIO. Anything else is a fault of the mount."""
    try:
        data = os.pread(fd, size, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return None
    if len(data) != size:
        # What lies before an error is given first.
        rest = read_or_fail(fd, offset + len(data), size - len(data)) if data else None
        return None if rest is None else data + rest
    return data


def can_open(path):
    """Whether it can be opened; false for EIO."""
    try:
        os.close(os.open(path, os.O_RDONLY))
        return True
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False


def compare_pages(path, truth):
    """Pages that fail and pages that are wrong; most at once, where all is well."""
    failing, wrong = set(), set()
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in range(0, len(truth), READ):
            whole = truth[offset:offset + READ]
            if read_or_fail(fd, offset, len(whole)) == whole:
                continue
            for at in range(offset, offset + len(whole), PAGE):
                expected = truth[at:min(at + PAGE, offset + len(whole))]
                found = read_or_fail(fd, at, len(expected))
                if found is None:
                    failing.add(at // PAGE)
                elif found != expected:
                    wrong.add(at // PAGE)
    finally:
        os.close(fd)
    return failing, wrong


def compare_mapped(path, truth):
    """As compare_pages, for a reader that maps the file. A page that fails ends the process."""
    with open(path, "rb") as file:
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            wrong = {at // PAGE for at in range(0, len(truth), PAGE)
                     if mapped[at:at + PAGE] != truth[at:at + PAGE]}
    return set(), wrong


def main():
    how, *names = sys.argv[1:]
    compare = {"read": compare_pages, "mmap": compare_mapped}[how]
    for path, truth in zip(names[::2], names[1::2]):
        data = pathlib.Path(truth).read_bytes()
        try:
            if os.stat(path).st_size != len(data):
                print(json.dumps({"error": "size"}), flush=True)
                continue
            failing, wrong = compare(path, data)
            print(json.dumps({"failing": len(failing), "wrong": sorted(wrong)[:5]}), flush=True)
        except OSError as error:
            print(json.dumps({"error": errno.errorcode.get(error.errno, error.errno)}), flush=True)


if __name__ == "__main__":
    main()
