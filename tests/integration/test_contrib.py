# SPDX-License-Identifier: MIT
"""What operators install: units, manifests, alert rules, dashboard, completion, packages.

The Dockerfile is not built here: what it names is checked. Kubernetes: test_kubernetes.py."""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess

import pytest
import yaml

from harness import (PATIENCE, TOP, UNSHARD, Mount, is_alive, is_mounted, kill_with_supervisor, mounted, slow,
                     wait_for)
from test_cli import COMMANDS, LONG_OPTION, help_of

CONTRIB = TOP / "contrib"
PROMTOOL = shutil.which("promtool") or str(TOP / ".venv/bin/promtool")
METRIC = re.compile(r"\bunshard_[a-z_]+\b")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
plain_build = pytest.mark.skipif(os.path.dirname(UNSHARD) != str(TOP / "build"),
                                 reason="installs what a plain build makes")


# ---- systemd -------------------------------------------------------------------------------------

UNIT = CONTRIB / "systemd/unshard@.service"


def setting(name):
    return re.search(rf"^{name}=(.*)$", UNIT.read_text().replace("\\\n", ""), re.MULTILINE)[1]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_unit_is_valid(tmp_path):
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/bin/unshard", UNSHARD))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and unit.name not in done.stdout, done.stdout
    unit.write_text(unit.read_text() + "\n[Service]\nKillMode=gently\n")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert "kill mode" in done.stdout  # such things are found


def after_the_end(mountpoint, result):
    """As systemd runs it, here in this namespace."""
    words = shlex.split(setting("ExecStopPost").removeprefix("+-").replace("$$", "$"))
    words[-1] = words[-1].replace("/usr/bin/nsenter --mount=/proc/1/ns/mnt --", "")
    words[-1] = words[-1].replace("/usr/bin/unshard", UNSHARD)
    subprocess.run(words, check=False, timeout=PATIENCE * 2, stderr=subprocess.DEVNULL,
                   env={**os.environ, "SERVICE_RESULT": result, "MOUNTPOINT": str(mountpoint)})


