"""What a generator loop did: each round, what was kept, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from synque_select.generation.comparison import Comparison, ProxyComparison
from synque_select.generation.ledger import Spent
from synque_select.generation.screening import DROP_REASONS, DropReason, dropped_words
from synque_select.report.formats import decimals_of, format_interval, format_number
from synque_select.report.table import Column, Table
from synque_select.utils.json_fields import JsonFields
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted, percent

__all__ = ["Improvement", "Round"]

_VERSION = 1


@dataclass(frozen=True)
class Round:
    """One round of the loop.

    Args:
        number: Number of the round, from 1 on.
        n_asked: Number of examples that were asked for.
        n_new: Number of new examples that were used.
        dropped: Number of the others by reason.
        n_gaps: Number of real examples, of the half that is shown, that no candidate covered.
        comparison: Old data against new; None if there were too few new examples to compare.
        kept: Whether the new examples were kept.
        decision: The decision in words.
        spent: What the round cost.
        notes: What a reader must know, such as that no rubric could be written, or what the server
            refused.
    """

    number: int
    n_asked: int
    n_new: int
    dropped: Mapping[DropReason, int]
    n_gaps: int
    comparison: Comparison | None
    kept: bool
    decision: str
    spent: Spent
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        dropped = f"; dropped: {dropped_words(self.dropped)}" if self.dropped else ""
        notes = "".join(f" Note: {note.rstrip('.')}." for note in self.notes)
        return (
            f"round {self.number}: {self.n_new:,} of {counted(self.n_asked, 'example')} "
            f"used{dropped}. {self.decision}{notes}"
        )

    def to_dict(self) -> dict[str, Json]:
        """Return plain values."""
        return {
            **vars(self),
            "dropped": {reason: n for reason, n in self.dropped.items()},
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "spent": self.spent.to_dict(),
            "notes": list(self.notes),
        }

    @classmethod
    def from_fields(cls, fields: JsonFields) -> Round:
        """Read what `to_dict` returned.

        Raises:
            RecordError: A field is missing or of the wrong type.
        """
        compared, dropped = fields.optional_object("comparison"), fields.object("dropped")
        return cls(
            fields.count("number"),
            fields.count("n_asked"),
            fields.integer("n_new", least=0),
            {r: dropped.integer(r, least=0) for r in DROP_REASONS if r in dropped},
            fields.integer("n_gaps", least=0),
            None if compared is None else Comparison.from_fields(compared),
            fields.flag("kept"),
            fields.text("decision"),
            Spent.from_fields(fields.object("spent")),
            fields.texts("notes"),
        )


def _row(number: int, one: ProxyComparison) -> tuple[str, ...]:
    values = (one.old, one.old_low, one.old_high, one.new, one.new_low, one.new_high)
    decimals = decimals_of((*values, one.difference))
    cells = (
        values[:3],
        values[3:],
        (one.difference, one.low, one.high),
    )
    return (
        str(number),
        one.key,
        "higher" if one.higher_is_better else "lower",
        *(
            f"{format_number(value, decimals)} {format_interval(low, high, decimals)}"
            for value, low, high in cells
        ),
    )


@dataclass(frozen=True)
class Improvement:
    """The result of `improve`.

    Args:
        candidate: Name of the candidate.
        n_copies: Number of its examples that are copies or near copies of real examples. They are
            left out of prompts, comparisons and the file to train on.
        n_before: Number of its other examples, before the first round.
        n_after: Number of examples after the last one.
        n_shown: Number of real examples that models were shown.
        n_held_out: Number of real examples that decided.
        seed: Random seed of the split, of the prompts and of the answers.
        estimate: The cost that was estimated before the first call.
        rounds: The rounds.
        stopped: Why the loop ended; empty while it is running.
        spent: What all rounds cost.
        improved: Name of the file with all examples to train on, in the run's directory; None if
            nothing was kept.
        key: Hash of the data and options, so that another run does not go on with this one.
    """

    candidate: str
    n_copies: int
    n_before: int
    n_after: int
    n_shown: int
    n_held_out: int
    seed: int
    estimate: str
    rounds: tuple[Round, ...] = ()
    stopped: str = ""
    spent: Spent = field(default_factory=Spent)
    improved: str | None = None
    key: str = ""

    @property
    def n_kept(self) -> int:
        """Number of rounds whose examples were kept."""
        return sum(part.kept for part in self.rounds)

    @property
    def decision(self) -> str:
        """The decision on the candidate in words."""
        if not self.n_kept:
            return f"{self.candidate}: no improvement shown: kept the old data. {self.stopped}"
        return (
            f"{self.candidate}: {counted(self.n_kept, 'round')} kept, "
            f"{counted(self.n_before, 'example')} before and {self.n_after:,} after. {self.stopped}"
        )

    def table(self) -> Table:
        """Return the scores of old and new data in each round, with their intervals."""
        compared = [part.comparison for part in self.rounds if part.comparison is not None]
        rows = [
            _row(part.number, one)
            for part in self.rounds
            if part.comparison is not None
            for one in part.comparison.proxies
        ]
        heads = ("round", "proxy", "better is", "old", "new", "new − old")
        columns = tuple(Column(head, is_name=i < 3) for i, head in enumerate(heads))
        if not compared:
            return Table("", (), (), ("No round had enough new examples to compare.",))
        return Table(
            f"{self.candidate}: old and new data on {self.n_held_out:,} held-out real examples",
            columns,
            tuple(rows),
            (
                "In brackets: for a score, its 95 % interval over new real samples; for a "
                f"difference, the paired {percent(compared[0].level, 1)} interval. One test of all "
                "proxies together decides; the proxies compare inputs with the real sample and "
                "read no label.",
            ),
        )

    def __str__(self) -> str:
        lines = [
            self.decision,
            *map(str, self.rounds),
            f"Models were shown {counted(self.n_shown, 'real example')}; "
            f"{self.n_held_out:,} others decided (split with seed {self.seed}).",
            f"Cost: {self.spent}.",
        ]
        if self.n_copies:
            copies = counted(self.n_copies, "example of the candidate", "examples of the candidate")
            lines.append(f"Left out as copies or near copies of real examples: {copies}.")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Json]:
        """Return plain values, as in `improve.json`."""
        return {
            "version": _VERSION,
            **vars(self),
            "rounds": [part.to_dict() for part in self.rounds],
            "spent": self.spent.to_dict(),
        }

    @classmethod
    def from_dict(cls, state: object) -> Improvement:
        """Read what `to_dict` returned.

        Raises:
            RecordError: The version is unknown, or a field is missing or of the wrong type.
        """
        fields = JsonFields(state)
        fields.version(_VERSION)
        return cls(
            fields.text("candidate"),
            fields.integer("n_copies", least=0),
            fields.count("n_before"),
            fields.count("n_after"),
            fields.count("n_shown"),
            fields.count("n_held_out"),
            fields.integer("seed", least=0),
            fields.text("estimate"),
            tuple(map(Round.from_fields, fields.objects("rounds"))),
            fields.text("stopped"),
            Spent.from_fields(fields.object("spent")),
            fields.optional_text("improved"),
            fields.text("key"),
        )
