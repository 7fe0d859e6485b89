#!/bin/bash
# SPDX-License-Identifier: MIT
# Shows what unshard does: a small real checkpoint in shards, its mount, a loader reading through it.
# SRC=DIRECTORY MNT=DIRECTORY uses your own checkpoint and mount point instead, and then nothing but the
# program and what every system has: no Python.
set -euo pipefail
cd "$(dirname "$0")/../.."

unshard=$(realpath "${UNSHARD_BIN:-build/unshard}")
python=.venv/bin/python
work=$(mktemp -d -t unshard-demo-XXXXXX)
source=${SRC:-$work/checkpoint}
mountpoint=${MNT:-$work/mnt}
mounted=

cleanup() {
    [ -z "$mounted" ] || "$unshard" umount --lazy "$mountpoint" || true
    rmdir "$work/mnt" 2>/dev/null || true
    mountpoint -q "$work/mnt" 2>/dev/null || rm -rf "$work"
}
trap cleanup EXIT

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }

# Runs the tool and shows the command line as a user would type it.
show() {
    title "\$ unshard $*"
    "$unshard" "$@"
}

make_checkpoint() {
    title "A small Llama, saved in shards by transformers"
    HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_DISABLE_PROGRESS_BARS=1 \
        "$python" - "$source" 2>/dev/null <<'PYTHON'
import sys
import torch
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(vocab_size=8000, hidden_size=512, intermediate_size=1400,
                     num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4)
LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1], max_shard_size="12MB")
PYTHON
    ls -l "$source"
}

# Loads every tensor through the mount and compares it with that of its shard.
load() {
    title "Loading through the mount with safetensors"
    "$python" - "$source" "$mountpoint" <<'PYTHON'
import glob, os, sys, time
import torch
from safetensors import safe_open
source, mount = sys.argv[1:]
shards = {}
for path in glob.glob(source + "/*-of-*.safetensors"):
    with safe_open(path, "pt") as file:
        shards.update({name: path for name in file.keys()})
for path in sorted(glob.glob(mount + "/*.safetensors")):
    begin, same = time.monotonic(), 0
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        tensors = {name: file.get_tensor(name).clone() for name in names}
    seconds = time.monotonic() - begin
    for name in names:
        with safe_open(shards[name], "pt") as original:
            same += torch.equal(tensors[name], original.get_tensor(name))
    print(f"{os.path.relpath(path, mount)}: {len(names)} tensors, {os.path.getsize(path) / 1e6:.1f} MB in "
          f"{seconds:.2f} s; {same} compared and equal to the shards'")
PYTHON
}

# Reads of the largest files what does not take long, as a loader of one file for each component would.
read_files() {
    title "Reading the largest files through the mount, of each 256 MiB at most"
    local file said
    find "$mountpoint" -type f -size +63k -printf '%s %p\n' | sort -rn | head -n 4 >"$work/files"
    while read -r _ file; do
        if said=$(LC_ALL=C dd if="$file" of=/dev/null bs=4M count=64 2>&1); then
            printf '%s: %s\n' "${file#"$mountpoint"/}" "$(tail -n 1 <<<"$said")"
        else
            printf '%s: cannot be read, .unshard/errors tells why\n' "${file#"$mountpoint"/}"
        fi
    done <"$work/files"
}

# On a terminal the mount stays until Enter is pressed.
wait_for_user() {
    [ -t 0 ] && [ -t 1 ] || return 0
    title "$mountpoint is mounted: point your loader at it. Enter unmounts it."
    read -r _ || true
}

[ -n "${SRC:-}" ] || make_checkpoint
mkdir -p "$mountpoint"
show ls "$source" || true
show mount "$source" "$mountpoint"
mounted=yes
show wait --timeout 20 "$mountpoint" || true
title "\$ ls -l $mountpoint"
ls -lR "$mountpoint" | head -n 60
if [ -n "${SRC:-}" ]; then read_files; else load; fi
show status "$mountpoint" || true
[ -z "${SRC:-}" ] || wait_for_user
show umount "$mountpoint"
mounted=
title "Unmounted. Nothing was written to $source."
