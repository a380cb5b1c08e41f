"""The emulator as a process of ours: options come in by pipe, and it ends when the pipe does.

One line of JSON in (:meth:`ctbatch.emulator.state.Config.to_json`), one line of JSON out: where it
is and with which keys, or why it cannot be. A person starts it with ``ctbatch emulator`` instead.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

import orjson

from ctbatch.emulator.server import Emulator, run
from ctbatch.emulator.state import Config
from ctbatch.errors import ExitCode, SettingsError, UsageError

__all__ = ["main"]

_STOP_GRACE_S = 2.0


def main() -> int:
    """Serve until standard input ends."""
    line = sys.stdin.buffer.readline()
    if not line:
        return ExitCode.USAGE
    try:
        run(Config.from_json(line), _introduce, _watch)
    except SettingsError as error:
        _say({"option": error.option, "why": error.why, "remedy": error.remedy})
        return ExitCode.USAGE
    except UsageError as error:
        _say({"option": "the emulator", "why": str(error), "remedy": ""})
        return ExitCode.USAGE
    except BrokenPipeError:  # whoever started this is gone before it was told
        return ExitCode.OK
    return ExitCode.OK


def _introduce(emulator: Emulator) -> None:
    _say(
        {
            "base_url": emulator.base_url,
            "passcode": emulator.passcode.reveal(),
            "server_key": str(emulator.server_key),
            "client_key": str(emulator.client_key),
        }
    )


def _watch(stop: Callable[[], None]) -> None:
    """Stop when whoever started this is gone, by hook or by crook."""

    def watch() -> None:
        # A read on the descriptor itself: the buffered reader's lock would hold up the exit.
        while os.read(0, 1):
            pass
        stop()
        time.sleep(_STOP_GRACE_S)
        os._exit(ExitCode.OK)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _say(told: dict[str, str]) -> None:
    sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
