"""Sites of real processes on loopback addresses."""
