"""What a host offers."""

import os
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from penstock_provisioner import inventory
from penstock_provisioner.gpus import gpu_type, parse_simulated_gpus
from penstock_provisioner.helpers import Helpers

MIB = 1024**2


@pytest.mark.parametrize(
    ("product", "kind"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 40GB"),
        ("Tesla V100-SXM2-16GB", "V100 16GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", "RTX 3080 Laptop"),
        ("Quadro RTX 8000", "RTX 8000"),
        ("NVIDIA", "NVIDIA"),
    ],
)
def test_gpus_are_called_what_users_call_them(product: str, kind: str) -> None:
    assert gpu_type(product) == kind


def test_simulated_gpus_have_stable_uuids_and_a_memory() -> None:
    gpus = parse_simulated_gpus(" RTX 4090=2, A100 80GB=1 ,", host_id="a")
    assert [(gpu.type, gpu.memory_gb) for gpu in gpus] == [("RTX 4090", 24), ("RTX 4090", 24), ("A100 80GB", 80)]
    assert gpus == parse_simulated_gpus("RTX 4090=2,A100 80GB=1", host_id="a")
    assert len({gpu.uuid for gpu in gpus} | {gpu.uuid for gpu in parse_simulated_gpus("RTX 4090=2", host_id="b")}) == 5


def test_a_type_named_twice_adds_up() -> None:
    assert len({gpu.uuid for gpu in parse_simulated_gpus("T4=1,T4=2", host_id="a")}) == 3


@pytest.mark.parametrize("text", ["RTX 4090", "=3", "T4=0", "T4=-1", "T4=x", "T4=65", "T4=60,L4=5", "T4=²"])
def test_settings_that_are_no_gpus_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_simulated_gpus(text, host_id="a")


def test_a_machine_without_the_driver_has_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert inventory.nvidia_gpus() == ()


def test_gpus_are_read_from_the_driver_and_a_broken_one_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory:
        total = 85_520_809_984  # what an 80 GB H100 reports

    def handle(number: int) -> int:
        if number == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return number

    closed = []
    for name, answer in {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda _device: Memory,
        "nvmlDeviceGetUUID": lambda device: f"GPU-{device}",
        "nvmlDeviceGetName": lambda _device: "NVIDIA H100 80GB HBM3",
    }.items():
        monkeypatch.setattr(pynvml, name, answer)
    gpus = inventory.nvidia_gpus()
    assert [(gpu.uuid, gpu.type, gpu.memory_gb) for gpu in gpus] == [
        ("GPU-0", "H100 80GB", 80),
        ("GPU-2", "H100 80GB", 80),
    ]
    assert closed


def test_simulated_gpus_stand_in_for_real_ones(tmp_path: Path) -> None:
    found = inventory.take_inventory("a", tmp_path, "T4=2")
    assert found.simulated
    assert [gpu.type for gpu in found.gpus] == ["T4", "T4"]
    assert min(found.cpu_cores, found.memory_gb, found.disk_gb) >= 1


async def test_a_hosts_own_files_are_counted_each_once(tmp_path: Path) -> None:
    own, cache = tmp_path / "own", tmp_path / "own-cache"
    for directory in (own / "cache", cache):
        directory.mkdir(parents=True)
        (directory / "data").write_bytes(b"x" * 4 * MIB)
    (own / "linked").hardlink_to(cache / "data")
    os.symlink("/usr", own / "elsewhere")
    used = [await inventory.own_disk_bytes(own, where, Helpers({})) for where in (own / "cache", cache)]
    assert [round(one / MIB) for one in used] == [8, 8]
    (own / "linked").unlink()
    assert round(await inventory.own_disk_bytes(own, own / "cache", Helpers({})) / MIB) == 4


async def test_a_host_that_cannot_count_offers_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert await inventory.own_disk_bytes(tmp_path, tmp_path, Helpers({})) == 0


def test_the_disk_on_offer_stays_the_same_while_replicas_fill_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {"bytes": 100 * 1024**3}
    monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(free=free["bytes"]))
    before = inventory.with_own_disk(inventory.take_inventory("a", tmp_path, ""), tmp_path, 0)
    free["bytes"] -= 30 * 1024**3
    after = inventory.with_own_disk(inventory.take_inventory("a", tmp_path, ""), tmp_path, 30 * 1024**3)
    assert (before.disk_gb, after.disk_gb) == (100, 100)


def test_a_containers_limits_count(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1073741824\n")
    assert inventory.cpu_cores(tmp_path) == 1
    assert inventory.memory_bytes(tmp_path) == 1024**3
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert inventory.cpu_cores(tmp_path) >= 1
    assert inventory.memory_bytes(tmp_path) > 1024**3
