"""The members of a study: one model at one seed each, with a folder in which its stages run as they do in a project."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.data.prepared import Prepared
from components.dataclass_reader import read_dataclass
from components.errors import ConfigError
from components.files import read_json, write_json
from components.locks import HeldError, locked
from components.training.config import EXECUTION
from pipelines.config.flatten import flat
from pipelines.config.params import Params
from pipelines.paths import PREPARED
from pipelines.stages.registry import reported
from pipelines.stages.results import has_run
from pipelines.tracking.journal import FOLDER_VARIABLE, OFFLINE_VARIABLE, TAGS_VARIABLE

RUNS, SETTINGS = "runs", "settings.json"
BASELINES = "baselines"  # runs once a seed, for all models
STAGES = reported()


@dataclass(frozen=True)
class Member:
    """`<study>/runs/<model>/seed-<seed>/` holds settings.json, outputs/, and journals for MLflow in .tracking/."""

    folder: Path
    params: Params

    @classmethod
    def open(cls, folder: Path) -> "Member":
        """A member that has been begun."""
        return cls(folder, read_dataclass(Params, read_json(folder / SETTINGS), SETTINGS))

    @property
    def model(self) -> str:
        """Its name, which is that of the only variant in its parameters."""
        return next(iter(self.params.variants))

    @property
    def seed(self) -> int:
        return self.params.seed

    def __str__(self) -> str:
        return f"{self.model}, seed {self.seed}"

    def has_run(self, stage: str) -> bool:
        """Whether a stage has left its results."""
        with chdir(self.folder):
            return has_run(stage, None if stage == BASELINES else self.model)

    def results(self, stage: str, kind: str = "metrics") -> dict[str, Any]:
        """Metrics or constants of a stage that has run."""
        return dict(read_json(self.folder / "outputs" / self.model / stage / "results.json", kind))

    def check_settings(self) -> None:
        """Make sure that what is in the folder was made with the same settings.

        Raises:
            ConfigError: it was not; the message names the settings.
        """
        if (self.folder / SETTINGS).exists():
            before, now = (_decisive(params) for params in (Member.open(self.folder).params, self.params))
            different = [f"{k}: {before.get(k)} then, {now.get(k)} now" for k in now if before.get(k) != now[k]]
            if different:
                raise ConfigError(
                    f"{self.folder}: holds results of other settings ({'; '.join(different)}). Put this study into "
                    "another folder, or delete that one."
                )

    def begin(self, data: Path) -> None:
        """Make the folder, with a link to the images.

        Raises:
            ConfigError: what came back from another machine was made from other images.
        """
        self.check_settings()
        write_json(self.folder / SETTINGS, asdict(self.params))
        link = self.folder / PREPARED
        if not (link / "palette.npy").exists():
            if link.is_dir():  # packed, and unpacked here: a description of the images
                if Prepared.open(link).fingerprint() != Prepared.open(data).fingerprint():
                    raise ConfigError(f"{self.folder}: was made from other images than those in {data}.")
                shutil.rmtree(link)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)  # one that leads nowhere: the study was moved
            link.symlink_to(os.path.relpath(data.resolve(), link.parent.resolve()))

    @contextmanager
    def at_work(self, tags: Mapping[str, str], **variables: str) -> Iterator[None]:
        """In its folder, where journals stay and are sent nowhere; runs that begin in this get these tags."""
        before = dict(os.environ)
        os.environ |= variables | {
            FOLDER_VARIABLE: str(self.folder.resolve() / ".tracking"),
            OFFLINE_VARIABLE: "1",
            TAGS_VARIABLE: json.dumps(dict(tags)),
        }
        try:
            with chdir(self.folder):
                yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    @contextmanager
    def taken(self) -> Iterator[bool]:
        """Hold the member while it is worked at; yields False if another process has it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / ".lock", seconds=0))
            except HeldError:
                mine = False
            else:
                mine = True
            yield mine


def members_of(study: Path) -> list[Member]:
    """Those that have been begun, by model and seed."""
    found = [Member.open(path.parent) for path in sorted((study / RUNS).glob(f"*/*/{SETTINGS}"))]
    return sorted(found, key=lambda member: (member.model, member.seed))


def _decisive(params: Params) -> dict[str, Any]:
    """Every setting that decides results, by its dotted key."""
    training = {k: v for k, v in asdict(params.training).items() if k not in EXECUTION}
    sections = asdict(params) | {"training": training}
    del sections["tracking"]
    return flat(json.loads(json.dumps(sections)))
