"""The command `synque-select improve`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from synque_select.cli.options import PROXIES_HELP, flat, proxy_options
from synque_select.errors import ConfigError

if TYPE_CHECKING:  # at run time, `--help` must not wait for torch
    from jsonargparse import ArgumentParser

    from synque_select.data.groups import GroupSelector
    from synque_select.generation import ImproveOptions
    from synque_select.generation.ledger import Prices

__all__ = ["arguments", "run"]

_ENGINE = (
    "a YAML file, or JSON, with engine (openai, anthropic, vllm, transformers) and its arguments, "
    'such as \'{"engine": "openai", "model_id": "m", "base_url": "http://localhost:8000/v1"}\''
)


def arguments(parser: ArgumentParser) -> None:
    """Add the options to the parser."""
    _add_inputs(parser)
    _add_generation(parser)
    _add_comparison(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="random seed for the split and the calls"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--cache-dir",
        help="directory of cached embeddings and scores "
        "(default: $SYNQUE_CACHE or ~/.cache/synque-select)",
    )
    parser.add_argument("--quiet", action="store_true", help="hide the estimate and progress")


def _add_inputs(parser: ArgumentParser) -> None:
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument(
        "--candidate",
        required=True,
        help="the candidate to improve: a file of texts, or of records with named fields",
    )
    parser.add_argument(
        "--real",
        required=True,
        help="the unlabeled real sample: a file; at least 40 examples. One half is shown to the "
        "models, and the other half only decides",
    )
    parser.add_argument(
        "--others",
        nargs="+",
        action="extend",
        help="other candidates: real examples near them are not gaps",
    )
    parser.add_argument("--view", help="what is compared, as for rank: a field, chat:user, …")
    parser.add_argument("--real-view", help="view of the real sample (default: as --view)")
    parser.add_argument(
        "--label",
        help="field with the candidate's class; new examples get classes in the same proportions",
    )
    parser.add_argument(
        "--real-groups",
        metavar="FIELD",
        help="field that real examples share if they do not vary independently: thread, author, "
        "session or page; a group is never split. false if all are independent (default: exact "
        "and near duplicates are groups)",
    )
    parser.add_argument(
        "--run-dir",
        required=True,
        help="directory of the run; the same command continues a run that was killed",
    )


def _add_generation(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--generator", required=True, help=f"the model that writes examples: {_ENGINE}"
    )
    parser.add_argument(
        "--reasoner", help="the model that writes rubrics, given likewise (default: the generator)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="maximum number of rounds")
    parser.add_argument(
        "--examples", type=int, default=50, help="number of examples to ask for in a round"
    )
    parser.add_argument(
        "--per-call", type=int, default=5, help="number of examples to ask for in a call"
    )
    parser.add_argument(
        "--keep",
        default="add",
        help="what is compared with the old data, and kept if it is better: add, the old data with "
        "the new examples; replace, the new examples alone",
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="sampling temperature of the generator"
    )
    parser.add_argument(
        "--max-chars", type=int, default=2000, help="maximum number of characters of a field"
    )
    parser.add_argument(
        "--rubric-points",
        type=int,
        default=10,
        help="number of points in each of the rubric's three lists",
    )
    parser.add_argument(
        "--prices",
        help="price per million tokens: a YAML file, or JSON such as "
        '\'{"generator": {"input": 0.55, "output": 2.19}}\', with "reasoner" if its price differs',
    )
    parser.add_argument(
        "--max-cost",
        type=float,
        help="maximum cost of the run at these prices; a round that may cost more than what is "
        "left is not started (default: no limit)",
    )


def _add_comparison(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--error",
        type=float,
        default=0.05,
        help="maximum probability that examples which do not make the data better are kept in any "
        "round",
    )
    parser.add_argument(
        "--proxies", nargs="+", action="extend", help=PROXIES_HELP.replace("the modality", "texts")
    )
    parser.add_argument("--encoder", help="model id, as for rank")


def run(options: Namespace) -> int:
    """Have a model write more examples for a candidate, and keep them if that makes it better.

    A rubric of how the data differs from the real sample, and real examples with nothing similar in
    the data, tell the generator what to write. Copies of real examples are dropped. A paired test
    on real examples that no model was shown then decides; the first round that is not better ends
    the run.
    """
    from synque_select.generation import improve
    from synque_select.report.table import terminal_width, wrap_text
    from synque_select.utils.wording import printable

    result = improve(
        options.candidate,
        options.real,
        _mapping("generator", options.generator),
        options.run_dir,
        others=flat(options.others) if options.others else (),
        reasoner=None if options.reasoner is None else _mapping("reasoner", options.reasoner),
        view=options.view,
        real_view=options.real_view,
        label=options.label,
        real_groups=_groups(options.real_groups),
        options=_options(options),
    )
    print(printable(str(result.table())))
    for line in str(result).splitlines():
        print(*wrap_text(printable(line), terminal_width()), sep="\n")
    wrote = result.improved or "improve.json"
    print(f"wrote {Path(options.run_dir) / wrote}")
    return 0


def _options(options: Namespace) -> ImproveOptions:
    from synque_select.generation import ImproveOptions
    from synque_select.lens.rubric import RubricSampling

    return ImproveOptions(
        rounds=options.rounds,
        n_examples=options.examples,
        per_call=options.per_call,
        keep=options.keep,
        temperature=options.temperature,
        max_chars=options.max_chars,
        sampling=RubricSampling(n_points=options.rubric_points, seed=options.seed),
        error=options.error,
        # the options check what it holds
        prices=None
        if options.prices is None
        else cast("Prices", _mapping("prices", options.prices)),
        max_cost=options.max_cost,
        proxies=proxy_options(options.proxies),
        encoder=options.encoder,
        seed=options.seed,
        device=options.device,
        cache_dir=options.cache_dir,
        progress=not options.quiet,
    )


def _groups(field: str | bool | None) -> GroupSelector | None:
    return False if str(field).lower() == "false" else field


def _mapping(name: str, given: object) -> dict[str, object]:
    """Return a mapping given as such in a config, as JSON, or as the path of a YAML file."""
    from synque_select.utils.json_files import parse_json
    from synque_select.utils.yaml_files import read_yaml_file

    value = given
    if isinstance(given, str) and given.lstrip().startswith("{"):
        value = parse_json(given, f"--{name}", error=ConfigError, unique_keys=True)
    elif isinstance(given, str) and Path(given).suffix in (".yaml", ".yml", ".json"):
        value = read_yaml_file(given)
    elif isinstance(given, str) and name != "prices":
        value = {"engine": given}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"--{name}: expected a YAML file or JSON with a mapping, found {type(value).__name__}"
        )
    return dict(value)
