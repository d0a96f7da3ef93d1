"""Sizes as a grid, prompt machines by token machines, each cell coloured by its run: the paper's Fig. 12."""

from collections.abc import Callable, Mapping, Sequence
from html import escape

from emu.provisioning.design import Size
from emu.provisioning.probe import Probe
from emu.results.report.quantity import significant

CSS = """
.heat table { width: auto; border-collapse: separate; border-spacing: 2px; font-size: 12px; }
.heat td, .heat th { padding: 0 4px; min-width: 36px; height: 26px; text-align: center; border: 0; border-radius: 3px; }
.heat th { color: var(--muted); font-weight: 500; }
.heat td.yes { background: color-mix(in srgb, var(--good) var(--share), var(--card)); }
.heat td.no { background: color-mix(in srgb, var(--bad) var(--share), var(--card)); }
.heat td.beyond { opacity: .45; }
.heat td.found { outline: 2.5px solid var(--text); outline-offset: -1px; font-weight: 700; }
.heat td.compared { outline: 2.5px dashed var(--blue); outline-offset: -1px; font-weight: 700; }
.heat td.found.compared { outline: 2.5px dashed var(--text); }
"""
MAX_SHARE = 0.65  # of the colour in a cell: text on it stays readable


def margin_cell(probe: Probe) -> tuple[str, float]:
    """The tightest SLO's room in percent, and how strong the colour is: fully from +-50 % on."""
    margin = probe.worst_margin
    return ("–", 1.0) if margin is None else (f"{100 * margin:+.0f}", min(1.0, abs(margin) / 0.5))


def heat_map(
    probes: Mapping[Size, Probe],
    found: Size | None,
    compared: set[Size],
    cell: Callable[[Probe], tuple[str, float]],
    is_allowed: Callable[[Size], bool],
    has_pools: bool,
) -> str:
    """An HTML table of the sizes that were run and those between them, blank where nothing was; without pools a row of those
    that were run. `cell` gives the text of a cell and how strong its colour is, 0 to 1; pale where not `is_allowed`."""
    prompts: Sequence[int] = sorted({size.num_prompt for size in probes})
    if has_pools:
        prompts = range(prompts[0], prompts[-1] + 1)
    tokens = range(max(size.num_token for size in probes), min(size.num_token for size in probes) - 1, -1)

    def td(size: Size) -> str:
        if size not in probes:
            return "<td></td>"
        probe = probes[size]
        text, strength = cell(probe)
        is_so = {"found": size == found, "compared": size in compared, "beyond": not is_allowed(size)}
        marks = [name for name, holds in is_so.items() if holds]
        title = f"{size}: {', '.join(probe.reasons) or 'carries the rate'} ({significant(probe.rate_rps)} requests/s)"
        style = f"--share: {100 * MAX_SHARE * (0.2 + 0.8 * strength):.0f}%"
        classes = " ".join(["yes" if probe.met else "no", *marks])
        return f'<td class="{classes}" style="{style}" title="{escape(title)}">{escape(text)}</td>'

    rows = []
    for num_token in tokens:
        name = f"{num_token} token" if has_pools else ""
        rows.append(f"<tr><th>{name}</th>{''.join(td(Size(num_prompt, num_token)) for num_prompt in prompts)}</tr>")
    label = "prompt" if has_pools else "machines"
    head = "".join(f"<th>{num_prompt}</th>" for num_prompt in prompts)
    return f'<div class="scroll heat"><table>{"".join(rows)}<tr><th>{label}</th>{head}</tr></table></div>'
