"""A corpus of bad inputs: what a person or a damaged disk may hand to the command line, and what the answer must name.

Each case makes its files in an empty folder and returns the arguments; the answer must be one line that matches.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from medrobust import Classifier, models

from .data_files import class_folders, cohort, npz, picture

Case = Callable[[Path], tuple[str, ...]]

CASES: dict[str, tuple[Case, str]] = {}
"""Name of the case: how it is made, and what its one line must say."""

QUICK = (
    "--model",
    "small_cnn",
    "--epochs",
    "1",
    "--limit",
    "4",
    "--attacks",
    "fgsm",
    "--eps",
    "1/255",
    "--device",
    "cpu",
)
PHANTOM = ("--data", "phantom:chest@32:n=60")
OUT = ("--out", "run")


def case(name: str, said: str) -> Callable[[Case], Case]:
    def add(make: Case) -> Case:
        assert name not in CASES, name
        CASES[name] = (make, said)
        return make

    return add


def audit(*more: str) -> tuple[str, ...]:
    return ("audit", *more, *QUICK, *OUT)


def lines_of(folder: Path, n: int = 24) -> list[str]:
    return cohort(folder / "t", n=n).read_text().splitlines()


def table(name: str, said: str, change: Callable[[list[str]], list[str] | bytes]) -> None:
    """A table of 24 good images, changed."""

    def make(folder: Path) -> tuple[str, ...]:
        content = change(lines_of(folder))
        data = content if isinstance(content, bytes) else "\n".join(content).encode("utf-8", "surrogateescape") + b"\n"
        (folder / "t" / "labels.csv").write_bytes(data)
        return audit("--data", "csv:t/labels.csv")

    case(f"table-{name}", said)(make)


def relabelled(*labels: str) -> Callable[[list[str]], list[str]]:
    """The given labels in turn, on all rows."""
    return lambda lines: (
        [lines[0]] + [f"{line.partition(',')[0]},{labels[i % len(labels)]}" for i, line in enumerate(lines[1:])]
    )


# -- tables ----------------------------------------------------------------------------------------------

table("unbalanced-quote", "line 3", lambda lines: [*lines[:2], '"' + lines[2], *lines[3:]])
table("quote-to-the-end", "line 12", lambda lines: [*lines[:11], '"' + lines[11], *lines[12:]])
table("duplicate-column", "column.*label", lambda lines: [lines[0] + ",label"] + [f"{x},a" for x in lines[1:]])
table(
    "two-file-columns",
    "column.*file",
    lambda lines: ["file,file,label"] + [f"{x.split(',')[0]},{x}" for x in lines[1:]],
)
table("long-cell", "characters", lambda lines: [*lines[:3], f"{'x' * 200_000}.png,ill", *lines[3:]])
table("long-label", "characters", lambda lines: [*lines[:3], f"002.png,{'9' * 150_000}", *lines[4:]])
table("row-too-long", "line 3", lambda lines: [*lines[:2], lines[2] + ",1,2,3", *lines[3:]])
table("same-file-dot-slash", "000.png", lambda lines: [*lines, "./000.png,well"])
table("same-file-up-and-down", "000.png", lambda lines: [*lines, "../t/000.png,well"])
table("nul", "t/labels.csv|labels.csv", lambda lines: ("\n".join(lines) + "\n\x00\x00").encode()[:-40] + b"\x00" * 64)
table("binary", "labels.csv", lambda _: bytes(range(256)) * 8)
table("png-named-csv", "labels.csv", lambda _: b"\x89PNG\r\n\x1a\n" + bytes(64))
table("only-blank-lines", "labels.csv", lambda _: ["", "", ""])
table("all-labels-missing", "label", relabelled("NA", "nan", ""))
table("one-class-and-blanks", "two classes|label", relabelled("ill", ""))
table("one-class-in-two-spellings", "two classes|spell|Normal", relabelled("Normal", "normal "))
table("label-of-5000-digits", "label", relabelled("0", "9" * 5000))
table("no-header", "column", lambda lines: lines[1:])
table(
    "folders-as-files",
    "not there|folder|read",
    lambda lines: [lines[0]] + [f"../t,{x.split(',')[1]}" for x in lines[1:]],
)
table("absolute-paths", "not there", lambda lines: [lines[0]] + [f"/nowhere/{x}" for x in lines[1:]])
table("urls", "not there", lambda lines: [lines[0]] + [f"https://example.org/{x}" for x in lines[1:]])
table("control-characters-in-names", "not there", lambda lines: [lines[0]] + [f"\x1b[2J{x}" for x in lines[1:]])
table("names-not-utf-8", "UTF-8|not there", lambda lines: [lines[0]] + [f"\udcff{x}" for x in lines[1:]])
table(
    "split-of-numbers",
    "train, val or test",
    lambda lines: [lines[0] + ",split"] + [f"{x},{i}" for i, x in enumerate(lines[1:])],
)
table("split-all-test", "train", lambda lines: [lines[0] + ",split"] + [f"{x},test" for x in lines[1:]])
table("lone-column", "column", lambda lines: [x.partition(",")[0] for x in lines])
table("wrong-case-of-label", "diagnosis|label", lambda lines: ["file,diagnosis", *lines[1:]])


@case("table-is-a-folder", "t")
def _(folder: Path) -> tuple[str, ...]:
    lines_of(folder)
    return audit("--data", "csv:t")


@case("table-link-in-a-circle", "labels.csv")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "labels.csv").symlink_to("labels.csv")
    return audit("--data", "csv:labels.csv")


@case("table-without-a-name", "csv")
def _(folder: Path) -> tuple[str, ...]:
    return audit("--data", "csv:")


@case("table-patient-column-missing", "column.*'who'|'who'.*column")
def _(folder: Path) -> tuple[str, ...]:
    lines_of(folder)
    return audit("--data", "csv:t/labels.csv", "--patient", "who")


# -- images ----------------------------------------------------------------------------------------------


def images(name: str, said: str, content: Callable[[], bytes], suffix: str = "png") -> None:
    """Two classes whose files all hold ``content``."""

    def make(folder: Path) -> tuple[str, ...]:
        data = content()
        for label in ("ill", "well"):
            (folder / "d" / label).mkdir(parents=True)
            for i in range(6):
                (folder / "d" / label / f"{i}.{suffix}").write_bytes(data)
        return audit("--data", "folder:d", "--size", "16")

    case(f"images-{name}", said)(make)


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def png_of_size(width: int, height: int, held: int | None = None) -> bytes:
    """A PNG whose header claims a size that its few bytes of data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min(width * height + height, 4096) if held is None else held * (width + 1)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def half_a_tiff(side: int = 16) -> bytes:
    """An uncompressed TIFF that states twice the rows that its one strip holds; with a large side, in a few bytes."""
    rows = max(1, 256 // side)
    tags = {256: side, 257: 2 * side, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: rows, 279: side * rows}
    pixels = bytes([200]) * (side * rows)
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(tags))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4)


