"""Networks of torchxrayvision by name: decisions are the package's own."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.models import NetworkRequest, load_delivered
from medrobust.models.delivered import xrv as loader

NAME = "densenet121-res224-rsna"


@pytest.fixture(scope="module")
def xrv():
    """Importing it turns warnings off for the process."""
    with warnings.catch_warnings():
        return pytest.importorskip("torchxrayvision")


@pytest.fixture(autouse=True)
def _narrow(monkeypatch, xrv):
    monkeypatch.setattr(loader, "_densenet", lambda package, findings: narrow(package, findings))


def narrow(package, findings: int) -> torch.nn.Module:
    """Its network with few layers."""
    return package.models.DenseNet(num_classes=findings, growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8)


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """Grey levels, (6, 1, 224, 224), from dark to bright."""
    values = np.random.default_rng(0).integers(0, 256, (6, 1, 224, 224)).astype(np.float32)
    return values * np.linspace(0.1, 1, 6, dtype=np.float32)[:, None, None, None]


@pytest.fixture(scope="module")
def own(xrv, grey, tmp_path_factory):
    """Its network with random weights that give decisions of both kinds, and the file of these weights: a pickle of the
    whole network, as it releases them."""
    points = torch.tensor(xrv.models.model_urls[NAME]["op_threshs"])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        net = narrow(xrv, 18).eval()
        net.features.conv0.weight.div_(1024)
        logits = net(torch.from_numpy(xrv.datasets.normalize(grey, 255)).float())
        net.classifier.bias.copy_(torch.nan_to_num(points, 0.5).logit() - logits.quantile(0.4, 0))
    file = tmp_path_factory.mktemp("xrv") / "weights.pt"
    torch.save(net, file)
    net.targets = net.pathologies = xrv.models.model_urls[NAME]["labels"]
    net.op_threshs = points
    return net, file


def test_decisions_are_its_own_on_every_image(xrv, own, grey):
    net, file = own
    clf = mr.Classifier.delivered(f"xrv:{NAME}", weights=str(file))
    assert clf.classes == ("Pneumonia", "Lung Opacity")
    assert (clf.head.name, clf.outputs, clf.size) == ("multilabel", "probabilities", 224)
    assert clf.provenance["notes"] == [f"16 of 18 outputs of {NAME} stand for no finding: left out."]
    with torch.no_grad():
        wanted = net(torch.from_numpy(xrv.datasets.normalize(grey, 255)).float())[:, [8, 16]]
    images = torch.from_numpy(grey / 255).float()
    assert torch.equal(clf.predict(images), (wanted > 0.5).long())
    assert 0 < float((wanted > 0.5).float().mean()) < 1
    assert torch.allclose(clf.probabilities(images), wanted, atol=1e-4)
    x = images[:2].requires_grad_()
    (gradient,) = torch.autograd.grad(clf(x).sum(), x)
    assert bool((gradient.flatten(1).abs().amax(1) > 0).all())


class Constructed:
    """Pickled as a call of a constructor, which would read a file of its choice."""

    def __reduce__(self):
        import torchxrayvision

        return torchxrayvision.models._Transition, (4, 2)


def test_no_constructor_of_a_pickled_network_runs(xrv, tmp_path):
    torch.save(Constructed(), tmp_path / "weights.pt")
    with pytest.raises(mr.InputError, match="would run code"):
        load_delivered(NetworkRequest(f"xrv:{NAME}", (), str(tmp_path / "weights.pt")))


def test_nothing_is_downloaded_and_no_other_pickle_is_restored(xrv, own, tmp_path, monkeypatch):
    monkeypatch.setattr(xrv.utils, "get_cache_dir", lambda: str(tmp_path))
    torch.save(torch.nn.Tanh(), tmp_path / "other.pt")
    cases = (
        (f"xrv:{NAME}", None, "nothing is downloaded unasked"),
        ("xrv:densenet7", None, "it has densenet121-res224-all, "),
        (f"xrv:{NAME}", str(tmp_path / "other.pt"), "holds more than weights"),
    )
    for source, weights, reason in cases:
        with pytest.raises(mr.InputError, match=reason):
            load_delivered(NetworkRequest(source, (), weights))
    with pytest.raises(mr.InputError, match="states its classes"):
        mr.Classifier.delivered(f"xrv:{NAME}", ("a", "b"), weights=str(own[1]))
