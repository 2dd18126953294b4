"""Images in an object store and on a web server, which run locally."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codec.remote
from allocator.errors import AllocatorError
from allocator.images import ImageFile, find_images
from allocator.measure import worker
from allocator.tables import Table
from codec import CodecError, ImageError, get_codec, read_image
from tests.helpers import run


@pytest.fixture(scope="module")
def store(photos: Path) -> Iterator[Any]:
    """An S3 server whose bucket holds the photos, and a client of it."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
            ("AWS_ACCESS_KEY_ID", "anyone"),
            ("AWS_SECRET_ACCESS_KEY", "anything"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        for photo in photos.iterdir():
            client.upload_file(str(photo), "bucket", f"photos/{photo.name}")
        client.put_object(Bucket="bucket", Key="photos/notes.txt", Body=b"no image")
        yield client
    server.stop()


def test_a_table_of_an_object_store_is_the_one_of_a_folder(
    store: Any, photos: Path, table: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.db"
    ran = run("tables", "build", "s3://bucket/photos", "-c", "jpeg", "-m", "psnr", "--no-bitstreams", "-o", path)
    assert ran.code == 0, ran.err
    with Table(path) as remote, Table(table) as local:
        found, expected = remote.frame(), local.frame()
    expected = expected[expected["codec"] == "jpeg"].reset_index(drop=True)
    for column in ("image", "sha256", "level", "bytes", "psnr", "decoded_sha256"):
        assert list(found[column]) == list(expected[column])
    assert set(found["path"]) == {f"s3://bucket/photos/{photo.name}" for photo in photos.iterdir()}
    # the originals are fetched again, to be encoded and compared
    assert run("submit", path, "-t", "1", "-o", tmp_path / "entry", "--no-decoder", "--trust").code == 0
    assert "PASS" in run("verify", tmp_path / "entry", "--trust").out


def test_one_object_and_names_as_in_folders(store: Any, photos: Path) -> None:
    [image] = find_images(["s3://bucket/photos/rocket.png"])
    assert image == ImageFile("rocket", "s3://bucket/photos/rocket.png")
    assert np.array_equal(read_image(image.path), read_image(photos / "rocket.png"))
    assert [image.name for image in find_images(["s3://bucket"])] == [
        f"photos/{photo.stem}" for photo in sorted(photos.iterdir())
    ]


def test_missing_files_are_named(store: Any) -> None:
    with pytest.raises(AllocatorError, match="s3://bucket/none: contains no images"):
        find_images(["s3://bucket/none"])
    with pytest.raises(AllocatorError, match="s3://nowhere/photos: can't be listed"):
        find_images(["s3://nowhere/photos"])
    with pytest.raises(ImageError, match=r"s3://bucket/gone\.png: there is no such file"):
        read_image("s3://bucket/gone.png")
    with pytest.raises(CodecError, match=r"nosuch://x: can't be reached .*clic-allocator\[cloud\]"):
        find_images(["nosuch://x"])
    with pytest.raises(CodecError, match=r"github://a/b\.png: can't be reached"):  # without a user
        find_images(["github://a/b.png"])


def test_an_object_that_changes_during_a_build_is_detected(store: Any, photos: Path) -> None:
    store.upload_file(str(photos / "rocket.png"), "bucket", "changing/photo.png")
    worker.prepare([get_codec("jpeg")], [])
    member = worker.identify("raw", ImageFile("photo", "s3://bucket/changing/photo.png"))
    store.upload_file(str(photos / "coffee.png"), "bucket", "changing/photo.png")
    task = worker.Task(member, 0, (worker.WantedLevel(3, "q23", "", ()),))
    with pytest.raises(ImageError, match=r"s3://bucket/changing/photo\.png: has changed during the build"):
        worker.measure(task)


class Faulty(http.server.SimpleHTTPRequestHandler):
    """A web server of a folder that fails a number of times first."""

    failures = 0

    def do_GET(self) -> None:
        if Faulty.failures:
            Faulty.failures -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def web(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    shutil.copytree(photos, tmp_path / "web")
    monkeypatch.setattr(Faulty, "failures", 0)
    monkeypatch.setattr(codec.remote, "_WAITS", (0.01, 0.01, 0.01))
    handler = functools.partial(Faulty, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_failed_reads_are_repeated(web: str, photos: Path) -> None:
    Faulty.failures = 2
    assert np.array_equal(read_image(f"{web}/rocket.png"), read_image(photos / "rocket.png"))
    Faulty.failures = 1000
    with pytest.raises(ImageError, match=r"rocket\.png: can't be fetched"):
        read_image(f"{web}/rocket.png")


def test_a_web_servers_folder_is_listed(web: str, photos: Path) -> None:
    assert [image.name for image in find_images([f"{web}/"])] == [photo.stem for photo in sorted(photos.iterdir())]
