"""The subcommands. Results go to stdout, all else to stderr; exit 0 done, 1 failed, 2 usage."""

from __future__ import annotations

import sys

import click

from edgestore.config import load_config
from edgestore.errors import EdgeStoreError
from edgestore.observe import start_logging


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="edgestore")
def cli() -> None:
    """One dependable store from a few cheap machines."""


def _address(value: str) -> tuple[str, int]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65_535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


@cli.command()
@click.option("--data", "folder", required=True, type=click.Path(file_okay=False), help="The data folder.")
@click.option("--s3", "address", default="127.0.0.1:9000", show_default=True, help="Where S3 listens, HOST:PORT.")
@click.option("--config", "file", type=click.Path(exists=True, dir_okay=False), help="A TOML file.")
@click.option("--s3-cert", type=click.Path(exists=True, dir_okay=False), help="TLS certificate (PEM).")
@click.option("--s3-key", type=click.Path(exists=True, dir_okay=False), help="Its key (PEM).")
@click.option("--log-level", default="INFO", show_default=True)
def serve(folder: str, address: str, file: str | None, s3_cert: str | None, s3_key: str | None, log_level: str) -> None:
    """Runs a node in the foreground."""
    from edgestore.node import Listen, serve  # noqa: PLC0415 - a client does not load a server

    start_logging(log_level)
    host, port = _address(address)
    config = load_config(folder, file)
    sys.exit(serve(folder, config, Listen(host, port, s3_cert or "", s3_key or "")))


def main() -> None:
    """Runs the command; an error of the tree is one line on stderr and exit code 1."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except EdgeStoreError as error:
        click.echo(f"edgestore: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        click.echo(f"edgestore: {error}", err=True)
        sys.exit(1)
