"""How the program ends: at once."""

import subprocess
import sys

ENDING = """
import atexit, gc, sys
atexit.register(lambda: print(gc.get_freeze_count()))  # the first one registered comes last
from glomerulab.cli.main import main
sys.argv = ["glomerulab", "--version"]
main()
"""


def test_objects_are_frozen_so_that_the_exit_collects_no_garbage() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING], capture_output=True, text=True, check=True
    )
    version, n_frozen = done.stdout.splitlines()
    assert version.startswith("glomerulab ")
    assert int(n_frozen) > 0
