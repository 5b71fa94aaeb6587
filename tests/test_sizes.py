"""How much a variant installs."""

import pytest

from tests.conftest import Render
from tests.variants import FULLEST, LEANEST, Variant
from tests.workshop import Workshop, uv

LARGEST = 150_000_000  # bytes


@pytest.mark.parametrize(
    ("name", "variant"), [("leanest", LEANEST), ("fullest", FULLEST)], ids=["leanest", "fullest"]
)
def test_what_runs_in_production_is_small(
    name: str, variant: Variant, render: Render, workshop: Workshop
) -> None:
    project = render(variant.answers)
    uv("sync", "--no-dev", "--no-compile-bytecode", cwd=project)
    environment = project / ".venv"
    size = sum(path.stat().st_size for path in environment.rglob("*") if path.is_file())
    packages = len(list(environment.glob("lib/python*/site-packages/*.dist-info"))) - 1
    workshop.tell(f"{name} variant: {packages} packages, {size / 1e6:.0f} MB installed")
    assert size < LARGEST
