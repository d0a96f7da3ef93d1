"""Files are written whole or not at all, never through a link, and read within bounds."""

import os

import pytest

from emu import files


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    for name in ("summary.json", ".summary.json.part"):
        (tmp_path / name).symlink_to(tmp_path / "mine")
    files.write_text("results", tmp_path / "summary.json")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "summary.json").read_text() == "results" and not (tmp_path / "summary.json").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "summary.json"]


def test_what_is_cut_off_leaves_what_was_there(tmp_path):
    (tmp_path / "page.html").write_text("before")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "page.html") as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page.html", "before")]


def test_a_lock_is_not_made_through_a_link(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError), files.locked(tmp_path / ".lock"):
        pass
    assert not (tmp_path / "mine").exists()


def test_no_fifo_and_no_device_is_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match=r"not a regular file|Is a directory"):
            files.read_text(path)


def test_a_text_has_an_end(tmp_path, monkeypatch):
    (tmp_path / "text").write_text("12345")
    assert files.read_text(tmp_path / "text") == "12345"
    monkeypatch.setattr(files, "MAX_TEXT_BYTES", 4)
    with pytest.raises(ValueError, match="5 bytes; expected at most 4"):
        files.read_text(tmp_path / "text")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "{"])
def test_json_that_cannot_be_read(text):
    with pytest.raises(ValueError):
        files.parse_json(text)
