"""Push, pull, publish and release, with a real OpenSSH server and a real nginx, both of them killed half-way too."""

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stages.shared.llama_runtime import Llama
from tests.servers import Nginx, Sshd, cut_wire
from tests.small_repository import GGUF, ROOT, commit, run

Clone = Callable[[Path], Path]
SHIPPED = ["MODEL_CARD.md", "MiPM_Senior-Q4_K_M.gguf", "Modelfile", "XXH128SUMS"]
HALF = 4_000_000  # bytes; the GGUF is about twice as large


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd").running() as server:
        yield server


def add_ssh(folder: Path, sshd: Sshd, storage: Path, port: int | None = None) -> None:
    """What the commands of the README write; `test_a_local_remote_leaves_no_trace_in_git` runs them."""
    url = f"ssh://{sshd.user}@127.0.0.1:{port or sshd.port}{storage}"
    (folder / ".dvc/config.local").write_text(
        f"[core]\n    remote = box\n['remote \"box\"']\n    url = {url}\n    keyfile = {sshd.key}\n"
    )


def add_http(folder: Path, port: int) -> None:
    """A public remote, in the committed configuration."""
    settings = (ROOT / ".dvc/config").read_text().replace("[core]\n", "[core]\n    remote = public\n")
    remote = f"['remote \"public\"']\n    url = http://127.0.0.1:{port}\n    verify = true\n"
    (folder / ".dvc/config").write_text(settings + remote)


