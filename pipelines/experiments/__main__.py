"""`python -m pipelines.experiments COMMAND`: compare models over seeds, on this machine or on one without the stack.

plan FILE DIR      validate a study file (studies/*.yaml) and write DIR/study.json; needs the stack, the rest do not
run DIR            train and evaluate what is missing; again and again, until nothing is
table DIR          mean ± standard deviation over seeds of what has run so far
methods DIR        what has run so far as one short table of methods, and one figure; needs matplotlib
pack DIR OUT       results as one archive, in parts of a size that can be carried
import DIR         bring results, packed or not, into MLflow; needs the stack
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.errors import ConfigError
from pipelines.exit_code import exit_code
from pipelines.experiments.members import STAGES


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0, 1 where something failed, 2 for a mistake in the configuration or the command."""
    options = _parser().parse_args(arguments)
    return exit_code(lambda: int(options.do(options)))


def _parser() -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m pipelines.experiments", description=__doc__, formatter_class=form)
    commands = parser.add_subparsers(dest="command", required=True)

    plan = commands.add_parser("plan", help="validate a study file and write DIR/study.json")
    plan.add_argument("file", type=Path, help="such as studies/cifar10.yaml")
    plan.add_argument("folder", type=Path, metavar="DIR")
    plan.add_argument("--data", type=Path, help="a prepared data set to take along: data/prepared")
    plan.set_defaults(do=_plan)

    run = commands.add_parser("run", help="train and evaluate what is missing")
    run.add_argument("folder", type=Path, metavar="DIR", help="where study.json is")
    run.add_argument("--out", type=Path, help="where results go (default: DIR)")
    run.add_argument("--models", nargs="+", help="some of the study's (default: all)")
    run.add_argument("--seeds", type=int, nargs="+", help="other seeds than the study's")
    run.add_argument("--seconds", type=float, help="another training budget: short for training.seconds=…")
    run.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as model.decoder_layers=1")
    run.add_argument("--as", dest="name", help="with one of --models and --set: a model of its own, of this name")
    run.add_argument("--until", choices=STAGES, default=STAGES[-1], help="the last stage to run")
    run.add_argument("--jobs", type=int, default=1, help="models at a time, with their share of the cores (default: 1)")
    run.set_defaults(do=_run)

    table = commands.add_parser("table", help="what has been found so far")
    table.add_argument("folder", type=Path, metavar="DIR")
    table.set_defaults(do=_table)

    methods = commands.add_parser("methods", help="what has been found so far, in one short table and one figure")
    methods.add_argument("folder", type=Path, metavar="DIR")
    methods.set_defaults(do=_methods)

    pack = commands.add_parser("pack", help="one archive of all results, in parts")
    pack.add_argument("folder", type=Path, metavar="DIR")
    pack.add_argument("out", type=Path, metavar="OUT")
    pack.add_argument("--part-mib", type=float, default=16, help="size of a part (default: 16 MiB)")
    pack.add_argument("--parts", type=int, default=8, help="at most; what has no room is left out (default: 8)")
    pack.add_argument("--models", nargs="+", default=[], help="whose weights go first, as MODEL or MODEL/seed-N")
    pack.set_defaults(do=_pack)

    bring = commands.add_parser("import", help="results into MLflow")
    bring.add_argument("folder", type=Path, metavar="DIR", help="a study's folder, or one with study.tar.000 …")
    bring.add_argument("--register", action="store_true", help="also as versions of the registered model")
    bring.set_defaults(do=_import)
    return parser


def _plan(options: argparse.Namespace) -> int:
    from pipelines.experiments.study_file import make_plan

    plan = make_plan(options.file, options.folder, options.data)
    print(f"{options.folder}: {len(plan.models)} models ({', '.join(plan.models)}) × {len(plan.seeds)} seeds")
    print(f"Take the code and {options.folder} to any machine:\npython -m pipelines.experiments run {options.folder}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from pipelines.experiments.run import run_study

    changes = dict(_change(text) for text in options.set)
    if options.seconds is not None:
        changes["training.seconds"] = options.seconds
    out = options.out or options.folder
    settings = options.models, options.seeds, changes, options.name, options.until
    failed = run_study(options.folder, out, *settings, options.jobs)
    print((out / "table.md").read_text())
    return 1 if failed else 0


def _change(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--set {text}: expected KEY=VALUE, such as model.decoder_layers=1.")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def _table(options: argparse.Namespace) -> int:
    from pipelines.experiments.plan import PLAN, Plan
    from pipelines.experiments.tables import write_tables

    known = (options.folder / PLAN).exists()
    print(write_tables(options.folder, Plan.open(options.folder).peak_tflops if known else None))
    return 0


def _methods(options: argparse.Namespace) -> int:
    from pipelines.experiments.methods import write_methods

    print(write_methods(options.folder))
    return 0


def _pack(options: argparse.Namespace) -> int:
    from pipelines.experiments.pack import LEFT_OUT, pack

    parts = pack(options.folder, options.out, options.part_mib, options.parts, options.models)
    left = json.loads((options.out / LEFT_OUT).read_text())
    print(f"{len(parts)} parts in {options.out}; {len(left)} large files found no room ({LEFT_OUT})")
    return 0


def _import(options: argparse.Namespace) -> int:
    from pipelines.experiments.importing import import_study

    return 1 if import_study(options.folder, options.register) else 0


if __name__ == "__main__":
    sys.exit(main())
