"""Push and pull of a file through DVC over SSH beside a plain scp of the same bytes, on one machine.

Run: python -m benchmarks.transfer [GiB] [rounds]        needs sshd and scp; takes four times the space
Both sides share the processor, so the ratio says more than the seconds. DVC also hashes what it pulls in.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.servers import Sshd
from tests.small_repository import commit, git_identity, run

BLOCK = 16 * 2**20


def seconds(*command: str, cwd: Path) -> float:
    """How long a command takes."""
    started = time.perf_counter()
    run(*command, cwd=cwd)
    return time.perf_counter() - started


def configure(folder: Path, sshd: Sshd, storage: Path) -> None:
    """A remote over SSH."""
    run("dvc", "remote", "add", "--local", "-d", "box", f"ssh://{sshd.user}@127.0.0.1:{sshd.port}{storage}", cwd=folder)
    run("dvc", "remote", "modify", "--local", "box", "keyfile", str(sshd.key), cwd=folder)


def main(gib: float, rounds: int) -> None:
    """One line per direction: medians and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        source = work / "source"
        source.mkdir()
        run("git", "init", "--quiet", cwd=source)
        git_identity(source)
        run("dvc", "init", "--quiet", cwd=source)
        run("dvc", "config", "cache.type", "hardlink", cwd=source)
        with (source / "model.gguf").open("wb") as file:
            for _ in range(int(gib * 2**30 / BLOCK)):
                file.write(os.urandom(BLOCK))
        run("dvc", "add", "--quiet", "model.gguf", cwd=source)
        commit(source, "Add a file")
        times: dict[str, list[float]] = {"push": [], "scp there": [], "pull": [], "scp back": []}
        with Sshd(work / "sshd").running() as sshd:
            there = f"{sshd.user}@127.0.0.1:{work}/copy"
            options = ("-q", "-P", str(sshd.port), "-i", str(sshd.key), "-o", "StrictHostKeyChecking=no")
            options += ("-o", f"UserKnownHostsFile={work}/known_hosts")
            for number in range(rounds):
                storage, clone = work / f"storage{number}", work / "clone"
                (source / ".dvc/config.local").unlink(missing_ok=True)
                configure(source, sshd, storage)
                times["push"].append(seconds("dvc", "push", cwd=source))
                times["scp there"].append(seconds("scp", *options, "model.gguf", there, cwd=source))
                run("git", "clone", "--quiet", str(source), str(clone), cwd=work)
                configure(clone, sshd, storage)
                times["pull"].append(seconds("dvc", "pull", cwd=clone))
                times["scp back"].append(seconds("scp", *options, there, "back", cwd=work))
                shutil.rmtree(clone)
                shutil.rmtree(storage)
    middle = {what: statistics.median(values) for what, values in times.items()}
    for ours, plain in (("push", "scp there"), ("pull", "scp back")):
        print(
            f"{ours}: {gib:g} GiB in {middle[ours]:.1f} s, {plain}: {middle[plain]:.1f} s, "
            f"ratio {middle[ours] / middle[plain]:.2f} (medians of {rounds})"
        )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, int(sys.argv[2]) if len(sys.argv) > 2 else 3)
