"""`make bench-platform`: measures the platform on this machine and writes bench/results/platform.json."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
RESULT = BENCH / "results" / "platform.json"


def main() -> None:
    from bench import machine
    from bench.platform import delivery, running

    whole = running.measure()
    alone = delivery.measure()
    samples = {**whole.pop("samples"), **alone.pop("samples")}
    result = {
        **whole,
        **alone,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "samples": samples,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name not in ("samples", "machine")}, indent=2))


if __name__ == "__main__":
    # Run as a folder, Python looks for modules in it; ours are named from the repository's root.
    sys.path[0] = str(BENCH.parent)
    main()
