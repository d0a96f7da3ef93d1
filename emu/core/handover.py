"""How a KV cache leaves one machine for another: after its prefill, or layer by layer while the prefill runs."""

from emu.core.batch import Batch
from emu.core.message import Message
from emu.core.messages import Cancelled, FlowRequested, FreeKV, KVReady, OfferKV, PullKV, Send, make
from emu.core.sequence import Sequence
from emu.core.timing.chunk import prefill_pass_s
from emu.core.timing.model import TimingModel


class Handover:
    """The plan of one machine's hand-overs (SPLITWISE.md §5).

    *Serialized*: offered when the prompt has been prefilled. *Layer-wise*, for a batch of `layerwise_min_tokens` tokens or
    more (prompt tokens and one for each decode): offered when the step starts, and each of the `num_pieces` pieces, one or
    more whole layers, leaves as soon as it has been computed. The machine's own `timing` tells when that will be.
    """

    __slots__ = ("_kv_bytes_per_token", "_layerwise_min_tokens", "_num_pieces", "_timing")

    def __init__(self, kv_bytes_per_token: int, num_pieces: int, timing: TimingModel, layerwise_min_tokens: float) -> None:
        self._kv_bytes_per_token = kv_bytes_per_token
        self._num_pieces = num_pieces
        self._timing = timing
        self._layerwise_min_tokens = layerwise_min_tokens

    def begin(self, prompts: list[Sequence], batch: Batch, source: int, now_s: float, actions: list[Message]) -> None:
        """The step that prefills `prompts` starts: offer what leaves layer by layer."""
        num_tokens = sum([seq.num_chunk for seq in prompts])
        if num_tokens + batch.num_decodes < self._layerwise_min_tokens:
            return
        end_s = None
        for seq in prompts:
            if seq.decode_on != source and seq.num_prefilled + seq.num_chunk == seq.num_cached:
                if end_s is None:
                    pass_s = prefill_pass_s(self._timing, batch.prefills, batch.num_decodes, batch.context_tokens)
                    end_s = now_s + pass_s
                seq.is_offered = True
                self._send_offer(seq, seq.num_generated + 1, source, now_s, end_s, actions)

    def offer(self, seq: Sequence, source: int, actions: list[Message]) -> None:
        """The prompt has been prefilled."""
        if not seq.is_offered:
            self._send_offer(seq, seq.num_generated, source, 0.0, 0.0, actions)

    def abandon(self, seq: Sequence, actions: list[Message]) -> None:
        """The request ended with its prefill: nobody needs its KV cache."""
        if seq.is_offered:
            actions.append(FreeKV(seq.request_id, seq.attempt))
            actions.append(Send(seq.decode_on, Cancelled(seq.request_id, seq.attempt)))

    def _send_offer(
        self, seq: Sequence, num_generated: int, source: int, from_s: float, until_s: float, actions: list[Message]
    ) -> None:
        request_id, attempt, num_tokens = seq.request_id, seq.attempt, seq.num_cached
        ready = make(KVReady, (request_id, attempt, seq.arrival_s, num_tokens, num_generated, source, from_s, until_s))
        actions.append(make(OfferKV, (seq.decode_on, ready)))

    def pull(self, seq: Sequence, destination: int, actions: list[Message]) -> None:
        """The blocks at the destination are reserved: the flow may start."""
        request_id, attempt, _, num_tokens, _, source, from_s, until_s = seq.offer
        num_bytes = num_tokens * self._kv_bytes_per_token
        flow = (request_id, attempt, source, destination, num_bytes, from_s, until_s, self._num_pieces)
        actions.append(make(PullKV, (make(FlowRequested, flow),)))
