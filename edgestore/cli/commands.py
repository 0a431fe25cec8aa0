"""The subcommands. Results go to stdout, all else to stderr; exit 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from edgestore.cli.doctor import examine
from edgestore.cli.target import Target, run
from edgestore.config import host_and_port, load_config
from edgestore.errors import ConfigError, EdgeStoreError
from edgestore.observe import start_logging

PIECE_BYTES = 1024 * 1024


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgestore")
def cli() -> None:
    """One dependable store from a few cheap machines."""


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every subcommand that acts on a store."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--node", "url", help="A node elsewhere, by its S3 endpoint (root keys in the environment)."),
        click.option("--data", "folder", type=click.Path(file_okay=False), help="The data folder of this machine."),
    ):
        command = option(command)
    return command


def _show(value: Any, lines: list[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(value))
    else:
        for line in lines:
            click.echo(line)


@cli.command()
@click.option("--data", "folder", required=True, type=click.Path(file_okay=False), help="The data folder.")
@click.option("--s3", "address", help="Where S3 listens, HOST:PORT (http.listen, 127.0.0.1:9000).")
@click.option("--config", "file", type=click.Path(exists=True, dir_okay=False), help="A TOML file.")
@click.option(
    "--s3-cert", type=click.Path(exists=True, dir_okay=False), help="TLS certificate, PEM (http.certificate)."
)
@click.option("--s3-key", type=click.Path(exists=True, dir_okay=False), help="Its key, PEM (http.key).")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
)
def serve(
    folder: str, address: str | None, file: str | None, s3_cert: str | None, s3_key: str | None, log_level: str
) -> None:
    """Runs a node in the foreground."""
    from edgestore.node import Listen, serve

    if s3_key and not s3_cert:
        raise click.UsageError("--s3-key needs --s3-cert: without a certificate S3 would be served in the clear")
    start_logging(log_level)
    try:
        flag = host_and_port(address) if address is not None else None
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    config = load_config(folder, file)
    host, port = flag or host_and_port(config.http.listen)
    pair = (s3_cert, s3_key or "") if s3_cert else (config.http.certificate, config.http.key)
    sys.exit(serve(folder, config, Listen(host, port, *pair)))


@cli.group()
def bucket() -> None:
    """Creates, lists and deletes buckets."""


@bucket.command("create")
@click.argument("name")
@targeted
def bucket_create(name: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Creates a bucket."""
    found = run(folder, url, lambda target: target.ask("PUT", "buckets", {"name": name}), founds=True)
    _show(found, [found["name"]], as_json=as_json)


@bucket.command("list")
@targeted
def bucket_list(folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists all buckets."""
    found = run(folder, url, lambda target: target.ask("GET", "buckets", {}))
    _show(found, [row["name"] for row in found], as_json=as_json)


@bucket.command("delete")
@click.argument("name")
@targeted
def bucket_delete(name: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Deletes an empty bucket."""
    found = run(folder, url, lambda target: target.ask("DELETE", "buckets", {"name": name}))
    _show(found, [], as_json=as_json)


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
    _show(found, [f"access_key = {found['access_key']}", f"secret_key = {found['secret_key']}"], as_json=as_json)


@key.command("list")
@targeted
def key_list(folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists access keys and their owners, never secrets."""
    found = run(folder, url, lambda target: target.ask("GET", "keys", {}))
    _show(found, [f"{row['access_key']}\t{row['name']}\t{row['email']}".rstrip() for row in found], as_json=as_json)


@key.command("delete")
@click.argument("access_key")
@targeted
def key_delete(access_key: str, folder: str | None, url: str | None, as_json: bool) -> None:
    """Deletes a key pair; the owner and its buckets stay."""
    found = run(folder, url, lambda target: target.ask("DELETE", "keys", {"access_key": access_key}))
    _show(found, [], as_json=as_json)


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
    _show(found, [f"{found['key']}\t{found['size_bytes']}\t{found['etag']}"], as_json=as_json)


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
    _show(found, [row.get("name") or f"{row['size_bytes']:>14}  {row['key']}" for row in found], as_json=as_json)


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

    _show(run(folder, url, work), [], as_json=as_json)


@cli.command()
@targeted
def status(folder: str | None, url: str | None, as_json: bool) -> None:
    """Shows where a node stands."""
    found = run(folder, url, lambda target: target.ask("GET", "status", {}))
    _show(found, [f"{name}: {value}" for name, value in found.items()], as_json=as_json)


@cli.command("step-log-time")
@targeted
def step_log_time(folder: str | None, url: str | None, as_json: bool) -> None:
    """Sets log time, by which things expire, forward to the node's wall clock: make sure that it is right first."""
    found = run(folder, url, lambda target: target.ask("PUT", "log-time", {}))
    _show(found, [f"{name}: {value}" for name, value in found.items()], as_json=as_json)


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
        _show(report, [f"{name}: {value}" for name, value in report.items()], as_json=as_json)
        sys.exit(1 if report["damaged"] else 0)
    checks = examine(folder, url)
    lines = [f"{'ok ' if c.ok else 'BAD'} {c.name}: {c.found}{'; ' + c.advice if c.advice else ''}" for c in checks]
    _show([check.row() for check in checks], lines, as_json=as_json)
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
