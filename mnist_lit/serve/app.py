"""The web server's app: the page, and `/predict` for it and for other programs."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from torch import Tensor

from mnist_lit import __version__
from mnist_lit.models import named_class
from mnist_lit.reading.classifier import Classifier
from mnist_lit.reading.decode import FORMATS
from mnist_lit.reading.ink import find_ink
from mnist_lit.reading.limits import PictureError
from mnist_lit.reading.pdf import is_pdf
from mnist_lit.serve import PAGE
from mnist_lit.serve.corrections import Corrections
from mnist_lit.serve.protocol import ANSWER_TIMEOUT_S, REQUEST_TIMEOUT_S

MAX_BYTES = 5_000_000  # of a picture
MAX_PIXELS = 25_000_000  # of a picture, however few bytes it has: some take 50 bytes of memory each
MAX_REQUESTS = 64  # at a time, each of which may hold a picture; more are told to come back
# Pictures up to this size, such as a canvas, skip the queue of large ones.
SMALL_BYTES, SMALL_PIXELS = 100_000, 1_000_000
NUM_THREADS = 2  # for small pictures: one computes while the other waits for the interpreter
MAX_DETAILED = 300  # digits of an answer; a whole page's would be many megabytes
MAX_LARGE = 16  # large pictures at a time, of which one is read and the others wait


class Digit(BaseModel):
    """A digit that was read."""

    digit: int = Field(ge=0, le=9)
    confidence: float = Field(description="its probability")
    box: tuple[int, int, int, int] = Field(
        description="left, top, right, bottom in pixels; right and bottom are exclusive"
    )
    probabilities: list[float] = Field(description="of 0 to 9")
    image: str | None = Field(None, description="what the network sees: 28x28 uint8, as base64")
    feature_maps: list[str] | None = Field(
        None,
        description="activations of each filter of the first convolution, scaled to 255: square,"
        " uint8, as base64",
    )


class Answer(BaseModel):
    """The digits in a picture."""

    number: str = Field(description="lines are separated by a space; empty: no digit")
    digits: list[Digit]
    note: str | None = Field(None, description="what was left out, and why")


class ClassAnswer(BaseModel):
    """The class of a picture, of a network that was not trained on digits."""

    label: str = Field(alias="class")
    confidence: float = Field(description="its probability")
    probabilities: dict[str, float] = Field(description="of all classes, the most probable first")
    note: str | None = Field(None, description="what was left out, and why")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": Problem,
        "description": "No picture that can be read, or a PDF",
    },
    403: {"model": Problem, "description": "Cross-origin request"},
    408: {"model": Problem, "description": "The picture takes too long to arrive"},
    413: {"model": Problem, "description": f"More than {MAX_BYTES / 1e6:.0f} MB"},
    503: {
        "model": Problem,
        "description": "Too many at a time, or no answer in 10 s",
    },
}
BYTES = {"type": "string", "format": "binary"}
PICTURE = {"content": {"image/*": {"schema": BYTES}}}


def create_app(
    ckpt_path: str | None = None,
    network: str | None = None,
    only_host: str | None = "127.0.0.1",
    collect: Path | None = None,
) -> FastAPI:
    """Make the app with its own network; set torch and OpenCV to one thread.

    Args:
        ckpt_path: a checkpoint that `fit` wrote; None: the packaged network.
        network: the class of its network, if it is not one of this package.
        only_host: accept only requests to this address or this machine's own names, against DNS
            rebinding by foreign web pages; None: all.
        collect: folder for corrections that are made on the page; None: none can be made.

    Raises:
        UserError: the checkpoint or the folder cannot be used.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    classifier = Classifier.load(ckpt_path, named_class(network))
    read = partial(_read if classifier.reads_digits else _classify, classifier)
    small, large = WorkerPool(NUM_THREADS), WorkerPool(1)
    places, large_places = asyncio.Semaphore(MAX_REQUESTS), asyncio.Semaphore(MAX_LARGE)
    app = FastAPI(title="mnist_lit", version=__version__, docs_url=None, redoc_url=None)
    app.add_middleware(CrossOriginGuard)
    if only_host:
        names = ["localhost", "127.0.0.1", "[::1]", only_host]
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=names)
    app.add_middleware(DrainRequestBody)  # the outermost: whoever answers
    app.mount("/page", StaticFiles(directory=PAGE))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / ("index.html" if classifier.reads_digits else "classes.html"))

    @app.get("/network")
    async def network_facts() -> dict[str, Any]:
        """Return the classes, and how a picture is brought to the network's input."""
        return {
            "classes": classifier.classes,
            "preprocessing": asdict(classifier.preprocessing),
            "collect": str(collect) if collect else None,
        }

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Answer, to show that the server is up."""
        return {"status": "ok"}

    if collect:
        classifier.check_reads_digits()
        _add_corrections(app, Corrections(collect))

    @app.post(
        "/predict",
        responses=PROBLEMS,
        response_model=Answer if classifier.reads_digits else ClassAnswer,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"required": True, **PICTURE}},
    )
    async def predict(request: Request, details: bool = False) -> dict[str, Any]:
        """Read the digits in a picture, whose bytes are the body; or tell its class.

        With `details`, the first 300 digits come with what the network sees of them.
        """
        if places.locked():
            raise _busy()
        async with places:
            picture = await _body(request)
            if _is_small(picture):
                return await _while_connected(request, _answer(small, read, picture, details))
            if large_places.locked():
                raise _busy()
            async with large_places:
                return await _while_connected(request, _answer(large, read, picture, details))

    return app


def _add_corrections(app: FastAPI, corrections: Corrections) -> None:
    body = {"content": {"application/octet-stream": {"schema": BYTES}}}
    unwritten = {"model": Problem, "description": "The correction cannot be written"}
    problems: dict[int | str, Any] = {status: PROBLEMS[status] for status in (400, 403, 408, 413)}

    @app.post(
        "/corrections/{digit}",
        responses={**problems, 507: unwritten},
        openapi_extra={"requestBody": {"required": True, **body}},
    )
    async def keep(request: Request, digit: int) -> dict[str, str]:
        """Keep a digit that was read wrong: its 28x28 bytes, as `/predict` gave them, and truth."""
        try:
            return {"name": corrections.keep(await _body(request), digit)}
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        except OSError as error:
            raise HTTPException(507, f"the correction is not kept: {error.strerror}") from error

    @app.delete("/corrections/{name}")
    async def take_back(name: str) -> None:
        """Remove a correction."""
        try:
            corrections.take_back(name)
        except OSError as error:
            raise HTTPException(507, f"the correction stays: {error.strerror}") from error


class CrossOriginGuard:
    """Middleware that refuses requests of foreign pages, and ambiguous ones."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)


