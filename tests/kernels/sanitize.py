"""`python -m tests.kernels.sanitize`: builds the extension with ASan and UBSan and runs the kernel tests with it.

Rule: it works on a copy of the package in a temporary folder, so the extension that is in use stays as it is.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1 -Werror"


def copy_tree(target: Path) -> None:
    """What the tests need, without any extension that was built before."""
    no_extension = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in ("edgestore", "cext", "tests/kernels", "tests/golden"):
        shutil.copytree(ROOT / folder, target / folder, ignore=no_extension)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target)


def runtime(compiler: str, name: str) -> str:
    """The path of a sanitizer's library, which must be loaded before Python."""
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def main() -> int:
    """Builds, tests, and returns pytest's exit code."""
    compiler = os.environ.get("CC", "gcc")
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        subprocess.run(build, cwd=folder, env={**os.environ, "CFLAGS": FLAGS, "CC": compiler}, check=True)
        if not list((Path(folder) / "edgestore/kernels").glob("_native*.so")):
            print("the extension was not built: is a C compiler with sanitizers there?", file=sys.stderr)
            return 1
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(runtime(compiler, name) for name in ("libasan.so", "libubsan.so")),
            "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": folder,
        }
        run = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/kernels", *sys.argv[1:]]
        return subprocess.run(run, cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
