"""A real S3 server for tests (SeaweedFS): its own folder and ports, on loopback only."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
import uuid
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from prompts_store.blobs import BlobAddress
from tests.end_to_end.served import free_port
from tether import tethered

REQUIREMENTS = Path(__file__).parent / "s3_server.txt"
BUCKET = "chorus"
KEY, SECRET = "chorus-key-canary", "chorus-secret-canary"

_PORTS = (
    "master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
    "s3.port", "s3.port.grpc",
)  # fmt: skip
_OPTIONS = (
    "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-s3.iam=false", "-s3.port.iceberg=0",
    "-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=20",
)  # fmt: skip


class S3Server:
    """A server with one bucket, from construction until `stop`. Nothing of it survives.

    Args:
        config: its identities, if not one of this module's; then there is no bucket yet.

    Attributes:
        programs: the folder of its program.
        port: where it speaks S3.
    """

    def __init__(self, programs: Path, *, config: Path | None = None) -> None:
        self.programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="chorus-s3-"))
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        self.port = self._ports["s3.port"]
        allowed = {"accessKey": KEY, "secretKey": SECRET}
        identity = {"name": "chorus", "credentials": [allowed], "actions": ["Admin", "Read", "List", "Write"]}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        (self._folder / "credentials").write_text(
            f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
        )
        try:
            self._process = self._start(config)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def address(self, *, port: int | None = None, prefix: str | None = None) -> BlobAddress:
        """A place of its own in the bucket.

        Args:
            port: of what stands between, in place of the server's.
            prefix: of a place that there was before.
        """
        return BlobAddress(
            f"s3://{BUCKET}/{prefix or uuid.uuid4().hex}",
            endpoint=f"http://127.0.0.1:{port or self.port}",
            region="us-east-1",
            allow_http=True,
            credentials_file=self._folder / "credentials",
        )

    def url(self, address: BlobAddress) -> str:
        """The setting `blob_url` that says the same."""
        return f"{address.url}?endpoint={address.endpoint}&region={address.region}&allow_http=true"

    def stop(self) -> None:
        """End the server and remove everything."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        for port in self._ports.values():
            for socket_file in Path(tempfile.gettempdir()).glob(f"seaweedfs-*-grpc-{port}.sock"):
                socket_file.unlink(missing_ok=True)

    def _start(self, config: Path | None) -> subprocess.Popen[bytes]:
        data = self._folder / "data"
        data.mkdir()
        places = [f"-dir={data}", f"-s3.config={config or self._folder / 's3.json'}"]
        places += [f"-{name}.localSocket={self._folder / name}.sock" for name in ("filer", "s3")]
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        command = [self.programs / "weed", "-logtostderr=true", "server", *_OPTIONS, *places, *ports]
        with (self._folder / "log").open("wb") as log:
            process = subprocess.Popen(
                tethered(command), cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        pause = threading.Event()
        while config is None and not self._answers():
            if process.poll() is not None:
                raise RuntimeError(f"weed failed: {(self._folder / 'log').read_text()[-2000:]}")
            pause.wait(0.1)
        return process

    def _answers(self) -> bool:
        """Whether it has stored something; the first that is stored makes the bucket."""
        objects = S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{self.port}",
            region="us-east-1",
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True, "timeout": timedelta(seconds=5)},
            retry_config={"max_retries": 0},
        )
        try:
            obstore.put(objects, "begun", b"")
        except (BaseError, OSError):
            return False
        return True


def _free_ports(count: int) -> list[int]:
    found = set[int]()
    while len(found) < count:
        found.add(free_port())
    return list(found)
