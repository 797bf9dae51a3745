"""Writes the figures of a benchmark run into the model card of the bundled weights, so that nobody copies them by hand.

    python benchmarks/bundled_model.py --clips 256 --keep runs/bench --arms guides actions --json > trained.json
    python benchmarks/bundled_model.py --clips 64 --keep runs/random --arms actions --randomise-dit --json > random.json
    python benchmarks/bundled_model.py --compare trained.json random.json --json > compared.json
    python benchmarks/model_card.py trained.json --compared compared.json

What stands between the card's two marks is replaced: every target of the benchmark, with what was reached, what is wanted
at least, and what is aimed at.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # for tests; a script has it already

from bundled_model import read_output

from anisora.files import write_atomic
from anisora.models.catalog import BUNDLED

BEGIN, END = "<!-- figures: written by benchmarks/model_card.py -->", "<!-- end of figures -->"
VERDICTS = {None: "", True: "yes", False: "no"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, metavar="TRAINED.json", help="what bundled_model.py --json printed")
    parser.add_argument("--compared", type=Path, metavar="COMPARED.json", help="what its --compare --json printed")
    parser.add_argument("--card", type=Path, default=BUNDLED / "README.md", metavar="FILE")
    options = parser.parse_args()
    tables = [table(read_output(options.trained))]
    if options.compared:
        tables.append(compared_table(read_output(options.compared, has="targets")))
    write_atomic(options.card, with_figures(options.card.read_text(), "\n\n".join(tables)).encode())


def table(result: dict[str, Any]) -> str:
    """The run in a sentence, and a Markdown table of its targets."""
    seeds = result["seeds"]
    said = (
        f"`benchmarks/bundled_model.py --first-seed {seeds['first']} --clips {result['clips']}`, corpus version "
        f"{result['corpus_version']}, {result['size_px'][0]}x{result['size_px'][1]}, {result['frames']} frames, "
        f"{result['fps']:g} a second. Weights `{result['weights_sha256'][:12]}`. {HELD_OUT[seeds['held_out']]}"
    )
    return f"{said}\n\n{rows(result['targets'])}"


HELD_OUT = {
    True: "No seed of it was trained on.",
    False: "**Seeds that were trained on are among them.**",
    None: "The checkpoint does not say on which seeds it was trained.",
}


def compared_table(result: dict[str, Any]) -> str:
    """What random weights in the place of the transformer's take away."""
    return (
        f"With the transformer's weights randomised, {result['clips']} of the same clips:\n\n{rows(result['targets'])}"
    )


def rows(targets: list[dict[str, Any]]) -> str:
    """A line a target; "not measured" where it has no figure."""
    head = ["figure", "reached", "at least", "met", "aim", "reached it"]
    lines = [head, ["---"] * len(head)]
    for row in targets:
        reached = "not measured" if row["reached"] is None else f"{row['reached']:.3f}"
        words = [row["wanted"] or "", VERDICTS[row["met"]], row["goal"] or "", VERDICTS[row["goal_met"]]]
        lines.append([row["target"], reached, *words])
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def with_figures(card: str, figures: str) -> str:
    """The card with other figures between its marks. Exits with a message where it has none."""
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        sys.exit(f"the card has no place for figures: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}"


if __name__ == "__main__":
    main()
