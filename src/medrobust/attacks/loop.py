"""The one loop that drives every attack.

It keeps a batch of fixed shape full: a row that has succeeded or made its steps leaves, and the next takes its
place. The pass that yields the gradient is also the success check; a row's last evaluation is forward only and waits
until a full batch of such evaluations has come together. In a sweep each image carries its own bracket of epsilons.
Because the shape is fixed and rows do not mix, an image's result is the same to the bit in any batch and order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from medrobust.attacks.active_batch import ActiveBatch, goal_on, joined
from medrobust.attacks.attack import Attack, Batch, ModelOutput, evaluate
from medrobust.attacks.attacked import Attacked
from medrobust.attacks.bracket import Bracket
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, check_images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal, margin
from medrobust.threat.balls import TOLERANCE

COLD, TOWARD, WARM = 0, 1, 2
"""Where a run begins: as the attack says; one step along the clean gradient; at what broke the level above."""

SLACK = 1.0
"""Times what the goal could gain in the ball if the network were linear: a run ends where even that misses it."""

BEYOND = 1.5
"""The first eps tried, over the one at which a linear network would break: one too large costs a few forward passes on
the way back, one too small a whole run."""


class CleanPass:
    """What the first of several attacks learns at the clean images, for those after it on the same network."""

    def __init__(self) -> None:
        self.net: nn.Module | None = None
        self.logits = self.toward = self.level = torch.zeros(0)


@dataclass(frozen=True)
class Options:
    """The options of ``attacks.run`` that the loop needs."""

    grid: Sequence[float] | None = None
    seed: int = 0
    ids: Sequence[Id] | None = None
    full: bool = False
    search: str = "warm"
    near: Tensor | None = None
    after: Attacked | None = None
    advance: Callable[[int], None] | None = None
    out_of_reach: Tensor | None = None
    clean: CleanPass | None = None

    def take(self, index: Tensor) -> Options:
        """Those of some images; without ``advance`` and ``clean``."""
        return replace(
            self,
            ids=index.tolist() if self.ids is None else [self.ids[i] for i in index.tolist()],
            near=None if self.near is None else self.near[index],
            after=None if self.after is None else self.after.take(index),
            advance=None,
            out_of_reach=None if self.out_of_reach is None else self.out_of_reach[index],
            clean=None,
        )


class Loop:
    def __init__(
        self, attack: Attack, classifier: Classifier, images: Images, goal: Goal, ball: Ball, options: Options
    ) -> None:
        grid, ids, full, search, after = options.grid, options.ids, options.full, options.search, options.after
        self.attack, self.classifier, self.full = attack, classifier, full
        self.origin = classifier.as_stored(check_images(images))
        n = self.n = images.shape[0]
        self.device = classifier.device
        self.ids: list[Id] = list(range(n)) if ids is None else list(ids)
        if len(self.ids) != n:
            raise InputError(f"{n} images but {len(self.ids)} ids; give one id an image")
        self.goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
        levels = [float(ball.eps)] if grid is None else [float(e) for e in grid]
        if not levels or sorted(set(levels)) != levels:
            raise InputError(f"eps must be a non-empty ascending grid without repeats, got {levels}")
        self.ball, self.grid = ball, torch.tensor([float(type(ball)(e).eps) for e in levels])
        self.seed = options.seed
        self.keeps_best = full or attack.minimal
        if full and len(levels) > 1:
            raise InputError("full=True wants one eps, not a grid: the strongest example is one for each eps")
        self.advance = options.advance or (lambda _: None)
        self.batch_size = classifier.batch_size(self.origin.shape)
        # "warm" needs a gradient at the clean image and steps that can begin anywhere
        self.warm = search == "warm" and attack.can_warm_start and len(levels) > 1
        # a gradient that is not the function's own, or of one draw of several, says nothing about the whole ball
        rounded = classifier.stored_levels is not None or bool(
            classifier.preprocessing is not None and classifier.preprocessing.rounds
        )
        own = classifier.substitute is None and classifier.draws is None and not rounded
        self.ends_early = self.warm and own and not self.keeps_best and attack.ceiling is not None
        self.toward = torch.zeros_like(self.origin) if self.warm else None
        self.bracket = Bracket(n, len(levels), "shrink" if search == "warm" else search, options.near)
        self.out_of_reach = torch.full((n,), -1)
        """int64 (n,): largest level known to be out of reach to first order, by this attack's gradients alone."""
        if self.ends_early and options.out_of_reach is not None:
            self.bracket.low = options.out_of_reach.clamp_max(len(levels) - 2).tolist()
        self.clean = options.clean
        self.result = self.origin.clone()
        self.reached = torch.zeros(n, dtype=torch.bool)
        self.strength = torch.full((n,), -torch.inf)
        self.gradients, self.forwards = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)
        self.queries = torch.zeros(n, dtype=torch.long)
        self.no_gradient = torch.zeros(n, dtype=torch.bool)
        self.scores_vary = torch.full((n,), attack.uses_gradient)
        """bool: an answer differed from that to the clean image; an attack with gradients knows by them."""
        self.clean_loss = torch.zeros(n)
        self.after = after
        if after is not None:
            self._go_on_from(after)
        self.waiting: deque[tuple[int, int, int, int]] = deque()  # (image, level, restart, where it begins)
        self.ending: ActiveBatch | None = None
        """Rows whose last evaluation is due."""
        self.shrinking: ActiveBatch | None = None
        """Successes that are followed towards their image, each between its levels "below" and "above"."""

    def finish(self) -> Attacked:
        clean = self._skip_those_reached_already()
        active: ActiveBatch | None = None
        with self.classifier.borrowed():
            if self.waiting:
                self.classifier.try_narrow(self.origin.shape)
            while self.waiting or active or self.ending or self.shrinking:
                active = self._refill(active)
                # passes without a gradient wait for a full batch, or until there is nothing else to do
                if self.ending and (active is None or len(self.ending) >= self.batch_size):
                    self.ending = self._last_pass(self.ending)
                elif self.shrinking and (active is None or len(self.shrinking) >= self.batch_size):
                    self.shrinking = self._shrink(self.shrinking)
                elif active is not None:
                    active, due = self._advance(active)
                    self.ending = joined(self.ending, due)
        return Attacked(
            self.result,
            self.reached | clean,
            torch.where(clean, 0, self.bracket.smallest()),
            self.gradients,
            self.forwards,
            self.queries,
            clean,
            (self.no_gradient | ~self.scores_vary) & ~self.reached & ~clean,
            out_of_reach=self.out_of_reach if self.ends_early else None,
        )

    # -- which image, at which eps ----------------------------------------------------------------------

    def _go_on_from(self, after: Attacked) -> None:
        """Keep earlier successes; only smaller levels are tried."""
        self.result, self.reached = after.images.clone().to(self.result), after.reached & ~after.clean
        self.strength = torch.where(self.reached, 0.0, self.strength)
        for i in self.reached.nonzero()[:, 0].tolist():
            self.bracket.succeeded(i, int(after.level[i]))

    def _skip_those_reached_already(self) -> Tensor:
        """Evaluate the clean images: those misclassified already need no attack, unless the strongest is wanted."""
        if self.warm:
            logits = self._clean_pass()
        else:
            logits = self.classifier.logits(self.origin)
            self.forwards += 1
        finite = torch.isfinite(logits).all(1)
        clean = self.goal.reached(self.classifier.head, logits) & finite
        self.clean_loss = self.attack.loss(self.goal, self.classifier.head, logits).cpu()
        self.no_gradient |= ~finite
        skip = torch.zeros_like(clean) if self.full else clean
        if self.after is not None and not self.full:
            skip = skip | torch.tensor([not self.bracket.open(i) for i in range(self.n)], dtype=torch.bool)
        for i in (~skip).nonzero()[:, 0].tolist():
            begin = COLD if not self.warm else WARM if self.reached[i] else TOWARD
            self.waiting.append((i, self._first_level(i), 0, begin))
        self.advance(int(skip.sum()))
        return clean

    def _clean_pass(self) -> Tensor:
        """The clean logits; and from the gradient, which way and at about which eps each image breaks."""
        assert self.toward is not None
        if self.clean is not None and self.clean.net is self.classifier.net:
            self.toward = self.clean.toward
            if not self.bracket.hinted:
                self.bracket.hint(self.clean.level)
            return self.clean.logits
        logits, level = [], []
        self.gradients += 1
        for chunk in torch.arange(self.n).split(self.batch_size):
            goal = goal_on(self.goal.take(chunk), self.device)
            with self.classifier.borrowed():
                output = evaluate(self.classifier, self.origin[chunk].to(self.device), goal, margin, gradient=True)
            assert output.gradient is not None
            slope = self.ball.dual_norm(output.gradient)
            broken = torch.where(slope > 0, BEYOND * output.margin.abs() / slope, torch.inf)
            level.append(torch.searchsorted(self.grid, broken.cpu()))
            self.toward[chunk] = self.ball.ascent(output.gradient).to(self.toward)
            logits.append(output.logits.to(self.origin.device))
        hints = torch.cat(level) if level else torch.zeros(0, dtype=torch.long)
        if not self.bracket.hinted:
            self.bracket.hint(hints)
        found = torch.cat(logits) if logits else self.classifier.logits(self.origin)
        if self.clean is not None:
            self.clean.net, self.clean.logits = self.classifier.net, found
            self.clean.toward, self.clean.level = self.toward, hints
        return found

    def _first_level(self, i: int) -> int:
        return self.bracket.levels - 1 if self.keeps_best else self.bracket.next(i)

    def _refill(self, active: ActiveBatch | None) -> ActiveBatch | None:
        free = self.batch_size - (0 if active is None else len(active))
        if not free or not self.waiting or (self.attack.starts_together and free < self.batch_size // 2):
            return active
        picked = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        image, level, restart, begin = (torch.tensor(v) for v in zip(*picked, strict=True))
        batch = Batch(
            self.origin[image].to(self.device),
            self.ball.at(self.grid[level].to(self.device)),
            goal_on(self.goal.take(image), self.device),
            torch.zeros(len(picked), dtype=torch.long, device=self.device),
            restart,
            [self.ids[i] for i, *_ in picked],
            self.seed,
        )
        now, state = self.attack.start(batch)
        now = self.classifier.confined(batch.origin, now)
        if begin.any():
            warm = batch.ball.move(batch.origin, self._begin(image, begin, batch))
            warm = self.classifier.confined(batch.origin, warm)
            now = torch.where((begin > COLD).to(self.device).view(-1, 1, 1, 1), warm, now)
        fresh = ActiveBatch(image, level, batch, now, state)
        if self.keeps_best:
            fresh.best = now.clone()
            fresh.score = torch.full((len(picked),), -torch.inf, device=self.device)
        return joined(active, fresh)

    def _begin(self, image: Tensor, begin: Tensor, batch: Batch) -> Images:
        """For a run that does not begin as the attack says: where it begins instead, before it is made legal."""
        assert self.toward is not None
        toward = batch.origin + batch.ball.eps * self.toward[image].to(self.device)
        return torch.where(
            (begin == TOWARD).to(self.device).view(-1, 1, 1, 1), toward, self.result[image].to(self.device)
        )

    # -- one step ----------------------------------------------------------------------------------------

    def _advance(self, active: ActiveBatch) -> tuple[ActiveBatch | None, ActiveBatch | None]:
        """Evaluate, settle the successes, step the others, and return those whose last evaluation is due."""
        output = self._evaluate(active)
        self._remember(active, output)
        if not self.keeps_best and output.reached.any():
            self._settle(active.keep(output.reached), success=True)
            going = ~output.reached
            if not going.any():
                return None, None
            active, output = active.keep(going), output.keep(going)
        ended_mask = self._ended(active, output)
        if ended_mask is not None and ended_mask.any():
            ended = active.keep(ended_mask)
            if self.keeps_best:
                self._settle_best(ended)
            else:
                self._settle(ended, success=False)
            if ended_mask.all():
                return None, None
            active, output = active.keep(~ended_mask), output.keep(~ended_mask)
        before = self.classifier.calls
        stepped = self.attack.step(active.now, output, active.batch, active.state)
        active.now = self.classifier.confined(active.batch.origin, stepped)
        self._count_own(active, self.classifier.calls - before)
        active.batch = replace(active.batch, index=active.batch.index + 1)
        due = active.batch.index >= self.attack.steps
        if not due.any():
            return active, None
        return (None if due.all() else active.keep(~due)), active.keep(due)

    def _ended(self, active: ActiveBatch, output: ModelOutput) -> Tensor | None:
        """Rows that end with this evaluation: their budget is used up, or their result cannot change any more."""
        ends = [
            self.attack.budget_exhausted(active.batch, active.state),
            self.attack.converged(output) if self.keeps_best else None,
            self._hopeless(active, output),
        ]
        known = [mask for mask in ends if mask is not None]
        return torch.stack(known).any(0) if known else None

    def _hopeless(self, active: ActiveBatch, output: ModelOutput) -> Tensor | None:
        """Rows whose goal is nowhere in their ball to first order; None where this attack cannot tell.

        The largest level of an image that was never reached makes all its steps: what holds there counts as robust.
        """
        if not self.ends_early or output.gradient is None:
            return None
        assert self.attack.ceiling is not None
        now = self.attack.ceiling(active.batch.goal, self.classifier.head, output.logits)
        if now is None:
            return None
        gain = active.batch.ball.most_gain(active.batch.origin, active.now, output.gradient)
        full = (active.level == self.bracket.levels - 1) & ~self.reached[active.image]
        hopeless = (now + SLACK * gain < 0) & ~output.no_gradient & ~full.to(self.device)
        if hopeless.any():
            here = hopeless.cpu()
            rows, level = active.image[here], active.level[here]
            self.out_of_reach[rows] = self.out_of_reach[rows].maximum(level)
        return hopeless

    def _evaluate(self, active: ActiveBatch) -> ModelOutput:
        before = self.classifier.calls
        output = self.attack.evaluate(self.classifier, active.now, active.batch, active.state)
        self._count(active, output)
        if output.queries is None:  # else the attack says how many candidates of each row it asked about
            self._count_own(active, self.classifier.calls - before - 1)
        if output.images is not None:
            active.now = output.images
        return self._legal(output, active.now, active.batch)

    def _legal(self, output: ModelOutput, images: Images, batch: Batch) -> ModelOutput:
        """``output`` without successes that leave the ball when they are stored: rounding may lengthen an L2 change."""
        if self.classifier.stored_levels is None or self.attack.minimal:
            return output
        legal = batch.ball.legal(batch.origin, self.classifier.as_stored(images))
        return replace(output, reached=output.reached & legal)

    def _last_pass(self, ending: ActiveBatch) -> ActiveBatch | None:
        now = torch.arange(len(ending)) < self.batch_size
        rest = None if now.all() else ending.keep(~now)
        ending = ending.keep(now)
        output = evaluate(self.classifier, ending.now, ending.batch.goal, self.attack.loss, gradient=False)
        output = self._legal(output, ending.now, ending.batch)
        self._count(ending, output)
        self._remember(ending, output)
        if ending.best is not None:
            self._settle_best(ending)
        else:
            self._settle_both(ending, output.reached)
        return rest

    def _settle_best(self, done: ActiveBatch) -> None:
        """Rows that searched for the smallest or the strongest example: the best one so far counts."""
        assert done.best is not None
        assert done.score is not None
        done.now = done.best
        self._settle_both(done, done.score > (-torch.inf if self.attack.minimal else 0))

    def _settle_both(self, done: ActiveBatch, reached: Tensor) -> None:
        if reached.any():
            self._settle(done.keep(reached), success=True)
        if not reached.all():
            self._settle(done.keep(~reached), success=False)

    def _count(self, active: ActiveBatch, output: ModelOutput) -> None:
        self.no_gradient[active.image] |= (output.no_gradient & ~output.reached).cpu()
        queries = torch.ones(len(active), dtype=torch.long) if output.queries is None else output.queries.cpu()
        self.queries[active.image] += queries
        (self.forwards if output.gradient is None else self.gradients)[active.image] += queries
        if not self.attack.uses_gradient:
            differs = output.loss.cpu() != self.clean_loss[active.image]
            self.scores_vary[active.image] |= (
                differs if output.scores_vary is None else differs | output.scores_vary.cpu()
            )

    def _count_own(self, active: ActiveBatch, passes: int) -> None:
        """Forward passes that an attack made beside the one that it is asked for: of all rows, and each is a query."""
        self.queries[active.image] += passes
        self.forwards[active.image] += passes

    def _remember(self, active: ActiveBatch, output: ModelOutput) -> None:
        """The best so far: the largest margin, or for minimal attacks the smallest success."""
        if active.best is None or active.score is None:
            return
        now = self.classifier.as_stored(active.now)
        if self.attack.minimal:
            size = active.batch.ball.size(now - active.batch.origin)
            score = torch.where(output.reached, -size, -torch.inf)
        else:
            # a tie of two logits can be a success without a margin; keep "score > 0" and "reached" the same
            tiny = torch.finfo(torch.float32).tiny
            score = torch.where(
                output.reached, output.margin.clamp_min(tiny), output.margin.clamp_max(0).nan_to_num(-torch.inf)
            )
        better = (score > active.score) | torch.isneginf(active.score)  # the last attempt, until one succeeds
        active.score = torch.where(better, score, active.score)
        active.best = torch.where(better.view(-1, 1, 1, 1), now, active.best)

    # -- what became of a row ----------------------------------------------------------------------------

    def _settle(self, done: ActiveBatch, *, success: bool) -> None:
        """Record finished rows and queue the next level of their images."""
        done.now = self.classifier.as_stored(done.now)
        size = done.batch.ball.size(done.now - done.batch.origin).tolist()
        score = [0.0 if success else -torch.inf] * len(done) if done.score is None else done.score.tolist()
        pixels = done.now.to(self.result.device)
        tries = zip(done.image.tolist(), done.level.tolist(), done.batch.restart.tolist(), strict=True)
        to_shrink = []
        for k, (i, level, restart) in enumerate(tries):
            if success:
                self._record_success(i, level, size[k], score[k], pixels[k])
            elif not self.reached[i] and score[k] >= self.strength[i]:
                self.result[i], self.strength[i] = pixels[k], score[k]
            if restart + 1 < self.attack.restarts and (self.keeps_best or not success):
                self.waiting.append((i, level, restart + 1, COLD))
                continue
            if not success:
                self.bracket.failed(i, level)
            if success and self.bracket.search == "shrink" and not self.keeps_best and self.bracket.open(i):
                to_shrink.append(k)
            else:
                self._next(i)
        if to_shrink:
            mask = torch.zeros(len(done), dtype=torch.bool)
            mask[to_shrink] = True
            self.shrinking = joined(self.shrinking, self._to_shrink(done.keep(mask)))

    def _record_success(self, i: int, level: int, size: float, score: float, pixels: Images) -> None:
        if not self.reached[i] or level < self.bracket.high[i] or score > self.strength[i]:
            self.result[i], self.strength[i] = pixels, score
        self.reached[i] = True
        # an example smaller than its eps is legal at every eps from its own size upwards
        within = int(torch.searchsorted(self.grid, torch.tensor(size - TOLERANCE)))
        self.bracket.succeeded(i, within if self.attack.minimal else min(level, within))

    def _next(self, i: int) -> None:
        if not self.keeps_best and self.bracket.open(i):
            self.waiting.append((i, self.bracket.next(i), 0, WARM if self.warm and self.reached[i] else COLD))
        else:
            self.advance(1)

    # -- following a success towards its image -------------------------------------------------------------

    def _to_shrink(self, done: ActiveBatch) -> ActiveBatch:
        images = done.image.tolist()
        state = {
            "below": torch.tensor([self.bracket.low[i] for i in images], device=self.device),
            "above": torch.tensor([self.bracket.high[i] for i in images], device=self.device),
        }
        return replace(done, state=state, best=None, score=None)

    def _shrink(self, shrinking: ActiveBatch) -> ActiveBatch | None:
        """Evaluate, without a gradient, the perturbation cut to the middle of its levels."""
        now = torch.arange(len(shrinking)) < self.batch_size
        rest = None if now.all() else shrinking.keep(~now)
        shrinking = shrinking.keep(now)
        below, above = shrinking.state["below"], shrinking.state["above"]
        middle = torch.div(below + above, 2, rounding_mode="floor")
        ball = self.ball.at(self.grid.to(self.device)[middle])
        cut = self.classifier.as_stored(ball.move(shrinking.batch.origin, shrinking.now))
        output = evaluate(self.classifier, cut, shrinking.batch.goal, self.attack.loss, gradient=False)
        output = self._legal(output, cut, replace(shrinking.batch, ball=ball))
        self._count(shrinking, output)
        shrinking.now = torch.where(output.reached.view(-1, 1, 1, 1), cut, shrinking.now)
        shrinking.state["above"] = torch.where(output.reached, middle, above)
        shrinking.state["below"] = torch.where(output.reached, below, middle)
        going = shrinking.state["above"] - shrinking.state["below"] > 1
        if not going.all():
            self._shrunk(shrinking.keep(~going))
        return joined(rest, shrinking.keep(going) if going.any() else None)

    def _shrunk(self, done: ActiveBatch) -> None:
        size = done.batch.ball.size(done.now - done.batch.origin).tolist()
        pixels = done.now.to(self.result.device)
        for k, (i, level) in enumerate(zip(done.image.tolist(), done.state["above"].tolist(), strict=True)):
            self._record_success(i, level, size[k], 0.0, pixels[k])
            self._next(i)
