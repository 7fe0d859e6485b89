#!/bin/bash
# Gets what `make wheel` needs besides packages, as far as it is missing, into build/wheel: Debian's
# sources of cJSON and xxHash, which have no archive that could be linked, and a Python environment
# with what builds and checks the wheel. Does nothing, fast, when all is there.
# usage: tools.sh [MACHINE]
#     MACHINE: aarch64, on a machine that is another: also the archives that are linked there
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/build/wheel
machine=${1:-$(uname -m)}

# apt-get with lists of its own, so that it can ask for what this machine does not: sources, or
# packages of another architecture.
own_apt() {
    apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$folder/apt/entries" \
        -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" \
        -o APT::Sandbox::User=root "$@"
}

# Makes these lists of the distribution's entries that this machine has; of what kind: deb, deb-src.
begin_apt() {
    local kind=$1 entry
    shift
    rm -rf "$folder/apt"
    mkdir -p "$folder"/apt/{entries,lists/partial,cache/archives/partial}
    for entry in /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -e "$entry" ] ||
            sed "s/^Types:.*/Types: $kind/" "$entry" >"$folder/apt/entries/${entry##*/}"
    done
    [ ! -e /etc/apt/sources.list ] ||
        sed -n "s/^deb /$kind /p" /etc/apt/sources.list >"$folder/apt/entries/main.list"
    own_apt "$@" update >/dev/null
}

get_sources() {
    local name
    [ ! -d "$folder/sources/cjson" ] || [ ! -d "$folder/sources/xxhash" ] || return 0
    echo "deps: getting the sources of cJSON and xxHash"
    begin_apt deb-src
    rm -rf "$folder/sources"
    mkdir -p "$folder/sources"
    for name in cjson xxhash; do
        (cd "$folder/sources" && own_apt source "$name" >/dev/null 2>"$name.log" &&
            mv "$name"-[0-9]* "$name") || {
            cat "$folder/sources/$name.log" >&2
            return 1
        }
    done
    rm -rf "$folder/apt"
}

# What Debian has for that machine, unpacked where the cross compiler is told to look.
get_archives() {
    local other=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64
        -o Dir::State::status=/dev/null) package
    [ "$machine" != "$(uname -m)" ] && [ ! -d "$folder/$machine/root" ] || return 0
    if [ "$machine" != aarch64 ]; then
        echo "deps: a wheel for $machine can only be built there" >&2
        return 1
    fi
    begin_apt deb "${other[@]}"
    (cd "$folder/apt" && own_apt "${other[@]}" download libfuse3-dev libssl-dev >/dev/null)
    mkdir -p "$folder/$machine"
    rm -rf "$folder/apt/root"
    for package in "$folder"/apt/*.deb; do
        dpkg-deb -x "$package" "$folder/apt/root"
    done
    mv "$folder/apt/root" "$folder/$machine/root"
    rm -rf "$folder/apt"
}

get_tools() {
    local stamp python=python3
    stamp=$folder/tools/stamp-$(sha256sum <contrib/python/requirements.txt | cut -c 1-16)
    [ ! -e "$stamp" ] || return 0
    [ ! -x /usr/bin/python3 ] || python=/usr/bin/python3
    echo "deps: making the Python environment in build/wheel/tools"
    rm -rf "$folder/tools"
    "$python" -m venv "$folder/tools"
    "$folder/tools/bin/pip" install -q -r contrib/python/requirements.txt
    touch "$stamp"
}

get_tools
get_sources
get_archives
