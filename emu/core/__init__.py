"""Everything that decides: pure state machines over events and actions.

Rules of this folder: no waiting, no sending, no sleeping, no logging, no files, no clock and no global randomness; standard
library and numpy only. Time is an argument (seconds since the run's start) and randomness is a generator passed in.
"""
