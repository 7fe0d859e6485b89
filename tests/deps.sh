#!/bin/bash
# Installs what building and testing need, as far as it is missing: Debian packages, and a Python
# environment in .venv. Does nothing, fast, when all is there.
# usage: tests/deps.sh [build|tests]     build: only the packages that compiling needs
set -euo pipefail
cd "$(dirname "$0")/.."

build_packages=(build-essential pkg-config libfuse3-dev fuse3 libcjson-dev libxxhash-dev
    libssl-dev)
test_packages=(libcmocka-dev clang clang-format clang-tidy libclang-rt-14-dev llvm-14 python3
    python3-venv fio bindfs mergerfs xxhash mandoc ca-certificates util-linux)

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

install_packages "${build_packages[@]}"
if [ "${1:-tests}" = tests ]; then
    install_packages "${test_packages[@]}"
    install_venv
fi
