"""What the dashboard's process imports must not pull in torch: 1.5 s and 200 MB a process."""

import pkgutil
import subprocess
import sys

import pytest

import hawq_viz

ENGINE = ("engine", "engine.results", "engine.frontier", "engine.analysis", "engine.workloads")
SCRIPTS = {"hawq_viz.app", "hawq_viz.__main__"}  # run, never imported


def app_modules() -> list[str]:
    found = pkgutil.walk_packages(hawq_viz.__path__, "hawq_viz.")
    return [module.name for module in found if module.name not in SCRIPTS]


@pytest.mark.parametrize("modules", [(*ENGINE, "engine.jobs"), app_modules()])
def test_the_dashboard_side_imports_no_torch(modules):
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"torch is imported by one of {modules}"
