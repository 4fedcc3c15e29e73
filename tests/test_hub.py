"""The Hub: real commands in a process of their own against a server on loopback, whose request log is read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, arrays, build_tiny_pipeline
from hub_server import HUB, STORAGE, HubServer, Repository
from small_exchanges import CONFIG, write_dataset

from diffdyad import card

WRITER, READER, STRANGER = ("hf_" + letter * 34 for letter in "wrs")

WORKER = """
import json, os, sys, tempfile, traceback
from diffdyad import cli
reply = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    job = json.loads(line)
    for name, value in job["env"].items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    files = [tempfile.TemporaryFile("w+") for _ in range(2)]
    for number, file in enumerate(files, start=1):
        os.dup2(file.fileno(), number)
    if "code" in job:
        try:
            exec(job["code"], {})
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
    else:
        code = cli.main(job["argv"])
    sys.stdout.flush(); sys.stderr.flush()
    said = []
    for file in files:
        file.seek(0)
        said.append(file.read())
    print(json.dumps([code, *said]), file=reply, flush=True)
"""


class Worker:
    """Runs `diffdyad` commands in one other process, whose Hub is the server; `home` is its HF_HOME."""

    def __init__(self, server: HubServer, home: Path, **environment: str):
        self.home = home
        foreign = ("HF_", "HUGGING", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
        kept |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
                 "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_ETAG_TIMEOUT": "60",
                 "HF_HUB_DOWNLOAD_TIMEOUT": "60", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], env=kept | environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, cwd=home,
        )  # fmt: skip

    def __call__(self, *argv, token: str | None = None, code: str | None = None, **environment) -> tuple[int, str, str]:
        """Exit code, stdout and stderr. Tokens are in neither, whatever happened."""
        job = {"env": {"HF_TOKEN": token, "DIFFDYAD_DEBUG": None, **environment}, "argv": [str(word) for word in argv]}
        if code is not None:
            job["code"] = code
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        exit_code, out, err = json.loads(self.process.stdout.readline())
        assert not any(secret in out + err for secret in (WRITER, READER, STRANGER, "signature=secret")), err
        return exit_code, out, err

    def fails(self, *argv, exit_code: int = 2, **how) -> str:
        """The one line that a command ends with; notes of retries may come before it."""
        found, out, err = self(*argv, **how)
        assert found == exit_code and out == "", err
        *notes, line = err.splitlines()
        assert line.startswith("diffdyad: ") and all(note.startswith("note: ") for note in notes), err
        return line

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def server():
    with HubServer() as server:
        server.tokens = {WRITER: "write", READER: "read"}
        yield server


@pytest.fixture(scope="module")
def worker(server, tmp_path_factory):
    worker = Worker(server, tmp_path_factory.mktemp("hub-home"))
    yield worker
    worker.close()


@pytest.fixture(autouse=True)
def _forget(request):
    if "server" in request.fixturenames:
        request.getfixturevalue("server").fresh()


@pytest.fixture
def run(finished_run) -> Path:
    return finished_run


@pytest.fixture(scope="module")
def pushed(server, worker, finished_run) -> str:
    """A repository that the run was pushed to."""
    server.fresh()
    code, out, err = worker("push", finished_run, "ann/evening", token=WRITER)
    assert code == 0 and err == "", err
    return out.strip()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def sample(model, out, voices, *more) -> list:
    return ["sample", "--model", model, "--audio", voices / "responder.wav", "--context-audio", voices / "previous.wav",
            "--no-video", "--seed", 3, "--out", out, *more]  # fmt: skip


# ------------------------------------------------------------------------------------------- pushing


def test_a_push_is_one_commit_of_the_whole_pipeline(server, worker, run):
    before = contents(run)
    code, out, err = worker("push", run, "ann/one-commit", "--message", "First", token=WRITER)
    assert code == 0 and err == ""
    repository = server.repositories["ann/one-commit"]
    sha = repository.branches["main"]
    assert out == f"{server.url}/ann/one-commit/commit/{sha}\n" and not repository.private
    # in this order, the weights to the storage, which sees no token; nothing fails on the way
    weights = [name for name in before if name.endswith(".safetensors")]
    steps = [("POST", "/repos/create"), ("POST", "/validate-yaml"), ("POST", "/preupload/main"), ("POST", "/batch"),
             ("PUT", "/put/"), ("POST", "/lfs/verify"), ("POST", "/commit/main")]  # fmt: skip
    firsts = [server.log.index(server.said(*step)[0]) for step in steps]
    assert firsts == sorted(firsts) and all(r.status == 200 for r in server.said())
    large = len({before[name] for name in weights}) + 1  # the curves
    assert [len(server.said(*step)) for step in steps] == [1, 1, 1, 1, large, large, 1]
    assert all(r.host == STORAGE and not r.authorized for r in server.said("PUT"))
    assert all(r.authorized for r in server.said() if r.host == HUB)
    assert json.loads(server.said("POST", "/commit/")[0].body.splitlines()[0])["value"]["summary"] == "First"
    # what is there
    files = {name: data for name, (data, _) in repository.commits[sha].items()}
    expected = {str(Path(name).relative_to("pipeline")) for name in before if name.startswith("pipeline/")}
    assert set(files) == expected | {"README.md", "curves.png", ".gitattributes"}
    assert all(files[name.removeprefix("pipeline/")] == before[name] for name in weights)
    assert contents(run) == before
    told = files["README.md"].decode()
    assert card.front_matter(told)["license"] == "mit" and "ann/one-commit" in told and "USER/REPO" not in told
    for data in files.values():
        assert str(run.parent).encode() not in data and WRITER.encode() not in data
    assert yaml.safe_load(files["training.yaml"])["data"]["dataset"] == "talks"


def test_pushing_again_sends_nothing_twice(server, worker, run, pushed):
    assert worker("push", run / "pipeline", "ann/evening", token=WRITER) == (0, f"{pushed}\n", "")
    assert server.said("POST", "/preupload/") and not server.said("PUT") and not server.said("POST", "/commit/")


def test_a_private_repository(server, worker, run, voices, tmp_path):
    push = ["push", run, "ann/secret", "--private"]
    assert worker(*push, token=WRITER)[0] == 0 and server.repositories["ann/secret"].private
    line = worker.fails(*sample("ann/secret", tmp_path / "out", voices))
    assert "ann/secret" in line and "hf auth login" in line and "HF_TOKEN" in line
    assert not list(tmp_path.iterdir()) and not list(worker.home.rglob("*secret*/snapshots/*"))
    r = worker(*sample("ann/secret", tmp_path / "out", voices), token=READER)
    assert r[0] == 0, r
    server.repositories["ann/secret"].private = False
    assert "public" in worker.fails(*push, token=WRITER)


def test_a_branch_a_commit_and_a_revision_that_is_none(server, worker, run, pushed, voices, tmp_path):
    other = tmp_path / "other"
    build_tiny_pipeline(seed=1).save_pretrained(other)
    command = ["push", other, "ann/evening", "--revision", "v2", "--license", "apache-2.0"]
    assert worker(*command, token=WRITER)[0] == 0
    repository = server.repositories["ann/evening"]
    assert set(repository.branches) == {"main", "v2"} and pushed.endswith(repository.branches["main"])
    told = repository.commits[repository.branches["v2"]]["README.md"][0].decode()
    assert card.front_matter(told)["license"] == "apache-2.0" and told.rstrip().endswith("`apache-2.0`")

    sampled = {}
    for name in ("main", "v2", repository.branches["v2"]):
        out = tmp_path / name
        assert worker(*sample(f"ann/evening@{name}", out, voices))[0] == 0
        sampled[name] = arrays(out / "motion.npz")["expression"]
        commit = json.loads((out / "sample.json").read_text())["resolved"]["model_commit"]
        assert commit == repository.branches.get(name, name)
    main, branch, commit = sampled.values()
    assert (branch == commit).all() and (branch != main).any()
    line = worker.fails(*sample("ann/evening@v3", tmp_path / "out", voices))
    assert "'v3'" in line and "ann/evening" in line
    code = f"""
