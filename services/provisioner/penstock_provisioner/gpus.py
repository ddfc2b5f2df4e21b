"""GPUs by the names that users know, and made-up ones. Pure."""

import re
import uuid

from penstock_common.contracts.heartbeat import Gpu

_SIMULATED = uuid.UUID("8f2c1f5e-6a51-5d0c-9c39-0d5a4e7f2b11")
_MEMORY = re.compile(r"\d+GB")
_NOISE = re.compile(r"NVIDIA|GeForce|Tesla|Quadro|Generation|GPU|SXM\d*|HBM\d\w*")
_COUNT_MAX = 64

_MEMORY_GB = {
    "A10": 24,
    "A100": 40,
    "B200": 180,
    "H100": 80,
    "H200": 141,
    "L4": 24,
    "L40": 48,
    "L40S": 48,
    "P100": 16,
    "RTX 3060": 12,
    "RTX 3070": 8,
    "RTX 3080": 10,
    "RTX 3090": 24,
    "RTX 4070": 12,
    "RTX 4080": 16,
    "RTX 4090": 24,
    "RTX 5090": 32,
    "RTX 6000 Ada": 48,
    "RTX A6000": 48,
    "T4": 16,
    "V100": 16,
}
_MEMORY_GB_DEFAULT = 24


def gpu_type(product: str) -> str:
    """The type that users ask for, from the driver's product name.

    "NVIDIA GeForce RTX 4090" is "RTX 4090"; "NVIDIA H100 80GB HBM3" and "NVIDIA A100-SXM4-80GB" are
    "H100 80GB" and "A100 80GB": the form of the board is left out where the name says its memory.
    """
    words = [word for word in re.split(r"[\s-]+", product) if word and not _NOISE.fullmatch(word)]
    if any(_MEMORY.fullmatch(word) for word in words):
        words = [word for word in words if word.upper() != "PCIE"]
    return " ".join(words)[:64] or product.strip()[:64]


def parse_simulated_gpus(text: str, *, host_id: str) -> tuple[Gpu, ...]:
    """GPUs as in "RTX 4090=4,A100 80GB=2", with UUIDs that stay the same for one host.

    Raises ValueError, in words that follow the setting's name, when the text does not read so.
    """
    found: list[Gpu] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, separator, count = (piece.strip() for piece in part.partition("="))
        if not separator or not kind or not count.isascii() or not count.isdigit() or int(count) < 1:
            raise ValueError(f'must read like "RTX 4090=4,A100 80GB=2", and {part!r} does not')
        if len(kind) > 64 or len(found) + int(count) > _COUNT_MAX:
            raise ValueError(f"must name at most {_COUNT_MAX} GPUs, of types with at most 64 characters")
        first = sum(gpu.type == kind for gpu in found)
        found += [_simulated(host_id, kind, number) for number in range(first, first + int(count))]
    return tuple(found)


def _simulated(host_id: str, kind: str, number: int) -> Gpu:
    identity = uuid.uuid5(_SIMULATED, f"{host_id}/{kind}/{number}")
    return Gpu(uuid=f"GPU-{identity}", type=kind, memory_gb=_memory_gb(kind))


def _memory_gb(kind: str) -> int:
    said = _MEMORY.search(kind)
    return int(said[0].removesuffix("GB")) if said else _MEMORY_GB.get(kind, _MEMORY_GB_DEFAULT)
