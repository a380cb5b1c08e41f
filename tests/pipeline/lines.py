"""Invented lines for the checker's tests: by the code they are refused with, and accepted ones."""

from __future__ import annotations

import json
from typing import Any

__all__ = [
    "ACCEPTED",
    "NOT_RECORDS",
    "STRICT",
    "WRONG_RECORDS",
    "event",
    "in_data",
    "profile",
    "token",
]


def profile(data: Any = None, **fields: Any) -> bytes:
    """A profile's line; the identity is invented."""
    record = {"type": "profile", "identity": "u1", "profileData": {} if data is None else data}
    return json.dumps(record | fields, ensure_ascii=False).encode()


def event(data: Any = None, **fields: Any) -> bytes:
    """An event's line."""
    record = {"type": "event", "identity": "u1", "evtName": "Bought", "evtData": data}
    return json.dumps(record | fields, ensure_ascii=False).encode()


def token(data: Any = None, **fields: Any) -> bytes:
    """A token's line."""
    record = {"type": "token", "objectId": "-abc", "tokenData": data}
    return json.dumps(record | fields).encode()


def in_data(text: bytes) -> bytes:
    """A profile with raw bytes as the value of one property."""
    return b'{"type":"profile","identity":"u1","profileData":{"a":' + text + b"}}"


def _each(field: str, *values: Any) -> list[bytes]:
    return [profile(**{field: value}) for value in values]


NOT_RECORDS = {
    "not_utf8": [in_data(b'"\xff"'), in_data(b'"\xed\xa0\x80"'), b"\xff\xfe{\0}\0", b"\x80"],
    "byte_order_mark": [b"\xef\xbb\xbf" + profile()],
    "control_character": [in_data(b'"\0"'), in_data(b'"\t"'), b"\0", b"\x0c", profile() + b"\0"],
    "lone_surrogate": [in_data(rb'"\ud800"'), in_data(rb'"\udc00x"'), in_data(rb'"\ud800\u0041"')],
    "not_a_number": [in_data(b"NaN"), in_data(b"-Infinity"), in_data(b"[Infinity]")],
    "number_too_large": [in_data(b"1e999"), in_data(b"9" * 10_000), in_data(b"-" + b"9" * 10**5)],
    "number_too_long": [
        in_data(b"0." + b"1" * 10**5),
        in_data(b"1." + b"0" * 511),
    ],
    "too_deep": [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        in_data(b"[" * 1100 + b"]" * 1100),
        in_data(b"[" * 300 + b"]" * 300),
    ],
    "more_than_one": [profile() * 2, profile() + b"," + profile(), b"{}\r{}", b'"q":2}'],
    "not_an_object": [b"[]", b"[" + profile() + b"]", b"1", b'"x"', b"null", b"true"],
    "cut_short": [profile()[:-1], b"{", b'"', b'{"a":"'],
    "not_json": [
        b"{'a':1}",
        b"{a:1}",
        b'{"a":1,}',
        b'{"a":01}',
        b"{/*x*/}",
        b"hello",
        b"nan",
        b'{\xef\xbb\xbf"a":1}',
        b"\xc2\xa0",
    ],
    "duplicate_key": [
        b'{"type":"event",' + profile()[1:],
        in_data(b'1,"a":1'),
        in_data(rb'1,"\u0061":2'),
        in_data(b'[{"b":{"c":1,"c":1}}]'),
        # As many colons as without the duplicate, were the escaped one not seen.
        in_data(rb'"\u003a","a":"\u003A"'),
        in_data(b'{"x":":"},"a":":::"'),
    ],
}

