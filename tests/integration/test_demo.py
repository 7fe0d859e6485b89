# SPDX-License-Identifier: MIT
"""What somebody sees first: the demo with a checkpoint of his own, and the picture in the README."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree

import pytest

from harness import PATIENCE, TOP, UNSHARD, detach, is_mounted

FOLDER = TOP / "contrib/demo"
PICTURE = FOLDER / "watch.svg"
SVG = "{http://www.w3.org/2000/svg}"
# What Debian's essential packages bring, without any of Python's.
TOOLS = ["bash", "cat", "dd", "dirname", "find", "head", "ls", "mkdir", "mktemp", "mountpoint", "realpath", "rm",
         "rmdir", "sort", "tail"]
pytestmark = pytest.mark.heavy
sys.path.insert(0, str(FOLDER))

from animation import animated  # noqa: E402
from terminal import Terminal  # noqa: E402


# ---- the demo ------------------------------------------------------------------------------------

@pytest.fixture
def few_tools(tmp_path):
    """A PATH with these programs and no others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in [*TOOLS, *(["fusermount3"] if os.geteuid() != 0 else [])]:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


@pytest.fixture
def mountpoint(tmp_path):
    yield tmp_path / "mnt"
    detach(tmp_path / "mnt")


def demo(source, mountpoint, path):
    environment = {"PATH": str(path), "SRC": str(source), "MNT": str(mountpoint), "UNSHARD_BIN": UNSHARD,
                   "UNSHARD_CACHE_DIR": os.environ["UNSHARD_CACHE_DIR"], "TMPDIR": str(path.parent)}
    return subprocess.run([FOLDER / "demo.sh"], env=environment, stdin=subprocess.DEVNULL, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE)


def test_a_demo_of_ones_own_needs_the_program_and_a_shell(flux, few_tools, mountpoint):
    before = sorted(flux.rglob("*"))
    done = demo(flux, mountpoint, few_tools)
    assert done.returncode == 0, done.stdout
    for said in (f"$ unshard mount {flux} {mountpoint}", "in the page cache",
                 "transformer/diffusion_pytorch_model.safetensors: ", " copied, ", "ready: ", "Unmounted."):
        assert said in done.stdout, done.stdout
    assert "not found" not in done.stdout, done.stdout
    assert not is_mounted(mountpoint) and sorted(flux.rglob("*")) == before


def test_a_demo_tells_of_a_bad_shard_and_goes_on(flux, few_tools, mountpoint, tmp_path):
    source = shutil.copytree(flux, tmp_path / "source")
    bad = source / "transformer/diffusion_pytorch_model-00002-of-00005.safetensors"
    os.truncate(bad, bad.stat().st_size - 100_000)
    done = demo(source, mountpoint, few_tools)
    assert done.returncode == 0, done.stdout
    assert "cannot be read" in done.stdout and "ERRORS" in done.stdout, done.stdout
    assert not is_mounted(mountpoint)


def test_make_installs_for_it_only_what_building_needs():
    for variable, wanted in (("SRC=/models/flux", "build"), ("SRC=", "tests")):
        # The program is there, so nothing is built.
        said = subprocess.run(["make", "-n", "-o", "build/unshard", "demo", variable], cwd=TOP, check=True,
                              stdout=subprocess.PIPE, text=True).stdout
        assert re.findall(r"^tests/deps.sh (\w+)", said, re.MULTILINE) == [wanted]


# ---- the picture ---------------------------------------------------------------------------------

def texts_of(svg):
    return ["".join(one.itertext()) for one in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}text")]


def check_svg(svg):
    """Small, well-formed, and nothing in it that an <img> would not show or that comes from elsewhere."""
    assert len(svg) < 60 * 1024
    root = xml.etree.ElementTree.fromstring(svg)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} == {"svg", "style", "rect", "text", "tspan", "g"}
    assert not re.search(r"href|url\(|@import|@font-face|<script|\son\w+=", svg)
    assert "prefers-color-scheme:dark" in svg and "prefers-reduced-motion" in svg and "@keyframes" in svg
    names = {one.get("id") for one in root.iter(f"{SVG}g")} - {None}
    assert names == set(re.findall(r"#(a\d+)\{", svg)) and len(names) > 3


def test_the_picture_in_the_readme():
    svg = PICTURE.read_text()
    check_svg(svg)
    texts = texts_of(svg)
    assert "ERRORS" in texts and any("does not match" in text for text in texts)
    assert any(text.startswith("ready: ") and "(100 %)" in text for text in texts)
    assert "contrib/demo/watch.svg" in (TOP / "README.md").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount namespace")
def test_the_picture_is_made_of_a_real_run(tmp_path):
    target = tmp_path / "watch.svg"
    done = subprocess.run([sys.executable, FOLDER / "picture.py", "--unshard", UNSHARD, "--scale", "0.2",
                           "--interval", "0.1", "--rate", "60000000", target], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE * 3,
                          env=dict(os.environ, TMPDIR=str(tmp_path)))
    assert done.returncode == 0, done.stdout
    svg = target.read_text()
    texts = texts_of(svg)
    assert "ERRORS" in texts and any(text.startswith("ready: ") for text in texts)
    assert not is_mounted("/mnt/flux") and not pathlib.Path("/mnt/flux").exists()


def picture(*drawn, columns=12, rows=3):
    terminal = Terminal(columns, rows)
    for text in drawn:
        terminal.feed(text)
    return terminal.picture()


def test_a_terminal_keeps_what_is_drawn():
    assert picture("one  two\r\n  \x1b[31mred\x1b[0m!") == (
        ((0, (("one", ""),)), (5, (("two", ""),))), ((2, (("red", "31"), ("!", ""))),), ())
    assert picture("gone\r\ngone", "\x1b[Hx\x1b[K\n\x1b[J") == (((0, (("x", ""),)),), (), ())
    assert picture("a\nb\nc\nd") == (((0, (("b", ""),)),), ((0, (("c", ""),)),), ((0, (("d", ""),)),))
    assert picture("123456789012345") == (((0, (("123456789012", ""),)),), ((0, (("345", ""),)),), ())
    with pytest.raises(ValueError):
        picture("\x1b[5A")


def test_a_run_of_text_is_seen_as_long_as_it_was_there():
    svg = animated([picture("stays\ngoes"), picture("stays\ncomes")], [0, 1], "<title>", hold=3)
    groups = {"".join(one.itertext()): one.get("id")
              for one in xml.etree.ElementTree.fromstring(svg).iter(f"{SVG}g")}
    assert set(groups) == {"stays", "goes", "comes"} and groups["stays"] is None
    assert f"#{groups['goes']}{{visibility:hidden;animation" in svg
    assert "{0.00%{visibility:visible}25.00%,to{visibility:hidden}}" in svg
    assert "{0%{visibility:hidden}25.00%{visibility:visible}to{visibility:visible}}" in svg
    assert "&lt;title&gt;" in svg
