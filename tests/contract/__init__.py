"""One suite for each interface at the bottom; the real one and the simulator's both pass it."""
