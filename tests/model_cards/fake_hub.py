"""A small stand-in for the Hub on loopback: repositories in memory behind the routes that the libraries use."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlparse

TOKEN = "hf_fake"
USER = "someone"
LFS_FROM = 20_000  # bytes; everything larger goes through the large-file protocol, as on the real Hub


class FakeHub:
    """Repositories in memory behind the routes that huggingface_hub, transformers and datasets use."""

    def __init__(self):
        self.repos = {}  # (type, id) -> {"private", "commits": {sha: {path: bytes}}, "refs": {branch or tag: sha}}
        self.large = {}  # sha256 -> bytes
        self.gated = set()
        self.requests = []
        self.fail_after_uploads = None  # None, or how many large files arrive before the line goes dead
        self.uploads = 0
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def files(self, repo_id, repo_type="model", revision="main"):
        repo = self.repos[repo_type, repo_id]
        return repo["commits"][repo["refs"][revision]]

    def head(self, repo_id, repo_type="model", revision="main"):
        return self.repos[repo_type, repo_id]["refs"][revision]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._route("GET")

    def do_HEAD(self):
        self._route("HEAD")

    def do_POST(self):
        self._route("POST")

    def do_PUT(self):
        self._route("PUT")

    def do_DELETE(self):
        self._route("DELETE")

    def _route(self, method):
        self.method = method
        url = urlparse(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(url.path)
        self.hub.requests.append(f"{method} {path}")
        if self._line_is_dead():
            return
        for pattern, action in ROUTES:
            methods, expression = pattern.split(" ", 1)
            match = re.fullmatch(expression, path)
            if method in methods.split("|") and match:
                action(self, **match.groupdict())
                return
        self._answer(404, {"error": f"no route {method} {path}"})

    def _line_is_dead(self):
        limit = self.hub.fail_after_uploads
        dead = limit is not None and self.hub.uploads >= limit
        if dead:
            self.close_connection = True
            self.connection.close()
        return dead

    # answers ---------------------------------------------------------------------------------------------------------

    def _answer(self, status=200, content=None, headers=None, body=None):
        payload = body if body is not None else json.dumps(content if content is not None else {}).encode()
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload))} | (headers or {})
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.method != "HEAD":
            self.wfile.write(payload)

    def _refuse(self, status, code, message):
        self._answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})

    def _logged_in(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repo(self, kind, repo_id):
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None or (repo["private"] and not self._logged_in()):
            self._refuse(404 if self._logged_in() else 401, "RepoNotFound", "Repository not found")
            return None
        return repo

    def _commit(self, kind, repo_id, revision):
        repo = self._repo(kind, repo_id)
        if repo is None:
            return None, None
        revision = revision or "main"
        sha = repo["refs"].get(revision) or (revision if revision in repo["commits"] else None)
        if sha is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None, None
        return sha, repo["commits"][sha]

    # routes ----------------------------------------------------------------------------------------------------------

    def who_am_i(self):
        if not self._logged_in():
            self._answer(401, {"error": "Invalid credentials"})
            return
        self._answer(content={"name": USER, "type": "user", "orgs": [{"name": "lab"}], "auth": {"type": "token"}})

    def create(self):
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or USER
        if not self._logged_in():
            self._answer(401, {"error": "Invalid credentials"})
        elif owner not in (USER, "lab"):
            self._answer(403, {"error": f"You don't have the rights to create a model under the namespace {owner!r}"})
        else:
            kind, repo_id = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
            url = f"{self.hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
            if (kind, repo_id) in self.hub.repos:
                self._answer(409, {"error": "You already created this repo", "url": url})
                return
            private = wanted.get("private") or wanted.get("visibility") == "private"
            first = "0" * 40
            self.hub.repos[kind, repo_id] = {
                "private": bool(private),
                "commits": {first: {".gitattributes": b"*.safetensors filter=lfs\n"}},
                "refs": {"main": first},
                "tags": set(),
            }
            self._answer(content={"url": url, "name": repo_id, "id": repo_id})

    def validate_yaml(self):
        self._answer(content={"errors": [], "warnings": []})

    def info(self, kind, repo_id, revision=None):
        if repo_id in self.hub.gated and not self._logged_in():
            pass  # the page of a gated repository is public, its files are not
        sha, files = self._commit(kind[:-1], repo_id, revision)
        if files is not None:
            self._answer(
                content={
                    "id": repo_id,
                    "sha": sha,
                    "private": self.hub.repos[kind[:-1], repo_id]["private"],
                    "tags": [],
                    "siblings": [{"rfilename": name} for name in files],
                    "usedStorage": 0,
                }
            )

    def _entry(self, name, content):
        entry = {"type": "file", "path": name, "size": len(content), "oid": _git_oid(content)}
        if len(content) > LFS_FROM:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return entry

    def tree(self, kind, repo_id, revision, path=""):
        _, files = self._commit(kind[:-1], repo_id, revision)
        if files is None:
            return
        prefix = f"{path.strip('/')}/" if path.strip("/") else ""
        inside = {name: content for name, content in files.items() if name.startswith(prefix)}
        if prefix and not inside:
            self._refuse(404, "EntryNotFound", f"{path} does not exist")
            return
        folders, entries = set(), []
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        for name, content in inside.items():
            rest = name[len(prefix) :].split("/")
            folders |= {prefix + "/".join(rest[:depth]) for depth in range(1, len(rest))[: None if recursive else 1]}
            if recursive or len(rest) == 1:
                entries.append(self._entry(name, content))
        entries += [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
        self._answer(content=entries)

    def paths_info(self, kind, repo_id, revision):
        _, files = self._commit(kind[:-1], repo_id, revision)
        if files is None:
            return
        is_json = "json" in self.headers.get("Content-Type", "")
        wanted = json.loads(self.body) if is_json else parse_qs(self.body.decode())
        entries = []
        for name in wanted.get("paths", []):
            if name in files:
                entries.append(self._entry(name, files[name]))
            elif any(other.startswith(f"{name}/") for other in files):
                entries.append({"type": "directory", "path": name, "oid": "0" * 40, "size": 0})
        self._answer(content=entries)

    def refs(self, kind, repo_id):
        repo = self._repo(kind[:-1], repo_id)
        if repo is None:
            return
        rows = {
            tagged: [
                {"name": name, "ref": f"refs/{name}", "targetCommit": sha}
                for name, sha in repo["refs"].items()
                if (name in repo["tags"]) == tagged
            ]
            for tagged in (False, True)
        }
        self._answer(content={"branches": rows[False], "tags": rows[True], "converts": [], "pullRequests": []})

    def preupload(self, kind, repo_id, revision):
        _, present = self._commit(kind[:-1], repo_id, revision)
        if present is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["size"] > LFS_FROM else "regular",
                "shouldIgnore": False,
                "oid": self._remote_oid(present.get(file["path"])),
            }
            for file in json.loads(self.body)["files"]
        ]
        self._answer(content={"files": files})

    def _remote_oid(self, content):
        if content is None:
            return None
        return hashlib.sha256(content).hexdigest() if len(content) > LFS_FROM else _git_oid(content)

    def large_batch(self, repo_id):
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.large:
                answer["actions"] = {"upload": {"href": f"{self.hub.endpoint}/large/{wanted['oid']}", "header": {}}}
            objects.append(answer)
        self._answer(content={"objects": objects, "transfer": "basic"})

    def large_put(self, oid):
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.large[oid] = self.body
        self.hub.uploads += 1
        self._answer()

    def commit(self, kind, repo_id, revision):
        if not self._logged_in():
            self._answer(401, {"error": "Invalid credentials"})
            return
        _, present = self._commit(kind[:-1], repo_id, revision)
        if present is None:
            return
        files = dict(present)
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif operation["key"] == "deletedFile":
                files.pop(value["path"])
        repo = self.hub.repos[kind[:-1], repo_id]
        sha = hashlib.sha1(repr(sorted(files.items())).encode() + str(len(repo["commits"])).encode()).hexdigest()
        repo["commits"][sha] = files
        repo["refs"][revision] = sha
        url = f"{self.hub.endpoint}/{repo_id}/commit/{sha}"
        self._answer(content={"commitUrl": url, "commitOid": sha, "success": True})

    def tag(self, kind, repo_id, revision):
        repo = self._repo(kind[:-1], repo_id)
        if repo is None:
            return
        if self.method == "DELETE":
            repo["refs"].pop(revision)
            repo["tags"].discard(revision)
            self._answer()
            return
        name = json.loads(self.body)["tag"]
        if name in repo["refs"]:
            self._answer(409, {"error": "Tag reference exists already"})
            return
        repo["refs"][name] = repo["refs"].get(revision, revision)
        repo["tags"].add(name)
        self._answer()

    def resolve(self, repo_id, revision, path, kind="models"):
        sha, files = self._commit(kind[:-1], repo_id, revision)
        if files is None:
            return
        if repo_id in self.hub.gated:
            self._refuse(403, "GatedRepo", "Access to this resource is restricted")
            return
        if path not in files:
            self._answer(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if len(content) > LFS_FROM else _git_oid(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            start, stop = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{stop}/{len(content)}"
            self._answer(206, headers=headers, body=content[start : stop + 1])
        else:
            self._answer(headers=headers, body=content)


def _git_oid(content):
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


_KIND, _ID = "(?P<kind>models|datasets|spaces)", "(?P<repo_id>[^/]+/[^/]+)"
ROUTES = [
    ("GET /api/whoami-v2", _Handler.who_am_i),
    ("POST /api/repos/create", _Handler.create),
    ("POST /api/validate-yaml", _Handler.validate_yaml),
    (f"GET /api/{_KIND}/{_ID}", _Handler.info),
    (f"GET /api/{_KIND}/{_ID}/revision/(?P<revision>.+)", _Handler.info),
    (f"GET /api/{_KIND}/{_ID}/refs", _Handler.refs),
    (f"GET /api/{_KIND}/{_ID}/tree/(?P<revision>[^/]+)/?(?P<path>.*)", _Handler.tree),
    (f"POST /api/{_KIND}/{_ID}/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    (f"POST /api/{_KIND}/{_ID}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (f"POST /api/{_KIND}/{_ID}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (f"POST|DELETE /api/{_KIND}/{_ID}/tag/(?P<revision>[^/]+)", _Handler.tag),
    (r"POST /(?:datasets/|spaces/)?(?P<repo_id>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.large_batch),
    ("PUT /large/(?P<oid>[0-9a-f]+)", _Handler.large_put),
    (f"GET|HEAD /(?P<kind>datasets|spaces)/{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (f"GET|HEAD /{_ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