def _refusal(headers: Headers) -> JSONResponse | None:
    # Browsers name the requesting page in Origin; other clients omit it.
    for origin in headers.getlist("origin"):
        _, _, host = origin.partition("://")
        if host.lower() != headers.get("host", "").lower():
            return JSONResponse({"detail": "cross-origin requests are refused"}, 403)
    if "content-length" in headers and "transfer-encoding" in headers:  # RFC 9112, 6.1
        return JSONResponse(
            {"detail": "both Content-Length and Transfer-Encoding"}, 400, {"Connection": "close"}
        )
    return None


class DrainRequestBody:
    """Middleware that reads the rest of a request's body before the response ends.

    A connection that is closed while there is something left to read is reset, and a client that is
    still sending loses the answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unread = scope["type"] == "http"

        async def receive_part() -> Message:
            nonlocal unread
            part = await receive()
            unread = part.get("more_body", False)
            return part

        async def send_part(part: Message) -> None:
            if unread and part["type"] == "http.response.body" and not part.get("more_body"):
                await send({**part, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(REQUEST_TIMEOUT_S):
                        while unread:
                            await receive_part()
                part = {"type": "http.response.body"}
            await send(part)

        await self.app(scope, receive_part, send_part)


async def _body(request: Request) -> bytes:
    """Receive a request's body within the limits of size and time.

    Raises:
        HTTPException: 413, 408, or 400 if the sender went away or sent something else.
    """
    body = bytearray()
    too_large = HTTPException(413, f"the picture has more than {MAX_BYTES / 1e6:.0f} MB")
    # Before the body is read: curl waits for "100 Continue", and gets this instead.
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
        raise too_large
    try:
        async with asyncio.timeout(REQUEST_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        headers = {"Connection": "close"}
        raise HTTPException(408, "the picture takes too long to arrive", headers) from None
    except ClientDisconnect:
        raise HTTPException(400, "the picture was not sent to its end") from None
    if not body or request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(
            400, "send the picture's bytes as the body, not as a form (curl: --data-binary @FILE)"
        )
    return bytes(body)


async def _while_connected(request: Request, work: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """Await work for a client; drop it if the client leaves before it has begun.

    Raises:
        HTTPException: 503 if it takes too long; 400 if the client has left.
    """
    done, gone = asyncio.ensure_future(work), asyncio.ensure_future(_until_gone(request))
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                return done.result()
            raise HTTPException(400, "the client has disconnected")
    except TimeoutError:
        raise HTTPException(
            503, f"no answer within {ANSWER_TIMEOUT_S:g} s: send the picture again, or smaller"
        ) from None
    finally:
        done.cancel()
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy() -> HTTPException:
    """Return a new answer each time: an exception keeps the frames that it was raised in."""
    return HTTPException(503, "too many requests at a time", {"Retry-After": "1"})


class WorkerPool:
    """A thread pool that admits as many requests as it has threads."""

    def __init__(self, num_threads: int) -> None:
        self.threads = ThreadPoolExecutor(num_threads)
        self.turns = asyncio.Semaphore(num_threads)


async def _answer(
    pool: WorkerPool, read: Callable[[bytes, bool], dict[str, Any]], picture: bytes, details: bool
) -> dict[str, Any]:
    """Read a picture.

    Raises:
        HTTPException: 400, it cannot be read.
    """
    loop = asyncio.get_running_loop()
    try:
        async with pool.turns:
            return await loop.run_in_executor(pool.threads, read, picture, details)
    except PictureError as error:
        raise HTTPException(400, str(error)) from error


def _check_picture(picture: bytes) -> None:
    if _num_pixels(picture) > MAX_PIXELS:
        raise PictureError(f"the picture has more than {MAX_PIXELS / 1e6:.0f} million pixels")
    if is_pdf(picture):  # how long one takes to render cannot be known before
        raise PictureError("the picture is a PDF, which `mnist-lit predict` reads, but no server")


def _classify(classifier: Classifier, picture: bytes, details: bool) -> dict[str, Any]:
    _check_picture(picture)
    return classifier.classify(picture).as_dict()


def _read(classifier: Classifier, picture: bytes, details: bool) -> dict[str, Any]:
    _check_picture(picture)
    reading = classifier.read_ink(find_ink(picture))
    answer = reading.as_dict()
    if details and reading.digits:
        images = torch.stack([digit.image for digit in reading.digits[:MAX_DETAILED]])
        maps = classifier.feature_maps(images)
        if maps.numel():  # else the network has no convolution
            maps /= maps.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
        detailed = answer["digits"][:MAX_DETAILED]
        for digit, image, answers in zip(detailed, _as_bytes(images), _as_bytes(maps), strict=True):
            digit["image"] = _base64(image)
            digit["feature_maps"] = [_base64(one) for one in answers]
    return answer


def _is_small(picture: bytes) -> bool:
    return len(picture) <= SMALL_BYTES and _num_pixels(picture) <= SMALL_PIXELS


def _num_pixels(picture: bytes) -> int:
    """Read the number of pixels from a picture's header; 0 if that cannot be read."""
    try:
        with Image.open(BytesIO(picture), formats=FORMATS) as image:
            return image.width * image.height
    except Exception:
        return 0


def _as_bytes(values: Tensor) -> NDArray[np.uint8]:
    """Convert values in [0, 1] to uint8."""
    return (values * 255).round().byte().numpy()


def _base64(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(values.tobytes()).decode()
