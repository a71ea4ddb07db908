"""The write side of tracking: one run's journal, an append-only folder on disk. Imports nothing heavy.

    .tracking/journals/<run key>/events.jsonl    one JSON object a line; the first is `start`, the last `finish`
    .tracking/journals/<run key>/artifacts/      copies of the files that events name

A run key is `20261122T093000.123-pretrain-hybrid-1f2e3d4c`; of a run that a second try repeats (run_inputs.py)
`report-hybrid-` and a hash of its inputs. The writer holds a lock on events.jsonl for as long as it lives (the kernel
drops it however the process ends): so an uploader tells a running stage from a killed one.
"""

import fcntl
import json
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat

from components.errors import UserError
from components.files import atomic_file
from pipelines.config.flatten import flat
from pipelines.tracking.checks import ARTIFACTS, EVENTS, MAX_KEY, MAX_PARAM, MAX_TAG, Status
from pipelines.tracking.provenance import provenance
from pipelines.tracking.run_inputs import Inputs, forget_earlier_try
from pipelines.tracking.secrets import mask

FOLDER_VARIABLE = "PIPELINE_TRACKING"  # set where stages run in a copy of the project, but report to the project
OFFLINE_VARIABLE = "PIPELINE_OFFLINE"  # set where journals stay on disk until somebody imports them
TAGS_VARIABLE = "PIPELINE_TAGS"  # JSON: tags for every run, such as the flow run that the stages belong to


def tracking_folder() -> Path:
    """`.tracking` of the project; MLflow's default store lies beside it.

    PIPELINE_TRACKING names it where a flow runs stages in a copy of the project; DVC_ROOT where `dvc exp` does.
    """
    if FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE]).resolve()
    return Path(os.environ.get("DVC_ROOT", ".")).resolve() / ".tracking"


def offline() -> bool:
    """Whether nothing is to be sent from here."""
    return OFFLINE_VARIABLE in os.environ


def inherited_tags() -> dict[str, str]:
    """The tags that every run gets from whoever started its stage."""
    return dict(json.loads(os.environ.get(TAGS_VARIABLE, "{}")))


