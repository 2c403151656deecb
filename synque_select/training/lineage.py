"""What a run was trained on, as inputs that MLflow and W&B can be asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synque_select.data.candidate import Candidate
from synque_select.data.source_paths import absolute_source
from synque_select.types import Mixture
from synque_select.utils.json_types import JsonObject

__all__ = ["TrainedOn", "log_to_mlflow", "log_to_wandb", "trained_on"]

# limits of MLflow's tables and of W&B's names
_DIGEST = 36
_TEXT = 500
_NAME = 128


@dataclass(frozen=True)
class TrainedOn:
    """One dataset that a run is trained on.

    Args:
        name: Its name.
        weight: Its share of the draws, in 0..1.
        n: Number of its examples, without those that a label filter drops.
        sha256: Hash of the views of these examples.
        source: Where it was loaded from, as an absolute path or a dataset of the Hub; empty for an
            object in memory.
    """

    name: str
    weight: float
    n: int
    sha256: str
    source: str

    def content(self) -> JsonObject:
        """What identifies the data, which is the same in every run on it."""
        return {"name": self.name, "n": self.n, "sha256": self.sha256, "source": self.source}


def trained_on(candidates: Sequence[Candidate], mixture: Mixture) -> list[TrainedOn]:
    """Return the datasets of a mixture.

    Args:
        candidates: At least those of the mixture, as training sees them.
        mixture: Their weights.

    Example:
        >>> part = Candidate("a", ["x", "y"], source="/data/a.json")
        >>> (used,) = trained_on([part], Mixture({"a": 1.0}))
        >>> used.weight, used.n, used.sha256[:8], used.source
        (1.0, 2, 'ac1b859e', '/data/a.json')
    """
    by_name = {candidate.name: candidate for candidate in candidates}
    parts = [(by_name[name], weight) for name, weight in mixture.weights.items()]
    return [
        # a relative path would name other data in another project
        TrainedOn(part.name, weight, len(part), part.sha256, absolute_source(part.source))
        for part, weight in parts
    ]


def log_to_mlflow(client: Any, run_id: str, used: Sequence[TrainedOn]) -> None:
    """Log the datasets as inputs of a run, with the context "training" and the weight as a tag.

    Runs on a dataset are found by `mlflow.search_runs("dataset.digest = '…'")`: the digest is the
    beginning of the SHA-256, which MLflow limits to 36 characters; the tag `sha256` has all.

    Args:
        client: A `MlflowClient`.
        run_id: The run.
        used: The datasets.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for each in used:
        dataset = Dataset(
            name=each.name[:_TEXT],
            digest=each.sha256[:_DIGEST],
            source_type="local" if each.source else "code",
            source=json.dumps({"uri": each.source}),
            profile=json.dumps({"num_rows": each.n}),
        )
        tags = {
            "mlflow.data.context": "training",
            "weight": repr(each.weight),
            "sha256": each.sha256,
        }
        inputs.append(DatasetInput(dataset, [InputTag(key, text) for key, text in tags.items()]))
    client.log_inputs(run_id, datasets=inputs)


def log_to_wandb(run: Any, used: Sequence[TrainedOn]) -> None:
    """Log an artifact of the type "dataset" for each dataset, and one "mixture" with the weights.

    They are inputs of the run, so that W&B shows their lineage. An artifact holds digest, source
    and size, not the data; the same data in the same place is the same version in every run.
    Offline, where W&B has no inputs, they are outputs.

    Args:
        run: A `wandb.Run`.
        used: The datasets.
    """
    for each in used:
        _log_artifact(run, each.name, "dataset", each.content())
    weights: JsonObject = {each.name: {**each.content(), "weight": each.weight} for each in used}
    _log_artifact(run, "synque_mixture", "mixture", weights)


def _log_artifact(run: Any, name: str, kind: str, content: Mapping[str, Any]) -> None:
    import wandb

    plain = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[:_NAME]
    artifact = wandb.Artifact(plain, type=kind, metadata=dict(content))
    with artifact.new_file(f"{kind}.json") as stream:
        json.dump(content, stream, indent=2, sort_keys=True)
    if run.offline:
        run.log_artifact(artifact)
    else:
        run.use_artifact(artifact)
