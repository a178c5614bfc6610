"""`python -m raysandbox`."""

from raysandbox.cli.main import main

if __name__ == "__main__":
    main()
