"""The subcommands. Results go to stdout, all else to stderr; exit 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edgestore.cli import site as of_sites
from edgestore.cli.doctor import examine
from edgestore.cli.options import Bytes, show, targeted
from edgestore.cli.site import status_lines
from edgestore.cli.target import Target, run
from edgestore.config import host_and_port, load_config
from edgestore.errors import ConfigError, EdgeStoreError
from edgestore.observe import start_logging
from edgestore.placement import TOLERATE_MAX

PIECE_BYTES = 1024 * 1024


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgestore")
def cli() -> None:
    """One dependable store from a few cheap machines."""


for _command in (of_sites.token, of_sites.join, of_sites.node, of_sites.site):
    cli.add_command(_command)


@cli.command()
@click.option("--data", "folder", required=True, type=click.Path(file_okay=False), help="The data folder.")
@click.option("--s3", "address", help="Where S3 listens, HOST:PORT (http.listen, 127.0.0.1:9000).")
@click.option("--config", "file", type=click.Path(exists=True, dir_okay=False), help="A TOML file.")
@click.option(
    "--s3-cert", type=click.Path(exists=True, dir_okay=False), help="TLS certificate, PEM (http.certificate)."
)
@click.option("--s3-key", type=click.Path(exists=True, dir_okay=False), help="Its key, PEM (http.key).")
@click.option("--mesh", help="Where this node listens for others, HOST:PORT: it becomes the first of a site.")
@click.option("--zone", default="", help="What fails together: a rack, a room, a power feed (with --mesh).")
@click.option("--capacity", "capacity_bytes", type=Bytes(), help="What the node may hold (the whole disk).")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
)
def serve(
    folder: str,
    address: str | None,
    file: str | None,
    s3_cert: str | None,
    s3_key: str | None,
    mesh: str | None,
    zone: str,
    capacity_bytes: int | None,
    log_level: str,
) -> None:
    """Runs a node in the foreground."""
    from edgestore.core import SITE_FILE, MeshOptions
    from edgestore.node import Listen, serve

    if s3_key and not s3_cert:
        raise click.UsageError("--s3-key needs --s3-cert: without a certificate S3 would be served in the clear")
    if (zone or capacity_bytes) and not mesh and not os.path.exists(os.path.join(folder, SITE_FILE)):
        raise click.UsageError("--zone and --capacity are for a node of a site, and this one is alone: give --mesh too")
    start_logging(log_level)
    try:
        for given in (address, mesh):
            host_and_port(given or "0.0.0.0:0")
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    config = load_config(folder, file)
    pair = (s3_cert, s3_key or "") if s3_cert else (config.http.certificate, config.http.key)
    options = MeshOptions(mesh or "", zone, capacity_bytes or 0)
    sys.exit(serve(folder, config, Listen(address or "", *pair), options))


@cli.group()
def bucket() -> None:
    """Creates, lists and deletes buckets."""


def _policy(tolerate: int | None, scheme: str | None) -> dict[str, str]:
    """What is asked of a bucket's redundancy."""
    asked = {"tolerate": None if tolerate is None else str(tolerate), "scheme": scheme}
    return {name: value for name, value in asked.items() if value is not None}


