"""Owners and their access keys; the root key pair of a data folder."""

from edgestore.tenants.service import CREDENTIALS, RootKeys, TenantService

__all__ = ["CREDENTIALS", "RootKeys", "TenantService"]
