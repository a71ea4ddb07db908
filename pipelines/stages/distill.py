"""distill: train one student to follow its teacher, from its resume file where an earlier try left one."""

import shutil

from components.data.prepared import Prepared
from components.distillation.distill import distill
from components.distillation.objective import Probe
from components.distillation.summary import describe
from components.evaluation.probes.linear_probe import LinearProbe
from components.model.build import build
from pipelines.config.params import Params
from pipelines.paths import PREPARED, SCRATCH, stage_folder
from pipelines.stages.registry import Stage
from pipelines.stages.stage_run import log_data, stage_run
from pipelines.stages.training import TRAINING_CODE, announced, resume_key, training_data, write_trained
from pipelines.stages.weights import architecture_of, load_model

STAGE = Stage(does="training to follow a teacher", per="student", after=("probe",))


def run(params: Params, name: str) -> None:
    """Write outputs/S/pretrain: a student's weights stand where a variant's stand."""
    student, training = params.student(name), params.training_of(name)
    settings = {
        "model": params.model_of(name),
        "training": training,
        "augmentation": params.augmentation,
        "student": student,
    }
    with stage_run(params, "distill", name, settings) as stage:
        prepared = Prepared.open(PREPARED)
        architecture = architecture_of(params, name, prepared)
        model = build(architecture, prepared.palette, params.seed)
        teacher = load_model(params, student.teacher, prepared)
        weights = stage_folder("pretrain", student.teacher) / "model.safetensors"
        place = stage_folder("probe", student.teacher) / "probe.npz"
        probe = LinearProbe.load(place)
        data = training_data(prepared)
        sections = [params.model_of(name), training, params.augmentation, student]
        code = (*TRAINING_CODE, "components/distillation")
        read = weights.read_bytes() + (place.read_bytes() if student.kd else b"")
        key = resume_key(params.seed, sections, prepared, code, read)
        scratch = SCRATCH / f"distill-{name}-{key}"
        log_data(stage, prepared, {prepared.pretrain_split: "distillation", "val": "validation"})
        stage.journal.tags({"teacher": student.teacher})
        facts = describe(model, teacher, architecture, student, training, len(data.images))
        on_metrics = announced(stage, facts, training, scratch / "resume.pt")

        with stage.watched(), stage.folder() as out:
            trained = distill(
                model,
                teacher,
                Probe(probe.weight, probe.bias),
                data,
                student,
                training,
                params.augmentation,
                params.seed,
                scratch / "resume.pt",
                key,
                on_metrics,
            )
            constants = {**facts, "seed": params.seed, "teacher": student.teacher}
            write_trained(out, model, architecture, trained, training, prepared, constants)
        shutil.rmtree(scratch)
