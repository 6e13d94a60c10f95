"""`python launch.py` is `frugal`, for a checkout that is not installed."""

from research.cli import main

if __name__ == '__main__':
    main()
