"""One service for all end-to-end tests, a desk for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import Desk
from tests.e2e.service import Service


@pytest.fixture(scope="session")
def _service() -> Iterator[Service]:
    with Service() as service:
        yield service


@pytest.fixture
def service(_service: Service) -> Service:
    """The emulator, in good weather, with nothing in it."""
    _service.begin()
    return _service


@pytest.fixture
def desk(tmp_path: Path, service: Service) -> Iterator[Desk]:
    """An empty directory whose environment points at the service."""
    desk = Desk(tmp_path, service.env)
    yield desk
    desk.close()
