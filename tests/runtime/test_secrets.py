"""What is secret does not stand in a log."""

from emu.runtime.host import HostSettings


def test_the_secret_of_a_run_has_no_repr():
    settings = HostSettings(b"topsecret", 0.005, 5.0, 0.5, True, 0.005)
    assert "secret" not in repr(settings) and settings.secret == b"topsecret"
