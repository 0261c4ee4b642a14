"""The server: what it answers, what it refuses, and how it starts and stops."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import schemathesis
import stress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from server import Server, running

from mnist_lit import Classifier
from mnist_lit.__main__ import main
from mnist_lit.serve import PAGE
from mnist_lit.serve.app import MAX_BYTES, MAX_LARGE, MAX_REQUESTS
from mnist_lit.serve.protocol import REQUEST_TIMEOUT_S

pytestmark = pytest.mark.slow

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
FORMATS = ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]


@pytest.fixture(scope="module")
def picture(data_dir: Path) -> bytes:
    """A number drawn on a canvas."""
    return next(stress.make("numbers drawn", "val", 1)).file


def as_format(picture: bytes, name: str) -> bytes:
    file = BytesIO()
    Image.open(BytesIO(picture)).resize((100, 100)).save(file, name)
    return file.getvalue()


# --- answers --------------------------------------------------------------------------------------


def test_answers_are_those_of_predict(
    server: Server, picture: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "picture").write_bytes(picture)
    assert main(["predict", str(tmp_path / "picture"), "--format=json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    status, answer = server.predict(picture)

    assert status == 200
    assert set(answer) == {"number", "digits"}
    assert answer["number"] == expected["number"]
    for digit, other in zip(answer["digits"], expected["digits"], strict=True):
        assert set(digit) == set(other)
        assert (digit["digit"], digit["box"]) == (other["digit"], other["box"])
        assert digit["confidence"] == pytest.approx(other["confidence"], abs=1e-5)
        assert digit["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_no_digit_is_an_answer_too(server: Server) -> None:
    file = BytesIO()
    Image.new("L", (280, 280), 255).save(file, "PNG")
    assert server.predict(file.getvalue()) == (200, {"number": "", "digits": []})


def test_details_are_what_the_network_sees(server: Server, picture: bytes) -> None:
    expected = Classifier.load().read(picture)
    _, answer = server.predict(picture, "?details=true")

    for digit, other in zip(answer["digits"], expected.digits, strict=True):
        image = np.frombuffer(base64.b64decode(digit["image"]), np.uint8).reshape(28, 28)
        maps = [np.frombuffer(base64.b64decode(m), np.uint8) for m in digit["feature_maps"]]
        np.testing.assert_allclose(image / 255, other.image[0], atol=0.003)
        assert np.shape(maps)[1:] == (24 * 24,)
        assert np.max(maps) == 255


# --- refusals -------------------------------------------------------------------------------------


def bomb(side: int) -> bytes:
    """A PNG of a few kB, nothing but white."""
    file = BytesIO()
    Image.new("1", (side, side), 1).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda picture: b"", "send the picture's bytes"),
        (lambda picture: b"hello", "is not a picture"),
        (lambda picture: picture[: len(picture) // 2], "damaged or cut off"),
        (lambda picture: bomb(5001), "more than 25 million pixels"),
        (lambda picture: bomb(20_000), "million pixels"),
        (lambda picture: b"%PDF-1.4", "is a PDF"),
    ],
    ids=["empty", "text", "cut off", "large", "bomb", "PDF"],
)
def test_what_is_no_picture_is_said(
    server: Server, picture: bytes, make: Callable[[bytes], bytes], said: str
) -> None:
    status, answer = server.predict(make(picture))

    assert status == 400
    assert said in answer["detail"]


def test_form_is_refused_with_what_to_do(server: Server, picture: bytes) -> None:
    form = b'--X\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + picture + b"\r\n--X--"
    headers = {"Content-Type": "multipart/form-data; boundary=X"}
    status, _, body = server.request("POST", "/predict", form, headers)

    assert status == 400
    assert "--data-binary" in json.loads(body)["detail"]


def test_large_body_is_refused_before_it_is_sent(server: Server) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_large_body_of_unknown_length_is_refused(server: Server) -> None:
    chunks = iter([bytes(1_000_000)] * 30)
    status, answer = server.predict(chunks)

    assert status == 413
    assert "5 MB" in answer["detail"]


def sent_whole(server: Server, head: str, num_bytes: int) -> bytes:
    """The answer to a client that sends all of a body before it reads, on a last connection."""
    head += f"\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {num_bytes}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(head.encode() + bytes(num_bytes))
        return b"".join(iter(lambda: connection.recv(10_000), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /predict HTTP/1.1", 413),
        ("POST /predict HTTP/1.0", 413),
        ("POST /predict HTTP/1.1\r\nOrigin: https://evil.example", 403),
        ("POST /nowhere HTTP/1.1", 404),
    ],
)
def test_client_that_sends_too_much_gets_the_answer(server: Server, head: str, status: int) -> None:
    answer = sent_whole(server, head, 20_000_000)

    assert answer.split(b" ")[1] == str(status).encode()
    assert b"detail" in answer


def test_large_upload_to_a_busy_server_gets_the_answer(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    with ExitStack() as senders:
        for _ in range(MAX_REQUESTS):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            senders.enter_context(connection).sendall(head)
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while server.request("POST", "/predict", b"a")[0] != 503:
            assert time.monotonic() < deadline
        answer = sent_whole(server, "POST /predict HTTP/1.1", MAX_BYTES - 1)

    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"too many requests" in answer


def test_slow_senders_are_limited_in_number_and_time(server: Server, picture: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
    body = b"Content-Length: 100\r\n\r\nthe first of 100 bytes"
    start = time.monotonic()
    slow = [
        socket.create_connection(("127.0.0.1", server.port), timeout=30)
        for _ in range(MAX_REQUESTS + 1)
    ]
    for connection in slow[1:]:
        connection.sendall(head + body)
    slow[0].sendall(head)
    while (refused := server.request("POST", "/predict", picture))[0] == 200:
        assert time.monotonic() - start < REQUEST_TIMEOUT_S / 2
    assert (refused[0], refused[1]["Retry-After"]) == (503, "1")
    assert server.request("GET", "/healthz")[0] == 200

    assert slow[0].recv(1000) == b""
    for connection in slow[1:]:
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert REQUEST_TIMEOUT_S - 1 < time.monotonic() - start < REQUEST_TIMEOUT_S + 5
    assert server.predict(picture)[0] == 200
    for connection in slow:
        connection.close()


def test_foreign_names_of_this_machine_are_refused(server: Server) -> None:
    for name, expected in (("evil.example", 400), ("localhost:1", 200), ("[::1]:80", 200)):
        assert server.request("GET", "/", headers={"Host": name})[0] == expected


def test_other_names_of_this_machine_that_were_asked_for_are_its_own() -> None:
    with running("--host=127.0.0.2") as server:
        assert server.url == f"http://127.0.0.2:{server.port}"
        assert server.request("GET", "/healthz")[::2] == (200, b'{"status":"ok"}')


def test_address_for_others_is_one_that_they_know() -> None:
    with running("--host=0.0.0.0") as server:
        assert server.host != "0.0.0.0"
        assert server.request("GET", "/healthz")[::2] == (200, b'{"status":"ok"}')


def test_foreign_pages_are_not_let_in(server: Server) -> None:
    headers = server.request("GET", "/", headers={"Origin": "https://evil.example"})[1]

    assert "Access-Control-Allow-Origin" not in headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_what_a_foreign_page_asks_is_refused(server: Server, picture: bytes) -> None:
    foreign = ("https://evil.example", "null", "http://localhost:1", "http://[")
    own = f"http://{server.host}:{server.port}"
    for origin, expected in (*((origin, 403) for origin in foreign), (own, 200)):
        status, _, body = server.request("POST", "/predict", picture, {"Origin": origin})
        assert (status, "number" in json.loads(body)) == (expected, expected == 200)


def test_every_origin_of_a_request_is_looked_at(server: Server) -> None:
    own, foreign = f"http://localhost:{server.port}", "https://evil.example"
    for origins, expected in (((own, own), 200), ((own, foreign), 403), ((foreign, own), 403)):
        connection = http.client.HTTPConnection("localhost", server.port, timeout=60)
        connection.putrequest("GET", "/healthz")
        for origin in origins:
            connection.putheader("Origin", origin)
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == expected
        connection.close()


def test_request_of_two_lengths_is_its_connections_last(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
    body = b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(head + body)
        answer = b"".join(iter(lambda: connection.recv(10_000), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("header", ["Connection: close", "Origin: https://evil.example"])
def test_broken_body_of_an_answered_request_is_no_noise(header: str) -> None:
    with running() as server:
        head = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"
        body = "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            connection.sendall(f"{head}{body}".encode())
            while connection.recv(10_000):
                pass
        server.process.terminate()
        assert server.process.communicate(timeout=30) == ("", "")


def test_page_asks_for_nothing_elsewhere(server: Server) -> None:
    files = {file.name: file.read_bytes() for file in PAGE.iterdir()}
    assert server.request("GET", "/")[2] == files["index.html"]
    for name, content in files.items():
        assert server.request("GET", f"/page/{name}")[2] == content
        assert b"//" not in content.replace(b"http://www.w3.org/2000/svg", b"").replace(b"// ", b"")


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=2000))
def test_any_bytes_get_an_answer(server: Server, body: bytes) -> None:
    assert server.predict(body)[0] in (200, 400)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_damage_gets_an_answer(server: Server, picture: bytes, data: st.DataObject) -> None:
    whole = as_format(picture, data.draw(st.sampled_from(FORMATS)))
    # Most of what steers a decoder stands at the beginning.
    where = st.integers(0, min(200, len(whole) - 1)) | st.integers(0, len(whole) - 1)
    body = bytearray(whole)
    for place in data.draw(st.lists(where, max_size=5)):
        body[place] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.none() | where)]
    assert server.predict(bytes(body), "?details=true")[0] in (200, 400)


@pytest.mark.parametrize("path", ["/", "/healthz", "/openapi.json", "/page/page.css"])
def test_head_is_get_without_the_body(server: Server, path: str) -> None:
    expected_status, expected, body = server.request("GET", path)
    status, headers, nothing = server.request("HEAD", path)

    assert (expected_status, status, nothing) == (200, 200, b"")
    for name in ("Content-Length", "Content-Type"):
        assert headers[name] == expected[name]
    assert int(headers["Content-Length"]) == len(body)


def test_server_is_as_it_describes_itself(server: Server) -> None:
    described = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    assert set(described) == {"/healthz", "/network", "/predict"}
    get, post = (described["/network"]["GET"], described["/predict"]["POST"])
    for operation in (described["/healthz"]["GET"], get, post):

        @settings(max_examples=50, deadline=None)
        @given(case=operation.as_strategy())
        def validate(case: Any) -> None:
            case.call_and_validate()

        validate()


# --- when much is asked at once -------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow() -> bytes:
    """A picture that takes a few seconds."""
    return hostile.PICTURES["tallies"]()


def test_small_pictures_need_not_wait_for_large_ones(
    server: Server, slow: bytes, picture: bytes
) -> None:
    with ThreadPoolExecutor(6) as threads:
        large = [threads.submit(server.predict, slow) for _ in range(6)]
        time.sleep(0.5)
        small = [server.predict(picture)[0] for _ in range(10)]
        num_waiting = sum(not future.done() for future in large)
        answers = [future.result() for future in large]

    assert small == [200] * 10
    assert num_waiting > 2
    for status, _ in answers:
        assert status in (200, 503)


def test_what_nobody_waits_for_is_dropped(server: Server, slow: bytes) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(slow)}\r\n\r\n"
    for _ in range(MAX_LARGE):  # which would take longer than anybody is let wait
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(head.encode() + slow)
    time.sleep(0.5)

    assert server.predict(slow)[0] == 200


def test_what_follows_an_answer_is_limited_in_time(server: Server, slow: bytes) -> None:
    heads = [
        "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BYTES + 1}\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET",
    ]
    start = time.monotonic()
    dripping = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in heads]
    for connection, head in zip(dripping, heads, strict=True):
        connection.sendall(head.encode())
        assert connection.recv(10_000).startswith(b"HTTP/1.1 ")
    while dripping:
        assert time.monotonic() - start < REQUEST_TIMEOUT_S + 5
        time.sleep(0.5)
        for connection in list(dripping):
            try:
                connection.sendall(b"x")
            except OSError:  # the server has closed it
                dripping.remove(connection)
                connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_connections_without_end_are_refused_quietly() -> None:
    with running(max_files=128) as server:
        many = []
        for _ in range(500):
            with suppress(OSError):
                many.append(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        time.sleep(2)
        for connection in many:
            connection.close()
        time.sleep(1)

        assert server.request("GET", "/healthz")[0] == 200
        server.process.terminate()
        assert server.process.communicate(timeout=30) == ("", "")


# --- starting and stopping ------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 2)])
def test_signal_stops_it_once_everything_is_answered(
    number: int, workers: int, picture: bytes
) -> None:
    with running(f"--workers={workers}") as server:
        expect_answer_before_the_end(server, picture, number)


@linux
def test_ctrl_c_in_a_terminal_reaches_the_workers_too(picture: bytes) -> None:
    with running("--workers=2") as server:
        expect_answer_before_the_end(server, picture, signal.SIGINT, workers_of(server))


def expect_answer_before_the_end(
    server: Server, picture: bytes, number: int, also_to: Sequence[int] = ()
) -> None:
    """A signal ends a server and all of its processes, after what has been asked is answered."""
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(picture)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head.encode() + picture[:100])
        assert server.predict(picture)[0] == 200
        for process in (server.process.pid, *also_to):
            os.kill(process, number)
        time.sleep(0.5)
        connection.sendall(picture[100:])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 ")
    _, errors = server.process.communicate(timeout=30)  # until all processes have closed the pipe

    assert (server.process.returncode, errors) == (0, "")
    with pytest.raises(ConnectionRefusedError):
        server.predict(picture)


def workers_of(server: Server, without: Sequence[int] = ()) -> list[int]:
    """The two workers of a server, once it has two that are none of some former ones."""
    pid = server.process.pid
    deadline = time.monotonic() + 20
    while True:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
        workers = [int(child) for child in children if int(child) not in without]
        if len(workers) == 2:
            return workers
        assert time.monotonic() < deadline, f"{len(workers)} workers"
        time.sleep(0.05)


@linux
@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]], ids=["first", "second", "both"])
def test_killed_workers_are_replaced(chosen: list[int], picture: bytes) -> None:
    with running("--workers=2") as server:
        killed: list[int] = []
        for _ in range(4):  # also when they have only just been started
            workers = workers_of(server, killed)
            for number in chosen:
                os.kill(workers[number], signal.SIGKILL)
                killed.append(workers[number])
        workers_of(server, killed)
        assert server.predict(picture)[0] == 200
        server.process.terminate()
        assert server.process.communicate(timeout=30) == ("", "")


def test_first_requests_of_all_workers_are_answered(picture: bytes) -> None:
    """Threads of a forked worker once made torch's thread pool anew at the same moment."""
    with running("--workers=2") as server, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: server.predict(picture)[0], range(160)))

    assert answers == [200] * 160


