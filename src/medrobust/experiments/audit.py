"""The main job: take images and a classifier, attack, judge, check, and leave a run folder with a report.

DIR/spec.json     what was asked
DIR/model/        the classifier, where it was trained here
DIR/cells/        finished pieces of work
DIR/results.json  conditions, rows, checks, examples
DIR/figures.safetensors, report.html, results.csv, tables.tex
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import code_digest, guessing, json_files, private_names, stats
from medrobust.attacks import Attack, Composed
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import checks, robustness_cells
from medrobust.experiments.audit_detection import DetectPart
from medrobust.experiments.audit_explanation import ExplainPart
from medrobust.experiments.audit_universal import UniversalPart, sides
from medrobust.experiments.blackbox import without_gradients
from medrobust.experiments.conditions import conditions
from medrobust.experiments.config import AuditSpec, attack_named
from medrobust.experiments.gradient_check import compared, derived, gradient_check
from medrobust.experiments.headline import NAME as HEADLINE
from medrobust.experiments.headline import HeadlinePart, chosen_eps, told
from medrobust.experiments.rows import attack_rows, clean_rows, noise_rows
from medrobust.experiments.system import Subject, assemble, groups
from medrobust.naming import Naming
from medrobust.progress import NoProgress, Progress
from medrobust.results import FORMAT, Check, Kind, Rows, doubted
from medrobust.run_folder import RunFolder
from medrobust.run_info import with_run
from medrobust.store import Cell, Store
from medrobust.threat import Ball
from medrobust.versions import versions

SPEC = "spec.json"


CHECKED = 24
"""Images for the sanity checks, which attack from nothing again and again."""
SAVED = 32
"""Images for the examples at full strength that are then saved."""
PROBED = 24
"""Images that attacks without gradients are tried on."""
ON_GRADIENTS = (Kind.WORST, Kind.UNIVERSAL, Kind.DETECTOR, Kind.EVASION, Kind.EXPLANATION)
"""What rests on the gradient beside the attacks that follow it and their ensemble: the worst case, the perturbation for
every image, the attack that detectors look for, and what is read off the network's gradients."""
SAVING_EPS = (0.3 / 255, 1 / 255, 2 / 255)
"""Below half a grey level, where 8-bit saving must undo everything; one level; two."""


def audit(
    spec: AuditSpec,
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
    command: str = "",
    keep_names: bool = False,
) -> dict[str, Any]:
    """Do what ``spec`` asks in ``folder`` and return what results.json holds. Killed, the same call goes on.

    device: "cpu" or "cuda"; the GPU where there is one. command: as it was typed, for the report. keep_names: write
    names of images, patients and files as they are, instead of codes (see ``medrobust.private_names``). InputError for
    bad input and unwritable folders.
    """
    progress = progress or NoProgress()
    asked = spec.model_dump(mode="json")
    written = asked if keep_names else private_names.asked(asked)
    opening = json.dumps({"format": 1, "asked": written, "versions": versions()}, indent=1)
    with RunFolder(folder, "audit", {SPEC: opening.encode()}) as run:
        _check_same(run, asked)
        subject = assemble(spec, run, progress, device)
        run.begin()
        if keep_names and subject.trained_here:
            subject.classifier.save(run.entry("model"), keep_names=True)
        return _Audit(spec, run, Store(run.path), subject, progress, command, keep_names).run()


def _check_same(run: RunFolder, asked: dict[str, Any]) -> None:
    """One folder, one audit: asking something else of the same folder would mix two sets of numbers."""
    path = run.made(SPEC)
    if path is None:
        return
    before = json_files.read_object(path).get("asked")
    if not isinstance(before, dict):
        raise InputError(f"{path} does not say what was asked; choose another --out")
    hidden = private_names.asked(asked)
    # an option that an older version did not have is not a change; codes of a salt that is lost say nothing
    changed = [
        k
        for k in asked
        if before.get(k, asked[k]) not in (asked[k], hidden[k])
        and (private_names.lasting() or k not in private_names.PATH_FIELDS)
    ]
    if changed:
        k = changed[0]
        raise InputError(
            f"{run.path} holds another audit ({k} was {before.get(k)!r}, now {asked[k]!r}); choose another --out"
        )


