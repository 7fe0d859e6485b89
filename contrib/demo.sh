#!/bin/bash
# SPDX-License-Identifier: MIT
# Shows what unshard does: a small real checkpoint in shards, its mount, a loader reading through it.
# SRC=DIRECTORY MNT=DIRECTORY uses your own checkpoint and mount point instead.
set -euo pipefail
cd "$(dirname "$0")/.."

unshard=$(realpath "${UNSHARD_BIN:-build/unshard}")
python=.venv/bin/python
work=$(mktemp -d -t unshard-demo-XXXXXX)
source=${SRC:-$work/checkpoint}
mountpoint=${MNT:-$work/mnt}
mounted=

cleanup() {
    [ -z "$mounted" ] || "$unshard" umount "$mountpoint" || true
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

# Loads every tensor through the mount and, where the shards can be loaded too, compares.
load() {
    "$python" - "$source" "$mountpoint" <<'PYTHON'
import glob, os, sys, time
import torch
from safetensors import safe_open
source, mount = sys.argv[1:]
shards = {}
for path in glob.glob(source + "/**/*-of-*.safetensors", recursive=True):
    folder = os.path.relpath(os.path.dirname(path), source)
    with safe_open(path, "pt") as file:
        shards.update({(folder, name): path for name in file.keys()})
for path in sorted(glob.glob(mount + "/**/*.safetensors", recursive=True)):
    folder, begin, count, same, size = os.path.relpath(os.path.dirname(path), mount), \
        time.monotonic(), 0, 0, os.path.getsize(path)
    with safe_open(path, "pt") as file:
        for name in file.keys():
            tensor = file.get_tensor(name).clone()
            count += 1
            original = shards.get((folder, name))
            if original and size < 1 << 30:
                with safe_open(original, "pt") as other:
                    expected = other.get_tensor(name)
                same += torch.equal(tensor.view(-1).view(torch.uint8) if tensor.numel() else tensor,
                                    expected.view(-1).view(torch.uint8) if expected.numel()
                                    else expected)
    print(f"{os.path.relpath(path, mount)}: {count} tensors, {size / 1e6:.1f} MB in "
          f"{time.monotonic() - begin:.2f} s; {same} compared and equal to the shards'")
PYTHON
}

if [ -z "${SRC:-}" ]; then make_checkpoint; fi
mkdir -p "$mountpoint"
show ls "$source"
show mount "$source" "$mountpoint"
mounted=yes
title "\$ ls -l $mountpoint"
ls -lR "$mountpoint" | head -n 60
title "Loading through the mount with safetensors"
load
show status "$mountpoint" || true
show umount "$mountpoint"
mounted=
title "Unmounted. Nothing was written to $source."
