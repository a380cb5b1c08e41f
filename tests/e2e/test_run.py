"""``ctbatch run``: what goes in, what is sealed, what becomes of each line."""

from __future__ import annotations

import gzip
import json
import os
import shlex
import stat
from pathlib import Path

from backports import zstd

from tests.e2e.command import Desk
from tests.e2e.people import counter, event, identities, mixture, profile, profiles
from tests.e2e.service import Service

NOTHING = {
    "total": 0,
    "processed": 0,
    "unprocessed": 0,
    "invalid": 0,
    "unknown": 0,
    "unsent": 0,
    "blank": 0,
    "maybe_sent": 0,
}


def test_every_line_is_processed_and_the_exit_code_is_0(desk: Desk, service: Service) -> None:
    """A good file ends with 0, every record at the service once, and sealed."""
    ended = desk.upload(desk.write("users.ndjson", *profiles(250)), "--batch-size", 100)
    assert ended.code == 0
    assert ended.report["state"] == "complete"
    assert ended.report["lines"] == {**NOTHING, "total": 250, "processed": 250}
    assert ended.report["mode"] == "sealed"
    assert ended.report["resume"] is None
    assert ended.report["counted_to_end"] is True
    assert sorted(service.identities()) == sorted(identities(250))
    assert [(call["sealed"], call["records"]) for call in service.requests()] in [
        [(True, 100), (True, 100), (True, 50)],
        [(True, 100), (True, 50), (True, 100)],
    ]
    assert ended.report["keys"]["sealed_with"] == [service.requests()[0]["key_id"]]


def test_a_mixed_file_ends_with_3_and_names_each_line(desk: Desk, service: Service) -> None:
    """Refused and invalid lines stand in rejected.ndjson byte for byte, with reasons row by row."""
    lines = mixture(300)
    ended = desk.upload(desk.write("users.ndjson", *lines), "--batch-size", 50)
    blank = [n for n in range(1, 301) if n % 13 == 0]
    invalid = [n for n in range(1, 301) if n % 11 == 0 and n % 13]
    refused = [n for n in range(1, 301) if n % 10 == 0 and n % 11 and n % 13]
    assert ended.code == 3
    counts = ended.report["lines"]
    assert counts == {
        **NOTHING,
        "total": 300,
        "processed": 300 - len(blank) - len(invalid) - len(refused),
        "unprocessed": len(refused),
        "invalid": len(invalid),
        "blank": len(blank),
    }
    rejected = sorted(invalid + refused)
    assert desk.run.lines("rejected") == [lines[n - 1] for n in rejected]
    assert [row["line"] for row in desk.run.reasons("rejected")] == rejected
    assert {row["source"] for row in desk.run.reasons("rejected")} == {
        str(desk.cwd / "users.ndjson")
    }
    for line, state, code in desk.run.places("rejected"):
        expected = ("unprocessed", 515) if line in refused else ("invalid", "identity_missing")
        assert (state, code) == expected
    reasons = {(r["state"], r["code"]): r for r in ended.report["reasons"]}
    assert reasons["unprocessed", 515]["count"] == len(refused)
    assert reasons["unprocessed", 515]["first_lines"][0] == [
        str(desk.cwd / "users.ndjson"),
        refused[0],
    ]
    assert not (desk.run.path / "unknown.ndjson").exists()
    assert len(service.records()) == counts["processed"]


def test_the_run_directory_is_as_documented(desk: Desk) -> None:
    """Its name tells when and what, only the owner can read it, and report.json is the report."""
    ended = desk.ctbatch("run", desk.write("users.ndjson", *mixture(30)), "--json")
    (run_dir,) = (desk.cwd / "ctbatch-runs").iterdir()
    assert run_dir.name.endswith("Z-users")
    assert stat.S_IMODE(run_dir.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in run_dir.iterdir()}
    assert set(files) >= {
        "ledger.sqlite",
        "report.json",
        "rejected.ndjson",
        "rejected.reasons.ndjson",
    }
    assert files["rejected.ndjson"] == 0o600
    assert json.loads((run_dir / "report.json").read_bytes()) == ended.report
    again = desk.ctbatch("report", run_dir.relative_to(desk.cwd), "--json")
    assert again.code == 0
    assert again.report == ended.report
    assert "complete" in desk.ctbatch("report", run_dir).out


