"""Fetching from a local server that breaks off, with and without ranges."""

import hashlib
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from tutelage.config import Data
from tutelage.data import DataError, cifar
from tutelage.data.download import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT, but only `most` bytes a request for the first `breaks` requests."""

    def __init__(self, breaks=0, most=100_000, ranges=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks, self.most, self.ranges = breaks, most, ranges
        self.starts = []
        self.url = f"http://127.0.0.1:{self.server_port}/set.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if self.server.ranges else 0
        self.server.starts.append(start)
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        breaking = len(self.server.starts) <= self.server.breaks
        self.wfile.write(CONTENT[start:][: self.server.most if breaking else None])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(**how):
        server = Server(**how)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_whole_transfer_arrives(serve, tmp_path):
    server, path = serve(), tmp_path / "set.tar.gz"
    fetch(server.url, MD5, path)
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


def test_a_broken_transfer_goes_on_where_it_stopped(serve, tmp_path):
    server, path = serve(breaks=2), tmp_path / "set.tar.gz"
    fetch(server.url, MD5, path)
    assert server.starts == [0, 100_000, 200_000]
    assert path.read_bytes() == CONTENT


def test_the_next_command_goes_on_from_the_part(serve, tmp_path):
    server, path = serve(breaks=3, most=50_000), tmp_path / "set.tar.gz"
    with pytest.raises(DataError, match=r"broke off after 150,000 bytes .300,000 were announced"):
        fetch(server.url, MD5, path)
    assert not path.exists()
    fetch(server.url, MD5, path)
    assert server.starts == [0, 50_000, 100_000, 150_000]
    assert path.read_bytes() == CONTENT


def test_a_server_without_ranges_begins_again(serve, tmp_path):
    server, path = serve(breaks=1, ranges=False), tmp_path / "set.tar.gz"
    fetch(server.url, MD5, path)
    assert server.starts == [0, 0]
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_whole_is_only_checked(serve, tmp_path):
    server, path = serve(), tmp_path / "set.tar.gz"
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    fetch(server.url, MD5, path)
    assert server.starts == [len(CONTENT)]
    assert path.read_bytes() == CONTENT


def test_a_wrong_digest_removes_the_file(serve, tmp_path):
    with pytest.raises(DataError, match=rf"digest {MD5} instead of 0000: it was removed"):
        fetch(serve().url, "0000", tmp_path / "set.tar.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_not_there_is_one_sentence(serve, tmp_path):
    server = serve()
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"broke off after 0 bytes .*refused"):
        fetch(server.url, MD5, tmp_path / "set.tar.gz")


def test_a_missing_set_is_fetched_into_a_new_root_and_then_read(serve, tmp_path):
    server = serve(breaks=1)
    archive = replace(cifar.CIFAR10, url=server.url, md5=MD5)
    settings = Data("cifar10", tmp_path / "new", download=True)
    with pytest.raises(DataError, match=r"set\.tar\.gz is broken"):  # the bytes are no archive
        cifar.read_archive(archive, settings, "train")
    assert (tmp_path / "new/set.tar.gz").read_bytes() == CONTENT
    assert len(server.starts) == 2
