"""A service that quotes records in everything it says: none of it is kept."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctbatch.api.transport import Reply
from ctbatch.notices import Live, Notice
from tests.pipeline.lines import event, profile
from tests.pipeline.scripted import Conduct, ScriptedService, Weather
from tests.pipeline.voyages import go_on, mortal, settings_for

SEEDS = [
    "Zebulon",
    "Quimby",
    "Quimbé",
    "4929123412341234",
    "8675309",
    "person-7f3a9c",
    "Elm Street",
]

PERSON = {
    "Name": "Zebulon Quimby",
    "Nickname": "Zebulon Quimbé",
    "Address": {"street": ["12 Elm Street"]},
    "Card": 4929123412341234,
    "Phone": "+1 555 8675309",
}


class Quoting(ScriptedService):
    """It adds to each answer what it was sent, as values, as JSON, and escaped."""

    async def request(self, *args: object, body: bytes, **kwargs: Any) -> Reply:
        """As ever, only with more words."""
        reply = await super().request(*args, body=body, **kwargs)
        records = json.loads(body)["d"]
        try:
            told = json.loads(reply.body or b"{}")
        except ValueError:
            return replace(reply, body=reply.body + body)
        for entry in told.get("unprocessed", []):
            entry["error"] = f"{_quoted(records)}. {entry['error']} {_quoted(records)}"
        if not told.get("unprocessed"):
            told["error"] = _quoted(records)
        return replace(reply, body=json.dumps(told).encode())


def _quoted(records: list[Any]) -> str:
    """The first record, as its values, as JSON, escaped, and in other letters."""
    first = records[0]
    data = first.get("profileData") or first["evtData"]
    values = " ".join(str(value) for value in data.values())
    shapes = [values, json.dumps(first, ensure_ascii=False), json.dumps(first), values.upper()]
    turn = data["n"] % len(shapes)
    return " / ".join(["Cannot take", *shapes[turn:], *shapes[:turn]])


class Listening:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def watch(self, live: Live) -> None:
        """Numbers only."""

    def tell(self, notice: Notice) -> None:
        """Text and fields."""
        self.heard.append(repr(notice))


def _lines() -> list[bytes]:
    lines = []
    for n, conduct in enumerate([*Conduct, *[Conduct.TAKEN] * 6, Conduct.BAD]):
        data = {"n": n, "conduct": conduct, **PERSON}
        make = event if n % 3 == 2 else profile
        lines.append(make(data, identity=f"person-7f3a9c-{n}"))
    return lines


@pytest.mark.parametrize("weather", list(Weather))
def test_what_the_service_quotes_is_kept_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, weather: Weather
) -> None:
    """In no weather does a value of a record reach the ledger, the reasons, the report, the log or
    a watcher: only the two files of originals hold any.
    """
    caplog.set_level(logging.DEBUG)
    source = tmp_path / "users.ndjson"
    source.write_bytes(b"".join(line + b"\n" for line in _lines()))
    service = Quoting(seed=2, weather=[weather], bad_share=0.4)
    settings = settings_for([source], tmp_path / "run", batch_size=5, concurrency=2)
    listening = Listening()
    with mortal(service):
        asyncio.run(go_on(settings, watcher=listening))
    assert service.requests > 3
    told = {
        path.name: path.read_bytes().decode("utf-8", "replace")
        for path in (tmp_path / "run").iterdir()
        if path.name not in {"rejected.ndjson", "unknown.ndjson"}
    }
    assert listening.heard or weather is Weather.CALM
    told |= {"watcher": "".join(listening.heard), "log": caplog.text}
    for name, text in told.items():
        for seed in SEEDS:
            assert seed.lower() not in text.lower(), f"{seed} in {name}"
