"""What a model card says, what a push refuses before it sends anything, and what of a machine never leaves it."""

import json
import math
import re
import shutil

import pytest
import yaml
from PIL import Image

from diffdyad import card, cli
from diffdyad.errors import UserError, redact
from diffdyad.traces import without_machine, without_origin

TOKEN = "hf_" + "t" * 34


def test_the_log_of_a_resumed_run(finished_run):
    log = card.read_log(finished_run / "log.jsonl")
    assert log.curves["loss"] == ([10, 20], [2.0, 1.0])  # the later line of a step; no NaN
    assert log.last_step == 40 and log.validation == {"motion": 0.75, "context_gap": 0.125}
    assert card.read_log(finished_run / "nothing").validation == {}


def test_a_card_says_what_the_model_is(finished_run, tmp_path):
    text = card.write_card(finished_run / "pipeline", finished_run, out=tmp_path).read_text(encoding="utf-8")
    front = card.front_matter(text)
    assert front["license"] == "mit" and front["library_name"] == "diffdyad" and "ARKit" in front["tags"]
    rows = dict(line.strip("| ").split(" | ")[:2] for line in text.splitlines() if re.match(r"\| \w", line))
    assert rows["expression basis"] == "`arkit`, 41 coefficients" and rows["frames per second"] == "25"
    assert rows["context"].startswith("audio, prosody, motion: any subset") and "64 mel bands" in rows["encoders"]
    assert rows["motion"] == "0.75" and rows["context_gap"] == "0.125" and rows["steps"] == "40"
    millions = sum(math.prod(t["shape"]) for t in _header(finished_run / "pipeline" / "denoiser").values()) / 1e6
    assert rows["parameters"] == f"{millions:.1f} million, float32"
    assert "# diffdyad: evening" in text and "Learnt in an evening." in text and "`talks`" in text
    assert "--model USER/REPO" in text and "](curves.png)" in text
    assert str(finished_run.parent) not in text
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "curves.png"]


