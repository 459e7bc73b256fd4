"""``python -m glomerulab``: the command line where its script is not on the path."""

from glomerulab.cli.main import main

if __name__ == "__main__":
    main()
