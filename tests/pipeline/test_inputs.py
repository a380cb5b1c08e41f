"""Inputs are found once each, and refused before anything is read where that is certain."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import random
import socket
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from backports import zstd

from ctbatch.errors import InputError
from ctbatch.pipeline.source.inputs import expand
from ctbatch.pipeline.source.reader import Reader
from ctbatch.pipeline.source.sniffing import Kind, kind_of, refuse_unless_ndjson
from ctbatch.settings import Batching

GOOD = b'{"type":"profile","identity":"u1","profileData":{"a":"b, c; d"}}\n'


def written(path: Path, data: bytes) -> Path:
    """A file with the data."""
    path.write_bytes(data)
    return path


def refusal(path: Path) -> str:
    """The message a file is refused with."""
    with pytest.raises(InputError) as caught:
        expand([path])
    assert str(path) in str(caught.value)
    return str(caught.value)


@contextmanager
def standard_input(fd: int) -> Iterator[None]:
    """Have descriptor 0 be another one for a while."""
    saved = os.dup(0)
    os.dup2(fd, 0)
    try:
        yield
    finally:
        os.dup2(saved, 0)
        os.close(saved)


def test_a_file_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another spelling, a symbolic or hard link, or a pattern: the same file is one source."""
    first, second = written(tmp_path / "a.ndjson", GOOD), written(tmp_path / "b.ndjson", GOOD)
    (tmp_path / "soft").symlink_to(first)
    (tmp_path / "hard").hardlink_to(second)
    monkeypatch.chdir(tmp_path)
    specs = expand(["b.ndjson", "./b.ndjson", str(tmp_path / "*.ndjson"), "soft", "hard", first])
    assert [spec.path for spec in specs] == ["b.ndjson", str(first)]
    assert [spec.path for spec in expand(["*.ndjson"])] == ["a.ndjson", "b.ndjson"]


def test_a_pattern_is_a_name_where_such_a_file_exists(tmp_path: Path) -> None:
    """``a[1].ndjson`` may be what a file is called; directories in a match are passed over."""
    odd = written(tmp_path / "a[1].ndjson", GOOD)
    (tmp_path / "a1.d").mkdir()
    assert [spec.path for spec in expand([odd])] == [str(odd)]
    assert [spec.path for spec in expand([tmp_path / "a*"])] == [str(odd)]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing files, directories, empty patterns and impossible names are refused by name."""
    file = written(tmp_path / "a", GOOD)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "No such file" in refusal(tmp_path / "missing.ndjson")
    assert "Not a directory" in refusal(file / "below")
    assert "is a directory" in refusal(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as made:
        made.bind(str(tmp_path / "socket"))
    assert "is a socket" in refusal(tmp_path / "socket")
    assert "matches no file" in refusal(tmp_path / "*.nothing")
    assert "symbolic links" in refusal(tmp_path / "loop")
    for name in ("", "a\0b", "/dev/fd/987", "/dev/fd/9999999999", f"/dev/fd/{'9' * 5000}"):
        with pytest.raises(InputError):
            expand([name])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_inputs_are_refused(tmp_path: Path) -> None:
    """Permission is checked before the run, for files and FIFOs."""
    file = written(tmp_path / "a", GOOD)
    file.chmod(0)
    os.mkfifo(tmp_path / "fifo", 0)
    assert "ermission denied" in refusal(file)
    assert "ermission denied" in refusal(tmp_path / "fifo")


def test_pipes_are_recognised_and_not_touched(tmp_path: Path) -> None:
    """Standard input, FIFOs and ``/dev/fd/N`` have no size; each is taken once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read_fd, write_fd = os.pipe()
    with standard_input(read_fd):
        specs = expand(["-", "/dev/stdin", f"/dev/fd/{read_fd}", fifo, fifo, "/dev/null"])
    assert [(spec.path, spec.kind) for spec in specs] == [
        ("-", Kind.PIPE),
        (str(fifo), Kind.PIPE),
        ("/dev/null", Kind.PIPE),
    ]
    assert {(spec.size, spec.mtime_ns, spec.fingerprint) for spec in specs} == {(None, None, None)}
    os.close(read_fd)
    os.close(write_fd)


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    """Names say nothing; an empty file and a damaged archive are no reason to refuse here."""
    cases = {
        "plain.gz": (GOOD, Kind.PLAIN),
        "zipped.ndjson": (gzip.compress(GOOD, mtime=0), Kind.GZIP),
        "zstd.ndjson": (zstd.compress(GOOD), Kind.ZSTD),
        "skippable": (b"\x50\x2a\x4d\x18\0\0\0\0" + zstd.compress(GOOD), Kind.ZSTD),
        "empty": (b"", Kind.PLAIN),
        "cut": (gzip.compress(GOOD, mtime=0)[:20], Kind.GZIP),
        "wrong": (b"\x1f\x8b\x08wrong wrong wrong wrong", Kind.GZIP),
        "blank": (b"\n \n", Kind.PLAIN),
    }
    for name, (data, kind) in cases.items():
        (spec,) = expand([written(tmp_path / name, data)])
        assert (spec.kind, spec.size) == (kind, len(data))
    assert kind_of(b"\x1f\x8b") is None
    assert kind_of(b"") is None