@root
def test_force_frees_readers_when_everything_was_killed(big, tmp_path):
    """What ExecStopPost= is for: the daemon and all its helpers die at once, readers hang."""
    with slow(big) as storage:
        mount = Mount(storage.path, "prefetch=follow")
        try:
            assert mount.result == 0, mount.output
            storage.command("stall *.safetensors")
            reader = subprocess.Popen(["cat", mount / "model.safetensors"],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait_for(lambda: storage.stats()["stalled"] > 0, what="a stalled read")
            kill_with_supervisor(mount.pid)
            after_the_end(mount.path, "signal")  # what is started again goes on with it
            assert is_mounted(mount.path) and reader.poll() is None
            after_the_end(mount.path, "timeout")
            assert reader.wait(PATIENCE) != 0
            assert not is_mounted(mount.path)
            after_the_end(mount.path, "success")  # nothing left
            storage.command("release")
            wait_for(lambda: not is_alive(mount.pid), what="the daemon is gone")
        finally:
            mount.discard()


# ---- Prometheus and Grafana ----------------------------------------------------------------------

@pytest.fixture(scope="module")
def metric_names(flux, tmp_path_factory):
    """Every metric there is, those of failures and of another daemon included."""
    source = shutil.copytree(flux, tmp_path_factory.mktemp("metrics") / "source")
    (source / "transformer/diffusion_pytorch_model-00002-of-00005.safetensors").unlink()
    with mounted(source, "chunk=64K", "window=1M") as mount:
        os.kill(mount.pid, signal.SIGKILL)
        mount.pid = wait_for(lambda: (status := mount.status())["restarts"] and status["pid"],
                             what="another daemon")
        text = (mount / ".unshard/metrics").read_text()
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names.add(name + "_total" * (kind == "counter"))
    assert len(names) > 20
    return names


@pytest.mark.skipif(not os.access(PROMTOOL, os.X_OK), reason="promtool is not installed")
@pytest.mark.parametrize("arguments", [["check", "rules", "unshard.rules.yml"],
                                       ["test", "rules", "unshard.test.yml"]],
                         ids=["check", "test"])
def test_alert_rules(arguments):
    done = subprocess.run([PROMTOOL, *arguments], cwd=CONTRIB / "prometheus",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout


def test_every_alert_is_tested():
    rules = yaml.safe_load((CONTRIB / "prometheus/unshard.rules.yml").read_text())
    tested = (CONTRIB / "prometheus/unshard.test.yml").read_text()
    for rule in rules["groups"][0]["rules"]:
        if "node_textfile" not in rule["expr"]:  # depends on the clock
            assert f"alertname: {rule['alert']}" in tested, rule["alert"]


def test_alerts_and_dashboard_name_metrics_that_exist(metric_names):
    rules = yaml.safe_load((CONTRIB / "prometheus/unshard.rules.yml").read_text())
    dashboard = json.loads((CONTRIB / "grafana/unshard.json").read_text())
    expressions = [rule["expr"] for rule in rules["groups"][0]["rules"]]
    for panel in dashboard["panels"]:
        assert panel["targets"] and panel["title"] and panel["gridPos"]["w"] <= 24
        expressions += [target["expr"] for target in panel["targets"]]
    expressions += [one["query"]["query"] for one in dashboard["templating"]["list"]
                    if one["type"] == "query"]
    used = {name for expression in expressions for name in METRIC.findall(expression)}
    assert len(used) > 12
    assert used <= metric_names, f"no such metrics: {used - metric_names}"
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


# ---- completion ----------------------------------------------------------------------------------

def with_unshard(shell, script):
    environment = {**os.environ, "PATH": f"{os.path.dirname(UNSHARD)}:{os.environ['PATH']}"}
    done = subprocess.run([*shell, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, env=environment, timeout=PATIENCE)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1]


def bash_completion(*words):
    quoted = " ".join(f"'{word}'" for word in words)
    return with_unshard(["bash", "--norc", "-c"],
                        f"source {CONTRIB}/completion/unshard.bash; COMP_WORDS=(unshard {quoted}); "
                        f"COMP_CWORD={len(words)}; _unshard; "
                        "for one in \"${COMPREPLY[@]}\"; do printf '%s\\n' \"$one\"; done")


def listed_options(command):
    """What --help tells of -o: names with their words."""
    section = help_of(command).partition("Under -o")[2].partition("\n\n")[0]
    return re.findall(r"^  ([a-z_]+)(?:=(\S+))?", section, re.MULTILINE)


def test_bash_completes_every_command():
    assert set(bash_completion("")) == {*COMMANDS, "--help", "--version"}
    assert bash_completion("umo") == ["umount"]


@pytest.mark.parametrize("command", COMMANDS)
def test_bash_completes_every_option(command):
    expected = set(LONG_OPTION.findall(help_of(command).partition("Under -o")[0]))
    assert expected <= set(bash_completion(command, "-")), command
    candidates = bash_completion(command, "-o", "") if listed_options(command) else []
    for name, words in listed_options(command):
        if "|" in words:
            assert {f"{name}={word}" for word in words.split("|")} <= set(candidates)
        else:
            assert (f"{name}=" if words else name) in candidates


def test_bash_leaves_the_command_of_run_alone(tmp_path):
    (tmp_path / "script.py").touch()
    assert "--progress" in bash_completion("run", tmp_path, "--p")
    assert "python3" in bash_completion("run", tmp_path, "--", "pyth")
    assert bash_completion("run", tmp_path, "--", "python3", f"{tmp_path}/scr") == [f"{tmp_path}/script.py"]


def test_bash_completes_lists_mounts_and_components(flux):
    assert bash_completion("mount", "-o", "allow_other,prefetch=f") == \
        ["allow_other,prefetch=follow"]
    with mounted(flux) as mount:
        assert str(mount.path) in bash_completion("status", str(mount.path)[:8])
        assert set(bash_completion("evict", str(mount.path), "text")) == \
            {"text_encoder", "text_encoder_2"}


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize("command", COMMANDS)
def test_zsh_completes_every_option(command):
    functions = (CONTRIB / "completion/_unshard").read_text().rpartition('_unshard "$@"')[0]
    found = with_unshard(["zsh", "-f", "-c"], f"{functions}\n_unshard_options {command}; "
                         f"echo %%%%; _unshard_listed {command}; echo %%%%; _unshard_commands")
    options, listed, commands = "\n".join(found).split("%%%%")
    assert {line.partition(":")[0] for line in commands.splitlines()} >= set(COMMANDS)
    expected = set(LONG_OPTION.findall(help_of(command).partition("Under -o")[0]))
    assert expected <= {line.partition(":")[0] for line in options.splitlines()}
    for name, words in listed_options(command):
        assert re.search(rf"^{name}{'=' if words else ''}", listed, re.MULTILINE), name


# ---- packages ------------------------------------------------------------------------------------

DEBIAN = CONTRIB / "debian"


@plain_build
def test_debian_packages_take_all_that_is_installed(tmp_path):
    """As dh_install and dh_missing look at it. `make deb` builds the packages and runs lintian."""
    subprocess.run(["make", "-s", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr",
                    "UNITDIR=/lib/systemd/system", f"LIBDIR={tmp_path}/usr/lib/any-linux-gnu",
                    "ZSHDIR=/usr/share/zsh/vendor-completions"], cwd=TOP, check=True,
                   stdout=subprocess.DEVNULL)
    installed = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")
                 if path.is_symlink() or path.is_file()}
    taken = set()
    for path in DEBIAN.glob("*.install"):
        for pattern in path.read_text().split():
            found = {name for name in installed
                     if fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, pattern + "/*")}
            assert found, f"{path.name}: nothing is installed as {pattern}"
            taken |= found
    assert installed == taken


def test_debian_files_agree():
    control = (DEBIAN / "control").read_text()
    packages = set(re.findall(r"^Package: (\S+)$", control, re.MULTILINE))
    assert {path.stem for path in DEBIAN.glob("*.install")} == packages
    version = re.search(r'UNSHARD_VERSION "(.*)"', (TOP / "lib/unshard.h").read_text())[1]
    assert (DEBIAN / "changelog").read_text().startswith(f"unshard ({version}) ")
    assert os.access(DEBIAN / "rules", os.X_OK)
    for line in (DEBIAN / "unshard.examples").read_text().split():
        assert (TOP / line).exists(), line


@pytest.mark.skipif(not shutil.which("apt-cache"), reason="no package index here")
def test_dockerfile_installs_packages_that_exist():
    """It is not built here."""
    text = (CONTRIB / "docker/Dockerfile").read_text().replace("\\\n", " ")
    packages = [name for names in re.findall(r"--no-install-recommends\s+([^&]+)", text)
                for name in names.split()]
    assert len(packages) > 8
    done = subprocess.run(["apt-cache", "show", "--no-all-versions", *packages],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if not done.stdout:
        pytest.skip("the package index is empty")
    if pathlib.Path("/etc/debian_version").read_text().startswith("12"):
        assert set(re.findall(r"^Package: (\S+)$", done.stdout, re.MULTILINE)) >= set(packages)


def test_the_program_is_hardened():
    """Position independent, all its relocations made and sealed before main."""
    said = subprocess.run(["readelf", "-W", "-l", "-d", "-h", UNSHARD], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    assert "GNU_RELRO" in said and "BIND_NOW" in said and "(Position-Independent Executable" in said