from diffdyad.pipeline import DyadPipeline
assert DyadPipeline.from_pretrained("ann/evening", revision="v2").commit == {repository.branches["v2"]!r}
assert DyadPipeline.from_pretrained("ann/evening").commit == {repository.branches["main"]!r}
"""
    exit_code, _, err = worker(code=code)
    assert exit_code == 0, err


def test_the_round_trip_is_bit_equal(server, worker, pushed, run, voices, tmp_path):
    for model in ("ann/evening", run / "pipeline"):
        assert worker(*sample(model, tmp_path / Path(model).name, voices))[0] == 0
    remote, local = (arrays(tmp_path / name / "motion.npz") for name in ("evening", "pipeline"))
    assert remote.keys() == local.keys() and all((remote[key] == local[key]).all() for key in local)
    # what is there is not fetched again
    server.fresh()
    assert worker(*sample("ann/evening", tmp_path / "again", voices))[0] == 0
    assert not server.said("GET", "/get/") and len(server.said()) == 1


def test_what_is_known_of_the_guidance_scale_travels_with_the_weights(server, worker, voices, tmp_path):
    known = tmp_path / "known"
    build_tiny_pipeline(seed=2).save_pretrained(known)
    knob = {"largest_usable_scale": 2.0, "change_mm": {"0": {"brows": 0.0}, "3": {"brows": 1.5}}}
    (known / "knob.json").write_text(json.dumps(knob))
    assert worker("push", known, "ann/known", "--license", "mit", token=WRITER)[0] == 0
    code, out, _ = worker(*sample("ann/known", tmp_path / "out", voices, "--guidance-scale", 2))
    assert code == 0 and "guidance scale 2 moves the face, mm: brows 1.00" in out
    assert "## Context" in server.repositories["ann/known"].commits[
        server.repositories["ann/known"].branches["main"]]["README.md"][0].decode()  # fmt: skip


def test_diffusers_own_push_works(server, worker, run, tmp_path):
    code = f"""