WRONG_RECORDS = {
    "type_missing": [b"{}", profile(type=None), b'{"identity":"u1","profileData":{}}'],
    "type_unknown": _each("type", "Profile", "", "user", 1, True, [], {}),
    "identity_missing": [profile(identity=None), b'{"type":"profile","profileData":{}}'],
    "identity_empty": [profile(identity=""), profile(GPID=""), event(objectId="")],
    "identity_type": _each("identity", True, False, {}, [], ["u1"]),
    "identity_too_long": [profile(identity="x" * 1025), profile(FBID="é" * 1025)],
    "profile_data_missing": [b'{"type":"profile","identity":"u1"}', profile(profileData=None)],
    "profile_data_type": [profile([]), profile("x"), profile(1), profile(False)],
    "event_name_missing": [event(evtName=""), event(evtName=None)],
    "event_name_type": [event(evtName=1), event(evtName=[])],
    "event_name_too_long": [event(evtName="n" * 121)],
    "event_data_type": [event([]), event("x"), event(0)],
    "object_id_missing": [token({}, objectId=None, identity="u1")],
    "token_data_type": [token(), token([]), token("x")],
    "ts_milliseconds": [profile(ts=1_700_000_000_000), event(ts=10**11), event(ts=10**18)],
    "ts_invalid": [
        *_each("ts", 0, -1, 1.7e9, "1700000000", True, [], 10**40),
        event(ts="2024-01-01T00:00:00Z"),
    ],
    "too_many_keys": [profile({f"k{n}": n for n in range(257)})],
    "key_too_long": [
        profile({"k" * 121: 1}),
        profile({"é" * 61: 1}),
        profile({"a": [{"b": {"k" * 121: 1}}]}),
        event({"é" * 121: 1}),
    ],
    "value_too_long": [
        profile({"a": "v" * 513}),
        profile({"a": "é" * 257}),
        profile({"a": "\U0001f600" * 129}),
        profile({"a": "x" + "\U0001f600" * 128}),
        profile({"a": {"$add": ["v", "v" * 513]}}),
        profile({"a": {"b": [{"c": "v" * 513}]}}),
        event({"a": "v" * 513}),
        event({"Items": [{"a": "v" * 513}]}),
    ],
}

STRICT = {
    "email_invalid": [profile({"Email": v}) for v in ("$$$$$", "1234", 1, "a b@example.com", "")],
    "phone_invalid": [profile({"Phone": v}) for v in ("223", "123", 223, "+44+441234", "+1234")],
    "gender_invalid": [profile({"Gender": v}) for v in ("X", "Male", 1)],
    "employed_invalid": [profile({"Employed": v}) for v in ("Yes", True)],
    "education_invalid": [profile({"Education": v}) for v in ("PhD", 3)],
    "married_invalid": [profile({"Married": v}) for v in ("No", False)],
    "age_invalid": [profile({"Age": v}) for v in ("aa", True, [18])],
    "event_name_restricted": [event(evtName="App Launched"), event(evtName="utmvisited")],
    "token_data_invalid": [token({}), token({"id": "x"}), token({"id": "x", "type": []})],
}

ACCEPTED = [
    profile(),
    profile(ts=1),
    profile(ts=10**11 - 1),
    profile(ts=None),
    profile(identity="x" * 1024),
    profile(identity="é" * 1024),
    profile(identity=None, objectId="-x"),
    profile(identity=None, fbId="x"),
    profile({"k" * 120: 1, "é" * 60: 1}),
    profile({"a": "v" * 512, "b": "é" * 256, "c": "\U0001f600" * 128}),
    profile({f"k{n}": n for n in range(256)} | {"Name": "x", "Email": "a@example.com"}),
    profile({"a": None, "b": [], "c": {}, "": 1, "url": "https://example.com:1/::"}),
    profile({"Email": None, "Phone": {"$delete": 1}, "Gender": "F", "Age": "18", "Employed": "Y"}),
    profile({"Phone": "+1 (555) 010-0199", "Age": 18.5, "Email": "a@example.com"}),
    profile(extra={"a": {"unknown": "v" * 600}}),
    in_data(b"[" * 200 + b"]" * 200),
    in_data(b"12345678901234567890123456789"),
    in_data(b"0." + b"1" * 510),
    in_data(b"1e-999"),
    in_data(rb'"\u003a:\ud83d\ude00\u0000"'),
    in_data(b'"\xef\xbb\xbf"'),
    in_data(b'1,"A":1,"b":{"a":1},"c":[{"a":1},{"a":1}]'),
    b' \t{"type" : "event" ,"identity" : 1,"evtName":"x" } \r',
    event(),
    event({"é" * 120: "é" * 256}),
    event({f"k{n}": n for n in range(257)}),
    token({"id": "x", "type": "fcm"}),
    token({"id": "9" * 2000, "type": "apns"}, ts=0),
]
