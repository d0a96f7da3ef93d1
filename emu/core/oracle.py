"""What no policy may know: how many tokens each request will write."""

from collections.abc import Sequence


class OutputOracle:
    """Knows the true output lengths. Only `build.py` makes one, and only for a machine kind that `wants_oracle`."""

    __slots__ = ("_output_tokens",)

    def __init__(self, output_tokens: Sequence[int]) -> None:
        self._output_tokens = output_tokens

    def output_tokens(self, request_id: int) -> int:
        """Tokens that the request will write in all, the first one included."""
        return self._output_tokens[request_id]
