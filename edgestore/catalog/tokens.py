"""Commands on join tokens, the certificate authority and the site's settings."""

from __future__ import annotations

from msgspec.structs import replace

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table
from edgestore.errors import BadRequest, Conflict, InvalidToken, TooLarge
from edgestore.placement import TOLERATE_MAX, parse_scheme
from edgestore.records import SITE_TENANT, SiteSettings

TOKENS_MAX = 1000
TOKEN_ID_MAX_BYTES = 32
DIGEST_BYTES = 32
TTL_MAX_MS = 366 * 24 * 3600 * 1000


def create_token(context: Context, command: commands.CreateToken) -> rows.TokenRecord:
    """A token for one use."""
    if not 1 <= len(command.token_id) <= TOKEN_ID_MAX_BYTES or len(command.secret_digest) != DIGEST_BYTES:
        raise BadRequest("a token has an id and the sha256 of a secret")
    if not 0 < command.ttl_ms <= TTL_MAX_MS:
        raise BadRequest("a token lives for a positive time of at most a year", ttl_ms=command.ttl_ms)
    kept = 0
    for token in context.state.tokens():
        if token.expires_ms <= context.log_time_ms:
            context.delete(Table.TOKENS, SITE_TENANT, token.token_id)
        else:
            kept += 1
    if kept >= TOKENS_MAX:
        raise TooLarge("too many tokens wait to be used: drop some", limit=TOKENS_MAX)
    if context.state.token(command.token_id) is not None:
        raise Conflict("the id of the token is taken")
    record = rows.TokenRecord(command.token_id, command.secret_digest, context.log_time_ms + command.ttl_ms)
    _put_token(context, record)
    return record


def _put_token(context: Context, record: rows.TokenRecord) -> None:
    context.put(Table.TOKENS, SITE_TENANT, record.token_id, rows.encode(record))


def drop_token(context: Context, command: commands.DropToken) -> None:
    """Nobody joins with it any more."""
    context.delete(Table.TOKENS, SITE_TENANT, command.token_id)


def use_token(context: Context, token_id: bytes, secret_digest: bytes, member: str) -> None:
    """Once, by one member, in time; it may ask again. Raises InvalidToken, with one message for all reasons."""
    token = context.state.token(token_id)
    if token is None or not token.opens(secret_digest, member, context.log_time_ms):
        raise InvalidToken
    if not token.used_by:
        _put_token(context, replace(token, used_by=member))


def set_authority(context: Context, command: commands.SetAuthority) -> bytes:
    """The first one counts."""
    known = context.state.authority()
    if known is not None:
        return known.certificate
    record = rows.AuthorityRecord(command.certificate, command.key)
    context.put(Table.AUTHORITY, SITE_TENANT, b"", rows.encode(record))
    context.changed_tables.add(Table.AUTHORITY)
    return record.certificate


def check_policy(tolerate: int | None, scheme: str) -> None:
    """Raises BadRequest for a tolerance or a scheme that cannot be."""
    if tolerate is not None and not 0 <= tolerate <= TOLERATE_MAX:
        raise BadRequest(f"0 to {TOLERATE_MAX} deaths can be tolerated", tolerate=tolerate)
    if scheme:
        parse_scheme(scheme, tolerate)


def set_site_settings(context: Context, command: commands.SetSiteSettings) -> SiteSettings:
    """All of them at once."""
    settings = command.settings
    check_policy(settings.tolerate, settings.scheme)
    if settings.remove_after_ms < 0:
        raise BadRequest("a node is removed after a positive time, or never (0)")
    context.put(Table.SETTINGS, SITE_TENANT, b"", rows.encode(settings))
    context.change_layout(Table.SETTINGS)
    return settings
