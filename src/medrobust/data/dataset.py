"""The one face of every data set: labels and ids at once, pixels when they are asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

import medrobust.data.class_names as class_names
import medrobust.data.findings as findings
import medrobust.data.patients as patients
import medrobust.data.splits as splits
from medrobust import limits
from medrobust.data.labels import NO_LABEL, NONE, number_classes
from medrobust.data.source import NO_FILE, LeftOut, Listing, Request, Source
from medrobust.data.words import quoted
from medrobust.errors import InputError
from medrobust.heads import Head
from medrobust.images import SPAN, UNKNOWN, Images, Labels, as_float


class Answers(Protocol):
    """A classifier, as far as labels are concerned."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def head(self) -> Head: ...


@dataclass(frozen=True, eq=False)
class Dataset:
    """n labelled images; built by ``medrobust.data.load``. Parts of it (split, sample, select) share its pixels.

    name: short, for people. classes: label i means classes[i]. labels: int64 (n,); of several findings an image
    (n, k) of 0, 1 and UNKNOWN, column i being classes[i]. ids: stable names of the
    images, by which randomness is keyed. patients: str (n,), "" where unknown, or None. extra: any other
    column, str (n,). left_out: images that were listed and cannot be used, with the reason. notes: sentences for the
    terminal and the report, one on each thing that was dropped, merged or reinterpreted, with its count.
    rows: where each image stands in ``source``. split_of: "train", "val" or "test" for each image. split_given: they
    came with the data; otherwise they were drawn here.
    """

    name: str
    source: Source
    rows: np.ndarray
    classes: tuple[str, ...]
    labels: np.ndarray
    ids: tuple[str, ...]
    split_of: np.ndarray
    patients: np.ndarray | None = None
    extra: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    split_given: bool = True

    @property
    def channels(self) -> int:
        """1 or 3: what ``tensors`` gives."""
        return self.source.channels

    @property
    def size(self) -> int:
        """Side of the square images, in pixels; the longest side of any image where they keep their own sizes."""
        return self.source.size

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Every (height, width) that images have, in ascending order."""
        if self.fit != "none":
            return ((self.size, self.size),)
        return tuple(sorted({self.source.shape(int(row)) for row in self.rows}))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images; InputError where they differ in size."""
        shapes = self.shapes
        if len(shapes) > 1:
            raise InputError(
                f"the images of {self.name} differ in size ({len(shapes)} sizes), and this needs one: give --size in "
                "place of --preprocessing"
            )
        return (self.channels, *shapes[0])

    @property
    def largest(self) -> tuple[int, int, int]:
        """(channels, height, width) of the images with the most pixels: what a batch must have room for."""
        return (self.channels, *max(self.shapes, key=lambda shape: shape[0] * shape[1]))

    def _runs_of_one_shape(self) -> list[int]:
        """Lengths of the runs of images of one size, in their order."""
        if self.fit != "none":
            return [len(self)]
        return [len(list(run)) for _, run in itertools.groupby(self.rows.tolist(), self.source.shape)]

    def most_frequent_shape(self) -> Dataset:
        """The images of the size that most of them have; all where they have one."""
        if len(self.shapes) == 1:
            return self
        shapes = [self.source.shape(row) for row in self.rows.tolist()]
        shape = max(sorted(set(shapes)), key=shapes.count)
        return self.select([i for i, s in enumerate(shapes) if s == shape])

    @property
    def bits(self) -> int:
        """8 to 16: the deepest that any image is stored with."""
        return self.source.bits

    @property
    def levels(self) -> np.ndarray:
        """int64 (n,): L of each image, whose pixels are k / L for whole k from 0 to L; 255 for an 8-bit file."""
        return np.array([self.source.levels(int(row)) for row in self.rows], dtype=np.int64)

    @property
    def surround(self) -> bool:
        """Whether pixels may hold values outside of what is shown: those beside the window of a DICOM file."""
        return self.source.surround

    @property
    def span(self) -> int:
        """Width of what a pixel may hold, in units of what is shown: 1, or ``images.SPAN`` with a surround."""
        return SPAN if self.surround else 1

    @property
    def storable(self) -> tuple[float, float]:
        """The least and the largest pixel in [0, 1] that the files of all images can hold."""
        ends = [self.source.storable(int(row)) for row in self.rows]
        return max((low for low, _ in ends), default=0.0), min((high for _, high in ends), default=1.0)

    @property
    def common_levels(self) -> int | None:
        """``levels`` where all images share them; None where they differ."""
        levels = set(self.levels.tolist())
        return levels.pop() if len(levels) == 1 else None

    @property
    def attacked_levels(self) -> int | None:
        """The grid on which attacks are to stay: of DICOM files that share one; None: they need not."""
        return self.common_levels if self.source.stored_values else None

    def pixel_size(self, size: float, unit: str) -> float:
        """A size as a fraction of what a pixel may hold. unit: "fraction" (of what is shown), "lv" (stored levels of
        each image) or "hu" (Hounsfield units). InputError where images differ in what that is."""
        if unit == "fraction":
            return size / self.span
        levels = self.common_levels
        if levels is None:
            counts = sorted(set((self.levels // self.span).tolist()))
            raise InputError(
                f"the images of {self.name} show {len(counts)} numbers of stored levels ({counts[0]} to {counts[-1]}): "
                "give sizes as fractions, or one window for all with --window"
            )
        if unit == "lv":
            return size / levels
        steps = {self.source.step(int(row)) for row in self.rows}
        if len(steps) > 1 or not max(steps):
            raise InputError(
                f"sizes in Hounsfield units need CT files of DICOM with one rescale slope, {self.name} has "
                f"{'none' if not max(steps) else 'several slopes'}; give stored levels (4lv) or fractions"
            )
        return size / steps.pop() / levels

    def shown(self) -> Dataset:
        """The images as they are shown, for training and pictures: without a surround."""
        return dataclasses.replace(self, source=self.source.shown())

    @property
    def fit(self) -> str | None:
        """How images that are not square were made so: "stretch", "crop" or "pad"; "none" where they were not, and
        None where all are square."""
        return self.source.fit

    @property
    def multilabel(self) -> bool:
        """Whether an image has several findings, so that its label is a row of ``labels``."""
        return self.labels.ndim == 2

    @property
    def counts(self) -> np.ndarray:
        """int64 (k,): images of each class, or with each finding."""
        if self.multilabel:
            return np.asarray((self.labels == 1).sum(0))
        return np.bincount(self.labels, minlength=len(self.classes))

    def label_text(self, image: int) -> str:
        """The class of an image, or its findings."""
        if self.multilabel:
            return findings.text(self.labels[image], self.classes)
        return self.classes[int(self.labels[image])]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        side = f"{self.size} x {self.size}" if self.fit != "none" else f"{len(self.shapes)} size(s)"
        shape = f"{self.channels} x {side}, {self.bits} bit"
        kinds = "findings" if self.multilabel else "classes"
        return f"Dataset({self.name}: {len(self)} images, {shape}, {kinds} {', '.join(self.classes)})"

    def select(self, indices: Sequence[int] | np.ndarray | Tensor) -> Dataset:
        """The images at these positions, in this order."""
        index = self._positions(indices)
        return dataclasses.replace(
            self,
            rows=self.rows[index],
            labels=self.labels[index],
            ids=tuple(self.ids[i] for i in index),
            split_of=self.split_of[index],
            patients=None if self.patients is None else self.patients[index],
            extra={name: column[index] for name, column in self.extra.items()},
        )

    def split(self, name: str) -> Dataset:
        """The "train", "val" or "test" part, in the order of the ids. InputError where it is empty."""
        if name not in splits.SPLITS:
            raise InputError(f"unknown split {name!r}; choose one of {', '.join(splits.SPLITS)}")
        index = np.flatnonzero(self.split_of == name)
        if not index.size:
            there = [f"{s} ({int((self.split_of == s).sum())})" for s in splits.SPLITS if (self.split_of == s).any()]
            raise InputError(
                f"empty split: {self.name} has no {name} images, only {', '.join(there) or 'nothing'}; "
                f"mark some as {name} in its split column or folder, or give it no split at all to have one drawn"
            )
        return self.select(index).by_id()

    def by_id(self) -> Dataset:
        """The images in the order of their ids ("2" before "10"): what is made of them depends on no other order.

        Images that keep their own sizes: those of one size behind each other, sizes in ascending order.
        """
        own = self.fit == "none"
        sizes = [self.source.shape(row) if own else (0, 0) for row in self.rows.tolist()]
        order = sorted(range(len(self)), key=lambda i: (sizes[i], natural(self.ids[i])))
        return self if order == list(range(len(self))) else self.select(order)

    def of_classes(self, names: Sequence[str]) -> Dataset:
        """The images of these classes, numbered in the order of ``names``; InputError for one that is not there."""
        names = tuple(names)
        unknown = [name for name in names if name not in self.classes]
        if unknown:
            raise InputError(f"{self.name} has no class {unknown[0]!r}; it has {', '.join(self.classes)}")
        if self.multilabel:
            return findings.renamed(self, {}, [name for name in self.classes if name not in names]).for_classes(names)
        if len(set(names)) < max(2, len(names)):
            raise InputError(f"name two classes or more, each once, got {', '.join(names) or 'none'}")
        place = {self.classes.index(name): number for number, name in enumerate(names)}
        part = self.select([i for i, label in enumerate(self.labels.tolist()) if label in place])
        labels = np.array([place[label] for label in part.labels.tolist()], dtype=np.int64)
        return dataclasses.replace(part, classes=names, labels=labels)

    def for_classes(self, classes: Sequence[str]) -> Dataset:
        """The same images with labels numbered as ``classes``, those of a classifier: names decide, not positions.

        A class without an image may be among them. InputError where images have a class that is not.
        """
        return class_names.in_order_of(self, classes)

    def for_network(self, classifier: Answers) -> Dataset:
        """``for_classes`` of the classes of ``classifier``; InputError where the one has several findings an image and
        the other one class."""
        if classifier.head.multilabel != self.multilabel:
            one, several = "one class an image", "several findings an image"
            has, answers = (several, one) if self.multilabel else (one, several)
            raise InputError(
                f"{self.name} has {has}, the classifier answers with {answers} (head {classifier.head.name}): choose "
                "other labels or another classifier"
            )
        return self.for_classes(classifier.classes)

    def renamed(self, names: Mapping[str, str], leave_out: Sequence[str] = ()) -> Dataset:
        """With other class names, {name here: new name}, and without the images of the classes ``leave_out``."""
        return class_names.renamed(self, names, leave_out)

    def train_on(self, each: int, seed: int) -> Dataset:
        """All but some training images: at most ``each`` of every class stay, keyed by (seed, id)."""
        if each < 1:
            raise InputError(f"at least one training image of each class must stay, got {each}")
        if self.multilabel:
            raise InputError(
                f"{self.name} has several findings an image: training images cannot be kept by their class"
            )
        left = dict.fromkeys(range(len(self.classes)), each)
        kept = self.split_of != "train"
        for i in sorted(np.flatnonzero(~kept).tolist(), key=lambda i: splits.key(seed, "train on", self.ids[i])):
            label = int(self.labels[i])
            kept[i], left[label] = left[label] > 0, left[label] - 1
        return self.select(np.flatnonzero(kept))

    def sample(self, limit: int | None, seed: int) -> Dataset:
        """At most ``limit`` images, classes in their proportions, in the order of the ids; all of them for None.

        Which images: keyed by (seed, id), so that it does not depend on the order of the rows.
        """
        if limit is None or limit >= len(self):
            return self.by_id()
        if limit < 1:
            raise InputError(f"limit must be at least 1, got {limit}")
        by_name = np.argsort(np.array(self.classes))  # ties are decided by name: numbers depend on the classifier
        chosen = splits.sampled_findings if self.multilabel else splits.sampled
        return self.select(chosen(self.ids, self.labels, by_name, limit, seed)).by_id()

    def images(self, indices: Sequence[int] | np.ndarray | Tensor) -> Images:
        """float32 (m, c, h, w) in [0, 1], exactly on the grid of each image's ``levels``; decoded now."""
        index = self._positions(indices)
        levels = [self.source.levels(int(row)) for row in self.rows[index]]
        dtype = np.min_scalar_type(max(levels, default=0))
        whole = self.fit != "none" or not len(index)
        shape = (self.channels, self.size, self.size) if whole else self.select(index).shape
        pixels = np.empty((len(index), *shape), dtype)
        for place, image in enumerate(index):
            pixels[place] = self.source.pixels(int(self.rows[image]))
        return as_float(torch.from_numpy(pixels), torch.tensor(levels))

    def masks(self, indices: Sequence[int] | np.ndarray | Tensor, finding: str | None = None) -> Tensor | None:
        """float32 (m, 1, h, w), 1 inside the lesion; None where no ground truth is known.

        finding: that one of several alone, by its name in the source; None for all of them together.
        """
        masks = []
        for image in self._positions(indices):
            mask = self.source.mask(int(self.rows[image]), finding)
            if mask is None:
                return None
            masks.append(torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None])
        return torch.stack(masks) if masks else torch.empty((0, 1, self.size, self.size))

    def tensors(self, limit: int | None = None, seed: int = 0) -> tuple[Images, Labels]:
        """All images in their order (or a sample of ``limit``) and their labels, in memory."""
        part = self if limit is None else self.sample(limit, seed)
        return part.images(range(len(part))), torch.from_numpy(part.labels.copy())

    def batches(self, size: int) -> Iterator[tuple[Images, Labels, tuple[str, ...]]]:
        """(images, labels, ids) of at most ``size`` images at a time, in order; memory stays flat.

        Images that keep their own sizes come in batches of one size each.
        """
        if size < 1:
            raise InputError(f"a batch must hold at least 1 image, got {size}")
        for index in self.bounds(size):
            part = slice(index.start, index.stop)
            yield self.images(index), torch.from_numpy(self.labels[part].copy()), self.ids[part]

    def bounds(self, size: int) -> Iterator[range]:
        """Positions of at most ``size`` images at a time, in order, all of one height and width."""
        begin = 0
        for run in self._runs_of_one_shape():
            for start in range(begin, begin + run, size):
                yield range(start, min(start + size, begin + run))
            begin += run

    def digest(self) -> str:
        """sha256 (hex) of contents, ids, each image's class name, split and patient, and the shape and fit they have.

        Independent of the order of the images, of the order of the classes and of where they are stored.
        """
        hasher = hashlib.sha256(f"{self.channels} {self.size} {self.bits} {self.fit or ''}".encode())
        for image in sorted(range(len(self)), key=self.ids.__getitem__):
            patient = "" if self.patients is None else str(self.patients[image])
            line = (self.ids[image], self._label_key(image), str(self.split_of[image]), patient)
            hasher.update("\x1f".join((*line, self.source.fingerprint(int(self.rows[image])), "\n")).encode())
        return hasher.hexdigest()

    def _label_key(self, image: int) -> str:
        """The label of an image, whatever the order of the classes; unknown findings are no part of it."""
        if not self.multilabel:
            return self.classes[int(self.labels[image])]
        named = zip(self.classes, self.labels[image].tolist(), strict=True)
        return "\x1e".join(f"{name}={label}" for name, label in sorted(named) if label != UNKNOWN)

    def _positions(self, indices: Any) -> np.ndarray:
        """Positions in this data set; IndexError beyond its end."""
        return np.arange(len(self))[np.asarray(indices, dtype=np.int64)]


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A key to sort by: digits count as numbers, "train-2" comes before "train-10"; the text itself decides a tie."""
    parts = [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
    return [*parts, (False, 0, name)]


def assemble(
    name: str,
    source: Source,
    listing: Listing,
    request: Request,
    rows: np.ndarray | None = None,
    left_out: tuple[LeftOut, ...] = (),
) -> Dataset:
    """The Dataset of a source and its listing: class names numbered, splits kept or drawn.

    rows: the readable images (positions in the listing and in the source); all of them by default.
    """
    rows = np.arange(len(listing.ids)) if rows is None else rows
    if len(set(listing.ids)) < len(listing.ids):
        raise InputError(f"two images of {name} have the same id; give each its own")
    if isinstance(listing.labels, np.ndarray):
        classes, labels, on_labels = findings.check(name, listing.labels[rows], listing.classes)
        none = findings.unlabelled(labels)
    else:
        classes, labels, on_labels = number_classes(name, _pick(listing.labels, rows), listing.classes)
        none = labels == NONE
    unlabelled = tuple(LeftOut(listing.ids[row], NO_LABEL) for row in rows[none])
    rows, labels = rows[~none], labels[~none]
    ids = tuple(_pick(listing.ids, rows))
    people, on_patients = _patients(listing, rows)
    given = None if listing.splits is None else _pick(listing.splits, rows)
    split_of, on_split = splits.assign(labels, ids, people, given, request.seed)
    # as objects: one long cell would make every cell of an array of strings as long
    extra = {column: np.array(_pick(cells, rows), dtype=object) for column, cells in listing.extra.items()}
    left_out = tuple(sorted((*listing.left_out, *left_out, *unlabelled)))
    notes = (*_on_left_out(left_out, len(rows)), *listing.notes, *on_labels, *on_patients, *on_split)
    return Dataset(
        name, source, rows, classes, labels, ids, split_of, people, extra, left_out, notes, given is not None
    )


def check(name: str, listing: Listing) -> None:
    """InputError for labels or splits that cannot be used, as ``assemble`` raises it: before any image is decoded."""
    if isinstance(listing.labels, np.ndarray):
        findings.check(name, listing.labels, listing.classes)
    else:
        number_classes(name, listing.labels, listing.classes)
    if listing.splits is not None:
        splits.normalise(listing.splits)


def _patients(listing: Listing, rows: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The patients of these images, None where no image has one, and a note where some have none."""
    if listing.patients is None:
        return None, ()
    named = patients.named(_pick(listing.patients, rows))
    longest = max(named, key=len, default="")
    limits.check(limits.NAME, len(longest), f"the patient {quoted(longest)}")
    people = np.array(named, dtype=np.str_)
    if not longest:
        return None, ("No image has a patient: every image counts as independent.",)
    return people, (f"There are {patients.counted(people)}.",)


def _on_left_out(left_out: tuple[LeftOut, ...], kept: int) -> tuple[str, ...]:
    """One sentence with the counts; the reasons of single files stand in ``left_out``."""
    if not left_out:
        return ()
    kinds = Counter(left.reason if left.reason in (NO_LABEL, NO_FILE) else "it cannot be read" for left in left_out)
    reasons = "; ".join(f"{count}: {reason}" for reason, count in sorted(kinds.items()))
    return (f"{len(left_out)} of {kept + len(left_out)} images were left out ({reasons}).",)


def _pick(column: Sequence[str], rows: np.ndarray) -> list[str]:
    return [str(column[row]) for row in rows.tolist()]
