"""requests.parquet: a row a request, facts only."""

from pathlib import Path

from emu.files import replacing
from emu.results.columns import Requests

NUMBERS = ("prompt_tokens", "output_tokens", "num_tokens_out", "num_recomputed", "attempts", "evictions")
MACHINES = ("prefill_on", "decode_on")
TIMES = (
    "arrival_s",
    "prefill_start_s",
    "first_token_s",
    "kv_ready_s",
    "kv_pull_s",
    "kv_received_s",
    "decode_start_s",
    "second_token_s",
    "last_token_s",
    "end_s",
)
REQUESTS = "requests.parquet"
STATUSES = ("unfinished", "finished", "failed")


def write_requests(requests: Requests, path: Path) -> None:
    """Write to `path` `request_id` and the columns of `Requests`, in order of arrival; `status` and `cause` as text.

    Null is a time at which nothing happened, and the machine of a request never placed. The same facts give the same bytes.
    Raises OSError where it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    table = {"request_id": pa.array(range(len(requests)), pa.int64())}
    table |= {name: pa.array(getattr(requests, name)) for name in NUMBERS}
    for name in MACHINES:
        machine = getattr(requests, name)
        table[name] = pa.array(machine, mask=machine < 0)
    table |= {name: pa.array(getattr(requests, name), from_pandas=True) for name in TIMES}  # NaN becomes null
    table["status"] = pa.DictionaryArray.from_arrays(requests.status, STATUSES)
    table["cause"] = pa.DictionaryArray.from_arrays(requests.cause, requests.causes)
    with replacing(path) as temporary:
        parquet.write_table(pa.table(table), temporary, compression="zstd", use_dictionary=["status", "cause"])
