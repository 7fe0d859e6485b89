# SPDX-License-Identifier: MIT
import os
import pathlib
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import pytest  # noqa: E402

import checkpoints  # noqa: E402
import harness  # noqa: E402


def pytest_configure(config):
    config.addinivalue_line("markers", "heavy: too slow, or of no use, under a sanitizer")


def pytest_sessionstart(session):
    for program in (harness.UNSHARD, harness.SLOWFS):
        if not os.access(program, os.X_OK):
            pytest.exit(f"{program} is not built: run make check", 2)


def once(name, build):
    """A checkpoint built once per session; tests must not change it."""
    @pytest.fixture(scope="session", name=name)
    def fixture(tmp_path_factory):
        return build(tmp_path_factory.mktemp(name) / "checkpoint")
    return fixture


llama = once("llama", checkpoints.llama)
llama_fp16 = once("llama_fp16", lambda folder: checkpoints.llama(folder, variant="fp16"))
t5 = once("t5", checkpoints.t5_encoder)
flux = once("flux", checkpoints.flux)
flux_fp16 = once("flux_fp16", lambda folder: checkpoints.flux(folder, "fp16"))


@pytest.fixture
def big(tmp_path_factory):
    """96 MiB of random tensors in 6 shards, for what needs time or many chunks."""
    return _big(tmp_path_factory)


_built = {}


def _big(factory):
    if "big" not in _built:
        import torch

        generator = torch.Generator().manual_seed(5)
        tensors = {f"layer.{i}.weight": torch.randint(0, 256, (2 << 20,), dtype=torch.uint8,
                                                      generator=generator)
                   for i in range(47)}
        tensors["odd"] = torch.randint(0, 256, (2097143,), dtype=torch.uint8, generator=generator)
        _built["big"] = checkpoints.save_shards(factory.mktemp("big") / "checkpoint", tensors, 6,
                                                metadata={"format": "pt"})
    return _built["big"]
