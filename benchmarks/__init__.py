"""One file per claim of speed; each runs as `python -m benchmarks.NAME [--json]`. Never part of the tests."""
