"""What an installed wheel must do outside the checkout; run by tests/wheel_check.sh."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import synque_select
from synque_select import rank
from synque_select.cli.commands import packaged_config
from synque_select.recipes.text2sql import real_questions


def main() -> None:
    checkout = Path(sys.argv[1])
    installed = Path(str(synque_select.__file__)).resolve()
    if checkout in installed.parents:
        sys.exit(f"the checkout was imported, not the wheel: {installed}")

    for module in (
        "callbacks",
        "recipes",
        "configs",
        "training.datamodule",
        "benchmark",
        "report.page",
    ):
        __import__(f"synque_select.{module}")
    for config in ("digits", "digits-fit"):
        print("config", packaged_config(config).name)
    if len(real_questions()) < 200:
        sys.exit("the questions of the recipe text2sql are not in the wheel")

    near = [{"text": f"how many apps have rating {i}"} for i in range(100, 120)]
    far = [{"text": f"zq vx {i} kk"} for i in range(20)]
    real = [{"text": f"how many apps cost {i}"} for i in range(10)]
    ranking = rank({"near": near, "far": far}, real, proxies=["ngram"], top_k=1, progress=False)
    if ranking.top().names != ("near",):
        sys.exit(f"ranked {ranking.top().names} first")

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ranking.json"
        for name, records in (("near", near), ("far", far), ("real", real)):
            (Path(folder) / f"{name}.json").write_text(json.dumps(records))
        command = Path(sys.executable).with_name("synque-select")
        subprocess.run(
            [command, "rank", "--candidates", f"{folder}/near.json", f"{folder}/far.json", "--real",
             f"{folder}/real.json", "--proxies", "ngram", "--top-k", "1", "--json", str(out)],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if json.loads(out.read_text())["selected"][0]["name"] != "near":
            sys.exit("the command ranked another candidate first")
        subprocess.run([command, "report", folder], check=True, stdout=subprocess.DEVNULL)
        if "near" not in (Path(folder) / "report.html").read_text():
            sys.exit("the report was not made from its templates")


if __name__ == "__main__":
    main()
