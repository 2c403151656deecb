"""The sentences of a decision: what the data say, what to train on, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from synque_select.types import Evidence, Mixture, ProxyInfo, Ranking
from synque_select.types.decision import LEAST_REAL, Opening
from synque_select.utils.wording import counted, listed, percent

__all__ = ["Sentences", "never_reads_real"]

_MOST_NAMES = 4


def never_reads_real(info: ProxyInfo | None) -> str:
    """Return why scores that do not depend on the real sample are not tested; empty if they do."""
    if info is None or info.reads_real:
        return ""
    return f"your real sample is never read by {info.key}, so that no difference can be tested"


@dataclass(frozen=True)
class Sentences:
    """What is said of a ranking.

    Args:
        ranking: The ranking.
        evidence: What the data say about the choice.
        names: The candidates that can be selected, best first.
    """

    ranking: Ranking
    evidence: Evidence
    names: Sequence[str]

    @property
    def opening(self) -> Opening:
        """The rule that holds; the first that does is the one to say."""
        evidence = self.evidence
        if evidence.far is not None and evidence.far.is_far:
            return "far"
        if evidence.answers is not None and evidence.answers.left_out:
            return "answers"
        if self._doubtful or evidence.camps:
            return "labels"
        if len(self.names) < 2:
            return "untested"
        if evidence.is_small and not never_reads_real(self._info):
            return "small"
        if evidence.n_apart is None:
            return "untested"
        return "clear" if self.worse else "tie"

    def advice(self, chosen: Sequence[str]) -> str:
        """Say what to do, where no `top_k` was given.

        Args:
            chosen: The candidates that the rules select.
        """
        opening = self.opening
        if opening == "far":
            return f"{self._far()}: generate again."
        if opening == "answers":
            return f"Train on {self._answered(chosen)}."
        if opening == "labels":
            return f"{self._labels()} Until then, train on {self._rest(chosen)}."
        if opening == "small":
            few = f"{self._real()} are too few to choose"
            return f"{few}: train on {self._everything()}, or collect more."
        if len(self.names) == 1:
            return f"Train on {self._list(self.names)}: no other candidate can be selected."
        if opening == "untested":
            return f"Train on {self._everything()}: {self._untested()}."
        if opening == "tie":
            return f"Train on {self._everything()}: your real sample {self._tie('them')}."
        return f"Train on {self._best(chosen)}."

    def obeyed(self, chosen: Sequence[str], top_k: int) -> str:
        """Say what the data say, and that `top_k` decided.

        Args:
            chosen: The candidates that were selected.
            top_k: What was given.
        """
        k = len(chosen)
        if self.opening in ("clear", "tie") and k in self.evidence.clear_at:
            finding = f"{self._list(chosen)}: {self._closer(chosen)}."
        else:
            finding = self.finding()
        given = f"because top_k={top_k} was given"
        if k < top_k:
            few = "the only one" if k == 1 else f"all {k}"
            verb = "is" if k == 1 else "are"
            selected = f"{few[0].upper()}{few[1:]} that can be selected {verb} selected {given}"
        else:
            selected = f"{f'The top {k} are' if k > 1 else 'The best one is'} selected {given}"
        return f"{finding} {selected}{self._although(chosen)}."

    def weighted(
        self, mixture: Mixture, kind: str, top_k: int | None, given: int | None = None
    ) -> str:
        """Say what the data say, and which weights were asked for.

        Args:
            mixture: The weights.
            kind: How they were made.
            top_k: How many are selected at most, if `top_k` was given.
            given: What was given, if that is more.
        """
        of = ""
        if top_k is not None:
            n = f"at most {top_k}" if kind == "mmd_optimal" else f"the top {top_k}"
            of = f" of {n} (top_k={given or top_k} was given)"
        weights = f"{self.weights(mixture)}{self._although(mixture.names)}"
        sentence = f"{self.finding()} The weights{of} are those of mixture={kind!r}: {weights}."
        # with a given top_k, the others are left out for their rank
        return sentence if top_k is not None else f"{sentence}{self._unweighted(mixture, kind)}"

    def searched(self, mixture: Mixture, how: str) -> str:
        """Name a mixture that a search found, and what speaks against its candidates.

        Args:
            mixture: The mixture.
            how: What it is the best by.
        """
        return f"{self.weights(mixture)}: {how}{self._although(mixture.names)}"

    def weights(self, mixture: Mixture) -> str:
        """Return the names and weights of a mixture, the largest first."""
        order = sorted(mixture.weights.items(), key=lambda item: -item[1])
        if len(order) == 1:
            return order[0][0]
        return listed([f"{name} {weight:.3g}" for name, weight in order])

    def finding(self) -> str:
        """Say what the data say, without what to train on."""
        opening = self.opening
        if opening == "far":
            return f"{self._far()}: generate again."
        if opening == "answers":
            return f"{_capital(self._answers())}."
        if opening == "labels":
            return self._labels()
        if opening == "small":
            return f"{self._real()} are too few to choose: collect more."
        if opening == "clear":
            return f"{_capital(self._found_worse(self.worse))}."
        if len(self.names) == 1:
            return f"No candidate but {self._list(self.names)} can be selected."
        if opening == "tie":
            return f"Your real sample {self._tie(f'the {len(self.names)} candidates')}."
        return f"{_capital(self._untested())}."

    def left_out(self) -> list[str]:
        """Say which candidates are never selected."""
        copies, undefined = self.evidence.copies, self.evidence.undefined
        sentences = []
        if copies:
            sentences.append(f"{self._copies(copies)} and {_is(copies)} not selected.")
        degenerate = self.evidence.degenerate
        undefined = tuple(name for name in undefined if name not in degenerate)
        for name, reason in degenerate.items():
            sentences.append(f"{self._list([name])} is not compared, as {reason}: not selected.")
        if undefined:
            has = "has" if len(undefined) == 1 else "have"
            by = self.evidence.rank_by
            sentences.append(f"{self._list(undefined)} {has} no score by {by}: not selected.")
        dissimilar = [name for name in self.evidence.dissimilar if name not in self.names]
        if dissimilar:
            sentences.append(f"{self._dissimilar(dissimilar)}: not selected.")
        return sentences

    def reasons(self) -> tuple[str, ...]:
        """Return what else is said beside the advice."""
        evidence, opening = self.evidence, self.opening
        reasons = [] if opening == "answers" else list(evidence.camps[1:])
        if opening != "answers" and evidence.answers is not None:
            reasons.insert(0, f"{_capital(self._answers())}.")
        if opening == "far" and (evidence.camps or self._doubtful):
            reasons.insert(0, self._labels())
        if opening == "far":
            reasons += self._why_far()
        if evidence.untested:
            if opening != "untested":
                reasons.append(f"{_capital(self._untested())}.")
        elif evidence.is_small:
            reasons.append(
                "Differences, and the stability of the selection, are not tested with fewer than "
                f"{LEAST_REAL} real examples{self._independent}."
            )
        elif evidence.n_apart is not None and evidence.n_pairs:
            reasons.append(self._pairs(evidence.n_apart))
        return tuple(reasons)

    def closest(self, chosen: Sequence[str]) -> tuple[str, ...]:
        """Say which few of the chosen candidates are shown better than every other one.

        The top 3 alone were not shown to be better to train on than all (docs/choosing-a-proxy.md),
        so that few are not the choice; but it must not be read as a tie.

        Args:
            chosen: The candidates that the rules select.

        Returns:
            A sentence, or nothing.
        """
        names = list(self.names)
        sizes = [k for k in self.evidence.clear_at if names[:k] == list(chosen)[:k]]
        if self.opening not in ("clear", "tie") or not self._is_whole or not sizes:
            return ()
        if max(sizes) >= len(chosen):
            return ()
        k = max(sizes)
        only = "it" if k == 1 else "them"
        return (
            f"{self._list(names[:k])}: {self._closer(names[:k])}; top_k={k} selects only {only}.",
        )

    def _pairs(self, n_apart: int) -> str:
        evidence = self.evidence
        if evidence.n_pairs == 1:
            statement = f"The 2 candidates are {'' if n_apart else 'not '}distinguished"
        else:
            pairs = counted(evidence.n_pairs, "pair")
            verb = "is" if n_apart == 1 else "are"
            statement = f"{n_apart:,} of {pairs} of candidates {verb} distinguished"
        sentence = (
            f"{statement} by {evidence.rank_by} (simultaneous 95 % over all pairs, {self._real()})."
        )
        if self._reads_labels:
            return sentence
        return f"{sentence} That says nothing of the quality of their labels."

    def _why_far(self) -> tuple[str, str]:
        far = self.evidence.far
        assert far is not None
        halves = ""
        if not math.isnan(far.halves):
            halves = f", against {percent(far.halves)} for two halves of the real sample"
        nearest = ""
        if far.nearest is not None:
            nearest = (
                " Among as many examples of a candidate as other real ones, the nearest to a real "
                f"example comes from the candidate at most {percent(far.nearest)} of the time; if "
                "they were alike, it would be about 50 %."
            )
        return (
            f"{self._list([far.candidate])} is the hardest for a classifier to distinguish from "
            f"your real sample: it is right {percent(far.accuracy)} of the time (at least "
            f"{percent(math.floor(100 * far.low) / 100)}, 95 % confidence){halves}.{nearest}",
            "Candidates are selected all the same, so that a training run can start; training on "
            "them is not advised.",
        )

    @property
    def _doubtful(self) -> dict[str, float]:
        """The candidates whose labels stand out, of those that can be selected."""
        return {n: share for n, share in self.evidence.contradicted.items() if n in self.names}

    @cached_property
    def trusted(self) -> list[str]:
        """The candidates whose labels nothing speaks against; all, if that would leave none."""
        # of two camps, the smaller may be right: a majority must not decide whose labels stand out
        doubtful = () if self.evidence.camps else self.evidence.contradicted
        out = {*doubtful, *self._answered_against}
        return [name for name in self.names if name not in out] or list(self.names)

    @cached_property
    def worse(self) -> tuple[str, ...]:
        """The candidates shown worse than at least half of the others that are trusted."""
        # of two camps, the smaller may be right, and a score that the larger one decides must not
        # thin it: only answers leave candidates out
        if self.evidence.camps:
            return ()
        names, better = self.trusted, self.evidence.shown_better
        worse = [name for name in names if name in self.evidence.worse]
        if better:  # old files do not have the pairs
            n_better = {n: sum(n in better.get(other, ()) for other in names) for n in worse}
            worse = [name for name in worse if 2 * n_better[name] >= len(names) - 1]
        return tuple(worse) if len(worse) < len(names) else ()

    @property
    def _info(self) -> ProxyInfo | None:
        """The proxy that ranks; None for the consensus."""
        return self.ranking.proxies.get(self.evidence.rank_by)

    @property
    def _is_distance(self) -> bool:
        return self._info is None or self._info.is_distance

    @property
    def _reads_labels(self) -> bool:
        return self._info is not None and self._info.reads_labels

    def _best(self, chosen: Sequence[str]) -> str:
        """Return the candidates that are not shown worse, and why."""
        names, evidence = self.names, self.evidence
        is_best = list(chosen) == list(names[: len(chosen)]) and len(chosen) in evidence.clear_at
        # of many that are better and a few that are not, the few say more
        is_named = len(chosen) <= _MOST_NAMES or len(names) - len(chosen) > _MOST_NAMES
        if self._is_whole and is_best and is_named:
            return f"{self._list(chosen)}: {self._closer(chosen)}"
        dropped = [name for name in names if name not in chosen]
        by, worse = evidence.rank_by, self._worse_than_most()
        if len(names) < len(self.ranking):  # "all but" would include those that are left out
            return f"{self._list(chosen)}: {self._found_worse(dropped)}"
        if len(dropped) <= len(chosen):
            return f"all but {self._list(dropped)}: by {by}, {_these(dropped)} {worse}"
        return f"{self._list(chosen)}: by {by}, each other file is {worse}"

    def _answered(self, chosen: Sequence[str]) -> str:
        """Return what to train on if labels of real examples speak against some candidates."""
        answers = self.evidence.answers
        assert answers is not None
        dropped = [name for name in self.names if name not in chosen]
        worse = [n for n in dropped if n in self.worse and n not in answers.left_out]
        doubtful = [n for n in dropped if n not in (*worse, *answers.left_out)]
        # those that are named as the ones to train on need not be named again
        is_camp = bool(answers.right_camp) and set(chosen) == set(answers.right_camp)
        reasons = [self._answers(right="these" if is_camp else "")]
        if worse:
            reasons.append(self._found_worse(worse))
        if doubtful:
            reasons += self._doubts(doubtful, "the other candidates contradict the labels of {}")
        names = self._list(chosen)
        if not dropped:  # something speaks against each of them
            names = self._everything()
        elif not is_camp and len(dropped) <= len(chosen) and len(self.names) == len(self.ranking):
            names = f"all but {self._list(dropped)}"
        return f"{names}: {'; '.join(reasons)}"

    def _answers(self, right: str = "") -> str:
        """Return what answers show, without a capital letter and a full stop.

        Args:
            right: What to call the camp that is right; empty for its names.
        """
        answers = self.evidence.answers
        assert answers is not None
        by = "your one answer" if answers.n == 1 else f"your {counted(answers.n, 'answer')}"
        parts = []
        if answers.wrong_camp:
            parts.append(
                f"{right or self._list(answers.right_camp)} are right more often than "
                f"{self._list(answers.wrong_camp)} where they contradict each other"
            )
        if answers.is_open:
            parts.append("it is not settled which camp is right (more answers may settle it)")
        if answers.worse:
            names, verb = self._list(answers.worse), _is(answers.worse)
            parts.append(f"{names} {verb} right less often than the others")
        elif not parts:
            parts.append("no candidate is shown to be right less often than the others")
        return f"by {by}, {' and '.join(parts)}"

    def _unweighted(self, mixture: Mixture, kind: str) -> str:
        """Say which candidates that can be selected get no weight, and why; empty if all do."""
        evidence, answered = self.evidence, self._answered_against
        reasons: dict[str, list[str]] = {}
        for name in self.names:
            if name in mixture.names:
                continue
            if name in answered:
                reason = "by your answers"
            elif name in evidence.unpredicted and not evidence.camps:
                reason = "labels follow less from the inputs than in the other candidates"
            elif name in evidence.contradicted and not evidence.camps:
                reason = "labels contradicted by the other candidates"
            # the optimal weights may use a candidate that is shown worse, the others may not
            elif name in self.worse and kind != "mmd_optimal":
                reason = f"shown worse than {self._most()}"
            else:
                reason = "by this weighting"
            reasons.setdefault(reason, []).append(name)
        parts = [f"{self._list(names)} ({reason})" for reason, names in reasons.items()]
        return f" No weight goes to {'; '.join(parts)}." if parts else ""

    def _rest(self, chosen: Sequence[str]) -> str:
        """Return what to train on until labels were checked, and why the others are left out."""
        evidence, rest = self.evidence, self.trusted
        if evidence.camps:
            return f"{self._everything()}: nothing says which camp is right"
        worse = tuple(name for name in self.worse if name not in chosen)
        clear_at = evidence.clear_at if len(rest) == len(self.names) else ()
        plain = replace(
            evidence,
            contradicted={},
            unpredicted={},
            camps=(),
            far=None,
            answers=None,
            worse=worse,
            shown_better={},
            clear_at=clear_at,
        )
        part = Sentences(self.ranking, plain, rest)
        if len(rest) == 1:
            return f"{self._list(rest)}"
        n = len(rest)
        everything = self._everything()
        if n < len(self.names):
            everything = "both others" if n == 2 else f"all {n} others"
        if part.opening == "small":
            return f"{everything}: {self._real()} are too few to choose among them"
        if part.opening == "untested":
            return f"{everything}: {self._untested()}"
        if part.opening == "tie":
            return f"{everything}: your real sample {part._tie('them')}"
        return part._best(chosen)

    def _everything(self) -> str:
        n = len(self.names)
        if n == 1:
            return self._list(self.names)
        if n < len(self.ranking):
            return f"the {n} that can be selected"
        return "both" if n == 2 else f"all {n}"

    def _tie(self, candidates: str) -> str:
        by = "" if self._info is None else f" by {self._info.key}"
        if self.evidence.n_apart:
            return f"shows none of {candidates} to be worse{by} than at least half of the others"
        return f"does not separate {candidates}{by}"

    def _untested(self) -> str:
        return self.evidence.untested or "no difference was tested"

    @property
    def _is_whole(self) -> bool:
        """Whether no candidate was left out for its inputs, which may rank between the others."""
        return all(name in self.names for name in self.evidence.dissimilar)

    @property
    def _is_grouped(self) -> bool:
        """Whether the real examples count as fewer than they are."""
        return self.evidence.n_effective < self.evidence.n_real - 0.5

    @property
    def _independent(self) -> str:
        """What the real examples would have to be more of, if they are in groups."""
        return " that do not depend on each other" if self._is_grouped else ""

    def _real(self) -> str:
        evidence = self.evidence
        clusters = f" that count as {evidence.n_effective:.0f}" if self._is_grouped else ""
        return f"{counted(evidence.n_real, 'real example')}{clusters}"

    def _closer(self, chosen: Sequence[str]) -> str:
        better = "closer to" if self._is_distance else "better on"
        other = "the other" if len(self.names) - len(chosen) == 1 else "every other"
        left = " that can be selected" if len(self.names) < len(self.ranking) else ""
        return (
            f"by {self.evidence.rank_by}, {_these(chosen)} {better} your {self._real()} than "
            f"{other} candidate{left}, beyond chance"
        )

    def _worse_than_most(self) -> str:
        worse = "farther from" if self._is_distance else "worse on"
        return f"{worse} your {self._real()} than {self._most()}, beyond chance"

    def _most(self) -> str:
        return "the other one" if self.evidence.n_pairs == 1 else "at least half of the others"

    def _found_worse(self, names: Sequence[str]) -> str:
        by = self.evidence.rank_by
        return f"by {by}, {self._list(names)} {_is(names)} {self._worse_than_most()}"

    def _far(self) -> str:
        far = self.evidence.far
        assert far is not None
        return (
            f"No {'other ' if self.evidence.copies else ''}candidate resembles your real data (a "
            f"linear classifier is right {percent(far.accuracy)} of the time)"
        )

    def _copies(self, names: Sequence[str]) -> str:
        what = "is a copy or near copy" if len(names) == 1 else "are copies or near copies"
        return f"{self._list(names)} {what} of your real sample"

    def _dissimilar(self, names: Sequence[str]) -> str:
        shares = [self.evidence.dissimilar[name] for name in names]
        does = "does" if len(names) == 1 else "do"
        least = "" if len(names) == 1 else "at least "
        return (
            f"{self._list(names)} {does} not resemble your real data (a linear classifier is right "
            f"{least}{percent(min(shares))} of the time)"
        )

    def _labels(self) -> str:
        evidence = self.evidence
        if evidence.camps:
            return f"Check the labels first: {evidence.camps[0]}"
        order = sorted(self._doubtful, key=lambda name: -self._doubtful[name])
        told = [name for name in order if name not in evidence.unpredicted]
        alone = [name for name in order if name in evidence.unpredicted]
        clauses = []
        if told:
            of = f"those of {self._list(told)}" if alone else "them"
            most = "" if len(told) == 1 else "up to "
            share = percent(self._doubtful[told[0]])
            clauses.append(f"the other candidates contradict {most}{share} of {of}")
        if alone:
            of = f"those of {self._list(alone)}" if told else "them"
            most = "only" if len(alone) == 1 else "at most"
            share = percent(max(evidence.unpredicted[name] for name in alone))
            clauses.append(f"{most} {share} of {of} follow from the inputs")
        return f"Check the labels of {self._list(order)} first: {', and '.join(clauses)}."

    def _although(self, chosen: Sequence[str]) -> str:
        """Say which of the chosen candidates the data speak against."""
        parts = self._against(chosen)
        answers = self.evidence.answers
        if self.evidence.camps and not (answers and answers.wrong_camp):
            parts.append("nothing says which camp is right")
        return f", although {' and '.join(parts)}" if parts else ""

    def _against(self, names: Sequence[str]) -> list[str]:
        """Return parts of sentences on what speaks against these candidates."""
        evidence = self.evidence
        worse = [name for name in names if name in self.worse]
        wrong = [name for name in names if name in self._answered_against]
        doubtful = [n for n in names if n in evidence.contradicted and n not in wrong]
        dissimilar = [name for name in names if name in evidence.dissimilar]
        copies = [name for name in names if name in evidence.copies]
        parts = [self._copies(copies)] if copies else []
        if dissimilar:
            parts.append(self._dissimilar(dissimilar))
        if wrong:
            parts.append(f"your answers speak against {self._list(wrong)}")
        if worse:
            parts.append(f"{self._list(worse)} {_is(worse)} shown worse than {self._most()}")
        if doubtful and not evidence.camps:
            parts += self._doubts(doubtful, "the labels of {} are contradicted")
        return parts

    def _doubts(self, names: Sequence[str], contradicted: str) -> list[str]:
        """Say what was found of labels that stand out."""
        unpredicted = self.evidence.unpredicted
        told = [name for name in names if name not in unpredicted]
        alone = [name for name in names if name in unpredicted]
        parts = [contradicted.format(self._list(told))] if told else []
        if alone:
            parts.append(
                f"the labels of {self._list(alone)} follow less from the inputs than in the other "
                "candidates"
            )
        return parts

    @property
    def _answered_against(self) -> tuple[str, ...]:
        return () if self.evidence.answers is None else self.evidence.answers.left_out

    def _list(self, names: Sequence[str]) -> str:
        """Name candidates; of many, say how many and name the first."""
        if len(names) <= _MOST_NAMES:
            return listed(names, is_sentence=True)
        return f"{counted(len(names), 'candidate')} ({listed(names, _MOST_NAMES)})"


def _these(names: Sequence[str]) -> str:
    return "this file is" if len(names) == 1 else "these files are"


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
