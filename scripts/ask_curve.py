"""How many answers of `synque-select ask` settle what no answer can.

    python scripts/ask_curve.py PATH/TO/TASKS [SEEDS]

takes the tasks that `synque-select benchmark tasks` takes. In each seed, 60 real examples are drawn
from the labeled test set; their labels are read only as the answers. It prints, in Markdown:

- how well the candidates are ordered by the answers, by `transfer`, and by both, with questions
  drawn where the candidates' heads disagree, and drawn uniformly: Spearman's coefficient with the
  true quality (a small learner on the encoder's embeddings), and how much worse the first candidate
  is than the best, each as mean and standard deviation over the seeds;
- how often the intervals of the accuracies contain the accuracy on all 60 examples, how wide they
  are, and how often a candidate is shown worse, rightly or wrongly;
- where five of nine candidates have two classes exchanged: how often the answers find the right
  camp, the wrong one, or settle nothing.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from synque_select.benchmark.task_folders import LabeledTask, TestSet, find_labeled_tasks
from synque_select.benchmark.task_quality import Learners, quality
from synque_select.data.answers import QuestionSheet
from synque_select.data.candidate import Candidate, RealSample
from synque_select.encoders import embed, get_encoder
from synque_select.functional.active_selection import importance_weights
from synque_select.proxies.base import ProxyInput
from synque_select.proxies.transfer import Transfer
from synque_select.selection.ask import AnswerReport, Panel, assess

_N_REAL = 60
_NUMBERS = (6, 12, 24, 48)


class _Uniform(Panel):
    """A panel whose questions are drawn uniformly."""

    @property
    def scores(self) -> NDArray[np.float64]:  # type: ignore[override]
        """Equal chances."""
        return np.zeros(self.shares.shape[1])


_KINDS: Mapping[str, type[Panel]] = {"contested": Panel, "uniform": _Uniform}


@dataclass(frozen=True, eq=False)
class Draw:
    """One draw of a real sample.

    Args:
        real: The real sample, without labels.
        labels: (60,) its labels.
        embeddings: (60, d) its embeddings.
    """

    real: RealSample
    labels: NDArray[np.str_]
    embeddings: torch.Tensor

    @classmethod
    def of(cls, test: TestSet, embeddings: torch.Tensor, seed: int) -> Draw:
        """Draw from a test set without replacement."""
        rows = np.random.default_rng([seed, 1]).permutation(len(test.labels))[:_N_REAL]
        texts = [str(test.examples.views[int(i)]) for i in test.positions[rows]]
        return cls(RealSample("real", texts), test.labels[rows], embeddings[torch.from_numpy(rows)])

    def panels(
        self, candidates: list[Candidate], rows: Mapping[str, torch.Tensor]
    ) -> dict[str, Panel]:
        """Fit the heads of the candidates, as the command does, once for both kinds of draws."""
        panel = Panel.fit(candidates, self.embeddings, rows, encoder="", seed=self.seed)
        return {name: kind(**vars(panel)) for name, kind in _KINDS.items()}

    @property
    def seed(self) -> int:
        """A seed for the draws of the questions that differs between the real samples."""
        return int(self.real.sha256[:6], 16)

    def answer(self, sheet: QuestionSheet) -> QuestionSheet:
        """Fill in the true labels; "?" where no candidate has the class."""
        for number, question in enumerate(sheet.questions):
            label = str(self.labels[question.example])
            sheet = sheet.with_label(number, label if label in sheet.classes else "?")
        return sheet


def transfer(
    candidates: list[Candidate], rows: Mapping[str, torch.Tensor], draw: Draw
) -> NDArray[np.float64]:
    """Score the candidates by the proxy `transfer`."""
    real = ProxyInput("real", draw.real.views, "text", draw.real.digests, draw.embeddings)
    inputs = [
        ProxyInput(c.name, c.views, "text", c.digests, rows[c.name], labels=c.labels)
        for c in candidates
    ]
    scores = Transfer().score(real, inputs, seed=0, device=torch.device("cpu"))
    return scores.values.numpy()


def combined(
    prior: NDArray[np.float64], answers: NDArray[np.float64], variance: float
) -> NDArray[np.float64]:
    """Return the scores without answers, moved towards the answers by how exact these are.

    Both are taken relative to their mean. The share is the usual one of empirical Bayes, without a
    constant to choose: t² / (t² + v), with the sampling variance v of the answers and the variance
    t² of what remains of their differences from the prior.
    """
    prior, answers = prior - prior.mean(), answers - answers.mean()
    between = max(float(np.mean((answers - prior) ** 2)) - variance, 0.0)
    return prior + between / (between + variance + 1e-12) * (answers - prior)


def sampling_variance(panel: Panel, sheet: QuestionSheet) -> float:
    """Return the mean variance of the candidates' accuracies relative to their mean."""
    n, asked = panel.shares.shape[1], [q for q in sheet.answered if q.label in panel.classes]
    at = [panel.classes.index(q.label) for q in asked]
    right = panel.shares[:, [q.example for q in asked], at]
    weights = importance_weights(np.array([q.probability for q in asked]), n)
    values = (right - right.mean(0)) * weights / weights.mean()
    m = len(asked)
    return float(values.var(1, ddof=1).mean()) / m * (1 - m / n)


def _limited(panel: Panel, sheet: QuestionSheet, m: int) -> tuple[QuestionSheet, AnswerReport]:
    part = replace(sheet, questions=sheet.questions[:m])
    return part, assess(panel, part)


