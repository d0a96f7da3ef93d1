"""tools/bench_engine.py: its limits by hand, and a whole run on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TOOL = Path(__file__).parents[2] / "tools" / "bench_engine.py"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
ARGUMENTS = ["--prompts", "8,32", "--batches", "1,3", "--context", "20", "--repeats", "2", "--num-threads", "1"]


def bench(*arguments):
    return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def test_a_run_leaves_each_figure_with_its_limit(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    done = bench("--model", tmp_path, *ARGUMENTS, "--json", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    facts = json.loads((tmp_path / "out.json").read_text())
    rows = facts["rows"]
    assert [(row["phase"], row["tokens"], row["sequences"]) for row in rows] == [
        ("prefill", 8, 1),
        ("prefill", 32, 1),
        ("decode", 20, 1),
        ("decode", 20, 3),
    ]
    for row in rows:
        tokens = row["tokens"] if row["phase"] == "prefill" else row["sequences"]
        assert row["tokens_per_s"] == pytest.approx(tokens / row["seconds"])
        assert row["of_limit"] == pytest.approx(row["tokens_per_s"] / row["limit"])
    # A step reads the weights and, of each sequence, 30 tokens of 2 layers x (K, V) x 2 heads x 4 numbers, 4 bytes each.
    for row in rows[2:]:
        floor_s = (facts["num_params"] * 4 + row["sequences"] * 30 * 32 * 4) / facts["bytes_per_s"]
        assert row["limit"] == pytest.approx(row["sequences"] / floor_s)


def test_a_model_that_is_none_is_one_line():
    done = bench("--model", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bench_engine: --model nowhere: expected a folder with config.json, or one of llama3_8b, ")
    assert done.stderr.count("\n") == 1
