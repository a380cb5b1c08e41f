"""The vendor's table of headers, feature and encryption, row by row: what the service does, and how
the client explains it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import orjson
import pytest

from ctbatch.api.answers import Answer, Kind, read_answer
from ctbatch.api.combinations import TABLE, Combination, explain, features
from ctbatch.api.explain import explain_refusal
from ctbatch.api.transport import Transport
from ctbatch.api.wire import headers
from ctbatch.crypto.hpke import OpeningKeys, SealingKey
from ctbatch.crypto.keyset import load_private, load_public
from ctbatch.emulator.server import Emulator
from ctbatch.emulator.state import Config
from ctbatch.settings import Endpoint

QUERY = orjson.dumps({"event_name": "App Launched", "from": 20240101, "to": 20240131})


@dataclass(frozen=True)
class Row:
    """A row as the vendor's page prints it (yes, no), and what the client says to its result."""

    headers: bool
    feature: bool
    sealed: bool
    result: str
    meaning: str
    remedy: str


ROWS = [
    Row(True, True, True, "Success", "encryption is enabled and the keys fit", ""),
    Row(True, True, False, "Fail", "something on the way changed the body", "gateway"),
    Row(True, False, True, "Fail", "encryption is not enabled", "Customer Success Manager"),
    Row(True, False, False, "Fail", "something on the way changed the body", "gateway"),
    Row(False, True, True, "Fail", "something on the way dropped them", "gateway"),
    Row(False, False, True, "Fail", "something on the way dropped them", "gateway"),
    Row(False, True, False, "Success", "this account takes plaintext", ""),
    Row(False, False, False, "Success", "this account takes plaintext", ""),
]
"""Six rows of the vendor's page in its order, and the two plaintext ones."""

ENCRYPTION_STATUSES = [400, 401, 500]
"""The status of an encryption failure is not published: the explanation must not hang on it."""


async def ask(emulator: Emulator, *, with_headers: bool, sealed: bool) -> Answer:
    """One query with these headers and this body, whether or not ctbatch would send it so."""
    info = emulator.account_id.encode()
    server = await asyncio.to_thread(load_public, emulator.server_key)
    client = await asyncio.to_thread(load_private, emulator.client_key)
    body = SealingKey(server, info).seal(QUERY) if sealed else QUERY
    passcode = emulator.passcode.reveal()
    async with Transport(Endpoint(base_url=emulator.base_url), timeout_s=5.0) as transport:
        reply = await transport.request(
            "POST",
            "/1/events.json",
            headers=headers(emulator.account_id, passcode, sealed=with_headers, body=True),
            body=body,
        )
    return read_answer(reply, OpeningKeys(client, info) if with_headers else None)


@pytest.mark.parametrize("seal_errors", [False, True])
@pytest.mark.parametrize("status", ENCRYPTION_STATUSES)
@pytest.mark.parametrize("row", ROWS)
async def test_each_row_of_the_vendors_table_is_met_and_explained(
    row: Row, status: int, seal_errors: bool
) -> None:
    """Success or failure is the table's, whatever status failures have and whether or not they are
    sealed; the client says what it means and what to ask for.
    """
    config = Config(feature=row.feature, encryption_status=status, seal_errors=seal_errors)
    async with Emulator(config) as emulator:
        answer = await ask(emulator, with_headers=row.headers, sealed=row.sealed)
    succeeded = answer.kind is Kind.ACCEPTED
    assert ("Success" if succeeded else "Fail") == row.result
    said = explain(headers=row.headers, sealed=row.sealed, succeeded=succeeded)
    assert row.meaning in said.meaning
    assert row.remedy in " ".join(said.remedies)
    assert bool(row.remedy) == bool(said.remedies)
    assert row.feature in features(headers=row.headers, sealed=row.sealed, succeeded=succeeded)


async def test_enforcement_refuses_plaintext_and_is_explained() -> None:
    """Plaintext is the default where it is not refused; the way out is encryption."""
    async with Emulator(Config(enforce=True)) as emulator:
        answer = await ask(emulator, with_headers=False, sealed=False)
    assert answer.kind is Kind.REFUSED
    said = explain(headers=False, sealed=False, succeeded=False)
    assert "enforcement mode" in said.meaning
    assert "run without --plaintext" in said.remedies


def test_the_table_is_the_vendors() -> None:
    """Our copy of the table is the page's, row by row."""
    printed = [
        Combination(row.headers, row.feature, row.sealed, succeeds=row.result == "Success")
        for row in ROWS
    ]
    assert list(TABLE) == printed


@pytest.mark.parametrize("body", [True, False])
def test_a_result_that_the_table_does_not_allow_points_to_the_way(body: bool) -> None:
    """One header and body that fail everywhere cannot succeed: somebody rewrites requests."""
    observed = {"headers": not body, "sealed": body, "succeeded": True}
    assert features(**observed) == frozenset()
    assert "something on the way rewrites requests" in explain(**observed).meaning


def test_a_run_explains_the_rows_that_it_can_meet_alike() -> None:
    """A run sends sealed with headers or plain without; its causes begin with the table's."""
    assert "encryption is not enabled" in explain_refusal("", sealed=True).causes[0]
    assert "enforcement mode" in explain_refusal("", sealed=False).causes[0]
