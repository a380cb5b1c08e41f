"""What is synced is on the disk, on every system in its own way."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest

from ctbatch.pipeline.ledger import durable


def test_a_file_and_its_directory_can_be_synced(tmp_path: Path) -> None:
    """Both return once it is done, and leave the descriptor open."""
    with (tmp_path / "x").open("wb") as file:
        file.write(b"x")
        file.flush()
        durable.sync_file(file.fileno())
        durable.sync_directory(tmp_path)
        assert os.fstat(file.fileno()).st_size == 1


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """Silence would be a promise."""
    with pytest.raises(FileNotFoundError):
        durable.sync_directory(tmp_path / "none")


def test_windows_has_no_directories_to_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory cannot be opened there."""
    monkeypatch.setattr(sys, "platform", "win32")
    durable.sync_directory(tmp_path / "none")


def test_macos_syncs_past_the_drives_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """``fsync`` alone does not, so another call is made."""
    monkeypatch.setattr(sys, "platform", "darwin")
    # Stands in for the constant that this system does not have; it reads the descriptor's flags.
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", fcntl.F_GETFD, raising=False)
    with Path(os.devnull).open("rb") as file:
        assert durable._syncer()(file.fileno()) == fcntl.FD_CLOEXEC
