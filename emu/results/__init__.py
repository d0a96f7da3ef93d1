"""What a run leaves: its facts as columns, the metrics derived from them, the verdict on them, and the files.

Nothing is accumulated on the side: every number of the summary is computed from recorded facts after the run. Libraries that
are slow to import (pyarrow, rich) are imported by the functions that need them.
"""
