"""The service's words on their way out: nothing of a record in them, and nothing secret; pure.

Errors of the service quote what they are about, in whatever form: a value, a word of it, the record
as JSON, an address in a URL, even the passcode. Reports, logs and terminals get what is left.

Invariants:

1. What was quoted is found whatever its case, and behind the escapes of JSON, URLs and HTML, also
   where these are nested. They are undone before anything is looked for, secrets included.
2. Nothing here raises on any text, and a long one takes no more than a part of a second.
3. What is left has at most 200 bytes, on one line, without control characters.

Keys of a record stay: an error without the name of its field helps nobody.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Iterator
from html import unescape
from urllib.parse import unquote

__all__ = ["Json", "clean_words", "without_secrets"]

Json = object
"""Whatever a JSON parser returns; looked at with ``isinstance`` only."""

MAX_WORDS_BYTES = 200
_MAX_READ = 4000
"""Characters of the service's words that are looked at: what is left of them is 200 bytes."""

_NUMBER_WORDS = re.compile(r"Skipped record number\s*:?\s*[0-9]*", re.IGNORECASE)
_LONG_NUMBER = re.compile(r"\+?\d(?:[\s().-]{0,2}\d){5,}")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([bfnrt])|([\"'\\/]))")
_ESCAPED = re.compile(r"[\\%&]")
_NESTED = 8
"""Escapes within escapes that are undone; those that are left then are cut."""
_WORD = re.compile(r"[^\W_]{4,}|[^\W_]*[^\W_\x00-\x7f][^\W_]*")
"""A word that may be a part of a name: other alphabets' are short."""
_PAIR = re.compile(r"(?<![^\W_])[^\W_]{2}(?![^\W_])")
_API_WORDS = frozenset(("profile", "event", "token"))
_USUAL = _API_WORDS | frozenset(
    """
    accepted account address allowed array boolean business cannot characters code college
    concurrent correct credentials data date defined device discarded does education email
    employed empty epoch error errorcode event evtdata evtname exceeds exist failed fbid field
    format found from gender gpid graduate have identity incorrect integer internal invalid json
    large length limit long malformed mandatory married maximum message minimum miscellaneous
    missing more must name needs number object objectid only parameter parse passcode phone
    present profiledata properties property raise reached record refused region request requests
    required restricted school server service should skipped string supported system than that
    this timestamp token tokendata tokens trying type unable unix unknown unsupported upload user
    valid value with wrong your
    """.split()  # noqa: SIM905  # quoted one by one they would fill a page
)
"""Words of the vendor's own texts and the like: that a value holds one of them as well gives
nothing away. A value that is nothing but such a word is cut all the same.
"""

_SECRET_PART = 5
"""So many characters of a secret in a row are a part of it, and no coincidence."""


def clean_words(words: str, *records: Json) -> str:
    """Cut what could be personal out of the service's words.

    Cut are the record number, every string in the given records (a single letter or digit of ASCII
    tells nothing and stays) and every number of more than two digits, words of four letters and
    more of these (in other alphabets of any length), anything like an address or a long number,
    control characters, and all beyond 200 bytes.
    """
    if not words:
        return ""
    cut = len(words) > _MAX_READ
    words = _flat(_plain(_NUMBER_WORDS.sub("", words[:_MAX_READ])))
    values = list(map(_flat, _forms(records)))
    held = "\n".join(values).lower()  # a thousand records have ten thousand values
    low = words.lower()
    quoted = {
        value
        for value, lower in zip(values, held.split("\n"), strict=False)
        if lower in low and not _is_letter(value)
    }
    pairs = {value for value in quoted if len(value) == 2 and value.isascii() and value.isalnum()}
    longest_first = sorted(quoted - pairs - _API_WORDS, key=lambda value: (-len(value), value))
    words = _without_words(_without(words, longest_first), values, held)
    words = _without_pairs(words, pairs)
    if cut and values:  # the end may be half a value, or half an address
        words = words[: -max(map(len, values)) or None]
    kept = words.split()[: -1 if cut else None]
    words = " ".join("…" if "@" in word else word for word in kept)
    words = _LONG_NUMBER.sub("…", words)
    encoded = words.encode("utf-8", "replace")
    return encoded[:MAX_WORDS_BYTES].decode("utf-8", "ignore").strip()


def without_secrets(words: str, secrets: Iterable[str]) -> str:
    """The words without the secrets, and without every word that holds a part of one; escapes are
    undone.
    """
    words = _plain(words)
    secrets = [secret for secret in secrets if len(secret) >= _SECRET_PART]  # not found by chance
    words = _without(words, secrets)
    lows = [_lower(form) for secret in secrets for form in _written(secret)]
    parts = {
        low[at : at + _SECRET_PART] for low in lows for at in range(len(low) - _SECRET_PART + 1)
    }
    whole = _lower(words)
    if any(part in whole for part in parts):
        kept = words.split(" ")
        words = " ".join(
            "…" if any(part in _lower(word) for part in parts) else word for word in kept
        )
    return words


def _written(secret: str) -> Iterator[str]:
    """A secret as it stands, without what is between its letters, and in base64, whatever comes
    before it there.
    """
    yield secret
    yield "".join(c for c in secret if c.isalnum())
    for before in range(3):
        text = b64encode(bytes(before) + secret.encode(errors="replace")).decode()
        yield text[before + (before > 0) : -4]


def _without(text: str, values: Iterable[str]) -> str:
    """The text with each of the values cut out, whatever its case."""
    low = _lower(text)
    for value in values:
        wanted = _lower(value)
        while (at := low.find(wanted)) >= 0:
            text = f"{text[:at]}…{text[at + len(value) :]}"
            low = f"{low[:at]}…{low[at + len(value) :]}"
    return text


def _without_words(text: str, values: Iterable[str], held: str) -> str:
    """The text with each word cut out that stands in one of the values; ``held`` is all of them in
    lower case.
    """
    words = {word for found in _WORD.findall(text) if (word := _lower(found)) in held} - _USUAL
    if not words:
        return text
    standing = words.intersection(_lower(w) for value in values for w in _WORD.findall(value))
    return _WORD.sub(lambda found: "…" if _lower(found[0]) in standing else found[0], text)


def _is_letter(value: str) -> bool:
    """Whether it is no more than a letter; no text at all is none either."""
    return len(value) < 2 and value.isascii()


def _without_pairs(text: str, pairs: Iterable[str]) -> str:
    """The text without the values of two characters where they stand alone: many a word holds
    them.
    """
    found = {_lower(value) for value in pairs}
    return _PAIR.sub(lambda pair: "…" if _lower(pair[0]) in found else pair[0], text)


def _lower(text: str) -> str:
    """In lower case, letter by letter, so that every place stays what it was."""
    low = text.lower()
    if len(low) == len(text):
        return low
    return "".join(c if len(c.lower()) != 1 else c.lower() for c in text)


def _forms(records: Iterable[Json]) -> set[str]:
    """Every value as it stands, as it reads without escapes, and as a form of a URL has it."""
    values = set(_strings(records))
    values |= {_plain(value) for value in values if not value.isascii() or _ESCAPED.search(value)}
    return values | {"+".join(value.split()) for value in values if " " in value}


def _plain(text: str) -> str:
    """The text without the escapes of JSON, of URLs and of HTML, each letter in one way."""
    for _ in range(_NESTED):
        if not _ESCAPED.search(text):
            break
        before = text
        if "\\" in text:
            text = _ESCAPE.sub(_meant, text)
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = unescape(unquote(text))
        if text == before:
            break
    else:
        text = _ESCAPED.sub("…", text)
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _meant(escape: re.Match[str]) -> str:
    """The character that an escape of JSON stands for."""
    code = escape[1] or escape[2]
    return chr(int(code, 16)) if code else escape[4] or " "


def _flat(text: str) -> str:
    """The text on one line, with single blanks and without control characters."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(text.split())


def _strings(records: Iterable[Json]) -> Iterator[str]:
    """Every string and number of more than two digits in JSON values, as text."""
    left = list(records)
    while left:
        value = left.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, int | float) and not isinstance(value, bool) and len(str(value)) > 2:
            yield str(value)