class _Audit:
    def __init__(
        self,
        spec: AuditSpec,
        run: RunFolder,
        store: Store,
        subject: Subject,
        progress: Progress,
        command: str,
        keep_names: bool,
    ) -> None:
        self.command, self.keep_names = command, keep_names
        self.spec, self.run_folder, self.store, self.subject, self.progress = spec, run, store, subject, progress
        self.folder = run.path
        self.classifier, self.ball = subject.classifier, spec.ball
        self.rows = Rows("audit", subject.data.name, _model_name(spec), _norm(spec), spec.seed)
        self.checks: list[Check] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.seconds: dict[str, float] = {}
        self.attacks = {name: attack_named(name) for name in spec.attacks}
        self.main = next((n for n in self.attacks if n.startswith("pgd")), list(self.attacks)[-1])
        self.examples: list[dict[str, Any]] = []
        self.star: dict[str, np.ndarray] = {}
        self.after: dict[str, np.ndarray] = {}
        self.blind: dict[str, np.ndarray] = {}
        self.doubts: dict[str, str] = {}
        self.universal: dict[str, Any] | None = None
        self.detect: dict[str, Any] | None = None
        self.explain: dict[str, Any] | None = None
        self.headline: dict[str, Any] | None = None
        self.headline_eps: float | None = None

    def run(self) -> dict[str, Any]:
        sample = self.subject.sample
        self.labels, self.patients = sample.labels, groups(sample)
        self._clean()
        self._derivative()
        costs = {name: self._sweep(name) for name in self.attacks}
        self._noise()
        self.headline_eps = chosen_eps(self.spec.norm, self.spec.eps, np.stack(list(self.star.values())).min(0))
        self._sanity()
        for name in self.attacks:
            self._attack_rows(name)
            cost = stats.mean(costs[name])
            self.rows.add(Kind.ATTACK, "gradients_per_image", cost, attack=name, eps=max(self.spec.eps))
        if self.headline_eps is not None:
            self._without_gradients(self.headline_eps)
        if self.spec.auto and self.headline_eps is not None:
            self._headline(self.headline_eps)
        if len(self.star) > 1:
            self._worst()
        self._saving()
        if self.spec.universal:
            self._universal()
        if self.spec.detect:
            self._detect()
        if self.spec.explain:
            self._explain()
        self._settle()
        return self._write()

    # -- pieces of work ----------------------------------------------------------------------------------

    def _cell(self, part: Dataset, about: dict[str, Any], compute: Any) -> Cell:
        spec = {
            "model": self.subject.model_digest,
            "images": self.subject.images_digest(part),
            "norm": self.spec.norm,
            "seed": self.spec.seed,
            **about,
        }
        cell = self.store.once(spec, compute)
        kind = str(about["kind"])
        self.seconds[kind] = self.seconds.get(kind, 0.0) + cell.seconds
        return cell

    def _sharded(self, part: Dataset, name: str, about: dict[str, Any], compute: Any, total: int | None = None) -> Cell:
        """One cell a shard, joined: memory and the price of a kill do not grow with the number of images.

        compute(shard, advance) gives a cell's result.
        """
        self.progress.start(name, total or len(part))
        try:
            done = []
            for begin in range(0, len(part), robustness_cells.SHARD):
                shard = part.select(range(begin, min(begin + robustness_cells.SHARD, len(part))))
                told = [0]

                def advance(n: int, told: list[int] = told) -> None:
                    told[0] += n
                    self.progress.advance(n)

                done.append(self._cell(shard, about, lambda shard=shard, advance=advance: compute(shard, advance)))
                self.progress.advance(max(0, (total or len(part)) * len(shard) // len(part) - told[0]))
        finally:
            self.progress.stop()
        joined = {k: np.concatenate([c.arrays[k] for c in done]) for k in done[0].arrays}
        facts = {k: sum((c.facts[k] for c in done[1:]), done[0].facts[k]) for k in done[0].facts}
        return Cell(facts, joined, sum(c.seconds for c in done))

    def _clean(self) -> None:
        test = self.subject.test
        cell = self._sharded(
            test,
            "Clean performance",
            {"kind": "clean"},
            lambda shard, a: robustness_cells.clean(self.classifier, shard, a),
        )
        probability, decision = cell.arrays["probability"], cell.arrays["decision"]
        clean_rows(self.rows, probability, test.labels, decision, self.classifier.classes, groups(test))
        self.checks.append(self.subject.admitted.order)
        self.guessing = guessing.of(decision == test.labels, test.labels, groups(test))
        saved = stats.proportion(cell.arrays["saved"] == test.labels, groups(test))
        self.rows.add(Kind.CLEAN, "accuracy_saved", saved, bits=8)
        self.arrays |= {"test_probability": probability.astype(np.float32), "test_labels": test.labels}
        self.arrays["test_prediction"] = decision

    def _derivative(self) -> None:
        """Is the gradient that attacks follow that of the network?"""
        few = self.subject.sample.sample(compared(self.subject.sample), self.spec.seed)
        cell = self._cell(few, {"kind": "derivative"}, lambda: derived(self.classifier, few, self.spec.seed))
        self.checks.append(gradient_check(cell))

    def _sweep(self, name: str) -> np.ndarray:
        attack, spec, sample = self.attacks[name], self.spec, self.subject.sample
        # a random start begins where many-step attacks before have broken an image: it saves most of the search
        before = [b for b in self.star if self.attacks[b].steps > 1] if attack.random_start else []
        near = np.stack([self.star[b] for b in before]).min(0) if before else None
        place = {image_id: i for i, image_id in enumerate(sample.ids)}

        def compute(shard: Dataset, advance: robustness_cells.Advance) -> robustness_cells.Result:
            mine = None if near is None else near[[place[i] for i in shard.ids]]
            return robustness_cells.swept(attack, self.classifier, shard, self.ball, spec.eps, mine, spec.seed, advance)

        about = {
            "kind": "sweep",
            "attack": code_digest.described(attack),
            "eps": spec.eps,
            "after": [code_digest.described(self.attacks[b]) for b in before],
            "search": "line" if attack.steps == 1 else "follow, again below",
        }
        cell = self._sharded(sample, f"{attack.title} over {len(spec.eps)} epsilons", about, compute)
        self.star[name], self.after[name] = cell.arrays["eps_star"], cell.arrays["after"]
        self.blind[name] = cell.arrays["blind"]
        self.arrays |= {"labels": self.labels, "clean_prediction": cell.arrays["before"]}
        if name == self.main:
            self.examples = [{**e, "attack": name} for e in cell.facts["shown"][: robustness_cells.EXAMPLES]]
            for side in ("clean", "attacked"):
                self.arrays[f"examples.{side}"] = cell.arrays[f"shown.{side}"][: robustness_cells.EXAMPLES]
        self.arrays[f"eps_star.{name}"] = cell.arrays["eps_star"].astype(np.float32)
        if attack.uses_gradient:
            self.checks.append(checks.usable_gradients(name, self.blind[name]))
            if self.blind[name].mean() > 0.5:
                self.doubts[name] = "most images gave no usable gradient"
        unconfirmed, fallen = cell.facts["unconfirmed"], np.isfinite(self.star[name]) & (self.star[name] > 0)
        self.checks.append(checks.confirmed(name, unconfirmed, int(fallen.sum()) + unconfirmed))
        return cell.arrays["gradients"]

    def _noise(self) -> None:
        spec, eps = self.spec, self.spec.eps
        cell = self._sharded(
            self.subject.sample,
            "Random noise of the same size",
            {"kind": "noise", "eps": eps},
            lambda shard, a: robustness_cells.noise(self.classifier, shard, self.ball, eps, spec.seed, a),
            total=len(self.subject.sample) * len(eps),
        )
        wrong = cell.arrays["decision"] != self.labels[:, None]
        right = self.arrays["clean_prediction"] == self.labels
        noise_rows(self.rows, eps, cell.arrays["decision"], self.labels, right, self.classifier.classes, self.patients)
        for name, star in self.star.items():
            self.checks.append(checks.noise_is_weaker(name, eps, star, wrong))

    def _fixed(self, name: str, attack: Attack, part: Dataset, ball: Ball) -> np.ndarray:
        cell = self._sharded(
            part,
            f"Sanity of {attack.title}: {name}",
            {"kind": "fixed", "attack": code_digest.described(attack), "eps": float(ball.eps)},
            lambda shard, a: robustness_cells.fixed(attack, self.classifier, shard, ball, self.spec.seed, a),
        )
        self._before = cell.arrays["before"]
        return cell.arrays["reached"]

    def _sanity(self) -> None:
        """Attack a few images again from nothing, in ways whose outcome is known beforehand."""
        name, attack = self.main, self.attacks[self.main]
        few = self.subject.sample.sample(CHECKED, self.spec.seed)
        middle = self._typical_eps()
        reached = self._fixed("eps 0", attack, few, self.ball(0.0))
        self.checks.append(checks.zero_eps(name, reached, self._before))
        right = ~self._before  # an image that was wrong before is no success
        levels = [middle / 2, middle, middle * 2]
        found = [right & self._fixed("growth with eps", attack, few, self.ball(e)) for e in levels]
        self.checks.append(checks.grows_with_eps(name, levels, found))
        huge = 0.5 if self.spec.norm == "linf" else 0.25 * float(few.channels * few.size**2) ** 0.5
        # one step, or a search for the smallest change, may miss at a huge eps by its own fault
        shared = attack.title if attack.uses_gradient and attack.steps > 1 and not attack.minimal else ""
        broken = checks.huge_eps(name, huge, self._fixed("a huge eps", attack, few, self.ball(huge)), shared=shared)
        self.checks.append(broken)
        if broken.passed is False:
            self.doubts[name] = "a huge eps does not reach 100 %"
        whole = isinstance(attack, Composed) or type(attack).__name__ == "APGD"  # their steps are no free choice
        if not attack.minimal and attack.steps > 1 and not whole:
            counts = [max(1, attack.steps // 4), attack.steps, attack.steps * 4]
            found = [right & self._fixed(f"{k} steps", _with_steps(attack, k), few, self.ball(middle)) for k in counts]
            self.checks.append(checks.grows_with_steps(name, counts, found))
        if "fgsm" in self.star:
            for many in self.attacks:
                if many != "fgsm" and self.attacks[many].steps > 1:
                    self.checks.append(
                        checks.single_step_is_weaker(many, self.spec.eps, self.star["fgsm"], self.star[many])
                    )

    def _typical_eps(self) -> float:
        """The eps of the grid at which about half of the images fall: where a comparison shows most."""
        star = self.star[self.main]
        typical = float(np.median(star[star > 0])) if (star > 0).any() else np.inf
        grid = [e for e in self.spec.eps if e > 0]
        if not grid:
            return 1 / 255
        return next((e for e in grid if e >= typical * (1 - 1e-5)), grid[-1])

    def _without_gradients(self, eps: float) -> None:
        few, name = self.subject.sample.sample(PROBED, self.spec.seed), self.main
        white = self._fixed("beside attacks without gradients", self.attacks[name], few, self.ball(eps))
        self.checks += without_gradients(
            few, self.classifier, self.ball(eps), self.spec.seed, self._sharded, self.rows, name, white
        )

    def _headline(self, eps: float) -> None:
        """The ensemble at one size; what it breaks counts for the worst case too."""
        swept = next((n for n in self.attacks if n.split(":")[0] == HEADLINE), None)
        if swept is not None:  # it was asked for, and tried at every eps
            self.headline = told(swept, self.attacks[swept], eps)
            return
        part = HeadlinePart(
            attack_named(self.spec.auto),
            eps,
            self.ball,
            self.classifier,
            self.subject.sample,
            self.spec.seed,
            self._sharded,
            self.rows,
        )
        self.checks += part.write(self.patients, np.stack(list(self.star.values())).min(0))
        self.star[HEADLINE], self.after[HEADLINE], self.blind[HEADLINE] = part.star, part.after, part.blind
        if part.blind.mean() > 0.5:
            self.doubts[HEADLINE] = "most images gave no usable gradient"
        self.headline = told(HEADLINE, part.attack, eps)

    # -- what it means -----------------------------------------------------------------------------------

    def _attack_rows(self, name: str) -> None:
        attack_rows(
            self.rows,
            name,
            self.spec.eps,
            self.star[name],
            self.labels,
            self.after[name],
            self.blind[name],
            self.classifier.classes,
            self.patients,
            self.doubts.get(name, ""),
            Kind.WORST if name == "worst" else Kind.ATTACK,
        )

    def _worst(self) -> None:
        """For each image the attack that needed least: the number to go by."""
        stack = np.stack(list(self.star.values()))
        best = stack.argmin(0)
        self.star["worst"] = stack.min(0)
        self.after["worst"] = np.stack(list(self.after.values()))[best, np.arange(best.size)]
        # an image proves something if any attack had a gradient to follow and failed
        self.blind["worst"] = np.logical_and.reduce(list(self.blind.values()))
        if len(self.doubts) == len(self.star) - 1:  # the worst case is one of them now
            self.doubts["worst"] = next(iter(self.doubts.values()))
        self.arrays["eps_star.worst"] = self.star["worst"].astype(np.float32)
        self._attack_rows("worst")

    def _saving(self) -> None:
        """What is left of full-strength examples once they are stored as image files are."""
        if self.spec.norm != "linf":
            return
        attack, name = self.attacks[self.main], self.main
        few = self.subject.sample.sample(SAVED, self.spec.seed)
        for e in SAVING_EPS:
            cell = self._sharded(
                few,
                f"Saving attacked images ({e * 255:.3g}/255)",
                {"kind": "saving", "attack": code_digest.described(attack), "eps": e},
                lambda shard, a, e=e: robustness_cells.saving(
                    attack, self.classifier, shard, self.ball(e), self.spec.seed, a
                ),
            )
            held = stats.proportion(~cell.arrays["reached"], groups(few))
            self.rows.add(Kind.ATTACK, "accuracy_full", held, attack=name, eps=e)
            for bits in robustness_cells.BIT_DEPTHS:
                held = stats.proportion(~cell.arrays[f"saved{bits}"], groups(few))
                self.rows.add(Kind.ATTACK, "accuracy_saved", held, attack=name, eps=e, bits=bits)

    def _universal(self) -> None:
        """One change for every image, made from images that it is not judged on."""
        apart = sides(self.subject, self.spec.seed)
        if apart is None:
            return
        part = UniversalPart(
            self.subject,
            apart,
            self.ball,
            self.spec.seed,
            self._cell,
            self.store.unfinished,
            self.progress,
            self.rows,
            self.arrays["test_prediction"],
        )
        self.universal, figures = part.run()
        self.arrays |= figures

    def _detect(self) -> None:
        """Can the attack be seen, and evaded?"""
        name, attack, ball = self._shown_attack()
        part = DetectPart(
            self.subject, name, attack, ball, self.spec.seed, self.folder, self._cell, self.progress, self.rows
        )
        self.detect = part.run()
        self.seconds["detect twins"] = part.seconds

    def _explain(self) -> None:
        """Why does it break?"""
        name, attack, ball = self._shown_attack()
        worst = self.star.get("worst", self.star[self.main])
        star = dict(zip(self.subject.sample.ids, worst.tolist(), strict=True))
        part = ExplainPart(
            self.subject, name, attack, ball, self.spec.seed, self.folder, self._cell, self.progress, self.rows, star
        )
        self.explain, figures = part.run()
        self.arrays |= figures

    def _shown_attack(self) -> tuple[str, Attack, Ball]:
        """What detectors look for and explanations show: PGD at one grey level, or where about half of the images
        fall."""
        name = self.main if self.main.startswith("pgd") else "pgd"
        eps = self._typical_eps()
        if self.spec.norm == "linf":
            eps = max(eps, next((e for e in self.spec.eps if abs(e * 255 - 1) < 1e-6), eps))
        return name, self.attacks.get(name) or attack_named(name), self.ball(eps)

    def _settle(self) -> None:
        """Numbers that rest on a gradient that fails its check, and all of a classifier that guesses, are in doubt."""
        if why := checks.doubt(self.checks):
            follow = {name for name, attack in self.attacks.items() if attack.uses_gradient}
            self.rows.rows = doubted(self.rows.rows, why, ON_GRADIENTS, {*follow, HEADLINE})
        if why := self.guessing.text:
            self.rows.rows = doubted(self.rows.rows, why, set(Kind) - {Kind.CLEAN})

    def _write(self) -> dict[str, Any]:
        from safetensors.numpy import save

        results = {
            "format": FORMAT,
            "conditions": conditions(self.spec, self.subject, self.attacks, "worst" in self.star)
            | {"headline": self.headline, "universal": self.universal}
            | {"detect": self.detect, "explain": self.explain},
            "rows": self.rows.plain(),
            "checks": [c.plain() for c in self.checks],
            "examples": self.examples,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()},
        }
        results = Naming(self.subject.data, self.keep_names).results(results)
        arrays = {k: np.ascontiguousarray(v) for k, v in self.arrays.items()}
        self.run_folder.write_bytes("figures.safetensors", save(arrays))
        results = with_run(self.folder, "results.json", results, self.command, str(self.classifier.device))
        # last: whoever sees results.json may rely on everything else being there
        self.run_folder.write_text("results.json", json.dumps(results, indent=1, allow_nan=False))
        self.store.sweep_leftovers()
        return results


def _with_steps(attack: Attack, steps: int) -> Attack:
    other = copy.copy(attack)
    other.steps = steps
    return other


def _model_name(spec: AuditSpec) -> str:
    return spec.model


def _norm(spec: AuditSpec) -> str:
    return {"linf": "Linf", "l2": "L2"}[spec.norm]
