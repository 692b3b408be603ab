"""Join evaluations into the tables of docs/results.md.

    PYTHONPATH=. python benchmarks/results.py standard.json draft.json

Takes files that `omnifusion evaluate --json` wrote, of the same clips; prints the means, the PSNR of every clip, and
what OmniFusion gains there over the better of Levin and flow warp. OmniFusion's rows are named by preset.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from omnifusion.evaluation.evaluate import read
from omnifusion.evaluation.tables import COLUMNS, GROUND_TRUTH, by_clip, markdown, means

RIVALS = ["levin", "flow-warp"]


def joined(paths: Sequence[Path]) -> pd.DataFrame:
    """The rows of several evaluations; of methods that settings do not change, the first.

    Raises:
        ValueError: they are of different clips.
    """
    tables, clips = [], []
    for path in paths:
        rows = read(path)
        settings = rows.attrs["protocol"]["settings"]
        ours = rows["method"] == "omnifusion"
        rows.loc[ours, "method"] += f", {settings['preset']}"
        tables.append(rows)
        clips.append({key: rows.attrs["protocol"][key] for key in ("dataset", "frames", "scale")})
        clips[-1]["clips"] = sorted(rows["clip"].unique())
    if any(one != clips[0] for one in clips):
        raise ValueError(f"{', '.join(map(str, paths))} are of different clips; give evaluations of the same.")
    for table in tables:
        table.attrs = {}
    return pd.concat(tables).drop_duplicates(["clip", "method"])


def tables(rows: pd.DataFrame) -> list[str]:
    """The tables as Markdown."""
    scores, every = means(rows), by_clip(rows)
    ours = [name for name in every.index if name.startswith("omnifusion")]
    order = [*ours, *(name for name in scores.index if name not in (*ours, GROUND_TRUTH)), GROUND_TRUTH]
    scores = scores.loc[order].dropna(axis=1, how="all")
    result = [markdown(scores[[name for name in COLUMNS if name in scores]]), markdown(every.loc[order[:-1]])]
    if rivals := [name for name in RIVALS if name in every.index]:
        result.append(markdown(every.loc[ours] - every.loc[rivals].max(), "+.2f"))
    return result


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    print("\n\n".join(tables(joined(parser.parse_args().files))))


if __name__ == "__main__":
    main()
