"""The stages of the DAG: one module a stage, each with a function `run`. dvc.yaml says what depends on what."""
