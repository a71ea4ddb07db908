"""The project's last commit: what isolated runs take, whatever the working tree holds."""

import os
import subprocess
from pathlib import Path

from components.errors import UserError

# of a repository that a git hook may have named; a user's hooks and templates are not for our clone
GIT_LOCATION = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
NOT_TAKEN = ("dvc.lock", "prefect.yaml")  # the one decides only what is cached, the other counts when deploying


def last_commit(project: Path) -> str:
    """Its hash.

    Raises:
        UserError: no git repository, no commit, or not a DVC project.
    """
    if not (project / ".dvc").is_dir():
        raise UserError(f"{project}: not a DVC project (there is no .dvc folder). Name the folder with dvc.yaml.")
    need = "An isolated run works in a clone of the last commit"
    try:
        git(project, "rev-parse", "--show-toplevel")
    except UserError as error:
        refused = any((place / ".git").exists() for place in (project.resolve(), *project.resolve().parents))
        advice = "" if refused else " `git init` and commit the project first."  # git's own advice says what to do
        raise UserError(f"{need}, and {error}{advice}") from error
    try:
        return git(project, "rev-parse", "--verify", "HEAD^{commit}")
    except UserError as error:
        raise UserError(
            f"{need}, and {project} has no commit yet. Commit it first: git add --all && git commit."
        ) from error


def uncommitted(project: Path) -> list[str]:
    """Files in git that differ from the last commit, by their paths in the project: isolated runs miss the changes."""
    left_out = (f":(exclude){name}" for name in NOT_TAKEN)
    return git(project, "diff", "--name-only", "--relative", "HEAD", "--", ".", *left_out).splitlines()


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    """What git answers; a UserError where it is not installed or, if `check`, fails."""
    environment = {name: value for name, value in os.environ.items() if name not in GIT_LOCATION}
    try:
        done = subprocess.run(
            ["git", "-c", f"core.hooksPath={os.devnull}", "-c", "init.templateDir=", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError as error:
        raise UserError("git was not found. Install it: an isolated run works in a clone.") from error
    if check and done.returncode:
        raise UserError(f"git {arguments[0]} failed in {folder}: {' '.join(done.stderr.split())}")
    return done.stdout.strip()
