"""What makes several nodes one site: tokens, joining, certificates, and who is alive."""

from edgestore.cluster.tokens import Token, new_token, parse_token, secret_digest

__all__ = ["Token", "new_token", "parse_token", "secret_digest"]
