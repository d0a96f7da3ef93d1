"""Which requests can never be served, against machines that try."""

from dataclasses import replace

import numpy as np
import pytest

from emu.core.fit import largest, never_fits
from tests.clusters import HARDWARE, make_cluster, simulate

SMALL = replace(HARDWARE, hbm_bytes_per_gpu=2_316_000)


def machines_of(cluster):
    """They have 21 blocks of 4 tokens, as their hardware has."""
    assert SMALL.num_kv_blocks(cluster.model, 4) == 21
    return [(spec.name, spec.role, SMALL) for spec in cluster.machines]


@pytest.mark.parametrize("names", ["p0 d0", "m0", "m0 m1"])
@pytest.mark.parametrize("output_tokens", [1, 2, 9])
def test_what_fits_is_served_alone_and_what_does_not_fails(names, output_tokens):
    cluster = make_cluster(names, num_blocks=21, block_tokens=4)
    limits = largest(machines_of(cluster), cluster.model, cluster.kind, both_phases=False)
    fits = []
    for prompt_tokens in range(30, 90):
        impossible = never_fits(limits, np.array([prompt_tokens]), np.array([output_tokens]))
        run = simulate(cluster, [(0.0, prompt_tokens, output_tokens)])
        finished = run.columns.requests.causes == ("",)
        assert finished == (not impossible[0]), (prompt_tokens, run.columns.requests.causes)
        fits.append(finished)
    assert any(fits) and not all(fits)


def test_where_a_machine_may_do_both_it_need_not_hold_for_another():
    cluster = make_cluster("p0 d0", num_blocks=21, block_tokens=4)
    request = np.array([60]), np.array([5])
    assert never_fits(largest(machines_of(cluster), cluster.model, cluster.kind, both_phases=False), *request)
    assert not never_fits(largest(machines_of(cluster), cluster.model, cluster.kind, both_phases=True), *request)
