"""Preprocessing inside the classifier: equal to torchvision's pipelines, differentiable, in the pixels of the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode, functional

import medrobust as mr
from medrobust.errors import InputError
from medrobust.models.preprocessing import Preprocessing, Resize
from medrobust.threat import Linf, Untargeted

FILTERS = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST,
}
SHAPES = [(90, 71), (33, 47), (40, 40), (41, 37), (20, 65)]


def pixels(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (height, width, channels), dtype=np.uint8)


def as_images(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)[None].float() / 255


def pil(array: np.ndarray) -> Image.Image:
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize("crop", [32, 45])
def test_equal_to_torchvision_on_pil_images_to_the_bit(kind: str, crop: int) -> None:
    theirs = transforms.Compose(
        [transforms.Resize(40, FILTERS[kind]), transforms.CenterCrop(crop), transforms.ToTensor()]
    )
    ours = Preprocessing(f"resize=40:{kind},crop={crop}")
    for seed, (height, width) in enumerate(SHAPES):
        array = pixels(height, width, 1 + 2 * (seed % 2), seed)
        assert torch.equal(ours(as_images(array))[0], theirs(pil(array)))
        assert ours.shape((height, width)) == (crop, crop)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_equal_to_torchvision_on_tensors(kind: str) -> None:
    for height, width in SHAPES:
        images = as_images(pixels(height, width))
        theirs = functional.resize(images, [24, 31], FILTERS[kind], antialias=True).clamp(0, 1)
        assert torch.equal(Preprocessing(f"resize=24x31:{kind}:tensor")(images), theirs)


def test_opencv_area_of_a_whole_scale_is_the_rounded_mean_and_bilinear_the_four_nearest() -> None:
    images = as_images(pixels(40, 60))
    mean = (images.double() * 255).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    area = Preprocessing("resize=20x30:area:opencv")(images)
    assert (area * 255 - (mean + 0.5).floor()).abs().max() < 1e-4
    # at half the size, between pixels: the bilinear filter without antialiasing is that mean too
    linear = Preprocessing("resize=20x30:opencv")(images)
    assert (linear * 255 - mean).abs().max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    "steps", ["resize=12x17", "resize=9:bicubic", "resize=70x50", "resize=20x30:opencv", "pad,crop=30"]
)
def test_the_gradient_is_that_of_the_resampling_without_rounding(steps: str) -> None:
    # linear up to rounding: f(x + d) - f(x) for large d is within rounding of the derivative along d
    ours = Preprocessing(steps)
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(1, 1, 40, 36, generator=generator) * 0.3 + 0.35).requires_grad_()
    pull = torch.rand(ours(images).shape, generator=generator)
    (gradient,) = torch.autograd.grad((ours(images) * pull).sum(), images)
    step = torch.rand(images.shape, generator=generator) * 0.2
    with torch.no_grad():
        change = float(((ours(images + step) - ours(images)) * pull).sum())
    assert float((gradient * step).sum()) == pytest.approx(change, rel=0.01)


def test_intensity_steps_have_their_closed_forms() -> None:
    images = torch.linspace(0, 1, 101).reshape(1, 1, 101, 1)
    assert torch.allclose(Preprocessing("window=0.2:0.7")(images), ((images - 0.2) / 0.5).clamp(0, 1))
    assert torch.allclose(Preprocessing("percentiles=10:90")(images), ((images - 0.1) / 0.8).clamp(0, 1), atol=1e-6)
    assert torch.allclose(Preprocessing("scale=-1024:1024")(images), images * 2048 - 1024)
    # each image for itself
    two = torch.cat([images, images / 2])
    assert torch.allclose(Preprocessing("percentiles=0:100")(two)[1], images[0], atol=1e-6)


def test_maps_are_laid_back_where_they_came_from() -> None:
    ours = Preprocessing("resize=40,crop=32")
    images = torch.zeros(1, 1, 80, 100)
    images[..., 50:54, 60:64] = 1
    back = ours.back(ours(images)[:, 0], (80, 100))
    peak = divmod(int(back[0].argmax()), 100)
    assert abs(peak[0] - 51.5) <= 2
    assert abs(peak[1] - 61.5) <= 2
    assert float(back[..., :5].abs().max()) == 0  # cut off by the crop


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resize=big", "a size is a number of pixels"),
        ("resize=20:area", "area with opencv"),
        ("resize=20:lanczos", "give a filter"),
        ("crop", "a size is a number"),
        ("window=0.5", "two numbers"),
        ("window=0.5:0.2", "the lower one first"),
        ("percentiles=5:101", "between 0 and 100"),
        ("histogram", "no derivative"),
        ("scale=0:255,crop=20", "last step"),
        ("flip", "no step of preprocessing"),
        (" ", "no step"),
    ],
)
def test_what_is_no_step_gets_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        Preprocessing(text)
    assert "\n" not in str(caught.value)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.out = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.conv(x).relu().amax((2, 3)))


def on_grid() -> torch.Tensor:
    images = torch.cat([as_images(pixels(90, 71, seed=s)) * 0.2 + 0.4 for s in range(12)])
    return (images * 255).round() / 255


@pytest.fixture(scope="module")
def wrapped() -> mr.Classifier:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    net = Net()
    classifier = mr.Classifier(net, ["a", "b"], mean=mean, std=std, size=28, preprocessing="resize=32,crop=28")
    with torch.no_grad():  # the boundary lies between these images
        logits = classifier(on_grid())
        net.out.bias[1] -= (logits[:, 1] - logits[:, 0]).median()
    return classifier


def pipeline(net: nn.Module, data: bytes) -> int:
    """A user's own pipeline, from the bytes of a file to a decision."""
    steps = transforms.Compose(
        [
            transforms.Resize(32),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    with Image.open(io.BytesIO(data)) as image, torch.no_grad():
        return int(net(steps(image.convert("RGB"))[None]).argmax())


def png(image: torch.Tensor) -> bytes:
    out = io.BytesIO()
    Image.fromarray((image[0] * 255).round().numpy().astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_attacked_files_read_by_the_users_pipeline_have_the_decision_that_was_judged(wrapped: mr.Classifier) -> None:
    images = on_grid()
    labels = wrapped.predict(images)
    assert labels.tolist() == [pipeline(wrapped.net, png(x)) for x in images]
    ball = Linf(8 / 255)
    attacked = mr.attacks.PGD(steps=10)(wrapped, images, Untargeted(labels), ball)
    assert attacked.shape == images.shape
    outcome = mr.judge(wrapped, images, attacked, Untargeted(labels), ball, bits=8)
    assert outcome.survives.any()
    assert outcome.after_saving.tolist() == [pipeline(wrapped.net, png(x)) for x in attacked]


def test_a_row_does_not_depend_on_its_batch(wrapped: mr.Classifier) -> None:
    images = torch.rand(5, 1, 60, 45, generator=torch.Generator().manual_seed(1))
    assert torch.equal(wrapped.logits(images)[2:3], wrapped.logits(images[2:3]))


def test_it_is_a_part_of_the_digest_and_of_copies(wrapped: mr.Classifier) -> None:
    other = mr.Classifier(
        wrapped.net, ["a", "b"], mean=wrapped.mean, std=wrapped.std, size=28, preprocessing="resize=30,crop=28"
    )
    assert other.digest() != wrapped.digest()
    assert wrapped.with_net(wrapped.net).preprocessing == wrapped.preprocessing
    images = torch.rand(3, 1, 60, 45)
    assert torch.allclose(wrapped.fast(images.shape).logits(images), wrapped.logits(images), atol=1e-4)


def test_an_input_of_another_size_than_the_networks_names_the_step(wrapped: mr.Classifier) -> None:
    other = mr.Classifier(wrapped.net, ["a", "b"], size=28, preprocessing="resize=32")
    with pytest.raises(InputError, match="add crop=28 or resize=28x28"):
        other.logits(torch.rand(2, 1, 60, 45))


def test_equal_text_with_other_spaces_is_the_same_preprocessing() -> None:
    assert Preprocessing("resize=32, crop=28") == Preprocessing("resize=32:bilinear:pil,crop=28x28")
    assert Preprocessing("resize=32").steps == (Resize(32),)
