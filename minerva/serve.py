"""`python -m minerva.serve`: the same as `minerva serve`."""

from __future__ import annotations

import sys

from minerva.cli import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
