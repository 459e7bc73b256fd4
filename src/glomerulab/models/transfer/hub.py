"""Files of the Hugging Face hub: from its cache, else downloaded, without waiting when offline."""

import ssl
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from glomerulab.errors import CheckpointError

__all__ = ["hub_file"]

CONNECT_SECONDS = 5.0


def hub_file(repository: str, *names: str, place: str | None = None) -> Path | None:
    """Return the first of the files that a repository has.

    Parameters
    ----------
    repository : str
        ``owner/name``.
    *names : str
        In order of preference.
    place : str, optional
        Where else the user can put the file, for the error.

    Returns
    -------
    Path or None
        In the cache of the hub; None if the repository has none of the files.

    Raises
    ------
    CheckpointError
        If none is in the cache and the hub cannot be reached, or refuses access; the message says
        what was looked for and where.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
    problem = _connection_problem()
    for name in names if problem is None else ():
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:
            problem = str(error).splitlines()[0]
            break
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise CheckpointError(
                f"the hub does not give {repository}: {str(error).splitlines()[0]}; ask for access "
                "on its page and log in with `hf auth login`, or put its files into a local folder",
                where=f"hf-hub:{repository}",
            ) from error
        except OSError as error:
            problem = str(error).splitlines()[0]
            break
    if problem is None:
        return None
    raise CheckpointError(_offline(repository, names, place, problem), where=f"hf-hub:{repository}")


def _offline(repository: str, names: tuple[str, ...], place: str | None, problem: str) -> str:
    from huggingface_hub import constants

    address = f"https://huggingface.co/{repository}"
    way_out = (
        f"fetch the files of {address} (config.json and the weights) into a local folder, and name "
        "that folder instead"
        if place is None
        else f"fetch {address}/resolve/main/{names[0]}, put it at {place}, and run this again"
    )
    return (
        f"{' or '.join(names)} of {repository} cannot be downloaded here ({problem}), and is not "
        f"in the cache {constants.HF_HUB_CACHE}. On a machine with a network, {way_out}"
    )


def _connection_problem() -> str | None:
    """Return why the hub cannot be reached; its own client retries for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    request = Request(constants.ENDPOINT, method="HEAD")  # noqa: S310 - the hub's own address
    try:
        with urlopen(request, timeout=CONNECT_SECONDS):  # noqa: S310
            return None
    except HTTPError:  # an answer
        return None
    except URLError as error:
        # The hub's client may know certificates that Python does not.
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)
    except OSError as error:
        return str(error) or type(error).__name__