def order_lines(
    task: LabeledTask,
    rows: Mapping[str, torch.Tensor],
    tested: torch.Tensor,
    truth: NDArray[np.float64],
    n_seeds: int,
) -> list[str]:
    """Return the lines of the first two tables of one task."""
    assert task.test is not None
    candidates = [*task.candidates]
    measured: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    checks: dict[tuple[str, int], list[tuple[float, float, float, float]]] = defaultdict(list)
    for seed in range(n_seeds):
        draw = Draw.of(task.test, tested, seed)
        prior = transfer(candidates, rows, draw)
        measured["transfer", 0].append(_figures(prior, truth))
        for kind, panel in draw.panels(candidates, rows).items():
            sheet = draw.answer(panel.questions(draw.real, max(_NUMBERS)))
            known = [i for i, label in enumerate(draw.labels) if label in panel.classes]
            at = [panel.classes.index(str(draw.labels[i])) for i in known]
            right = panel.shares[:, known, at].mean(1)
            for m in _NUMBERS:
                part, report = _limited(panel, sheet, m)
                scores = [report.accuracy[name] for name in panel.names]
                values = np.array([score.value for score in scores])
                both = combined(prior, values, sampling_variance(panel, part))
                measured[f"answers, {kind}", m].append(_figures(values, truth))
                measured[f"transfer and answers, {kind}", m].append(_figures(both, truth))
                ends = np.array([(s.low, s.high) for s in scores], dtype=float)
                covered = (ends[:, 0] <= right + 1e-9) & (right <= ends[:, 1] + 1e-9)
                worse = np.isin(panel.names, report.evidence.worse)
                false = worse & (right >= right.mean())
                width = float(np.mean(ends[:, 1] - ends[:, 0]))
                checks[kind, m].append((covered.mean(), width, worse.sum(), float(false.any())))
    lines = []
    for (name, m), values in measured.items():
        rho, regret = np.array(values).T
        spread = [f"{np.mean(v):.2f} ({np.std(v, ddof=1):.2f})" for v in (rho,)]
        lost = f"{np.mean(regret):.3f} ({np.std(regret, ddof=1):.3f})"
        lines.append(f"| {task.name} | {name} | {m} | {spread[0]} | {lost} |")
    lines.append("")
    for (kind, m), rows_ in checks.items():
        covered_, width_, worse_, false_ = np.array(rows_).mean(0)
        lines.append(
            f"| {task.name} | {kind} | {m} | {covered_:.3f} | {width_:.2f} | {worse_:.2f} | "
            f"{false_:.2f} |"
        )
    return lines


def _figures(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float]:
    if np.ptp(scores) == 0:
        return 0.0, float(truth.max() - truth.mean())
    return float(spearmanr(scores, truth)[0]), float(truth.max() - truth[np.argmax(scores)])


def camp_lines(
    task: LabeledTask, rows: Mapping[str, torch.Tensor], tested: torch.Tensor, n_seeds: int
) -> list[str]:
    """Return the lines of the third table of one task."""
    assert task.test is not None
    first, second = (name for name, _ in Counter(task.test.labels.tolist()).most_common(2))
    exchanged = {first: second, second: first}
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    preferred = n_found = 0
    for seed in range(n_seeds):
        picked = np.random.default_rng([seed, 2]).permutation(len(task.candidates))[:9]
        candidates = [task.candidates[i] for i in picked]
        wrong = [candidate.name for candidate in candidates[:5]]
        changed = [_relabeled(c, exchanged) if c.name in wrong else c for c in candidates]
        draw = Draw.of(task.test, tested, seed)
        own = {c.name: rows[c.name] for c in changed}
        scores = transfer(changed, own, draw)
        preferred += bool(scores[5:].mean() > scores[:5].mean())
        for kind, panel in draw.panels(changed, own).items():
            n_found += kind == "contested" and panel.camps is not None
            sheet = draw.answer(panel.questions(draw.real, max(_NUMBERS)))
            for m in _NUMBERS:
                evidence = _limited(panel, sheet, m)[1].evidence
                # the camps may differ from what was exchanged by a candidate
                n_wrong = len(set(evidence.wrong_camp) & set(wrong))
                verdict = "open"
                if evidence.wrong_camp:
                    verdict = "right" if 2 * n_wrong > len(evidence.wrong_camp) else "wrong"
                counts[kind, m][verdict] += 1
    lines = [
        f"| {task.name} | {kind} | {m} | "
        + " | ".join(f"{each[v] / n_seeds:.2f}" for v in ("right", "wrong", "open"))
        + " |"
        for (kind, m), each in counts.items()
    ]
    return [
        f"<!-- {task.name}: camps found in {n_found / n_seeds:.2f} of the seeds; transfer prefers "
        f"the right camp in {preferred / n_seeds:.2f} -->",
        *lines,
    ]


def _relabeled(candidate: Candidate, exchanged: Mapping[str, str]) -> Candidate:
    records = [
        {"text": str(view), "label": exchanged.get(label, label)}
        for view, label in zip(candidate.views, candidate.labels, strict=True)
    ]
    return Candidate(candidate.name, records, "text", "label")


def main() -> None:
    """Measure every task in a folder."""
    n_seeds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    encoder = get_encoder(None, "text")
    for task in find_labeled_tasks(Path(sys.argv[1])):
        if task.test is None:
            continue
        rows = {c.name: embed(encoder, c).embeddings.float() for c in task.candidates}
        every = embed(encoder, task.test.examples).embeddings.float()
        tested = every[torch.from_numpy(task.test.positions)]
        arrays = {name: part.numpy() for name, part in rows.items()}
        learners = Learners.of(task, task.test, arrays, tested.numpy())
        truth = quality(task, learners, 0)["embedding"]
        print(*order_lines(task, rows, tested, truth, n_seeds), sep="\n", flush=True)
        print(*camp_lines(task, rows, tested, n_seeds), sep="\n", flush=True)


if __name__ == "__main__":
    main()