READ = "can ?not be read|cannot be used|left out|unreadable"
images("empty", READ, lambda: b"")
images("text", READ, lambda: b"hello")
images("html", READ, lambda: b"<html><body>404 not found</body></html>")
images("eps-named-png", READ, lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\nshowpage\n")
images("pdf-named-png", READ, lambda: b"%PDF-1.4\n%%EOF\n")
images("svg-named-png", READ, lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>')
images("truncated-png", READ, lambda: encoded(picture(0), "PNG")[:60])
images("truncated-jpeg", READ, lambda: encoded(picture(0, 64), "JPEG")[:200], "jpg")
images("truncated-tiff", READ, lambda: encoded(picture(0), "TIFF")[:100], "tif")
images("tiff-of-half-its-rows", READ, half_a_tiff, "tif")
images("png-of-half-its-rows", READ, lambda: png_of_size(90, 90, 40))
images("bomb-tiff", "pixels|" + READ, lambda: half_a_tiff(8000), "tif")
images("bomb-png", "pixels|" + READ, lambda: png_of_size(13_300, 13_300))
images("bomb-png-thin", "pixels|" + READ, lambda: png_of_size(2_000_000_000, 1))
images("bomb-png-huge", "pixels|" + READ, lambda: png_of_size(2_147_483_647, 2_147_483_647))
images("zero-width-png", READ, lambda: png_of_size(0, 10))
images("bad-crc", READ, lambda: encoded(picture(0), "PNG").replace(b"IDAT", b"IDAx"))
images("dicom-without-reader", READ, lambda: bytes(128) + b"DICM" + bytes(64))
images("zip-named-jpeg", READ, lambda: b"PK\x03\x04" + bytes(64), "jpg")
images(
    "bmp-of-negative-size",
    READ,
    lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 62, 0, 0, 62, 40, -5, -5, 1, 24, 0, 0, 0, 0, 0, 0),
    "bmp",
)


@case("folder-empty", "d")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "d").mkdir()
    return audit("--data", "folder:d")


