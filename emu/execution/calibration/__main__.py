"""`python -m emu.execution.calibration`: the calibration for timing=host, in a process that may load torch.

Its standard input is pickled: the arguments of `write_timing` but the last. Exit code 2 after one line on stderr where
something cannot be used.
"""

import pickle
import sys

from emu.execution.calibration.measurements import CalibrationError
from emu.execution.calibration.progress import progress_lines
from emu.execution.calibration.timing_file import write_timing
from emu.execution.torch_engine.errors import EngineError


def main() -> int:
    job, target, measurements, command = pickle.load(sys.stdin.buffer)
    try:
        write_timing(job, target, measurements, command, progress_lines(f"calibrating {job.model.name} on {job.device}"))
    except (CalibrationError, EngineError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
