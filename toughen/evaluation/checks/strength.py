"""Whether attacks on this model behave as attacks do: more room, more steps and a better aim break more images."""

from __future__ import annotations

from toughen.attacks.apgd import APGD
from toughen.attacks.base import Attack
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.attacks.targeted import PGDLL, PGDR
from toughen.evaluation.checks.base import Bench, Check, allowed, judge, percent
from toughen.objectives import margin_loss
from toughen.threat import Threat

LOOSE = 0.03  # the share of images by which an order that holds may look turned
APART = 0.10  # by which the cross-entropy may be the worse guide


class Trials:
    """Attacks of 20 steps on the sample of clean-right images, each run once."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.found: dict[str, float] = {}

    def stands(self, name: str, kind: type[Attack], **settings: object) -> float:
        """The share that stands under an attack, which has this name in no other trial."""
        if name not in self.found:
            given: dict[str, object] = {"eps": self.bench.threat.eps, "norm": self.bench.threat.norm} | settings
            broken = self.bench.broken(kind(**given), name, self.bench.right)
            self.found[name] = 1 - float(broken.double().mean())
        return self.found[name]

    def pgd(self, **settings: object) -> float:
        """The same for PGD, under its settings' name."""
        given: dict[str, object] = {"steps": 20, "stop_early": True} | settings
        return self.stands(f"PGD {settings}", PGD, **given)

    @property
    def allowed(self) -> float:
        return allowed(len(self.bench.right), LOOSE)


def unbounded(trials: Trials, name: str) -> Check:
    """With the whole box to move in, or half its diameter, no image stands.

    The radius is doubled until it is there: a long step at once leads from the image to where nothing has a slope. Even
    small steps of one size do on sound nets (MNIST: NuAT, and within L2 balls all that were trained for L-inf), so
    APGD, which chooses its steps, has what PGD leaves.
    """
    bench, threat = trials.bench, trials.bench.threat
    reach = max(bench.reach / (1 if threat.norm == "linf" else 2), threat.eps)
    rows, eps, largest = bench.right, threat.eps, reach * (1 - 1e-9)
    while len(rows) and eps < largest:
        eps = min(2 * eps, reach)
        for kind, attack in _reaching(threat, eps).items():
            if len(rows):
                rows = rows[~bench.broken(attack, f"{name} {kind} {eps:.6g}", rows)]
    figure = len(rows) / len(bench.right)
    found = f"With eps doubled up to {reach:.3g}, {percent(figure)} of the clean-right images stand"
    bad = f"{found}, although an attack may show nearly any image: it is kept from finding what is there."
    return judge(name, figure, trials.allowed, f"{found}.", bad, masking=True)


def _reaching(threat: Threat, eps: float) -> dict[str, Attack]:
    apgd = APGD(eps=eps, norm=threat.norm, steps=50)
    if threat.norm == "l2":
        return {"apgd": apgd}
    return {"pgd": PGD(eps=eps, steps=40, start_size=threat.eps, stop_early=True), "apgd": apgd}


def falls_with_eps(trials: Trials, name: str) -> Check:
    """Accuracy under PGD does not rise with eps."""
    eps = trials.bench.threat.eps
    radii = [min(factor * eps, trials.bench.reach) for factor in (0.25, 0.5, 1, 2, 3)]
    stands = [trials.pgd() if radius == eps else trials.pgd(eps=radius) for radius in radii]
    figure = max(after - min(stands[: i + 1]) for i, after in enumerate(stands[1:]))
    shown = ", ".join(f"{each:.0%} at {radius:.3g}" for each, radius in zip(stands, radii, strict=True))
    found = f"Of the clean-right images {shown} stand under PGD-20"
    bad = f"{found}: more room makes the attack weaker, so it is led astray."
    return judge(name, figure, trials.allowed, f"{found}.", bad, masking=True)


def iterative(trials: Trials, name: str) -> Check:
    """PGD breaks at least as many images as FGSM."""
    return _order(trials, name, "FGSM", trials.stands("FGSM", FGSM), LOOSE)


def untargeted(trials: Trials, name: str) -> Check:
    """PGD breaks at least as many images as PGD towards a random or the least likely class."""
    kinds = {"PGD-R-20": PGDR, "PGD-LL-20": PGDLL}
    found = {each: trials.stands(each, kind, steps=20) for each, kind in kinds.items()}
    best = min(found, key=lambda each: found[each])
    return _order(trials, name, best, found[best], LOOSE)


def cross_entropy_leads(trials: Trials, name: str) -> Check:
    """The cross-entropy leads PGD about as well as the margin, which does not depend on the logits' scale."""
    return _order(trials, name, "PGD-20 on the margin", trials.pgd(objective=margin_loss), APART)


def _order(trials: Trials, name: str, other: str, stands: float, slack: float) -> Check:
    """PGD leaves hardly more images standing than the other attack."""
    pgd = trials.pgd()
    found = f"Of the clean-right images {percent(pgd)} stand under PGD-20 and {percent(stands)} under {other}"
    bad = f"{found}: PGD is led astray."
    return judge(name, pgd - stands, allowed(len(trials.bench.right), slack), f"{found}.", bad, masking=True)
