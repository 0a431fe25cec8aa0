"""Owners and access keys, all in RAM for the fast lane, all in the catalog for good.

Rule: the root key pair is made once; another one at a later start is refused, not adopted. It is replaced as any other
pair is: one more is made for root, then the old one is deleted, never the last.
"""

from __future__ import annotations

import asyncio
import logging
import tomllib
from dataclasses import dataclass

from edgestore.catalog import Table, commands
from edgestore.clock import Clock, Entropy
from edgestore.disk import Files
from edgestore.errors import AccessKeyExists, BadRequest, ConfigError, EdgeStoreError, NoSuchAccessKey
from edgestore.meta import Meta
from edgestore.records import ROOT_TENANT, SITE_TENANT, KeyRecord, Principal, TenantRecord

log = logging.getLogger("edgestore.tenants")

CREDENTIALS = "credentials.toml"
ACCESS_KEY_MAX = 128
SECRET_KEY_MAX = 128
SECRET_KEY_MIN = 8
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class RootKeys:
    """The key pair that may do everything."""

    access_key: str
    secret_key: str


class TenantService:
    """Who a key belongs to, and what an owner is called."""

    def __init__(self, meta: Meta, clock: Clock, entropy: Entropy) -> None:
        self._meta, self._clock, self._entropy = meta, clock, entropy
        self._owners: dict[int, TenantRecord] = {}
        self._keys: dict[str, tuple[Principal, str]] = {}
        self._root_key = ""
        self._files: Files | None = None
        self._changes = asyncio.Lock()  # two first keys of one new owner must not make two owners
        self._load()
        meta.watch((Table.TENANTS, Table.ACCESS_KEYS), lambda _: self._reload())

    async def start(self, files: Files, given: RootKeys | None) -> RootKeys:
        """Makes or checks the root key pair. Raises ConfigError for another pair than the folder's.

        The file is written before the catalog knows the pair: a crash between the two never makes a second one.
        """
        kept, known = _read_credentials(files), self._root_pairs()
        if kept is not None and known and kept not in known:
            log.warning("root-key-replaced access_key=%s: it was deleted while the node was away", kept.access_key)
            kept = None
        root = self._choose_root(kept, known, given)
        if kept is None:
            _write_credentials(files, root)
        if not known:
            if ROOT_TENANT not in self._owners:
                await self._meta.propose(SITE_TENANT, commands.PutTenant(ROOT_TENANT, self._entropy(32).hex(), "root"))
            await self._put_key(root.access_key, root.secret_key, ROOT_TENANT)
        self._root_key, self._files = root.access_key, files
        return root

    def _reload(self) -> None:
        """The pair of the data folder may have been deleted, here or through another node: the folder gets another."""
        self._load()
        if self._files is not None and self._root_key not in self._keys:
            asyncio.get_running_loop().call_soon(self._replace_root)

    def _replace_root(self) -> None:
        known = self._root_pairs()
        if self._files is None or not known or self._root_key in self._keys:
            return
        self._root_key = known[0].access_key
        try:
            _write_credentials(self._files, known[0])
        except EdgeStoreError as error:  # the next start does it
            log.warning("root-key-not-written error=%s", error)

    def _root_pairs(self) -> list[RootKeys]:
        """The root keys that the catalog holds, the first one first."""
        held = sorted(self._meta.state.access_keys(), key=lambda key: key.created_ms)
        return [RootKeys(key.access_key, key.secret_key) for key in held if key.tenant_id == ROOT_TENANT]

    def _choose_root(self, kept: RootKeys | None, known: list[RootKeys], given: RootKeys | None) -> RootKeys:
        root = kept or (known[0] if known else None)
        if root is not None and given is not None and given != root:
            raise ConfigError(
                "EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY are not the root keys of this data folder: unset "
                f"them, or set them to those in {CREDENTIALS}"
            )
        if root is not None:
            return root
        if given is not None and (problem := _problem(given.access_key, given.secret_key)):
            raise ConfigError(f"EDGESTORE_ACCESS_KEY and EDGESTORE_SECRET_KEY: {problem}")
        return given or RootKeys("ES" + self._text(18), self._text(40))

    def _text(self, length: int) -> str:
        return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in self._entropy(length))

    def _load(self) -> None:
        self._owners = {owner.tenant_id: owner for owner in self._meta.state.tenants()}
        self._keys = {}
        for key in self._meta.state.access_keys():
            owner = self._owners.get(key.tenant_id)
            if owner is not None:
                principal = Principal(owner.tenant_id, owner.canonical_id, owner.name)
                self._keys[key.access_key] = (principal, key.secret_key)

    def principal_for(self, access_key: str) -> tuple[Principal, str] | None:
        """(who, secret key) of an access key."""
        return self._keys.get(access_key)

    def root(self) -> Principal:
        """The principal that may do everything."""
        owner = self._owners[ROOT_TENANT]
        return Principal(owner.tenant_id, owner.canonical_id, owner.name)

    def owner(self, tenant_id: int) -> TenantRecord:
        """What an owner is called; a nameless record for one that is not known."""
        return self._owners.get(tenant_id) or TenantRecord(tenant_id, "", "")

    async def create_key(
        self, *, name: str, access_key: str = "", secret_key: str = "", email: str = "", canonical_id: str = ""
    ) -> KeyRecord:
        """A key pair for the owner called `name`, who is created at the first key. Raises AccessKeyExists,
        BadRequest."""
        if not name or len(name) > 64 or any(ord(c) < 32 for c in name):
            raise BadRequest("an owner's name has 1 to 64 printable characters")
        access_key, secret_key = access_key or "ES" + self._text(18), secret_key or self._text(40)
        if problem := _problem(access_key, secret_key):
            raise BadRequest(problem)
        async with self._changes:
            await self._meta.read_barrier()
            taken = self._keys.get(access_key)
            if taken is not None and (taken[0].name, taken[1]) != (name, secret_key):
                raise AccessKeyExists(f"the access key {access_key!r} is taken", access_key=access_key)
            owner = next((found for found in self._owners.values() if found.name == name), None)
            if owner is None:
                command = commands.PutTenant(0, canonical_id or self._entropy(32).hex(), name, email)
                owner = await self._meta.propose(SITE_TENANT, command)
            return await self._put_key(access_key, secret_key, owner.tenant_id)

    async def _put_key(self, access_key: str, secret_key: str, tenant_id: int) -> KeyRecord:
        command = commands.PutKey(access_key, secret_key, tenant_id, self._clock.wall_ms())
        record: KeyRecord = await self._meta.propose(tenant_id, command)
        return record

    async def delete_key(self, access_key: str) -> None:
        """Raises NoSuchAccessKey; BadRequest for the last root key."""
        await self._meta.read_barrier()
        found = self._keys.get(access_key)
        if found is None:
            raise NoSuchAccessKey(f"there is no access key {access_key!r}", access_key=access_key)
        await self._meta.propose(found[0].tenant_id, commands.DeleteKey(access_key))

    def list_keys(self) -> list[tuple[KeyRecord, TenantRecord]]:
        """All keys with their owners."""
        return [(key, self.owner(key.tenant_id)) for key in self._meta.state.access_keys()]


