"""Made-up run folders for the report's tests: every number follows from one eps* an image, as in a real audit."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from medrobust import report, stats
from medrobust.results import FORMAT, Kind, Rows
from medrobust.run_folder import RunFolder

GRID = [e / 255 for e in (0.1, 0.3, 0.5, 1, 2, 4, 8)]
TITLES = {"fgsm": "FGSM", "bim": "BIM", "pgd": "PGD", "cw": "CW", "square": "Square", "worst": "Worst case"}
MANY = 20
"""With more classes an audit writes no rows by class."""
STRENGTH = {"fgsm": 2.2, "bim": 1.1, "pgd": 1.0, "cw": 1.05, "square": 4.0}
SOURCES = {"fgsm": "Goodfellow et al. 2015, arXiv:1412.6572", "pgd": "Madry et al. 2018, arXiv:1706.06083"}
CHECKS = {
    "eps 0 equals clean": "if this fails, attacked and clean images are not treated alike",
    "success grows with eps": "if this fails, the attack does not search well and the accuracy is too high",
    "a huge eps reaches 100 %": "if this fails, the attack cannot reach what is certainly reachable",
    "gradients are not zero": "if this fails, the attack was blind",
}


class Maker:
    """Collects the rows of one run; median is the median eps* in grey levels."""

    def __init__(self, name: str, classes: list[str], *, n: int, median: float, clean: float, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.name, self.classes, self.n, self.median = name, classes, n, median
        self.labels = np.arange(n) % len(classes)
        self.predicted = self.labels.copy()
        wrong = self.rng.permutation(n)[: round((1 - clean) * n)]
        self.predicted[wrong] = (self.labels[wrong] + 1) % len(classes)
        self.rows = Rows("audit", name, "resnet18", "Linf", 0)
        self.arrays: dict[str, np.ndarray] = {
            "labels": self.labels.astype(np.int64),
            "clean_prediction": self.predicted.astype(np.int64),
        }
        self.star0 = np.exp(self.rng.normal(np.log(median), 0.6, n)) / 255

    def row(self, kind: Kind, attack: str, eps: float, metric: str, estimate: stats.Estimate, **more: Any) -> None:
        self.rows.add(kind, metric, estimate, attack=attack, eps=eps, **more)

    def clean_rows(self) -> None:
        right = self.labels == self.predicted
        self.row(Kind.CLEAN, "none", 0.0, "accuracy", stats.proportion(right))
        per_class = [stats.proportion(right[self.labels == i]) for i in range(len(self.classes))]
        mean = float(np.mean([e.value for e in per_class]))
        whole = stats.proportion(right)
        if np.isfinite(mean):
            self.row(Kind.CLEAN, "none", 0.0, "balanced_accuracy", stats.Estimate(mean, whole.low, whole.high, self.n))
        top = np.where(right, self.rng.beta(12, 1.2, self.n), self.rng.beta(4, 3, self.n)) * 0.48 + 0.519
        probability = np.repeat((1 - top[:, None]) / (len(self.classes) - 1), len(self.classes), axis=1)
        probability[np.arange(self.n), self.predicted] = top
        self.arrays |= {"test_probability": probability.astype(np.float32), "test_labels": self.labels.astype(np.int64)}
        for i, name in enumerate(self.classes if len(self.classes) <= MANY else []):
            others = stats.proportion(self.predicted[self.labels != i] != i)
            self.row(Kind.CLEAN, "none", 0.0, "sensitivity", per_class[i], class_name=name)
            self.row(Kind.CLEAN, "none", 0.0, "specificity", others, class_name=name)
            area = stats.auroc(probability[:, i], self.labels == i)
            self.row(Kind.CLEAN, "none", 0.0, "auroc", area, class_name=name)
        if len(self.classes) == 2:
            self.row(Kind.CLEAN, "none", 0.0, "auroc", stats.auroc(probability[:, 1], self.labels == 1))
        confidence = probability.max(1)
        ece = stats.calibration_error(confidence, right)
        self.row(Kind.CLEAN, "none", 0.0, "ece", stats.Estimate(ece, np.nan, np.nan, self.n))
        self.row(Kind.CLEAN, "none", 0.0, "brier", stats.mean((confidence - right) ** 2))
        self.row(Kind.CLEAN, "none", 0.0, "accuracy_saved", stats.proportion(right), bits=8)

    def attack_rows(self, attack: str, *, zero_gradient: bool = False, saved: bool = True) -> None:
        """saved: also full-strength examples at every eps, as computed and saved."""
        doubt = {"status": "inconclusive", "note": "zero gradients"} if zero_gradient else {}
        kind = Kind.WORST if attack == "worst" else Kind.ATTACK
        right = self.labels == self.predicted
        if attack == "worst":
            min_eps = [v / (1 + 1e-6) for k, v in self.arrays.items() if k.startswith("min_eps.")]
            smallest = np.min(min_eps, axis=0)
        else:
            smallest = self.star0 * STRENGTH[attack] * self.rng.uniform(0.9, 1.1, self.n)
        grid = np.array([*GRID, np.inf])
        smallest = (
            np.full(self.n, np.inf) if zero_gradient else grid[np.minimum(np.searchsorted(GRID, smallest), len(GRID))]
        )
        smallest = np.where(right, smallest, 0.0)
        self.arrays[f"min_eps.{attack}"] = smallest.astype(np.float32)
        for eps in GRID:
            held = smallest > eps * (1 + 1e-9)
            self.row(kind, attack, eps, "accuracy", stats.proportion(held), **doubt)
            self.row(kind, attack, eps, "success", stats.proportion(~held[right]), **doubt)
            for i, a in enumerate(self.classes if len(self.classes) <= MANY else []):
                others = [j for j in range(len(self.classes)) if j != i]
                inside = right & (self.labels == i)
                for place, j in enumerate(others):
                    turned = ~held[inside] & (np.arange(inside.sum()) % len(others) == place)
                    flip = {"class_name": a, "target": self.classes[j]}
                    self.row(kind, attack, eps, "flip", stats.proportion(turned), **flip, **doubt)
            if saved and attack not in ("square", "worst"):
                self.saving_rows(attack, eps, held, right if eps * 255 < 0.5 else held, **doubt)
        middle = stats.median(smallest[right])
        above = {} if np.isfinite(middle.value) else {"note": "above the grid"}
        self.row(kind, attack, 0.0, "min_eps_median", middle, **doubt | above)
        self.row(kind, attack, 0.0, "gradients_per_image", stats.Estimate(20.0, np.nan, np.nan, self.n))
        self.row(kind, attack, 0.0, "inconclusive", stats.proportion(np.full(self.n, zero_gradient)))

    def saving_rows(self, attack: str, eps: float, held: np.ndarray, held8: np.ndarray, **doubt: str) -> None:
        """held, held8: still right as computed, and after saving at 8 bits."""
        self.row(Kind.ATTACK, attack, eps, "accuracy_full", stats.proportion(held), **doubt)
        for bits in (8, 12, 16):
            kept = held8 if bits == 8 else held
            self.row(Kind.ATTACK, attack, eps, "accuracy_saved", stats.proportion(kept), bits=bits, **doubt)

    def noise_rows(self, tolerance: float = 60.0, names: tuple[str, ...] = ("noise", "noise-uniform")) -> None:
        for name in names:
            for eps in GRID:
                held = (self.labels == self.predicted) & (self.star0 * tolerance > eps)
                self.row(Kind.CONTROL, name, eps, "accuracy", stats.proportion(held))

    def corruption_rows(self) -> dict[str, Any]:
        """Six corruptions, the first of which costs most; what they add to the conditions."""
        titles = {f"kind{i}": f"corruption {i}" for i in range(6)}
        right = self.labels == self.predicted
        untouched = {"corruption": "none", "severity": 0}
        self.row(Kind.CORRUPTION, "none", 0.0, "accuracy", stats.proportion(right), **untouched)
        for i, name in enumerate(titles):
            for severity in range(1, 6):
                held = right & (np.arange(self.n) % 10 >= max(0, severity - i))
                at = {"corruption": name, "severity": severity}
                self.row(Kind.CORRUPTION, "none", 0.0, "accuracy", stats.proportion(held), **at)
                lost = stats.mean(right.astype(float) - held)
                self.row(Kind.CORRUPTION, "none", 0.0, "accuracy_lost", lost, **at)
                for k, class_name in enumerate(self.classes[:MANY]):
                    share = stats.proportion(held[self.labels == k])
                    self.row(Kind.CORRUPTION, "none", 0.0, "sensitivity", share, class_name=class_name, **at)
        return {"chosen": "any", "titles": titles, "n": self.n}

    def change_rows(self) -> dict[str, Any]:
        """Two larger changes, the first with an example; what they add to the conditions."""
        right = self.labels == self.predicted
        stated = {}
        for name, title, share in (("patch", "Patch at a fixed place", 0.6), ("spatial", "Rotation and shift", 0.05)):
            for made, part in (("optimised", share), ("random", 0.05)):
                turned = np.arange(right.sum()) < part * right.sum()
                attack = name if made == "optimised" else "random"
                self.row(Kind.CHANGE, attack, 0.0, "success", stats.proportion(turned), change=name, made=made)
            stated[name] = {"title": title, "range": f"allowed as {title.lower()}", "examples": []}
        stated["patch"]["examples"] = [{"words": "patch of 3 x 3 pixels", "before": 1, "after": 0}]
        image = self.rng.random((1, 1, 16, 16)).astype(np.float32)
        self.arrays |= {"changes.patch.clean": image, "changes.patch.changed": 1 - image}
        return stated

    def examples(self, size: int) -> list[dict[str, Any]]:
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        lungs = np.exp(-((abs(x) - 0.42) ** 2 / 0.05 + y**2 / 0.35))
        chosen = np.flatnonzero(self.labels == self.predicted)[:4][::-1]
        clean = np.stack([0.75 - 0.5 * lungs + 0.05 * self.rng.normal(size=lungs.shape) for _ in chosen])[:, None]
        clean = np.rint(clean.clip(0, 1) * 255) / 255
        change = self.rng.choice([-1.0, 1.0], clean.shape) * self.median / 255
        self.arrays |= {
            "examples.clean": clean.astype(np.float32),
            "examples.attacked": (clean + change).clip(0, 1).astype(np.float32),
        }
        return [
            {
                "id": f"image-{i:05d}.png",
                "label": int(self.labels[i]),
                "before": int(self.labels[i]),
                "after": int((self.labels[i] + 1) % len(self.classes)),
                "confidence_before": 0.97,
                "confidence_after": 0.91,
                "eps": self.median / 255,
                "size": self.median / 255,
                "attack": "pgd",
                "patient": None,
            }
            for i in chosen
        ]

    def write(self, folder: Path, *, checks: list[dict[str, Any]], attacks: list[str], **conditions: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        size = conditions.get("size", 64)
        results = {
            "format": FORMAT,
            "conditions": {
                "study": "audit",
                "data": self.name,
                "synthetic": self.name.startswith("phantom:"),
                "data_digest": "9f2c" * 16,
                "data_notes": [],
                "left_out": [],
                "n_train": 1200,
                "n_val": 200,
                "n_test": self.n,
                "n_attacked": self.n,
                "classes": self.classes,
                "disease_classes": [1],
                "threshold": 0.5,
                "size": size,
                "channels": 1,
                "bits": 8,
                "model": "resnet18",
                "model_digest": "51ab" * 16,
                "trained_here": True,
                "provenance": {"epochs": 12, "optimiser": "adam"},
                "parameters": 11170242,
                "head": "softmax",
                "seed": 0,
                "norm": "Linf",
                "eps": GRID,
                "attacks": {
                    a: {"title": TITLES[a], "settings": "20 steps of eps/10", "source": SOURCES.get(a, "")}
                    for a in attacks
                },
                "versions": {"medrobust": "0.1.0", "torch": "2.6.0", "python": "3.11.9"},
                "hardware": "2 CPU cores",
                **conditions,
            },
            "rows": self.rows.plain(),
            "checks": checks,
            "headline": {},
            "examples": self.examples(size) if attacks else [],
            "seconds": {"total": 183.2, "training": 92.0, "attacks": 71.5},
        }
        with RunFolder(folder, "audit") as run:
            run.write_text("results.json", json.dumps(results))
            run.write_text("spec.json", json.dumps({"data": self.name, "seed": 0}))
            run.write_bytes("figures.safetensors", save({k: np.ascontiguousarray(v) for k, v in self.arrays.items()}))
        return folder


def checks(attacks: list[str], failed: tuple[tuple[str, str], ...] = ()) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "attack": attack,
            "passed": (name, attack) not in failed,
            "detail": "0.31 → 0.02" if "grows" in name else "as expected",
            "consequence": consequence,
        }
        for name, consequence in CHECKS.items()
        for attack in attacks
        if attack not in ("square",)
    ]


def make(folder: Path, scenario: str) -> Path:
    """One of SCENARIOS as a run folder."""
    return SCENARIOS[scenario](folder)


def fragile(folder: Path) -> Path:
    attacks = ["fgsm", "bim", "pgd", "cw", "square"]
    m = Maker("phantom:chest@64", ["normal", "pneumonia"], n=200, median=0.4, clean=0.93)
    m.clean_rows()
    for a in attacks:
        m.attack_rows(a)
    m.noise_rows()
    return m.write(folder, checks=checks(attacks), attacks=attacks)


def audit(folder: Path) -> Path:
    """As `medrobust audit` writes it: a worst case, a probe at one eps, only a few examples of PGD saved."""
    m = Maker("chest_xray/labels.csv", ["normal", "pneumonia"], n=150, median=0.2, clean=0.9)
    return _audited(m, folder)


def ten(folder: Path) -> Path:
    """Natural images with numbers for names: no class is a disease."""
    m = Maker("folder:digits", [str(i) for i in range(10)], n=300, median=0.7, clean=0.9)
    return _audited(m, folder, disease_classes=[], channels=3)


def thousand(folder: Path) -> Path:
    """So many classes that most have no image in the test."""
    m = Maker("folder:natural", [f"n{i:04d} thing" for i in range(1000)], n=200, median=0.7, clean=0.75)
    return _audited(m, folder, disease_classes=[], channels=3, trained_here=False, provenance=PROVENANCE)


PROVENANCE: dict[str, Any] = {
    "architecture": "mobilenetv2_100",
    "pretrained": {"file": "weights.safetensors", "sha256": "77aa" * 16},
    "data": {"name": "folder:natural", "train": 1200, "validation": 200},
    "training": {"lr": 0.001, "flip": True},
    "history": [{"epoch": i, "train_loss": 0.123456789} for i in range(30)],
    "versions": {"torch": "2.6.0"},
}


def _audited(m: Maker, folder: Path, **conditions: Any) -> Path:
    attacks = ["fgsm", "bim", "pgd", "cw"]
    m.clean_rows()
    for a in attacks:
        m.attack_rows(a, saved=False)
    m.attack_rows("worst")
    few = np.arange(32)
    right = (m.labels == m.predicted)[few]
    for eps in (0.5 / 255, 1 / 255, 2 / 255):
        held = m.arrays["min_eps.pgd"][few] > np.float32(eps)
        m.saving_rows("pgd", eps, held, right if eps * 255 < 0.9 else held)
    m.row(Kind.BLACK_BOX, "square", 0.3 / 255, "accuracy", stats.proportion(right), note="150 queries")
    m.noise_rows(names=("noise",))
    conditions = {"corruptions": m.corruption_rows(), "changes": m.change_rows()} | conditions
    return m.write(folder, checks=checks(attacks), attacks=[*attacks, "worst"], **conditions)


def robust(folder: Path) -> Path:
    attacks = ["fgsm", "pgd", "cw"]
    m = Maker("chest_xray/labels.csv", ["normal", "pneumonia"], n=300, median=400.0, clean=0.95)
    m.clean_rows()
    for a in attacks:
        m.attack_rows(a)
    m.noise_rows()
    return m.write(folder, checks=checks(attacks), attacks=attacks, trained_here=False, model="vendor.py:net", size=224)


def weakened(folder: Path) -> Path:
    m = Maker("chest_xray/labels.csv", ["normal", "pneumonia"], n=300, median=12.0, clean=0.95)
    m.clean_rows()
    for a in ("fgsm", "pgd"):
        m.attack_rows(a)
    m.noise_rows()
    return m.write(folder, checks=checks(["fgsm", "pgd"]), attacks=["fgsm", "pgd"])


def inconclusive(folder: Path) -> Path:
    attacks = ["fgsm", "pgd"]
    m = Maker("fundus/labels.csv", ["normal", "retinopathy"], n=150, median=0.5, clean=0.92)
    m.clean_rows()
    for a in attacks:
        m.attack_rows(a, zero_gradient=True)
    m.noise_rows()
    failed = (("gradients are not zero", "fgsm"), ("gradients are not zero", "pgd"))
    return m.write(folder, checks=checks(attacks, failed), attacks=attacks, trained_here=False)


def one_in_doubt(folder: Path) -> Path:
    """Fooled by one attack, while another could not work."""
    attacks = ["fgsm", "pgd"]
    m = Maker("skin/labels.csv", ["benign", "malignant"], n=150, median=0.5, clean=0.92)
    m.clean_rows()
    m.attack_rows("fgsm", zero_gradient=True)
    m.attack_rows("pgd")
    m.noise_rows()
    failed = (("gradients are not zero", "fgsm"),)
    return m.write(folder, checks=checks(attacks, failed), attacks=attacks)


def multiclass(folder: Path) -> Path:
    attacks = ["fgsm", "pgd"]
    m = Maker(
        "fundus/labels.csv", ["normal", "diabetic_retinopathy", "cataract", "glaucoma"], n=240, median=0.7, clean=0.85
    )
    m.clean_rows()
    for a in attacks:
        m.attack_rows(a)
    m.noise_rows(tolerance=2.0)
    return m.write(folder, checks=checks(attacks), attacks=attacks, disease_classes=[1, 2, 3], channels=3)


def unknown_disease(folder: Path) -> Path:
    m = Maker("folder:lesions", ["akiec", "bcc", "mel"], n=90, median=0.7, clean=0.85)
    m.clean_rows()
    m.attack_rows("pgd")
    m.noise_rows()
    return m.write(folder, checks=checks(["pgd"]), attacks=["pgd"], disease_classes=[])


def chance(folder: Path) -> Path:
    m = Maker("folder:scans", ["normal", "disease"], n=120, median=0.3, clean=0.5)
    m.clean_rows()
    m.attack_rows("pgd")
    m.noise_rows()
    return m.write(folder, checks=checks(["pgd"]), attacks=["pgd"])


def few(folder: Path) -> Path:
    m = Maker("folder:scans", ["normal", "disease"], n=8, median=0.4, clean=0.9)
    m.clean_rows()
    m.attack_rows("pgd")
    m.noise_rows()
    return m.write(folder, checks=checks(["pgd"]), attacks=["pgd"])


def minimal(folder: Path) -> Path:
    """Only a clean accuracy; no figures, no spec, no attack, no check."""
    m = Maker("folder:scans", ["normal", "disease"], n=100, median=0.4, clean=0.9)
    m.row(Kind.CLEAN, "none", 0.0, "accuracy", stats.proportion(m.labels == m.predicted))
    m.write(folder, checks=[], attacks=[])
    (folder / "figures.safetensors").unlink()
    (folder / "spec.json").unlink()
    return folder


def hostile(folder: Path) -> Path:
    """Names that hold HTML and LaTeX."""
    m = Maker("folder:<script>alert(1)</script>", ["<b>normal</b>", 'a->b & "50%"_$\\x'], n=100, median=0.4, clean=0.9)
    m.clean_rows()
    m.attack_rows("pgd")
    m.noise_rows()
    left_out = [{"file": "<img src=http://evil.example/x.png>.jpg", "reason": "truncated & <i>broken</i>"}]
    return m.write(folder, checks=checks(["pgd"]), attacks=["pgd"], left_out=left_out, model="<u>net</u>")


SCENARIOS = {
    "fragile": fragile,
    "robust": robust,
    "weakened": weakened,
    "inconclusive": inconclusive,
    "one-in-doubt": one_in_doubt,
    "audit": audit,
    "ten": ten,
    "thousand": thousand,
    "multi-class": multiclass,
    "unknown-disease": unknown_disease,
    "chance": chance,
    "few": few,
    "minimal": minimal,
    "hostile": hostile,
}


def section(folder: Path, anchor: str) -> str:
    """The words of one section of the folder's report, which its contents name."""
    page = report.write(folder).read_text("utf-8")
    assert f'<a href="#{anchor}">' in page
    part = page[page.index(f'<section id="{anchor}"') :]
    part = re.sub(r"<[^>]+>", " ", part[: part.index("</section>")])
    return " ".join(html.unescape(part).replace("\xa0", " ").split())
