"""Many nodes in one process: each with lives, clocks and a disk of its own, on one loop, one network and one seed."""
