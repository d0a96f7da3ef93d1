"""report.html: one self-contained page that says what a run did, its verdict first."""

from emu.results.report.page import write_report

__all__ = ["write_report"]