def test_the_way_on_goes_to_the_same_place(desk: Desk, service: Service) -> None:
    """Who gave endpoint, account and keys as flags can paste what is printed, by the run and by a
    report of it later; a dry run is followed by another.
    """
    users = desk.write("users.ndjson", *profiles(3), b"{}")
    given = {
        "--base-url": service.base_url,
        "--account-id": service.account_id,
        "--server-key": str(service.server_key),
        "--client-key": str(service.client_key),
    }
    flags = [word for pair in given.items() for word in pair]
    alone = dict.fromkeys(set(service.env) - {"CLEVERTAP_PASSCODE"})
    run_dir = desk.cwd / "my run"

    def way_on(*args: object) -> list[str]:
        ended = desk.ctbatch(*args, env=alone)
        assert ended.code == (0 if args[0] == "report" else 3), ended.err
        return shlex.split(ended.out.splitlines()[-1])[1:]

    command = way_on("run", users, *flags, "--run-dir", run_dir)
    assert command[:2] == ["run", str(run_dir / "rejected.ndjson")]
    assert dict(zip(command[2::2], command[3::2], strict=True)) == given
    assert way_on("report", run_dir) == command
    assert way_on(*command)[2:] == command[2:]
    assert len(service.records()) == 3
    checked = way_on("run", users, *flags, "--server-dry-run", "--run-dir", "checked")
    assert checked == ["run", "checked/rejected.ndjson", "--server-dry-run", *command[2:]]
    assert way_on("report", "checked") == checked
    assert way_on("run", users, "--dry-run", "--run-dir", "dry") == [
        *("run", "dry/rejected.ndjson", "--dry-run")
    ]
    assert len(service.records()) == 3


def test_a_warning_names_its_input_where_there_are_several(desk: Desk, service: Service) -> None:
    """Of two files each has a line 2; of one nobody has to be told which."""
    desk.write("one.ndjson", *profiles(3))
    desk.write("two.ndjson", profile("b"), profile("null"))
    warned = "line 2: identity is a placeholder that the vendor's imports refuse"
    alone = desk.ctbatch("run", "two.ndjson")
    assert f"warning: {warned}" in alone.err.splitlines()
    both = desk.ctbatch("run", "*.ndjson")
    assert f"warning: two.ndjson, {warned}" in both.err.splitlines()
    service.configure(faults=["401"])
    refused = desk.ctbatch("run", "*.ndjson")
    assert refused.code == 5
    service.configure(faults=[])
    resumed = desk.ctbatch(*refused.resume_command)
    assert f"warning: two.ndjson, {warned}" in resumed.err.splitlines()


AS_WRITTEN = [
    b'{"type":"profile","identity":"w1","profileData":{"Big":9223372036854775807123,"P":1.10}}',
    b'{ "type" : "profile" , "profileData": {"z":1,"a":2,"M":-0.0,"e":1E5} ,"identity":"w2" }',
    rb'{"type":"profile","identity":"w3","profileData":{"N":"\u00e9\ud83d\ude00","U":"\u002f"}}',
    '{"type":"profile","identity":"w4","profileData":{"N":"é😀","19":1234567890123456789}}'.encode(),
]


def test_the_bytes_that_were_written_are_the_bytes_that_are_sealed(
    desk: Desk, service: Service
) -> None:
    """Long numbers, 1.10, escapes, blanks and key order: nothing is rewritten before sealing.

    Of what it opens the emulator tells sizes and parsed records; both agree with the file's bytes.
    """
    path = desk.cwd / "as-written.ndjson"
    path.write_bytes(b"\r\n".join(AS_WRITTEN))  # CRLF, and no end to the last line
    assert desk.upload(path, "--plaintext").code == 0
    body = b'{"d":[' + b",".join(AS_WRITTEN) + b"]}"
    (call,) = service.requests()
    assert call["bytes"] == len(body)
    desk.ctbatch("run", path, "--run-dir", "sealed")
    # A Tink prefix of 5 bytes, a key of 32 and a tag of 16 are what sealing adds.
    assert service.requests()[1]["bytes"] == len(body) + 53