class Journal:
    """One MLflow run in the making. Methods only append to disk; they are cheap and may be called from any thread.

    As a context manager it finishes the run: FINISHED, or FAILED with the exception's message in the tag `error`.
    """

    def __init__(self, key: str, folder: Path, descriptor: int) -> None:
        self.key = key
        self.folder = folder
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._artifacts = 0
        self.as_of: float | None = None  # seconds since 1970: the time of its metrics; None: when they are written
        self.curves: set[str] = set()  # metrics that were logged step by step
        self.provenance: dict[str, str] = {}  # the tags that tell where the run comes from
        self._finished = False

    @classmethod
    def start(
        cls,
        stage: str,
        variant: str | None = None,
        name: str | None = None,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, Any] | None = None,
        experiment: str = "gcrl",
        root: Path | None = None,
        inputs: Inputs | None = None,
        announce: Callable[[str], object] = lambda key: None,
    ) -> Self:
        """Begin a run; where it came from (commit, versions, hardware) is recorded with it.

        With `inputs`, which decide its numbers, it is the same run as any earlier try with the same inputs. `announce`
        gets the key before any uploader sees the run.

        Raises:
            UserError: such an earlier try is still at work.
        """
        label = f"{stage}-{variant}" if variant else stage
        root = root or tracking_folder()
        journals = root / "journals"
        journals.mkdir(parents=True, exist_ok=True)
        if inputs is None:
            now = datetime.now(UTC)
            key = f"{now:%Y%m%dT%H%M%S}.{now.microsecond // 1000:03d}-{_path_name(label)}-{uuid.uuid4().hex[:8]}"
        else:
            key = inputs.key(_path_name(label), experiment, _params(params or {}))
            forget_earlier_try(key, root)
        # The folder gets its name once it is locked and has its first line: no uploader ever sees it without them.
        temporary = Path(tempfile.mkdtemp(dir=journals, prefix=".new-"))
        descriptor = os.open(temporary / EVENTS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        journal = cls(key, journals / key, descriptor)
        try:
            journal.provenance = provenance()
            journal._write(
                "start",
                key=key,
                name=name or label,
                experiment=experiment,
                params=_params(params or {}),
                tags=_texts(
                    {
                        "stage": stage,
                        **({"variant": variant} if variant else {}),
                        **journal.provenance,
                        **inherited_tags(),
                        **(tags or {}),
                    }
                ),
            )
        except BaseException:
            os.close(descriptor)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        temporary.chmod(0o755)
        announce(key)
        try:
            temporary.rename(journal.folder)
        except OSError as error:  # only where keys may be the same
            journal.finish()
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{key}: another process has just begun the same. Wait for it to end.") from error
        if inputs is not None:
            journal.as_of = inputs.time
        return journal

    def metrics(self, values: Mapping[str, SupportsFloat], step: int | None = None) -> None:
        """Numbers at a training step, or without one."""
        if step is not None:
            self.curves.update(values)
        at = {} if self.as_of is None else {"time": int(1000 * self.as_of)}
        self._write("metrics", values={_name(k): float(v) for k, v in values.items()}, step=step or 0, **at)

    def params(self, values: Mapping[str, Any]) -> None:
        """Settings; nested mappings become dotted names. MLflow keeps the first value of a name."""
        self._write("params", params=_params(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Texts that can be searched for and overwritten."""
        self._write("tags", tags=_texts(values))

    def dataset(
        self,
        name: str,
        fingerprint: str,
        source: str,
        profile: Mapping[str, Any] | None = None,
        context: str | None = None,
    ) -> None:
        """A data set that the run used: `fingerprint` identifies its content, `profile` describes it (num_rows …)."""
        self._write(
            "dataset", name=name, digest=fingerprint[:36], source=source, profile=dict(profile or {}), context=context
        )

    def artifact(self, path: Path | str, folder: str | None = None) -> None:
        """Keep a copy of a file (or of a folder with all in it), shown under `folder` of the run's artifacts."""
        self._write("artifact", path=self._keep(path), folder=folder)

    def model(
        self,
        onnx_path: Path | str,
        name: str,
        registered_name: str | None = None,
        tags: Mapping[str, Any] | None = None,
        description: str = "",
        input_example: Path | str | None = None,
        extra_files: Sequence[Path | str] = (),
    ) -> None:
        """An ONNX model (with a `.npy` input example); with `registered_name`, also a version in the model registry.

        `extra_files` travel with it, in the folder `extra_files` beside the ONNX file.
        """
        self._write(
            "model",
            path=self._keep(onnx_path),
            name=name,
            registered_name=registered_name,
            tags=_texts(tags or {}),
            description=description,
            input_example=self._keep(input_example) if input_example is not None else None,
            extra_files=[self._keep(file) for file in extra_files],
        )

    def nest(self, child_run_keys: Sequence[str]) -> None:
        """Show these runs under this one. A run already under another stays there and is linked by a tag."""
        self._write("nest", children=list(child_run_keys))

    def nest_under(self, parent_run_key: str) -> None:
        """Show this run under another."""
        self._write("nest_under", parent=parent_run_key)

    def version_tags(self, registered_name: str, model_run_key: str, tags: Mapping[str, Any]) -> None:
        """Tag the version registered by the run `model_run_key`."""
        self._write("version_tags", registered_name=registered_name, model_run_key=model_run_key, tags=_texts(tags))

    def promote(
        self,
        registered_name: str,
        model_run_key: str,
        score: float,
        score_name: str,
        gate_passed: bool,
        gate: str,
        data_fingerprint: str,
        comparison: Mapping[str, Any] | None = None,
    ) -> None:
        """Propose the version registered by the run `model_run_key`: see `pipelines.tracking.promotion.propose`.

        `comparison` is how it fared against the champion where their scores are of different data.
        """
        self._write(
            "promote",
            registered_name=registered_name,
            model_run_key=model_run_key,
            score=float(score),
            score_name=score_name,
            gate_passed=bool(gate_passed),
            gate=gate,
            data_fingerprint=data_fingerprint,
            comparison=comparison,
        )

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run; a second call does nothing."""
        if self._finished:
            return
        self._write("finish", status=status)
        self._finished = True
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, SystemExit) and not error.code):
            self.finish()
            return
        self.tags({"error": mask(f"{type(error).__name__}: {error}")})
        self.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")

    def _keep(self, path: Path | str) -> str:
        """Copy a file or folder into the journal; its place relative to the journal."""
        path = Path(path)
        with self._lock:
            self._artifacts += 1
            place = Path(ARTIFACTS) / str(self._artifacts) / path.name
        if path.is_dir():
            shutil.copytree(path, self.folder / place)
        else:
            with atomic_file(self.folder / place) as temporary:
                shutil.copyfile(path, temporary)
        return str(place)

    def _write(self, event: str, **fields: Any) -> None:
        now = time.time_ns() // 1_000_000
        line = json.dumps({"event": event, "time": now, **fields}, separators=(",", ":")) + "\n"
        with self._lock:
            if self._finished:
                raise RuntimeError(f"journal {self.key} is finished: `{event}` came too late")
            size = os.fstat(self._descriptor).st_size
            try:
                data = line.encode()
                if os.write(self._descriptor, data) < len(data):
                    raise OSError("the disk is full")
            except OSError as error:
                os.ftruncate(self._descriptor, size)  # half a line would spoil the next one
                raise UserError(f"{self.folder / EVENTS}: could not be written ({error}). Free some space.") from error


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {_name(key): str(value)[:MAX_PARAM] for key, value in flat(values).items()}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {_name(key): str(value)[:MAX_TAG] for key, value in values.items()}


def _name(key: str) -> str:
    """A metric, parameter or tag name with nothing in it that MLflow refuses."""
    return re.sub(r"[^\w/.\- :]", "_", key)[:MAX_KEY]


def _path_name(label: str) -> str:
    return re.sub(r"[^\w.-]", "_", label)
