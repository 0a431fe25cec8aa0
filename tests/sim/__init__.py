"""The deterministic simulator: the real node above `disk/files` and `disk/index`, on a virtual clock, a disk that lies
within the limits of what disks do, and crashes at any step. One seed is one run, exactly."""
