"""``bench`` and ``tune`` tell which setting to use, and store nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from ctbatch.cli import tune
from ctbatch.cli.main import main
from ctbatch.cli.trying import Ground
from ctbatch.pipeline.report.bottleneck import Cause
from ctbatch.tuning.figures import Figures, Setting
from ctbatch.tuning.tuner import End, Try, Verdict
from tests.cli.service import served
from tests.e2e.people import profiles

SMALL = ("--concurrency", "1,3", "--batch-size", "10", "--workers", "0", "--lines", "200")
FAST = ("--latency", "0.05")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Run a command in an empty directory with an input of 300 profiles."""
    monkeypatch.chdir(tmp_path)
    for name in ("CLEVERTAP_ACCOUNT_ID", "CLEVERTAP_PASSCODE", "CLEVERTAP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    Path("users.ndjson").write_bytes(b"\n".join(profiles(300)))

    def run(*args: str) -> tuple[int, str, str]:
        code = main(args)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_a_bench_names_the_setting_to_use(command: Command) -> None:
    """A row for each combination, the knee, the options; progress on standard error."""
    code, out, err = command("bench", "users.ndjson", *SMALL, *FAST, "--svg", "c.svg")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:4] == ["concurrency", "batch", "workers", "lines/s"]
    assert [row.split()[:3] for row in lines[1:3]] == [["1", "10", "0"], ["3", "10", "0"]]
    assert lines[-2].startswith("With batches of 10, the")
    assert lines[-1].startswith("Use --concurrency ")
    assert "EMULATOR" in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("2 of 2: --concurrency 3 --batch-size 10 --workers 0: ")
    assert ElementTree.parse("c.svg").getroot().tag.endswith("svg")  # noqa: S314  # ours
    assert {path.name for path in Path().iterdir()} == {"users.ndjson", "c.svg"}


def test_a_bench_is_json_when_asked(command: Command) -> None:
    """The figures for other programs, and nothing else on standard output."""
    code, out, err = command("bench", "users.ndjson", *SMALL, *FAST, "--json", "--quiet")
    told = json.loads(out)
    assert (code, err, told["where"]) == (0, "", "emulator")
    assert told["expected_ms"] == 50
    assert [trial["setting"]["concurrency"] for trial in told["trials"]] == [1, 3]
    assert told["use"]["options"].startswith("--concurrency ")
    assert told["knee"]["tried"] == 3


def test_what_is_too_short_to_measure_is_marked(command: Command) -> None:
    """Nobody takes the figure of three batches for a rate."""
    _, out, _ = command(
        *("bench", "users.ndjson", *FAST, "--concurrency", "8", "--batch-size", "100"),
        *("--workers", "0", "--quiet"),
    )
    assert "~" in out.splitlines()[1]
    assert "~ ended before three rounds" in out


def test_a_machine_that_is_too_busy_is_told(command: Command) -> None:
    """Where answers wait for a processor, the figures are not the service's."""
    small = ("--concurrency", "2", "--batch-size", "100", "--workers", "0", "--quiet")
    _, out, _ = command("bench", "users.ndjson", *small, "--latency", "0.00001")
    assert "This machine was too busy: the emulator takes 0.01 ms for a call" in out
    _, out, _ = command("bench", "users.ndjson", *small, "--latency", "0", "--load-latency", "0.1")
    assert "too busy" not in out


def test_an_empty_input_recommends_nothing(command: Command) -> None:
    """What was not measured is not guessed; neither command fails on it."""
    Path("empty.ndjson").write_bytes(b"")
    _, out, _ = command("bench", "empty.ndjson", *SMALL, "--quiet")
    assert out.splitlines()[-1].startswith("Nothing was sent, so nothing is recommended")
    _, out, _ = command("bench", "empty.ndjson", *SMALL, "--quiet", "--json")
    assert json.loads(out)["use"] is None
    _, out, _ = command("tune", "empty.ndjson", "--workers", "0", "--quiet")
    assert "nothing is recommended" in out


def test_lines_that_are_not_sent_are_no_rate(command: Command) -> None:
    """A file of bad lines is gone through fast, which says nothing about any setting."""
    Path("bad.ndjson").write_bytes(b"{}\n" * 500)
    _, out, _ = command("bench", "bad.ndjson", *SMALL, *FAST, "--quiet")
    assert [row.split()[3] for row in out.splitlines()[1:3]] == ["~0", "~0"]
    assert out.splitlines()[-1].startswith("Nothing was sent, so nothing is recommended")
    _, out, _ = command("bench", "bad.ndjson", *SMALL, *FAST, "--quiet", "--json")
    assert json.loads(out)["use"] is None


