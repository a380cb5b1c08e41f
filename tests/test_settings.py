"""Settings refuse what cannot work before anything starts, and say which option and why."""

from __future__ import annotations

import asyncio

import pytest

from ctbatch.errors import SettingsError
from ctbatch.settings import Account, Batching, Delivery, Endpoint, Secret, Settings


@pytest.mark.parametrize(
    "url",
    [
        "http://api.clevertap.com",
        "http://127.0.0.1@evil.example",
        "http://localhost.evil.example",
        "http://localhost.",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1\\@evil.example",
        "http://127.0.0.1\t.evil.example",
        "http://evil.example#@127.0.0.1",
        "http://[::1]@evil.example",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.0.0.1",
        "http://0.0.0.0:9",
        "http://127\u30020\u30020\u30021",
        "https://user:pw@api.clevertap.com",
        "https://api.clevertap.com/?a=b",
        "https://api.clevertap.com/#x",
        "ftp://localhost",
        "https://",
        "https://h:99999",
        "https://h:0",
        "https://x y",
        "https://x\ny",
        "https://x\x7f",
        "https://x\u00a0y",
        "https://x/ ",
        " https://x",
        "https://x\udcff",
        "",
    ],
)
def test_base_urls_that_could_leak_are_refused(url: str) -> None:
    """Plain http is for loopback only, judged on the parsed address, not on how a resolver might
    read it; userinfo and query never pass.
    """
    with pytest.raises(SettingsError):
        Endpoint(base_url=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080",
        "HTTP://LOCALHOST:1",
        "http://127.0.0.1:1",
        "http://127.8.9.10:1",
        "http://[::1]:9",
        "https://in1.example/x",
    ],
)
def test_base_urls_that_work(url: str) -> None:
    """Loopback by name or literal address may be plain; anything else is https."""
    assert Endpoint(base_url=url).host


def test_what_is_wrong_with_a_url_is_said() -> None:
    """A character is shown as an escape, a port by its number."""
    for url, says in (("https://x\ny", r"has '\\n'"), ("http://127.0.0.1:0", "port from 1")):
        with pytest.raises(SettingsError, match=says):
            Endpoint(base_url=url)
        with pytest.raises(SettingsError, match=rf"--proxy: .*{says}"):
            Endpoint(base_url="https://x", proxy=url)


@pytest.mark.parametrize("region", [None, "", "eu", "EU1", "eu1"])
def test_the_default_region_has_several_names(region: str | None) -> None:
    """No region, ``eu`` and ``eu1`` are the vendor's default host."""
    assert Endpoint.of_region(region).base_url == "https://api.clevertap.com"


def test_an_unknown_region_lists_the_known_ones() -> None:
    """A typo in a region is answered with the list."""
    with pytest.raises(SettingsError, match="in1, sg1"):
        Endpoint.of_region("mars")


def test_a_proxy_is_never_used_for_loopback() -> None:
    """A proxy for a loopback address is a mistake and is refused."""
    with pytest.raises(SettingsError, match="loopback"):
        Endpoint(base_url="http://localhost:1", proxy="http://proxy.example:3128")


@pytest.mark.parametrize("size", [0, 1001, -1])
def test_batch_size_has_the_vendors_bounds(size: int) -> None:
    """A call takes 1 to 1000 records."""
    with pytest.raises(SettingsError, match="--batch-size"):
        Batching(batch_size=size)


def test_concurrency_zero_is_refused() -> None:
    """Nothing could ever be sent."""
    with pytest.raises(SettingsError, match="--concurrency"):
        Delivery(concurrency=0)


def test_not_a_number_is_out_of_every_range() -> None:
    """NaN compares false with everything; the check is written so that it fails."""
    with pytest.raises(SettingsError):
        Delivery(timeout_s=float("nan"))


def test_a_secret_shows_itself_to_nobody() -> None:
    """Neither ``repr`` nor ``str`` nor an account's ``repr`` shows a passcode."""
    secret = Secret("hunter2-hunter2")
    account = Account(id="TEST-1", passcode=secret)
    assert "hunter2" not in f"{secret!r}{secret}{account!r}"
    assert secret.reveal() == "hunter2-hunter2"


def test_missing_settings_name_the_variable_to_set() -> None:
    """A first-time user is told which variable is missing."""
    with pytest.raises(SettingsError, match="CLEVERTAP_ACCOUNT_ID"):
        Settings(inputs=["users.ndjson"])
    with pytest.raises(SettingsError, match="CLEVERTAP_PASSCODE"):
        Account(id="x", passcode=Secret(""))


@pytest.mark.parametrize("value", [" x", "a\nb", "é"])
def test_header_values_are_clean_ascii(value: str) -> None:
    """A pasted newline must not become a header."""
    with pytest.raises(SettingsError):
        Account(id=value, passcode=Secret("p"))


async def test_blocks_are_caught() -> None:
    """The loop is not blocked by making settings."""
    await asyncio.sleep(0)
    assert Settings(inputs=["-"], dry_run=True).limit is None