import torch
from diffdyad.pipeline import DyadPipeline
pipeline = DyadPipeline.from_pretrained({str(run / "pipeline")!r})
pipeline.push_to_hub("ann/diffusers", private=True)
pipeline.save_pretrained({str(tmp_path / "saved")!r}, push_to_hub=True, repo_id="ann/saved", commit_message="Saved")
again = DyadPipeline.from_pretrained("ann/diffusers")
ours, theirs = pipeline.denoiser.state_dict(), again.denoiser.state_dict()
assert all(torch.equal(ours[name], theirs[name]) for name in ours)
"""
    exit_code, _, err = worker(code=code, token=WRITER)
    assert exit_code == 0, err
    assert server.repositories["ann/diffusers"].private and "ann/saved" in server.repositories
    for name in ("ann/diffusers", "ann/saved"):
        repository = server.repositories[name]
        for data, _ in repository.commits[repository.branches["main"]].values():
            assert str(run).encode() not in data and b"_name_or_path" not in data


def test_training_pushes_at_its_end(server, worker, tmp_path):
    talks = write_dataset(tmp_path / "talks")
    (tmp_path / "run.yaml").write_text(CONFIG.format(output=tmp_path / "run", dataset=talks))
    train = ["train", "--config", tmp_path / "run.yaml", "training.max_steps=1", "--push-to-hub", "ann/trained"]
    # what would keep it from that is said before the work
    assert "card.license" in worker.fails(*train, token=WRITER)
    assert "hf auth login" in worker.fails(*train, "card.license=mit")
    assert not (tmp_path / "run").exists() and "ann/trained" not in server.repositories
    code, out, err = worker(*train, "card.license=mit", token=WRITER)
    repository = server.repositories["ann/trained"]
    assert code == 0 and out.strip().endswith(repository.branches["main"]), err
    files = {name: data for name, (data, _) in repository.commits[repository.branches["main"]].items()}
    told = files["README.md"].decode()
    assert card.front_matter(told)["license"] == "mit" and "ann/trained" in told and str(tmp_path) not in told
    weights = "denoiser/diffusion_pytorch_model.safetensors"
    assert files[weights] == (tmp_path / "run" / "pipeline" / weights).read_bytes()
    # the same command again trains and sends nothing
    server.fresh()
    assert worker(*train, "card.license=mit", token=WRITER)[0] == 0
    assert not server.said("PUT") and not server.said("POST", "/commit/")


# ------------------------------------------------------------------------------------------ bad answers


def public(server, name: str, like: str = "ann/evening", **files: bytes) -> Repository:
    """Another repository, with the files of one that was pushed, or with these."""
    source = server.repositories[like]
    there = {key: (value, False) for key, value in files.items()} or source.commits[source.branches["main"]]
    made = server.repositories[name] = Repository(private=False)
    made.commit(there, "main", name)
    return made


WRONG_ANSWERS = {
    "401": ({"status": 401}, "without a login"),
    "403": ({"status": 403}, "may not read"),
    "404": ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, "check the name"),
    "409": ({"status": 409}, "changing"),
    "429": ({"status": 429, "headers": {"Retry-After": "77"}}, "wait 77 seconds"),
    "500": ({"status": 500, "body": b'["no", "object"]'}, "out of order (500)"),
    "503": ({"status": 503, "body": b"<html>oops</html>", "headers": {"Content-Type": "text/html"}}, "503"),
    "teapot": ({"status": 418, "body": b'{"error": "I am a teapot"}'}, "I am a teapot"),
    "garbage": ({"status": 200, "body": b"\x00\xff<html>Welcome to the hotel's network"}, "makes no sense"),
    "wrong JSON": ({"status": 200, "body": b"[1, 2]"}, "makes no sense"),
    "stops": ({"cut": 20}, "broke"),
}


def test_wrong_answers_to_a_download(server, worker, pushed, voices, tmp_path):
    public(server, "ann/plain")
    for name, (how, words) in WRONG_ANSWERS.items():
        server.fault("GET", "/api/models/ann/plain/revision/main", **how)
        line = worker.fails(*sample("ann/plain", tmp_path / "out", voices))
        assert words in line and server.url in line, (name, line)
        assert "ann/plain" in line or how.get("status") in (None, 200, 418, 429, 500, 503), (name, line)
    assert not list(tmp_path.iterdir()) and not list(worker.home.rglob("*plain*/snapshots/*"))
    assert worker(*sample("ann/plain", tmp_path / "out", voices))[0] == 0


def test_wrong_answers_to_a_push(server, worker, tiny_model):
    push = ["push", tiny_model, "ann/unlucky", "--license", "mit"]
    # the storage: a signature that has expired
    server.storage.clear()
    server.fault("PUT", "/put/", status=403)
    assert "403" in worker.fails(*push, token=WRITER)
    words = {"401": "log in again", "403": "may not write", "404": "check the name"}
    for name, (how, usual) in WRONG_ANSWERS.items():
        # the last request of all: everything else has been sent by then
        server.fault("POST", "/api/models/ann/unlucky/commit/main", **how)
        line = worker.fails(*push, token=WRITER)
        assert words.get(name, usual) in line and server.url in line, (name, line)
    repository = server.repositories["ann/unlucky"]
    assert list(repository.commits[repository.branches["main"]]) == [".gitattributes"]
    sent = len(server.said("PUT"))
    assert worker(*push, token=WRITER)[0] == 0 and len(server.said("PUT")) == sent
    assert "model_index.json" in repository.commits[repository.branches["main"]]


def test_a_push_goes_on_after_short_failures(server, worker, run, tmp_path):
    build_tiny_pipeline(seed=7).save_pretrained(tmp_path / "new")
    (tmp_path / "new" / "README.md").write_text("---\ntags: [mine]\n---\n# Mine: USER/REPO\n")
    server.fault("POST", "/preupload/", status=503, headers={"Retry-After": "0"})
    server.fault("PUT", "/put/", cut=100)
    server.fault("POST", "/lfs/verify", status=500, headers={"Retry-After": "0"})
    code, out, err = worker("push", tmp_path / "new", "ann/shaky", "--license", "other", token=WRITER)
    assert code == 0 and out.startswith(server.url), err
    assert len(err.splitlines()) == 3 and all(line.startswith("note: the Hub at") for line in err.splitlines())
    assert sorted(r.status for r in server.said("PUT"))[0] == 0
    told, _ = server.repositories["ann/shaky"].commits[out.strip().rpartition("/")[2]]["README.md"]
    assert told.decode() == "---\ntags:\n- mine\nlicense: other\n---\n# Mine: ann/shaky\n"


def test_who_may_push(server, worker, tiny_model):
    push = ["push", tiny_model, "ann/whose", "--license", "mit"]
    line = worker.fails(*push)
    assert "hf auth login" in line and "HF_TOKEN" in line and not server.said()
    assert "log in again" in worker.fails(*push, token=STRANGER)
    assert "may not write" in worker.fails(*push, token=READER)
    assert "ann/whose" not in server.repositories
    ask = "from diffdyad.push import check_beforehand; check_beforehand('ann/whose', {!r})"
    asked = ((WRITER, "mit", ""), (STRANGER, "mit", "log in again"), (READER, "mit", "may only read"),
             (None, "mit", "hf auth login"), (WRITER, None, "card.license"))  # fmt: skip
    for token, license, words in asked:
        code, _, err = worker(code=ask.format(license), token=token)
        assert (code == 0) == (not words) and words in err
    # a server that repeats what it was sent, and a user who wants to see it all
    body = json.dumps({"error": f"no Bearer {WRITER} here"}).encode()
    for debug in (None, "1"):
        server.fault("POST", "/api/repos/create", status=418, body=body)
        code, _, err = worker(*push, token=WRITER, DIFFDYAD_DEBUG=debug)
        assert code == 2 and "no Bearer <token> here" in err and ("Traceback" in err) == bool(debug)
    license = worker.fails(*push[:-1], "beer-ware", token=WRITER)
    assert "beer-ware" in license and "model card" in license


def test_a_download_that_stops_in_the_middle(server, worker, pushed, voices, tmp_path):
    public(server, "ann/cut")
    out = tmp_path / "out"
    # closed: taken up again within the command
    server.fault("GET", "/get/", cut=500, reset=False)
    code, _, err = worker(*sample("ann/cut", tmp_path / "resumed", voices))
    assert code == 0 and err.splitlines() == [err.strip()] and err.startswith("note: the connection to the Hub")
    assert sorted(r.status for r in server.said("GET", "/get/")) == [0, 200, 200, 200, 200]
    # a file that is gone, then a reset: a line, nothing half there, and the same command again
    where = "ann/cut-for-good"
    public(server, where)
    server.fault("HEAD", "/denoiser/.*safetensors", status=404, headers={"X-Error-Code": "EntryNotFound"})
    assert where in worker.fails(*sample(where, out, voices))
    server.fault("GET", "/get/", cut=500)
    assert "broke" in worker.fails(*sample(where, out, voices))
    assert not out.exists() and not list(worker.home.rglob("*.incomplete"))
    assert worker(*sample(where, out, voices))[0] == 0


def test_bytes_that_are_not_those_announced(server, worker, pushed, voices, tmp_path):
    made = public(server, "ann/swapped")
    files = made.commits[made.branches["main"]]
    weights, _ = files["denoiser/diffusion_pytorch_model.safetensors"]
    [oid] = [oid for oid, data in server.storage.items() if data == weights]
    data = bytearray(server.storage[oid])
    data[-10] ^= 1
    server.fault("GET", f"/get/{oid}", status=200, body=bytes(data))
    line = worker.fails(*sample("ann/swapped", tmp_path / "out", voices))
    assert "denoiser" in line and "again" in line
    assert worker(*sample("ann/swapped", tmp_path / "out", voices))[0] == 0


def test_repositories_of_other_things(server, worker, tmp_path, voices, pushed):
    kinds = {
        "no index": {"config.json": b"{}", "model.safetensors": b"0" * 64},
        "another model": {"model_index.json": b'{"_class_name": "FluxPipeline", "vae": ["diffusers", "VAE"]}'},
        "garbage": {"model_index.json": b"\xff\x00"},
        "hostile": {"model_index.json": b'{"_class_name": "DyadPipeline", "denoiser": ["subprocess", "Popen"]}'},
    }
    for number, (kind, files) in enumerate(kinds.items()):
        made = public(server, f"ann/other{number}")
        made.commit({name: (data, name.endswith("safetensors")) for name, data in files.items()}, "main")
        server.fresh()
        line = worker.fails(*sample(f"ann/other{number}", tmp_path / "out", voices))
        assert "diffdyad pipeline" in line and f"ann/other{number}" in line, kind
        assert not server.said("GET", "/get/"), "weights of a stranger were downloaded"
    assert not list(tmp_path.iterdir())
    assert "found none" in worker.fails(*sample("ann/nobody-has-this", tmp_path / "out", voices), token=READER)


def test_no_hub_at_all(server, worker, pushed, run, voices, tmp_path):
    public(server, "ann/later")
    assert worker(*sample("ann/evening", tmp_path / "before", voices))[0] == 0
    server.stop()
    try:
        line = worker.fails(*sample("ann/later", tmp_path / "out", voices))
        assert "cannot reach" in line and server.url in line and "ann/later" in line and not (tmp_path / "out").exists()
        assert "cannot reach" in worker.fails("push", run, "ann/evening", token=WRITER)
        assert worker(*sample("ann/evening", tmp_path / "cached", voices))[0] == 0  # what is there is used
    finally:
        server.start()
    assert worker(*sample("ann/later", tmp_path / "out", voices))[0] == 0


def test_offline(server, worker, pushed, run, voices, tmp_path):
    assert worker(*sample("ann/evening", tmp_path / "before", voices))[0] == 0
    public(server, "ann/never-fetched")
    offline = Worker(server, worker.home, HF_HUB_OFFLINE="1")
    server.fresh()
    try:
        code, _, err = offline(*sample("ann/evening", tmp_path / "out", voices))
        assert code == 0, err
        for line in (offline.fails(*sample("ann/never-fetched", tmp_path / "no", voices)),
                     offline.fails("push", run, "ann/evening", token=WRITER)):  # fmt: skip
            assert "HF_HUB_OFFLINE" in line
    finally:
        offline.close()
    assert not server.said()
