# SPDX-License-Identifier: MIT
"""--help and the manual pages say the same."""

import re
import subprocess

import pytest

from harness import TOP, run

# All that `unshard --help` lists.
COMMANDS = re.findall(r"^  ([a-z]+) ", run("--help").stdout, re.MULTILINE)
PAGES = sorted((TOP / "contrib/man").glob("*.[1-8]"))
LONG_OPTION = re.compile(r"--[a-z][a-z-]+")
LISTED_OPTION = re.compile(r"^  ([a-z_]+)(?:=| )", re.MULTILINE)


def page(command):
    """The page of a command as plain text."""
    path = TOP / "contrib/man" / f"unshard-{command}.1"
    assert path.exists(), f"no manual page for {command}"
    text = subprocess.run(["mandoc", "-T", "utf8", "-O", "width=300", path], check=True,
                          stdout=subprocess.PIPE).stdout.decode()
    return re.sub(".\b", "", text).replace("−", "-").replace("‐", "-")


def help_of(command):
    done = run(command, "--help")
    assert done.returncode == 0 and not done.stderr
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_page_agree(command):
    said, written = help_of(command), page(command)
    for option in set(LONG_OPTION.findall(said)):
        assert option in written, f"{option} is in --help, not in the page"
    for option in set(LISTED_OPTION.findall(said)):
        assert re.search(rf"\b{option}\b", written), f"{option} is in --help, not in the page"
    for option in set(LONG_OPTION.findall(written)):
        everywhere = said + "".join(help_of(other) for other in COMMANDS) + "--version"
        assert option in everywhere, f"{option} is in the page, in no --help"


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_the_page_exist(command):
    """What the page's option lists start their lines with."""
    said = help_of(command)
    for line in page(command).splitlines():
        match = re.match(r"^\s{4,8}([a-z_]+)=\S+(\s|$)", line)
        if match:
            assert f"  {match[1]}=" in said, f"{match[1]}= is in the page, not in --help"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_well_formed(path):
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path],
                          stdout=subprocess.PIPE, text=True)
    assert done.returncode < 3, done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_refer_to_pages_that_exist(path):
    names = {f"{one.stem} {one.suffix[1:]}" for one in PAGES}
    for name in re.findall(r"^\.Xr (unshard\S* \d)", path.read_text(), re.MULTILINE):
        assert name in names, f"{path.name} refers to {name}"


def test_every_command_has_a_page_that_unshard_1_names():
    text = (TOP / "contrib/man/unshard.1").read_text()
    assert len(COMMANDS) >= 9
    for command in COMMANDS:
        assert f".Cm {command}\n" in text and f".Xr unshard-{command} 1" in text, command


def test_version_and_overview():
    assert re.fullmatch(r"unshard \d+\.\d+\.\d+\n", run("--version", check=True).stdout)
    overview = run("--help", check=True).stdout
    for command in COMMANDS:
        assert command in overview
