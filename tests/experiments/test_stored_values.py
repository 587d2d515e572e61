"""What is attacked of DICOM files: stored values, on their grid, in stored levels, and what is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medrobust import data
from medrobust.attacks import PGD, sweep
from medrobust.errors import InputError
from medrobust.experiments import ask, eps_fields
from medrobust.experiments.perturbation import PerturbationConfig
from medrobust.experiments.system import System, assemble
from medrobust.progress import NoProgress
from medrobust.threat import Linf, Untargeted
from tests.dicom_files import elements, folders, save

NET = "tests.door_nets:swapped"


def system(root: Path, **more: object) -> System:
    spec = ask(data=f"dicom:{root}", model=NET, train=False, outputs="logits", **more)
    return assemble(spec, None, NoProgress(), "cpu", stored=True)


def fallen(min_eps: torch.Tensor) -> bool:
    """Whether an image that was read correctly was fooled."""
    return bool(((min_eps > 0) & torch.isfinite(min_eps)).any())


def test_attacks_stay_on_the_stored_grid_and_sizes_are_whole_levels(tmp_path: Path) -> None:
    made = system(folders(tmp_path, n=6))
    spec = made.with_sizes(ask(**eps_fields("1lv,16lv,1600lv")))
    assert [e * 4095 for e in spec.eps] == pytest.approx([1, 16, 1600])
    assert made.with_sizes(spec) is spec
    images, labels = made.sample.tensors()
    curve = sweep(PGD(steps=4), made.classifier, images, Untargeted(labels), Linf, spec.eps)
    steps = curve.images.double() * 4095
    assert (steps - steps.round()).abs().max() < 1e-3
    assert fallen(curve.min_eps)
    whole = curve.min_eps[torch.isfinite(curve.min_eps)].double() * 4095
    assert (whole - whole.round()).abs().max() < 1e-3


def test_a_fraction_of_what_is_shown_is_the_same_in_every_window(tmp_path: Path) -> None:
    plain = system(folders(tmp_path / "plain", n=6))
    windowed = system(folders(tmp_path / "windowed", n=6, window=(2048, 1024)))
    for made, levels in ((plain, 4095), (windowed, 1023)):
        (eps,) = made.with_sizes(ask(eps=(8 / 255,))).eps
        assert eps * made.sample.span == pytest.approx(round(8 / 255 * levels) / levels)
    universal = PerturbationConfig(norm="linf", eps=4, unit="lv")
    assert float(universal.ball(windowed.data).eps) == pytest.approx(4 / 3069)


def test_hounsfield_units_need_one_rescale_slope(tmp_path: Path) -> None:
    root = folders(tmp_path, n=6, rescale=(0.5, -1024.0), Modality="CT")
    found = data.load(f"dicom:{root}")
    assert found.pixel_size(5, "hu") == pytest.approx(10 / 4095)
    save(elements(np.full((16, 16), 9, np.uint16), rescale=(1.0, -1024.0), Modality="CT"), root / "ill" / "other")
    with pytest.raises(InputError, match="several slopes"):
        data.load(f"dicom:{root}").pixel_size(5, "hu")
    with pytest.raises(InputError, match="all be in one unit"):
        eps_fields("1lv,2hu")


def test_images_of_several_depths_have_no_common_level(tmp_path: Path) -> None:
    root = folders(tmp_path, n=6)
    save(elements(np.full((16, 16), 9, np.uint16), 10), root / "ill" / "other")
    found = data.load(f"dicom:{root}")
    assert found.attacked_levels is None
    with pytest.raises(InputError, match="1023 to 4095"):
        found.pixel_size(1, "lv")


def test_a_picture_stored_the_other_way_round_falls_at_the_same_size(tmp_path: Path) -> None:
    curves = []
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        for c, name in enumerate(("ill", "well")):
            for i in range(4):
                pixels = np.random.default_rng(9 * c + i).integers(0, 2000, (16, 16)) + (2000 if c == 0 else 0)
                pixels = pixels if kind == "MONOCHROME2" else 4095 - pixels
                window = (1800, 3000) if kind == "MONOCHROME2" else (4095 - 1800 + 1, 3000)
                made = elements(pixels.astype(np.uint16), photometric=kind, window=window, patient=f"{name}{i}")
                save(made, tmp_path / kind / name / f"{i}")
        made_ = system(tmp_path / kind)
        images, labels = made_.sample.tensors()
        spec = made_.with_sizes(ask(eps=tuple(k / 20 for k in range(1, 8))))
        curves.append((images, sweep(PGD(steps=3), made_.classifier, images, Untargeted(labels), Linf, spec.eps)))
    assert torch.equal(curves[0][0], curves[1][0])
    assert torch.equal(curves[0][1].min_eps, curves[1][1].min_eps)
    assert fallen(curves[0][1].min_eps)


def test_commands_that_attack_what_is_shown_get_pictures(tmp_path: Path) -> None:
    root = folders(tmp_path, n=6, window=(2048, 1024), PixelPaddingValue=5)
    spec = ask(data=f"dicom:{root}", model=NET, train=False, outputs="logits")
    made = assemble(spec, None, NoProgress(), "cpu")
    assert (made.sample.span, made.classifier.stored_levels, made.classifier.preprocessing) == (1, None, None)


def test_a_picture_is_decided_as_the_stored_values_that_it_shows(tmp_path: Path) -> None:
    made = system(folders(tmp_path, n=6, window=(2048, 1500), PixelPaddingValue=5))
    stored, shown = (part.images(range(len(part))) for part in (made.data, made.data.shown()))
    pictures = made.classifier.of_pictures()
    assert pictures.of_pictures() is pictures
    assert torch.allclose(made.classifier.logits(stored), pictures.logits(shown), atol=1e-4)
