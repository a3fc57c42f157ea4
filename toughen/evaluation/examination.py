"""Makes the checks within a price, step by step: each step is kept, so that a stopped examination can be gone on with.

What a small budget buys first is decided here: a few images for every question about the model's answers and slopes,
then the attacks in rounds, each of which looks at twice as many images as the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import torch

from toughen.core.gradients import mode
from toughen.core.rng import key
from toughen.engine.fixed_batch import EXACT_BLOCK, FixedBatchModel
from toughen.evaluation import verdict
from toughen.evaluation.checks import data, standing, strength
from toughen.evaluation.checks.base import DROP, Bench, Check, Subject, not_made
from toughen.evaluation.checks.looks import Look, Looks
from toughen.evaluation.kept import Kept
from toughen.evaluation.price import DOUBLE, EXACT

T = TypeVar("T")
Show = Callable[[str, str], None]
"""Told which check is under way, and on what."""
LIMIT = 100  # images that a check looks at
SHARE = 0.3  # of a budget that the questions about answers and slopes may take
FINE = 20_000  # passes, below which a round begins with 4 images instead of 8
PRICE = "its price leaves no room for it; --suite standard sets none"
STOPPED = "stopped before; the same command goes on"
ENOUGH, FALLS, STRONGER = "enough images", "accuracy falls with eps", "no stronger attack is found"
RANGE, LABELS = "images as the model wants them", "labels that fit"
KINDS = 8  # other inputs that a model may want
ANYHOW = 100  # images that these two look at where there is a price: forwards alone, of which many must be seen
ASKING = {  # forwards of one image that a question takes for each image of its sample of right images, at most
    "evaluation mode": 1.0,
    "the same answer each time": 5 * EXACT,
    "logits, not probabilities": EXACT,
    "logits of a usual size": EXACT,
    "gradients that are not zero": 8.0,
    "gradients of the function itself": 5 * DOUBLE,
    "gradients that are not noise": 4.0,
    "a margin without jumps": 28 * EXACT,
}
NEEDS: dict[str, tuple[str, ...]] = {  # the looks that a check cannot do without
    "iterative beats single-step": (strength.SINGLE, strength.PLAIN),
    "PGD beats PGD-R and PGD-LL": (strength.PLAIN, *strength.TOWARDS),
    "cross-entropy leads as well as the margin": (strength.PLAIN, strength.MARGIN),
    "an unbounded attack reaches 0 %": (strength.REACH,),
    "more steps change little": (standing.STEPS,),
    "more restarts change little": standing.RESTARTS[:1],
    "random does not beat PGD": (standing.RANDOM, standing.RESTARTS[0]),
    "gradient-free does not beat gradient": (standing.SQUARE, standing.TARGETS[0]),
    "white-box beats black-box": (standing.TRANSFER, standing.TARGETS[0]),
}
ALONE, BLACK = "the same answer alone", "white-box beats black-box"
LEAST, STRONG = 4, 12  # images that these must have had for a sound number, and the first of the stronger attacks
CORE = (strength.SINGLE, strength.PLAIN, strength.MARGIN, strength.REACH)
SMALL = 4  # images per block where few are looked at


class Examination:
    """The checks of one number, as far as they were made.

    Args:
        subject: the number, and what it was made of.
        blocks: the model, as the evaluation asked it.
        kept: what an examination that was stopped has found, and what it may cost.
        limit: images that a check looks at, where there is room.
    """

    def __init__(self, subject: Subject, blocks: FixedBatchModel, kept: Kept, limit: int = LIMIT) -> None:
        self.subject, self.kept, self.limit = subject, kept, limit
        self.bench = Bench(subject, blocks, limit, kept.size)
        self.full = {"right": len(self.bench.right), "standing": len(self.bench.standing)}
        self.rounds = self._rounds()
        self.bench.whole = kept.budget is None
        self.bench.take(self._asking(), 2 * limit if self.bench.whole else min(ANYHOW, 2 * limit))
        self.looks = Looks(self.bench, limit, kept.looks)
        self._before = 0.0

    def _rounds(self) -> list[int]:
        """How many images each round looks at, a factor apart."""
        if self.kept.budget is None:
            return [self.limit]
        sizes = [min(8, self.limit) if self.kept.budget >= FINE else min(4, self.limit)]
        while sizes[-1] < self.limit:
            sizes.append(min(2 * sizes[-1], self.limit))
        return sizes

    def _asking(self) -> int:
        """How many images are asked about answers and slopes."""
        budget = self.kept.budget
        if budget is None:
            return self.limit
        fit = [size for size in self.rounds if sum(self._price(name, size) for name in ASKING) <= SHARE * budget]
        return fit[-1] if fit else self.rounds[0]

    def _price(self, name: str, images: int | None = None) -> float:
        """Forwards that a question takes."""
        if name in (RANGE, LABELS):  # of any images, right or not
            every = len(self.bench.any)
            kinds = every * KINDS if self.bench.whole else min(data.FIRST, every) * KINDS + every
            return EXACT * (every if name == LABELS else every + kinds * (not self.subject.own))
        if name == ALONE:  # among 8, 8 of them alone, among as many as attacks ask for
            return 32.0 + self.bench.asked
        n = min(len(self.bench.right) if images is None else images, self.full["right"])
        return ASKING.get(name, 0.0) * n

    @cached_property
    def _nothing(self) -> str:
        """Why nothing can be asked; "" where something can."""
        return "" if self.full["right"] else "no image is right"

    @cached_property
    def _moot(self) -> str:
        """Why no attack need be tried."""
        return "" if self.full["standing"] else "no image stands, so no attack can lower the number"

    @cached_property
    def _flat(self) -> str:
        """Why no gradient can be followed."""
        if self._nothing or self._moot:
            return self._moot or self._nothing
        return "" if self.bench.differentiable else "the logits carry no gradient to the images"

    @cached_property
    def _due(self) -> list[Look]:
        """The looks that can be taken, in the order in which they are paid for."""
        if self._moot:
            return []
        trials, probes = [] if self._flat else strength.looks(self.bench), standing.looks(self.bench)
        return [*trials[:4], *probes, *trials[4:]]

    def most(self) -> float:
        """Forwards that all of it takes at most, the price left aside."""
        with self._asked():
            due = self._due
        asking = sum(self._price(name, self.limit) for name in (*ASKING, ALONE, RANGE, LABELS))
        return asking + sum(max(look.cost, look.worst) * self.full[look.sample] for look in due)

    @property
    def spent(self) -> float:
        """Forwards so far, those of a step under way included."""
        return self.kept.spent + self._since

    @property
    def _since(self) -> float:
        """Forwards of the step under way, those that only filled blocks up included."""
        counts = self.bench.model.counts
        passed = counts.forward + counts.gradient + counts.padding + EXACT * counts.confirmation
        return passed + self.bench.besides - self._before

    def _fits(self, cost: float) -> bool:
        """Whether so many forwards more can be paid."""
        return self.kept.budget is None or self.spent + cost <= self.kept.budget

    def make(self, show: Show = lambda check, what: None) -> None:
        """Make what is not made yet and has room, and keep each step."""
        with self._asked():
            self._ask(show)
            for size in self.rounds:
                for look in self._in_turn():
                    if not self._take(look, look.factor * size, show):
                        self._take(look, size, show)
                    while self._suspicious(look) and self._take(look, 2 * self.looks.count(look.name), show):
                        continue

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Within the block the model is in evaluation mode, and what it draws leaves no trace."""
        place, bench = self.subject.labels.device, self.bench
        with torch.random.fork_rng([place] if place.type == "cuda" else []), mode(self.subject.net, "eval"):
            with mode(bench.model, "eval"):
                torch.manual_seed(self.subject.seed)
                yield

    def _ask(self, show: Show) -> None:
        """The questions about data, answers and slopes."""
        for name, make in self._questions().items():
            if name in self.kept.checks or not self._fits(self._price(name)):
                continue
            show(name, f"{len(self.bench.right)} images")
            torch.manual_seed(key(self.subject.seed, name))  # for a model that draws, whatever was asked before
            images, of = self._sample(name)
            self.kept.checks[name] = replace(make(self.bench, name), images=images, of=of)
            self._paid(self._price(name))

    def _sample(self, name: str) -> tuple[int, int]:
        """How many images a question is about, and about how many it would be without a price."""
        if name in verdict.OF_THE_DATA:
            return len(self.bench.any), min(2 * self.limit, len(self.subject.labels))
        most = EXACT_BLOCK if name == ALONE else self.limit
        return min(most, len(self.bench.right)), min(most, self.full["right"])

    def _in_turn(self) -> list[Look]:
        """The looks, those first that have broken the largest share of what should stand."""

        def share(look: Look) -> float:
            broken = self.looks.broken(look.name)
            return float(broken.double().mean()) if look.sample == "standing" and len(broken) else 0.0

        return sorted(self._due, key=share, reverse=True)

    def _suspicious(self, look: Look) -> bool:
        """Whether a look at some images has broken so many that more of them must tell whether that is chance."""
        found = self.looks.broken(look.name)
        share = float(found.double().mean()) if look.sample == "standing" and len(found) else 0.0
        return share * self.subject.robust_accuracy >= standing.HIDDEN

    def _take(self, look: Look, to: int, show: Show) -> bool:
        """Look at the images up to a number, if there are more and there is room; whether it was done."""
        to, first, size = min(to, self.full[look.sample]), self.looks.count(look.name), self.bench.model.size
        most = -(-(to - first) // size) * size * look.cost
        if first >= to or look.name in self.kept.closed or not self._fits(most):
            return False
        show(look.check, f"{look.name}, {to} of {self.full[look.sample]} images")
        torch.manual_seed(key(self.subject.seed, look.name, first))
        done = self.looks.take(look, to, self._fits)
        if not done:
            self.kept.closed.append(look.name)
        self._paid(self._since)
        return done

    def _paid(self, passes: float) -> None:
        """A step is done."""
        self.kept.spent += passes
        self._before += self._since
        self.kept.save()

    def found(self, *, stopped: bool = False) -> list[Check]:
        """All checks, those that are not made with the reason why.

        Args:
            stopped: whether that is because the examination was stopped.
        """
        with self._asked():
            trials, probes = strength.Trials(self.looks), standing.Probes(self.looks)
            missing = STOPPED if stopped else PRICE
            self.bench.short = None if stopped or self.kept.budget is None else self._short()
            made = [
                *(self._answer(name, "", missing) for name in verdict.OF_THE_DATA),
                *(self._answer(name, self._nothing, missing) for name in verdict.OF_THE_MODEL),
                *(self._answer(name, self._flat, missing) for name in verdict.OF_GRADIENTS),
                *self._judged(verdict.OF_ATTACKS, trials, self._flat, missing),
                *self._judged(verdict.OF_GRADIENTS_ON_WHAT_STANDS, probes, self._flat, missing),
                *self._judged(verdict.OF_WHAT_STANDS, probes, self._moot, missing),
            ]
        return [replace(check, masking=False) for check in made] if self._moot else made  # 0 % hides nothing

    def _answer(self, name: str, reason: str, missing: str) -> Check:
        """What a question was answered with."""
        if name == ENOUGH:
            return verdict.OF_THE_DATA[ENOUGH](self.bench, ENOUGH)
        return self.kept.checks.get(name) or not_made(name, reason or missing)

    def _judged(self, kinds: dict[str, Callable[[T, str], Check]], given: T, reason: str, missing: str) -> list[Check]:
        """The checks of what attacks did, on the images that all looks had that a check needs."""
        made = []
        for name, make in kinds.items():
            if name == BLACK and self.subject.source is None and not reason:
                made.append(not_made(name, standing.NO_SOURCE))
                continue
            images, of = self._seen(name)
            if reason or not images:
                made.append(not_made(name, reason or missing))
            else:
                made.append(replace(make(given, name), images=images, of=of))
        return made

    def _seen(self, name: str) -> tuple[int, int]:
        """How many images a check looks at, of how many."""
        due = {look.name: look for look in self._due}
        if name == STRONGER:
            looks = [look for look in due.values() if look.sample == "standing" and look.name != standing.TRANSFER]
            return max(map(self.looks.count, (look.name for look in looks)), default=0), self.full["standing"]
        needs = tuple(strength.radii(self.bench)) if name == FALLS else NEEDS[name]
        needed = [due[each] for each in needs if each in due]
        images = min((self.looks.count(look.name) for look in needed), default=0)
        return images, self.full[needed[0].sample] if needed else 0

    def _short(self) -> tuple[int, int] | None:
        """How many images a question or a look had on which the word rests most, and how many it must have had."""
        if not all(name in self.kept.checks for name in self._questions()):
            return 0, LEAST
        high = self.subject.robust_accuracy > DROP  # else what stands is no more than may be wrong
        core = dict.fromkeys(CORE, LEAST) | {standing.TARGETS[0]: STRONG}
        core |= {standing.SQUARE: STRONG} if self._flat else {}
        for look in self._due:
            least = min(core.get(look.name, 0), self.full[look.sample])
            if (high or look.sample == "right") and self.looks.count(look.name) < least:
                return self.looks.count(look.name), least
            if look.name == standing.TARGETS[0] and self._suspicious(look):
                seen, all_of_them = self.looks.count(look.name), self.full[look.sample]
                if seen < all_of_them:  # there was no room to tell whether it was chance
                    return seen, min(2 * seen, all_of_them)
        return None

    def _questions(self) -> dict[str, Callable[[Bench, str], Check]]:
        """The questions that can be asked."""
        kinds = verdict.OF_THE_DATA | ({} if self._nothing else verdict.OF_THE_MODEL)
        kinds = kinds | ({} if self._flat else verdict.OF_GRADIENTS)
        return {name: make for name, make in kinds.items() if name != ENOUGH}


def checks(subject: Subject, blocks: FixedBatchModel, limit: int = LIMIT, budget: int | None = None) -> list[Check]:
    """Every check that can be made, and the reason why another cannot.

    Args:
        subject: the number, and what it was made of.
        blocks: the model, as the evaluation asked it.
        limit: images that a check looks at.
        budget: forwards of one image that they may cost together; None sets no price.
    """
    examination = Examination(subject, blocks, Kept(budget=budget, size=None if budget is None else SMALL), limit)
    examination.make()
    return examination.found()
