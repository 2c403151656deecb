"""Config of other trainers for a mixture, and what of the mixture they cannot do."""

from __future__ import annotations

import glob
import json
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import yaml

from synque_select.errors import ConfigError, did_you_mean
from synque_select.utils.json_types import Json
from synque_select.utils.wording import counted, listed

__all__ = ["TARGETS", "Part", "Recipe", "Snippet", "Target", "snippet"]

Target: TypeAlias = Literal["datasets", "trl", "llama-factory", "axolotl", "ms-swift", "mosaic"]
TARGETS: tuple[Target, ...] = get_args(Target)

# how the library `datasets`, which all of these but mosaic read files with, names a file's format
_BUILDERS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_DRAWS = "synque-select export RANKING --out mix.jsonl"


@dataclass(frozen=True)
class Part:
    """One candidate of a mixture, as it is on disk.

    Args:
        name: Name of the candidate.
        weight: Its weight, in 0..1.
        n: Number of its examples.
        source: Where it was loaded from; empty for an object in memory.
        example: One of its examples.
        n_changed: Number of examples that the label filter drops or relabels.
    """

    name: str
    weight: float
    n: int
    source: str
    example: object
    n_changed: int = 0

    @property
    def path(self) -> str:
        """The absolute path of the file."""
        return str(Path(self.source).absolute())

    @property
    def suffix(self) -> str:
        """The suffix of the file, or of all files in the folder; "" if there are several."""
        path = Path(self.source)
        files = [path] if path.is_file() else [*path.glob("*")] if self.source else []
        suffixes = {file.suffix for file in files}
        return suffixes.pop() if len(suffixes) == 1 else ""

    @property
    def builder(self) -> str | None:
        """How `datasets` names the format of the file or files; None if it does not read it."""
        return _BUILDERS.get(self.suffix)

    @property
    def data_files(self) -> str:
        """The path of the file, or a pattern for those in the folder, as `datasets` reads them."""
        path = glob.escape(self.path)
        return f"{path}/*{self.suffix}" if Path(self.source).is_dir() else path


@dataclass(frozen=True)
class Recipe:
    """A mixture of files.

    Args:
        parts: The candidates.
        seed: Random seed for the trainers that take one for the order.
        n: Number of draws per epoch.
        folder: Where the config will be written.
        is_n_given: Whether the user chose n, rather than the most without repeated examples.
    """

    parts: Sequence[Part]
    seed: int
    n: int
    folder: Path = Path()
    is_n_given: bool = False

    @property
    def is_mixed(self) -> bool:
        """Whether there are several candidates."""
        return len(self.parts) > 1

    @property
    def n_unrepeated(self) -> int:
        """Number of draws per epoch, at most as many as repeat no example."""
        most = min(part.n / part.weight for part in self.parts if part.weight)
        return min(self.n, math.floor(most + 1e-9))

    def counts(self, *, repeated: bool = False) -> list[int]:
        """Number of examples of each candidate in an epoch.

        Args:
            repeated: Whether the trainer repeats examples where n needs that.
        """
        n = self.n if repeated else self.n_unrepeated
        return [math.floor(part.weight * n + 1e-9) for part in self.parts]


@dataclass(frozen=True)
class Snippet:
    """What is written for a trainer.

    Args:
        files: Name of a file to its content. The first one is the config.
        warnings: What of the mixture the trainer cannot do, in sentences.
    """

    files: Mapping[str, str]
    warnings: tuple[str, ...]


def snippet(target: str, recipe: Recipe) -> Snippet:
    """Return the config of a trainer for a mixture.

    Args:
        target: One of `TARGETS`.
        recipe: The mixture.

    Raises:
        ConfigError: The target is unknown.

    Example:
        >>> parts = [Part("a", 0.75, 30, "a.jsonl", {}), Part("b", 0.25, 30, "b.jsonl", {})]
        >>> made = snippet("ms-swift", Recipe(parts, seed=0, n=40))
        >>> "a.jsonl#30'" in made.files["mixture.sh"], "b.jsonl#10'" in made.files["mixture.sh"]
        (True, True)
    """
    if target not in TARGETS:
        raise ConfigError(f"the format {target!r} is not known: {did_you_mean(target, TARGETS)}")
    made = _MAKERS[target](recipe)
    warnings = (*_of_files(recipe, made.needs_conversion), *made.warnings)
    comment = "".join(f"# {line}\n" for text in warnings for line in _wrapped(text))
    first, *rest = made.files.items()
    files = {first[0]: f"{comment}{first[1]}", **dict(rest)}
    return Snippet(files, warnings)


