"""`python -m edgestore` and the `edgestore` command."""

import sys


def main() -> None:
    """Runs the command. Ctrl-C ends it silently while it is still being loaded, too."""
    try:
        from edgestore.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
