"""The way to the service, looked at stage by stage: name, connection, TLS.

The connections made here carry no byte of a request: those go through the one door,
:class:`~ctbatch.api.transport.Transport`. They exist because a pool says that it failed, not how
far it came. Behind a proxy the way ends at the proxy.

What the stages mean is said by :mod:`ctbatch.api.diagnosis`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ctbatch.api.breakage import Attempt
from ctbatch.api.diagnosis import Security, Way
from ctbatch.api.pool import tls_context
from ctbatch.errors import NotSent, SettingsError
from ctbatch.settings import Endpoint

__all__ = ["Addresses", "look", "system_addresses"]

_TIMEOUT_S = 5.0
"""For one stage at one address: there may be several, and a person waits."""

_MAX_ADDRESSES = 4

Addresses = Callable[[str, int], Awaitable[list[str]]]
"""Looks up a host's addresses; raises :class:`OSError`."""


async def system_addresses(host: str, port: int) -> list[str]:
    """Ask the system's resolver, as the transport does."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def look(endpoint: Endpoint, look_up: Addresses, clock: Callable[[], float]) -> Way:
    """Look how far one comes: name, connection, TLS."""
    url = urlsplit(endpoint.proxy or endpoint.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    way = Way(peer=host, proxied=endpoint.proxy is not None, plain=url.scheme == "http")
    try:
        async with asyncio.timeout(2 * _TIMEOUT_S):
            way = replace(way, addresses=tuple(await look_up(host, port)))
    except TimeoutError:
        return replace(way, why_no_address="the name service did not answer in time")
    except UnicodeError:  # from the codec for international names
        return replace(way, why_no_address="there can be no such name")
    except OSError as error:
        return replace(way, why_no_address=_reason(error))
    way = await _reach(way, port)
    if not way.connected or way.plain or way.proxied:
        return way
    return await _secure(way, host, port, endpoint, clock)


async def _reach(way: Way, port: int) -> Way:
    """Try address after address until one takes a connection."""
    loop = asyncio.get_running_loop()
    failed: list[tuple[str, str]] = []
    for address in way.addresses[:_MAX_ADDRESSES]:
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                transport, _ = await loop.create_connection(asyncio.Protocol, address, port)
        except TimeoutError:
            failed.append((shown, "no answer"))
        except OSError as error:
            failed.append((shown, _reason(error)))
        else:
            transport.abort()
            return replace(way, connected=shown, failed=tuple(failed))
    return replace(way, failed=tuple(failed))


async def _secure(
    way: Way, host: str, port: int, endpoint: Endpoint, clock: Callable[[], float]
) -> Way:
    """Shake hands on the address that took a connection."""
    loop = asyncio.get_running_loop()
    address = way.addresses[len(way.failed)]
    try:
        context = await asyncio.to_thread(tls_context, endpoint.ca_file)
        async with asyncio.timeout(_TIMEOUT_S):
            transport, _ = await loop.create_connection(
                asyncio.Protocol, address, port, ssl=context, server_hostname=host
            )
    except SettingsError as error:
        return replace(way, error=error)
    except ssl.SSLError as error:
        attempt = Attempt(host=endpoint.host, peer=endpoint.host, secure=True)
        return replace(way, error=attempt.failure(error))
    except OSError as error:
        # The connection stood a moment ago: what failed is the handshake.
        why = f"TLS with {endpoint.host} failed ({_reason(error)})"
        return replace(way, error=NotSent("tls", why))
    security = _security(transport, clock())
    transport.abort()
    return replace(way, security=security)


def _security(transport: asyncio.Transport, now: float) -> Security:
    certificate: dict[str, Any] = transport.get_extra_info("peercert") or {}
    names = {name: value for part in certificate.get("issuer", ()) for name, value in part}
    until = certificate.get("notAfter")
    return Security(
        version=transport.get_extra_info("ssl_object").version() or "TLS",
        issuer=names.get("organizationName") or names.get("commonName") or "",
        expires_in_s=None if until is None else ssl.cert_time_to_seconds(until) - now,
    )


def _reason(error: OSError) -> str:
    """The system's words; never a foreign message, which may hold more."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no address"
    return os.strerror(error.errno) if error.errno else "the connection broke"
