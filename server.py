"""The program from a checkout: `python server.py ARGS` is `segment-tools ARGS`."""

import sys

if __name__ == "__main__":
    from segment_tools.surfaces.cli import main

    try:
        sys.exit(main())
    except ModuleNotFoundError as error:
        sys.exit(f"segment-tools: {error.name} is missing. Run `make demo` once, then .venv/bin/python server.py.")
