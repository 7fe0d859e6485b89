# SPDX-License-Identifier: MIT
"""The chart and the manifests: what helm makes of them, against the API's schemas, and their commands run here."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import kubernetes_validate
import pytest
import yaml

from harness import (PATIENCE, TOP, UNSHARD, child_named, detach, is_alive, is_mounted, kill_with_supervisor, run,
                     wait_for)
from test_cli import COMMANDS, help_of

FOLDER = TOP / "contrib/kubernetes"
CHART = FOLDER / "chart"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
VERSION = "1.37"
HELM = TOP / ".venv/bin/helm"
# Nothing of it depends on how the program was built.
pytestmark = pytest.mark.heavy
helm_is_here = pytest.mark.skipif(not os.access(HELM, os.X_OK), reason="helm is not to be had here")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

CHOICES = {
    "defaults": {},
    "one checkpoint": {
        "source": {"hostPath": "/models", "subPath": "flux"}, "mount": {"name": "flux"},
        "options": {"prefetch": "all", "split": r"a\=b,c", "timeout": 30, "follow_symlinks": True},
        "readiness": "warm", "memory": {"pageCache": "24Gi", "reserved": True}},
    "a claim, nothing kept": {
        "source": {"claim": "models"}, "cache": {"hostPath": ""}, "metrics": {"hostPath": ""},
        "memory": {"pageCache": ""}, "options": {"buffer": None, "follow_symlinks": False},
        "priorityClassName": "", "updateStrategy": {"type": "OnDelete", "rollingUpdate": None}},
    "placed": {
        "nodeSelector": {"pool": "gpu"}, "tolerations": [], "imagePullSecrets": [{"name": "mine"}],
        "podLabels": {"team": "a"}, "podAnnotations": None, "podDisruptionBudget": {"minAvailable": 3},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [
                {"key": "gpu", "operator": "Exists"}]}]}}}},
}


def helm(*arguments, values=None):
    """Runs helm, which asks nobody else for anything. The finished process, its output as text."""
    return subprocess.run([HELM, *map(str, arguments), *(["--values", "-"] if values else [])],
                          input=json.dumps(values or {}), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, timeout=PATIENCE)


def rendered(values, release="unshard", *more):
    done = helm("template", release, CHART, *more, values=values)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def daemon_set(values):
    return next(one for one in rendered(values) if one["kind"] == "DaemonSet")


def daemon(values):
    return daemon_set(values)["spec"]["template"]["spec"]["containers"][0]


def of_file(path):
    return list(yaml.safe_load_all(path.read_text()))


def option_list(container):
    return container["args"][container["args"].index("-o") + 1]


# ---- everything, whoever wrote it ----------------------------------------------------------------

def all_sources():
    """Every set of documents there is: those on disk, and what the chart makes of some values."""
    for path in MANIFESTS:
        yield pytest.param(lambda path=path: of_file(path), id=path.name)
    for name, values in CHOICES.items():
        yield pytest.param(lambda values=values: rendered(values), id=f"chart, {name}", marks=helm_is_here)


SOURCES = list(all_sources())


@pytest.mark.parametrize("documents", SOURCES)
def test_they_are_valid(documents):
    found = documents()
    assert found
    for document in found:
        kubernetes_validate.validate(document, VERSION, strict=True)
        broken = json.loads(json.dumps(document))
        broken["spec"]["mountPropagatoin"] = "Bidirectional"
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, VERSION, strict=True)


def pods_of(documents):
    for document in documents:
        if document["kind"] in ("Pod", "DaemonSet"):
            yield document["spec"].get("template", document)["spec"]


def command_lines(container):
    """Each command line of unshard in a container: its command, and those of its probes."""
    lines = [container.get("command", []) + container.get("args", [])]
    for key in ("startupProbe", "livenessProbe", "readinessProbe"):
        lines.append(container.get(key, {}).get("exec", {}).get("command", []))
    for hook in container.get("lifecycle", {}).values():
        lines.append(hook["exec"]["command"])
    for line in lines:
        for found in re.findall(r"(?<![/\w])unshard ([^;&>]+)", " ".join(line)):
            yield found.split()


def check_command_line(command, arguments):
    assert command in COMMANDS, f"unshard {command}"
    said = help_of(command)
    arguments = arguments[:arguments.index("--")] if "--" in arguments else arguments
    for option in arguments:
        assert not option.startswith("--") or option in said, f"{command} {option}"
    for place, option in enumerate(arguments):
        names = re.findall(r"(?:^|(?<!\\),)([a-z_]+)(?==|,|$)", arguments[place + 1]) if option == "-o" else []
        for name in names:
            assert re.search(rf"^  {name}\b", said, re.MULTILINE), f"-o {name}"


def check_container(container, volumes):
    """Memory is bounded unless it was asked for otherwise; what it mounts is there, and propagates."""
    assert "memory" in container["resources"]["requests"]
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert set(mounts) <= volumes
    if "mounts" in mounts:
        privileged = container.get("securityContext", {}).get("privileged")
        wanted = "Bidirectional" if privileged else "HostToContainer"
        assert mounts["mounts"]["mountPropagation"] == wanted


@pytest.mark.parametrize("documents", SOURCES)
def test_they_use_what_exists(documents):
    for pod in pods_of(documents()):
        volumes = {one["name"] for one in pod["volumes"]}
        containers = pod.get("initContainers", []) + pod["containers"]
        for container in containers:
            check_container(container, volumes)
            for command, *arguments in command_lines(container):
                check_command_line(command, arguments)
        assert volumes == {one["name"] for container in containers for one in container["volumeMounts"]}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_containers_of_manifests_have_limits(path):
    for pod in pods_of(of_file(path)):
        for container in pod.get("initContainers", []) + pod["containers"]:
            assert "memory" in container["resources"]["limits"]


def test_images_have_the_version_of_the_program():
    version = run("--version", check=True).stdout.split()[1]
    for path in MANIFESTS:
        assert set(re.findall(r"registry.example/unshard:(\S+)", path.read_text())) == {version}, path.name
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == version


def test_the_pod_reads_where_the_mount_is():
    """The pod of consumer.yaml goes with the manifest of the DaemonSet."""
    mountpoint = next(pods_of(of_file(FOLDER / "daemonset.yaml")))["containers"][0]["args"][-1]
    pod = next(pods_of(of_file(FOLDER / "consumer.yaml")))
    assert pod["initContainers"][0]["command"][-1] == mountpoint
    assert pod["containers"][0]["args"][-1].startswith(mountpoint + "/")
    assert pod["volumes"][0]["hostPath"]["path"] == os.path.dirname(mountpoint)


# ---- the chart -----------------------------------------------------------------------------------

@helm_is_here
@pytest.mark.parametrize("values", CHOICES.values(), ids=CHOICES)
def test_helm_finds_nothing_wrong(values):
    done = helm("lint", "--strict", CHART, values=values)
    assert done.returncode == 0 and "0 chart(s) failed" in done.stdout, done.stdout


@helm_is_here
def test_the_manifest_is_what_the_chart_makes_of_its_default_values():
    done = helm("template", "unshard", CHART, "--skip-tests")
    made = (FOLDER / "daemonset.yaml").read_text().partition("\n")[2]
    assert made == done.stdout, "make manifests writes it anew"


@helm_is_here
@pytest.mark.parametrize("wrong, said", [
    ({"memroy": {}}, "memroy"),
    ({"options": {"prefech": "all"}}, "prefech"),
    ({"options": {"prefetch": "everything"}}, "prefetch"),
    ({"options": {"allow_other": False}}, "allow_other"),
    ({"options": {"buffer": 268435456}}, "buffer"),
    ({"memory": {"pageCache": "32G"}}, "pageCache"),
    ({"source": {"hostPath": ""}}, "source"),
    ({"mount": {"name": "../etc"}}, "name"),
    ({"mount": {"directory": "/mnt; reboot"}}, "directory"),
    ({"readiness": "hot"}, "readiness"),
    ({"podDisruptionBudget": {"minAvailable": "50%"}}, "minAvailable"),
    ({"podDisruptionBudget": {"maxUnavailable": 1}}, "maxUnavailable"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_wrong_values_are_refused(wrong, said):
    done = helm("template", "unshard", CHART, values=wrong)
    assert done.returncode != 0 and said in done.stderr, done.stdout + done.stderr


def test_the_schema_knows_the_options_of_mount():
    options = json.loads((CHART / "values.schema.json").read_text())["properties"]["options"]["properties"]
    listed = dict(re.findall(r"^  ([a-z_]+)(?:=(\S+))?", help_of("mount").partition("Under -o")[2], re.MULTILINE))
    for name, schema in options.items():
        assert name in listed, f"unshard mount has no -o {name}"
        assert schema.get("enum") in (None, listed[name].split("|")), f"{name}={listed[name]}"


@helm_is_here
@pytest.mark.parametrize("options, memory, request_memory, limit", [
    ({}, {}, "768Mi", "33536Mi"),
    ({"buffer": "1G"}, {"pageCache": "2Ti", "daemon": "1Gi"}, "2048Mi", "2099200Mi"),
    ({"buffer": "1048577"}, {"pageCache": "100Mi"}, "514Mi", "614Mi"),
    ({"buffer": "65537K"}, {"pageCache": "1Gi", "reserved": True}, "1601Mi", "1601Mi"),
    ({"buffer": "512MiB"}, {"pageCache": "", "reserved": True}, "1024Mi", None),
], ids=["defaults", "large", "bytes", "reserved", "no limit"])
def test_memory_follows_from_values(options, memory, request_memory, limit):
    resources = daemon({"options": options, "memory": memory})["resources"]
    assert resources["requests"]["memory"] == request_memory
    assert resources.get("limits", {}).get("memory") == limit


@helm_is_here
def test_options_are_written_as_mount_reads_them():
    assert option_list(daemon(CHOICES["one checkpoint"])) == (
        r"allow_other,metrics_file=/metrics/unshard-flux.prom,buffer=256M,follow_symlinks,prefetch=all,"
        r"split=a\\=b\,c,timeout=30,verify=strict")
    assert option_list(daemon(CHOICES["a claim, nothing kept"])) == "allow_other,prefetch=follow,verify=strict"


@helm_is_here
def test_releases_do_not_meet():
    """Two of them in one namespace: other names, labels that select only their own pods."""
    one, other = (next(document for document in rendered({}, release) if document["kind"] == "DaemonSet")
                  for release in ("unshard", "flux"))
    assert one["metadata"]["name"] == "unshard" and other["metadata"]["name"] == "flux-unshard"
    for document in (one, other):
        selected = document["spec"]["selector"]["matchLabels"]
        assert selected.items() <= document["spec"]["template"]["metadata"]["labels"].items()
    assert one["spec"]["selector"] != other["spec"]["selector"]


@helm_is_here
def test_a_budget_selects_the_daemons():
    documents = rendered(CHOICES["placed"])
    budget = next(one for one in documents if one["kind"] == "PodDisruptionBudget")
    daemons = next(one for one in documents if one["kind"] == "DaemonSet")
    assert budget["spec"]["minAvailable"] == 3
    assert budget["spec"]["selector"] == daemons["spec"]["selector"]
    assert not any(one["kind"] == "PodDisruptionBudget" for one in rendered({}))


# ---- the commands of the DaemonSet, on this machine ----------------------------------------------

class Node:
    """What the DaemonSet has on a node: its commands, which are run here with the paths of a test."""

    def __init__(self, folder, source):
        self.folder = folder
        for name in ("metrics", "cache"):
            (folder / name).mkdir()
        values = {"mount": {"directory": str(folder / "mnt")}, "options": {"chunk": "64K"}}
        pod = daemon_set(values)["spec"]["template"]["spec"]
        self.prepare_container, self.container = pod["initContainers"][0], pod["containers"][0]
        self.mountpoint = pathlib.Path(self.container["args"][-1])
        self.paths = {"/metrics/": f"{folder}/metrics/", "/source": str(source)}
        self.process = None

    def here(self, words):
        for path, ours in self.paths.items():
            words = [word.replace(path, ours) for word in words]
        return words

    def environment(self):
        return dict(os.environ, UNSHARD_CACHE_DIR=str(self.folder / "cache"),
                    PATH=f"{os.path.dirname(UNSHARD)}:{os.environ['PATH']}")

    def call(self, words):
        return subprocess.run(self.here(words), env=self.environment(), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=PATIENCE).returncode

    def prepare(self):
        return self.call(self.prepare_container["command"] + self.prepare_container["args"])

    def start(self):
        with open(self.folder / "log", "a") as log:
            self.process = subprocess.Popen(self.here(self.container["command"] + self.container["args"]),
                                            env=self.environment(), stdout=log, stderr=log)

    def probe(self, name):
        return self.call(self.container[name]["exec"]["command"]) == 0

    def begin_to_stop(self):
        """As the kubelet does it: the hook first. It waits for the container's first process."""
        words = self.container["lifecycle"]["preStop"]["exec"]["command"]
        words = [word.replace("--pid=1", f"--pid={self.process.pid}") for word in words]
        return subprocess.Popen(self.here(words), env=self.environment())

    def discard(self):
        detach(self.mountpoint)
        if self.process:
            daemon = child_named(self.process.pid, "unshard")
            self.process.kill()
            if daemon:
                os.kill(daemon, signal.SIGKILL)
            self.process.wait(PATIENCE)