@case("folder-of-empty-classes", "d|class")
def _(folder: Path) -> tuple[str, ...]:
    for name in ("a", "b"):
        (folder / "d" / name).mkdir(parents=True)
    return audit("--data", "folder:d")


@case("folder-is-a-file", "d")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "d").write_text("")
    return audit("--data", "folder:d")


@case("folder-linked-in-a-circle", "d|class")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "d" / "a").mkdir(parents=True)
    (folder / "d" / "a" / "again").symlink_to(folder / "d")
    return audit("--data", "folder:d")


@case("folder-without-a-name", "folder")
def _(folder: Path) -> tuple[str, ...]:
    return audit("--data", "folder:")


@case("folder-unreadable-size", "--size|size")
def _(folder: Path) -> tuple[str, ...]:
    class_folders(folder / "d", n=6)
    return audit("--data", "folder:d", "--size", "100000000")


# -- npz -------------------------------------------------------------------------------------------------


def archive(name: str, said: str, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> None:
    """A good .npz whose entries are changed."""

    def make(folder: Path) -> tuple[str, ...]:
        file = npz(folder / "x.npz", n=8)
        with zipfile.ZipFile(file) as opened:
            entries = {e: opened.read(e) for e in opened.namelist()}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
            for entry, content in change(entries).items():
                opened.writestr(entry, content)
        return audit("--data", "medmnist:x.npz")

    case(f"npz-{name}", said)(make)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: str, kind: str = "|u1", extra: bytes = b"") -> bytes:
    """An .npy whose header says what its data does not hold."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + extra


def with_entry(key: str, content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda entries: entries | {key: content}


T, L = "train_images.npy", "train_labels.npy"
archive("bad-magic", "x.npz", with_entry(T, b"hello" * 40))
archive("empty-entry", "x.npz", with_entry(T, b""))
archive("impossible-shape", "x.npz", with_entry(T, header("(1000000000000, 12, 12)")))
archive("negative-shape", "x.npz", with_entry(T, header("(-1, 12, 12)")))
archive("overflowing-shape", "x.npz", with_entry(T, header("(9223372036854775807, 9223372036854775807, 3)")))
archive("shape-of-words", "x.npz", with_entry(T, header("('a', 'b')")))
archive("short-data", "x.npz", with_entry(T, header("(8, 12, 12)", extra=bytes(10))))
archive("pickled-objects", "x.npz", with_entry(T, npy(np.zeros((8, 12, 12), np.uint8)).replace(b"|u1", b"|O ")))
archive("header-nested", "x.npz", with_entry(T, header("(" * 900 + ")" * 900)))
archive("float-images", "x.npz", with_entry(T, npy(np.zeros((8, 12, 12), np.float32))))
archive("images-not-square", "x.npz", with_entry(T, npy(np.zeros((8, 12, 10), np.uint8))))
archive("images-flat", "x.npz", with_entry(T, npy(np.zeros((8, 144), np.uint8))))
archive("no-images", "x.npz", lambda e: {k: v for k, v in e.items() if "images" not in k})
archive("no-labels", "x.npz", lambda e: {k: v for k, v in e.items() if "labels" not in k})
archive("too-few-labels", "8 train images and labels", with_entry(L, npy(np.zeros((7, 1), np.uint8))))
archive("label-of-a-billion", "classes|label", with_entry(L, npy(np.array([[0]] * 7 + [[10**9]], np.int64))))
archive("label-beyond-int64", "label", with_entry(L, npy(np.array([[0]] * 7 + [[2**64 - 1]], np.uint64))))
archive("negative-label", "label", with_entry(L, npy(np.array([[0]] * 7 + [[-1]], np.int64))))
archive("labels-of-words", "label", with_entry(L, npy(np.array([["a"]] * 8))))
archive("labels-of-fractions", "label", with_entry(L, npy(np.full((8, 1), 0.5))))
archive("parts-of-other-findings", "14 findings", with_entry(L, npy(np.zeros((8, 14), np.uint8))))
archive("nothing", "x.npz", lambda _: {})
archive("other-entries-only", "x.npz", lambda _: {"weights.npy": npy(np.zeros(3))})
archive("absurd-names", "x.npz", lambda _: {"../../x.npy": npy(np.zeros(3)), "\x1b[2J.npy": npy(np.zeros(3))})


@case("npz-is-text", "x.npz")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "x.npz").write_text("hello")
    return audit("--data", "medmnist:x.npz")


@case("npz-truncated", "x.npz")
def _(folder: Path) -> tuple[str, ...]:
    file = npz(folder / "x.npz", n=8)
    file.write_bytes(file.read_bytes()[:-60])
    return audit("--data", "medmnist:x.npz")


@case("npz-encrypted", "x.npz")
def _(folder: Path) -> tuple[str, ...]:
    file = npz(folder / "x.npz", n=8)
    data = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of every entry
        at = data.find(mark)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(mark, at + 4)
    file.write_bytes(bytes(data))
    return audit("--data", "medmnist:x.npz")


@case("npz-of-another-method", "x.npz")
def _(folder: Path) -> tuple[str, ...]:
    file = npz(folder / "x.npz", n=8)
    data = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.find(mark)
        while at >= 0:
            data[at + offset] = 97
            at = data.find(mark, at + 4)
    file.write_bytes(bytes(data))
    return audit("--data", "medmnist:x.npz")


@case("npz-a-folder", "x.npz")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "x.npz").mkdir()
    return audit("--data", "medmnist:x.npz")


# -- phantoms and kinds ----------------------------------------------------------------------------------

for name, text, said in (
    ("size-0", "phantom:chest@0", "size|pixels|0"),
    ("size-huge", "phantom:chest@99999999", "size|pixels|limit"),
    ("size-word", "phantom:chest@big", "big"),
    ("n-0", "phantom:chest@32:n=0", "n"),
    ("n-word", "phantom:chest@32:n=many", "many"),
    ("option", "phantom:chest@32:m=3", "m"),
    ("kind-empty", ":chest", "phantom"),
    ("kind-upper", "PHANTOM:chest", "phantom"),
    ("markup", "[/nope]:x", r"\[/nope\]|phantom"),
    ("control", "\x1b[2J:x", "phantom"),
    ("empty", "", "phantom|data"),
):
    case(f"phantom-{name}", said)(lambda folder, text=text: audit("--data", text))


# -- checkpoints -----------------------------------------------------------------------------------------


def saved(folder: Path, **more: object) -> Path:
    """A good checkpoint, whose model.json is then changed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = models.build("small_cnn", classes=2, channels=1, size=32)
    Classifier(net, ("normal", "pneumonia"), size=32, provenance={"architecture": "small_cnn"}).save(folder / "m")
    card = json.loads((folder / "m" / "model.json").read_text())
    (folder / "m" / "model.json").write_text(json.dumps(card | more))
    return folder / "m"


