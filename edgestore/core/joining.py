"""Opens a node of a site: one that founds it, one that joins it now, or one that has joined before.

Rule: what can be refused is refused before the token is spent: a folder that is not empty, an address that is taken.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgestore.catalog import commands
from edgestore.clock import Clock, Entropy, SystemClock, system_entropy
from edgestore.config import Config, HttpConfig, host_and_port
from edgestore.core import membership
from edgestore.core.membership import SiteFile, read_site
from edgestore.core.opening import Core
from edgestore.disk import Files, open_identity
from edgestore.errors import ConfigError, Corrupt
from edgestore.observe import Metrics
from edgestore.tenants import RootKeys

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.cluster import Token
    from edgestore.net import Network

MESH_PORT = 9100
MESH_PORTS = 100
"""A joiner without `--mesh` takes the first free port of these."""
EVERYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What the operator says of a node's place among others. `listen`: HOST:PORT, empty: as remembered."""

    listen: str = ""
    zone: str = ""
    capacity_bytes: int = 0
    witness: bool = False


@dataclass(frozen=True, slots=True)
class Joining:
    """How to become a member: the token, and the mesh addresses of members to ask."""

    token: Token
    peers: tuple[str, ...]


async def open_in_site(
    files: Files,
    config: Config,
    options: MeshOptions,
    *,
    s3: str,
    root_keys: RootKeys | None,
    metrics: Metrics,
) -> Core:
    """As `Core.open`, which it ends in. `s3`: where S3 shall listen; empty: as remembered, or as configured."""
    from edgestore.core.mesh import Mesh
    from edgestore.net import SystemNetwork

    network = SystemNetwork()
    settings = read_site(files)
    if settings is None:
        address = config.net.advertise or _joinable(options.listen, "")
        settings = SiteFile("", "", options.listen, address, zone=options.zone, capacity_bytes=options.capacity_bytes)
    changed = _changed(settings, options, config.net.advertise, s3 or _configured(config, settings))
    if changed.site_id and changed != settings:
        membership.write_site(files, changed)
    clock = SystemClock()
    return await Core.open(
        files,
        config,
        clock=clock,
        root_keys=root_keys,
        metrics=metrics,
        make_mesh=lambda core: Mesh(core, changed, network, system_entropy),
    )


def _configured(config: Config, settings: SiteFile) -> str:
    """The configuration counts where it says something of its own."""
    if config.http.listen != HttpConfig().listen or not settings.s3:
        return config.http.listen
    return settings.s3


def _changed(settings: SiteFile, options: MeshOptions, advertise: str, s3: str) -> SiteFile:
    """The flags of this start over what is remembered."""
    listen = options.listen or settings.listen
    kept = settings.address if listen == settings.listen else _joinable(listen, "")
    return msgspec.structs.replace(
        settings,
        listen=listen,
        address=advertise or kept,
        s3=s3,
        zone=options.zone or settings.zone,
        capacity_bytes=options.capacity_bytes or settings.capacity_bytes,
    )


async def join_site(files: Files, config: Config, options: MeshOptions, joining: Joining, *, s3: str) -> None:
    """Gets the papers and writes them, `site.json` last: before that the same token may be shown again. It may be
    cancelled. A folder that has joined joins no more."""
    from edgestore.net import SystemNetwork

    if read_site(files) is not None:
        return
    lock = files.lock("lock")
    try:
        if files.list("journal"):
            raise ConfigError("the data folder holds a store, and stores do not merge: join with an empty folder")
        listen, s3 = options.listen or _free_address(joining.peers[0]), s3 or config.http.listen
        check_addresses(s3, listen)
        member = open_identity(files, system_entropy).member_id.hex()
        asked = SiteFile(
            "",
            member,
            listen,
            config.net.advertise or _joinable(listen, joining.peers[0]),
            s3,
            options.zone,
            options.capacity_bytes,
            options.witness,
        )
        site = await request_papers(files, config, joining, SystemNetwork(), asked)
        membership.write_site(files, site)
    finally:
        lock.release()


async def request_papers(
    files: Files,
    config: Config,
    joining: Joining,
    network: Network,
    asked: SiteFile,
    *,
    clock: Clock | None = None,
    entropy: Entropy = system_entropy,
) -> SiteFile:
    """Shows the token, writes what came back, and returns `asked` with what the site said."""
    from edgestore.cluster import JoinRequest, ask_to_join
    from edgestore.net import Credentials, Peers, Rights
    from edgestore.security import authority_digest, load_key, make_request, new_key, read_certificate

    key = membership.read_key(files)
    if key is None:
        key = new_key(entropy)
        membership.write_key(files, key)
    node = commands.NewNode(
        asked.member,
        asked.address,
        asked.s3,
        asked.zone,
        asked.capacity_bytes or files.free_bytes(),
        b"",
        b"",
        commands.FEATURE_LEVEL,
        witness=asked.witness,
    )
    proof = make_request(load_key(key), asked.member)
    request = JoinRequest(joining.token.token_id, joining.token.secret, proof, node)
    stranger = Credentials(lambda facts: Rights.NONE)
    peers = Peers(network, config.net, stranger, member=asked.member, clock=clock or SystemClock(), entropy=entropy)
    answer = await ask_to_join(peers, config.cluster, joining.token, joining.peers, request)
    facts = read_certificate(answer.certificate)
    if facts.member != asked.member or authority_digest(answer.authority) != joining.token.ca_digest:
        raise Corrupt("the member answered with a certificate that is not this node's")
    membership.write_authority(files, answer.authority)
    membership.write_certificate(files, answer.certificate)
    return msgspec.structs.replace(asked, site_id=answer.site_id.hex(), peers=dict(answer.peers), voters=answer.voters)


def _joinable(listen: str, toward: str) -> str:
    """The address that others are told: a node that listens everywhere is reached where it reaches them."""
    host, port = host_and_port(listen)
    if host in EVERYWHERE:
        host = _own_host(toward or "192.0.2.1:9")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _own_host(toward: str) -> str:
    """Which of this machine's addresses leads there. Nothing is sent."""
    host, port = host_and_port(toward)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(f"this machine has no way to {toward} ({error}): name an address with --mesh") from error


def _free_address(toward: str) -> str:
    """The first free port on the address that leads to the peer."""
    host = _own_host(toward)
    for port in range(MESH_PORT, MESH_PORT + MESH_PORTS):
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            _check_free(address, "--mesh")
        except ConfigError:
            continue
        return address
    raise ConfigError(f"no port from {MESH_PORT} to {MESH_PORT + MESH_PORTS - 1} is free: name one with --mesh")


def check_addresses(s3: str, mesh: str) -> None:
    """`mesh`: empty where nobody listens for other nodes. Raises ConfigError where S3 and the mesh share an address, or
    one of them cannot be listened on."""
    if mesh and host_and_port(mesh)[1] and host_and_port(mesh) == host_and_port(s3):
        raise ConfigError(f"{mesh} is named for S3 and for other nodes: choose another address with --mesh")
    _check_free(s3, "--s3")
    if mesh:
        _check_free(mesh, "--mesh")


def _check_free(address: str, option: str) -> None:
    """Raises ConfigError where something listens there already, or the address is not this machine's."""
    host, port = host_and_port(address)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()
    except OSError as error:
        raise ConfigError(
            f"{address} cannot be listened on ({error.strerror or error}): choose another address with {option}"
        ) from error