@pytest.fixture
def node(llama, tmp_path):
    source = tmp_path / "models"
    source.mkdir()
    for name in ("one", "two"):
        shutil.copytree(llama, source / name)
    node = Node(tmp_path, source)
    try:
        yield node
    finally:
        node.discard()


@root
@helm_is_here
def test_a_pod_that_goes_lets_its_readers_finish(node):
    assert node.prepare() == 0
    assert not node.probe("startupProbe")
    node.start()
    wait_for(lambda: node.probe("startupProbe"), what="the mount answers")
    assert node.probe("livenessProbe") and node.probe("readinessProbe")
    wait_for(lambda: (node.folder / "metrics/unshard-models.prom").exists(), what="metrics")
    with open(node.mountpoint / "two/model.safetensors", "rb") as reader:
        begin = reader.read(4096)
        hook = node.begin_to_stop()
        wait_for(lambda: not is_mounted(node.mountpoint), what="nobody finds the mount")
        assert hook.poll() is None and is_alive(node.process.pid)
        whole = begin + reader.read()
        assert len(whole) == os.fstat(reader.fileno()).st_size
    assert node.process.wait(PATIENCE) == 0
    assert hook.wait(PATIENCE) == 0


@root
@helm_is_here
def test_a_daemon_that_was_killed_is_noticed_and_replaced(node):
    assert node.prepare() == 0
    node.start()
    wait_for(lambda: node.probe("startupProbe"), what="the mount answers")
    kill_with_supervisor(child_named(node.process.pid, "unshard"))  # as the end of a container does
    node.process.wait(PATIENCE)
    wait_for(lambda: not node.probe("livenessProbe"), what="it is noticed")
    assert node.prepare() == 0  # as a new pod does
    node.start()
    wait_for(lambda: node.probe("readinessProbe"), what="the mount answers again")
    assert (node.mountpoint / "one/model.safetensors").stat().st_size > 0
    node.process.terminate()
    assert node.process.wait(PATIENCE) == 0 and not is_mounted(node.mountpoint)
