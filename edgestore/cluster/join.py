"""Joining: a new machine shows a token and a proof of its key, and gets a certificate and the addresses of the members.

Rule: the joiner knows by the digest in its token whom it talks to before it says anything; a member believes the token
only in a command, so it is used once whatever is retried (AddNode of the same member and key again gives the same row).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import msgspec

from edgestore.catalog import commands
from edgestore.cluster.certificates import Certifier
from edgestore.cluster.tokens import Token, secret_digest
from edgestore.config import ClusterConfig, host_and_port
from edgestore.errors import BadRequest, Denied, EdgeStoreError, InvalidToken, TooBusy, Unavailable
from edgestore.meta import Meta
from edgestore.net import Caller, Method, Peers, Reply, Rights
from edgestore.records import SITE_TENANT, NodeRecord, NodeState
from edgestore.security import RequestFacts, read_request

log = logging.getLogger("edgestore.cluster")

ASK_AGAIN_S = 0.5


class JoinRequest(msgspec.Struct, frozen=True, array_like=True):
    """What a joiner shows and says of itself. `request`: the proof of possession of its key, which names its member id
    and counts for more than what `node` says."""

    token_id: Annotated[bytes, msgspec.Meta(max_length=64)]
    secret: Annotated[str, msgspec.Meta(max_length=256)]
    request: Annotated[bytes, msgspec.Meta(max_length=4096)]
    node: commands.NewNode


class JoinAnswer(msgspec.Struct, frozen=True, array_like=True):
    """`peers`: (member, address) of those that the joiner may ask; `voters`: who of them votes; `authority`: the site's
    certificate."""

    site_id: bytes
    number: int
    authority: bytes
    certificate: bytes
    peers: tuple[tuple[str, str], ...]
    voters: tuple[str, ...]


class JoinServer:
    """The member's side. Strangers ask here: nothing of what they say comes into the log before the token opens."""

    def __init__(self, meta: Meta, certifier: Certifier, config: ClusterConfig) -> None:
        self._meta, self._certifier, self._config = meta, certifier, config
        self._running = 0

    def serve(self, peers: Peers) -> None:
        """Answers callers that have no certificate yet."""
        peers.serve(Method.JOIN, self._join, rights=Rights.NONE)

    async def _join(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        try:
            asked = msgspec.msgpack.decode(head, type=JoinRequest)
        except msgspec.MsgspecError as error:
            raise BadRequest(f"the request to join does not decode: {error}") from error
        if self._running >= self._config.joins_max:
            raise TooBusy("too many nodes join at once (cluster.joins_max): try again")
        self._running += 1
        try:
            return await self._admit(asked)
        finally:
            self._running -= 1

    async def _admit(self, asked: JoinRequest) -> Reply:
        host_and_port(asked.node.address)
        facts = read_request(asked.request)
        digest = secret_digest(asked.secret)
        await self._meta.read_barrier()
        token = self._meta.state.token(asked.token_id)
        if token is None or not token.opens(digest, facts.member, self._meta.log_time_ms()):
            raise InvalidToken
        node = msgspec.structs.replace(asked.node, member=facts.member, key_digest=facts.key_digest)
        row: NodeRecord = await self._meta.propose(SITE_TENANT, commands.AddNode(node, asked.token_id, digest))
        log.info("node-joined number=%d member=%s address=%s", row.number, row.member, row.address)
        return Reply(msgspec.msgpack.encode(self._answer(facts, row)))

    def _answer(self, facts: RequestFacts, row: NodeRecord) -> JoinAnswer:
        state = self._meta.state
        known = tuple(
            (node.member, node.address)
            for node in state.nodes()
            if node.member != row.member and node.state in (NodeState.UP, NodeState.DRAINING)
        )
        certificate = self._certifier.issue(facts)
        voters = self._meta.status().voters
        return JoinAnswer(state.site().site_id, row.number, self._certifier.authority_der(), certificate, known, voters)


async def ask_to_join(
    peers: Peers, config: ClusterConfig, token: Token, addresses: tuple[str, ...], request: JoinRequest
) -> JoinAnswer:
    """Asks one member after the other until one answers. Raises InvalidToken, or what the last of them
    refused with: it was none of this site, or no member at all; Unavailable when the time is up. `peers` need not
    listen."""
    refusal: EdgeStoreError | TimeoutError = Unavailable("no member was asked")
    asked, told = list(addresses), dict[str, str]()
    try:
        async with asyncio.timeout(config.join_timeout_s):
            while asked:
                for address in list(asked):
                    try:
                        return await _ask(peers, config, token, address, request)
                    except InvalidToken:
                        raise
                    except (Denied, BadRequest) as error:
                        refusal = error
                        asked.remove(address)
                        log.warning("join-refused address=%s reason=%s", address, error)
                    except (Unavailable, TimeoutError) as error:
                        refusal = error
                        if told.get(address) != str(error):
                            told[address] = str(error)
                            log.info("join-postponed address=%s reason=%s", address, error)
                await asyncio.sleep(ASK_AGAIN_S if asked else 0)
            raise refusal
    except TimeoutError as error:
        message = f"no member let this node join within {config.join_timeout_s:g} s: {refusal}"
        raise Unavailable(message) from error


async def _ask(peers: Peers, config: ClusterConfig, token: Token, address: str, request: JoinRequest) -> JoinAnswer:
    head = msgspec.msgpack.encode(request)
    answer = await peers.call_address(address, token.ca_digest, Method.JOIN, head, timeout_s=config.ask_timeout_s)
    try:
        return msgspec.msgpack.decode(answer.head, type=JoinAnswer)
    except msgspec.MsgspecError as error:
        raise Denied(f"{address} answered with what is no certificate: {error}") from error