ATTACK = ("attack", "--model", "m", *PHANTOM, "--attacks", "fgsm", "--eps", "1/255", "--limit", "4", "--device", "cpu")


def card(name: str, said: str, **more: object) -> None:
    def make(folder: Path) -> tuple[str, ...]:
        saved(folder, **more)
        return ATTACK

    case(f"card-{name}", said)(make)


card("no-classes", "classes", classes=[])
card("one-class", "class", classes=["a"])
card("same-class-twice", "class", classes=["normal", "normal"])
card("classes-a-word", "classes", classes="normal")
card("classes-of-numbers", "classes", classes=[1, 2])
card("million-classes", "classes|limit", classes=[str(i) for i in range(100_000)])
card("format", "format", format=7)
card("architecture-missing", "architecture", architecture=None)
card("architecture-unknown", "'nothing'|nothing", architecture="nothing")
card("architecture-code", "trust", architecture="networks:make")
card("architecture-pytest", "trust", architecture="pytest:main")
card("architecture-os", "trust|module", architecture="os:abort")
card("architecture-deep", "limit|modules|parameters|depth", architecture="small_cnn:depth=1000000")
card("architecture-wide", "limit|parameters|width", architecture="small_cnn:width=1000000")
card("architecture-gigantic", "limit|parameters|another architecture", architecture="vit_gigantic_patch14_224")
card("architecture-control", "architecture", architecture="\x1b[2J")
card("channels-2", "channels", channels=2)
card("channels-word", "channels", channels="grey")
card("size-0", "size", size=0)
card("size-negative", "size", size=-5)
card("size-huge", "size|limit", size=10**9)
card("head", "head", head="sigmoid")
card("mean-nan", "mean", mean=["nan"])
card("mean-of-two", "mean", mean=[0.5, 0.5])
card("std-0", "std", std=[0.0])
card("threshold-2", "threshold", threshold=2.0)
card("sha", "sha256", sha256="0")


