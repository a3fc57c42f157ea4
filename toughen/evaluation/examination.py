"""Makes the checks of a robust accuracy within a budget of forward passes.

Every step is saved, so an examination that was stopped can be resumed. Checks of the model's outputs and gradients are
made first, on few images if the budget is small. The probes (attacks) follow in rounds; each round doubles their
images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from toughen.core.gradients import mode
from toughen.core.rng import derive_seed
from toughen.engine.device import preserved_rng_state
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import verdict
from toughen.evaluation.checks import strength, stronger
from toughen.evaluation.checks.base import EXACT, Check, CheckContext, Claim, ModelCheck, made, not_made
from toughen.evaluation.checks.chance import DROP, SUSPECT, allowed
from toughen.evaluation.checks.probes import AttackCheck, Probe, ProbeResults
from toughen.evaluation.examination_state import ExaminationState

Show = Callable[[str, str], None]
"""Called with the name of a check that begins, and which images it uses."""
LIMIT = 100  # images of a sample
SHARE = 0.3  # of the budget, for the checks of outputs and gradients
FINE = 20_000  # passes; with a smaller budget, the first round has 4 images instead of 8
PRICE = "the checks' time limit leaves no time for it; --suite standard has no limit"
STOPPED = "the evaluation was stopped before; the same command continues"
STRONGER = "no stronger attack is found"
OF_ALL = 100  # size of the sample of all images if there is a budget
LEAST, STRONG = 4, 12  # images that the probes of CORE, and the first stronger attack, need for the verdict "sound"
CORE = (strength.SINGLE, strength.PLAIN, strength.MARGIN, strength.UNBOUNDED)
SMALL = 4  # images per batch, where few are used


class Examination:
    """The checks of one robust accuracy.

    Args:
        claim: the robust accuracy and what it was measured on.
        model: the model, as the evaluation ran it.
        state: the budget, and the results of an examination that was stopped.
        limit: the maximum size of a sample.
    """

    def __init__(self, claim: Claim, model: FixedBatchModel, state: ExaminationState, limit: int = LIMIT) -> None:
        self.claim, self.state, self.limit = claim, state, limit
        self.context = CheckContext(claim, model, limit, state.size)
        self.available = {"correct": len(self.context.correct), "robust": len(self.context.robust)}
        self.rounds = self._rounds()
        self.context.unlimited = state.budget is None
        self.context.draw(self._images_per_check(), 2 * limit if self.context.unlimited else min(OF_ALL, 2 * limit))
        self.applicable = verdict.Applicable(self.context)
        self.results = ProbeResults(self.context, limit, state.probes)
        self._counted = 0.0  # forward passes of the steps that are done in this call

    def _rounds(self) -> list[int]:
        """The number of images of each round."""
        if self.state.budget is None:
            return [self.limit]
        sizes = [min(8 if self.state.budget >= FINE else 4, self.limit)]
        while sizes[-1] < self.limit:
            sizes.append(min(2 * sizes[-1], self.limit))
        return sizes

    def _images_per_check(self) -> int:
        """How many images the checks of outputs and gradients use: as many as fit into SHARE of the budget."""
        budget = self.state.budget
        if budget is None:
            return self.limit
        names = [name for name, check in verdict.MODEL_CHECKS.items() if not callable(check.cost)]
        affordable = [size for size in self.rounds if sum(self._cost(name, size) for name in names) <= SHARE * budget]
        return affordable[-1] if affordable else self.rounds[0]

    def _cost(self, name: str, images: int | None = None) -> float:
        """Forward passes of one image that a check of the model takes, on ``images`` images or on the whole sample."""
        check = verdict.MODEL_CHECKS[name]
        if callable(check.cost):
            return check.cost(self.context)
        if check.about == "data":
            return check.cost * len(self.context.all)
        return check.cost * min(len(self.context.correct) if images is None else images, self.available["correct"])

    def total_cost(self) -> float:
        """Forward passes of one image that all checks take together, at most, without a budget."""
        with self._evaluation_mode():
            probes = self.applicable.probes
        model_checks = sum(self._cost(name, self.limit) for name in verdict.MODEL_CHECKS)
        return model_checks + sum(max(probe.cost, probe.worst) * self.available[probe.sample] for probe in probes)

    @property
    def spent(self) -> float:
        """Forward passes so far, including those of the current step."""
        return self.state.spent + self._current_passes

    @property
    def _current_passes(self) -> float:
        """Forward passes of the current step, including those that only filled up batches."""
        counts = self.context.model.counts
        passes = counts.forward + counts.gradient + counts.padding + EXACT * counts.confirmation
        return passes + self.context.extra_cost - self._counted

    def _has_room(self, cost: float) -> bool:
        """Whether the budget allows ``cost`` more forward passes."""
        return self.state.budget is None or self.spent + cost <= self.state.budget

    def make(self, show: Show = lambda check, what: None) -> None:
        """Make all checks that are missing and that the budget allows, and save each step."""
        with self._evaluation_mode():
            self._check_model(show)
            for size in self.rounds:
                for probe in self._most_successful_first():
                    if not self._run(probe, probe.factor * size, show):
                        self._run(probe, size, show)
                    while self._suspicious(probe) and self._run(probe, 2 * self.results.count(probe.name), show):
                        continue

    @contextmanager
    def _evaluation_mode(self) -> Iterator[None]:
        """A context in which the model is in evaluation mode; at its end the random state is restored."""
        device, context = self.claim.labels.device, self.context
        with preserved_rng_state(device), mode(self.claim.net, "eval"):
            with mode(context.model, "eval"):
                torch.manual_seed(self.claim.seed)
                yield

    def _check_model(self, show: Show) -> None:
        """Check data, outputs and gradients."""
        for name, check in self.applicable.model_checks.items():
            if name in self.state.checks or not self._has_room(self._cost(name)):
                continue
            show(name, f"{len(self.context.correct)} images")
            torch.manual_seed(derive_seed(self.claim.seed, name))  # for a model with random outputs
            images, of = self._sample(name)
            self.state.checks[name] = replace(made(check, self.context), images=images, of=of)
            self._save(self._cost(name))

    def _sample(self, name: str) -> tuple[int, int]:
        """How many images a check of the model uses, and how many it would use without a budget."""
        check = verdict.MODEL_CHECKS[name]
        if check.about == "data":
            return len(self.context.all), min(2 * self.limit, len(self.claim.labels))
        limit = check.images or self.limit
        return min(limit, len(self.context.correct)), min(limit, self.available["correct"])

    def _broken_share(self, probe: Probe) -> float:
        """The share of its robust images that a probe broke so far; 0 for a probe of other images."""
        broken = self.results.broken(probe.name)
        return float(broken.double().mean()) if probe.sample == "robust" and len(broken) else 0.0

    def _most_successful_first(self) -> list[Probe]:
        """The probes; those that broke the largest share of robust images are first."""
        return sorted(self.applicable.probes, key=self._broken_share, reverse=True)

    def _suspicious(self, probe: Probe) -> bool:
        """Whether a probe broke so many images that it must be run on more, to see whether this was chance.

        If it could break no more than the accepted error, 95 % of samples of this size would have fewer broken images.
        """
        n, number = self.results.count(probe.name), self.claim.robust_accuracy
        if probe.sample != "robust" or not n or number <= DROP:
            return False
        return self._broken_share(probe) > allowed(n, DROP / number, SUSPECT)

    def _run(self, probe: Probe, to: int, show: Show) -> bool:
        """Extend a probe to the first ``to`` images of its sample; False if it has them or the budget is too small."""
        to, size = min(to, self.available[probe.sample]), self.context.model.size
        first = self.results.count(probe.name)
        cost = math.ceil((to - first) / size) * size * probe.cost
        if first >= to or probe.name in self.state.closed or not self._has_room(cost):
            return False
        show(probe.check, f"{probe.name}, {to} of {self.available[probe.sample]} images")
        torch.manual_seed(derive_seed(self.claim.seed, probe.name, first))
        done = self.results.extend(probe, to, self._has_room)
        if not done:
            self.state.closed.append(probe.name)
        self._save(self._current_passes)
        return done

    def _save(self, passes: float) -> None:
        """Save a step that is done; ``passes`` are charged to the budget."""
        self.state.spent += passes
        self._counted += self._current_passes
        self.state.save()

    def checks(self, *, stopped: bool = False) -> list[Check]:
        """The results of all checks; for those that were not made, the reason.

        Args:
            stopped: whether the examination was stopped before its end.
        """
        with self._evaluation_mode():
            missing = STOPPED if stopped else PRICE
            self.context.too_few = None if stopped or self.state.budget is None else self._too_few()
            checks = [self._of_model(check, missing) for check in verdict.MODEL_CHECKS.values()]
            checks += [self._of_attacks(check, missing) for check in verdict.ATTACK_CHECKS.values()]
        none_robust = bool(self.applicable.no_robust)  # then nothing can mask a weakness
        return [replace(check, masking=False) for check in checks] if none_robust else checks

    def _of_model(self, check: ModelCheck, missing: str) -> Check:
        """The result of a check of the model."""
        if not check.runs_model:
            return check.make(self.context, check.name)
        reason = self.applicable.reasons[check.about]
        return self.state.checks.get(check.name) or not_made(check.name, reason or missing)

    def _of_attacks(self, check: AttackCheck, missing: str) -> Check:
        """The result of a check of the probes."""
        applicable = self.applicable
        reason = applicable.no_gradient if check.gradients else applicable.no_robust
        reason = reason or check.impossible(self.context)
        images, of = self._images_of(check)
        if reason or not images:
            return not_made(check.name, reason or missing)
        result = check.judge(self.results, check.name)
        return replace(result, images=result.images or images, of=of)

    def _images_of(self, check: AttackCheck) -> tuple[int, int]:
        """How many images a check of the probes uses, and how many it would use without a budget."""
        possible = {probe.name: probe for probe in self.applicable.probes}
        names = check.probes(self.context) if callable(check.probes) else check.probes
        probes = [possible[name] for name in names if name in possible]
        images = (min if check.common else max)((self.results.count(probe.name) for probe in probes), default=0)
        return images, self.available[probes[0].sample] if probes else 0

    def _too_few(self) -> tuple[int, int] | None:
        """How many images a decisive check had and how many it needs; None if all had enough."""
        if not all(name in self.state.checks for name in self.applicable.model_checks):
            return 0, LEAST
        above_error = self.claim.robust_accuracy > DROP
        needed = dict.fromkeys(CORE, LEAST) | {stronger.TARGETS[0]: STRONG}
        needed |= {stronger.SQUARE: STRONG} if self.applicable.no_gradient else {}
        for probe in self.applicable.probes:
            count, available = self.results.count(probe.name), self.available[probe.sample]
            least = min(needed.get(probe.name, 0), available)
            if (above_error or probe.sample == "correct") and count < least:
                return count, least
            if probe.name == stronger.TARGETS[0] and self._suspicious(probe) and count < available:
                return count, min(2 * count, available)
        return None
