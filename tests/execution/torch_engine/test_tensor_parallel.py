"""Two processes that share a model say what one says."""

import subprocess
import sys

import numpy as np
import pytest

from tests.tiny_checkpoints import CHECKPOINTS, save_checkpoint

pytest.importorskip("torch")
pytest.importorskip("transformers")

from emu.execution.torch_engine.architecture import Architecture
from emu.execution.torch_engine.errors import EngineError
from emu.execution.torch_engine.tensor_parallel import check_divides

ENGINE = ["-m", "emu.execution.torch_engine"]
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]


@pytest.mark.parametrize("name", ["llama_biased", "qwen3"])
def test_two_processes_give_the_logits_and_tokens_of_one(name, tmp_path):
    assert name in CHECKPOINTS
    save_checkpoint(tmp_path, name)
    arguments = ["--checkpoint", tmp_path, "--prompt-ids", "3,14,15,92,65", "--max-new-tokens", "24", "--num-threads", "1"]
    said, logits = [], []
    for launcher in ([], TORCHRUN):
        command = [sys.executable, *launcher, *ENGINE, *arguments, "--logits", tmp_path / "logits.npy"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines()[0])
        logits.append(np.load(tmp_path / "logits.npy"))
        assert len(done.stdout.splitlines()) == 2  # the first process alone speaks
        (tmp_path / "logits.npy").unlink()
    assert said[0] == said[1]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-4, atol=1e-4)


def test_heads_that_do_not_divide_are_refused(tmp_path):
    save_checkpoint(tmp_path, "qwen3")
    with pytest.raises(EngineError, match=r"^3 processes: expected a divisor of the model's num_kv_heads, 2$"):
        check_divides(Architecture.from_folder(str(tmp_path)), 3)
