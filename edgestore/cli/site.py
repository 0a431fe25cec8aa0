"""The subcommands for sites of several nodes: tokens, joining, members, and recovery by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from edgestore.cli.options import Bytes, Duration, show, targeted
from edgestore.cli.target import run
from edgestore.config import host_and_port, load_config
from edgestore.errors import ConfigError
from edgestore.observe import start_logging

CLOCK_APART_MAX_S = 60
CLOCK_ADVICE = "set it (NTP): alone this node would refuse S3 clients from 15 minutes on, 403 RequestTimeTooSkewed"
VOTERS_LEAST = 3


@click.group()
def token() -> None:
    """Makes tokens with which new machines join."""


@token.command("create")
@click.option("--ttl", "ttl_ms", type=Duration(), default="1h", show_default=True, help="How long it may be used.")
@targeted
def token_create(ttl_ms: int, folder: str | None, url: str | None, as_json: bool) -> None:
    """Prints a token that lets one new machine join."""
    found = run(folder, url, lambda target: target.ask("PUT", "tokens", {"ttl_ms": str(ttl_ms)}))
    show(found, [found["token"]], as_json=as_json)


@click.command()
@click.option("--token", "text", required=True, help="As `token create` printed it on a member.")
@click.option("--peer", "peers", required=True, multiple=True, help="A member's mesh address, HOST:PORT; repeatable.")
@click.option(
    "--data", "folder", required=True, type=click.Path(file_okay=False), help="The data folder, an empty one."
)
@click.option("--s3", "address", help="Where S3 listens, HOST:PORT (http.listen, 127.0.0.1:9000).")
@click.option("--mesh", help="Where this node listens for the others, HOST:PORT.")
@click.option("--zone", default="", help="What fails together: a rack, a room, a power feed.")
@click.option("--capacity", "capacity_bytes", type=Bytes(), help="What the node may hold (the whole disk).")
@click.option("--witness", is_flag=True, help="Votes and holds the catalog, no content.")
@click.option("--config", "file", type=click.Path(exists=True, dir_okay=False), help="A TOML file.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    show_default=True,
)
def join(
    text: str,
    peers: tuple[str, ...],
    folder: str,
    address: str | None,
    mesh: str | None,
    zone: str,
    capacity_bytes: int | None,
    witness: bool,
    file: str | None,
    log_level: str,
) -> None:
    """Makes this machine a node of a site and serves; later `serve --data DIR` is enough."""
    from edgestore.cluster import parse_token
    from edgestore.core import Joining, MeshOptions
    from edgestore.node import Listen, join

    start_logging(log_level)
    try:
        for given in (*peers, *((mesh,) if mesh else ()), *((address,) if address else ())):
            host_and_port(given)
    except ConfigError as error:
        raise click.BadParameter(str(error)) from error
    config = load_config(folder, file)
    listen = Listen(address or "", config.http.certificate, config.http.key)
    options = MeshOptions(mesh or "", zone, capacity_bytes or 0, witness)
    sys.exit(join(folder, config, listen, options, Joining(parse_token(text), peers)))


@click.group()
def node() -> None:
    """Lists the nodes of a site and changes what they are."""


def _cells(row: dict[str, Any]) -> str:
    roles = [name for name in ("leader", "voter", "witness", "suspected") if row.get(name)]
    columns = (
        f"{row['number']:>3}",
        row["state"],
        f"zone={row['zone'] or '-'}",
        f"weight={row['weight']}",
        f"quality={row['quality']}",
        row["address"],
        f"s3={row['s3'] or '-'}",
        ",".join(roles) or "-",
    )
    return "\t".join(columns)


@node.command("list")
@targeted
def node_list(folder: str | None, url: str | None, as_json: bool) -> None:
    """Lists the nodes: number, state, zone, weight, quality, addresses, roles."""
    found = run(folder, url, lambda target: target.ask("GET", "nodes", {}))
    show(found, [_cells(row) for row in found], as_json=as_json)


def clock_apart(status: dict[str, Any]) -> str:
    """How a node's wall clock differs from its site's time; empty where it does not, or nobody can tell: with fewer
    than three voters no majority of the clocks sets the site's time."""
    site = status.get("site")
    if site is None or not status["serves"] or sum(row["voter"] for row in site["nodes"]) < VOTERS_LEAST:
        return ""
    ahead_s = (status["clock_ms"] - status["log_time_ms"]) // 1000
    if abs(ahead_s) <= CLOCK_APART_MAX_S:
        return ""
    return f"differs from the site's time: {abs(ahead_s)} s {'ahead' if ahead_s > 0 else 'behind'}"


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """For people: one line a fact, and one a node."""
    site = status.get("site")
    yield from (f"{name}: {value}" for name, value in status.items() if name != "site")
    if site is None:
        return
    yield f"distance to data loss: {site['distance']}"
    if apart := clock_apart(status):
        yield f"clock: {apart}; {CLOCK_ADVICE}"
    leader = site["leader"] or "none"
    yield f"site: {site['site_id']} epoch={site['epoch']} leader={leader} repair_left={site['repair_left']}"
    yield f"zones: {', '.join(site['zones']) or '-'}"
    yield from (_cells(row) for row in site["nodes"])