def _problem(access_key: str, secret_key: str) -> str:
    """What is wrong with a key pair; empty for nothing. Both travel in headers and stand in TOML."""
    usable = access_key.isascii() and access_key.isprintable() and not set(access_key) & set('/ ,="\\')
    if not usable or not 3 <= len(access_key) <= ACCESS_KEY_MAX:
        return f'an access key has 3 to {ACCESS_KEY_MAX} printable ASCII characters without space / , = " \\'
    if not secret_key.isprintable() or not SECRET_KEY_MIN <= len(secret_key) <= SECRET_KEY_MAX:
        return f"a secret key has {SECRET_KEY_MIN} to {SECRET_KEY_MAX} printable characters"
    return ""


def _toml_text(value: str) -> str:
    """A basic string of TOML."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _write_credentials(files: Files, root: RootKeys) -> None:
    text = f"access_key = {_toml_text(root.access_key)}\nsecret_key = {_toml_text(root.secret_key)}\n"
    files.replace(CREDENTIALS, text.encode(), mode=0o600)


def _read_credentials(files: Files) -> RootKeys | None:
    if not files.exists(CREDENTIALS):
        return None
    try:
        table = tomllib.loads(files.read(CREDENTIALS).decode())
        return RootKeys(str(table["access_key"]), str(table["secret_key"]))
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"{CREDENTIALS} is damaged ({error}): restore it, or write access_key and secret_key again"
        ) from error
