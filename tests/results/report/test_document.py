"""The shell of every page: what a browser lets it do, and that it is text."""

import re
from base64 import b64encode
from hashlib import sha256

from emu.results.report.page import document

PAGE = document("a\x1b[31m\x00b", ["<p>\udcff \x9b\x07\r&amp; kept:\ttab\nline é</p>"], ".x { color: red }")


def test_a_page_loads_nothing_and_runs_its_own_script_alone():
    policy = re.search('<meta http-equiv="Content-Security-Policy" content="([^"]*)">', PAGE)[1]
    [script] = re.findall("<script>(.*?)</script>", PAGE, re.DOTALL)
    digest = b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert PAGE.index("Content-Security-Policy") < PAGE.index("<style>")


def test_a_page_has_no_control_bytes():
    data = PAGE.encode()  # raises for half a surrogate pair
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", data)
    assert "<title>a�[31m�b</title>" in PAGE
    assert "<p>� ���&amp; kept:\ttab\nline é</p>" in PAGE
