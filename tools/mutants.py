"""Mutation testing: change one operator or number of a module at a time, and see whether its tests notice.

Run: make mutants, or make mutants MODULE=merge SAMPLE=100; a sample by a fixed seed, since all take hours
Works in a copy of the committed and uncommitted files; prints the share that was killed and every survivor.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import toml
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkResult

SEED = 3407
SECONDS = 120  # a mutant whose tests take longer counts as killed: it loops
# Each module with tests that look into it within seconds.
PYTEST = f"{sys.executable} -m pytest -x -q -p no:cacheprovider"
TESTS = {
    "stages/validate.py": f"{PYTEST} tests/test_validate.py -k 'not quickly and not imports and not refused_run'",
    "stages/merge.py": f"{PYTEST} tests/test_merge.py",
    "stages/shared/kquants.py": f"env NUMBA_DISABLE_JIT=1 {PYTEST} tests/shared/test_kquants_uncompiled.py",
    "stages/evaluate.py": f"{PYTEST} tests/test_evaluate.py -k '(measured or method or refused) and not llama_server'",
    "stages/shared/measure.py": f"{PYTEST} tests/test_evaluate.py -k 'not llama_server'",
    "stages/shared/scoring.py": f"{PYTEST} tests/shared/test_scoring.py",
}
# A decorator here compiles, or makes a class a dataclass: without it nothing is left to test. And a type is no code.
WITHOUT = ("core/RemoveDecorator", "core/ReplaceBinaryOperator_BitOr")


def copy_of_this(folder: Path) -> None:
    """The files that Git knows or would, as they stand."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], check=True, stdout=subprocess.PIPE)
    for name in filter(None, listed.stdout.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(name, target)


def keep_a_sample(session: Path, count: int) -> tuple[int, int]:
    """Leave so many mutants to be tried; return how many and of how many."""
    with use_db(session, WorkDB.Mode.open) as database:
        every = sorted(database.pending_work_items, key=lambda item: item.job_id)
        wanted = [item for item in every if not item.mutations[0].operator_name.startswith(WITHOUT)]
        wanted.sort(
            key=lambda item: (
                item.mutations[0].start_pos,
                item.mutations[0].operator_name,
                item.mutations[0].occurrence,
            )
        )
        sample = {item.job_id for item in random.Random(SEED).sample(wanted, min(count, len(wanted)))}
        left_out = [item.job_id for item in every if item.job_id not in sample]
        database.set_multiple_results(left_out, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))
    return len(sample), len(wanted)


def try_mutants(module: str, count: int, folder: Path) -> tuple[int, int]:
    """Try a sample of one module's mutants; print the survivors, return how many were killed and how many tried."""
    settings = {"module-path": module, "timeout": SECONDS, "excluded-modules": [], "test-command": TESTS[module]}
    config, session = folder / "mutants.toml", folder / "mutants.sqlite"
    config.write_text(toml.dumps({"cosmic-ray": settings | {"distributor": {"name": "local"}}}))
    session.unlink(missing_ok=True)

    def cosmic_ray(*words: str) -> None:
        subprocess.run(
            ["cosmic-ray", *words], cwd=folder, check=True, env=os.environ | {"NUMBA_CACHE_DIR": str(folder / "numba")}
        )

    cosmic_ray("baseline", str(config))
    cosmic_ray("init", str(config), str(session))
    tried, of = keep_a_sample(session, count)
    cosmic_ray("exec", str(config), str(session))
    killed = 0
    with use_db(session, WorkDB.Mode.open) as database:
        for item, result in database.completed_work_items:
            if result.worker_outcome == WorkerOutcome.SKIPPED:
                continue
            killed += result.is_killed
            if not result.is_killed:
                mutation = item.mutations[0]
                print(f"survived: {module}:{mutation.start_pos[0]} {mutation.operator_name}\n{result.diff}")
    print(f"{module}: {killed} of {tried} killed ({killed / tried:.0%}), a sample of {of}", flush=True)
    return killed, tried


def main() -> None:
    """Try a sample of every module's mutants, or of those whose path has a word in it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--module", default="")
    parser.add_argument("--sample", type=int, default=60)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        copy_of_this(folder)
        counts = [try_mutants(module, wanted.sample, folder) for module in TESTS if wanted.module in module]
    killed, tried = (sum(numbers) for numbers in zip(*counts, strict=True))
    print(f"{killed} of {tried} killed ({killed / tried:.0%})")


if __name__ == "__main__":
    main()
