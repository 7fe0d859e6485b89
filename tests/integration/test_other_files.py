# SPDX-License-Identifier: MIT
"""Files beside the shards (config.json, tokenizers): what is on disk is what readers get, also after
they have been edited, replaced, cut or made longer under the mount."""

import errno
import hashlib
import mmap
import os
import shutil

import pytest

from harness import mounted, wait_for

NAME = "tokenizer.json"
LENGTH = 100_000
CONTENTS = {"longer": b"longer " * 100_000, "shorter": b"{}", "as long": b"x" * LENGTH, "empty": b"",
            "a page": b"p" * 4096, "chunks": os.urandom(5 << 20)}


def in_place(path, content):
    path.write_bytes(content)


def by_rename(path, content):
    new = path.with_name("new")
    new.write_bytes(content)
    new.rename(path)


@pytest.fixture
def source(llama, tmp_path):
    folder = shutil.copytree(llama, tmp_path / "source")
    (folder / NAME).write_bytes(b"o" * LENGTH)
    return folder


def read(path):
    """The content, or the errno."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno


def wait_for_content(mount, content, growing=False):
    path = mount / NAME
    allowed = (content, errno.EIO)

    def same():
        now = read(path)
        # The old bytes until it has been noticed, an error then, the new ones at last; between them
        # those that were there already when it was looked at while it was written.
        known = now in allowed or now == wait_for_content.old
        part = growing and isinstance(now, bytes) and content.startswith(now)
        assert known or part, now if isinstance(now, int) else len(now)
        return now == content

    wait_for(same, what="the new content")
    expected, mapped = (len(content), -(-len(content) // 512)), b""
    wait_for(lambda: (path.stat().st_size, path.stat().st_blocks) == expected, what="its size")
    with open(path, "rb") as file:
        if content:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:]
    assert mapped == content
    wait_for_content.old = content


@pytest.mark.parametrize("change", [in_place, by_rename])
def test_follows(source, change):
    wait_for_content.old = b"o" * LENGTH
    with mounted(source) as mount:
        wait_for_content(mount, wait_for_content.old)
        for content in CONTENTS.values():
            change(source / NAME, content)
            wait_for_content(mount, content, growing=change is in_place)
            assert (mount / NAME).stat().st_mtime_ns == (source / NAME).stat().st_mtime_ns
        # A reader's end is told later than he goes on: one may have had it open when it changed.
        wait_for(lambda: (mount / ".unshard/errors").read_text() == "", what="no error is left")


def test_no_mixture_for_who_has_it_open(source):
    with mounted(source) as mount:
        with open(mount / NAME, "rb", buffering=0) as file:
            assert file.read(10) == b"o" * 10
            by_rename(source / NAME, CONTENTS["longer"])
            wait_for(lambda: NAME in (mount / ".unshard/errors").read_text(), what="the error")

            def refused():  # when its pages have been taken away, which is a moment after that was told
                try:
                    assert os.pread(file.fileno(), 10, 50_000) == b"o" * 10
                except OSError as error:
                    return error.errno
                return None

            assert wait_for(refused, what="no old pages") == errno.EIO
            assert "nobody has it open" in (mount / ".unshard/errors").read_text()
        wait_for(lambda: read(mount / NAME) == CONTENTS["longer"], what="the new content")
        wait_for(lambda: (mount / ".unshard/errors").read_text() == "",
                 what="the kernel to have forgotten the old one")


@pytest.mark.parametrize("content", [b"x" * LENGTH, b"{}", b"", b"o" * 4096],
                         ids=["as long", "shorter", "empty", "a part"])
def test_a_digest_holds(source, content):
    """What is known of it is not forgotten because the file is no shard."""
    digest = hashlib.sha256((source / NAME).read_bytes()).hexdigest()
    (source / "SHA256SUMS").write_text(f"{digest}  {NAME}\n")
    with mounted(source) as mount:
        assert read(mount / NAME) == b"o" * LENGTH
        old = (source / NAME).stat()
        in_place(source / NAME, content)
        wait_for(lambda: read(mount / NAME) == errno.EIO, what="the error")
        wait_for(lambda: NAME in (mount / ".unshard/errors").read_text(), what="its line")
        for _ in range(3):
            assert read(mount / NAME) == errno.EIO
        in_place(source / NAME, b"o" * LENGTH)
        assert (source / NAME).stat().st_mtime_ns != old.st_mtime_ns
        wait_for(lambda: read(mount / NAME) == b"o" * LENGTH, what="the right content")