def card_file(name: str, said: str, content: bytes) -> None:
    def make(folder: Path) -> tuple[str, ...]:
        (saved(folder) / "model.json").write_bytes(content)
        return ATTACK

    case(f"card-file-{name}", said)(make)


card_file("empty", "model.json", b"")
card_file("list", "model.json", b"[]")
card_file("deep", "model.json", b'{"a":' * 100_000)
card_file("number", "model.json", b"3")
card_file("half", "model.json", b'{"format": 1, "arch')
card_file("binary", "model.json", bytes(range(256)))
card_file("utf-16", "model.json", '{"format": 1}'.encode("utf-16"))
card_file("digits", "model.json", b'{"format": ' + b"9" * 5000 + b"}")


def weights_file(name: str, said: str, content: Callable[[], bytes]) -> None:
    def make(folder: Path) -> tuple[str, ...]:
        (folder / "w.safetensors").write_bytes(content())
        return audit(*PHANTOM, "--weights", "w.safetensors", "--mean", "0.5", "--std", "0.5")

    case(f"weights-{name}", said)(make)


weights_file("empty", "w.safetensors", lambda: b"")
weights_file("text", "w.safetensors", lambda: b"hello")
weights_file("huge-header", "w.safetensors", lambda: struct.pack("<Q", 2**62) + b"{}")
weights_file("header-not-json", "w.safetensors", lambda: struct.pack("<Q", 8) + b"notjson!")
weights_file("header-deep", "w.safetensors", lambda: struct.pack("<Q", 100_000) + b"[" * 100_000)
weights_file("no-tensors", "w.safetensors", lambda: struct.pack("<Q", 2) + b"{}")
weights_file("html", "w.safetensors", lambda: b"<html>not found</html>")


def torch_file(name: str, said: str, value: Callable[[], object]) -> None:
    def make(folder: Path) -> tuple[str, ...]:
        torch.save(value(), folder / "w.pth")
        return audit(*PHANTOM, "--weights", "w.pth", "--mean", "0.5", "--std", "0.5")

    case(f"torch-{name}", said)(make)


torch_file("number", "w.pth", lambda: 3)
torch_file("list", "w.pth", lambda: [torch.zeros(2)])
torch_file("empty", "w.pth", dict)
torch_file("no-tensors", "w.pth", lambda: {"epoch": 3})
torch_file("nested", "w.pth", lambda: {"state_dict": {"a": {"b": torch.zeros(2)}}})
torch_file("other-network", "w.pth", lambda: torch.nn.Linear(2, 2).state_dict())
torch_file("whole-module", "w.pth", lambda: torch.nn.Linear(2, 2))
torch_file("optimiser-only", "w.pth", lambda: {"optimizer": {"state": {}, "param_groups": []}})


