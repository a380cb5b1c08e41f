"""What is printed for a shell is read by it as it was meant, whatever a name is made of."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctbatch import shell

BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="needs bash")
@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda name: b"\0" not in name), min_size=1))
@example([b"plain", b"", b"a b", b"it's", b"$(id)`id`", b"-x", b"~", b"*"])
@example([b"r\xff", b"\x1b[31m", b"a\nb", b"\\'\n", "ü\u202e".encode(), b"\x1bff", b"!\r"])
def test_bash_reads_the_very_bytes(names: list[bytes]) -> None:
    """Quotes, escapes, bytes that are no text, and nothing at all; what is printed is printable."""
    line = shell.command(os.fsdecode(name) for name in names)
    assert line.isprintable()
    script = f"printf '%s\\0' {line}"
    done = subprocess.run([str(BASH), "-c", script], capture_output=True, check=True)
    assert done.stdout == b"".join(name + b"\0" for name in names)


def test_ordinary_names_are_left_as_they_are() -> None:
    """Only what needs quotes has any."""
    assert shell.command(["ctbatch", "resume", "runs/2024-ü"]) == "ctbatch resume 'runs/2024-ü'"
    assert shell.quote("it's") == "'it'\"'\"'s'"
    assert shell.quote("r\udcff\x1b'") == r"$'r\xff\x1b\''"