def test_an_empty_input_is_a_warning(desk: Desk, service: Service) -> None:
    """An empty file and an empty pipe: exit 0, a warning, a report with zeros, no request."""
    for number, ended in enumerate(
        (
            desk.ctbatch("run", desk.write("empty.ndjson"), "--json", "--run-dir", "0"),
            desk.ctbatch("run", "-", "--json", "--run-dir", "1", given=b""),
        )
    ):
        assert ended.code == 0
        assert "empty" in ended.err
        assert ended.report["lines"] == NOTHING
        assert ended.report["state"] == "complete"
        assert (desk.cwd / str(number) / "report.json").exists()
    assert service.requests() == []


def test_several_files_globs_and_compressed_ones_are_one_input(
    desk: Desk, service: Service
) -> None:
    """Plain, gzip and zstd files are told apart by content; one named twice is taken once."""
    desk.write("a1.ndjson", *profiles(3, "a"))
    desk.write("a2.ndjson", *profiles(2, "b"))
    (desk.cwd / "c.bin").write_bytes(gzip.compress(b"\n".join(profiles(4, "c"))))
    (desk.cwd / "d.bin").write_bytes(zstd.compress(b"\n".join(profiles(5, "d"))))
    ended = desk.upload("a*.ndjson", "a1.ndjson", "c.bin", "d.bin")
    assert ended.code == 0
    assert [(Path(s["path"]).name, s["lines"]["total"]) for s in ended.report["sources"]] == [
        ("a1.ndjson", 3),
        ("a2.ndjson", 2),
        ("c.bin", 4),
        ("d.bin", 5),
    ]
    assert ended.report["lines"]["processed"] == 14
    assert len(set(service.identities())) == 14


def test_standard_input_is_an_input(desk: Desk, service: Service) -> None:
    """``-`` reads the pipe, compressed or not, and rejected lines are kept though it is gone."""
    lines = mixture(40)
    given = gzip.compress(b"\n".join(lines))
    ended = desk.ctbatch("run", "-", "--json", "--run-dir", "run", given=given)
    assert ended.code == 3
    assert ended.report["lines"]["total"] == 40
    assert desk.run.lines("rejected") == [
        lines[row["line"] - 1] for row in desk.run.reasons("rejected")
    ]
    assert len(service.records()) == ended.report["lines"]["processed"]


def test_a_trickling_pipe_is_uploaded_after_the_linger(desk: Desk, service: Service) -> None:
    """``tail -f users.ndjson | ctbatch run -`` sends what has come, without waiting for more."""
    read_end, write_end = os.pipe()
    started = desk.start(
        "run", "-", "--linger", "0.1", "--json", "--run-dir", "run", stdin=read_end
    )
    os.close(read_end)
    with os.fdopen(write_end, "wb", buffering=0) as pipe:
        pipe.write(profile("first") + b"\n")
        started.until("the first line", lambda: service.identities() == ["first"])
        pipe.write(profile("second") + b"\n" + profile("third"))
        started.until("the second", lambda: "second" in service.identities())
    ended = started.ended()
    assert ended.code == 0
    assert ended.report["lines"]["processed"] == 3


def test_dry_run_sends_nothing_and_needs_nothing(desk: Desk, service: Service) -> None:
    """``--dry-run``: no account, no keys, no request; 3 if a line is invalid, else 0."""
    nobody = dict.fromkeys(service.env)
    good = desk.ctbatch(
        "run", desk.write("g.ndjson", *profiles(5)), "--dry-run", "--run-dir", "g", env=nobody
    )
    assert good.code == 0
    ended = desk.upload(desk.write("users.ndjson", *mixture(130)), "--dry-run", env=nobody)
    assert ended.code == 3
    assert ended.report["mode"] == "dry_run"
    assert ended.report["lines"]["invalid"] == len(desk.run.lines("rejected")) == 11
    assert ended.report["lines"]["processed"] == 0
    assert service.requests() == []


def test_server_dry_run_has_the_service_check_and_stores_nothing(
    desk: Desk, service: Service
) -> None:
    """``--server-dry-run``: the service's verdicts, and nothing stored."""
    ended = desk.upload(
        desk.write("users.ndjson", *profiles(9), profile("bad", Email="x")), "--server-dry-run"
    )
    assert ended.code == 3
    assert ended.report["mode"] == "server_dry_run"
    assert desk.run.places("rejected") == [(10, "unprocessed", 515)]
    assert service.records() == []


