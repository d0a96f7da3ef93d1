"""What was measured is measured once, by each state of the code."""

import pytest

from emu.reproduction.store import Store, code_digest


def test_a_measurement_is_made_once_and_kept(tmp_path):
    made = []

    def measure():
        made.append(1)
        return {"rate_rps": 0.1 + 0.2}

    first = Store(tmp_path / "runs", "code").get(["run", 70.0], measure)
    assert Store(tmp_path / "runs", "code").get(["run", 70.0], measure) == first == {"rate_rps": 0.1 + 0.2}
    assert len(made) == 1


def test_another_key_or_other_code_is_measured_anew(tmp_path):
    store = Store(tmp_path, "code")
    store.get(["run", 70.0], lambda: {"of": 1})
    assert store.get(["run", 71.0], lambda: {"of": 2}) == {"of": 2}
    assert Store(tmp_path, "other").get(["run", 70.0], lambda: {"of": 3}) == {"of": 3}
    assert store.get(["run", 70.0], lambda: {"of": 4}) == {"of": 1}


def test_what_was_not_written_to_its_end_is_measured_again(tmp_path):
    store = Store(tmp_path, "code")
    store.get("run", lambda: {"of": 1})
    [path] = tmp_path.iterdir()
    path.write_text(path.read_text()[:-9])
    assert store.get("run", lambda: {"of": 2}) == {"of": 2}


def test_an_interrupted_measurement_leaves_nothing(tmp_path):
    store = Store(tmp_path, "code")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("run", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_the_page_does_not_decide_results_and_the_scheduler_does(tmp_path, monkeypatch):
    import emu.reproduction.store as module

    def digest_with(**files):
        for name in ("core", "execution", "workload", "runtime", "results/report", "transfer", "provisioning"):
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "build.py").touch()
        for name, text in files.items():
            (tmp_path / name.replace("__", "/")).with_suffix(".py").write_text(text)
        monkeypatch.setattr(module, "SOURCE_DIR", tmp_path)
        code_digest.cache_clear()
        return code_digest()

    try:
        bare = digest_with()
        assert digest_with(results__report__page="a page") == bare
        assert digest_with(core__scheduler="a scheduler") != bare
    finally:
        code_digest.cache_clear()