def test_what_is_not_certain_recommends_nothing(command: Command) -> None:
    """Where nothing was measured for long enough, nothing is named or ringed, nor has a knee."""
    args = ("bench", "users.ndjson", *FAST, "--concurrency", "4,8", "--batch-size", "100")
    _, out, _ = command(*args, "--workers", "0", "--quiet", "--svg", "c.svg")
    assert out.splitlines()[-1].startswith("Nothing was measured for long enough")
    assert "knee" not in out
    assert Path("c.svg").read_text().count('r="8"') == 1  # the legend's


def test_one_point_has_no_knee(command: Command) -> None:
    """With one concurrency tried nobody knows what more would bring."""
    args = ("bench", "users.ndjson", *FAST, "--concurrency", "2", "--batch-size", "10")
    _, out, _ = command(*args, "--workers", "0", "--quiet")
    assert "knee" not in out
    assert out.splitlines()[-1] == "Use --concurrency 2 --batch-size 10 --workers 0"
    _, out, _ = command(*args, "--workers", "0", "--quiet", "--json")
    assert json.loads(out)["knee"] is None


def test_a_picture_that_cannot_be_written_is_told(command: Command) -> None:
    """By the name of its file; the figures are shown all the same."""
    Path("c.svg").symlink_to("no/where.svg")
    code, out, err = command("bench", "users.ndjson", *SMALL, *FAST, "--svg", "c.svg", "--quiet")
    assert code == 2
    assert "Use --concurrency" in out
    assert "c.svg cannot be written" in err


def test_what_is_no_picture_is_not_drawn_over(command: Command) -> None:
    """As in ``--svg *.ndjson``: nothing is tried, and the file stays; a picture is drawn anew."""
    before = Path("users.ndjson").read_bytes()
    code, out, err = command("bench", "users.ndjson", *SMALL, *FAST, "--svg", "users.ndjson")
    assert (code, out) == (2, "")
    assert "--svg: users.ndjson is there and is no picture. name another file" in err
    assert Path("users.ndjson").read_bytes() == before
    Path("c.svg").write_text("<svg/>")
    assert command("bench", "users.ndjson", *SMALL, *FAST, "--svg", "c.svg", "--quiet")[0] == 0
    assert len(Path("c.svg").read_text()) > 1000


@pytest.mark.parametrize(("fault", "code", "share"), [("500", 4, "100 %"), ("500=every-3", 0, "")])
def test_a_bench_tells_of_a_service_that_is_not_well(
    command: Command, monkeypatch: pytest.MonkeyPatch, fault: str, code: int, share: str
) -> None:
    """What failed has a column and a sentence; where nothing succeeded the exit code is 4."""
    monkeypatch.setattr("ctbatch.tuning.trials.WHOLE", 1)
    with served(latency_s=0.02, faults=(fault,)) as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        ended, out, _ = command(
            *("bench", "users.ndjson", "--live", "--limit", "60", "--concurrency", "2"),
            *("--batch-size", "10", "--workers", "0", "--seconds", "0.5"),
        )
    assert ended == code
    throttled, failed = out.splitlines()[1].split(" %")[:2]
    assert throttled.endswith(" 0")
    assert int(failed) > 0
    assert share in out.splitlines()[1]
    assert "requests failed (500): the figures are of a service that was not well." in out


def test_workers_may_be_left_to_the_run(command: Command) -> None:
    """As a run finds them out by itself, and named so; other words are refused by both."""
    small = ("users.ndjson", *FAST, "--quiet")
    _, out, _ = command(
        *("bench", *small, "--workers", "auto,0", "--concurrency", "2", "--batch-size", "10")
    )
    assert [row.split()[2] for row in out.splitlines()[1:3]] == ["0", "auto"]
    _, out, _ = command("tune", *small, "--max-concurrency", "1", "--max-batch-size", "5")
    assert out.splitlines()[-1].endswith("--workers auto")
    for name in ("bench", "tune"):
        code, _, err = command(name, *small, "--workers", "many")
        assert (code, "must be a number or auto" in err) == (2, True)


