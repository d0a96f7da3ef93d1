"""Prompts of a trace that are text. A tiny tokenizer: words of a small vocabulary, `<s>` before each text."""

import json
import re
import sys

import pytest

from emu.install import install_command
from emu.workload.trace import Trace
from emu.workload.workload import WorkloadError

WORDS = ("<s>", "<unk>", "hello", "world", "again")


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with a tokenizer.json that would cut every text to three tokens and pad it to eight."""
    tokenizers = pytest.importorskip("tokenizers", reason="the library tokenizers is not installed")
    vocabulary = {word: token_id for token_id, word in enumerate(WORDS)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=8)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "trace.jsonl"
    texts = ("Hello", "hello world hello world", "what again")
    rows = [{"timestamp": second, "prompt": text, "output_length": 5} for second, text in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def built(path, tokenizer, start_s=0):
    return Trace(str(path), "auto", str(tokenizer), start_s, 60, 1, "auto", "refuse", "refuse").build(seed=0)


@pytest.mark.parametrize("name", ["", "tokenizer.json"])
def test_text_becomes_the_ids_of_its_tokens_whole(checkpoint, path, name):
    workload = built(path, checkpoint / name)
    assert [ids.tolist() for ids in workload.prompt_ids] == [[0, 2], [0, 2, 3, 2, 3], [0, 1, 4]]
    assert workload.prompt_tokens.tolist() == [2, 5, 3]


def test_only_the_window_is_made_into_tokens(checkpoint, path):
    assert [ids.tolist() for ids in built(path, checkpoint, start_s=2).prompt_ids] == [[0, 1, 4]]


def refused(path, tokenizer):
    with pytest.raises(WorkloadError) as error:
        built(path, tokenizer)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_text_without_a_tokenizer_is_one_line(path):
    expected = f"workload.path={path}: its prompts are text; expected workload.tokenizer=FOLDER with the model's tokenizer.json"
    assert refused(path, "") == expected


def test_a_tokenizer_that_is_not_there_is_one_line(checkpoint, path, tmp_path):
    (checkpoint / "tokenizer.json").unlink()
    expected = "expected a tokenizer.json, or a folder with one"
    for tokenizer, file in ((checkpoint, checkpoint / "tokenizer.json"), (tmp_path / "none", tmp_path / "none")):
        assert refused(path, tokenizer) == f"workload.tokenizer={tokenizer}: no file {file}; {expected}"


@pytest.mark.parametrize("content", ["", "{}", "no JSON\nat all"])
def test_a_file_that_is_no_tokenizer_is_one_line(checkpoint, path, content):
    (checkpoint / "tokenizer.json").write_text(content)
    assert re.fullmatch(
        f"workload.tokenizer={re.escape(str(checkpoint))}: .+; expected the tokenizer.json of a model",
        refused(path, checkpoint),
    )


def test_without_the_library_it_says_what_to_install(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    expected = f"workload.tokenizer={tmp_path}: the library tokenizers is not installed; expected {install_command('torch')}"
    assert refused(path, tmp_path) == expected
