"""``python -m glomerulab``: the command line, for launchers such as ``torchrun -m``."""

from glomerulab.cli.main import main

if __name__ == "__main__":
    main()
