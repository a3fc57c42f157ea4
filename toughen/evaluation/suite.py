"""Attacks by short names, such as `pgd-100x5` and `apgd-t`, and the suites that consist of them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, cast

from torch import Tensor

from toughen import attacks
from toughen.attacks.adaptive import Adaptive
from toughen.attacks.apgd import APGD, APGDT
from toughen.attacks.autoattack import AutoAttack
from toughen.attacks.base import Attack, threat_of
from toughen.attacks.fab import FAB
from toughen.attacks.gama import GAMAFW, GAMAPGD
from toughen.attacks.logit_matrix import LogitMatrix
from toughen.attacks.pgd import IFGSM, MIFGSM, PGD
from toughen.attacks.pgd_adp import PGDADP
from toughen.attacks.plugins import check_kind, import_attack, instantiate
from toughen.attacks.random_points import RandomPoints
from toughen.attacks.targeted import PGDLL, PGDR
from toughen.core.objectives import Objective, cross_entropy, dlr, margin_loss
from toughen.core.threat import Threat
from toughen.core.types import Real
from toughen.utils.collect import summary
from toughen.utils.units import Fraction

NAMED: dict[str, tuple[Callable[..., Attack], str]] = {  # short names other than a class's own in lower case
    "i-fgsm": (IFGSM, summary(IFGSM)),
    "mi-fgsm": (MIFGSM, summary(MIFGSM)),
    "r-fgsm": (
        partial(PGD, steps=1, start="bernoulli"),
        "Half of eps at random, then the other half along the gradient (Tramer et al., arXiv:1705.07204).",
    ),
    "pgd-margin": (partial(PGD, objective=margin_loss), "PGD on the margin loss, which large logits cannot saturate."),
    "pgd-r": (PGDR, summary(PGDR)),
    "pgd-ll": (PGDLL, summary(PGDLL)),
    "pgd-adp": (PGDADP, summary(PGDADP)),
    "apgd-ce": (partial(APGD, objective=cross_entropy), "Auto-PGD on the cross-entropy (arXiv:2003.01690)."),
    "apgd-dlr": (partial(APGD, objective=dlr), "Auto-PGD on the difference of logits ratio (arXiv:2003.01690)."),
    "apgd-t": (APGDT, summary(APGDT)),
    "fab": (partial(FAB, targets=None, restarts=5), "Untargeted FAB from 5 starts, as in AutoAttack v1."),
    "fab-t": (FAB, summary(FAB)),
    "gama-pgd": (GAMAPGD, summary(GAMAPGD)),
    "gama-pgd-mnist": (
        partial(GAMAPGD, weight=5.0, span=0.5, drops=(0.5, 0.75)),
        "GAMA-PGD as its authors run it on MNIST: first steps of eps (arXiv:2011.14969).",
    ),
    "gama-fw": (GAMAFW, summary(GAMAFW)),
    "nuclear": (
        partial(LogitMatrix, kind="nuclear"),
        "Raises only the nuclear norm of a batch's logit changes (NuAT).",
    ),
    "frobenius": (
        partial(LogitMatrix, kind="frobenius"),
        "Raises only the Frobenius norm of a batch's logit changes (NuAT).",
    ),
    "random": (RandomPoints, summary(RandomPoints)),
    **{
        f"autoattack-{version}": (partial(AutoAttack, version=version), f"AutoAttack, version {version}.")
        for version in ("plus", "rand", "v1")
    },
}
UNLISTED = {  # classes with another name above, or that need more than a name
    "adaptive", "apgd", "apgdt", "gamafw", "gamapgd", "ifgsm", "logitmatrix", "mifgsm", "pgdadp", "pgdll", "pgdr",
    "randompoints", "transfer",
}  # fmt: skip
_IMPORT_PATH = re.compile(  # of a user's own class; restarts only after steps, because its name may end in x2
    r"(?P<name>[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)(-(?P<steps>[0-9]{1,18})(x(?P<restarts>[0-9]{1,18}))?)?(@(?P<step_size>[0-9./eE-]+))?"
)
_SHORT_NAME = re.compile(
    r"(?P<name>.+?)(-(?P<steps>[0-9]{1,18}))?(x(?P<restarts>[0-9]{1,18}))?(@(?P<step_size>[0-9./e-]+))?"
)

SUITES: dict[str, tuple[str, ...]] = {
    "quick": ("fgsm", "pgd-20", "apgd-dlr"),
    "standard": ("fgsm", "pgd-100x5", "gama-pgd", "autoattack"),
    "papers": (
        "fgsm", "r-fgsm", "i-fgsm-7", "mi-fgsm-20", "pgd-7", "pgd-20", "pgd-50", "pgd-100", "pgd-500", "pgd-r",
        "pgd-ll", "pgd-adp", "gama-pgd", "gama-fw", "autoattack-v1", "autoattack",
    ),
}  # fmt: skip
DEFENCES = ("nuclear", "guided", "kl")
ADAPTIVE = {"defence": str, "weight": int | float, "divisor": int | None, "group": int}  # types in model.json
QUICK_IMAGES = 1000  # how many images the quick suite uses by default


def names() -> dict[str, tuple[Callable[..., Attack], str]]:
    """All short names, with the function or class that makes the attack and its description in one line."""
    plain = {name.lower(): (kind, summary(kind)) for name, kind in attacks.REGISTRY.items()}
    return {name: factory for name, factory in sorted((plain | NAMED).items()) if name not in UNLISTED}


def parse_attack(spec: str, threat: Threat) -> Attack:
    """The attack that a short name stands for: ``NAME[-STEPS][xRESTARTS][@STEP_SIZE]``, step size in units of eps.

    The name may be the import path of your own attack, ``package.module.Class``.

    Args:
        spec: the short name, in any case.
        threat: norm and radius of the attack.

    Raises:
        ValueError: no attack has this name, it has no such setting, or your own attack has another threat.
    """
    spec, known = spec.strip(), names()
    import_path = _IMPORT_PATH.fullmatch(spec)
    match = import_path or _SHORT_NAME.fullmatch(spec.lower())
    if match is None or (import_path is None and match["name"] not in known):
        raise ValueError(_unknown(spec, match["name"] if match else "", known))
    name = match["name"]
    make: Any = import_attack(name) if import_path else known[name][0]
    settings: dict[str, Any] = {key: int(match[key]) for key in ("steps", "restarts") if match[key] is not None}
    if match["step_size"] is not None:
        settings["step_size"] = Fraction(match["step_size"])
        if not settings["step_size"] > 0:
            raise ValueError(f"attack {spec!r}: a step of {match['step_size']} changes nothing; use one above 0")
        if settings["step_size"] >= 1 and threat.norm == "linf" and threat.eps < 1:
            size = match["step_size"]
            advice = "use one below 1, such as 2/255" if "/" in size else f"did you mean {size}/255?"
            raise ValueError(f"attack {spec!r}: a step of {size} leads from black to white; {advice}")
    kind: Any = make.func if isinstance(make, partial) else make
    for unknown in settings.keys() - {field.name for field in fields(kind)}:
        raise ValueError(f"attack {spec!r}: {kind.__name__} has no {unknown}; leave it out")
    if name == "r-fgsm":
        settings = {"start_size": threat.eps / 2, "step_size": threat.eps / 2, **settings}
    if name == "gama-pgd-mnist":
        settings = {"step_size": threat.eps, **settings}
    settings = {"eps": threat.eps, "norm": threat.norm, **settings}
    attack: Attack = instantiate(spec, make, settings) if import_path else make(**settings)
    check_attack(spec, attack, threat)
    return attack


def check_attack(name: str, attack: Attack, threat: Threat) -> None:
    """Check that an attack has the evaluation's threat; its images are verified against its own eps and norm.

    Raises:
        ValueError: it has another one, or is not an attack.
    """
    check_kind(name, type(attack))
    if (held := _per_image(attack)) is not None:
        raise ValueError(
            f"attack {name} has an objective with values for single images ({type(held).__name__}), and an evaluation "
            "attacks only some of the images at a time: write an attack that chooses them in its call"
        )
    own = threat_of(attack)
    if own.norm != threat.norm or not math.isclose(own.eps, threat.eps, rel_tol=1e-6):  # 8/255 in float32 is accepted
        raise ValueError(
            f"attack {name} has the threat {own.norm} eps {own.eps:g}, the evaluation {threat.norm} eps "
            f"{threat.eps:g}: give both the same"
        )


def _per_image(attack: Attack) -> Objective | None:
    """An objective of the attack, or of one within it, that holds tensors with a row for each image; None without."""
    for value in vars(attack).values():
        held = vars(value).values() if isinstance(value, Objective) else ()
        if any(isinstance(each, Tensor) and each.ndim for each in held):
            return cast(Objective, value)
        found = _per_image(value) if isinstance(value, Attack) else None
        if found is not None:
            return found
    return None


def _unknown(spec: str, name: str, known: Collection[str]) -> str:
    """The error message for an unknown name."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? If not, " if close else ""
    if "," in spec:
        hint = f"write {' '.join(spec.strip('[]').replace(',', ' ').split())}, with spaces between; "
    return (
        f"attack {spec!r} is unknown: {hint}give NAME[-STEPS][xRESTARTS][@STEP_SIZE], such as fgsm, pgd-20 or "
        f"pgd-100x5, with a name out of {', '.join(known)}, or package.module.Class of your own"
    )


