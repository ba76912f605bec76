"""The program from a checkout: `python server.py ARGS` is `segment-tools ARGS`."""

import sys

if __name__ == "__main__":
    from segment_tools.surfaces.cli import main

    sys.exit(main())