def files(folder: Path) -> dict[str, str]:
    """Every file under a folder with its MD5."""
    return {
        str(path.relative_to(folder)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def damaged(storage: Path) -> list[str]:
    """Files of a DVC cache or remote whose content is not what their name says.

    `.tmp` files are no objects: what a dead connection leaves on the server, never read again.
    """
    objects = {name: md5 for name, md5 in files(storage).items() if "/md5/" in f"/{name}" and name[-4:] != ".tmp"}
    return [name for name, md5 in objects.items() if "".join(Path(name).parts[-2:]).removesuffix(".dir") != md5]


def test_a_clone_pulls_from_ssh_what_ships_and_nothing_else_and_it_generates(
    finished: Path, clone: Clone, sshd: Sshd, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    add_ssh(finished, sshd, storage)
    run("dvc", "push", cwd=finished)
    assert files(finished / "models/merged")["model.safetensors"] not in files(storage).values(), "cannot be pulled"
    other = clone(finished)
    add_ssh(other, sshd, storage)
    run("dvc", "pull", "quantize_gguf", cwd=other)
    assert files(other / "models/gguf") == files(finished / "models/gguf")
    assert sorted(files(other / "models/gguf")) == SHIPPED
    assert sorted(path.name for path in (other / "models").iterdir()) == ["base-tiny", "gguf"]
    assert not (other / "data/chatml").exists()
    assert len(files(other / ".dvc/cache")) == len(SHIPPED) + 1, "each of them and their list"
    with Llama(other / GGUF, 1, 128) as llama:
        (answer,) = llama.answers([llama.tokenize("Hola")], 8, None, "pulled")
    assert answer.tokens == 8 or answer.finished

    run("dvc", "pull", "train_lora", cwd=other)
    assert files(other / "models/adapter") == files(finished / "models/adapter")
    assert not (other / "models/merged").exists()


def test_a_local_remote_leaves_no_trace_in_git(finished: Path, sshd: Sshd, tmp_path: Path) -> None:
    url = f"ssh://{sshd.user}@127.0.0.1:{sshd.port}{tmp_path}/storage"
    run("dvc", "remote", "add", "--local", "--default", "box", url, cwd=finished)
    run("dvc", "remote", "modify", "--local", "box", "keyfile", str(sshd.key), cwd=finished)
    by_command = (finished / ".dvc/config.local").read_text()
    add_ssh(finished, sshd, tmp_path / "storage")
    assert (finished / ".dvc/config.local").read_text() == by_command
    assert run("git", "status", "--porcelain", cwd=finished) == ""
    commit_all = subprocess.run(["git", "add", "--all", "--dry-run"], cwd=finished, capture_output=True, check=True)
    assert commit_all.stdout == b""
    assert str(sshd.key) in (finished / ".dvc/config.local").read_text()


def test_a_published_model_comes_over_http_with_and_without_a_clone(
    finished: Path, clone: Clone, sshd: Sshd, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    add_ssh(finished, sshd, storage)
    run("dvc", "push", "--remote", "box", cwd=finished)
    with Nginx(tmp_path / "nginx", serves=storage).running() as nginx:
        (finished / ".dvc/config.local").unlink()
        add_http(finished, nginx.port)
        commit(finished, "Publish")
        run("gto", "register", "pm-senior", "--version", "v1.0.0", cwd=finished)
        assert "pm-senior" in run("gto", "show", cwd=finished)
        shipped = files(finished / "models/gguf")

        other = clone(finished)
        run("dvc", "pull", "quantize_gguf", cwd=other)
        assert files(other / "models/gguf") == shipped

        outside = tmp_path / "outside"
        outside.mkdir()
        run("git", "clone", "--quiet", "--mirror", str(finished), str(tmp_path / "hub.git"), cwd=tmp_path)
        url = f"file://{tmp_path}/hub.git"
        run("dvc", "get", url, "models/gguf", "--out", "got", cwd=outside)
        assert files(outside / "got") == shipped
        run("dvc", "artifacts", "get", url, "pm-senior", "--rev", "v1.0.0", "--out", "released", cwd=outside)
        assert files(outside / "released") == shipped

        modelfile = finished / "models/gguf/Modelfile"
        text = modelfile.read_text()
        modelfile.unlink()
        modelfile.write_text(text + "# changed\n")
        run("dvc", "commit", "--force", "quantize_gguf", cwd=finished)
        assert "403" in run("dvc", "push", "quantize_gguf", cwd=finished, fails=True), "published means read-only"


def test_a_release_pins_data_params_code_and_model_together(finished: Path) -> None:
    run("gto", "register", "pm-senior", "--version", "v1.0.0", cwd=finished)
    before = files(finished / "models/gguf")
    (finished / "params.yaml").write_text((finished / "params.yaml").read_text() + "# later\n")
    lines = (finished / "data/epics.jsonl").read_text().splitlines(keepends=True)
    (finished / "data/epics.jsonl").write_text("".join(lines[:5]))
    (finished / GGUF).unlink()
    (finished / GGUF).write_bytes(b"another model")
    commit(finished, "Go on")
    run("git", "checkout", "--quiet", "pm-senior@v1.0.0", cwd=finished)
    run("dvc", "checkout", "--force", cwd=finished)
    assert files(finished / "models/gguf") == before
    assert (finished / "data/epics.jsonl").read_text() == "".join(lines)
    assert "up to date" in run("dvc", "status", cwd=finished)


def test_a_push_whose_server_dies_half_way_leaves_nothing_broken_and_goes_on(
    finished: Path, clone: Clone, sshd: Sshd, tmp_path: Path
) -> None:
    storage = tmp_path / "storage"
    with cut_wire(sshd.port, HALF, towards_server=True, cut=sshd.kill_sessions) as port:
        add_ssh(finished, sshd, storage, port)
        output = run("dvc", "push", "quantize_gguf", cwd=finished, fails=True)
    assert "Traceback" not in output
    assert damaged(storage) == []
    arrived = {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.suffix != ".tmp"}
    add_ssh(finished, sshd, storage)
    run("dvc", "push", "quantize_gguf", cwd=finished)
    assert {path: path.stat().st_mtime_ns for path in arrived if path.is_file()}.items() <= arrived.items()
    other = clone(finished)
    add_ssh(other, sshd, storage)
    run("dvc", "pull", "quantize_gguf", cwd=other)
    assert files(other / "models/gguf") == files(finished / "models/gguf")


def test_a_pull_whose_server_dies_half_way_leaves_nothing_broken_and_goes_on(
    finished: Path, clone: Clone, tmp_path: Path
) -> None:
    other = clone(finished)
    server = Nginx(tmp_path / "nginx", serves=finished / ".dvc/cache")
    with server.running() as nginx, cut_wire(nginx.port, HALF, towards_server=False, cut=nginx.kill) as port:
        add_http(other, port)
        output = run("dvc", "pull", "quantize_gguf", cwd=other, fails=True)
    assert "Traceback" not in output
    assert damaged(other / ".dvc/cache") == []
    assert not (other / GGUF).exists()
    with server.running() as nginx:
        add_http(other, nginx.port)
        run("dvc", "pull", "quantize_gguf", cwd=other)
    assert files(other / "models/gguf") == files(finished / "models/gguf")


def test_a_file_that_was_damaged_on_the_server_is_refused(finished: Path, clone: Clone, tmp_path: Path) -> None:
    md5 = files(finished / "models/gguf")["MiPM_Senior-Q4_K_M.gguf"]
    stored = finished / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.unlink()
    stored.write_bytes(content)
    other = clone(finished)
    with Nginx(tmp_path / "nginx", serves=finished / ".dvc/cache").running() as nginx:
        add_http(other, nginx.port)
        run("dvc", "pull", "quantize_gguf", cwd=other, fails=True)
    assert not (other / GGUF).exists()
    assert damaged(other / ".dvc/cache") == []
