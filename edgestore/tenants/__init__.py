"""Owners and their access keys; the root key pair of a data folder."""

from edgestore.tenants.service import RootKeys, TenantService

__all__ = ["RootKeys", "TenantService"]
