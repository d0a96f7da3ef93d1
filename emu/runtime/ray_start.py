"""How this process starts Ray or joins it: with a token, on loopback, and importing nothing from the working directory."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._raylet import (  # type: ignore[attr-defined]  # compiled: Ray's types lack them
    AuthenticationMode,
    AuthenticationTokenLoader,
    Config,
    GcsClient,
    get_authentication_mode,
)
from ray.exceptions import AuthenticationError

from emu.runtime.errors import RunError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's 15 makes wake-ups late beside any busy process
    # First touch of the store's memory costs far more than the copies that follow: 0.3 against 2.5 GB/s for 16 MiB.
    "RAY_preallocate_plasma_memory": "1",
}
MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
IMPORTED_FROM = Path(__file__).parents[2]  # the folder that holds the package emu


@contextlib.contextmanager
def starting_ray(address: str) -> Iterator[None]:
    """A context in which Ray is joined at `address`, or started where that is ''. Raises RunError without token authentication.

    Variables of the environment that tune Ray and are set already stay as they are; the ones that protect it do not.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    require_token(address)
    # Ray has workers import from the directory in which it is started; emu is what they need.
    with contextlib.chdir(IMPORTED_FROM), contextlib.nullcontext() if address else _on_loopback():
        yield
        if address:
            _check_cluster(address)


def require_token(address: str = "") -> None:
    """Make Ray demand a token of whoever talks to it. Raises RunError where it would not, or where there is none to join with.

    Whoever reaches a Ray without it can run any code. A Ray that is started here gets a token of its own where the user has
    configured none. It is in the environment, which other users cannot read.
    """
    os.environ[MODE] = "token"
    Config.initialize("")  # Ray reads the mode once, when it is imported
    tokens = AuthenticationTokenLoader.instance()
    if not tokens.has_token(ignore_auth_mode=True):
        if address:
            raise RunError(
                f"runtime.address={address}: there is no token to join it with; "
                f"expected that cluster's in {TOKEN} or in ~/.ray/auth_token (ray get-auth-token prints it)"
            )
        os.environ[TOKEN] = secrets.token_hex(32)
        tokens.reset_cache()
    check_token()


def check_token() -> None:
    """Raises RunError where the Ray that this process is part of works without tokens."""
    if get_authentication_mode() != AuthenticationMode.TOKEN:
        raise RunError(f"Ray works without token authentication; expected a Ray that was started with {MODE}=token")


def _check_cluster(address: str) -> None:
    """Raises RunError where the cluster that was just joined lets in who has no token."""
    os.environ[MODE] = "disabled"
    Config.initialize("")
    try:
        GcsClient(address=ray.get_runtime_context().gcs_address).internal_kv_keys(b"emu", None, timeout=5)
    except AuthenticationError:
        return
    finally:
        os.environ[MODE] = "token"
        Config.initialize("")
    raise RunError(
        f"runtime.address={address}: this Ray works without token authentication, so that anybody on its network can run code; "
        f"expected one that was started with {MODE}=token"
    )


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """A context in which Ray listens on 127.0.0.1 alone, as it does on Windows; elsewhere it listens on all interfaces."""
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before, was_enabled = os.environ.get(name), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = was_enabled
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