@linux
def test_workers_end_with_a_killed_parent(picture: bytes) -> None:
    with running("--workers=2") as server:
        assert server.predict(picture)[0] == 200
        server.process.kill()
        assert server.process.communicate(timeout=30) == ("", "")  # nobody has the pipe any more
        with pytest.raises(ConnectionRefusedError):
            server.predict(picture)


def test_signal_lets_nobody_wait_in_vain(slow: bytes) -> None:
    with running() as server, ThreadPoolExecutor(MAX_LARGE) as threads:
        asked = [threads.submit(server.predict, slow) for _ in range(MAX_LARGE)]
        time.sleep(1)
        server.process.terminate()
        statuses = [future.result()[0] for future in asked]
        _, errors = server.process.communicate(timeout=60)

    assert set(statuses) <= {200, 503}
    assert (server.process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--port=65536"], "ports go from 0 to 65535"),
        (["--port=0", "--host=no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--port=0", "--workers=0"], "at least one"),
        (["--port=0", "--ckpt_path=missing.ckpt"], "missing.ckpt cannot be read"),
    ],
)
def test_what_the_user_can_mend_is_said_in_one_line(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *options]) == 2
    error = capsys.readouterr().err

    assert said in error
    assert error.count("\n") == 1


def test_port_in_use_is_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"--port={server.port}"]) == 2
    assert f"port {server.port}: Address already in use\n" in capsys.readouterr().err


def test_missing_extra_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve", "--port=0"]) == 2
    assert capsys.readouterr().err.endswith("pip install 'mnist-lit[serve]'\n")


def test_serve_loads_neither_lightning_nor_matplotlib() -> None:
    code = "import sys, mnist_lit.serve.app, mnist_lit.serve.server;"
    code += "print({name.split('.')[0] for name in sys.modules} & {'pytorch_lightning',"
    code += " 'torchvision', 'matplotlib', 'torchmetrics', 'scipy'})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert finished.stdout.splitlines()[-1] == "set()", finished.stderr
