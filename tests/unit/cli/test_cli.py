"""The command line on a folder, on a running node, and with wrong input."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess

KEYS = {"EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}


def edgestore(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    result = subprocess.run(
        [sys.executable, "-m", "edgestore", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **KEYS},
        timeout=60,
        check=False,
    )
    assert result.returncode == expect, result.stderr
    return result


@pytest.fixture(params=["folder", "node", "long socket path", "url"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[str]]:
    """The options that name what to act on."""
    folder = tmp_path / ("x" * 120 if request.param == "long socket path" else "data")
    folder.mkdir()
    if request.param == "folder":
        yield ["--data", str(folder)]
        return
    node = NodeProcess(folder)
    node.start()
    yield ["--node", node.endpoint] if request.param == "url" else ["--data", str(folder)]
    assert node.stop() == 0


def test_a_day_with_the_command_line(target: list[str], tmp_path: Path) -> None:
    source, back = tmp_path / "source.bin", tmp_path / "back.bin"
    source.write_bytes(os.urandom(300_000))
    assert edgestore("bucket", "create", "photos", *target).stdout == "photos\n"
    failed = edgestore("bucket", "create", "photos", *target, expect=1)
    assert failed.stdout == ""
    assert "taken" in failed.stderr
    edgestore("cp", str(source), "s3://photos/2026/", *target)
    listed = json.loads(edgestore("ls", "s3://photos/2026/", "--json", *target).stdout)
    assert [row["key"] for row in listed] == ["2026/source.bin"]
    edgestore("cp", "s3://photos/2026/source.bin", str(back), *target)
    assert back.read_bytes() == source.read_bytes()
    key = json.loads(edgestore("key", "create", "--name", "alice", "--json", *target).stdout)
    rows = json.loads(edgestore("key", "list", "--json", *target).stdout)
    assert {row["name"] for row in rows} == {"root", "alice"}
    assert all("secret_key" not in row for row in rows)
    edgestore("key", "delete", key["access_key"], *target)
    edgestore("key", "delete", key["access_key"], *target, expect=1)
    assert json.loads(edgestore("status", "--json", *target).stdout)["leader"] is True
    before_ms = json.loads(edgestore("status", "--json", *target).stdout)["log_time_ms"]
    assert json.loads(edgestore("step-log-time", "--json", *target).stdout)["log_time_ms"] > before_ms
    edgestore("rm", "s3://photos/2026/source.bin", *target)
    edgestore("cp", "s3://photos/2026/source.bin", str(tmp_path / "none"), *target, expect=1)
    assert not (tmp_path / "none").exists()
    edgestore("bucket", "delete", "photos", *target)
    assert edgestore("bucket", "list", *target).stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("cp", "a", "b"),
        ("cp", "s3://photos/", "b"),
        ("ls", "photos"),
        ("rm", "s3://photos"),
        ("serve",),
        ("serve", "--log-level", "FOO"),
        ("key", "create"),
        ("serve", "--data", "nothing", "--s3", "192.0.2.1:1", "--capacity", "2TB"),
        ("serve", "--data", "nothing", "--s3", "192.0.2.1:1", "--zone", "a"),
        ("serve", "--data", "nothing", "--s3", "192.0.2.1:1", "--mesh", "127.0.0.1:0", "--capacity", "0"),
        ("bucket", "create", "photos", "--tolerate", "5", "--data", "nothing"),
        ("status", "--node", "foo"),
        ("status", "--node", "http://127.0.0.1:99999"),
        ("status", "--node", "http://127.0.0.1:9", "--data", "."),
        ("doctor",),
        ("doctor", "--salvage", "saved"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = edgestore(*arguments, *(["--data", str(tmp_path)] if arguments[0] in ("cp", "ls", "rm") else []), expect=2)
    assert result.stdout == ""


def test_a_missing_folder_and_a_missing_node_are_said_plainly(tmp_path: Path) -> None:
    assert "is no folder" in edgestore("ls", "--data", str(tmp_path / "nothing"), expect=1).stderr
    assert "--data DIR" in edgestore("ls", expect=2).stderr
    assert "does not answer" in edgestore("status", "--node", "http://127.0.0.1:9", expect=1).stderr


def test_a_node_that_stops_while_it_is_asked_is_named_by_its_folder(tmp_path: Path) -> None:
    edgestore("bucket", "create", "photos", "--data", str(tmp_path))

    def accept_and_close() -> None:
        with suppress(OSError):
            while True:
                listening.accept()[0].close()

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "node.sock"))
        listening.listen()
        threading.Thread(target=accept_and_close, daemon=True).start()
        failed = edgestore("status", "--data", str(tmp_path), expect=1)
        listening.shutdown(socket.SHUT_RDWR)
    assert f"the node of {tmp_path} does not answer" in failed.stderr
    assert "localhost" not in failed.stderr


def test_an_interrupt_while_the_command_is_loaded_is_silent() -> None:
    program = (
        "import runpy, sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edgestore.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "runpy.run_module('edgestore', run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (130, "")


def test_only_what_begins_a_store_begins_one(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a folder of something else")
    target = ("--data", str(tmp_path))
    for words in (("ls",), ("status",), ("bucket", "list"), ("bucket", "delete", "photos"), ("key", "list")):
        assert "holds no store" in edgestore(*words, *target, expect=1).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    edgestore("bucket", "create", "photos", *target)
    assert edgestore("ls", *target).stdout == "photos\n"


@pytest.mark.parametrize(
    "wrong", [("--scheme", "4x2"), ("--scheme", "0+0"), ("--scheme", "40+20"), ("--scheme", "2+1", "--tolerate", "2")]
)
def test_a_redundancy_that_cannot_be_leaves_no_bucket_behind(wrong: tuple[str, ...], tmp_path: Path) -> None:
    edgestore("bucket", "create", "photos", *wrong, "--data", str(tmp_path), expect=1)
    assert edgestore("bucket", "list", "--data", str(tmp_path)).stdout == ""


def test_an_error_names_the_object_and_text_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    edgestore("bucket", "create", "photos", "--data", str(tmp_path))
    failed = edgestore("cp", "s3://photos/none", str(tmp_path / "x"), "--data", str(tmp_path), expect=1)
    assert "photos/none" in failed.stderr
    failed = edgestore("ls", "s3://photos/\udcff", "--data", str(tmp_path), expect=1)
    assert "UTF-8" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_no_store_is_founded_where_the_address_is_taken_or_another_machine_s(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for option, others in (("--s3", ()), ("--mesh", ("--s3", "127.0.0.1:0"))):
            failed = edgestore("serve", "--data", str(folder), option, address, *others, expect=1)
            assert f"{address} cannot be listened on" in failed.stderr
            assert f"with {option}" in failed.stderr
        failed = edgestore("serve", "--data", str(folder), "--s3", address, "--mesh", address, expect=1)
        assert f"{address} is named for S3 and for other nodes" in failed.stderr
    assert not folder.exists()
    folder.mkdir()
    edgestore("bucket", "create", "photos", "--data", str(folder))
    failed = edgestore("serve", "--data", str(folder), "--s3", "192.0.2.1:9000", expect=1)
    assert "with --s3" in failed.stderr
    assert "Errno" not in failed.stderr


def test_a_data_folder_that_cannot_be_made_is_said_plainly() -> None:
    failed = edgestore("serve", "--data", "/proc/nothing", "--s3", "127.0.0.1:0", expect=1)
    assert "with --data" in failed.stderr
    assert "Errno" not in failed.stderr


def test_other_root_keys_at_a_later_start_are_refused(tmp_path: Path) -> None:
    edgestore("bucket", "create", "photos", "--data", str(tmp_path))
    credentials = tmp_path / "credentials.toml"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert ACCESS_KEY in credentials.read_text()
    result = subprocess.run(
        [sys.executable, "-m", "edgestore", "serve", "--data", str(tmp_path), "--s3", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        env={**os.environ, "EDGESTORE_ACCESS_KEY": "OTHER", "EDGESTORE_SECRET_KEY": "other-secret"},
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "not the root keys" in result.stderr


def served(folder: Path, *flags: str, **environment: str) -> str:
    """The first line of a node that is stopped then."""
    command = [sys.executable, "-m", "edgestore", "serve", "--data", str(folder), *flags]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **KEYS, **environment}
    ) as node:
        assert node.stdout is not None
        line = node.stdout.readline()
        node.terminate()
    assert node.returncode == 0
    return line


def test_where_a_node_listens_is_flag_over_environment_over_file(tmp_path: Path) -> None:
    assert "s3=http://127.0.0.4:" in served(tmp_path, "--s3", "127.0.0.4:0")
    written = (tmp_path / "config.toml").read_text()
    assert all(line.startswith("#") for line in written.splitlines())
    (tmp_path / "config.toml").write_text(written + '[http]\nlisten = "127.0.0.2:0"\n')
    assert "s3=http://127.0.0.2:" in served(tmp_path)
    assert "s3=http://127.0.0.3:" in served(tmp_path, EDGESTORE_HTTP_LISTEN="127.0.0.3:0")
    assert "s3=http://127.0.0.4:" in served(tmp_path, "--s3", "127.0.0.4:0", EDGESTORE_HTTP_LISTEN="127.0.0.3:0")
    assert "[http]" in (tmp_path / "config.toml").read_text()


@pytest.mark.parametrize("wrong", ["certificate", "key", "both"])
def test_a_wrong_pem_file_is_named(tmp_path: Path, wrong: str) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    key.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    for path in (certificate, key):
        if path.stem == wrong:
            path.write_text("something else")
    flags = ("--s3-cert", str(certificate), "--s3-key", str(key), "--s3", "127.0.0.1:0")
    failed = edgestore("serve", "--data", str(tmp_path / "data"), *flags, expect=1)
    assert "Traceback" not in failed.stderr
    for path in (certificate, key):
        assert (str(path) in failed.stderr) == (wrong in (path.stem, "both"))


def test_an_unknown_setting_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[disk]\nreserve_byte = 5\n")
    failed = edgestore("serve", "--data", str(tmp_path), expect=1)
    assert "reserve_bytes" in failed.stderr


def test_doctor_finds_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    edgestore("bucket", "create", "photos", "--data", str(folder))
    assert all(check["ok"] for check in json.loads(edgestore("doctor", "--data", str(folder), "--json").stdout))
    (folder / "credentials.toml").chmod(0o644)
    result = edgestore("doctor", "--data", str(folder), expect=1)
    assert "chmod 600" in result.stdout
    assert "missing" in edgestore("doctor", "--data", str(tmp_path / "no"), expect=1).stdout


def test_doctor_finds_what_a_node_would_refuse(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    target = ("--data", str(folder))
    edgestore("bucket", "create", "photos", *target)
    for name in ("identity", "journal", "credentials.toml"):
        path = next((folder / "journal").glob("*.journal")) if name == "journal" else folder / name
        before = path.read_bytes()
        content = bytearray(before)
        content[200 if name == "journal" else 0] ^= 1
        path.write_bytes(b"garbage" if name == "credentials.toml" else content)
        checks = json.loads(edgestore("doctor", "--json", *target, expect=1).stdout)
        assert [check["name"] for check in checks if not check["ok"]] == [name.partition(".")[0]]
        path.write_bytes(before)
    edgestore("doctor", *target)


def test_doctor_asks_the_node_that_runs(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data")
    node.start()
    for target in (("--data", str(node.data)), ("--node", node.endpoint)):
        checks = {check["name"]: check for check in json.loads(edgestore("doctor", "--json", *target).stdout)}
        assert checks["node"]["ok"]
        assert "0 damaged fragments" in checks["disk"]["found"]
    assert node.stop() == 0


@pytest.mark.parametrize("damage", ["journal", "catalog"])
def test_salvage_saves_what_checks_out(tmp_path: Path, damage: str) -> None:
    folder, saved = tmp_path / "data", tmp_path / "saved"
    folder.mkdir()
    bodies = {"small": os.urandom(100), "large": os.urandom(700_000), "packed": b"again " * 50_000}
    edgestore("bucket", "create", "photos", "--data", str(folder))
    for name, body in bodies.items():
        (tmp_path / name).write_bytes(body)
        edgestore("cp", str(tmp_path / name), f"s3://photos/{name}", "--data", str(folder))
    for path in (folder / damage).iterdir():
        path.write_bytes(b"garbage")
    report = json.loads(edgestore("doctor", "--data", str(folder), "--salvage", str(saved), "--json", expect=1).stdout)
    assert report["damaged"] > 0
    if damage == "journal":
        assert report["objects"] == 3
        assert {name: (saved / "photos" / name).read_bytes() for name in bodies} == bodies
    else:
        assert report["chunks"] + report["objects"] == 2
        found = {path.read_bytes() for path in saved.rglob("*") if path.is_file()}  # the journal names some
        assert found == {bodies["large"], bodies["packed"]}


def test_a_key_without_a_certificate_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("")
    failed = edgestore("serve", "--data", str(tmp_path), "--s3-key", str(tmp_path / "key.pem"), expect=2)
    assert "--s3-cert" in failed.stderr
