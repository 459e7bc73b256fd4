import subprocess
import sys

HEAVY = (
    "torch",
    "pandas",
    "numpy",
    "numba",
    "matplotlib",
    "openslide",
    "pydantic",
    "rich",
    "sklearn",
)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from glomerulab.cli.main import app\n"
        "from typer.testing import CliRunner\n"
        "result = CliRunner().invoke(app, ['--help'])\n"
        "assert result.exit_code == 0, result.output\n"
        f"print(','.join(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