def _change(question: dict[str, str], folder: str | None, url: str | None, *, as_json: bool) -> None:
    found = run(folder, url, lambda target: target.ask("PUT", "nodes", question))
    show(found, [_cells(found)], as_json=as_json)


@node.command("drain")
@click.argument("number", type=click.IntRange(1))
@click.option("--undo", is_flag=True, help="Takes it back: the node takes new data again, and its share moves to it.")
@targeted
def node_drain(number: int, undo: bool, folder: str | None, url: str | None, as_json: bool) -> None:
    """Takes no more new data to a node; what it holds moves to the others."""
    _change({"number": str(number), "state": "up" if undo else "draining"}, folder, url, as_json=as_json)


@node.command("remove")
@click.argument("number", type=click.IntRange(1))
@click.option("--yes", is_flag=True, help="Does not ask.")
@click.option("--force", is_flag=True, help="Also where content is lost with it: a stolen node.")
@targeted
def node_remove(number: int, yes: bool, force: bool, folder: str | None, url: str | None, as_json: bool) -> None:
    """Shuts a node out for ever. What it held is made again from the others; refused where they cannot."""
    if not yes:
        site = run(folder, url, lambda target: target.ask("GET", "status", {})).get("site") or {}
        click.echo(f"distance to data loss: {site.get('distance', 'unknown')}", err=True)
        click.confirm(f"Node {number} never comes back under this identity. Remove it?", abort=True, err=True)
    _change({"number": str(number), "state": "removed", "force": str(force).lower()}, folder, url, as_json=as_json)


@node.command("set-weight")
@click.argument("number", type=click.IntRange(1))
@click.argument("weight", type=click.IntRange(1))
@targeted
def node_set_weight(number: int, weight: int, folder: str | None, url: str | None, as_json: bool) -> None:
    """Sets a node's share of the data, in GiB of capacity."""
    _change({"number": str(number), "weight": str(weight)}, folder, url, as_json=as_json)


@click.group()
def site() -> None:
    """Recovery by hand."""


@site.command("recover")
@click.option("--data", "folder", required=True, type=click.Path(file_okay=False), help="The folder of a survivor.")
@click.option("--from-survivors", is_flag=True, required=True, help="Goes on without the members that are lost.")
@click.option("--lost", "lost", type=click.IntRange(1), multiple=True, help="A lost node's number; repeatable.")
@click.option("--yes", is_flag=True, help="Does not ask: for machines, after reading what it prints without.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def site_recover(folder: str, from_survivors: bool, lost: tuple[int, ...], yes: bool, as_json: bool) -> None:
    """Makes one survivor the only voter where the majority is lost for good. The node must be stopped."""
    from edgestore.core import plan_recovery, recover_site

    assert from_survivors
    config = load_config(folder)
    plan = plan_recovery(folder, config, lost)
    for line in plan.lines():
        click.echo(line, err=True)
    if not yes:
        click.confirm("Are the nodes above lost for good, every one of them?", abort=True, err=True)
        typed = click.prompt("Type the id of the site to go on", err=True)
        if typed != plan.site_id:
            raise click.UsageError("that is not the id of the site: nothing was done")
    done = recover_site(folder, config, plan)
    show(done, [json.dumps(done)], as_json=as_json)
