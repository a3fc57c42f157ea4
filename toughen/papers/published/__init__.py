"""Five papers' tables and figures as data: a file for each paper, and what their parts are in ``exhibits``."""

from __future__ import annotations

import difflib

from toughen.papers.published import dat, efgsm, nuat, pap, rmgm
from toughen.papers.published.exhibits import Exhibit

PAPERS: dict[str, tuple[Exhibit, ...]] = {
    "PAP": pap.EXHIBITS,
    "R-MGM": rmgm.EXHIBITS,
    "NuAT": nuat.EXHIBITS,
    "eFGSM": efgsm.EXHIBITS,
    "DAT": dat.EXHIBITS,
}
EXHIBITS: dict[str, Exhibit] = {each.name: each for exhibits in PAPERS.values() for each in exhibits}


def find(name: str) -> Exhibit:
    """A table or figure by its identifier.

    Raises:
        ValueError: there is none of this name.
    """
    if name in EXHIBITS:
        return EXHIBITS[name]
    close = difflib.get_close_matches(name.lower(), EXHIBITS, n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    raise ValueError(f"there is no table or figure {name!r}: {hint}`toughen reproduce --list` names all")
