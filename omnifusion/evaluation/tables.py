"""The tables of an evaluation: a DataFrame with a row for each clip and method, averaged and written as Markdown."""

import pandas as pd

from omnifusion.evaluation.methods import TABLE_2

COLUMNS = {
    "psnr": ("PSNR, dB ↑", ".2f"),
    "psnr_uint8": ("uint8 PSNR ↑", ".2f"),
    "ssim": ("SSIM ↑", ".4f"),
    "lpips": ("LPIPS ↓", ".4f"),
    "cdc": ("CDC ↓", ".6f"),
    "ciede2000": ("ΔE00 ↓", ".2f"),
    "propagated": ("propagated", ".1%"),
    "inpainted": ("inpainted", ".1%"),
    "inpainted_psnr": ("PSNR of inpainted ↑", ".2f"),
    "seconds": ("s a clip", ".1f"),
    "cpu_seconds": ("CPU s a clip", ".1f"),
    "peak_mib": ("peak MiB", ".0f"),
}
"""What a row says of a method's result on a clip: heading and format. "inpainted_psnr" is of the pixels that the first
method inpainted."""

GROUND_TRUTH = "ground truth"  # the method of the rows that hold the CDC of the ground truth itself

PAPER_TABLE_1 = {
    "paper: DeepRemaster": {"psnr": 27.03, "ssim": 0.964, "lpips": 0.057, "cdc": 0.005098},
    "paper: OmniFusion, SD v1.5": {"psnr": 27.32, "ssim": 0.968, "lpips": 0.077, "cdc": 0.004143},
    "paper: OmniFusion, SD v2.0": {"psnr": 27.87, "ssim": 0.970, "lpips": 0.070, "cdc": 0.004026},
}
"""Table 1 of the paper, DAVIS."""

NOTE = """Not the paper's protocol: that has 20 clips of DAVIS at a size it does not name, and Stable Diffusion.
uint8 PSNR is ColorMNet's released formula, whose differences wrap at 256: gray gains 6 dB by it."""


def markdown(table: pd.DataFrame, form: str = ".2f") -> str:
    """Write a table whose index is its first column, scores formatted as in ``COLUMNS`` and others by ``form``."""
    headings, forms = zip(*(COLUMNS.get(name, (name, form)) for name in table.columns), strict=True)
    table = table.astype(object).where(table.notna(), None).set_axis(headings, axis=1)
    return str(table.to_markdown(floatfmt=("", *forms), missingval="–"))


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """Average the scores of every method over the clips; of the peak of memory, take the largest."""
    how = dict.fromkeys(COLUMNS, "mean") | {"peak_mib": "max"}
    return rows[rows["error"].isna()].groupby("method", sort=False).agg(how)


def by_clip(rows: pd.DataFrame) -> pd.DataFrame:
    """The PSNR of every method (rows) on every clip (columns), and the mean."""
    table = rows.dropna(subset="psnr").pivot_table("psnr", "method", "clip", sort=False)
    return table.assign(mean=table.mean(axis=1)).rename_axis(columns=None)


def failures(rows: pd.DataFrame) -> list[str]:
    """One sentence for each method that failed on a clip, and for each clip that could not be read."""
    return [f"{row.method} failed on {row.clip}: {row.error}" for row in rows[rows["error"].notna()].itertuples()]


def report(rows: pd.DataFrame, *tables: str) -> str:
    """Write tables below what was measured and where, and what is missing below them."""
    protocol, settings = rows.attrs["protocol"], rows.attrs["protocol"]["settings"]
    frames = f"first {protocol['frames']} frames" if protocol["frames"] else "whole clips"
    title = f"{protocol['dataset']}, {rows['clip'].nunique()} clips, {frames}, scale {protocol['scale']:g}, "
    title += f"{settings['preset']} preset, {settings['prior']} prior, {rows.attrs['machine']}"
    return "\n\n".join(filter(None, [title, *tables, rows.attrs["no_lpips"], *failures(rows)])) + "\n"


def evaluation(rows: pd.DataFrame) -> str:
    """Write the means of the scores beside the paper's table 1, and the PSNR on every clip."""
    both = pd.concat([means(rows), pd.DataFrame(PAPER_TABLE_1).T]).rename_axis("method")
    return report(rows, markdown(both[list(COLUMNS)]), markdown(by_clip(rows).rename_axis("PSNR, dB")), NOTE)


def table_2(rows: pd.DataFrame) -> str:
    """Write table 2 with the paper's figures beside ours."""
    ours = means(rows).reindex(TABLE_2)[["psnr", "ssim", "lpips", "inpainted_psnr", "cpu_seconds"]]
    scores = ["paper PSNR", "paper SSIM", "paper LPIPS"]
    paper = pd.DataFrame({name: row for name, (_, row) in TABLE_2.items()}, index=scores).T
    return report(rows, markdown(ours.join(paper).rename_axis("row"), ".3f"))
