"""``glomerulab config``: the example configurations."""

from typing import Annotated

import typer

__all__ = ["config"]


def config(
    name: Annotated[
        str | None, typer.Argument(help="Such as default or paper; without it, all are listed.")
    ] = None,
) -> None:
    """Print an example configuration; every key is explained in it.

    Example: glomerulab config default > my.toml
    """
    from glomerulab.runtime.shipped import read_shipped_config, shipped_configs

    if name is not None:
        typer.echo(read_shipped_config(name), nl=False)
        return
    for known in shipped_configs():
        first_line = read_shipped_config(known).partition("\n")[0]
        typer.echo(f"{known:34} {first_line.removeprefix('# ')}")
