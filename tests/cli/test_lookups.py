"""``profile`` and ``call``: exit codes, bytes as they came, and personal data kept out of sight."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from ctbatch.cli.main import main
from tests.cli.service import Service, served


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """An emulator with two profiles, and the environment that points at it."""
    for name in list(os.environ):
        if name.startswith(("CLEVERTAP_", "CTBATCH_")):
            monkeypatch.delenv(name)
    with served() as service:
        service.fill(1)
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        yield service


def typed(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Put something on standard input."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.mark.parametrize(
    "args", [["--email", "a+b@c.de"], ["--identity", "a"], ["--email=a+b@c.de", "--quiet"]]
)
def test_a_profile_is_json_on_standard_output(
    service: Service, capfdbinary: pytest.CaptureFixture[bytes], args: list[str]
) -> None:
    """Exit code 0."""
    assert main(["profile", *args]) == 0
    record = orjson.loads(capfdbinary.readouterr().out)
    assert record["identity"] == "a"
    assert main(["profile", "--object-id", record["platformInfo"][0]["objectId"]]) == 0
    assert orjson.loads(capfdbinary.readouterr().out) == record


@pytest.mark.parametrize("status", [200, 404])
def test_nobody_is_exit_code_3_and_a_message(
    service: Service, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: int
) -> None:
    """The message does not repeat who was looked up; no file is left."""
    service.configure(missing_profile_status=status)
    path = tmp_path / "p"
    assert main(["profile", "--email", "bob@example.com", "-o", str(path)]) == 3
    out, err = capsys.readouterr()
    assert not out
    assert "no profile with this e-mail address" in err
    assert "bob" not in err
    assert not path.exists()


@pytest.mark.parametrize(
    "text", [b"\xc3\xbc /&+\n", b"\xc3\xbc /&+\r\n", b"\xc3\xbc /&+", b"\xc3\xbc /&+\nmore\n"]
)
def test_a_dash_reads_the_value_from_standard_input(
    service: Service,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    text: bytes,
) -> None:
    """Its first line, so that no process list shows a person."""
    typed(monkeypatch, text)
    assert main(["profile", "--identity", "-"]) == 0
    assert orjson.loads(capfdbinary.readouterr().out)["identity"] == "ü /&+"


def test_personal_data_is_in_no_log(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even at debug level and while things break."""
    service.configure(faults=("reset=every-2", "429=only-1"))
    args = ["profile", "--email", "bob@example.com", "--log-level", "debug"]
    assert main(args) == 3
    err = capsys.readouterr().err
    assert "ask.again" in err
    assert "bob" not in err
    assert "email=" not in err


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_many_are_looked_up_in_order(
    service: Service,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A row for each line: identities, or JSON with another way to name a user."""
    lines = b'\xef\xbb\xbfa\n\nnobody\r\n{"email":"a+b@c.de"}\n{"identity": 7}\n \xc3\xbc /&+\n'
    (tmp_path / "who").write_bytes(lines.replace(b"\n ", b"\n"))
    assert main(["profile", "--from-file", str(tmp_path / "who")]) == 3
    out, err = capfdbinary.readouterr()
    rows = [orjson.loads(line) for line in out.splitlines()]
    assert [next(iter(row.items())) for row in rows] == [
        ("identity", "a"),
        ("identity", "nobody"),
        ("email", "a+b@c.de"),
        ("identity", "7"),
        ("identity", "ü /&+"),
    ]
    assert [row["record"] is not None for row in rows] == [True, False, True, False, True]
    assert b"3 found, 2 not found" in err
    typed(monkeypatch, b"a\n")
    path = tmp_path / "out.ndjson"
    assert main(["profile", "--from-file", "-", "-o", str(path)]) == 0
    assert orjson.loads(path.read_bytes()) == rows[0]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_refused_look_up_is_a_row(
    service: Service, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """With the reason; the others are not touched."""
    service.configure(faults=("400=only-1",))
    (tmp_path / "who").write_bytes(b"a\na\n")
    assert main(["profile", "--from-file", str(tmp_path / "who")]) == 3
    out, err = capfdbinary.readouterr()
    rows = [orjson.loads(line) for line in out.splitlines()]
    assert sum("error" in row and row["record"] is None for row in rows) == 1
    assert b"1 refused by the service" in err


@pytest.mark.parametrize(
    ("args", "text", "said"),
    [
        ([], b"", "exactly one"),
        (["--email", "a", "--identity", "b"], b"", "exactly one"),
        (["--email", "a", "--from-file", "x"], b"", "exactly one"),
        (["--from-file", "no/such/file"], b"", "no/such/file"),
        (["--from-file", "-"], b"a\n{}\n", "line 2"),
        (["--from-file", "-"], b'{"email":true}', "line 1"),
        (["--from-file", "-"], b'a\n{"email":false}', "line 2"),
        (["--from-file", "-"], b'{"identity":1.5}', "line 1"),
        (["--from-file", "-"], b'{"identity":null}', "line 1"),
        (["--from-file", "-"], b'{"email":""}', "line 1"),
        (["--from-file", "-"], b"\xff", "line 1"),
        (["--identity", "-"], b"", "--identity"),
        (["--object-id", "-"], b"\xff\n", "--object-id"),
        (["--email", ""], b"", "email"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(
    *,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    text: bytes,
    said: str,
) -> None:
    """Nothing is sent."""
    typed(monkeypatch, text)
    assert main(["profile", *args]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert not out


@pytest.mark.parametrize(
    "args",
    [
        ["profile", "--identity", "-"],
        ["profile", "--from-file", "-"],
        ["call", "POST", "/1/x", "--data", "-"],
        ["call", "GET", "/1/x", "--query", "a=-"],
        ["profiles", "--query", "-"],
    ],
)
def test_standard_input_may_be_closed(
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
) -> None:
    """``<&-``: said in one line."""
    monkeypatch.setattr("sys.stdin", None)
    assert main(args) == 2
    assert "standard input, which is closed" in capsys.readouterr().err


def test_any_endpoint_can_be_called(
    service: Service,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Body from a file or standard input; queries encoded, or as they are behind the ``?``."""
    (tmp_path / "body").write_bytes(b'{"a": 1}')
    args = ["call", "POST", "/1/x.json?c=%2F", "--data", str(tmp_path / "body")]
    assert main([*args, "--query", "k=a+b=c", "--query", "l="]) == 0
    echo = orjson.loads(capfdbinary.readouterr().out)["echo"]
    assert echo["query"] == {"c": "/", "k": "a+b=c", "l": ""}
    assert echo["body"] == {"a": 1}
    typed(monkeypatch, b"[2]")
    assert main(["call", "POST", "/1/x.json", "--data", "-"]) == 0
    assert orjson.loads(capfdbinary.readouterr().out)["echo"]["body"] == [2]
    typed(monkeypatch, b"bob@example.com\n")
    assert main(["call", "get", "/1/x.json", "--query", "email=-"]) == 0
    out = capfdbinary.readouterr().out
    assert orjson.loads(out)["echo"]["query"] == {"email": "bob@example.com"}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["POST", "/1/events.json"], 5, "HTTP 400"),
        (["GET", "/2/x"], 5, "HTTP 404"),
        (["GET", "/1/x", "--query", "k"], 2, "K=V"),
        (["GET", "/1/x", "--query", "a=-", "--data", "-"], 2, "only one thing"),
        (["GET", "/1/x", "--query", "a=-", "--query", "b=-"], 2, "only one thing"),
        (["GET", "x"], 2, "path"),
        (["G-T", "/1/x"], 2, "METHOD"),
    ],
)
def test_a_call_that_fails_has_its_exit_code(
    *,
    service: Service,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    code: int,
    said: str,
) -> None:
    """A refused one shows the service's reply on standard output all the same."""
    typed(monkeypatch, b"{}\n")
    assert main(["call", *args]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert bool(out) is (code == 5)


def test_keys_of_another_account_are_explained(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service answers in the clear then, and is not believed."""
    with served() as other:
        monkeypatch.setenv("CTBATCH_SERVER_KEY", other.env["CTBATCH_SERVER_KEY"])
        assert main(["call", "POST", "/1/x.json", "--data", os.devnull]) == 5
    err = capsys.readouterr().err
    assert "--server-key is not the service's current public key" in err
