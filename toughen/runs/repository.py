"""Repositories of models on the Hugging Face hub: their names, and one file out of one."""

from __future__ import annotations

import re
from pathlib import Path

SCHEME, WEIGHTS = "hf://", "model.safetensors"
_PART = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_PART}/{_PART}", re.ASCII)


def check_name(name: str) -> str:
    """A repository's name.

    Raises:
        ValueError: it is none.
    """
    if _NAME.fullmatch(name) is None or ".." in name or "--" in name:
        raise ValueError(f"{name!r} is not a repository: write user/name, of letters, digits, '.', '-' and '_'")
    return name


def check_branch(name: str) -> str:
    """A branch's name.

    Raises:
        ValueError: it is none: empty, with a character that git refuses, or refused for its beginning or end.
    """
    bad = re.search(r"[\s~^:?*\[\\\x00-\x1f\x7f]|\.\.|//|@\{", name)
    if not name or bad or name[0] in "-/." or name.endswith(("/", ".", ".lock")) or "/." in name:
        raise ValueError(f"{name!r} is not a branch: write a name such as main or v1.0, without spaces")
    return name


def fetch(address: str, revision: str | None = None) -> Path:
    """The safetensors file of a repository, out of the hub's cache where it is there already.

    Args:
        address: ``hf://user/name``, or ``hf://user/name@revision``.
        revision: a branch, tag or commit; None means the address's, or else "main".

    Raises:
        ValueError: there is no such repository, revision or file, or the hub cannot be reached.
    """
    name, _, given = address.removeprefix(SCHEME).partition("@")
    check_name(name)
    if revision is not None and given and revision != given:
        raise ValueError(f"{address} names a revision, and revision={revision!r} another one: leave one out")
    from huggingface_hub import errors, hf_hub_download  # slow

    from toughen.data.hub import unreachable

    trouble = unreachable(meanwhile=None)
    try:
        downloaded = hf_hub_download(name, WEIGHTS, revision=revision or given or None, local_files_only=bool(trouble))
    except errors.LocalEntryNotFoundError:
        raise ValueError(
            f"{SCHEME}{name} is not in the hub's cache, and the hub cannot be reached ({trouble or 'no answer'}): "
            "connect, or load a local file"
        ) from None
    except errors.RevisionNotFoundError:
        raise ValueError(f"{SCHEME}{name} has no revision {revision or given!r}: use a branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        raise ValueError(
            f"the hub has no model {name}, or it is private: check the name, or log in with `hf auth login`"
        ) from None
    except errors.EntryNotFoundError:
        raise ValueError(
            f"{SCHEME}{name} has no {WEIGHTS}, and other files, which may hold code, are not loaded: name a model "
            "that `toughen push` wrote"
        ) from None
    except Exception as error:  # the client raises its transport's and the file system's, too
        raise ValueError(f"the hub did not give {name} ({reason(error)}): try again later") from None
    return Path(downloaded)


def reason(error: BaseException) -> str:
    """What an error of the hub's client says, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
