"""`python -m edgestore` and the `edgestore` command."""

from edgestore.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
