"""Wire formats: bytes of clients to calls of the services and back. Each protocol is a room of its own."""
