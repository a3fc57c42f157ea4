"""Makes the checks within a price, step by step: each step is kept, so that a stopped examination can be gone on with.

What a small budget buys first is decided here: a few images for every question about the model's answers and slopes,
then the attacks in rounds, each of which looks at twice as many images as the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from types import ModuleType

import torch

from toughen.core.gradients import mode
from toughen.core.rng import derive_seed
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation import verdict
from toughen.evaluation.checks import strength, stronger
from toughen.evaluation.checks.base import DROP, Bench, Check, Question, Subject, not_made
from toughen.evaluation.checks.looks import AttackCheck, Look, Looks
from toughen.evaluation.kept import Kept
from toughen.evaluation.price import EXACT

Show = Callable[[str, str], None]
"""Told which check is under way, and on what."""
LIMIT = 100  # images that a check looks at
SHARE = 0.3  # of a budget that the questions about answers and slopes may take
FINE = 20_000  # passes, below which a round begins with 4 images instead of 8
PRICE = "its price leaves no room for it; --suite standard sets none"
STOPPED = "stopped before; the same command goes on"
STRONGER = "no stronger attack is found"
ANYHOW = 100  # images that these two look at where there is a price: forwards alone, of which many must be seen
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
        each = [name for name, question in verdict.QUESTIONS.items() if not callable(question.cost)]
        fit = [size for size in self.rounds if sum(self._price(name, size) for name in each) <= SHARE * budget]
        return fit[-1] if fit else self.rounds[0]

    def _price(self, name: str, images: int | None = None) -> float:
        """Forwards that a question takes."""
        question = verdict.QUESTIONS[name]
        cost = question.cost
        if callable(cost):
            return cost(self.bench)
        if question.of == "data":
            return cost * len(self.bench.any)
        return cost * min(len(self.bench.right) if images is None else images, self.full["right"])

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
        trials, probes = [] if self._flat else strength.looks(self.bench), stronger.looks(self.bench)
        others = [each for module in verdict.modules()[len(verdict.FIRST) :] for each in _looks(module, self.bench)]
        return [*trials[:4], *probes, *trials[4:], *others]

    def most(self) -> float:
        """Forwards that all of it takes at most, the price left aside."""
        with self._asked():
            due = self._due
        asking = sum(self._price(name, self.limit) for name in verdict.QUESTIONS)
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
        for name, question in self._questions().items():
            if name in self.kept.checks or not self._fits(self._price(name)):
                continue
            show(name, f"{len(self.bench.right)} images")
            torch.manual_seed(derive_seed(self.subject.seed, name))  # for a model that draws, whatever was asked before
            images, of = self._sample(name)
            self.kept.checks[name] = replace(question.ask(self.bench, name), images=images, of=of)
            self._paid(self._price(name))

    def _sample(self, name: str) -> tuple[int, int]:
        """How many images a question is about, and about how many it would be without a price."""
        question = verdict.QUESTIONS[name]
        if question.of == "data":
            return len(self.bench.any), min(2 * self.limit, len(self.subject.labels))
        most = question.images or self.limit
        return min(most, len(self.bench.right)), min(most, self.full["right"])

    def _in_turn(self) -> list[Look]:
        """The looks, those first that have broken the largest share of what should stand."""

        def share(look: Look) -> float:
            broken = self.looks.broken(look.name)
            return float(broken.double().mean()) if look.sample == "standing" and len(broken) else 0.0

        return sorted(self._due, key=share, reverse=True)

    def _suspicious(self, look: Look) -> bool:
        """Whether a look at some images has broken so many that more of them must tell whether that is chance."""
        broken = self.looks.broken(look.name)
        share = float(broken.double().mean()) if look.sample == "standing" and len(broken) else 0.0
        return share * self.subject.robust_accuracy >= stronger.HIDDEN

    def _take(self, look: Look, to: int, show: Show) -> bool:
        """Look at the images up to a number, if there are more and there is room; whether it was done."""
        to, first, size = min(to, self.full[look.sample]), self.looks.count(look.name), self.bench.model.size
        most = -(-(to - first) // size) * size * look.cost
        if first >= to or look.name in self.kept.closed or not self._fits(most):
            return False
        show(look.check, f"{look.name}, {to} of {self.full[look.sample]} images")
        torch.manual_seed(derive_seed(self.subject.seed, look.name, first))
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
            missing = STOPPED if stopped else PRICE
            self.bench.short = None if stopped or self.kept.budget is None else self._short()
            checks = [self._answer(question, missing) for question in verdict.QUESTIONS.values()]
            checks += [self._judged(check, missing) for check in verdict.ATTACK_CHECKS.values()]
        return [replace(check, masking=False) for check in checks] if self._moot else checks  # 0 % hides nothing

    def _answer(self, question: Question, missing: str) -> Check:
        """What a question was answered with."""
        if not question.asks:
            return question.ask(self.bench, question.name)
        reason = self._reasons()[question.of]
        return self.kept.checks.get(question.name) or not_made(question.name, reason or missing)

    def _judged(self, check: AttackCheck, missing: str) -> Check:
        """A check of what attacks did, on the images that all looks had that it needs."""
        reason = (self._flat if check.gradients else self._moot) or check.lacks(self.bench)
        images, of = self._seen(check)
        if reason or not images:
            return not_made(check.name, reason or missing)
        return replace(check.judge(self.looks, check.name), images=images, of=of)

    def _seen(self, check: AttackCheck) -> tuple[int, int]:
        """How many images a check looks at, of how many."""
        due = {look.name: look for look in self._due}
        needs = check.needs(self.bench) if callable(check.needs) else check.needs
        needed = [due[each] for each in needs if each in due]
        images = (min if check.all_of else max)((self.looks.count(look.name) for look in needed), default=0)
        return images, self.full[needed[0].sample] if needed else 0

    def _short(self) -> tuple[int, int] | None:
        """How many images a question or a look had on which the word rests most, and how many it must have had."""
        if not all(name in self.kept.checks for name in self._questions()):
            return 0, LEAST
        high = self.subject.robust_accuracy > DROP  # else what stands is no more than may be wrong
        core = dict.fromkeys(CORE, LEAST) | {stronger.TARGETS[0]: STRONG}
        core |= {stronger.SQUARE: STRONG} if self._flat else {}
        for look in self._due:
            least = min(core.get(look.name, 0), self.full[look.sample])
            if (high or look.sample == "right") and self.looks.count(look.name) < least:
                return self.looks.count(look.name), least
            if look.name == stronger.TARGETS[0] and self._suspicious(look):
                seen, all_of_them = self.looks.count(look.name), self.full[look.sample]
                if seen < all_of_them:  # there was no room to tell whether it was chance
                    return seen, min(2 * seen, all_of_them)
        return None

    def _questions(self) -> dict[str, Question]:
        """The questions that can be asked."""
        reasons, known = self._reasons(), verdict.QUESTIONS.items()
        return {name: question for name, question in known if question.asks and not reasons[question.of]}

    def _reasons(self) -> dict[str, str]:
        """Why questions of each kind cannot be asked; "" where they can."""
        return {"data": "", "model": self._nothing, "gradients": self._flat}


def _looks(module: ModuleType, bench: Bench) -> list[Look]:
    """The attacks that a file of checks tries, if it tries any."""
    looks: list[Look] = module.looks(bench) if hasattr(module, "looks") else []
    return looks


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
