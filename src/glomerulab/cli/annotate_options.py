"""What the commands of ``glomerulab annotate`` share: the database, the owner, passwords."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glomerulab.apps.annotation.store.database import Store

__all__ = ["As", "Database", "owner_of", "password_from"]

Database = Annotated[str, typer.Argument(help="SQLite file, or postgresql://user@host/database.")]
As = Annotated[
    str | None, typer.Option("--as", help="Login of the owner who does it, if there are several.")
]


def owner_of(store: "Store", login: str | None) -> str:
    """Return the owner who acts: the one named, or the only one."""
    from glomerulab.apps.annotation.store.accounts import list_accounts
    from glomerulab.errors import AnnotationError

    if login is not None:
        return login
    owners = [one.login for one in list_accounts(store) if one.role == "owner" and one.active]
    if len(owners) != 1:
        known = ", ".join(owners) or "none"
        raise AnnotationError(f"say which owner does this: --as LOGIN ({known})", where=store.place)
    return owners[0]


def password_from(file: Path | None, login: str) -> str:
    """Read a password from a file, or ask for it twice without showing it."""
    from glomerulab.errors import ConfigError

    if file is None:
        return str(typer.prompt(f"Password for {login}", hide_input=True, confirmation_prompt=True))
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the password cannot be read", where=str(file)) from error
    if not lines:
        raise ConfigError("the password file is empty", where=str(file))
    return lines[0]
