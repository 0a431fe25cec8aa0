"""A forced kernel is a demand: what is unknown, not built, or beyond this processor is an error, with what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_path

import pytest

pytest.importorskip("edgestore.kernels._native")
pytestmark = pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a compiler is not to be sanitized")

ROOT = Path(__file__).parents[2]
USE = "from edgestore.kernels import active_kernel, crc32c; print(active_kernel, crc32c(b'123456789'))"


def start(kernel: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Imports the kernels in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "EDGESTORE_KERNEL"}
    environment |= {"PYTHONPATH": str(root)} | ({"EDGESTORE_KERNEL": kernel} if kernel else {})
    return subprocess.run([sys.executable, "-c", USE], cwd=root, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def poor_processor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build for which the compiler says of every feature that the processor lacks it."""
    root = tmp_path_factory.mktemp("poor")
    shutil.copytree(ROOT / "edgestore", root / "edgestore", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    flags = ["-std=c11", "-O1", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030B0000", f"-I{get_path('include')}"]
    sources = [str(path) for path in sorted((ROOT / "cext").glob("*.c"))]
    target = ["-o", str(root / "edgestore/kernels/_native.abi3.so")]
    subprocess.run([compiler, *flags, "-D__builtin_cpu_supports(feature)=0", *sources, *target], check=True)
    return root


def test_the_kernel_is_chosen_by_the_environment() -> None:
    assert start("portable").stdout == f"portable {0xE3069283}\n"
    assert start("reference").stdout == f"reference {0xE3069283}\n"
    assert start("").returncode == 0


def test_an_unknown_kernel_is_refused() -> None:
    result = start("avx3")
    assert result.returncode == 1
    assert "ConfigError: EDGESTORE_KERNEL=avx3 is no kernel: use one of gfni512" in result.stderr


@pytest.mark.parametrize("kernel", ["ssse3", "avx2", "gfni2", "gfni512"])
def test_a_forced_kernel_that_the_processor_cannot_run_is_refused(poor_processor: Path, kernel: str) -> None:
    result = start(kernel, poor_processor)
    assert result.returncode == 1
    assert f"ConfigError: EDGESTORE_KERNEL={kernel}: this processor cannot run the kernel {kernel}" in result.stderr


def test_a_processor_that_lacks_everything_runs_the_portable_kernel(poor_processor: Path) -> None:
    assert start("", poor_processor).stdout == f"portable {0xE3069283}\n"


def test_a_forced_kernel_needs_the_extension(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "edgestore", tmp_path / "edgestore", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    result = start("portable", tmp_path)
    assert result.returncode == 1
    assert "needs the C extension, which is not built: install a C compiler" in result.stderr
    assert start("", tmp_path).stdout == f"reference {0xE3069283}\n"