def test_with_live_nothing_is_stored(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is asked with dryRun, and for no more lines than ``--limit``."""
    with served(latency_s=0.02) as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        assert command("bench", "users.ndjson", *SMALL, "--live", "--limit", "120")[0] == 0
        assert service.emulator.stats()["totals"]["records"] == 120
        code, out, err = command(
            *("tune", "users.ndjson", "--live", "--limit", "150", "--max-concurrency", "2"),
            *("--max-batch-size", "10", "--workers", "0"),
        )
        assert code == 0
        assert out.splitlines()[-1].startswith("Use --concurrency ")
        assert "nothing is stored" in err
        assert service.emulator.stats()["totals"]["records"] <= 270
        assert service.emulator.records() == []


@pytest.mark.parametrize("name", ["bench", "tune"])
def test_where_every_request_is_too_many_nothing_is_recommended(
    command: Command, name: str
) -> None:
    """Exit code 4, as where every request fails otherwise."""
    size = ("--concurrency", "1", "--batch-size", "10") if name == "bench" else ()
    code, out, _ = command(
        name, "users.ndjson", *FAST, "--max-concurrent", "0", "--workers", "0", *size
    )
    assert code == 4
    assert "nothing is recommended" in out
    assert "(429)" in out


def test_a_record_that_is_asked_for_again_is_no_failure(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 555 is the service's way to say so, in an answer that is believed."""
    with served(latency_s=0.02, faults=("555=first-2",)) as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        code, out, _ = command(
            *("tune", "users.ndjson", "--live", "--limit", "200", "--max-concurrency", "1"),
            *("--max-batch-size", "10", "--workers", "0", "--json"),
        )
    told = json.loads(out)
    assert (code, told["trials"][0]["failed"]) == (0, False)
    assert told["ended"] != "failed"


def test_tune_tells_of_an_input_without_a_record(command: Command) -> None:
    """Nothing can be sent of it, and a longer one of the kind would not help."""
    Path("bad.ndjson").write_bytes(b"garbage\n" * 9)
    code, out, _ = command("tune", "bad.ndjson", *FAST, "--workers", "0")
    assert code == 0
    assert out.splitlines()[-1].endswith("`ctbatch run --dry-run` says why.")


@pytest.mark.parametrize(
    ("option", "value"), [("--lines", "0"), ("--lines", "9" * 20), ("--seconds", "nan")]
)
def test_bench_names_the_size_that_is_out_of_bounds(
    command: Command, option: str, value: str
) -> None:
    """And not another one."""
    code, _, err = command("bench", "users.ndjson", *FAST, option, value)
    assert code == 2
    assert f"{option}: must be from" in err


def test_tune_finds_what_to_use(command: Command) -> None:
    """A line for each try, why it ended, and the options."""
    code, out, err = command(
        *("tune", "users.ndjson", *FAST, "--max-concurrency", "2", "--max-batch-size", "8"),
        *("--workers", "0"),
    )
    assert code == 0
    assert out.startswith("After ")
    assert "more requests at a time, or smaller batches, bring no more" in out
    assert out.splitlines()[-1].startswith("Use --concurrency 2 --batch-size ")
    assert "--concurrency 1 --batch-size 8 --workers 0: " in err


def measured(setting: Setting, **figures: Any) -> Figures:
    """What a trial might have come to."""
    plain: dict[str, Any] = {"lines_per_s": 500.0, "certain": True, "lines": 9, "requests": 9}
    plain |= {"throttled": 0, "elapsed_s": 1.0, "cpu": 1.0, "in_flight": 1.0}
    return Figures(setting=setting, **plain, **figures)


def told_by_tune(found: list[Figures], best: Figures | None, ground: Ground) -> list[str]:
    """What ``tune`` prints of these trials."""
    tried = None if best is None else Try(best.setting.concurrency, best.setting.batch_size, 9)
    return list(tune._told(tune._Found(Verdict(tried, End.FOUND, 18), 0, found), ground))


@pytest.mark.parametrize("cause", [None, *Cause])
def test_tune_says_what_was_narrower_than_the_service(cause: Cause | None) -> None:
    """What is best with that may not be what is best for the service."""
    best = measured(Setting(1, 10), cause=cause)
    line = told_by_tune([best], best, Ground())[-2]
    of_the_service = {Cause.SERVICE, Cause.THROTTLING, Cause.OUTAGES, Cause.START, Cause.INPUT}
    assert line.startswith("500 lines/s with 1 request at a time")
    assert (", not by the service:" in line) == (cause not in {None, *of_the_service})


def test_tune_says_where_the_emulator_was_slow() -> None:
    """At the setting that it recommends; where there is none, at any."""
    ground = Ground(latency=0.1, jitter=0.1)
    fast, slow = (measured(Setting(n, 10), p50_ms=ms) for n, ms in ((1, 299.0), (2, 301.0)))
    busy = (
        "This machine was too busy: the emulator takes 200 ms for a call, and half of the answers"
        " came after 301 ms."
    )
    assert told_by_tune([fast, slow], slow, ground)[1] == busy
    assert told_by_tune([fast, slow], None, ground)[1] == busy
    assert busy not in told_by_tune([fast, slow], fast, ground)
    assert busy not in told_by_tune([fast, slow], slow, Ground(live=True, limit=9))
    assert busy not in told_by_tune([fast, slow], slow, Ground(latency=0.1, load_latency=0.1))


def test_tune_stops_at_the_first_sign_of_throttling(command: Command) -> None:
    """What was throttled is not recommended, and nothing is tried after it."""
    code, out, err = command(
        *("tune", "users.ndjson", *FAST, "--max-concurrent", "1", "--max-batch-size", "5"),
        *("--workers", "0", "--json"),
    )
    told = json.loads(out)
    assert (code, told["ended"]) == (0, "throttled")
    assert [trial["setting"]["concurrency"] for trial in told["trials"]] == [1, 2]
    assert told["use"]["concurrency"] == 1
    assert err.splitlines()[-1].endswith(": 429")


@pytest.mark.parametrize(
    ("fault", "measured"), [("500", 0), ("500=every-3", 0), ("500=after-9", 1)]
)
def test_tune_stops_at_the_first_failure(
    command: Command, monkeypatch: pytest.MonkeyPatch, fault: str, measured: int
) -> None:
    """What failed is told, the requests allowed are not exceeded by repeating it, and what was
    measured before it stands; the exit code is 4 where that is nothing.
    """
    with served(latency_s=0.02, faults=(fault,)) as service:
        for name, value in service.env.items():
            monkeypatch.setenv(name, value)
        code, out, err = command(
            *("tune", "users.ndjson", "--live", "--limit", "300", "--max-batch-size", "10"),
            *("--workers", "0", "--requests", "17"),
        )
        made = service.emulator.stats()["totals"]["requests"]
    assert code == (0 if measured else 4)
    assert made <= 17
    assert out.startswith(f"After {made} request")
    assert "a request failed (500), so nothing more was tried" in out
    assert ("Use --concurrency 1 " in out) == bool(measured)
    assert err.splitlines()[-1].endswith(": 500")


def test_tune_says_when_it_could_not_measure(command: Command) -> None:
    """An input that is too short, or a budget that is too small, is told, not guessed around."""
    code, out, _ = command("tune", "users.ndjson", *FAST, "--workers", "0", "--quiet")
    assert code == 0
    assert "the input, or --limit, is too short" in out
    assert "nothing is recommended" in out
    _, out, _ = command("tune", "users.ndjson", "--requests", "2", "--json", "--quiet")
    assert json.loads(out)["use"] is None


def test_a_limit_that_is_used_up_ends_the_search(command: Command) -> None:
    """Not one line more is sent than allowed."""
    _, out, _ = command(
        *("tune", "users.ndjson", *FAST, "--max-batch-size", "10", "--limit", "60"),
        *("--workers", "0", "--json"),
    )
    told = json.loads(out)
    assert told["ended"] == "input"
    assert [trial["lines"] for trial in told["trials"]] == [60]


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("bench", "users.ndjson", "--live"), "--limit: is missing"),
        (("bench", "users.ndjson", "--live", "--limit", "9", "--jitter", "1"), "--jitter"),
        (("bench", "users.ndjson", "--region", "in1"), "--live"),
        (("bench", "users.ndjson", "--concurrency", "1,x"), "--concurrency"),
        (("bench", "users.ndjson", "--concurrency", "0"), "--concurrency"),
        (("bench", "users.ndjson", "--batch-size", "1001"), "--batch-size"),
        (("bench", "users.ndjson", "--lines", "0"), "--lines"),
        (("bench", "users.ndjson", "--seconds", "nan"), "--seconds"),
        (("bench", "users.ndjson", "--svg", "no/where.svg"), "--svg"),
        (("bench", "users.ndjson", "--svg", "."), "--svg"),
        (("bench", "-"), "is a pipe"),
        (("bench", "nobody.ndjson"), "nobody.ndjson"),
        (("bench", "users.ndjson", "--latency", "-1"), "--latency"),
        (("tune", "users.ndjson", "--requests", "0"), "--requests"),
        (("tune", "users.ndjson", "--max-concurrency", "0"), "--max-concurrency: "),
        (("tune", "users.ndjson", "--max-batch-size", "0"), "--max-batch-size: "),
        (("tune", "users.ndjson", "--workers", "-1"), "--workers"),
    ],
)
def test_a_mistake_is_said_before_anything_is_started(
    command: Command, args: tuple[str, ...], why: str
) -> None:
    """Exit code 2 with the option's name, and no progress."""
    code, out, err = command(*args)
    assert (code, out) == (2, "")
    assert why in err
    assert "EMULATOR" not in err
