"""`study.json`: the result of a search for a mixture, as typed values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synque_select.types import Mixture, Ranking
from synque_select.utils.display import BLUE, GREY, INK, Shown, drawable, new_axes
from synque_select.utils.json_types import Json, JsonObject
from synque_select.utils.wording import counted, listed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["TrialRow", "TuningResult"]


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study.

    Args:
        number: Its number in the study.
        state: "complete", "pruned", "failed" or "running".
        role: "start" (from the proxies, or the best of an earlier study), "random", "adaptive" (by
            the sampler), "reused" (the same fit was run before the study) or "prior" (a fit on
            other candidates, which only guides the sampler).
        start: Name of the start, such as "top 3"; empty for other trials.
        value: The metric at the end of the budget; the last reported one for a pruned trial; None
            if it is undefined.
        best_so_far: Best value of the complete trials up to this one; None before the first.
        weights: The weights of the mixture; empty until it is sampled.
        hyper_parameters: The user's hyper-parameters.
        seconds: Wall time of the fit; None if nothing was trained.
        retry_of: Number of the unfinished trial that this one repeats (its worker was killed, or it
            ended with an error), or None.
        source: Probe, or study and trial, that a reused trial or a prior comes from; else "".
    """

    number: int
    state: str
    role: Literal["start", "random", "adaptive", "reused", "prior"]
    start: str
    value: float | None
    best_so_far: float | None
    weights: Mapping[str, float]
    hyper_parameters: JsonObject
    seconds: float | None
    retry_of: int | None
    source: str = ""


@dataclass(frozen=True, repr=False)
class TuningResult(Shown):
    """A tuned mixture and the study that it comes from.

    `print` and a notebook show one row per trial; `plot` draws the trials in their order.

    Args:
        mixture: The mixture of the best complete trial, for `datamodule.set_mixture`.
        value: Its metric, which is optimistic: the mixture was chosen because of it.
        hyper_parameters: The user's hyper-parameters in the best trial.
        metric: The metric, or key of a proxy, that was optimized.
        mode: "max" or "min".
        study_name: Name of the study; the same name and storage continue it.
        storage: Path or URL of the storage, or its class if it has neither.
        budget: Budget of a trial, and the settings of the search.
        trials: All trials that were begun, and those that were reused, in the order of their
            numbers.
        messages: What a reader must know.
        ranking: The ranking of the candidates.
        untrained: The metric of the model as it is, with the hyper-parameters of the best trial;
            None if it was not measured.
        priors: Trials of an earlier study on other candidates, which have guided the sampler. Their
            weights are those that are left of their mixtures, their values those of the mixtures
            that were trained; none of them was trained on these data.
    """

    mixture: Mixture
    value: float
    hyper_parameters: JsonObject
    metric: str
    mode: Literal["max", "min"]
    study_name: str
    storage: str
    budget: JsonObject
    trials: tuple[TrialRow, ...]
    messages: tuple[str, ...]
    ranking: Ranking
    untrained: float | None = None
    priors: tuple[TrialRow, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """The best value and its mixture."""
        n = sum(trial.state == "complete" for trial in self.trials)
        better = "highest" if self.mode == "max" else "lowest"
        parts = sorted(self.mixture.weights.items(), key=lambda part: -part[1])
        mixture = listed([f"{name} {weight:.2f}" for name, weight in parts], 6)
        return (
            f"Study {self.study_name}: {better} {self.metric} of "
            f"{counted(n, 'complete trial')} is {self.value:.4g}.",
            f"Its mixture: {mixture}.",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The model as it is, and what a reader must know."""
        if self.untrained is None:
            return self.messages
        return (f"{self.metric} of the model as it is: {self.untrained:.4g}.", *self.messages)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per trial, whose number is the index.

        The columns are those of `TrialRow`, with one per candidate for its weight (`weight of a`)
        and one per hyper-parameter.
        """
        import pandas as pd

        rows = []
        for trial in self.trials:
            values = dict(vars(trial))
            del values["weights"], values["hyper_parameters"], values["number"]
            weights = {f"weight of {name}": weight for name, weight in trial.weights.items()}
            rows.append(values | weights | dict(trial.hyper_parameters))
        index = pd.Index([trial.number for trial in self.trials], name="trial")
        return pd.DataFrame(rows, index=index)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the value of each trial, and the best so far, in the order of their numbers.

        Args:
            ax: Axes of matplotlib to draw on; None for new ones.

        Returns:
            The axes. Pruned trials are hollow: their value is the last one that they reported.

        Raises:
            DependencyError: matplotlib is not installed.
        """
        ax = new_axes(ax)
        for state, face in (("complete", BLUE), ("pruned", "none")):
            points = [
                (trial.number, trial.value)
                for trial in self.trials
                if trial.state == state and trial.value is not None
            ]
            if points:
                ax.plot(*zip(*points, strict=True), "o", color=BLUE, mfc=face, label=state)
        best = [
            (trial.number, trial.best_so_far)
            for trial in self.trials
            if trial.best_so_far is not None
        ]
        if best:
            ax.step(*zip(*best, strict=True), where="post", color=GREY, label="best so far")
        if self.untrained is not None:
            ax.axhline(self.untrained, color=INK, lw=0.8, ls=":", label="the model as it is")
        better = "higher" if self.mode == "max" else "lower"
        ax.set_xlabel("trial")
        ax.set_ylabel(f"{drawable(self.metric)}; {better} is better", parse_math=False)
        ax.legend(frameon=False)
        return ax

    def _table(self) -> pd.DataFrame:
        """Return the trials without the weights, of which there may be hundreds."""
        return super()._table()[["trial", "state", "role", "value", "best_so_far", "seconds"]]

    def to_dict(self) -> dict[str, Json]:
        """Return the content of `study.json`: plain values, without the ranking."""
        state: dict[str, Json] = {n: value for n, value in vars(self).items() if n != "ranking"}
        return state | {
            "version": 1,
            "mixture": self.mixture.to_dict(),
            "trials": [vars(trial).copy() for trial in self.trials],
            "priors": [vars(trial).copy() for trial in self.priors],
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any], ranking: Ranking) -> TuningResult:
        """Return the result that `to_dict` wrote."""
        given = {name: value for name, value in state.items() if name != "version"}
        given["mixture"] = Mixture.from_dict(state["mixture"])
        given["trials"] = tuple(TrialRow(**trial) for trial in state["trials"])
        given["priors"] = tuple(TrialRow(**trial) for trial in state.get("priors", ()))
        given["messages"] = tuple(state["messages"])
        return cls(**given, ranking=ranking)
