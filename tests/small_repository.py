"""A Git and DVC repository of this project with eight short Epics, in which the real pipeline runs in half a minute."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
GGUF = "models/gguf/MiPM_Senior-Q4_K_M.gguf"
PARTS = (
    *(".dvc/config", ".dvc/page.html", ".dvc/plots", ".dvcignore", ".gitignore", "constraints.txt", "dvc.yaml"),
    *("data/epic.schema.json", "models/base-tiny", "stages", "tools"),
)
SUBJECTS = ("facturas", "turnos", "pedidos", "citas", "envíos", "contratos", "becas", "permisos")


def run(*command: str, cwd: Path, fails: bool = False, programs: Path | None = None) -> str:
    """What a command prints, on both channels; it must succeed, or fail if that is what is wanted.

    `programs` is a folder whose programs come before all others of their name.
    """
    # The stages call `python`: let it be this one.
    path = [programs, Path(sys.executable).parent, os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(str(part) for part in path if part)}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert (done.returncode != 0) == fails, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def commit(folder: Path, message: str) -> None:
    """Commit everything that is not ignored."""
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--message", message, cwd=folder)


def git_identity(folder: Path) -> None:
    """A name to commit under, whatever the machine's own settings."""
    run("git", "config", "user.name", "Test", cwd=folder)
    run("git", "config", "user.email", "test@localhost", cwd=folder)


def write_repository(folder: Path) -> None:
    """The project's own code and base model, a small data set, params for a short run; committed, nothing run."""
    for part in PARTS:
        source, target = ROOT / part, folder / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)  # with what Numba has compiled, which is valid by the files' times
        else:
            shutil.copyfile(source, target)
    rows = [_row(number, subject) for number, subject in enumerate(SUBJECTS, start=1)]
    for name, part_of in (("epics.jsonl", rows[:6]), ("epics_eval.jsonl", rows[6:])):
        (folder / "data" / name).write_text("".join(part_of), encoding="utf-8")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["validate"]["max_similarity"] = 1.0
    params["train"] |= {"epochs": 1, "warmup_steps": 0}
    params["quantize_gguf"] |= {"methods": ["q4_k_m"], "imatrix": False}
    params["evaluate"] |= {"methods": ["q4_k_m"], "max_answer_tokens": 16, "parallel": 2}
    params["gate"] = {
        "method": "q4_k_m",
        "unconstrained": {"json_valid": 0.0},
        "constrained": {"json_valid": 0.0},
        "baseline_at_most": {"json_valid": 1.0},
        "times_baseline": {"json_valid": 0.0},
    }
    yaml.dump(params, folder / "params.yaml")
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    git_identity(folder)
    commit(folder, "Begin")


def traces_of(folder: Path) -> Path:
    """Where the traces of a repository's run lie."""
    return folder.with_name(f"{folder.name}-traces")


def tracing_python(folder: Path) -> Path:
    """A folder with a `python` that notes what a stage does.

    In `<stage>.audit` there, every address that it looks up or connects to and every class that it unpickles; with
    strace installed, in `<stage>.trace` the files that it opens.
    """
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AUDIT)
    tracer = "strace --seccomp-bpf -f -y -qq -e trace=openat,execve -e signal=none -o"
    traced = f'{tracer} "{folder}/$stage.trace"' if shutil.which("strace") else ""
    script = folder / "python"
    script.write_text(
        "#!/bin/sh\n"
        f'test "$1" = -m || exec {sys.executable} "$@"\n'
        "stage=${2#stages.}\n"
        f'export PYTHONPATH="{folder}" PM_SENIOR_AUDIT="{folder}/$stage.audit"\n'
        f'exec {traced} {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    return folder


AUDIT = """\
import os, sys
log = os.open(os.environ["PM_SENIOR_AUDIT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        os.write(log, f"{event} {arguments}\\n".encode())
    elif event == "pickle.find_class":
        frame, files = sys._getframe(1), []
        while frame:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        os.write(log, f"{event} {arguments} {files[:4]}\\n".encode())

sys.addaudithook(note)
"""

# Runs the rest of its command line where there is no network but the loopback device, which llama.cpp's server needs.
OFFLINE = """\
import fcntl, os, pathlib, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    name, flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, 0x8913, struct.pack("16sH14x", b"lo", 0)))
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", name, flags | 1))
pathlib.Path(sys.argv[1]).write_text(" ".join(name for _, name in socket.if_nameindex()))
os.execvp(sys.argv[2], sys.argv[2:])
"""


def without_network(noted: Path) -> tuple[str, ...]:
    """What to put before a command to run it offline, its interfaces noted in a file; nothing if that is forbidden."""
    unshare = shutil.which("unshare")
    if unshare and subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode == 0:
        return unshare, "--net", sys.executable, "-c", OFFLINE, str(noted)
    return ()


def _row(number: int, subject: str) -> str:
    row = {
        "input": {
            "context": f"Una empresa gestiona {subject} a mano y quiere un portal.",
            "requerimientos": [f"Registrar {subject} en línea."],
        },
        "output": {
            "epic_id": f"EPIC-{number:03}",
            "title": f"Portal de {subject}",
            "acceptance_criteria": [f"El portal registra {subject} en línea."],
        },
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
