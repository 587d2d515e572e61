"""The smallest perturbation of each image, L2 and Linf: medrobust and its peers, in turn, one process.

    python benchmarks/smallest.py MODEL DATA [--n 48] [--norms l2 linf] [--only NAME …] [--gradients 200]
        [--weights FILE] [--name NAME] [--out CSV]

MODEL is a folder saved by medrobust, or an architecture whose --weights are given; DATA a data spec; needs the extra
`peers`. Everyone gets the same network, the images that it reads correctly, and its library's own defaults (foolbox's
CW-L2: 3 x 200 steps instead of 9 x 10,000, which would take hours). Sizes are measured here, on what was returned and
fools the network; an image that was not fooled counts as infinitely far. --gradients: instead, every attack takes so
many an image, in L2, Linf, L1 and L0; needs `adv-lib` too; appended to CSV, if given.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import medrobust as mr
from blackbox import loaded
from counting import Counted
from medrobust import stats

COLUMNS = (
    "set",
    "norm",
    "n",
    "gradients an image",
    "attack",
    "fooled",
    "median size (95 %)",
    "size over the first row's, median of the images",
)
UNITS = {"l2": "L2", "linf": "Linf, /255", "l1": "L1", "l0": "L0, values"}

Find = Callable[[Counted, mr.Classifier, Tensor, Tensor, int], Tensor]


def ours(attack: mr.attacks.Attack, ball: type) -> Find:
    def find(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> Tensor:
        counted = mr.Classifier(net, clf.classes, channels=x.shape[1], batch_size=batch)
        return mr.attacks.sweep(attack, counted, x, mr.Untargeted(y), ball, [ball(0.5).eps]).images

    return find


def art(name: str, **options: object) -> Find:
    def find(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> Tensor:
        from art.attacks import evasion
        from art.estimators.classification import PyTorchClassifier

        k = len(clf.classes)
        model = PyTorchClassifier(net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), k, clip_values=(0, 1))
        attack = getattr(evasion, name)(model, batch_size=batch, verbose=False, **options)
        return torch.from_numpy(attack.generate(x.numpy(), nn.functional.one_hot(y, k).numpy()))

    return find


def foolbox(name: str, **options: object) -> Find:
    def find(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> Tensor:
        import foolbox as fb

        model = fb.PyTorchModel(net, bounds=(0, 1), device="cpu")
        attack = getattr(fb.attacks, name)(**options)
        return torch.cat(
            [attack(model, a, b, epsilons=None)[1] for a, b in zip(x.split(batch), y.split(batch), strict=True)]
        )

    return find


def adv_lib(name: str, **options: object) -> Find:
    def find(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> Tensor:
        from adv_lib import attacks

        attack = getattr(attacks, name)
        return torch.cat([attack(net, a, b, **options) for a, b in zip(x.split(batch), y.split(batch), strict=True)])

    return find


def torchattacks(name: str, **options: object) -> Find:
    def find(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> Tensor:
        import torchattacks as ta

        attack = getattr(ta, name)(net, **options)
        return torch.cat([attack(a, b) for a, b in zip(x.split(batch), y.split(batch), strict=True)])

    return find


ATTACKS: dict[str, dict[str, Find]] = {
    "l2": {
        "ART CW-L2": art("CarliniL2Method"),
        "medrobust FMN": ours(mr.attacks.FMN(steps=30), mr.L2),
        "medrobust CW-L2": ours(mr.attacks.CWL2(), mr.L2),
        "medrobust DeepFool": ours(mr.attacks.DeepFool(), mr.L2),
        "foolbox CW-L2": foolbox("L2CarliniWagnerAttack", binary_search_steps=3, steps=200),
        "foolbox FMN": foolbox("L2FMNAttack"),
        "foolbox DeepFool": foolbox("L2DeepFoolAttack"),
        "torchattacks CW": torchattacks("CW"),
        "torchattacks DeepFool": torchattacks("DeepFool"),
        "ART DeepFool": art("DeepFool"),
    },
    "linf": {
        "medrobust FMN": ours(mr.attacks.FMN(steps=30), mr.Linf),
        "medrobust DeepFool": ours(mr.attacks.DeepFool(), mr.Linf),
        "foolbox FMN": foolbox("LInfFMNAttack"),
        "foolbox DeepFool": foolbox("LinfDeepFoolAttack"),
        "ART CW-Linf": art("CarliniLInfMethod"),
    },
}


def with_gradients(n: int) -> dict[str, dict[str, Find]]:
    """Attacks that take n gradients an image; adv_lib's FAB half as many steps, for each looks twice."""
    inf, third = float("inf"), n // 3
    a = mr.attacks
    return {
        "l2": {
            "medrobust FMN": ours(a.FMN(n), mr.L2),
            "medrobust CW-L2": ours(a.CWL2(2, n // 2), mr.L2),
            "medrobust FAB": ours(a.FAB(n), mr.L2),
            "adv_lib FMN": adv_lib("fmn", norm=2, steps=n),
            "adv_lib DDN": adv_lib("ddn", steps=n),
            "adv_lib FAB": adv_lib("fab", norm=2, n_iter=n // 2),
            "foolbox CW-L2": foolbox("L2CarliniWagnerAttack", binary_search_steps=3, steps=third, abort_early=False),
            "foolbox DDN": foolbox("DDNAttack", steps=n),
        },
        "linf": {
            "medrobust FMN": ours(a.FMN(n), mr.Linf),
            "medrobust FAB": ours(a.FAB(n), mr.Linf),
            "adv_lib FMN": adv_lib("fmn", norm=inf, steps=n),
            "adv_lib FAB": adv_lib("fab", norm=inf, n_iter=n // 2),
            "foolbox FMN": foolbox("LInfFMNAttack", steps=n),
        },
        "l1": {
            "medrobust FAB": ours(a.FAB(n), mr.threat.L1),
            "medrobust EAD": ours(a.EAD(5, n // 5), mr.threat.L1),
            "adv_lib FMN": adv_lib("fmn", norm=1, steps=n),
            "adv_lib FAB": adv_lib("fab", norm=1, n_iter=n // 2),
            "adv_lib PDPGD": adv_lib("pdpgd", norm=1, num_steps=n),
            "foolbox EAD": foolbox("EADAttack", binary_search_steps=3, steps=third, abort_early=False),
        },
        "l0": {
            "medrobust sigma-zero": ours(a.SigmaZero(n), mr.threat.L0),
            "adv_lib sigma-zero": adv_lib("sigma_zero", num_steps=n),
            "adv_lib FMN": adv_lib("fmn", norm=0, steps=n),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=48)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--gradients", type=int)
    parser.add_argument("--norms", nargs="*", default=["l2", "linf", "l1", "l0"])
    parser.add_argument("--weights")
    parser.add_argument("--name", help="of the set in the table")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clf, data, x, y = loaded(options)
    batch = clf.batch_size(x.shape)
    print(f"{data}, n = {len(x)} read correctly, batch {batch}, {torch.get_num_threads()} threads")
    for norm, attacks in (with_gradients(options.gradients) if options.gradients else ATTACKS).items():
        if norm not in options.norms:
            continue
        print(
            f"\n| {norm} | seconds | gradient rows an image | fooled | median size (95 %) | first row's time over it | "
            "size over the first row's, median of the images |"
        )
        print("|---|---|---|---|---|---|---|")
        first: list[tuple[float, Tensor]] = []
        for name, find in attacks.items():
            if options.only is not None and name not in options.only:
                continue
            sizes = line(norm, name, find, clf, x, y, batch, first)
            if options.out and options.gradients and sizes:
                new = not options.out.exists()
                row = [options.name or data, UNITS[norm], len(x), options.gradients, name, *sizes]
                with options.out.open("a", newline="", encoding="utf-8") as stream:
                    csv.writer(stream, lineterminator="\n").writerows([COLUMNS, row] if new else [row])
    print("\nsizes: L2 and L1 in units of the pixel range, Linf in /255, L0 in values")


def line(
    norm: str,
    name: str,
    find: Find,
    clf: mr.Classifier,
    x: Tensor,
    y: Tensor,
    batch: int,
    first: list[tuple[float, Tensor]],
) -> list[str]:
    """A row of the table; its last three columns. first: seconds and sizes of each row so far."""
    net = Counted(clf)
    net(x[:batch])
    begin = time.perf_counter()
    try:
        found = find(net, clf, x, y, batch)
    except Exception as error:  # a peer that breaks on two classes is a result
        print(f"| {name} | – | – | {type(error).__name__}: {str(error)[:60]} | – | – | – |", flush=True)
        return []
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        fooled = (net(found).argmax(1) != y) & ((found >= 0) & (found <= 1)).flatten(1).all(1)
    size = {**mr.threat.BALLS, **mr.threat.SPARSE}[norm](0.0).size(found - x)
    size = torch.where(fooled, size, torch.inf)
    half = stats.median(size.double().numpy())
    first.append((seconds, size))
    over = float((size / first[0][1]).nanmedian())
    factor = 255 if norm == "linf" else 1
    shown = f"{half.value * factor:.4g} ({half.low * factor:.4g} to {half.high * factor:.4g})"
    print(
        f"| {name} | {seconds:.1f} | {net.count.rows / len(x):.0f} | {fooled.float().mean():.0%} | {shown} | "
        f"{first[0][0] / seconds:.1f} x | {over:.3f} |",
        flush=True,
    )
    return [f"{fooled.float().mean():.0%}", shown, f"{over:.3f}"]


if __name__ == "__main__":
    main()