def suite(
    chosen: str, threat: Threat, shape: tuple[int, ...] = (), adaptive: Mapping[str, Any] | None = None
) -> dict[str, Attack]:
    """A suite's attacks by name.

    Args:
        chosen: "quick", "standard" or "papers".
        threat: norm and radius of all attacks.
        shape: [c, h, w] of an image; with one channel, the papers suite has the papers' settings for MNIST.
        adaptive: settings of the adaptive attack, from a run's model.json; None where there is none.

    Raises:
        ValueError: there is no such suite.
    """
    if chosen not in SUITES:
        raise ValueError(f"suite {chosen!r} is unknown: use {', '.join(SUITES)}")
    attacks = {name: parse_attack(name, threat) for name in SUITES[chosen]}
    if chosen == "papers":
        mnist = tuple(shape[:1]) == (1,)
        attacks |= {name: _published(name, threat, mnist) for name in attacks if name.startswith("pgd-")}
        if mnist and "gama-pgd" in attacks:
            attacks["gama-pgd"] = parse_attack("gama-pgd-mnist", threat)
    adaptive_attack = None if adaptive is None else _adaptive(adaptive, threat)
    if chosen != "quick" and adaptive_attack is not None:
        attacks["adaptive"] = adaptive_attack
    return attacks


def _adaptive(settings: Mapping[str, Any], threat: Threat) -> Adaptive:
    """The attack on a method's own objective, with settings from a file, which are checked.

    Raises:
        ValueError: the settings are not valid.
    """
    wrong = [name for name, value in settings.items() if not isinstance(value, ADAPTIVE.get(name, ()))]
    if settings.get("defence") not in DEFENCES:
        wrong = ["defence"]
    try:
        if wrong:
            raise ValueError(f"{wrong[0]} is not what toughen writes there")
        return Adaptive(eps=threat.eps, norm=threat.norm, **settings)
    except ValueError as error:
        raise ValueError(f"model.json is damaged (adaptive: {error}): restore it from a copy, or train again") from None


def _published(name: str, threat: Threat, mnist: bool) -> Attack:
    """PGD with the papers' step size: eps / 30 on MNIST (0.01 at 0.3), eps / 4 elsewhere (2/255 at 8/255)."""
    step_size: Real = threat.eps / 30 if mnist else threat.eps / 4
    return parse_attack(name if name == "pgd-adp" else f"{name}@{step_size:.12g}", threat)