def _wrapped(text: str, width: int = 96) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


@dataclass(frozen=True)
class _Made:
    files: dict[str, str]
    warnings: tuple[str, ...]
    needs_conversion: bool = False  # whether no file is read as it is


def _of_files(recipe: Recipe, needs_conversion: bool) -> list[str]:
    """Say what differs between the candidates' files and what training should see."""
    warnings = []
    changed = {part.name: part.n_changed for part in recipe.parts if part.n_changed}
    if changed:
        warnings.append(
            f"The label filter drops or relabels {counted(sum(changed.values()), 'example')} of "
            f"{listed(list(changed))}, but this config reads the files as they are: train on the "
            f"draws instead ({_DRAWS})."
        )
    unread = [part.name for part in recipe.parts if part.builder is None]
    if unread and not needs_conversion:
        warnings.append(
            f"{listed(unread)}: not JSON, JSON lines, CSV, Parquet or Arrow, in one file or in a "
            "folder of nothing else, which is what this trainer reads: train on the draws instead "
            f"({_DRAWS})."
        )
    return warnings


# what `datasets.interleave_datasets` does
_INTERLEAVED: tuple[str, ...] = (
    "interleave_datasets draws at random: weights are met on average, where synque-select meets "
    "them in each 1,000 draws.",
    "It stops when the first candidate is used up, and each epoch has the same examples: those "
    "that are left over are never trained on.",
)
_FIRST_ROWS = (
    "Weights become numbers of rows: the first rows of each file, the same in each epoch. Shuffle "
    "a file that is sorted, as by class. No example is repeated."
)
_RANDOM_ROWS = (
    "Weights become numbers of rows, which are drawn at random once: each epoch has the same "
    "examples, and the others are never trained on."
)


def _datasets(recipe: Recipe) -> _Made:
    names = "interleave_datasets, load_dataset" if recipe.is_mixed else "load_dataset"
    lines = [f"from datasets import {names}", "", "parts = ["]
    for part in recipe.parts:
        builder, path = part.builder or "json", part.data_files
        lines.append(f"    load_dataset({builder!r}, data_files={path!r}, split='train'),")
    lines += ["]"]
    cut = f"mixture = mixture.select(range(min({recipe.n}, len(mixture))))"
    end = [cut, ""] if recipe.is_n_given else [""]
    if not recipe.is_mixed:
        return _Made({"mixture.py": "\n".join([*lines, "mixture = parts[0]", *end])}, ())
    lines += [
        "mixture = interleave_datasets(",
        "    parts,",
        f"    probabilities={[part.weight for part in recipe.parts]},",
        f"    seed={recipe.seed},",
        "    stopping_strategy='first_exhausted',",
        ")",
        *end,
    ]
    warnings = _INTERLEAVED
    if recipe.n_unrepeated < recipe.n:
        n = counted(recipe.n_unrepeated, "example")
        warnings += (f"An epoch has about {n}, not {recipe.n:,}.",)
    return _Made({"mixture.py": "\n".join(lines)}, warnings)


def _trl(recipe: Recipe) -> _Made:
    entries: list[Json] = []
    for part in recipe.parts:
        share: dict[str, Json] = {"fraction": part.weight} if recipe.is_mixed else {}
        entries.append({"path": part.builder or "json", "data_files": part.data_files, **share})
    warnings: tuple[str, ...] = ()
    if recipe.is_mixed:
        warnings = (
            _FIRST_ROWS,
            "Older versions of TRL reject fraction; 1.16 has it. HFMixture serves the exact draws "
            "in TRL's trainers.",
        )
    if recipe.is_n_given:
        warnings = (
            *warnings,
            f"TRL trains on as many rows as the weights allow: {recipe.n:,} (--n) is not in this "
            "config. Limit the training by max_steps.",
        )
    return _Made({"mixture.yaml": _yaml({"datasets": entries})}, warnings)


