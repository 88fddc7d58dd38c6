"""Real servers on the loopback interface: OpenSSH, nginx, Caddy, llama-server, and a wire to them that can be cut.

They skip their tests with the reason where the program is not installed; with PM_SENIOR_REQUIRE_SERVERS=1 they fail.
"""

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NoReturn

import psutil
import pytest


def program(*names: str) -> str:
    """The path of the first that is installed; where none is the test is skipped, or fails if it may not be."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"]
    path = next(filter(None, (shutil.which(name, path=os.pathsep.join(folders)) for name in names)), None)
    if path is None:
        unusable(f"{names[0]} is not installed")
    return path


def unusable(reason: str) -> NoReturn:
    """Skip the test for want of a program, or fail it where none may be wanting."""
    if os.environ.get("PM_SENIOR_REQUIRE_SERVERS"):
        pytest.fail(f"{reason}, and PM_SENIOR_REQUIRE_SERVERS is set")
    pytest.skip(reason)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"{server.args!r} does not listen on {port}: {log.read_text()}")


@contextmanager
def _serve(
    command: list[str], port: int, log: Path, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    own = os.environ | (environment or {})
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=cwd, env=own, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait_for(port, server, log)
            yield server
        finally:
            server.kill()
            server.wait()


class Sshd:
    """An OpenSSH server with one client key, for the user that runs the tests."""

    def __init__(self, folder: Path) -> None:
        self._program, keygen = program("sshd"), program("ssh-keygen")
        folder.mkdir()
        self.folder, self.port, self.user = folder, free_port(), getpass.getuser()
        self.key = folder / "client_key"
        for key in (self.key, folder / "host_key"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where root's sshd locks itself in
        (folder / "config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.key}.pub\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nStrictModes no\nSubsystem sftp internal-sftp\n"
        )

    @contextmanager
    def running(self) -> Iterator["Sshd"]:
        """The server, for the length of a `with` block."""
        command = [self._program, "-D", "-e", "-f", str(self.folder / "config")]
        with _serve(command, self.port, self.folder / "log") as self._server:
            yield self

    def kill_sessions(self) -> None:
        """Kill the processes of open connections; the listening one goes on."""
        for session in psutil.Process(self._server.pid).children(recursive=True):
            session.kill()


class Nginx:
    """An nginx that serves a folder, read-only."""

    def __init__(self, folder: Path, serves: Path) -> None:
        self._program = program("nginx")
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        scratch = "".join(
            f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = f"user {getpass.getuser()};" if os.getuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user} daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {scratch}\n"
            f"server {{ listen 127.0.0.1:{self.port}; root {serves};\n"
            "location / { limit_except GET { deny all; } } } }\n"
        )

    @contextmanager
    def running(self) -> Iterator["Nginx"]:
        """The server, for the length of a `with` block."""
        command = [self._program, "-c", str(self.folder / "nginx.conf"), "-e", "stderr"]
        with _serve(command, self.port, self.folder / "log") as self._server:
            yield self

    def kill(self) -> None:
        """Kill it at once."""
        self._server.kill()


def render_go_template(template: str, values: list[dict[str, str]], folder: Path) -> list[str]:
    """What Go's text/template makes of a template for each value; Caddy is built on it and serves a page of all."""
    end = "\x1e"  # a control character that no text has
    folder.mkdir()
    packed = b64encode(json.dumps(values).encode()).decode()
    page = f'{{{{ define "one" }}}}{template}{{{{ end }}}}{{{{ range fromJson (b64dec "{packed}") }}}}'
    page += f'{{{{ template "one" . }}}}{end}{{{{ end }}}}'
    (folder / "page.txt").write_text(page, encoding="utf-8")
    port = free_port()
    (folder / "Caddyfile").write_text(
        "{\n admin off\n}\n"
        f"http://127.0.0.1:{port} {{\n root * {folder}\n templates {{\n mime text/plain\n }}\n file_server\n}}\n"
    )
    command = [program("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    home = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with _serve(command, port, folder / "log", environment=home):
        connection = HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/page.txt")
        response = connection.getresponse()
        text = response.read().decode()
    assert response.status == 200, (folder / "log").read_text()
    *texts, rest = text.split(end)
    assert rest == ""
    return texts


@contextmanager
def llama_server(arguments: list[str], folder: Path, port: int) -> Iterator[None]:
    """llama.cpp's own server in a folder, ready to be asked; the second name is that of a PyPI package's build."""
    command = [program("llama-server", "llama-server-vulkan"), *arguments, "--port", str(port)]
    with _serve(command, port, folder.with_name("llama-server.log"), folder) as server:
        for _ in range(200):  # it listens before it has loaded its file, and may break a connection off then
            with suppress(OSError, HTTPException):
                connection = HTTPConnection("127.0.0.1", port)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            if server.poll() == -signal.SIGILL:
                unusable(f"{command[0]} was built for another processor")
            time.sleep(0.05)
        yield


@contextmanager
def cut_wire(to_port: int, after_bytes: int, towards_server: bool, cut: Callable[[], None]) -> Iterator[int]:
    """A port that leads to another; when so many bytes have gone one way it cuts everything and stays dead.

    Args:
        to_port: the server's.
        after_bytes: how many bytes still arrive.
        towards_server: which way they are counted: what is sent to the server, or what comes from it.
        cut: called at that moment.

    """
    listener = socket.create_server(("127.0.0.1", 0))
    open_sockets: list[socket.socket] = []
    passed, lock, dead = [0], threading.Lock(), threading.Event()

    def pump(source: socket.socket, target: socket.socket, counts: bool) -> None:
        try:
            while block := source.recv(65536):
                target.sendall(block)
                with lock:
                    passed[0] += len(block) if counts else 0
                    if passed[0] > after_bytes and not dead.is_set():
                        dead.set()
                        cut()
                        for each in open_sockets:
                            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        for each in (source, target):
            each.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if dead.is_set():
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", to_port))
            open_sockets.extend((client, server))
            for source, target, counts in ((client, server, towards_server), (server, client, not towards_server)):
                threading.Thread(target=pump, args=(source, target, counts), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()
