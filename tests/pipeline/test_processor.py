"""The processor's clocks begin at zero, and tell of waiting only where the system does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctbatch.pipeline.processor import Processor


def test_waits_are_counted_from_the_beginning(tmp_path: Path) -> None:
    """In seconds; the file has nanoseconds on a processor, waiting for one, and turns."""
    told = tmp_path / "schedstat"
    told.write_bytes(b"5000000000 2000000000 7\n")
    processor = Processor(told)
    assert processor.waited_s == 0
    told.write_bytes(b"6000000000 3500000000 8\n")
    assert processor.waited_s == pytest.approx(1.5)


@pytest.mark.parametrize("text", [None, b"", b"1", b"a b c"])
def test_where_nothing_is_told_nothing_was_waited_for(tmp_path: Path, text: bytes | None) -> None:
    """Another system, or another form of the file."""
    told = tmp_path / "schedstat"
    if text is not None:
        told.write_bytes(text)
    assert Processor(told).waited_s == 0


def test_work_is_counted() -> None:
    """Of this thread, since it was made."""
    processor = Processor()
    assert processor.used_s < 0.5
    before = processor.used_s
    while processor.used_s < before + 0.01:
        pass
    assert processor.used_s >= 0.01
