"""What the page of a search shows of its runs."""

import re
from dataclasses import replace

import pytest

from emu.provisioning.design import Size
from emu.provisioning.ledger import Key
from emu.provisioning.most import Rates
from emu.provisioning.page import pareto_front, render
from emu.provisioning.question import COST, THROUGHPUT, Caps
from emu.provisioning.search import Answer, Best, Question
from tests.provisioning.test_least import bordered, design


def cells(page):
    """The text of each cell of a heat map and the classes it has."""
    return {
        text: classes.split()
        for classes, text in re.findall(r'<td class="([^"]+)" style="[^"]+" title="[^"]+">([^<]+)</td>', page)
    }


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 1)], [(1, 1)]),
        ([(2, 5), (1, 3), (2, 4), (3, 5), (4, 4), (5, 9)], [(1, 3), (2, 5), (5, 9)]),
        ([(1, -4), (2, -4), (3, -1)], [(1, -4), (3, -1)]),
    ],
)
def test_the_pareto_front_is_what_no_other_point_betters(points, front):
    assert pareto_front(points) == front


def test_a_cell_a_size_marked_as_found_compared_and_beyond_the_caps():
    hh = design("splitwise_hh")
    rooms = {Size(3, 1): 0.11, Size(3, 2): 0.22, Size(4, 1): 0.33, Size(5, 1): 0.44}
    run, _ = bordered(lambda size: size.num_prompt > 2, rooms.get)
    probes = {Key(hh.name, size, 10.0): run(size, 10.0) for size in (*rooms, Size(2, 2))}
    question = Question(COST, (hh,), Caps(max_machines=5), (10.0,), Rates(1, 10, 0.1), (), False)
    probes = {key: replace(one, dollars_per_hour=hh.dollars_per_hour(key.size)) for key, one in probes.items()}
    found, other = (Best(size, probes[Key(hh.name, size, 10.0)]) for size in (Size(3, 1), Size(4, 1)))
    answers = [Answer(hh, 10.0, found), Answer(hh, 10.0, other, is_compared=True)]
    page = render(question, probes, answers, answers[:1])
    assert "<h1>Provisioning: least cost for 10 requests/s</h1>" in page
    assert cells(page) == {
        "+11": ["yes", "found"],
        "+22": ["yes"],
        "+33": ["yes", "compared"],
        "+44": ["yes", "beyond"],
        "-50": ["no"],
    }
    assert "<h3>Power against cost</h3>" in page and "timing=constant" not in page
    illustrative = {key: replace(one, illustrative="timing=constant is none") for key, one in probes.items()}
    assert render(question, illustrative, answers, answers[:1]).count("timing=constant is none") == 1
    assert page.count('<g class="marker blue"') == 2 + 1  # 4 and 5 machines, each once, and the legend


def test_a_cell_of_a_search_for_the_highest_rate_has_the_highest_that_it_carried():
    hh = design("splitwise_hh")
    run, _ = bordered(lambda size: True)
    missed, _ = bordered(lambda size: False)
    probes = {Key(hh.name, Size(3, 1), rate): (run if rate < 35 else missed)(Size(3, 1), rate) for rate in (10.0, 30.0, 40.0)}
    probes[Key(hh.name, Size(2, 2), 30.5)] = missed(Size(2, 2), 30.5)
    question = Question(THROUGHPUT, (hh,), Caps(max_machines=4), (), Rates(1, 50, 0.1), (), False)
    answers = [Answer(hh, None, Best(Size(3, 1), probes[Key(hh.name, Size(3, 1), 30.0)]))]
    page = render(question, probes, answers, answers)
    assert cells(page) == {"30": ["yes", "found"], "&lt; 30.5": ["no"]}
    assert page.index("Throughput against cost") < page.index("Throughput against power")
    assert "Pareto front</li>" not in page  # one point: no line, no legend
    assert page.count('<g class="marker blue"') == 2 * (1 + 1)  # in both charts the size once, at 30/s, and the legend
    assert ">3P, 1T</text>" in page or ">3P1T</text>" in page
    assert {"model", "timing", "seeds", "margin"} <= set(re.findall("<dt>([^<]+)</dt>", page))


def test_a_search_that_found_nothing_has_a_page():
    hh = design("splitwise_hh")
    run, _ = bordered(lambda size: False)
    question = Question(COST, (hh,), Caps(max_machines=3), (10.0,), Rates(1, 10, 0.1), (), False)
    page = render(question, {Key(hh.name, Size(2, 1), 10.0): run(Size(2, 1), 10.0)}, [Answer(hh, 10.0, None)], [])
    assert "No size within the caps carried its rate." in page
    assert "found: none" in page
