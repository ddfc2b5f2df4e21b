"""The benchmarks are folders of the repository and no installed package: their modules are named from its root."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