def redundant(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a bucket's redundancy."""
    for option in (
        click.option("--scheme", help="Fragments, such as 4+2; `default`: by the site's size."),
        click.option("--tolerate", type=click.IntRange(0, TOLERATE_MAX), help="How many nodes may be lost at once."),
    ):
        command = option(command)
    return command


@bucket.command("create")
@click.argument("name")
@redundant
@targeted
def bucket_create(
    name: str, tolerate: int | None, scheme: str | None, folder: str | None, url: str | None, as_json: bool
) -> None:
    """Creates a bucket."""
    question = {"name": name, **_policy(tolerate, scheme)}
    found = run(folder, url, lambda target: target.ask("PUT", "buckets", question), founds=True)
    show(found, [_redundancy(found) if "now" in found else found["name"]], as_json=as_json)


def _redundancy(row: dict[str, Any]) -> str:
    now = f"\tnow={row['now']}" if "now" in row else ""
    return f"{row['name']}\ttolerate={row['tolerate']}\tscheme={row['scheme']}{now}"


@bucket.command("set")
@click.argument("name")
@redundant
@targeted
def bucket_set(
    name: str, tolerate: int | None, scheme: str | None, folder: str | None, url: str | None, as_json: bool
) -> None:
    """Changes a bucket's redundancy; what is stored is encoded anew in the background."""
    policy = _policy(tolerate, scheme)
    if not policy:
        raise click.UsageError("name what to set: --tolerate or --scheme")
    found = run(folder, url, lambda target: target.ask("PUT", "policy", {"name": name, **policy}))
    show(found, [_redundancy(found)], as_json=as_json)


@bucket.command("list")
@targeted
def bucket_list(folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists all buckets; on a site of several nodes with how much of it each one outlives."""
    found = run(folder, url, lambda target: target.ask("GET", "buckets", {}))
    show(found, [_redundancy(row) if "now" in row else row["name"] for row in found], as_json=as_json)


@bucket.command("delete")
@click.argument("name")
@targeted
def bucket_delete(name: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Deletes an empty bucket."""
    found = run(folder, url, lambda target: target.ask("DELETE", "buckets", {"name": name}))
    show(found, [], as_json=as_json)


@cli.group()
def key() -> None:
    """Creates, lists and deletes access keys."""


@key.command("create")
@click.option("--name", required=True, help="The owner; created at the first key.")
@click.option("--access-key", default="", help="Made where not given.")
@click.option("--secret-key", default="", help="Made where not given.")
@click.option("--email", default="")
@targeted
def key_create(
    name: str, access_key: str, secret_key: str, email: str, folder: str | None, url: str | None, as_json: bool
) -> None:
    """Creates a key pair and prints it."""
    question = {"name": name, "access_key": access_key, "secret_key": secret_key, "email": email}
    found = run(folder, url, lambda target: target.ask("PUT", "keys", question), founds=True)
    show(found, [f"access_key = {found['access_key']}", f"secret_key = {found['secret_key']}"], as_json=as_json)


@key.command("list")
@targeted
def key_list(folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists access keys and their owners, never secrets."""
    found = run(folder, url, lambda target: target.ask("GET", "keys", {}))
    show(found, [f"{row['access_key']}\t{row['name']}\t{row['email']}".rstrip() for row in found], as_json=as_json)


@key.command("delete")
@click.argument("access_key")
@targeted
def key_delete(access_key: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Deletes a key pair; the owner and its buckets stay."""
    found = run(folder, url, lambda target: target.ask("DELETE", "keys", {"access_key": access_key}))
    show(found, [], as_json=as_json)


def _object(place: str) -> tuple[str, str] | None:
    """(bucket, key) of s3://bucket/key; None for a path."""
    if not place.startswith("s3://"):
        return None
    name, _, key = place[5:].partition("/")
    if not name:
        raise click.BadParameter(f"{place!r} names no bucket")
    return name, key


@cli.command()
@click.argument("source")
@click.argument("destination")
@targeted
def cp(source: str, destination: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Copies FILE to s3://bucket/key, or back."""
    there, here = _object(destination), _object(source)
    if (there is None) == (here is None):
        raise click.UsageError("one side is a file, the other s3://bucket/key")
    if here is not None and not here[1]:
        raise click.BadParameter(f"{source!r} names no key")

    async def work(target: Target) -> dict[str, Any]:
        if there is not None:
            return await _upload(target, Path(source), *there)
        assert here is not None
        return await _download(target, *here, Path(destination))

    found = run(folder, url, work)
    show(found, [f"{found['key']}\t{found['size_bytes']}\t{found['etag']}"], as_json=as_json)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


async def _upload(target: Target, path: Path, bucket: str, key: str) -> dict[str, Any]:
    key = f"{key}{path.name}" if not key or key.endswith("/") else key
    size = path.stat().st_size
    with _progress() as progress, path.open("rb") as file:
        task = progress.add_task(path.name, total=size)

        async def pieces() -> AsyncIterator[bytes]:
            while piece := file.read(PIECE_BYTES):
                progress.advance(task, len(piece))
                yield piece

        version = await target.store.bucket(bucket).put(key, pieces())
    return {"key": key, "size_bytes": version.size_bytes, "etag": version.etag, "version_id": version.version_id}


async def _download(target: Target, bucket: str, key: str, path: Path) -> dict[str, Any]:
    """Into a file of its own first, so that a broken copy never takes the name."""
    if path.is_dir():
        path = path / key.rpartition("/")[2]
    found = await target.store.bucket(bucket).get(key)
    partial = path.with_name(path.name + ".part")
    with _progress() as progress:
        task = progress.add_task(key, total=found.version.size_bytes)
        try:
            with partial.open("wb") as file:
                async for piece in found.stream():
                    file.write(piece)
                    progress.advance(task, len(piece))
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    version = found.version
    return {"key": key, "size_bytes": version.size_bytes, "etag": version.etag, "version_id": version.version_id}


@cli.command()
@click.argument("place", default="")
@targeted
def ls(place: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists buckets, or the objects of s3://bucket/prefix."""

    async def work(target: Target) -> list[dict[str, Any]]:
        if not place:
            return [{"name": name} for name in await target.store.buckets()]
        name, prefix = _object(place) or ("", "")
        rows = []
        async for version in target.store.bucket(name).list(prefix):
            rows.append({"key": version.key, "size_bytes": version.size_bytes, "etag": version.etag})
        return rows

    if place and not place.startswith("s3://"):
        raise click.BadParameter(f"{place!r} is not s3://bucket/prefix")
    found = run(folder, url, work)
    show(found, [row.get("name") or f"{row['size_bytes']:>14}  {row['key']}" for row in found], as_json=as_json)


@cli.command()
@click.argument("place")
@targeted
def rm(place: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Deletes s3://bucket/key."""
    named = _object(place)
    if named is None or not named[1]:
        raise click.BadParameter(f"{place!r} is not s3://bucket/key")

    async def work(target: Target) -> dict[str, Any]:
        return {"version_id": await target.store.bucket(named[0]).delete(named[1])}

    show(run(folder, url, work), [], as_json=as_json)


@cli.command()
@targeted
def status(folder: str | None, url: str | None, as_json: bool) -> None:
    """Shows where a node stands."""
    found = run(folder, url, lambda target: target.ask("GET", "status", {}))
    show(found, list(status_lines(found)), as_json=as_json)


@cli.command("step-log-time")
@targeted
def step_log_time(folder: str | None, url: str | None, as_json: bool) -> None:
    """Sets log time, by which things expire, forward to the node's wall clock: make sure that it is right first."""
    found = run(folder, url, lambda target: target.ask("PUT", "log-time", {}))
    show(found, [f"{name}: {value}" for name, value in found.items()], as_json=as_json)


@cli.command()
@click.option("--salvage", "target", type=click.Path(file_okay=False), help="Copies out what still checks out.")
@targeted
def doctor(folder: str | None, url: str | None, target: str | None, as_json: bool) -> None:
    """Examines a data folder or a node and says what to do; exit code 1 where something is wrong."""
    if target:
        if url or not folder:
            raise click.UsageError("--salvage reads the data folder of this machine: --data DIR")
        if not os.path.isdir(folder):
            raise ConfigError(f"{folder} is no folder: there is nothing to save")
        from edgestore.salvage import Salvage

        report = Salvage(folder, Path(target), load_config(folder)).run().row()
        show(report, [f"{name}: {value}" for name, value in report.items()], as_json=as_json)
        sys.exit(1 if report["damaged"] else 0)
    checks = examine(folder, url)
    lines = [f"{'ok ' if c.ok else 'BAD'} {c.name}: {c.found}{'; ' + c.advice if c.advice else ''}" for c in checks]
    show([check.row() for check in checks], lines, as_json=as_json)
    sys.exit(0 if all(check.ok for check in checks) else 1)


def main() -> None:
    """Runs the command; an error of the tree is one line on stderr and exit code 1."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except (EdgeStoreError, OSError) as error:
        click.echo(f"edgestore: {error}", err=True)
        sys.exit(1)
