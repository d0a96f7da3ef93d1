"""What the charts of distributions call their percentiles."""

import numpy as np
import pytest

from emu.results.report.cumulative import comparison_chart, cumulative_chart
from emu.results.report.curve import Curve


@pytest.mark.parametrize(("number", "mark"), [(1, " of 1 {}"), (99, " of 99 {}s"), (100, "")])
def test_p99_of_few_is_marked(number, mark):
    curve = Curve.of(np.linspace(1.0, 2.0, number) if number > 1 else np.array([1.0]))
    percentiles = {"p50": 1.5, "p90": 1.9, "p99": 1.99}
    page = cumulative_chart("TTFT", "", curve, "blue", percentiles, number)
    assert f"p99{mark.format('request')} 1.99 s" in page and "p90 1.90 s" in page
    page = comparison_chart("Wire", "", [("really", "blue", curve)])
    assert f", p99{mark.format('value')} {curve.percentile(99):.2f} s" in page