def test_limit_ends_the_input(desk: Desk, service: Service) -> None:
    """``--limit N``: the rest of the file is as if it were not there."""
    ended = desk.upload(desk.write("users.ndjson", *profiles(50)), "--limit", 7)
    assert ended.code == 0
    assert ended.report["lines"]["total"] == 7
    assert service.identities() == identities(7)


def test_strict_checks_what_the_service_checks(desk: Desk, service: Service) -> None:
    """``--strict``: a bad e-mail address is invalid here instead of refused there."""
    ended = desk.upload(
        desk.write("users.ndjson", profile("a"), profile("b", Email="x")), "--strict"
    )
    assert ended.code == 3
    assert ended.report["lines"]["invalid"] == 1
    assert service.identities() == ["a"]


def test_plaintext_is_said_and_works(desk: Desk, service: Service) -> None:
    """``--plaintext`` needs no keys, and the first line says in plain sight what it is."""
    no_keys = {"CTBATCH_SERVER_KEY": None, "CTBATCH_CLIENT_KEY": None}
    ended = desk.upload(desk.write("users.ndjson", *profiles(3)), "--plaintext", env=no_keys)
    assert ended.code == 0
    assert "PLAINTEXT" in ended.err.splitlines()[0]
    assert [call["sealed"] for call in service.requests()] == [False]


def test_the_passcode_may_come_from_a_private_file(desk: Desk, service: Service) -> None:
    """``--passcode-file`` in place of the variable; one that others can read is refused."""
    users, passcode = desk.write("users.ndjson", *profiles(2)), desk.cwd / "passcode"
    passcode.write_text(service.passcode + "\n")
    passcode.chmod(0o644)
    no_variable = {"CLEVERTAP_PASSCODE": None}
    refused = desk.upload(users, "--passcode-file", passcode, env=no_variable)
    assert refused.code == 2
    assert "chmod" in refused.complaint
    passcode.chmod(0o600)
    assert desk.upload(users, "--passcode-file", passcode, env=no_variable).code == 0
    assert len(service.records()) == 2


def test_order_per_person_survives_concurrency(desk: Desk, service: Service) -> None:
    """The records of one person arrive in the order of the file, through batches side by side."""
    service.configure(latency_s=0.01, jitter_s=0.04)
    lines = [profile(f"p{n % 3}", Step=n) for n in range(120)]
    ended = desk.upload(desk.write("users.ndjson", *lines), "--batch-size", 5)
    assert ended.code == 0
    for person in ("p0", "p1", "p2"):
        steps = [
            record["profileData"]["Step"]
            for record in service.records()
            if record["identity"] == person
        ]
        assert steps == sorted(steps)
        assert len(steps) == 40


def test_the_emulator_option_ignores_the_environment(desk: Desk, service: Service) -> None:
    """``--emulator``: settings of account, keys and endpoint are not used, however broken."""
    broken = {
        "CLEVERTAP_BASE_URL": "http://example.org",
        "CLEVERTAP_ACCOUNT_ID": "REAL",
        "CTBATCH_SERVER_KEY": "/nowhere",
    }
    ended = desk.upload(desk.write("users.ndjson", *mixture(30)), "--emulator", env=broken)
    assert ended.code == 3
    assert "EMULATOR" in ended.err.splitlines()[0]
    assert ended.report["mode"] == "emulator"
    assert service.requests() == []


def test_max_refused_stops_a_wrong_mapping(desk: Desk) -> None:
    """``--max-refused``: too large a share of refused lines ends with 4, and says so."""
    ended = desk.upload(desk.write("users.ndjson", *mixture(60)), "--max-refused", "5%")
    assert ended.code == 4
    assert "--max-refused" in ended.err


def test_events_and_counters_are_uploaded_too(desk: Desk, service: Service) -> None:
    """Records that must not be repeated are sent once in good weather."""
    lines = [counter("c"), event("e"), counter("c"), event("e", "Left")]
    assert desk.upload(desk.write("mixed.ndjson", *lines)).code == 0
    assert len(service.records()) == 4
