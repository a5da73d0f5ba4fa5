"""Entry of the command `sparsekit`."""

import sys

from sparsekit.extras import how_to_install


def main() -> None:
    """Run the command line; without its libraries, say what to install."""
    try:
        import rich  # noqa: F401
        import typer  # noqa: F401
    except ImportError as error:
        sys.exit(f"The sparsekit command needs {error.name}: {how_to_install('cli')}")
    try:
        from sparsekit.cli import run

        run()
    except KeyboardInterrupt:  # while modules were imported
        sys.exit(130)


if __name__ == "__main__":
    main()
