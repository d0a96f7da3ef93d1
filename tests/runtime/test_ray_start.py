"""Ray is never without a token, whatever the environment says. In processes of their own: Ray keeps the mode."""

import os
import subprocess
import sys

import pytest


def ask(tmp_path, statement, **environment):
    """The last line that the statement prints in a process with no token but what `environment` gives it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    script = f"import os, ray; from emu.runtime.ray_start import *; {statement}"
    command = [sys.executable, "-c", script]
    environment = kept | {"HOME": str(tmp_path)} | environment
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    return (ended.stdout + ended.stderr).splitlines()[-1]


SAYS = "require_token(); print(get_authentication_mode() == AuthenticationMode.TOKEN, len(os.environ['RAY_AUTH_TOKEN']))"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"RAY_AUTH_MODE": "disabled"}, "True 64"),
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "of-the-user"}, "True 11"),
    ],
)
def test_an_inherited_mode_removes_no_token(tmp_path, environment, told):
    assert ask(tmp_path, SAYS, **environment) == told
    assert list(tmp_path.iterdir()) == []  # and none is left in the home folder


def test_a_cluster_is_not_joined_without_its_token(tmp_path):
    line = ask(tmp_path, "require_token('10.0.0.1:6379')")
    assert line.endswith(
        "RunError: runtime.address=10.0.0.1:6379: there is no token to join it with; "
        "expected that cluster's in RAY_AUTH_TOKEN or in ~/.ray/auth_token (ray get-auth-token prints it)"
    )


def test_a_ray_without_tokens_is_refused(tmp_path):
    line = ask(tmp_path, "check_token()", RAY_AUTH_MODE="disabled")
    assert line.endswith("works without token authentication; expected a Ray that was started with RAY_AUTH_MODE=token")


FAKE = """
import emu.runtime.ray_start as start
from types import SimpleNamespace as Fake
ray.get_runtime_context = lambda: Fake(gcs_address="10.0.0.1:6379")
def answer(*_, **__):
    assert get_authentication_mode() != AuthenticationMode.TOKEN  # asked as somebody without a token
    if {refuses}: raise AuthenticationError("RPC error")
start.GcsClient = lambda address: Fake(internal_kv_keys=answer)
require_token()
start._check_cluster("head:6379")
print(get_authentication_mode() == AuthenticationMode.TOKEN)
"""


def test_a_cluster_that_lets_anybody_in_is_left(tmp_path):
    assert ask(tmp_path, FAKE.format(refuses=True)) == "True"
    assert "RunError: runtime.address=head:6379: this Ray works without token authentication, so that anybody " in ask(
        tmp_path, FAKE.format(refuses=False)
    )
