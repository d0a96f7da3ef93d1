"""Whether a Ray cluster answers at an address, known in seconds: `ray.init` tries for ten minutes, with its log on stderr."""

import os
import re
import socket
import threading

from emu.core.setting import SettingError

LIMIT_S = 8.0  # for all of it, the look-up of a name included
CONNECT_S = 3.0  # for each of the addresses that a name has
EXPECTED = "expected HOST:PORT of a running Ray cluster, as `ray start --head` prints it, or '' to start one here"
# A client opens HTTP/2, which gRPC is on, with these bytes and its settings (RFC 9113, 3.4); the server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)
SETTINGS_TYPE = 4


def check_address(key: str, address: str) -> None:
    """Raises SettingError, within LIMIT_S, where `address` is none or no Ray cluster answers there."""
    found = re.fullmatch(r"\[?([^\s\[\]/]+?)\]?:(\d{1,5})", address)
    if not found or not 0 < int(found[2]) < 1 << 16:
        raise SettingError(f"{key}={address}: {EXPECTED}")
    problems = ["no answer"]

    def look() -> None:
        problems[:] = _problem(found[1], int(found[2]))

    thread = threading.Thread(target=look, daemon=True)  # nothing else ends a look-up of a name early
    thread.start()
    thread.join(LIMIT_S)
    if problems:
        raise SettingError(f"{key}={address}: no Ray cluster answers there ({problems[0]}); {EXPECTED}")


def _problem(host: str, port: int) -> list[str]:
    """Why no gRPC server answers, in one entry; none where one does."""
    try:
        with socket.create_connection((host, port), CONNECT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return []  # it speaks to those who bring a certificate
            connection.sendall(PREFACE)
            answer = connection.recv(9)
    except TimeoutError:
        return ["no answer"]
    except (OSError, UnicodeError) as error:
        return [getattr(error, "strerror", None) or str(error)]
    return [] if len(answer) > 3 and answer[3] == SETTINGS_TYPE else ["what listens there is no Ray cluster"]
