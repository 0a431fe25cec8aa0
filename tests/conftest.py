"""What needs root or a Debian package is said plainly; where it must run (`EDGESTORE_REQUIRE_ALL`), missing is an
error."""

from __future__ import annotations

import asyncio
import inspect
import os

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """The markers of this suite."""
    config.addinivalue_line("markers", "needs_root: mounts file systems, so it runs as root only")
    config.addinivalue_line("markers", "needs_program(name): runs a program of the system")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lists what cannot run here; in CI that is an error."""
    reasons = []
    if item.get_closest_marker("needs_root") and os.geteuid() != 0:
        reasons.append("needs root")
    for marker in item.iter_markers("needs_program"):
        if not any(os.access(os.path.join(folder, marker.args[0]), os.X_OK) for folder in os.get_exec_path()):
            reasons.append(f"needs the program {marker.args[0]}")
    if reasons and os.environ.get("EDGESTORE_REQUIRE_ALL"):
        pytest.fail("; ".join(reasons))
    if reasons:
        pytest.skip("; ".join(reasons))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A test that is a coroutine runs on an event loop of its own, with asyncio's own checks on."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    with asyncio.Runner(debug=True) as runner:
        runner.run(pyfuncitem.obj(**arguments))
    return True
