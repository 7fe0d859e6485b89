# SPDX-License-Identifier: MIT
"""Loads the checkpoint files of a line read from standard input, and answers with a line when every
byte of every tensor is in memory. Says "ready" before: what importing takes is not measured.

    torch_loader.py safetensors|torch.load|torch.load-mmap
"""

import sys

import torch
from safetensors.torch import load_file

LOADERS = {
    "safetensors": load_file,
    "torch.load": lambda path: torch.load(path, weights_only=True),
    "torch.load-mmap": lambda path: torch.load(path, weights_only=True, mmap=True),
}


def touch(tensor):
    """Reads a byte of every page: of a mapped tensor nothing is there before."""
    return int(tensor.reshape(-1).view(torch.uint8)[::4096].sum())


def main():
    load = LOADERS[sys.argv[1]]
    print("ready", flush=True)
    tensors = {}
    for path in sys.stdin.readline().rstrip("\n").split("\t"):
        tensors.update(load(path))
    for tensor in tensors.values():
        touch(tensor)
    print(sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()), flush=True)


if __name__ == "__main__":
    main()