def _axolotl(recipe: Recipe) -> _Made:
    entries: list[Json] = []
    for part, count in zip(recipe.parts, recipe.counts(), strict=True):
        entry: dict[str, Json] = {
            "path": part.path,
            "ds_type": part.builder or "json",
            "split": f"train[:{count}]" if recipe.is_mixed or recipe.is_n_given else "train",
        }
        if Path(part.source).is_dir():
            entry["data_files"] = part.data_files
        entries.append({**entry, **_AXOLOTL.get(_shape(part.example), {"type": "…"})})
    content: dict[str, Json] = {"datasets": entries, "shuffle_merged_datasets": True}
    if _shape(recipe.parts[0].example) == "preference":
        content = {"rl": "dpo", **content}
    warnings: tuple[str, ...] = ()
    if recipe.is_mixed:
        warnings = ("axolotl has no weights (its issue 1508).", _FIRST_ROWS)
    if recipe.n_unrepeated < recipe.n:
        n = counted(recipe.n_unrepeated, "example")
        warnings += (f"An epoch has {n}, not {recipe.n:,}.",)
    files = {"mixture.yaml": _yaml(content)}
    return _Made(files, (*warnings, *_unknown(recipe, "type")))


def _llama_factory(recipe: Recipe) -> _Made:
    names = _plain_names([part.name for part in recipe.parts])
    info: dict[str, Json] = {
        name: {
            "file_name": part.path,
            **({"num_samples": count} if recipe.is_mixed or recipe.is_n_given else {}),
            **_LLAMA_FACTORY.get(_shape(part.example), {}),
        }
        for name, part, count in zip(names, recipe.parts, recipe.counts(repeated=True), strict=True)
    }
    stages = {"text": "pt", "preference": "dpo"}
    content: dict[str, Json] = {
        "stage": stages.get(_shape(recipe.parts[0].example), "sft"),
        "dataset_dir": str(recipe.folder.absolute()),
        "dataset": ",".join(names),
    }
    warnings = (_RANDOM_ROWS,) if recipe.is_mixed else ()
    files = {
        "mixture.yaml": _yaml(content),
        "dataset_info.json": json.dumps(info, indent=2, ensure_ascii=False) + "\n",
    }
    return _Made(files, (*warnings, *_unknown(recipe, "columns")))


def _ms_swift(recipe: Recipe) -> _Made:
    is_counted = recipe.is_mixed or recipe.is_n_given
    paths = [
        f"{part.path}#{count}" if is_counted else part.path
        for part, count in zip(recipe.parts, recipe.counts(repeated=True), strict=True)
    ]
    lines = ["swift sft \\", f"    --dataset {' '.join(map(shlex.quote, paths))} \\"]
    warnings = (_RANDOM_ROWS,) if recipe.is_mixed else ()
    lines.append(f"    --data_seed {recipe.seed}")
    if _shape(recipe.parts[0].example) == "preference":
        columns = json.dumps({"chosen": "response", "rejected": "rejected_response"})
        lines[0] = "swift rlhf --rlhf_type dpo \\"
        lines.insert(1, f"    --columns {shlex.quote(columns)} \\")
    return _Made({"mixture.sh": "\n".join([*lines, ""])}, warnings)


