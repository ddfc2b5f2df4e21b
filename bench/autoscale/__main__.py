"""`make bench-autoscale`: the autoscaler beside Knative's, in simulation; writes bench/results/autoscale.json."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run as a folder, Python looks for modules in it; ours are named from the repository's root.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from bench.autoscale.comparing import main

    main()
