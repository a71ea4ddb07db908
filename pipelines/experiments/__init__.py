"""Studies: models × seeds, trained on a machine that need not have the stack, and brought into MLflow afterwards.

    plan.py       on the machine with the stack: a study file becomes study.json, everything validated
    run.py        anywhere: the stages of each model at each seed, going on with what is missing
    jobs.py       anywhere: several processes at one study
    tables.py     anywhere: mean ± standard deviation over seeds
    methods.py    where matplotlib is: the methods side by side, in one short table and one figure
    pack.py       anywhere: results as one archive in parts of a size that can be carried
    importing.py  on the machine with the stack: results become MLflow runs, as if the stages had run there

What runs anywhere needs torch, torchvision, NumPy, SciPy, scikit-learn, PyArrow and safetensors: no pydantic, Prefect,
DVC, MLflow, Great Expectations or matplotlib.
"""
