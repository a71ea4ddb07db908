"""`python -m pipelines.stages NAME [--variant V]`: run one stage. DVC calls it; it runs on its own just as well. V is a
variant or a student, except that variants are pretrained and students distilled."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from components.locks import Holder, locked
from pipelines import parent_watchdog
from pipelines.config.params import load_params
from pipelines.exit_code import end, exit_code
from pipelines.paths import LOCKS
from pipelines.stages.registry import all_stages


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a stage; returns the exit code: 0, 1 for a user's mistake, 2 for one in the configuration or the command."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.stages", description=__doc__)
    known = all_stages()
    parser.add_argument("stage", choices=[*known, "check"], help="`check` only validates params.yaml")
    parser.add_argument("--variant", help="name of a variant or student in params.yaml")
    options = parser.parse_args(arguments)
    per = "run" if options.stage == "check" else known[options.stage].per
    if (options.variant is None) == (per != "run"):
        parser.error(f"stage {options.stage} {'needs' if options.variant is None else 'takes no'} --variant")
    return exit_code(lambda: _run(options.stage, options.variant))


def _run(name: str, variant: str | None) -> None:
    """One process at a time writes a stage's results."""
    params = load_params()
    if variant is not None:
        find = {"variant": params.variant, "student": params.student}.get(all_stages()[name].per, params.encoder)
        find(variant)
    if name == "check":
        return
    label = f"{name} of {variant}" if variant else name

    def wait(holder: Holder) -> None:
        print(f"stage {label}: {holder.process} is still running; waiting for it", file=sys.stderr, flush=True)

    with locked(LOCKS / f"{label.replace(' ', '-')}.lock", wait):
        # The stage is imported only now: a mistake in params.yaml is told without waiting for torch.
        stage = importlib.import_module(f"pipelines.stages.{name}")
        stage.run(params, *([variant] if variant else []))


if __name__ == "__main__":
    parent_watchdog.watch_dvc()
    end(main())