@case("torch-script", "TorchScript")
def _(folder: Path) -> tuple[str, ...]:
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(folder / "w.pth")
    return audit(*PHANTOM, "--weights", "w.pth", "--mean", "0.5", "--std", "0.5")


@case("torch-truncated", "w.pth")
def _(folder: Path) -> tuple[str, ...]:
    torch.save({"a": torch.zeros(1000)}, folder / "w.pth")
    (folder / "w.pth").write_bytes((folder / "w.pth").read_bytes()[:500])
    return audit(*PHANTOM, "--weights", "w.pth", "--mean", "0.5", "--std", "0.5")


@case("checkpoint-weights-cut", "model.safetensors")
def _(folder: Path) -> tuple[str, ...]:
    file = saved(folder) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    return ATTACK


@case("checkpoint-weights-missing", "model.safetensors")
def _(folder: Path) -> tuple[str, ...]:
    (saved(folder) / "model.safetensors").unlink()
    return ATTACK


@case("checkpoint-tensor-extra", "sha256|another architecture")
def _(folder: Path) -> tuple[str, ...]:
    save_file({"extra": torch.zeros(2)}, saved(folder) / "model.safetensors")
    return ATTACK


@case("checkpoint-a-link-to-nothing", "m")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "m").symlink_to("nowhere")
    return ATTACK


# -- networks of one's own -------------------------------------------------------------------------------

NETWORKS = """
import torch
from torch import nn

def ok(classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes))

class Answer(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.net, self.answer = ok(), answer
    def forward(self, x):
        return self.answer(self.net(x))

def none(): return Answer(lambda y: None)
def word(): return Answer(lambda y: "benign")
def nan(): return Answer(lambda y: y * float("nan"))
def integers(): return Answer(lambda y: y.argmax(1))
def maps(): return Answer(lambda y: y[:, :, None, None].expand(-1, -1, 4, 4))
def fails():
    def answer(y):
        raise RuntimeError("first line\\nsecond line")
    return Answer(answer)
def leaves():
    raise SystemExit(3)
def stops():
    raise ValueError("[/nope]\\nline two")
def needs(weights_path): return ok()
def quits():
    import os
    return 5
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ok()
    def forward(self, x, metadata):
        return self.net(x)
value = 3
"""


def own(name: str, said: str, *more: str) -> None:
    def make(folder: Path) -> tuple[str, ...]:
        (folder / "networks_of_the_corpus.py").write_text(NETWORKS)
        quick = ("--limit", "4", "--attacks", "fgsm", "--eps", "1/255", "--device", "cpu")
        return ("audit", *PHANTOM, "--model", f"networks_of_the_corpus:{name}", *more, *quick, *OUT)

    case(f"own-{name.replace('.', '-')}", said)(make)


own("none", "NoneType|None")
own("word", "str")
own("nan", "NaN")
own("integers", r"output\(s\) an image")
own("maps", r"output\(s\) an image")
own("fails", "first line")
own("leaves", "SystemExit|exit|failed")
own("stops", r"\[/nope\]")
own("needs", "weights_path")
own("quits", "Module")
own("Two", "metadata|argument|forward")
own("value", "no function|callable")
own("missing", "no function")
own("__class__", "__class__")
own("a.b", "function|module|function in")


@case("own-syntax-error", "broken_net")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "broken_net.py").write_text("def make(:\n")
    return ("audit", *PHANTOM, "--model", "broken_net:make", *OUT)


@case("own-import-error", "nothing_of_this_name")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "importing_net.py").write_text("import nothing_of_this_name\n")
    return ("audit", *PHANTOM, "--model", "importing_net:make", *OUT)


@case("own-torchvision-class", "ResNet")
def _(folder: Path) -> tuple[str, ...]:
    return ("audit", *PHANTOM, "--model", "torchvision.models:ResNet", *OUT)


# -- run folders -----------------------------------------------------------------------------------------


@case("out-has-files-of-the-user", "did not make.*choose a new")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "run" / "training" / "ill").mkdir(parents=True)
    (folder / "run" / "training" / "ill" / "1.png").write_bytes(b"mine")
    return audit(*PHANTOM)


@case("out-is-here", "did not make.*choose a new")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "thesis.tex").write_text("mine")
    return ("audit", *PHANTOM, *QUICK, "--out", ".")


