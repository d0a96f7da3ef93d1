"""Transfer settings for tests: those of conf/transfer/, with small buffers and short deadlines."""

from typing import Any

from emu.build import compose, plain
from emu.transfer import settings
from emu.transfer.settings import TransferSettings

QUICK = {"max_message_bytes": 1 << 20, "min_message_bytes": 1 << 12, "num_buffers": 3, "timeout_s": 2.0, "max_tries": 4}


def transfer_settings(name: str = "object_store", **changes: Any) -> TransferSettings:
    """The settings of transfer=`name`, but for QUICK and `changes`."""
    values = plain(compose([f"transfer={name}"]))["transfer"]
    settings_type = getattr(settings, values.pop("_target_").rpartition(".")[2])
    return settings_type(**{**values, **QUICK, **changes})
