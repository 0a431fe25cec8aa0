"""What the subcommands share: the options that name a store, how results are shown, how sizes and times are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import click

_UNITS_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every subcommand that acts on a store."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--node", "url", help="A node elsewhere, by its S3 endpoint (root keys in the environment)."),
        click.option("--data", "folder", type=click.Path(file_okay=False), help="The data folder of this machine."),
    ):
        command = option(command)
    return command


def show(value: Any, lines: list[str], *, as_json: bool) -> None:
    """The result on stdout."""
    if as_json:
        click.echo(json.dumps(value))
    else:
        for line in lines:
            click.echo(line)


class Bytes(click.ParamType):  # type: ignore[type-arg]
    """A size such as 2TB, 500 GB or 1.5TiB, in bytes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", str(value).strip(), re.IGNORECASE)
        if found is None or (found[3] and not found[2]):
            self.fail(f"{value!r} is no size such as 2TB or 500GiB", param, ctx)
        unit = found[2].lower()
        factor = 1024 ** "kmgtp".index(unit) * 1024 if found[3] else _UNITS_BYTES[unit]
        size_bytes = int(float(found[1]) * factor)
        if not size_bytes:
            self.fail(f"{value!r} is less than one byte: give a size such as 2TB", param, ctx)
        return size_bytes


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time such as 30m, 1h or 2d, in milliseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        found = re.fullmatch(r"(\d{1,9})([smhd])", str(value).strip())
        if found is None or not int(found[1]):
            self.fail(f"{value!r} is no time such as 30m, 1h or 2d", param, ctx)
        return int(found[1]) * _UNITS_MS[found[2]]
