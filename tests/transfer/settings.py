"""Transfer settings for tests: those of conf/transfer/, with small buffers and short deadlines."""

from typing import Any

from emu.build import compose, plain
from emu.transfer import settings
from emu.transfer.settings import TransferSettings

QUICK = {"max_message_bytes": 4 << 20, "min_message_bytes": 1 << 12, "num_buffers": 3, "timeout_s": 6.0, "max_tries": 4}


def transfer_settings(settings_type: type[TransferSettings], name: str = "object_store", **changes: Any) -> TransferSettings:
    """The settings of transfer=`name`, but for QUICK and `changes`, as `settings_type`."""
    values = plain(compose([f"transfer={name}"]))["transfer"]
    del values["_target_"]
    return settings_type(**{**values, **QUICK, **changes})


def settings_named(name: str = "object_store", **changes: Any) -> TransferSettings:
    """The settings of transfer=`name`, but for QUICK and `changes`."""
    target = plain(compose([f"transfer={name}"]))["transfer"]["_target_"]
    return transfer_settings(getattr(settings, target.rpartition(".")[2]), name, **changes)
