"""`make bench-platform`: measures the platform on this machine and writes bench/results/platform.json."""

import json
from datetime import UTC, datetime
from pathlib import Path

import delivery
import machine
import running

RESULT = Path(__file__).resolve().parents[1] / "results" / "platform.json"


def main() -> None:
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
    main()
