import ast
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import glomerulab
from tests.support.cases import case_folder

HEAVY = ("torch", "numpy", "pandas", "numba", "openslide", "pydantic")


def _typed_names() -> dict[str, str]:
    """Return the module of each name that the package imports for type checkers."""
    tree = ast.parse(Path(glomerulab.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_type_checkers_see_the_names_that_are_loaded_lazily() -> None:
    lazy = {name: f"glomerulab.{module}" for name, module in glomerulab._MODULES.items()}
    assert _typed_names() == lazy
    assert glomerulab.__all__ == sorted(lazy)


@pytest.mark.parametrize("name", glomerulab.__all__)
def test_every_name_is_loaded_and_listed(name: str) -> None:
    assert getattr(glomerulab, name).__name__ == name
    assert name in dir(glomerulab)


def _callables() -> list[tuple[str, Callable[..., object]]]:
    """Return the functions and classes of the front door, and the methods of the classes."""
    found = []
    for name in glomerulab.__all__:
        one = getattr(glomerulab, name)
        found.append((name, one))
        if inspect.isclass(one) and not issubclass(one, Exception):
            methods = [key for key in vars(one) if not key.startswith("_")]
            found += [(f"{name}.{key}", getattr(one, key)) for key in methods]
    return [(name, one) for name, one in found if callable(one)]


def test_every_path_may_be_text() -> None:
    paths = {"Path", "pathlib.Path", "Path | None"}
    found = [
        f"{name}({parameter.name})"
        for name, one in _callables()
        if not hasattr(one, "model_fields")  # pydantic converts texts
        for parameter in inspect.signature(one).parameters.values()
        if str(parameter.annotation).removeprefix("<class '").removesuffix("'>") in paths
        or parameter.annotation in {Path, Path | None}
    ]
    # Values that the package itself makes.
    assert [name for name in found if not name.startswith(("Slide(", "TrainedModel("))] == []


def test_every_name_is_in_the_examples() -> None:
    guide = Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md"
    examples = f"{glomerulab.__doc__}{guide.read_text(encoding='utf-8')}"
    returned = {"TrainedModel"}
    assert [n for n in glomerulab.__all__ if f"glomerulab.{n}" not in examples] == sorted(returned)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = glomerulab.no_such_name


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    assert _run(f"import sys, glomerulab; dir(glomerulab); {loaded}") == "[]"


def test_slides_tables_stains_cases_and_evaluation_work_with_plain_paths_and_without_torch(
    tmp_path: Path,
) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
import glomerulab
from glomerulab.phantom.crops import write_phantom_crops
from glomerulab.slides.pyramid import write_pyramid

home, cases = Path(sys.argv[1]), Path(sys.argv[2])
write_pyramid(np.full((300, 400, 3), 240, np.uint8), home / "s.tif", mpp=0.5)
with glomerulab.open_slide(str(home / "s.tif")) as slide:
    assert slide.read_region(glomerulab.Box(0, 0, 80, 40), mpp=1.0).shape == (20, 40, 3)
region = glomerulab.Region("g1", ((0, 0), (9, 0), (9, 9)))
glomerulab.write_regions([region], str(home / "r.geojson"))
assert glomerulab.read_regions(str(home / "r.geojson")) == [region]
path = write_phantom_crops(str(home / "crops"), n_patients=3, n_per_patient=2, size=64, mpp=3.0)
cohort = glomerulab.split_by_patient(glomerulab.read_manifest(str(path)), ratios=(1, 1, 1))
image = glomerulab.read_image(str(cohort.image_paths()[0]))
assert glomerulab.StainNormalizer.fit(image, "HE")(image).shape == image.shape
probabilities = np.full((6, 4), 0.25)
table = glomerulab.predictions_table(cohort.table, probabilities, cohort.taxonomy)
assert len(table) == 6
assert glomerulab.score_table
folder = glomerulab.read_case_folder(str(cases))
assert len(glomerulab.build_cases(folder)) == 2
written = glomerulab.write_case_reports(str(cases), str(home / "reports"), formats="csv")
assert written.paths
print("torch" in sys.modules)
"""
    folder = case_folder(tmp_path / "case")
    assert _run(code, str(tmp_path), str(folder.folder)) == "False"
