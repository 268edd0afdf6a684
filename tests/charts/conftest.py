from collections.abc import Callable

import pytest

from tests.charts import rendering


@pytest.fixture(scope="session")
def render() -> Callable[..., rendering.Rendered]:
    """Objects by kind and name, from `render(chart, *values_files, set=..., helm=3|4, ...)`."""
    return rendering.render
