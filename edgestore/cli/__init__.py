"""The `edgestore` command: one function a subcommand, no logic."""

from edgestore.cli.commands import main

__all__ = ["main"]
