"""The recipes in configs/recipes train on what the importers make: two steps, with a tiny network."""

from __future__ import annotations

import json
import math
from pathlib import Path

import dataset_fixtures as made
import pytest

from diffdyad.config import load_config
from diffdyad.data.importers.corpus import import_dataset
from diffdyad.pipeline import DyadPipeline
from diffdyad.training import train

RECIPES = Path(__file__).resolve().parents[1] / "configs" / "recipes"
TINY = [
    "speech.encoder=mel", "model.width=32", "model.num_heads=2", "model.depth=1", "model.speech_depth=1",
    "model.context_depth=1", "training.batch_size=2", "training.max_steps=2", "training.mixed_precision='no'",
    "training.warmup_steps=0", "training.checkpoint_every=2", "training.validate_every=2", "training.log_every=1",
    "data.window_s=[1.0, 1.4]", "data.validation_windows=1", "data.workers=1",
]  # fmt: skip
SOURCES = {
    "dualtalk": (lambda folder: made.dualtalk(folder, train=6, test=0, ood=0), 50),
    "unilstalk": (lambda folder: made.unilstalk(folder, {"train": 2, "val": 1}), 100),
    "learning2listen": (lambda folder: made.learning2listen(folder), 50),
}


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_a_recipe_trains_on_what_its_importer_makes(name, tmp_path):
    if name == "unilstalk":
        pytest.importorskip("lmdb", reason="the extra `data` is not installed")
    make, num_expression = SOURCES[name]
    report = import_dataset(name, make(tmp_path / "source"), tmp_path / "data", workers=1)
    assert report.exchanges["train"] and report.exchanges["validation"]
    recipe = RECIPES / f"{name}.yaml"
    run = [*TINY, f"data.dataset={report.out}", f"output={tmp_path / 'run'}"]
    if name == "dualtalk":  # in two stages, as its head says
        stage = ["conditions.drop_context=1.0", "conditions.onset=0.0"]
        first = train(load_config(recipe, [*run, *stage, f"output={tmp_path / 'first'}"]))
        run += [f"training.start_from={first}", "training.other_rate=0.1"]
    pipeline = DyadPipeline.from_pretrained(train(load_config(recipe, run)))
    layout = pipeline.statistics.layout
    assert (layout.basis, layout.num_expression) == ("flame2020", num_expression)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
