"""What the tests share: repeatable examples, a place of their own for runs, a browser."""

import os

if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # before torch counts the cores
    os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // int(workers)))

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from chromium import find_chromium
from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _runs_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's runs out of the tests, and the tests' out of the user's."""
    before = os.environ.get("HAWQ_VIZ_RUNS")
    os.environ["HAWQ_VIZ_RUNS"] = str(tmp_path_factory.mktemp("runs"))
    yield
    if before is None:
        del os.environ["HAWQ_VIZ_RUNS"]
    else:
        os.environ["HAWQ_VIZ_RUNS"] = before


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of runs for one test."""
    monkeypatch.setenv("HAWQ_VIZ_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Numbers of 64 bits unless told otherwise: what is exact then shows as such."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of weights, with no network behind it and no data."""
    monkeypatch.setenv("HAWQ_VIZ_DATA", str(tmp_path))
    for data in ("HAWQ_VIZ_IMAGENET", "HAWQ_VIZ_COCO"):
        monkeypatch.delenv(data, raising=False)

    def unreachable(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium that runs; set CHROMIUM to choose one."""
    return find_chromium()
