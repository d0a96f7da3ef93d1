"""What is to be calibrated, and how thoroughly."""

from dataclasses import dataclass

from emu.core.specs import ModelSpec

MAX_PASS_TOKENS = 8192  # where no step of them takes too long
MAX_NUM_SEQS = {"cpu": 32, "cuda": 256}
MAX_CONTEXT = {"cpu": 4096, "cuda": 32768}


@dataclass(frozen=True, slots=True)
class Effort:
    """How thoroughly: which grid of shapes, rounds over all of them, seconds for decodes of a shape in a round, seconds that
    the machine idles before a prefill, and the longest step that is measured."""

    is_quick: bool
    num_rounds: int
    measure_s: float
    idle_s: float
    max_step_s: float


# Prefills (llama_30m, one core of a virtual machine) take up to 15 % longer after 0.2 s of idling as after 1 s, and as a rule
# less; after 0.02 s hardly.
IDLE_S = 0.2
FULL = Effort(is_quick=False, num_rounds=5, measure_s=0.2, idle_s=IDLE_S, max_step_s=1.0)
QUICK = Effort(is_quick=True, num_rounds=3, measure_s=0.1, idle_s=IDLE_S, max_step_s=0.6)


@dataclass(frozen=True, slots=True)
class Job:
    """`model`, which must be executable, on the `device` (cpu, cuda or cuda:N) that `hardware` stands for, with up to
    `max_kv_blocks` KV blocks of `block_tokens` tokens. `num_threads` are of steps on a CPU. Meanwhile `num_beside` other
    machines work on the same host, as they will beside the machines whose timing this is."""

    model: ModelSpec
    hardware: str
    device: str
    num_threads: int
    max_kv_blocks: int
    block_tokens: int
    num_beside: int
    effort: Effort

    @property
    def is_on_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def max_num_seqs(self) -> int:
        """Decodes of the largest step that is measured."""
        return MAX_NUM_SEQS[self.device.partition(":")[0]]

    @property
    def max_context(self) -> int:
        """Tokens of the longest sequence that is measured."""
        return MAX_CONTEXT[self.device.partition(":")[0]]
