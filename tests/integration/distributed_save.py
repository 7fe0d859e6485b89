# SPDX-License-Identifier: MIT
"""Saves checkpoints with torch.distributed.checkpoint from several processes (gloo).

    distributed_save.py FOLDER

makes below FOLDER: dcp (nested state with whole, replicated, row-, column- and two-way sharded
tensors), sharded (ShardedTensor), hf (HuggingFaceStorageWriter, a file for each rank) and
consolidated (the same with consolidation beside the pieces); and expected.pt, the whole tensors.
"""

import os
import pathlib
import socket
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

RANKS = 4


def whole_tensors():
    generator = torch.Generator().manual_seed(21)

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "row": random(10, 6), "row.uneven": random(5, 300), "row.large": random(1024, 700),
        "column": random(6, 10), "column.large": random(700, 1024).bfloat16(),
        "middle": random(3, 9, 5), "both": random(9, 14), "both.half": random(64, 96).half(),
        "replicated": random(7, 3), "whole": random(11).double(), "scalar": torch.tensor(7),
        "transposed": random(40, 30).t(), "transposed.row": random(12, 8).t().contiguous(),
        "empty": torch.empty(0, 3), "float8": random(8, 4).to(torch.float8_e4m3fn),
        "bool": random(9) > 0,
    }


def shard(tensors, mesh, grid):
    placements = {"row": [Shard(0)], "row.uneven": [Shard(0)], "row.large": [Shard(0)],
                  "column": [Shard(1)], "column.large": [Shard(1)], "middle": [Shard(1)],
                  "replicated": [Replicate()], "transposed.row": [Shard(0)]}
    result = dict(tensors)
    for name, placement in placements.items():
        result[name] = distribute_tensor(tensors[name], mesh, placement)
    for name in ("both", "both.half"):
        result[name] = distribute_tensor(tensors[name], grid, [Shard(0), Shard(1)])
    return result


def save_sharded(folder, tensors, rank):
    """ShardedTensor, which FSDP's first version saves."""
    from torch.distributed._shard import shard_parameter
    from torch.distributed._shard.sharding_spec import ChunkShardingSpec

    spec = ChunkShardingSpec(dim=0, placements=[f"rank:{one}/cpu" for one in range(RANKS)])
    module = torch.nn.Module()
    for name in ("row", "row.large"):
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(tensors[name].clone()))
        shard_parameter(module, name.replace(".", "_"), spec)
    state = {name: getattr(module, name.replace(".", "_")) for name in ("row", "row.large")}
    dcp.save(state, checkpoint_id=folder / "sharded")


def run(rank, port, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    grid = init_device_mesh("cpu", (2, RANKS // 2))
    tensors = whole_tensors()
    state = shard(tensors, mesh, grid)
    dcp.save({"model": state, "optimizer": {"lr": 0.1, "step": tensors["scalar"]}, "epoch": 3},
             checkpoint_id=folder / "dcp")
    save_sharded(folder, tensors, rank)
    # It saves contiguous tensors alone.
    flat = {name: tensor for name, tensor in state.items() if name != "transposed"}
    dcp.save(dict(flat), storage_writer=dcp.HuggingFaceStorageWriter(
        str(folder / "hf"), save_distributed=True))
    # Its consolidation loses scalars and cannot do integers.
    floats = {name: tensor for name, tensor in flat.items()
              if name not in ("scalar", "bool", "empty", "float8")}
    dcp.save(floats, checkpoint_id=str(folder / "consolidated"),
             storage_writer=dcp.HuggingFaceStorageWriter(
                 str(folder / "consolidated"), save_distributed=True, enable_consolidation=True))
    if rank == 0:
        torch.save(tensors, folder / "expected.pt")
    dist.destroy_process_group()


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(run, args=(port, folder), nprocs=RANKS,
                                          start_method="fork")


if __name__ == "__main__":
    main()
