"""What the dashboard's process imports must not pull in torch: 1.5 s and 200 MB a process."""

import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import hawq_viz

APP = Path(__file__).parents[1] / "hawq_viz" / "app.py"
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


def test_the_dashboard_imports_no_torch_after_every_page_was_visited(tmp_path):
    code = f"""
import sys
from pathlib import Path
from streamlit.testing.v1 import AppTest
app = AppTest.from_file({str(APP)!r}, default_timeout=120).run()
for page in sorted(Path({str(APP)!r}).parents[1].glob("pages/[a-z]*.py")):
    app.switch_page(f"../pages/{{page.name}}").run()
    assert app.subheader and not app.exception and not app.error, page
sys.exit("torch is imported" if "torch" in sys.modules else 0)
"""
    environment = {**os.environ, "HAWQ_VIZ_RUNS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