@case("out-is-a-link-to-nothing", "run")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "run").symlink_to("/proc/nowhere/x")
    return audit(*PHANTOM)


for command in ("universal", "detect", "evade", "explain", "defend", "search"):

    def _users_folder(folder: Path, command: str = command) -> tuple[str, ...]:
        saved(folder)
        (folder / "run").mkdir()
        (folder / "run" / "cells").write_text("mine")
        model = ("--model", "m")
        return (command, *model, *PHANTOM, *OUT)

    case(f"out-of-{command}-is-the-users", "did not make.*choose a new")(_users_folder)


@case("out-of-train-is-the-users", "did not make.*choose a new")
def _(folder: Path) -> tuple[str, ...]:
    (folder / "m").mkdir()
    (folder / "m" / "model.safetensors").write_text("mine")
    return ("train", "--out", "m", *PHANTOM, "--model", "small_cnn", "--epochs", "1")


for name, content in (
    ("empty", ""),
    ("list", "[]"),
    ("half", '{"format": 1, "rows": ['),
    ("deep", '{"a":' * 100_000),
    ("number", "3"),
    ("rows-missing", '{"format": 1}'),
    ("rows-a-word", '{"format": 1, "rows": "x", "checks": [], "conditions": {}}'),
    ("nothing-known", '{"format": 1, "rows": [], "checks": [], "conditions": {}, "examples": [], "seconds": {}}'),
):

    def _results(folder: Path, content: str = content) -> tuple[str, ...]:
        (folder / "run").mkdir()
        (folder / "run" / "results.json").write_text(content)
        return ("report", "run")

    case(f"results-{name}", "results.json|run")(_results)


# -- options ---------------------------------------------------------------------------------------------

for name, arguments, said in (
    ("model-misspelt", ("--model", "resnet19"), "resnet18"),
    ("model-empty", ("--model", ""), "model"),
    ("model-control", ("--model", "\x1b[2Jx"), "x"),
    ("model-option", ("--model", "small_cnn:wdth=3"), "wdth"),
    ("model-option-huge", ("--model", "small_cnn:depth=1000000"), "depth|limit|modules|parameters"),
    ("model-option-negative", ("--model", "small_cnn:width=-1"), "width"),
    ("eps-huge", ("--eps", "1e300"), "eps|pixel range"),
    ("eps-of-words", ("--eps", "a,b,c"), "'a'"),
    ("eps-many-slashes", ("--eps", "1/2/255"), "1/2/255"),
    ("eps-infinite", ("--eps", "inf"), "eps|pixel range"),
    ("attack-empty-option", ("--attacks", "pgd:"), "pgd"),
    ("attack-twice-an-option", ("--attacks", "pgd:steps=1:steps=2"), "steps"),
    ("attack-steps-huge", ("--attacks", f"pgd:steps={'9' * 5000}"), "steps"),
    ("attack-control", ("--attacks", "\x1b[2J"), "known"),
    ("auto-of-another-name", ("--auto", "pgd"), "auto"),
    ("seed-a-word", ("--seed", "x"), "--seed"),
    ("limit-huge", ("--limit", "9" * 5000), "--limit"),
    ("epochs-word", ("--epochs", "ten"), "--epochs"),
    ("lr-nan", ("--lr", "nan"), "lr"),
    ("lr-infinite", ("--lr", "inf"), "lr"),
    ("size-word", ("--size", "big"), "--size"),
    ("size-negative", ("--size", "-3"), "size"),
    ("size-huge", ("--size", "1000000"), "size|limit"),
    ("fit", ("--fit", "squash"), "fit"),
    ("map-without-equals", ("--map", "a"), "map"),
    ("pretrained-missing", ("--pretrained", "none.pth"), "none.pth"),
    ("healthy-unknown", ("--healthy", "fine"), "'fine'"),
    ("device-number", ("--device", "cuda:99"), "cuda:99"),
    ("unknown", ("--nothing", "1"), "--nothing"),
):
    case(f"option-{name}", said)(lambda folder, arguments=arguments: ("audit", *PHANTOM, *QUICK, *OUT, *arguments))

