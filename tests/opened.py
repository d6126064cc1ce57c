"""Pages as Streamlit's own tester runs them."""

from pathlib import Path

from streamlit.testing.v1 import AppTest

APP = Path(__file__).parents[1] / "hawq_viz" / "app.py"


def open_page(name: str = "frontier", **parameters: str) -> AppTest:
    """A page, come to by a link to the dashboard with these query parameters."""
    app = AppTest.from_file(APP, default_timeout=60)
    app.query_params.update(parameters)
    app.run()
    return app if name == "home" else app.switch_page(f"../pages/{name}.py").run()


def texts(elements) -> str:
    """What elements say, one below the other."""
    return "\n".join(element.value for element in elements)
