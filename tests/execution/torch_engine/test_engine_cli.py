"""`python -m emu.execution.torch_engine`, as somebody uses it who has a checkpoint and nothing else of emu in mind."""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests.tiny_checkpoints import save_checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from emu.execution.torch_engine.__main__ import main  # noqa: E402

PROMPT = [3, 14, 15, 92, 65]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    return folder, save_checkpoint(folder, "llama_llama3_rope")


def their_tokens(theirs, num_tokens):
    ids = torch.tensor([PROMPT])
    output = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=num_tokens, do_sample=False)
    return output[0, len(PROMPT) :].tolist()


def run(capsys, *arguments):
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_tokens_and_logits_are_those_of_transformers(checkpoint, tmp_path):
    folder, theirs = checkpoint
    command = [sys.executable, "-m", "emu.execution.torch_engine", "--checkpoint", folder, "--prompt-ids", "3,14,15,92,65"]
    options = ["--max-new-tokens", "16", "--dtype", "fp32", "--device", "cpu", "--logits", tmp_path / "logits.npy", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    expected = their_tokens(theirs, 16)
    assert report["token_ids"] == expected
    assert (report["prompt_tokens"], report["new_tokens"], report["dtype"], report["device"]) == (5, 16, "fp32", "cpu")
    assert report["prefill_s"] > 0 and report["decode_s"] > 0 and report["tokens_per_s"] > 0
    logits = np.load(tmp_path / "logits.npy")
    assert logits.dtype == np.float32
    with torch.inference_mode():
        theirs_logits = theirs(torch.tensor([PROMPT + expected[:-1]])).logits[0, len(PROMPT) - 1 :]
    np.testing.assert_allclose(logits, theirs_logits.numpy(), rtol=1e-4, atol=1e-4)


def test_the_text_has_ids_and_speed(checkpoint, capsys):
    folder, theirs = checkpoint
    code, out, err = run(
        capsys, "--checkpoint", folder, "--prompt-ids", "3, 14,15,92,65", "--max-new-tokens", 3, "--block-tokens", 2
    )
    ids, speed = out.splitlines()
    assert (code, err, ids) == (0, "", ",".join(map(str, their_tokens(theirs, 3))))
    assert speed.startswith("3 tokens, ") and " tokens/s (prefill of 5 tokens " in speed


def test_an_eos_token_ends_the_answer_and_is_in_it(checkpoint, capsys):
    folder, theirs = checkpoint
    expected = their_tokens(theirs, 12)
    end = next(index for index, token in enumerate(expected) if index >= 4 and token not in expected[:index])
    arguments = ["--checkpoint", folder, "--prompt-ids", "3,14,15,92,65", "--max-new-tokens", 12, "--json"]
    path = folder / "generation_config.json"
    before = path.read_text()
    try:
        path.write_text(json.dumps({"eos_token_id": [expected[end], 198]}))
        assert json.loads(run(capsys, *arguments)[1])["token_ids"] == expected[: end + 1]
        assert json.loads(run(capsys, *arguments, "--ignore-eos")[1])["token_ids"] == expected
    finally:
        path.write_text(before)


def test_a_seed_and_a_temperature_draw_the_same_again(checkpoint, capsys):
    folder, _ = checkpoint
    arguments = ["--checkpoint", folder, "--prompt-ids", "1", "--temperature", "1.5", "--seed"]
    first, again, other = (run(capsys, *arguments, seed)[1].splitlines()[0] for seed in (1, 1, 2))
    assert first == again != other


def test_random_weights_need_the_config_alone(checkpoint, tmp_path, capsys):
    (tmp_path / "config.json").write_text((checkpoint[0] / "config.json").read_text())
    code, out, _ = run(capsys, "--checkpoint", tmp_path, "--random-weights", "--prompt-ids", "1", "--dtype", "bf16")
    assert code == 0 and len(out.splitlines()[0].split(",")) == 16
    assert run(capsys, "--checkpoint", tmp_path, "--prompt-ids", "1")[0] == 2


def test_a_prompt_as_text_goes_through_the_folders_tokenizer(checkpoint, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    words = {f"w{number}": number for number in range(199)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(checkpoint[0] / name)
    assert run(capsys, "--checkpoint", tmp_path, "--prompt", "w3")[2].startswith(f"{tmp_path / 'tokenizer.json'}: no such file")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert run(capsys, "--checkpoint", tmp_path, "--prompt", "w3")[2].startswith(f"{tmp_path / 'tokenizer.json'}: no tokenizer")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    report = json.loads(run(capsys, "--checkpoint", tmp_path, "--prompt", "w3 w14 w15 w92 w65", "--json")[1])
    assert report["token_ids"] == their_tokens(checkpoint[1], 16)
    assert report["text"].split() == [f"w{token}" for token in report["token_ids"]]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--prompt-ids", "1,199"], "token id 199: expected 0 to 198, the model's vocabulary"),
        (["--prompt-ids", "1,-3"], "token id -3: expected 0 to 198, the model's vocabulary"),
        (["--prompt-ids", ""], "the prompt has no tokens: expected at least one"),
        (["--prompt-ids", "1,two"], "--prompt-ids 1,two: expected whole numbers with commas between them, such as 1,2,3"),
        (
            ["--prompt-ids", ",".join(["1"] * 510)],
            "a prompt of 510 tokens and 16 new ones: expected at most 512 together, the model's context",
        ),
        (["--prompt-ids", "1", "--max-new-tokens", "0"], "--max-new-tokens 0: expected a whole number >= 1"),
        (["--prompt-ids", "1", "--block-tokens", "0"], "--block-tokens 0: expected a whole number >= 1"),
        (["--prompt-ids", "1", "--temperature", "-1"], "--temperature -1.0: expected a number >= 0"),
        (["--prompt-ids", "1", "--logits", "/nowhere/l.npy"], "--logits /nowhere/l.npy: no such folder"),
        (["--prompt-ids", "1", "--device", "tpu"], "device=tpu: expected cpu, cuda or cuda:N"),
        (["--prompt-ids", "1", "--dtype", "fp8"], "argument --dtype: invalid choice: 'fp8'"),
        (["--prompt-ids", "1", "--checkpoint", "/nowhere"], "/nowhere: no such folder; expected a Hugging Face checkpoint"),
        ([], "one of the arguments --prompt-ids --prompt is required"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_code_2(checkpoint, capsys, arguments, line):
    code, out, err = run(capsys, "--checkpoint", checkpoint[0], *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line)
