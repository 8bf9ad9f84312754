"""`python -m netlib` is `net`."""

from netlib.frontends.cli import main

if __name__ == "__main__":
    main()
