#!/bin/bash
# Gets what `make wheel` needs besides packages, as far as it is missing, into build/wheel: Debian's
# sources of cJSON and xxHash, which have no archive that could be linked, and a Python environment
# with what builds and checks the wheel. Does nothing, fast, when all is there.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$PWD/build/wheel

# apt-get with lists of its own, made of the distribution's entries that this machine has, since few
# machines ask for sources.
sources_apt() {
    apt-get -q -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$folder/apt/entries" \
        -o Dir::State::lists="$folder/apt/lists" -o Dir::Cache="$folder/apt/cache" \
        -o APT::Sandbox::User=root "$@"
}

write_entries() {
    local entry
    mkdir -p "$folder"/apt/{entries,lists/partial,cache/archives/partial}
    for entry in /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
        [ ! -e "$entry" ] ||
            sed 's/^Types:.*/Types: deb-src/' "$entry" >"$folder/apt/entries/${entry##*/}"
    done
    [ ! -e /etc/apt/sources.list ] ||
        sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$folder/apt/entries/main.list"
}

get_sources() {
    local name
    [ ! -d "$folder/sources/cjson" ] || [ ! -d "$folder/sources/xxhash" ] || return 0
    echo "deps: getting the sources of cJSON and xxHash"
    write_entries
    sources_apt update >/dev/null
    rm -rf "$folder/sources"
    mkdir -p "$folder/sources"
    for name in cjson xxhash; do
        (cd "$folder/sources" && sources_apt source "$name" >/dev/null 2>"$name.log" &&
            mv "$name"-[0-9]* "$name") || {
            cat "$folder/sources/$name.log" >&2
            return 1
        }
    done
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
