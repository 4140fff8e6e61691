"""`make bench`: every figure in one run, printed and written to benchmarks/results.json.

Speeds depend on the machine and its load; ratios and counts are what to compare.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results.json"


def sections():
    """Yields name and function of each section; heavy imports wait until a section runs."""
    from benchmarks import engine, fhir_import, overhead, prefill, scale_fhir, scale_tables, tokens

    def sharing():
        figures = prefill.prefill_sharing_speedup()
        return {
            "prefill_sharing_speedup": round(figures["ratio"], 2),
            "prefill_sharing_prompt_tokens": figures["prompt_tokens"],
            "prefill_sharing_samples": figures["samples"],
            "prefill_sharing_new_tokens": figures["new_tokens"],
        }

    yield "engine", engine.measure
    yield "FHIR import", fhir_import.measure
    yield "FHIR import as a user runs it", lambda: scale_fhir.measure(20_000, kill=False)
    yield "table import as a user runs it", lambda: scale_tables.measure(1_000, kill=False)
    yield "prefill sharing", sharing
    yield "graph, store and records", overhead.measure
    yield "token frugality", tokens.measure


def main():
    """Runs every section and writes the figures."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    console = Console()
    results = {"machine": {"python": platform.python_version(), "processors": os.cpu_count(), "system": sys.platform}}
    table = Table("figure", "value", title="wardstar bench")
    for name, measure in sections():
        began = time.perf_counter()
        with console.status(f"{name} ..."):
            figures = measure()
        results.update(figures)
        for key, value in figures.items():
            table.add_row(key, str(value))
        table.add_row(f"[dim]seconds for {name}[/]", f"[dim]{time.perf_counter() - began:.0f}[/]", end_section=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(table)
    console.print(f"written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


if __name__ == "__main__":
    main()
