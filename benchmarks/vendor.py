"""The vendor's own bulk tool, on the files and the sink that this client is measured with.

Its source is a clone of `clevertap-data-upload`, and Go builds it. It posts to one fixed address;
what is measured is a copy in which that address is taken from the environment, and nothing else is
changed. It sends plaintext, three requests at a time.

Used by `benchmarks.targets`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.inputs import Profiles
from benchmarks.process import run_measured
from benchmarks.sink import Weather, running

__all__ = ["built", "upload"]

_SOURCE = Path("commands", "commands.go")
_ADDRESS = '"https://"+region+uploadEndpoint'
_FROM_ENVIRONMENT = 'region+os.Getenv("CTBATCH_SINK")'
_BATCH = 1000
_SENDERS = 3
"""Each sends what it has left at the end: so many requests more than full batches."""


@contextmanager
def built(clone: Path) -> Iterator[Path]:
    """The tool, built from a clone of its repository.

    Raises:
        SystemExit: this is not its source, or Go is not there or does not build it.
    """
    with tempfile.TemporaryDirectory(prefix="ctbatch-vendor-") as made:
        tree = Path(made) / "tree"
        try:
            shutil.copytree(clone, tree, ignore=shutil.ignore_patterns(".git", "executables"))
            text = (tree / _SOURCE).read_text(encoding="utf-8")
            if _ADDRESS not in text:
                raise SystemExit(f"{clone}: {_SOURCE} does not have {_ADDRESS}")
            (tree / _SOURCE).write_text(text.replace(_ADDRESS, _FROM_ENVIRONMENT), encoding="utf-8")
            command = ["go", "build", "-mod=vendor", "-o", "tool", "."]
            subprocess.run(command, cwd=tree, check=True, env=os.environ | {"GOFLAGS": ""})
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"{clone}: the vendor's tool cannot be built: {error}") from error
        yield tree / "tool"


def upload(tool: Path, profiles: Profiles) -> float:
    """Upload a file of full batches without latency; returns CPU seconds of the tool."""
    full, rest = divmod(profiles.lines, _BATCH)
    assert not rest, "the sink's answer is that to a full batch"
    reply = b'{"status":"success","processed":%d,"unprocessed":[]}' % _BATCH
    with running(Weather(latency_ms=0), reply) as sink:
        used = run_measured(
            [
                str(tool),
                "-json",
                str(profiles.path()),
                "-id",
                "TEST",
                "-p",
                "none",
                "-t",
                "profile",
            ],
            cwd=tool.parent,
            env=os.environ | {"CTBATCH_SINK": f"{sink.url}/1/upload"},
        )
        seen = sink.end()
    if used.exit_code or not full <= seen.requests <= full + _SENDERS:
        raise SystemExit(f"the vendor's tool: exit {used.exit_code}, {seen.requests} requests")
    return used.cpu_s
