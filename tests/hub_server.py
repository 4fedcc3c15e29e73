"""A server on loopback that speaks enough of the Hugging Face Hub's HTTP for models.

Two ports: the Hub itself, and the storage that large files go to and come from by signed addresses (LFS, "basic"
transfer), as on the real one: so that a test can see whether a token ever gets there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field

from loopback import Handler, Refused, Service

LFS_SUFFIXES = (".safetensors", ".png", ".bin")
NAME = r"(?P<repo>[\w.-]+/[\w.-]+)"
HUB, STORAGE = 0, 1


@dataclass
class Repository:
    """files of a commit: name -> (bytes, whether it is a large file)."""

    private: bool
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict, branch: str, about: str = "") -> str:
        content = repr([sorted((name, git_sha1(data)) for name, (data, _) in files.items()), len(self.commits), about])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer(Service):
    """`with HubServer() as server`: server.url is the Hub; tokens: token -> "write" or "read"."""

    def __init__(self):
        super().__init__(_HubHandler, hosts=2)
        self.tokens: dict[str, str] = {}
        self.repositories: dict[str, Repository] = {}
        self.storage: dict[str, bytes] = {}

    @property
    def url(self) -> str:
        return self.address(HUB)

    @property
    def storage_url(self) -> str:
        return self.address(STORAGE)


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _oid(data: bytes, large: bool) -> str:
    return hashlib.sha256(data).hexdigest() if large else git_sha1(data)


def _refused(status: int, message: str, code: str = "") -> Refused:
    return Refused(status, message, X_Error_Message=message, **({"X_Error_Code": code} if code else {}))


class _HubHandler(Handler):
    service: HubServer

    # ---------------------------------------------------------------------------------------- who may

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _login(self) -> str:
        """The role of the token; refused without a valid one."""
        if self.token is None:
            raise _refused(401, "Invalid username or password.")
        if self.token not in self.service.tokens:
            raise _refused(401, "Invalid credentials in Authorization header")
        return self.service.tokens[self.token]

    def _writer(self) -> None:
        if self._login() != "write":
            raise _refused(403, "You don't have the rights to write to this repository")

    def _repository(self, repo: str) -> Repository:
        found = self.service.repositories.get(repo)
        if self.token is not None:
            self._login()
        if found is None or (found.private and self.token is None):
            if self.token is None:  # as the Hub: who is nobody learns nothing
                raise _refused(401, "Invalid username or password.")
            raise _refused(404, "Repository not found", "RepoNotFound")
        return found

    def _files(self, repo: str, revision: str) -> tuple[str, dict]:
        repository = self._repository(repo)
        sha = repository.find(revision)
        if sha is None:
            raise _refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha, repository.commits[sha]

    # -------------------------------------------------------------------------------------- questions

    def whoami(self) -> None:
        self.answer({"type": "user", "name": "ann", "auth": {"accessToken": {"role": self._login()}}})

    def info(self, repo: str, revision: str = "main") -> None:
        sha, files = self._files(repo, revision)
        self.answer({
            "id": repo, "modelId": repo, "sha": sha, "private": self.service.repositories[repo].private, "tags": [],
            "siblings": [{"rfilename": name} for name in sorted(files)],
        })  # fmt: skip

    def tree(self, repo: str, revision: str) -> None:
        _, files = self._files(repo, revision)
        rows = [{"type": "directory", "path": d, "oid": git_sha1(d.encode()), "size": 0}
                for d in sorted({name.rpartition("/")[0] for name in files} - {""})]  # fmt: skip
        for name, (data, large) in sorted(files.items()):
            row = {"type": "file", "path": name, "size": len(data), "oid": git_sha1(data)}
            if large:
                row["lfs"] = {"oid": _oid(data, True), "size": len(data), "pointerSize": 130}
            rows.append(row)
        self.answer(rows)

    def resolve(self, repo: str, revision: str, name: str) -> None:
        sha, files = self._files(repo, revision)
        if name not in files:
            raise _refused(404, "Entry not found", "EntryNotFound")
        data, large = files[name]
        if not large:
            self.send(200, data, {"ETag": f'"{_oid(data, False)}"', "X-Repo-Commit": sha})
            return
        oid = _oid(data, True)
        self.service.storage[oid] = data
        self.send(302, b"", {
            "X-Repo-Commit": sha, "X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{oid}"',
            "Location": f"{self.service.storage_url}/get/{oid}?signature=secret",
        })  # fmt: skip

    # -------------------------------------------------------------------------------------- uploading

    def create(self) -> None:
        self._writer()
        wanted = self.json()
        repo = f"{wanted.get('organization') or 'ann'}/{wanted['name']}"
        if repo in self.service.repositories:
            body = {"error": "You already created this model repo", "url": f"{self.service.url}/{repo}"}
            self.send(409, json.dumps(body).encode())
            return
        made = self.service.repositories[repo] = Repository(wanted.get("visibility") == "private")
        made.commit({".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "main", repo)
        self.answer({"url": f"{self.service.url}/{repo}"})

    def validate_yaml(self) -> None:
        license = re.search(r"^license: (.*)$", self.json()["content"].split("\n---")[0], re.MULTILINE)
        if license and license[1] not in ("apache-2.0", "mit", "cc-by-nc-4.0", "other"):
            body = {"errors": [{"message": f'"license" must be one of [apache-2.0, ...], not {license[1]}'}]}
            self.send(400, json.dumps(body).encode())
        else:
            self.answer({"errors": [], "warnings": []})

    def branch(self, repo: str, branch: str) -> None:
        self._writer()
        repository = self._repository(repo)
        if branch in repository.branches:
            raise _refused(409, "Reference already exists")
        repository.branches[branch] = repository.branches["main"]
        self.answer({})

    def preupload(self, repo: str, revision: str) -> None:
        self._writer()
        _, files = self._files(repo, revision)
        rows = []
        for wanted in self.json()["files"]:
            large = wanted["path"].endswith(LFS_SUFFIXES)
            row = {"path": wanted["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if wanted["path"] in files:
                row["oid"] = _oid(*files[wanted["path"]])
            rows.append(row)
        self.answer({"files": rows})

    def batch(self, repo: str) -> None:
        self._writer()
        rows = []
        for wanted in self.json()["objects"]:
            row = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.service.storage:
                row["actions"] = {
                    "upload": {"href": f"{self.service.storage_url}/put/{wanted['oid']}?signature=secret"},
                    "verify": {"href": f"{self.service.url}/{repo}.git/info/lfs/verify"},
                }
            rows.append(row)
        self.answer({"transfer": "basic", "objects": rows})

    def verify(self, repo: str) -> None:
        self._writer()
        wanted = self.json()
        data = self.service.storage.get(wanted["oid"])
        if data is None or len(data) != wanted["size"]:
            raise _refused(404, "Object does not exist")
        self.answer({})

    def commit(self, repo: str, revision: str) -> None:
        self._writer()
        _, files = self._files(repo, revision)
        files = dict(files)
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = (base64.b64decode(value["content"]), False)
            elif operation["key"] == "lfsFile":
                if value["oid"] not in self.service.storage:
                    raise _refused(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = (self.service.storage[value["oid"]], True)
            elif operation["key"] == "header":
                about = value["summary"]
        sha = self.service.repositories[repo].commit(files, revision, about)
        self.answer({"success": True, "commitOid": sha, "commitUrl": f"{self.service.url}/{repo}/commit/{sha}"})

    # ---------------------------------------------------------------------------------------- storage

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _refused(400, "XAmzContentSHA256Mismatch")
        self.service.storage[oid] = self.body
        self.send(200)

    def get(self, oid: str) -> None:
        headers = {"Content-Type": "application/octet-stream", "ETag": f'"{oid}"'}
        self.send(200, self.service.storage[oid], headers)


_HubHandler.routes = [
    ("GET", r"/api/whoami-v2", HUB, _HubHandler.whoami),
    ("GET", rf"/api/models/{NAME}", HUB, _HubHandler.info),
    ("GET", rf"/api/models/{NAME}/revision/(?P<revision>[^/]+)", HUB, _HubHandler.info),
    ("GET", rf"/api/models/{NAME}/tree/(?P<revision>[^/]+)", HUB, _HubHandler.tree),
    ("GET", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", HUB, _HubHandler.resolve),
    ("POST", r"/api/repos/create", HUB, _HubHandler.create),
    ("POST", r"/api/validate-yaml", HUB, _HubHandler.validate_yaml),
    ("POST", rf"/api/models/{NAME}/branch/(?P<branch>[^/]+)", HUB, _HubHandler.branch),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>[^/]+)", HUB, _HubHandler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", HUB, _HubHandler.batch),
    ("POST", rf"/{NAME}\.git/info/lfs/verify", HUB, _HubHandler.verify),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>[^/]+)", HUB, _HubHandler.commit),
    ("PUT", r"/put/(?P<oid>\w+)", STORAGE, _HubHandler.put),
    ("GET", r"/get/(?P<oid>\w+)", STORAGE, _HubHandler.get),
]
