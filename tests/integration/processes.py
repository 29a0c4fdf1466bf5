"""Coordinators and nodes started by hand, as an operator does; and a proxy that breaks the link between them."""

import json
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path

from federation import wait_for


class Process:
    def __init__(self, command, log, **options):
        self.log = Path(log)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.PIPE,
                                          start_new_session=True, **options)

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def says(self, words, seconds=120):
        wait_for(lambda: words in self.text or self.popen.poll() is not None, seconds)
        assert words in self.text, self.text

    def ends(self, seconds=120):
        return self.popen.wait(timeout=seconds)

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)
        return self.popen.wait(timeout=120)


class Operator:
    """Starts processes in a folder and ends those that are left."""

    def __init__(self, program, folder):
        self.program, self.folder, self.started = program, Path(folder), []
        self.folder.mkdir(parents=True, exist_ok=True)

    def start(self, name, *command):
        self.started.append(Process(command, self.folder / f"{name}.log"))
        return self.started[-1]

    def coordinator(self, config, run_dir, *arguments, name="coordinator"):
        return self.start(name, self.program, "coordinator", config, "--run-dir", run_dir, *arguments)

    def node(self, name, address, *arguments, data, model):
        return self.start(name, self.program, "node", "--connect", address, "--name", name, "--data", data, "--model", model,
                          "--state", self.folder / "state" / name, *arguments)

    def end(self):
        for process in self.started:
            if process.popen.poll() is None:
                process.kill()


def address_of(run_dir):
    path = Path(run_dir) / "address"
    wait_for(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


class Proxy:
    """Stands between nodes and a coordinator; cuts the first connection after `cut_up_at` bytes have gone up, or turns a bit."""

    def __init__(self, upstream, cut_up_at=None, flip_up_at=None):
        host, port = upstream.rsplit(":", 1)
        self.upstream, self.cut_up_at, self.flip_up_at, self.cuts = (host, int(port)), cut_up_at, flip_up_at, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return  # closed by the test
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server, up = socket.create_connection(self.upstream), 0
        with client, server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    try:
                        data = bytearray(source.recv(1 << 16))
                    except OSError:
                        return
                    if not data:
                        return
                    if source is client:
                        if self.flip_up_at is not None and up <= self.flip_up_at < up + len(data):
                            data[self.flip_up_at - up] ^= 1
                            self.flip_up_at = None
                        up += len(data)
                        if self.cut_up_at is not None and up > self.cut_up_at:
                            self.cut_up_at, self.cuts = None, self.cuts + 1
                            return
                    (server if source is client else client).sendall(data)

    def close(self):
        self.listener.close()


def hello(hansa, folder, node, base, tokenizer="", major=1):
    """The rogue's hello, with every plugin that the program has."""
    components = json.loads(hansa("plugins", "list", "--json", "--plugin-path", os.environ["HANSA_TEST_PLUGINS"]).stdout)["components"]
    path = Path(folder) / f"{node}.json"
    path.write_text(json.dumps({"node": node, "base": base, "tokenizer": tokenizer, "major": major,
                                "plugins": {c["plugin"]: c["version"] for c in components}}))
    return path
