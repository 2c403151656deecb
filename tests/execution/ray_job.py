"""A ranking on a Ray cluster that loses a node: `python -m tests.execution.ray_job FOLDER`.

A process of its own, as Ray changes the process that it is started in. Prints JSON.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

warnings.simplefilter("ignore")

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402

from synque_select import rank  # noqa: E402
from synque_select.execution import Executor, get_executor  # noqa: E402
from synque_select.probing.probes import run_probes  # noqa: E402
from synque_select.records.store import RunStore  # noqa: E402
from synque_select.selection.scorer import Scorer  # noqa: E402
from synque_select.tuning import TuneOptions, tune_mixture  # noqa: E402
from synque_select.types import Ranking  # noqa: E402
from tests.execution.encoders import SlowLetters  # noqa: E402
from tests.execution.models import SlowModel  # noqa: E402
from tests.execution.units import Work  # noqa: E402
from tests.training.tiny import TinyModel, candidates, data_module, real_sample  # noqa: E402

N_CANDIDATES, N_EXAMPLES = 11, 20
SUITE = ["mmd", "pad", "coverage", "ngram"]
OBJECT_STORE = 80_000_000  # bytes; the least that Ray allows is 75 MB


def texts(seed: int) -> list[dict[str, str]]:
    letters = random.Random(seed)
    return [{"text": "".join(letters.choices("abcdefgh ", k=30))} for _ in range(N_EXAMPLES)]


def ranked(folder: Path, **options: object) -> Ranking:
    data = {f"c{i}": texts(i) for i in range(N_CANDIDATES)}
    return rank(
        data,
        texts(99),
        proxies=SUITE,
        encoder=SlowLetters(0.4),
        cache_dir=folder,
        progress=False,
        **options,  # type: ignore[arg-type]
    )


def scores(ranking: Ranking) -> str:
    rows = [
        (r.name, r.ranks, {k: vars(s) for k, s in r.scores.items()}) for r in ranking.candidates
    ]
    return json.dumps(rows, default=str)


@contextmanager
def cluster_of_two(folder: Path) -> Iterator[tuple[Cluster, Callable[[], object]]]:
    """Two nodes, each with a cache folder of its own; yields a function that adds the second."""

    def node(name: str) -> dict[str, object]:
        variables = {"SYNQUE_CACHE": str(folder / name)}
        return {"num_cpus": 1, "object_store_memory": OBJECT_STORE, "env_vars": variables}

    cluster = Cluster(
        initialize_head=True, head_node_args={**node("first"), "include_dashboard": False}
    )
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster, lambda: cluster.add_node(**node("second"))
    finally:
        ray.shutdown()
        cluster.shutdown()


def lines(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


def remove_when(cluster: Cluster, node: object, log: Path, n: int) -> threading.Thread:
    """Remove a node as soon as the log has n lines of at least two processes."""

    def watch() -> None:
        while len(lines(log)) < n or len({line.partition(":")[0] for line in lines(log)}) < 2:
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def with_second(add_node: Callable[[], object], executor: Executor, folder: Path) -> object:
    """Add the second node, and wait until the executor has a worker on it."""
    node = add_node()
    processes: set[object] = set()
    for attempt in range(200):
        units = [Work(f"{attempt}-{i}", str(folder / "warm"), "takes time") for i in range(4)]
        processes = {pid for _, pid in executor.run(units)}
        if len(processes) == 2:
            return node
    raise AssertionError(f"{processes} after {attempt} attempts")


def judge_log() -> Path:
    return Path(os.environ["SLOW_JUDGE_LOG"])


def judged(
    cluster: Cluster, add_node: Callable[[], object], executor: Executor, folder: Path
) -> dict[str, object]:
    """Judge with the loss of a node, and compare with judging in one process."""

    def rows(where: str, executor: Executor | None) -> str:
        config = {
            "scorer": {"engine": "tests.execution.encoders:SlowJudge"},
            "answers": str(folder / f"{where}.sqlite"),
            "progress": False,
        }
        data = {f"c{i}": texts(i) for i in range(3)}
        ranking = rank(
            data,
            texts(99),
            proxies=[{"key": "lens_zero_shot", "config": config}],
            cache_dir=folder / where,
            progress=False,
            executor=executor,
        )
        return scores(ranking)

    alone = rows("judged-alone", None)
    n_prompts = len(lines(judge_log()))
    judge_log().unlink()
    node = with_second(add_node, executor, folder)
    before = vars(executor.counts).copy()
    thread = remove_when(cluster, node, judge_log(), 40)
    lost = rows("judged-by-two", executor)
    thread.join(60)
    asked = Counter(line.partition(":")[2] for line in lines(judge_log()))
    known = len(lines(judge_log()))
    again = rows("judged-by-two", executor)
    return {
        "equal": lost == alone == again,
        "prompts": n_prompts,
        "distinct": len(asked),
        "twice": known - len(asked),
        "most": max(asked.values()),
        "asked again": len(lines(judge_log())) - known,
        "lost": executor.counts.lost - before["lost"],
    }


def probed(
    cluster: Cluster, add_node: Callable[[], object], executor: Executor, folder: Path
) -> dict[str, object]:
    """Train probes with the loss of a node, and compare with those of one process."""
    log = Path(os.environ["SLOW_STEPS_LOG"])
    ranking = rank(candidates(), real_sample(), proxies=["ngram"], cache_dir=folder, progress=False)

    def metrics(where: str, executor: Executor | None) -> list[object]:
        records = run_probes(
            SlowModel,
            data_module(),
            ranking,
            max_steps=4,
            store=RunStore(folder / where / "records.sqlite"),
            trainer_options={"accelerator": "cpu", "default_root_dir": str(folder)},
            executor=executor,
            progress=False,
        )
        return [(record.run_id, record.mixture.names, dict(record.metrics)) for record in records]

    alone = metrics("probed-alone", None)
    log.unlink()
    node = with_second(add_node, executor, folder)
    before = vars(executor.counts).copy()
    thread = remove_when(cluster, node, log, 3)
    lost = metrics("probed-by-two", executor)
    thread.join(60)
    return {
        "equal": lost == alone,
        "steps": len(lines(log)),
        "lost": executor.counts.lost - before["lost"],
        "started": executor.counts.started - before["started"],
    }


def tuned(folder: Path) -> dict[str, object]:
    """Run a study whose trials are trained by the cluster."""

    def values(where: str, **options: object) -> list[object]:
        result = tune_mixture(
            TinyModel,
            data_module(),
            max_steps=2,
            options=TuneOptions(n_trials=3, n_startup=1, pruner="none", **options),  # type: ignore[arg-type]
            scorer=Scorer(["ngram"], top_k=2, cache_dir=folder, progress=False),
            store=folder / where / "records.sqlite",
            trainer_options={"accelerator": "cpu"},
            progress=False,
        )
        return [(trial.weights, trial.value) for trial in result.trials]

    return {"equal": values("tuned-alone") == values("tuned-by-ray", executor="ray:workers=1")}


def main(folder: Path) -> dict[str, object]:
    log = Path(os.environ["SLOW_ENCODER_LOG"])
    result: dict[str, object] = {}
    alone = scores(ranked(folder / "alone"))
    log.unlink(missing_ok=True)
    with cluster_of_two(folder) as (cluster, add_node):
        node = add_node()
        thread = remove_when(cluster, node, log, 4)
        with get_executor("ray") as executor:
            lost = ranked(folder / "driver", executor=executor)
            thread.join(60)
            counts = vars(executor.counts).copy()
            result["encoding"] = {
                "equal": scores(lost) == alone,
                "batches": len(lines(log)),
                "pids": len({*lines(log)}),
                **counts,
            }
            result["judging"] = judged(cluster, add_node, executor, folder)
            result["probes"] = probed(cluster, add_node, executor, folder)
            executor.close()  # the study has workers of its own
            result["trials"] = tuned(folder)
            n_before = executor.counts.started
            again = ranked(folder / "driver", executor=executor)
            result["again"] = {
                "equal": scores(again) == alone,
                "more units": executor.counts.started - n_before,
            }
    result["caches of the nodes"] = sum(
        len([*(folder / name).rglob("*.safetensors")]) for name in ("first", "second")
    )
    return result


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
