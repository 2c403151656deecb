"""Rankings and run records for the tests of records and report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from synque_select.types import (
    EncoderInfo,
    Mixture,
    ProxyInfo,
    ProxyScore,
    RankedCandidate,
    Ranking,
    RunRecord,
)

SCRIPT = "<script>alert('x')</script>"


def make_ranking(names: Sequence[str] = ("a", "b", "c", "d"), **changes) -> Ranking:
    infos = {
        "pad": ProxyInfo("pad", False, {"protocol": "kfold"}, "distance", "domain", True, 0.5),
        "mdm": ProxyInfo("mdm", True, {}, "distance", "diversity", False, 0.1),
    }
    rows = tuple(
        RankedCandidate(
            name,
            1000 + i,
            f"{i:064x}",
            {
                "pad": ProxyScore(1 + i / 10, 0.9 + i / 10, 1.1 + i / 10),
                "mdm": ProxyScore(0.5 - i / 7 if i != 1 else math.nan, spread=0.02),
            },
            {"pad": i + 1.0, "mdm": i + 1.0 if i != 1 else math.nan, "consensus": i + 1.0},
            max(0.0, 1 - i / 5),
        )
        for i, name in enumerate(names)
    )
    fields = {
        "candidates": rows,
        "proxies": infos,
        "rank_by": "consensus",
        "top_k": 2,
        "n_real": 50,
        "real_sha256": "f" * 64,
        "modality": "text",
        "encoder": EncoderInfo("some/encoder", "abc", 384),
        "seed": 3,
        "packages": {"torch": "2.14.1"},
        "messages": ("mdm is undefined for b.",),
        "wall_s": {"encode": 1.5, "score": 0.5},
    }
    return Ranking(**{**fields, **changes})


def make_record(unit: str = "a", value: float = 0.5, **changes) -> RunRecord:
    seed = changes.get("seed", 0)
    fields = {
        "run_id": f"{unit}-{seed}",
        "kind": "probe",
        "key": {"task": "digits", "optimizer_steps": 80},
        "unit": unit,
        "mixture": Mixture.equal([unit]),
        "scores": {"pad": 1 - value, "mdm": 1.0},
        "orientation": {"pad": False, "mdm": True},
        "metrics": {"val_acc": value},
        "monitor": "val_acc",
        "mode": "max",
        "seed": seed,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return RunRecord(**{**fields, **changes})
