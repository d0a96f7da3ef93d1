"""Write the length tables of `workload=azure_conv` and `workload=azure_code` from the released traces.

    python tools/length_tables.py [--data FOLDER] [--out FOLDER]

FOLDER of the data holds `azure_llm_2023/` (default: $EMU_DATA, else ../shared/data beside the repository). The traces:
Azure LLM inference dataset 2023, github.com/Azure/AzurePublicDataset, CC-BY 4.0; Patel et al., "Splitwise: Efficient
Generative LLM Inference Using Phase Splitting", ISCA 2024.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # PYTHONSAFEPATH leaves it out
import hints  # noqa: F401  before what this Python may lack

import numpy as np

from emu.workload.empirical import LENGTHS_DIR
from emu.workload.traces.read import ReadSettings, read_trace
from emu.workload.workload import WorkloadError

REPOSITORY = Path(__file__).resolve().parent.parent

# Denser towards the longest requests, whose few values carry much of the load. In ten-thousandths.
QUANTILES = np.concatenate([np.arange(0, 9800, 20), np.arange(9800, 9980, 5), np.arange(9980, 10001)]) / 10_000


def write_table(trace: Path, service: str, table: Path) -> None:
    """Write quantiles of the prompt and output lengths of `trace` (Azure 2023 CSV), rounded to whole tokens."""
    rows = read_trace(trace, settings=ReadSettings(format="azure"))
    prompt_tokens, output_tokens = rows.prompts, rows.output_tokens
    header = (
        f"Token lengths of {len(prompt_tokens)} requests to Azure's {service} service, as quantiles.\n"
        "Derived from the Azure LLM inference dataset 2023 (github.com/Azure/AzurePublicDataset), CC-BY 4.0;\n"
        "Patel et al., Splitwise, ISCA 2024. Written by tools/length_tables.py.\n"
        "quantile,prompt_tokens,output_tokens"
    )
    # Hazen's definition keeps the sample's mean, where numpy's default halves the weight of the longest request.
    lengths = np.quantile([prompt_tokens, output_tokens], QUANTILES, axis=1, method="hazen")
    np.savetxt(table, np.column_stack([QUANTILES, lengths]), fmt=("%.4f", "%.0f", "%.0f"), delimiter=",", header=header)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("EMU_DATA", REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(data), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=LENGTHS_DIR, metavar="FOLDER")
    arguments = parser.parse_args()
    for service, suffix in (("conversation", "conv"), ("coding", "code")):
        trace = arguments.data / "azure_llm_2023" / f"AzureLLMInferenceTrace_{suffix}.csv"
        try:
            write_table(trace, service, arguments.out / f"azure_{suffix}.csv")
        except WorkloadError as error:
            parser.error(str(error))


if __name__ == "__main__":
    main()