def _header(folder) -> dict:
    with open(next(folder.glob("*.safetensors")), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    return header


def test_a_card_without_a_run_and_one_of_a_synthetic_corpus(tiny_model, tmp_path):
    text = card.write_card(tiny_model, out=tmp_path).read_text(encoding="utf-8")
    assert "license" not in card.front_matter(text) and "None is given" in text and "curves" not in text
    corpus, run = tmp_path / "corpus", tmp_path / "run"
    corpus.mkdir()
    run.mkdir()
    (corpus / "rehearsal.json").write_text(json.dumps({"settings": {"hours": 3.0, "seed": 7, "effect": 2.0}}))
    (run / "config.yaml").write_text(yaml.safe_dump({"data": {"datasets": [{"path": str(corpus), "weight": 0.5}]}}))
    text = card.write_card(tiny_model, run, license="mit", description="Small.", out=tmp_path).read_text()
    assert "hours 3, seed 7, effect 2" in text and "weight 0.5" in text and "No real person" in text
    assert "Small." in text and "synthetic corpus' rules" in text and card.front_matter(text)["license"] == "mit"
    with pytest.raises(UserError, match="pipeline"):
        card.write_card(tmp_path)


def test_data_are_described_where_they_are_at_hand(tiny_model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    rows = [{"start_s": -3.0, "end_s": 6.0 * k, "source": "studio" if k else "/home/ann/calls", "license": "cc-by-4.0",
             "consent": "", "responder": f"p{k}"} for k in range(3)]  # fmt: skip
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": {"dataset": str(tmp_path)}}))
    text = card.write_card(tiny_model, tmp_path, out=tmp_path).read_text()
    assert "3 training exchanges of 3 people, 0.0 h. Sources: studio (2), calls (1). " in text
    assert "Licenses of the data: cc-by-4.0 (3)." in text and "Consent" not in text and str(tmp_path) not in text


def test_front_matter():
    text = "---\nlicense: mit\ntags: [a]\n---\n# Title\n\n---\nnot: this\n"
    assert card.front_matter(text) == {"license": "mit", "tags": ["a"]}
    again = card.with_front_matter(text, {"license": "other"})
    assert card.front_matter(again) == {"license": "other"} and again.endswith("# Title\n\n---\nnot: this\n")
    assert card.front_matter("# Title\n") == {} and card.with_front_matter("# T\n", {"a": 1}) == "---\na: 1\n---\n# T\n"
    with pytest.raises(UserError, match="YAML"):
        card.front_matter("---\n: [\n---\n")


def test_paths_and_tokens_stay_here():
    kept = {"encoder": "facebook/hubert-base-ls960", "revision": "refs/pr/1", "steps": 7, "data": "data/rehearsal"}
    gone = {"a": "/home/ann/x/run", "b": ["~/y/talks", "../z", "C:\\Users\\Ann\\talks"], "c": {"d": "/"}}
    assert without_machine({**kept, **gone}) == {**kept, "a": "run", "b": ["talks", "z", "talks"], "c": {"d": ""}}
    assert json.loads(without_origin(b'{"_name_or_path": "/home/ann", "width": 3}')) == {"width": 3}
    assert without_origin(b'{"width":3}') == b'{"width":3}'
    assert redact(f"no {TOKEN}, hf_hub_download, hf_oauth_ab.cd-ef") == "no <token>, hf_hub_download, <token>"


def test_a_token_of_any_form_is_redacted(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "my-own-hub-secret")
    assert redact("token my-own-hub-secret.") == "token <token>."


# -------------------------------------------------------------------------------------- refused pushes


def refused(capsys, *argv) -> str:
    assert cli.main(["push", *map(str, argv)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    "change, words",
    [
        ("missing", "no such folder"),
        ("empty", "no model_index.json"),
        ("unfinished", "finished run"),
        ("foreign", "does not load"),
        ("pickled", "weights.bin"),
        ("pickled in a part", "denoiser/old.pt"),
        ("cut", "does not load"),
        ("unlicensed", "--license"),
        ("unreadable card", "YAML"),
        ("token", "README.md"),
        ("own encoder", "/models/hubert"),
    ],
)
def test_folders_that_are_not_pushed(tiny_model, tmp_path, capsys, change, words):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    licensed = "---\nlicense: mit\n---\n"
    (folder / "README.md").write_text({
        "unlicensed": "# Model\n", "unreadable card": "---\n: [\n---\n", "token": f"{licensed}My token is {TOKEN}.\n",
    }.get(change, licensed))  # fmt: skip
    match change:
        case "missing":
            shutil.rmtree(folder)
        case "empty":
            (folder / "model_index.json").unlink()
        case "unfinished":
            (folder / "model_index.json").rename(folder / "checkpoints")
            (folder / "checkpoints").unlink()
            (folder / "checkpoints" / "step-00000100").mkdir(parents=True)
        case "foreign":
            (folder / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
        case "pickled":
            (folder / "weights.bin").write_bytes(b"0")
        case "pickled in a part":
            (folder / "denoiser" / "old.pt").write_bytes(b"0")
        case "cut":
            weights = next((folder / "denoiser").glob("*.safetensors"))
            weights.write_bytes(weights.read_bytes()[:1000])
        case "own encoder":
            config = folder / "context_encoder" / "config.json"
            config.write_text(json.dumps({**json.loads(config.read_text()), "modalities": ["audio", "prosody", "motion",
                              "affect"], "affect_encoder": "/models/hubert"}))  # fmt: skip
    line = refused(capsys, folder, "ann/model")
    assert words in line and TOKEN not in line


@pytest.mark.parametrize(
    "argv, words",
    [
        (["model"], "'model'"),
        (["a/b/c"], "a/b/c"),
        (["ann/mod--el"], "mod--el"),
        (["ann/model.git"], "model.git"),
        (["ann/model@v2"], "--revision v2"),
        (["ann/model", "--revision", "a b"], "a b"),
        (["ann/model", "--revision", "../x"], "../x"),
        (["ann/model", "--license", "my own!"], "my own!"),
        (["ann/model", "--license", ""], "--license"),
        (["ann/model", "--message", ""], "--message"),
    ],
)
def test_names_that_are_none(tiny_model, capsys, argv, words):
    assert words in refused(capsys, tiny_model, *argv)


def test_push_has_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["push", "--help"])
    text = capsys.readouterr().out
    assert all(flag in text for flag in ("DIR", "USER/REPO", "--private", "--revision", "--license", "--message"))
