# SPDX-License-Identifier: MIT
"""Bit-equality of tensors, NaNs included."""

import torch


def raw(tensor):
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else None


def same(left, right):
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return left.numel() == 0 or torch.equal(raw(left), raw(right))


def assert_same(found, expected):
    assert set(found) == set(expected)
    different = [name for name in expected if not same(found[name], expected[name])]
    assert not different, f"tensors that differ: {different[:5]}"


def assert_same_models(found, expected):
    assert_same(dict(found.state_dict()), dict(expected.state_dict()))
