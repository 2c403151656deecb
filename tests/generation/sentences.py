"""Real texts, a candidate of another kind, and a server that writes texts like either."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.llm.fake_server import Answer, FakeServer, chat

_WORDS = {
    "real": (
        "which what whose", "cheap free popular recent paid rated new old large small",
        "apps games tools maps readers players editors books songs films",
        "have got earned lost kept gained reached shown",
        "reviews ratings installs downloads updates refunds stars users",
        "in from since before after during", "march april june july winter summer 2017 2018 2019",
        "for by with without", "children students teachers doctors drivers cooks artists",
    ),
    "made": (
        "please kindly hello", "tell give show send bring write", "me us them him her",
        "every any some one another", "story poem letter recipe tale song joke rumor",
        "about of on over", "dragons castles wizards oceans planets forests robots ghosts",
        "at during before after", "night dawn noon dusk midnight breakfast dinner supper",
    ),
}  # fmt: skip
LABELS = ("question", "request")


def sentences(kind: str, n: int, seed: int) -> list[str]:
    """Return n different sentences of a kind; those of other seeds are others, mostly."""
    draw = random.Random(f"{kind}{seed}")
    made: dict[str, None] = {}
    while len(made) < n:
        made[" ".join(draw.choice(words.split()) for words in _WORDS[kind])] = None
    return list(made)


def write_data(folder: Path, n_real: int = 80, n: int = 80, *, labels: bool = True) -> None:
    """Write `real.json` and `made.json`, a candidate with classes."""
    real = [{"text": text} for text in sentences("real", n_real, 1)]
    (folder / "real.json").write_text(json.dumps(real))
    made: list[dict[str, Any]] = [{"text": text} for text in sentences("made", n, 2)]
    if labels:
        made = [{**row, "kind": LABELS[i % 4 == 0]} for i, row in enumerate(made)]
    (folder / "made.json").write_text(json.dumps(made))


class WritingServer(FakeServer):
    """A server whose model writes sentences of a kind that depends on the round.

    Args:
        kinds: Kind of the sentences in each round; a function writes the texts of a call itself.
        pause_s: Time that an answer takes.
    """

    def __init__(
        self, kinds: dict[int, str | Callable[[str, int], list[str]]], pause_s: float = 0.0
    ) -> None:
        self.kinds, self.pause_s = kinds, pause_s
        self._n_written, self._lock = 0, threading.Lock()
        super().__init__(self._respond)

    @property
    def prompts(self) -> list[str]:
        """All prompts received."""
        return [body["messages"][0]["content"] for body in self.requests]

    @property
    def calls(self) -> list[str]:
        """Prompts that asked for examples."""
        return [prompt for prompt in self.prompts if '{"examples"' in prompt]

    def _respond(self, body: Any, _: Any) -> Answer:
        time.sleep(self.pause_s)
        prompt = body["messages"][0]["content"]
        if '{"examples"' not in prompt:
            points = [f"Dataset B has property {i}, unlike dataset A." for i in range(10)]
            n = int(re.search(r"Write exactly (\d+) points", prompt)[1])  # type: ignore[index]
            return 200, chat(json.dumps({"points": points[:n]}))
        number = int(re.findall(r"in round (\d+)", prompt)[-1])
        n = int(re.findall(r"Write exactly (\d+) new", prompt)[-1])
        label = re.findall(r'The field "kind" of each is "(\w+)"', prompt)
        kind = self.kinds[number]
        if callable(kind):
            texts = kind(prompt, n)
        else:
            with self._lock:
                self._n_written += 1
                seed = 1000 * number + self._n_written
            texts = sentences(kind, n, seed)
        examples = [{"text": text, **({"kind": label[0]} if label else {})} for text in texts]
        return 200, chat(json.dumps({"examples": examples}))


def engine(server: FakeServer, **more: Any) -> dict[str, Any]:
    """Return the specification of an engine that asks the server."""
    return {"engine": "openai", "model_id": "m", "base_url": server.url, **more}
