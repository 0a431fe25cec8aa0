"""Real nodes, real kills, real disks: what a node has acknowledged is there afterwards, byte for byte."""
