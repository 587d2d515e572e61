"""A classifier behind an HTTP end-point, on a server of this process."""

from __future__ import annotations

import base64
import contextlib
import http.server
import io
import json
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

import medrobust as mr
from medrobust.models import http_endpoint
from medrobust.models.http_endpoint import HttpEndpoint
from medrobust.models.kept_answers import KeptAnswers

pytestmark = pytest.mark.loopback


class Server(http.server.ThreadingHTTPServer):
    """Calls an image bright where its mean is above a half. failing: statuses of the next answers; asked: images."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.requests, self.failing, self.key = 0, 0, [], "labels"
        self.lie: list[str] | None = None
        """Parts of its answer, in place of the right one."""
        self.pause = 0.0
        """Seconds after each part."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/predict"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        server, body = self.server, self.rfile.read(int(self.headers["Content-Length"]))
        server.requests += 1
        if server.failing:
            self.send_response(server.failing.pop(0))
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(b"no such patient")
            return
        if self.headers["Content-Type"] == "application/x-npy":
            images = np.load(io.BytesIO(body), allow_pickle=False)
        else:
            files = [base64.b64decode(text) for text in json.loads(body)["images"]]
            images = np.stack([np.asarray(Image.open(io.BytesIO(f))) for f in files])[:, None] / 255
        server.asked += len(images)
        mean = images.mean((1, 2, 3))
        labels = np.where(mean > 0.5, "bright", "dark").tolist()
        answer = {"labels": labels} if server.key == "labels" else {"scores": np.stack([-mean, mean - 1], 1).tolist()}
        self.send_response(200)
        self.end_headers()
        for part in [json.dumps(answer)] if server.lie is None else server.lie:
            with contextlib.suppress(OSError):  # who asked is gone
                self.wfile.write(part.encode())
            time.sleep(server.pause)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(http_endpoint, "LONGEST_WAIT", 0.0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


NAMES = ("dark", "bright")
IMAGES = np.random.default_rng(0).random((5, 1, 4, 4), dtype=np.float32)


@pytest.mark.parametrize("send", ["npy", "png"])
@pytest.mark.parametrize("key", ["labels", "scores"])
def test_it_decides_as_the_server_does(server, send, key):
    server.key = key
    clf = mr.Classifier(mr.models.BlackBoxModel(HttpEndpoint(server.url, send), ("dark", "bright")), ("dark", "bright"))
    with pytest.warns(UserWarning, match="Only answers"):
        assert clf.predict(torch.from_numpy(IMAGES)).tolist() == (IMAGES.mean((1, 2, 3)) > 0.5).astype(int).tolist()
    assert clf.labels_only is (key == "labels")


def test_a_busy_server_is_asked_again_and_a_refusal_is_said(server):
    server.failing = [503, 429, 500]
    assert len(HttpEndpoint(server.url)(IMAGES)) == 5
    assert server.requests == 4
    for status, said in ((404, "404"), (302, "302")):  # no image goes to another address
        server.failing = [status]
        with pytest.raises(mr.InputError, match=f"{said}.: .*no such patient"):
            HttpEndpoint(server.url)(IMAGES)
    server.failing = [503] * 9
    with pytest.raises(mr.InputError, match="did not answer 6 times"):
        HttpEndpoint(server.url)(IMAGES)


def test_no_image_is_asked_about_twice_and_the_cap_holds_over_runs(server, tmp_path):
    path = tmp_path / "answers" / "answers.sqlite"
    first = KeptAnswers(HttpEndpoint(server.url), NAMES, path)
    again = np.concatenate([IMAGES[:3], IMAGES[:3]])
    assert first(again).tolist() == first(again[:3]).tolist() * 2
    assert server.asked == first.queries == 3
    second = KeptAnswers(HttpEndpoint(server.url), NAMES, path, max_queries=4)  # after a kill
    second(IMAGES[:4])
    assert server.asked == 4
    with pytest.raises(mr.InputError, match="asked 4 times, and --max-queries allows 4"):
        second(IMAGES)
    assert server.asked == 4


LIES = {
    "<html>busy</html>": "no readable JSON",
    "[1]": "must hold a JSON object",
    '{"labels": ["dark"]}': r"gave .1,. for 5 image",
    '{"labels": ["grey", "dark", "dark", "dark", "dark"]}': "the label 'grey'",
    '{"scores": [[0, NaN], [0, 1], [0, 1], [0, 1], [0, 1]]}': "no number .NaN.",
    '{"scores": [[0], [0, 1], [0, 1], [0, 1], [0, 1]]}': "no table of numbers",
    '{"scores": [], "labels": []}': "must answer",
}


@pytest.mark.parametrize(("answer", "said"), LIES.items())
def test_an_answer_that_is_none_is_said_and_not_kept(server, tmp_path, answer, said):
    server.lie = [answer]
    ask = KeptAnswers(HttpEndpoint(server.url), NAMES, tmp_path / "answers.sqlite")
    with pytest.raises(mr.InputError, match=said):
        ask(IMAGES)
    server.lie = None
    assert len(ask(IMAGES)) == 5


def test_an_answer_that_never_ends_is_given_up(server, monkeypatch):
    monkeypatch.setattr(http_endpoint, "RETRIES", 1)
    server.lie, server.pause = ["{"] * 8, 0.02
    with pytest.raises(mr.InputError, match=r"did not answer 2 times .TimeoutError: the answer is not over in time"):
        HttpEndpoint(server.url, timeout=0.05)(IMAGES)


def test_addresses_that_are_refused():
    for url, said in (("http://10.0.0.5/p", "--allow-remote"), ("http://me:secret@127.0.0.1/p", "password")):
        with pytest.raises(mr.InputError, match=said):
            HttpEndpoint(url)
    assert HttpEndpoint("http://10.0.0.5/p", allow_remote=True).url
