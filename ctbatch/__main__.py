"""``python -m ctbatch`` and the ``ctbatch`` command.

``--version`` is answered before anything heavy is imported: scripts ask for it often.
"""

from __future__ import annotations

import signal
import sys

from ctbatch import __version__

__all__ = ["main"]


def main() -> int:
    """Run the command line; returns the exit code."""
    if sys.argv[1:] == ["--version"]:
        from ctbatch.cli import streams  # noqa: PLC0415  # light, but the next one is not

        streams.prepare()
        print(f"ctbatch {__version__}")
        return streams.finish(0)
    try:
        from ctbatch.cli.main import main as command_line  # noqa: PLC0415  # heavy

        code = command_line()
    except KeyboardInterrupt:  # while it is imported
        code = 130
    # The result is known and told: a late Ctrl-C, while the interpreter ends, must not replace it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


if __name__ == "__main__":
    sys.exit(main())
