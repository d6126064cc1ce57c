"""What every benchmark prints first: machine, versions, date."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Processor and cores."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        name = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), name)
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"


def print_setting(title: str, *packages: str) -> None:
    """Print a benchmark's title, the machine, the date, and versions of Python and packages."""
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(title)
    print(f"{machine()}; {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(f"Python {platform.python_version()}, {versions}\n", flush=True)


def verdict(met: bool) -> str:
    """In a word."""
    return "met" if met else "MISSED"
