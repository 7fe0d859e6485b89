# SPDX-License-Identifier: MIT
import atexit
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Digests that unshard keeps for the next time stay out of the developer's own cache.
os.environ["UNSHARD_CACHE_DIR"] = tempfile.mkdtemp(prefix="unshard-cache-")
atexit.register(shutil.rmtree, os.environ["UNSHARD_CACHE_DIR"], ignore_errors=True)
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
big = once("big", checkpoints.big)