def test_the_fingerprint_tells_files_apart(tmp_path: Path) -> None:
    """Another size, beginning or end is another fingerprint; a copy has the same."""
    data = GOOD * 5000
    contents = [data, data + b"\n", b"[" + data[1:], data[:-2] + b"]\n", data]
    prints = [
        expand([written(tmp_path / str(n), content)])[0].fingerprint
        for n, content in enumerate(contents)
    ]
    assert len(set(prints)) == 4
    assert prints[0] == prints[4]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("f.json", b'[{"a":1},\n{"a":2}]\n', "jq -c '.[]' {dir}/f.json > {dir}/f.ndjson"),
        ("f.json", b'\xef\xbb\xbf \n[\n{"a":1},\n{"a":2}\n]\n', "jq -c '.[]' {dir}/f.json"),
        ("f.ndjson", b'[{"a":1}]', "jq -c '.[]' {dir}/f.ndjson > {dir}/f-lines.ndjson"),
        ("a b.json", b'[{"a":1}]', "jq -c '.[]' '{dir}/a b.json' > '{dir}/a b.ndjson'"),
        ("f.json", b'{\n  "a": 1\n}\n{\n  "a": 2\n}\n', "jq -c . {dir}/f.json"),
        ("f.json", b'{ "a": 1,\n  "b": 2 }\n', "jq -c . "),
        ("f.json", b'{"d": [{"a":1}]}\n', "jq -c '.d[]' "),
        ("f.json", b'{"d": [\n' + b'{"a":1},\n' * 20_000, "jq -c '.d[]' "),
        ("f.json", b'[{"a":1}' + b',\n{"a":1}' * 20_000 + b"]", "jq -c '.[]' "),
        ("f.json", b'{\n  "a": 1\n}\n' * 20_000, "jq -c . "),
        (
            "f.gz",
            gzip.compress(b'[{"a":1}]', mtime=0),
            "gzip -dc {dir}/f.gz | jq -c '.[]' > {dir}/f.ndjson",
        ),
        ("f.json.zst", zstd.compress(b'[\n{}\n]'), "zstd -dc {dir}/f.json.zst | jq -c '.[]'"),
        ("f.csv", b"name;mail\nx;y\n", "is a table"),
        ("f.csv", b'"name","mail"\n"x","{}"\n', "is a table"),
        ("f.csv", b"name;mail\n" + b'x;"{y}"\n' * 20_000, "is a table"),
        ("f.csv", "Straße,Ort\na,b\n".encode("latin-1"), "is a table"),
        ("f.xml", b"<a>\n" + b"<b>, </b>\n" * 20_000 + b"</a>\n", "is XML or HTML"),
        ("f.xml", b"<?xml version='1.0'?>\n<a/>\n", "is XML or HTML"),
        ("f.txt", '{"a":1}\n'.encode("utf-16"), "iconv -f UTF-16 -t UTF-8"),
        ("f.txt", '{"a":1}\n'.encode("utf-16-le"), "iconv -f UTF-16LE"),
        ("f.txt", '{"a":1}\n'.encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("f.txt", '{"a":1}\n'.encode("utf-32"), "iconv -f UTF-32 -t UTF-8"),
        ("f.txt", '{"a":1}\n'.encode("utf-32-le"), "iconv -f UTF-32LE"),
        ("f.txt", '{"a":1}\n'.encode("utf-32-be"), "is UTF-32 text"),
        ("f.zip", b"PK\x03\x04rest", "unzip -p {dir}/f.zip > {dir}/f.ndjson"),
        ("f.bz2", b"BZh91AY&SYrest", "bzip2 -dc"),
        ("f.xz", b"\xfd7zXZ\x00rest", "xz -dc"),
        ("f.parquet", b"PAR1\x15\x04", "is a Parquet file"),
    ],
)  # fmt: skip
def test_what_is_not_ndjson_is_refused_with_a_remedy(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    """The message says what the file is and which command makes NDJSON of it."""
    assert says.format(dir=tmp_path) in refusal(written(tmp_path / name, data))


def undecodable() -> dict[str, bytes]:
    """Intact archives, by the command that unpacks them."""
    far = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    dictionary = zstd.train_dict([GOOD.replace(b"u1", b"u%d" % n) for n in range(2000)], 1000)
    return {
        "zstd -dc --long=31": far.compress(GOOD) + far.flush(),
        "zstd -dc -D DICTIONARY": zstd.compress(GOOD, zstd_dict=dictionary),
    }


async def test_an_archive_that_only_another_program_unpacks_is_refused(tmp_path: Path) -> None:
    """It is not called corrupt, and before anything is sent: no resume could ever succeed. Through
    a pipe too, unless something came before it.
    """
    for command, packed in undecodable().items():
        path = written(tmp_path / "a b.zst", packed)
        says = await asyncio.to_thread(refusal, path)
        assert f"`{command} '{path}' | ctbatch run -`" in says
        assert "corrupt" not in says
        read_fd, write_fd = os.pipe()
        os.write(write_fd, packed)
        os.close(write_fd)
        async with Reader(await asyncio.to_thread(expand, [f"/dev/fd/{read_fd}"]), Batching()) as r:
            with pytest.raises(InputError, match=f"as `{command}` does"):
                await r.next()
        os.close(read_fd)


def test_a_tar_archive_is_refused_also_when_zipped(tmp_path: Path) -> None:
    """Its members are not one stream of lines."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("users.ndjson")
        info.size = len(GOOD)
        tar.addfile(info, io.BytesIO(GOOD))
    assert "tar -xOf" in refusal(written(tmp_path / "f.tar.gz", buffer.getvalue()))


@pytest.mark.parametrize(
    "data",
    [
        b"[1,2]\n" + GOOD,
        b'[{"a":1}]\n' + GOOD,
        b"name,mail\n" + GOOD,
        b"{\n" + GOOD,
        b'{"a":1,\n' + GOOD,
        b'{"d":[]}\n' + GOOD,
        b"<html>\n" + GOOD,
        b"hello\n",
        b"hello, world",
        b"[1,2]\n[3,4]\n",
        b"PAR1 is not a record\n" + GOOD,
        b"\0\0\0\n" + GOOD,
        b"\x80" * 100 + b",\n" + GOOD,
        b"x," * 50_000 + b"\n" + GOOD,
        b"\n" * 70_000 + GOOD,
        b"# id, name, comment\n" * 3500 + GOOD,
        b"<p>\n" * 20_000 + GOOD,
        b"x,y\n" * 3500 + GOOD.replace(b"b, c", b"x" * 70_000),
        b'{"x":"a\n"}\n' + GOOD.replace(b"b, c", b"x" * 70_000) + GOOD,
        b'{"a":\n1}\n{"a":\n1}\n' + GOOD.replace(b"b, c", b"x" * 70_000) + GOOD,
        b'[{"a":1},\n' + GOOD.replace(b"b, c", b"x" * 70_000) + GOOD,
        b'{"d":[1],"type":"profile","identity":"a","profileData":{}}',
        b'{"d":[1],"type":"profile","identity":"a","profileData":{}}\nx\n',
        b"\xff\xfe\n" + GOOD,
        GOOD.replace(b"b, c", b"x" * 202 + b"mustard") + b"[" * 70_000,
        b"\x80,\x01" + random.Random(1).randbytes(5000),
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.rstrip(),
    ],
)
def test_a_bad_first_line_refuses_nothing(tmp_path: Path, data: bytes) -> None:
    """One bad line is an invalid line, and so are many: the file is taken."""
    assert len(expand([written(tmp_path / "f", data)])) == 1


def test_what_came_through_a_pipe_so_far_may_be_too_little_to_judge() -> None:
    """The beginning of a pipe is judged only by what is there; a remedy names no file."""
    refuse_unless_ndjson("-", b"name,mail\nx,y\n", whole=False)
    refuse_unless_ndjson("-", b'[{"a"', whole=False)
    refuse_unless_ndjson("-", b'[{"a":1},\n', whole=False)
    with pytest.raises(InputError, match=r"jq -c '.\[\]'"):
        refuse_unless_ndjson("-", b'[{"a":1},\n{"a":2},\n', whole=False, kind=Kind.PIPE)
    with pytest.raises(InputError, match="table"):
        refuse_unless_ndjson("-", b"name,mail\nx,y\n", whole=True)