for command, arguments, said in (
    ("universal", ("--method", "zap"), "'zap'"),
    ("universal", ("--zeta", "-1"), "zeta"),
    ("universal", ("--target", "nobody"), "'nobody'"),
    ("universal", ("--source", "csv:none.csv"), "none.csv"),
    ("detect", ("--detectors", "zap"), "'zap'"),
    ("detect", ("--fpr", "2"), "fpr"),
    ("detect", ("--layers", "nowhere"), "'nowhere'"),
    ("detect", ("--protocol", "best"), "protocol|'best'"),
    ("detect", ("--modality", "smell"), "'smell'"),
    ("detect", ("--severities", "9"), "severit"),
    ("detect", ("--prevalence", "-1"), "prevalence"),
    ("evade", ("--detectors", "zap"), "'zap'"),
    ("evade", ("--evasions", "zap"), "'zap'"),
    ("evade", ("--at", "9/255"), "at"),
    ("explain", ("--measures", "zap"), "'zap'"),
    ("explain", ("--cam-layer", "nowhere"), "'nowhere'"),
    ("explain", ("--eps", "1/255,2/255"), "eps|number"),
    ("search", ("--features", "smell"), "'smell'"),
    ("search", ("--methods", "zap"), "'zap'"),
    ("search", ("--budget", "0"), "budget"),
    ("search", ("--folds", "1"), "folds"),
    ("search", ("--seeds", "0"), "seeds"),
    ("search", ("--what", "everything"), "'everything'"),
):

    def _wrong(folder: Path, command: str = command, arguments: tuple[str, ...] = arguments) -> tuple[str, ...]:
        saved(folder)
        return (command, "--model", "m", *PHANTOM, *OUT, *arguments)

    case(f"option-{command}{arguments[0]}", said)(_wrong)

for name, arguments, said in (
    ("method", ("--method", "hope"), "hope"),
    ("rounds", ("--rounds", "0"), "rounds"),
    ("epochs", ("--epochs", "0"), "epochs"),
    ("target", ("--target", "nobody"), "'nobody'"),
):

    def _defend(folder: Path, arguments: tuple[str, ...] = arguments) -> tuple[str, ...]:
        saved(folder)
        return ("defend", "--model", "m", *PHANTOM, *OUT, *arguments)

    case(f"option-defend-{name}", said)(_defend)

for name, arguments, said in (
    ("method", ("--method", "magic"), "'magic'"),
    ("method-option", ("--method", "trades:beta=-1"), "beta"),
    ("eps", ("--eps", "0"), "--eps"),
    ("epochs", ("--epochs", "0"), "epochs"),
    ("minutes", ("--minutes", "0"), "minutes"),
):

    def _harden(folder: Path, arguments: tuple[str, ...] = arguments) -> tuple[str, ...]:
        saved(folder)
        return ("harden", "--model", "m", *PHANTOM, *OUT, *arguments)

    case(f"option-harden-{name}", said)(_harden)


# -- studies ---------------------------------------------------------------------------------------------

for name, content, said in (
    ("missing", None, "s.py"),
    ("empty", "", "s.py"),
    ("syntax", "def study(:\n", "s.py"),
    ("raises", "raise ValueError('one\\ntwo')\n", "one"),
    ("leaves", "import sys; sys.exit(7)\n", "s.py|exit"),
    ("no-study", "x = 3\n", "s.py"),
    ("binary", "\x00\x01", "s.py"),
):

    def _study(folder: Path, content: str | None = content) -> tuple[str, ...]:
        if content is not None:
            (folder / "s.py").write_text(content)
        return ("study", "run", "s.py", "--out", "run")

    case(f"study-{name}", said)(_study)

case("study-report-of-nothing", "none")(lambda folder: ("study", "report", "none"))
case("study-diff-of-nothing", "none")(lambda folder: ("study", "diff", "none", "nobody"))
case("study-show-of-a-file", "file")(lambda folder: ((folder / "file").write_text(""), ("study", "show", "file"))[1])


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder, so that it can be compared: nothing of the user's may change."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fspath(path.relative_to(folder))
        if "__pycache__" in name:
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found
