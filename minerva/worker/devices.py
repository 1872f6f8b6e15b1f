"""Prints what this build can compute on, as JSON: `python -m minerva.worker.devices`."""

from __future__ import annotations

import json

from minerva import _core

if __name__ == "__main__":
    print(json.dumps(_core.devices()))
