"""`make bench-queue`: measures how long requests queue behind each proxy; writes bench/results/queue.json."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a folder, Python looks for modules in it; ours are named from the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from bench.queue.comparing import main

    main()
