"""What the service quotes of a record, or of us, is gone from its words, in whatever form."""

from __future__ import annotations

import json
import unicodedata
from base64 import b64encode
from collections.abc import Callable
from html import escape
from urllib.parse import quote, quote_plus

import pytest

from ctbatch.api.wire import judge
from ctbatch.api.words import clean_words, without_secrets

RECORD = {
    "type": "profile",
    "identity": "IdQ31zz",
    "profileData": {"Name": "Zorro Quixote", "Größe": "Äpfel grün", "Email": "zq0@example.com"},
}
SECRET = "hQ8vTzzo-4711-QX"


@pytest.mark.parametrize(
    "quoted",
    [
        "Zorro Quixote",
        "ZORRO QUIXOTE",
        "zorro",
        "Quixote's",
        "idq31ZZ",
        json.dumps(RECORD["profileData"]),
        json.dumps("Äpfel grün"),
        json.dumps(RECORD, ensure_ascii=False),
        quote("zq0@example.com", safe=""),
        quote("Äpfel grün"),
        "ZQ0%40EXAMPLE.COM",
        quote(quote(quote("zq0@example.com"))),
        json.dumps(json.dumps(RECORD)),
        quote_plus("Zorro Quixote"),
        escape("<Zorro Quixote>"),
        "&#90;orro &#x51;uixote",
        unicodedata.normalize("NFD", "Äpfel grün"),
    ],
)
def test_nothing_of_a_record_is_left(quoted: str) -> None:
    """Another case, a single word of a value, escapes of JSON and of URLs hide nothing."""
    words = clean_words(f"Malformed request near {quoted}: Email is not valid", RECORD)
    for part in ("zorro", "quixote", "idq31", "zq0", "example", "äpfel", "grün", "u00c4", "%C3"):
        assert part.lower() not in words.lower()
    assert words.startswith("Malformed request near")
    assert words.endswith("Email is not valid")


@pytest.mark.parametrize(
    ("said", "value", "left"),
    [
        ("Profile data of 李明 is incorrect", "李明", "Profile data of … is incorrect"),
        ("Profile data of 李明的资料 is incorrect", "李明", "Profile data of …的资料 is incorrect"),
        ("Name 锋 is bad", "欧阳 锋", "Name … is bad"),
        ("Bo is not Bob, BO is", "Bo", "… is not Bob, … is"),
        ("Gender M is bad", "M", "Gender M is bad"),
        ("at most 12 items", 12, "at most 12 items"),
    ],
)
def test_short_values_go_too(said: str, value: str | int, left: str) -> None:
    """Names of two characters are usual in some alphabets; in ours they stand in other words."""
    assert clean_words(said, {"profileData": {"Name": value}}) == left


def test_the_words_of_the_vendor_stay() -> None:
    """That a value holds one of them too costs the message nothing."""
    record = {"profileData": {"Comment": "My email is not a valid number"}}
    said = "Profile data is incorrect. Email is not valid."
    assert clean_words(said, record) == said


def test_a_value_that_grows_in_lower_case_does_not_shift_the_cut() -> None:
    """One capital of Turkish has two characters in lower case."""
    assert clean_words("İİİ Zorro is bad", {"Name": "zorro"}) == "İİİ … is bad"


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ('Al "Bo" Jr', json.dumps('Al "Bo" Jr')),
        ('Al "Bo" Jr', quote_plus('Al "Bo" Jr')),
        ('Al "Bo" Jr', escape('Al "Bo" Jr')),
        ("5/12/61", r"5\/12\/61"),
        ("A\\B", json.dumps("A\\B")),
        ("Bo Li", "Bo\\nLi"),
        ("Bo Li", "Bo+Li"),
    ],
)
def test_escapes_hide_no_short_value(value: str, quoted: str) -> None:
    """Of which no word is long enough to be found by itself."""
    assert clean_words(f"near {quoted} is bad", {"Name": value}).strip('"').replace('"…"', "…") == (
        "near … is bad"
    )


@pytest.mark.parametrize("secret", [SECRET, "RWQ-KTY-GAUL", "zjmVQ6VABDr4kEK_3BxwLHY-"])
@pytest.mark.parametrize(
    "write",
    [
        lambda text: quote(text, safe="").replace("-", "%2D"),
        lambda text: "".join(f"%{ord(c):02x}" for c in text),
        lambda text: "".join(f"\\u{ord(c):04x}" for c in text),
        lambda text: quote("".join(f"%{ord(c):02x}" for c in text)),
        lambda text: text.replace("-", r"\x2d"),
        lambda text: text.replace("-", "&#45;"),
        lambda text: text.replace("-", ""),
        lambda text: b64encode(text.encode()).decode(),
        lambda text: b64encode(f"TEST-ID:{text}".encode()).decode(),
        lambda text: b64encode(f"TEST-ID1:{text}".encode()).decode(),
        lambda text: b64encode(f"TEST-ID12:{text}".encode()).decode(),
    ],
)
def test_no_way_to_write_a_secret_saves_it(secret: str, write: Callable[[str], str]) -> None:
    """Escapes are undone before it is looked for, and not after: nothing puts it together again."""
    words = without_secrets(f"the passcode {write(secret)} is not valid", [secret])
    assert clean_words(words) == words == "the passcode … is not valid"


def test_escapes_without_an_end_are_cut() -> None:
    """What is escaped over and over again is not looked at for ever, nor left to be read."""
    deep = "Zorro"
    for _ in range(20):
        deep = quote(deep.replace("Z", "%5a"))
    words = clean_words(f"near {deep} is bad", {"Name": "Zorro"})
    assert "%" not in words
    assert words.endswith("is bad")


@pytest.mark.parametrize(
    "quoted", [SECRET, SECRET.upper(), f'"{SECRET}"', f"{SECRET[:9]}****", f"****{SECRET[-6:]}"]
)
def test_a_secret_is_cut_whole_or_in_part(quoted: str) -> None:
    """Five characters of it in a row are a part of it."""
    words = without_secrets(f"the passcode {quoted} is not valid", [SECRET])
    assert words.replace('"', "") == "the passcode … is not valid"


def test_a_secret_of_several_words_is_cut() -> None:
    """Blanks in it do not save it."""
    assert without_secrets("it was a b c d e", ["a b c d e"]) == "it was …"


def test_a_secret_that_is_hardly_one_is_left_to_chance() -> None:
    """Three characters would be found in half of all words, and in the record's number."""
    assert without_secrets("Skipped record number : 2", ["2"]) == "Skipped record number : 2"


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_no_verdict_holds_a_secret(status: int) -> None:
    """Whatever the reply: words lose it before anybody else sees them."""
    body = {"status": "fail", "error": f"bad {SECRET}", "code": status}
    verdict = judge(status, opened=True, body=body, records=1, secrets=[SECRET])
    assert verdict.words == "bad …"


def test_no_entry_holds_a_secret() -> None:
    """An entry's words neither; its number is found all the same."""
    entry = {"code": 515, "error": f"{SECRET}. Skipped record number : 1"}
    body = {"status": "fail", "processed": 0, "unprocessed": [entry]}
    [found] = judge(200, opened=True, body=body, records=1, secrets=[SECRET]).entries
    assert (found.number, found.words) == (1, "…. Skipped record number : 1")