def _mosaic(recipe: Recipe) -> _Made:
    names = _plain_names([part.name for part in recipe.parts])
    streams: dict[str, Json] = {
        name: {"local": f"mds/{name}", "proportion": part.weight}
        for name, part in zip(names, recipe.parts, strict=True)
    }
    dataset: dict[str, Json] = {
        "streams": streams,
        "epoch_size": recipe.n,
        "shuffle": True,
        "shuffle_seed": recipe.seed,
    }
    loader = "text" if _shape(recipe.parts[0].example) == "text" else "finetuning"
    content: dict[str, Json] = {"train_loader": {"name": loader, "dataset": dataset}}
    lines = ["from streaming import MDSWriter", "from datasets import load_dataset", ""]
    for name, part in zip(names, recipe.parts, strict=True):
        columns = _mds_columns(part.example)
        builder = part.builder or "json"
        lines += [
            f"part = load_dataset({builder!r}, data_files={part.data_files!r}, split='train')",
            f"with MDSWriter(out={f'mds/{name}'!r}, columns={columns}) as writer:",
            "    for example in part:",
            f"        writer.write({{name: example[name] for name in {list(columns)}}})",
        ]
    warnings = (
        "mosaicml-streaming reads its own format: run to_mds.py once, which writes it to mds/.",
        "Examples are drawn anew in each epoch, without regard to those of the previous one.",
    )
    files = {"mixture.yaml": _yaml(content), "to_mds.py": "\n".join([*lines, ""])}
    return _Made(files, warnings, needs_conversion=True)


_MAKERS: dict[str, Callable[[Recipe], _Made]] = {
    "datasets": _datasets,
    "trl": _trl,
    "llama-factory": _llama_factory,
    "axolotl": _axolotl,
    "ms-swift": _ms_swift,
    "mosaic": _mosaic,
}


def _shape(example: object) -> str:
    """Return which of the usual forms a record has; "" for another."""
    names = set(example) if isinstance(example, Mapping) else set()
    for shape, required in _SHAPES.items():
        if required <= names:
            return shape
    return ""


_SHAPES = {
    "messages": {"messages"},
    "sharegpt": {"conversations"},
    "preference": {"prompt", "chosen", "rejected"},
    "completion": {"prompt", "completion"},
    "alpaca": {"instruction", "output"},
    "text": {"text"},
}

_LLAMA_FACTORY: dict[str, dict[str, Json]] = {
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "system_tag": "system",
        },
    },
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "preference": {
        "ranking": True,
        "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
    },
    "completion": {"columns": {"prompt": "prompt", "response": "completion"}},
    "alpaca": {"columns": {"prompt": "instruction", "query": "input", "response": "output"}},
    "text": {"columns": {"prompt": "text"}},
}

_AXOLOTL: dict[str, dict[str, Json]] = {
    "messages": {
        "type": "chat_template",
        "field_messages": "messages",
        "message_property_mappings": {"role": "role", "content": "content"},
    },
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
    "preference": {
        "type": {
            "field_prompt": "prompt",
            "field_chosen": "chosen",
            "field_rejected": "rejected",
            "prompt_format": "{prompt}",
            "chosen_format": "{chosen}",
            "rejected_format": "{rejected}",
        }
    },
    "completion": {
        "type": {
            "field_instruction": "prompt",
            "field_output": "completion",
            "format": "{instruction}",
            "no_input_format": "{instruction}",
        }
    },
    "alpaca": {"type": "alpaca"},
    "text": {"type": "completion", "field": "text"},
}


def _unknown(recipe: Recipe, key: str) -> list[str]:
    names = [part.name for part in recipe.parts if not _shape(part.example)]
    if not names:
        return []
    return [f"{listed(names)}: the fields have no usual names; fill in {key!r} yourself."]


def _mds_columns(example: object) -> dict[str, str]:
    kinds: dict[type, str] = {str: "str", bool: "json", int: "int", float: "float64"}
    fields = example if isinstance(example, Mapping) else {}
    return {str(name): kinds.get(type(value), "json") for name, value in fields.items()}


def _plain_names(names: Sequence[str]) -> list[str]:
    """Return names that need no quotes, as these trainers separate names by commas."""
    plain: list[str] = []
    for name in names:
        base = re.sub(r"[^\w.-]+", "_", name)
        number = 2
        unique = base
        while unique in plain:
            unique, number = f"{base}_{number}", number + 1
        plain.append(unique)
    return plain


def _yaml(content: Mapping[str, Json]) -> str:
    copied = json.loads(json.dumps(content))  # of one object in two places, YAML makes an alias
    text: str = yaml.safe_dump(copied, sort_keys=False, allow_unicode=True, width=1000)
    return text
