"""A Hugging Face hub on this machine: what huggingface_hub asks for when it downloads and commits, over
repositories in memory. Large files are behind a redirect to a store, under another name of this machine."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LARGE = (".safetensors", ".bin")
ADDRESS = "127.0.0.1"


@dataclass
class Repository:
    """Its commits, each with all its files, and where its names point.

    Attributes:
        gated: whether its conditions must be accepted.
        private: whether it is seen only with the hub's token.
        listed: sizes that the listing gives instead of the real ones.
        in_body: what is sent in place of a file's bytes.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    listed: dict[str, int] = field(default_factory=dict)
    in_body: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], name: str = "main") -> str:
        """Add or replace files on a branch; the new commit."""
        whole = {**self.commits.get(self.names.get(name, ""), {}), **files}
        sha = hashlib.sha1(repr((self.names, sorted(whole.items()))).encode()).hexdigest()
        self.commits[sha], self.names[name] = whole, sha
        return sha

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.names.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None


class HubServer:
    """The hub itself.

    Attributes:
        token: what writing, and reading what is private, asks for.
        asked: method and path of each request, in order.
        seen: the Authorization headers that the store of large files got; there should be none.
        stored: the store of large files, by SHA-256.
        cut: how many of the next answers of that store end in their middle.
    """

    def __init__(self, token: str = "hf_a_secret") -> None:
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.seen: list[str | None] = []
        self.stored: dict[str, bytes] = {}
        self.cut = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = http.server.ThreadingHTTPServer((ADDRESS, 0), handler)
        self.port = self._server.server_port
        self.url = f"http://{ADDRESS}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def add(self, name: str, files: Mapping[str, bytes], **about: Any) -> Repository:
        """Make a repository with one commit."""
        made = self.repositories[name] = Repository(**about)
        made.commit(files)
        return made

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def _route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        match path.split("/"):
            case ["api", "repos", "create"]:
                self._create()
            case ["api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["api", "models", owner, name, *rest]:
                self._api(f"{owner}/{name}", rest)
            case ["stored", sha]:
                self._stored(sha)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self._batch(f"{owner}/{name.removesuffix('.git')}")
            case [owner, name, "resolve", revision, *rest]:
                self._resolve(f"{owner}/{name}", revision, "/".join(rest))
            case _:
                self._refuse(404, "RepoNotFound")

    do_GET = do_HEAD = do_POST = do_PUT = _route  # noqa: N815 (as http.server names them)

    def _allowed(self, name: str, *, write: bool = False) -> Repository | None:
        """The repository, or None after a refusal."""
        found, known = self.hub.repositories.get(name), self._known()
        if found is not None and found.gated and not known:
            self._refuse(401, "GatedRepo")
        elif found is None or (found.private and not known):
            self._refuse(404 if known else 401, "RepoNotFound")
        elif write and not known:
            self._refuse(401, None)
        else:
            return found
        return None

    def _known(self) -> bool:
        return bool(self.headers.get("Authorization") == f"Bearer {self.hub.token}")

    def _api(self, name: str, rest: list[str]) -> None:
        repository = self._allowed(name, write=rest[:1] in (["preupload"], ["commit"]))
        if repository is None:
            return
        revision = "/".join(rest[1:]) or "main"
        if rest[:1] == ["preupload"]:
            self._preupload()
        elif rest[:1] == ["commit"]:
            self._commit(name, repository, revision)
        elif (found := repository.files(revision)) is None:
            self._refuse(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            self._json([{"type": "file", **_described(path, data, {})} for path, data in found[1].items()])
        else:
            self._json(_listing(name, repository, *found))

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._allowed(name)
        if repository is None:
            return
        found = repository.files(revision)
        if found is None:
            self._refuse(404, "RevisionNotFound")
            return
        about = {"X-Repo-Commit": found[0]}
        if path not in found[1]:
            self._refuse(404, "EntryNotFound", about)
            return
        data = found[1][path]
        sent = repository.in_body.get(path, bytes)(data)
        if path.endswith(LARGE):
            sha = hashlib.sha256(sent).hexdigest()
            self.hub.stored[sha] = sent
            large = {"X-Linked-Size": str(len(sent)), "X-Linked-ETag": f'"{sha}"'}
            target = f"http://localhost:{self.hub.port}/stored/{sha}?signature=a_signature"
            self._answer(302, b"", {**about, **large, "ETag": f'"{sha}"', "Location": target})
        else:
            self._answer(200, sent, {**about, "ETag": f'"{_blob(data)}"'})

    def _stored(self, sha: str) -> None:
        self.hub.seen.append(self.headers.get("Authorization"))
        if self.command == "PUT":
            assert hashlib.sha256(self.body).hexdigest() == sha
            self.hub.stored[sha] = self.body
            self._answer(200, b"", {})
            return
        data = self.hub.stored[sha]
        whole = self.hub.cut == 0
        self.hub.cut -= not whole
        self._answer(200, data if whole else data[: len(data) // 2], {"Content-Length": str(len(data))})
        self.close_connection = not whole

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._known():
            self._refuse(401, None)
        elif name in self.hub.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{name}"}, 409)
        else:
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            self.hub.add(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
            self._json({"url": f"{self.hub.url}/{name}"})

    def _preupload(self) -> None:
        files = [
            {"path": each["path"], "shouldIgnore": False}
            | {"uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
            for each in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, name: str) -> None:
        if self._allowed(name, write=True) is None:
            return
        store = f"{self.hub.url}/stored"
        objects = [
            {**each, "authenticated": True, "actions": {"upload": {"href": f"{store}/{each['oid']}"}}}
            for each in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repository: Repository, branch: str) -> None:
        files = {}
        for line in self.body.splitlines():
            said = json.loads(line)
            value = said["value"]
            if said["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif said["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        sha = repository.commit(files, branch)
        self._json({"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}"})

    def _refuse(self, status: int, code: str | None, headers: Mapping[str, str] | None = None) -> None:
        self._answer(status, b"{}", {**(headers or {}), **({"X-Error-Code": code} if code else {})})

    def _json(self, document: Any, status: int = 200) -> None:
        self._answer(status, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _listing(name: str, repository: Repository, sha: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    card = files.get("README.md", b"").decode().split("---\n")
    return {
        "id": name,
        "modelId": name,
        "sha": sha,
        "private": repository.private,
        "cardData": yaml.safe_load(card[1]) if len(card) > 2 else None,
        "siblings": [
            {"rfilename": path, "blobId": about.pop("oid"), **about}
            for path, data in files.items()
            for about in [_described(path, data, repository.listed)]
        ],
    }


def _described(path: str, data: bytes, listed: Mapping[str, int]) -> dict[str, Any]:
    size = listed.get(path, len(data))
    about: dict[str, Any] = {"path": path, "size": size, "oid": _blob(data)}
    if path.endswith(LARGE):
        about["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": size, "pointerSize": 130}
        about["lfs"]["oid"] = about["lfs"]["sha256"]
    return about


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
