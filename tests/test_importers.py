"""Published datasets, made up with their own widths, rates and key names, to exchanges."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import dataset_fixtures as made
import numpy as np
import pytest
import torch

from diffdyad import rotation
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.importers import IMPORTERS, importer_of
from diffdyad.data.importers.corpus import import_dataset
from diffdyad.data.importers.recording import ImportOptions
from diffdyad.errors import EXIT_OK, EXIT_PARTIAL, PartialFailure, UserError

FPS = 25


def exchanges(folder: Path) -> list:
    found = []
    for split in ("train", "validation", "test"):
        if any(folder.glob(f"{split}-*.parquet")):
            shards = ExchangeShards(folder, split)
            found += [shards[k] for k in range(len(shards))]
    for exchange in found:
        exchange.check()
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dualtalk(tmp_path_factory) -> Path:
    return made.dualtalk(tmp_path_factory.mktemp("dualtalk") / "source", train=6, test=1, ood=1, swap=(2,))


@pytest.fixture(scope="module")
def imported(dualtalk, tmp_path_factory):
    out = tmp_path_factory.mktemp("dualtalk_out") / "out"
    return import_dataset("dualtalk", dualtalk, out, workers=1)


# ---------------------------------------------------------------------------------------------------------- DualTalk


def test_dualtalk_becomes_exchanges_in_its_own_splits(imported):
    found = exchanges(imported.out)
    assert imported.exit_code == EXIT_OK and imported.recordings == 8
    assert {e.basis for e in found} == {"flame2020"} and {e.license for e in found} == {"Apache-2.0"}
    assert {e.source for e in found if e.split == "test"} == {"dualtalk", "dualtalk-ood"}
    assert all(e.split == "test" for e in found if e.session_id.startswith(("dualtalk-test", "dualtalk-ood")))
    # four turns, each answering the one before
    assert sum(imported.exchanges.values()) == len(found) == 8 * 3
    first = found[0]
    assert -0.5 <= first.gap_s <= 1.5 and first.end_s >= 3 and first.start_s <= -3
    assert first.layout.num_expression == 50 and first.neck_folded
    measured = {group for group, array in first.responder.motion.items() if len(array)}
    assert measured == {"expression", "global_orient", "jaw_pose"}
    assert len(first.responder.betas) == 100 and first.previous_speaker != first.responder_name


def test_exchanges_are_chained_where_a_response_is_the_next_previous_turn(imported):
    by_id = {e.exchange_id: e for e in exchanges(imported.out)}
    chained = [e for e in by_id.values() if e.next_exchange_id]
    assert chained
    for exchange in chained:
        after = by_id[exchange.next_exchange_id]
        assert after.previous_exchange_id == exchange.exchange_id
        assert after.previous_speaker == exchange.responder_name
        assert after.session_onset_s > exchange.session_onset_s


def test_motion_is_the_source_s_own_and_in_step_with_the_sound(imported, dualtalk):
    exchange = next(e for e in exchanges(imported.out) if e.session_id == "dualtalk-train_Vidtrain_0x-Y_sub_video_0")
    side = int(exchange.responder_name[-1])
    with np.load(dualtalk / "train" / f"Vidtrain_0x-Y_sub_video_0_speaker{side}.npz") as archive:
        expression, pose = archive["exp"], archive["pose"]
    first = round((exchange.session_onset_s + exchange.start_s) * FPS)
    last = round((exchange.session_onset_s + exchange.end_s) * FPS)
    np.testing.assert_array_equal(exchange.responder.motion["expression"], expression[first:last])
    np.testing.assert_array_equal(exchange.responder.motion["jaw_pose"], pose[first:last, 3:])
    sound = made.Talk(100).waveform(side - 1)[first * 640 : last * 640]
    np.testing.assert_allclose(exchange.responder.waveform, sound, atol=1e-4)


def test_heads_rest_at_zero_and_what_was_taken_out_is_told(imported, dualtalk):
    lines = [json.loads(line) for line in (imported.out / "sessions.jsonl").read_text().splitlines()]
    line = next(line for line in lines if line["session_id"] == "dualtalk-train_Vidtrain_0x-Y_sub_video_0")
    with np.load(dualtalk / "train" / "Vidtrain_0x-Y_sub_video_0_speaker1.npz") as archive:
        before = torch.from_numpy(archive["pose"][:, :3])
    offset = torch.tensor(line["head_offset"]["Vidtrain_0x-Y-1"])
    after = rotation.compose(rotation.inverse(offset).expand_as(before), before)
    assert after.median(0).values.abs().max() < 1e-3 and offset.norm() > 0.1
    exchange = next(e for e in exchanges(imported.out) if e.session_id == line["session_id"])
    who = "responder" if exchange.responder_name == "Vidtrain_0x-Y-1" else "previous"
    first = round((exchange.session_onset_s + exchange.start_s) * FPS)
    stored = torch.tensor(exchange.person(who).motion["global_orient"])
    torch.testing.assert_close(stored, after[first : first + len(stored)], atol=1e-4, rtol=0)
    assert len(line["files"]) == 4 and all(len(digest) == 64 for digest in line["files"].values())


def test_swapped_sides_are_found_said_and_put_right(imported, dualtalk, tmp_path):
    assert imported.swapped == ["train/Vidtrain_1x-Y_sub_video_2_000"] and imported.compared == 8
    assert any("1 of 8 recordings with the voices exchanged" in line for line in imported.lines())
    exchange = next(e for e in exchanges(imported.out) if "sub_video_2_000" in e.session_id)
    with np.load(dualtalk / "train" / f"Vidtrain_1x-Y_sub_video_2_000_speaker{exchange.responder_name[-1]}.npz") as npz:
        jaw = npz["pose"][:, 3]
    # the responder's mouth moves while the responder's voice sounds
    onset = round(exchange.session_onset_s * FPS)
    speaking = slice(onset, onset + round(3 * FPS))
    assert jaw[speaking].mean() > 1.5 * jaw.min() and np.abs(exchange.responder.waveform[-32000:]).max() > 0.05
    only = tmp_path / "source" / "train"
    only.mkdir(parents=True)
    for path in (dualtalk / "train").glob("Vidtrain_1x-Y_sub_video_[23]*"):
        shutil.copy(path, only)
    report = import_dataset("dualtalk", tmp_path / "source", tmp_path / "out", ImportOptions(swapped="drop"), workers=1)
    assert list(report.skipped) == ["train/Vidtrain_1x-Y_sub_video_2_000"]


def test_people_of_validation_are_in_no_other_split(imported):
    people = {}
    for exchange in exchanges(imported.out):
        people.setdefault(exchange.split, set()).update((exchange.previous_speaker, exchange.responder_name))
    assert people["train"] and people["validation"] and not people["train"] & people["validation"]


def test_the_card_loads_with_its_splits(imported):
    card = (imported.out / "README.md").read_text()
    assert "path: train-*.parquet" in card and "Apache-2.0" in card


# ---------------------------------------------------------------------------------------- what can go wrong in a source


def small(dualtalk: Path, folder: Path) -> Path:
    """Three clips of the training split."""
    (folder / "train").mkdir(parents=True)
    for path in (dualtalk / "train").glob("*sub_video_[013]*"):
        shutil.copy(path, folder / "train")
    return folder


def rewrite(path: Path, **changes) -> None:
    with np.load(path) as archive:
        arrays = {key: archive[key] for key in archive.files}
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


def with_frames(path: Path, count: int) -> None:
    with np.load(path) as archive:
        np.savez(path, **{key: np.resize(archive[key], (count, *archive[key].shape[1:])) for key in archive.files})


def compressed_and_damaged(path: Path) -> None:
    with np.load(path) as archive:
        np.savez_compressed(path, **{key: archive[key] for key in archive.files})
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)


BREAKS = {
    "width": (lambda p: rewrite(p, exp=np.zeros((425, 51), np.float32)), r"\(frames, 50\).*\(425, 51\)"),
    "pose": (lambda p: rewrite(p, pose=np.zeros((425, 7), np.float32)), r"\(425, 6\).*\(425, 7\)"),
    "key": (lambda p: rewrite(p, exp=None), "'exp'.*found"),
    "rate": (lambda p: with_frames(p, 510), r"expected 25 fps.*found 510 frames \(30\.00 fps\)"),
    "not finite": (lambda p: rewrite(p, exp=np.full((425, 50), np.nan, np.float32)), "NaN"),
    "pickled": (lambda p: np.savez(p, exp=np.array([{}], object)), "pickled"),
    "cut short": (lambda p: p.write_bytes(p.read_bytes()[:1000]), "cannot read"),
    "damaged": (lambda p: compressed_and_damaged(p), "cannot read"),
    "empty": (lambda p: p.write_bytes(b""), "0 bytes"),
    "missing": (lambda p: p.unlink(), "found nothing"),
    "sound's rate": (
        lambda p: made.float_wav(p.with_suffix(".wav"), made.Talk(100).waveform(0, 44100), 44100), "16000 Hz.*44100 Hz",
    ),
    "sound cut": (
        lambda p: p.with_suffix(".wav").write_bytes(p.with_suffix(".wav").read_bytes()[:60000]), "cut short",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_file_is_named_with_both_values(dualtalk, tmp_path, kind):
    source = small(dualtalk, tmp_path / "source")
    broken = source / "train" / "Vidtrain_0x-Y_sub_video_0_speaker1.npz"
    damage, message = BREAKS[kind]
    damage(broken)
    importer = importer_of("dualtalk")(source)
    item = next(item for item in importer.scan() if item.item_id == "train/Vidtrain_0x-Y_sub_video_0")
    with pytest.raises(UserError, match=message) as error:
        importer.load(item)
    assert broken.stem in str(error.value)


def test_the_others_are_done_and_what_was_mended_is_done_again(dualtalk, tmp_path):
    source = small(dualtalk, tmp_path / "source")
    whole = import_dataset("dualtalk", source, tmp_path / "whole", workers=1)
    broken = source / "train" / "Vidtrain_0x-Y_sub_video_0_speaker1.npz"
    good = broken.read_bytes()
    broken.write_bytes(good[:1000])
    report = import_dataset("dualtalk", source, tmp_path / "out", workers=1)
    assert list(report.failed) == ["train/Vidtrain_0x-Y_sub_video_0"] and report.exit_code == EXIT_PARTIAL
    with pytest.raises(PartialFailure, match="Vidtrain_0x-Y_sub_video_0: expected an .npz") as error:
        report.raise_for_failures()
    assert error.value.exit_code == 3 and "\n" not in str(error.value)
    assert len(exchanges(report.out)) == sum(whole.exchanges.values()) - 3
    broken.write_bytes(good)
    again = import_dataset("dualtalk", source, tmp_path / "out", workers=1)
    assert not again.failed and content(again.out) == content(whole.out)


def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(dualtalk, tmp_path, monkeypatch):
    from diffdyad.data.importers.dualtalk import DualTalk

    source = small(dualtalk, tmp_path / "source")
    monkeypatch.setattr(DualTalk, "items_per_shard", 1)
    whole = import_dataset("dualtalk", source, tmp_path / "whole", workers=1)
    assert len(list(whole.out.glob("train-*.parquet"))) == 2
    load, left = DualTalk.load, [2]

    def stopping(self, item):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return load(self, item)

    monkeypatch.setattr(DualTalk, "load", stopping)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("dualtalk", source, tmp_path / "out", workers=1)
    assert not list((tmp_path / "out").glob("*.parquet"))
    left[0] = 1  # one more is all that is missing
    report = import_dataset("dualtalk", source, tmp_path / "out", workers=1)
    assert content(report.out) == content(whole.out)
    left[0] = 0  # finished: nothing is read again
    assert content(import_dataset("dualtalk", source, tmp_path / "out", workers=1).out) == content(whole.out)


def test_workers_make_the_same_bytes(dualtalk, imported, tmp_path):
    report = import_dataset("dualtalk", dualtalk, tmp_path / "out", workers=2)
    assert content(report.out) == content(imported.out)


def test_another_import_is_not_mixed_in(imported, dualtalk, tmp_path):
    with pytest.raises(UserError, match="another.*options differ.*--out"):
        import_dataset("dualtalk", dualtalk, imported.out, ImportOptions(swapped="keep"), workers=1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="new or empty"):
        import_dataset("dualtalk", dualtalk, tmp_path / "full", workers=1)


@pytest.mark.parametrize("name", IMPORTERS)
def test_a_folder_without_the_dataset_is_refused_with_what_was_expected(name, tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(UserError, match="expected") as error:
        import_dataset(name, tmp_path / "source", tmp_path / "out", workers=1)
    assert str(tmp_path) in str(error.value) and not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="found nothing"):
        import_dataset(name, tmp_path / "nowhere", tmp_path / "out", workers=1)


def test_unknown_names_and_options_are_one_line(tmp_path):
    with pytest.raises(UserError, match="dualtalk, unilstalk"):
        import_dataset("dualtalks", tmp_path, tmp_path / "out")
    for name, options in (
        ("dualtalk", ImportOptions(basis="flame")), ("dualtalk", ImportOptions(swapped="yes")),
        ("dualtalk", ImportOptions(fps=25.0)), ("learning2listen", ImportOptions(fps=0.0)),
        ("livelink", ImportOptions(basis="flame2020")), ("beat2", ImportOptions(limit=0)),
    ):  # fmt: skip
        with pytest.raises(UserError, match="expected"):
            import_dataset(name, tmp_path, tmp_path / "out", options)


# --------------------------------------------------------------------------------------------------------- UniLSTalk


def test_unilstalk_takes_turns_from_its_masks(tmp_path):
    pytest.importorskip("lmdb", reason="the extra `data` is not installed")
    source = made.unilstalk(tmp_path / "source", {"train": 1, "val": 1, "test": 1})
    report = import_dataset("unilstalk", source, tmp_path / "out", workers=1)
    found = exchanges(report.out)
    assert {e.split for e in found} == {"train", "validation", "test"} and len(found) == 9
    assert {e.layout.num_expression for e in found} == {100}
    assert any("flame2020" in note and "EMICA" in note for note in report.notes)
    exchange = found[0]
    measured = {group for group, array in exchange.responder.motion.items() if len(array)}
    assert measured == {"expression", "global_orient", "jaw_pose", "leye_pose", "reye_pose"} and exchange.neck_folded
    # the mask's edges, on frames
    assert exchange.session_onset_s == pytest.approx(4.3, abs=0.03)
    assert exchange.previous_end_s == pytest.approx(4.0 - 4.3, abs=0.05)
    assert exchange.previous_speaker == "P0000" and exchange.session_id == "unilstalk-V00_S0000_I00000000_P0000_P0001"
    eyes = made.Talk(200).smooth(1, 25, 6, 0.08, 2)
    first = round((exchange.session_onset_s + exchange.start_s) * FPS)
    stored = exchange.responder.motion["reye_pose"]
    np.testing.assert_allclose(stored, eyes[first : first + len(stored), 3:], atol=1e-6)


def test_a_broken_database_is_said_and_not_crashed_into(tmp_path):
    lmdb = pytest.importorskip("lmdb", reason="the extra `data` is not installed")
    source = made.unilstalk(tmp_path / "source", {"train": 2, "test": 1})
    folder = source / "SeamlessInteractionTalk"
    listing = json.loads((folder / "seamless_interaction_pairs.json").read_text())
    names = list(listing["train"])
    listing["train"][names[0]][0] = "gone/V09_S0009_I00000009_P0009"
    (folder / "seamless_interaction_pairs.json").write_text(json.dumps(listing))
    environment = lmdb.open(str(folder / "data_lmdb"), map_size=1 << 27)
    key = Path(listing["train"][names[1]][1]).name.encode()
    with environment.begin(write=True) as transaction:
        transaction.put(key, pickle.dumps({"motioncode": 1}))
    environment.close()
    report = import_dataset("unilstalk", source, tmp_path / "out", workers=1)
    messages = " ".join(report.failed.values())
    assert len(report.failed) == 2 and "V09_S0009" in messages and "without pickled objects" in messages
    with open(folder / "data_lmdb" / "data.mdb", "r+b") as file:
        file.truncate(8192)
    with pytest.raises(UserError, match="cut short|cannot read"):
        import_dataset("unilstalk", source, tmp_path / "other", workers=1)


# --------------------------------------------------------------------------------------------- listeners without sound


def test_learning2listen_joins_windows_and_knows_who_listens(tmp_path):
    source = made.learning2listen(tmp_path / "source", ("conan", "fallon"), windows=6)
    report = import_dataset("learning2listen", source, tmp_path / "out", workers=1)
    found = exchanges(report.out)
    assert {e.responder_name for e in found} == {"conan", "fallon"} and {e.response_kind for e in found} == {"silent"}
    # windows at 100, 132, 164, 196, 228, 260: 224 frames in a row at 30 fps
    for exchange in found:
        assert exchange.end_s == 0 and exchange.previous_end_s == 0
        assert exchange.start_s == pytest.approx(-224 / 30, abs=0.05)
    exchange = next(e for e in found if e.responder_name == "fallon" and e.split == "test")
    side, talk = 0, made.Talk(303, seconds=40.0, turns=[(1, 0.3, 39.0)])
    jaw = talk.jaw(side, 30)[100:324]
    at = np.arange(exchange.num_frames) / 25 * 30
    inside = slice(5, -5)
    np.testing.assert_allclose(
        exchange.responder.motion["jaw_pose"][inside, 0], np.interp(at, np.arange(224), jaw)[inside], atol=0.05
    )
    assert any("30 fps" in note and "--fps" in note for note in report.notes)
    faster = import_dataset("learning2listen", source, tmp_path / "25", ImportOptions(fps=25.0), workers=1)
    assert exchanges(faster.out)[0].start_s == pytest.approx(-224 / 25, abs=0.05)


def test_learning2listen_of_another_width_is_refused(tmp_path):
    source = made.learning2listen(tmp_path / "source", ("conan", "trevor"))
    path = source / "data" / "conan" / "train" / "p0_list_faces_clean_deca.npy"
    np.save(path, np.load(path)[..., :178])
    (source / "data" / "conan" / "test" / "p1_speak_files_clean_deca.npy").unlink()
    report = import_dataset("learning2listen", source, tmp_path / "out", workers=1)
    messages = " ".join(report.failed.values())
    assert len(report.failed) == 2 and "(windows, 64, 184)" in messages and "(6, 64, 178)" in messages
    assert "found nothing" in messages and len(exchanges(report.out)) == 2


def torch_segments(segments: list[dict]) -> list[dict]:
    return [{k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in s.items()} for s in segments]


@pytest.mark.parametrize("form", ["pickle", "torch", "torch with arrays", "old torch"])
def test_lm_listener_reads_every_form_of_its_files(tmp_path, form):
    source = tmp_path / "source"
    source.mkdir()
    for name, count in (("train", 2), ("val", 1)):
        segments, path = made.lm_segments(count, "trevor_videos"), source / f"segments_{name}.pth"
        if form == "pickle":
            path.write_bytes(pickle.dumps(segments))
        else:
            content = segments if form == "torch with arrays" else torch_segments(segments)
            torch.save(content, path, _use_new_zipfile_serialization=form != "old torch")
    report = import_dataset("lm-listener", source, tmp_path / "out", workers=1)
    found = exchanges(report.out)
    assert not report.failed and len(found) == 3
    exchange = found[0]
    assert exchange.responder_name == "trevor_videos" and exchange.previous.text == "you know"
    # words end at 1 s and 2 s of a segment of 7 s
    assert [round(word.end_s, 3) for word in exchange.previous.words] == [-6.0, -5.0]
    assert len(exchange.responder.betas) == 100 and exchange.start_s == pytest.approx(-7.0, abs=0.05)


def test_a_pickle_that_would_run_something_is_refused_unrun(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    for number, save in enumerate((lambda c, p: p.write_bytes(pickle.dumps(c)), torch.save)):
        source = tmp_path / f"source{number}"
        source.mkdir()
        segments = made.lm_segments(1, "trevor_videos")
        save(segments, source / "segments_train.pth")
        save([{**segments[0], "fname": Bomb()}], source / "segments_val.pth")
        report = import_dataset("lm-listener", source, tmp_path / f"out{number}", workers=1)
        assert list(report.failed) == ["segments_val.pth"] and "refused" in report.failed["segments_val.pth"]
    assert not (tmp_path / "ran").exists()


# ---------------------------------------------------------------------------------------------------------- monologues


def test_beat2_is_nobody_s_answer(tmp_path):
    source = made.beat2(tmp_path / "source", ("1_wayne", "2_scott", "4_lawrence"))
    wrong = source / "smplxflame_30" / "2_scott_0_1_1.npz"
    rewrite(wrong, mocap_frame_rate=np.array(60))
    report = import_dataset("beat2", source, tmp_path / "out", workers=1)
    assert list(report.failed) == ["smplxflame_30/2_scott_0_1_1"]
    assert "expected 30 fps" in next(iter(report.failed.values())) and "found 60" in next(iter(report.failed.values()))
    rewrite(wrong, mocap_frame_rate=np.array("thirty"))
    reason, = import_dataset("beat2", source, tmp_path / "out", workers=1).failed.values()
    assert wrong.name in reason and reason.endswith("found thirty")
    arrays = dict(np.load(wrong))
    del arrays["mocap_frame_rate"]
    np.savez(wrong, **arrays)
    reason, = import_dataset("beat2", source, tmp_path / "out", workers=1).failed.values()
    assert reason.startswith("expected the key 'mocap_frame_rate' (30 fps)") and "found betas, expressions" in reason
    rewrite(wrong, mocap_frame_rate=np.array(30))
    sound = made.Talk(501, 16.0, made.MONOLOGUE).waveform(0, 48000)
    made.pcm_wav(source / "wave16k" / "2_scott_0_1_1.wav", sound, 48000)
    reason, = import_dataset("beat2", source, tmp_path / "out", workers=1).failed.values()
    assert "expected sound at 16000 Hz" in reason and "found 48000 Hz" in reason
    found = exchanges(report.out)
    assert {e.previous_speaker for e in found} == {""} and {e.start_s for e in found} == {0.0}
    assert {e.layout.num_expression for e in found} == {100} and not any(e.previous.num_frames for e in found)
    measured = {group for group, array in found[0].responder.motion.items() if len(array)}
    assert measured == {"expression", "global_orient", "jaw_pose"}


def test_live_link_recordings_are_resampled_by_timecode(tmp_path):
    talk = made.Talk(900, seconds=16.0, turns=made.MONOLOGUE)
    made.livelink(tmp_path / "source" / "anna" / "one.csv", talk, drop=slice(300, 330))
    made.livelink(tmp_path / "source" / "bela" / "two.csv", talk, fps=30, lower=True)
    report = import_dataset("livelink", tmp_path / "source", tmp_path / "out", workers=1)
    one, two = sorted(exchanges(report.out), key=lambda e: e.responder_name)
    assert (one.basis, one.responder_name) == ("arkit", "anna") and one.layout.num_expression == 41
    smile = one.motion("responder").layout.channel("mouthSmileLeft")
    expected = 0.3 + 0.2 * np.sin(np.arange(one.num_frames) / 25)
    for exchange in (one, two):
        values = exchange.motion("responder").values[:, smile].numpy()
        known = exchange.responder.valid[: len(expected)]
        np.testing.assert_allclose(values[known][3:-3], expected[: len(values)][known][3:-3], atol=0.01)
    # half a second was lost from 5.0 s on: not made up
    valid = one.responder.valid
    assert not valid[128:136].any() and valid[:124].all() and valid[140:].all()
    assert two.responder.valid.all()


@pytest.mark.parametrize(("damage", "message"), [
    (lambda lines: [lines[0].replace(",JawOpen", ",JawOpening"), *lines[1:]], "JawOpen"),
    (lambda lines: [*lines[:5], lines[5] + ",0.5", *lines[6:]], "63 values in line 6.*found 64"),
    (lambda lines: [*lines[:5], lines[4], *lines[6:]], "rising timecodes"),
    (lambda lines: [*lines[:5], lines[5].replace(",61,", ",51,"), *lines[6:]], "BlendshapeCount 61.*51"),
    (lambda lines: [lines[0]], "header alone"),
])  # fmt: skip
def test_a_broken_live_link_file_is_named(tmp_path, damage, message):
    path = made.livelink(tmp_path / "take.csv", made.Talk(900, seconds=3.0, turns=[(0, 0.1, 2.9)]))
    path.write_text("\n".join(damage(path.read_text().splitlines())) + "\n")
    importer = importer_of("livelink")(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        importer.load(next(importer.scan()))
    assert "take.csv" in str(error.value)


def test_one_person_alone_is_all_training_and_said_so(tmp_path):
    for number in range(3):
        talk = made.Talk(910 + number, seconds=4.0, turns=[(0, 0.1, 3.9)])
        made.livelink(tmp_path / "source" / "anna" / f"{number}.csv", talk)
    report = import_dataset("livelink", tmp_path / "source", tmp_path / "out", workers=1)
    assert report.exchanges == {"train": 3, "validation": 0, "test": 0}
    assert any("connected component" in note for note in report.notes)


# ------------------------------------------------------------------------------------------ what is still to be tracked


def test_react_keeps_foreign_expressions_apart(tmp_path):
    source = made.react(tmp_path / "source", sessions=1)
    report = import_dataset("react", source, tmp_path / "out", workers=1)
    exchange = exchanges(report.out)[0]
    measured = {group for group, array in exchange.responder.motion.items() if len(array)}
    assert measured == {"global_orient"} and {e.split for e in exchanges(report.out)} == {"train", "validation"}
    foreign = sorted((report.out / "foreign").glob("*.npz"))
    assert len(foreign) == 4
    with np.load(foreign[0]) as archive:
        assert archive["expression"].shape == (426, 52) and str(archive["basis"]) == "faceverse"
    tracked = [json.loads(line) for line in (report.out / "to_track.jsonl").read_text().splitlines()]
    assert len(tracked) == 4 and all((source / line["video"]).is_file() for line in tracked)


def test_react_at_another_rate_is_refused(tmp_path):
    source = made.react(tmp_path / "source", sessions=2)
    wav = next((source / "train" / "Audio_files").rglob("*.wav"))
    made.pcm_wav(wav, made.Talk(600).waveform(0, 48000), 48000)
    npy = next((source / "val" / "3D_FV_files").rglob("1.npy"))
    np.save(npy, np.load(npy)[..., :57])
    report = import_dataset("react", source, tmp_path / "out", workers=1)
    messages = " ".join(report.failed.values())
    assert "44100 Hz" in messages and "48000 Hz" in messages and "(frames, 58)" in messages and "(426, 57)" in messages


def test_vico_gives_sound_and_videos_to_track(tmp_path):
    source = made.vico(tmp_path / "source")
    (source / "videos" / "u001.listener.mp4").unlink()
    report = import_dataset("vico", source, tmp_path / "out", workers=1)
    assert list(report.failed) == ["u001"] and "u001.listener.mp4" in report.failed["u001"]
    exchange = exchanges(report.out)[0]
    assert len(exchange.previous.waveform) and not len(exchange.responder.waveform) and not exchange.num_frames
    assert exchange.response_kind == "silent" and exchange.previous_speaker.startswith("s")
    assert len((report.out / "to_track.jsonl").read_text().splitlines()) == 6


def test_videos_and_sounds_at_absurd_rates_are_refused(tmp_path):
    source = made.vico(tmp_path / "vico")
    made.video(source / "videos" / "u001.listener.mp4", 6.0, 25)
    made.video(source / "videos" / "u002.speaker.mp4", 9.0, 30)
    made.pcm_wav(source / "audios" / "u003.wav", made.Talk(703, 6.0, [(0, 0.2, 5.8)]).waveform(0, 4000), 4000)
    failed = import_dataset("vico", source, tmp_path / "out", workers=1).failed
    assert "expected 30 fps" in failed["u001"] and "u001.listener.mp4, found 25 fps" in failed["u001"]
    assert "expected 6.00 s of video" in failed["u002"] and "found 9.00 s" in failed["u002"]
    assert "8000 to 192000 Hz" in failed["u003"] and "4000 Hz" in failed["u003"] and len(failed) == 3
    source = made.seamless(tmp_path / "seamless")
    videos = sorted(source.rglob("*.mp4"), key=lambda path: path.stem)
    made.video(videos[0], 17.0, 30000 / 1001)  # another rate is no harm: pictures have timestamps
    made.video(videos[2], 17.0, 2)
    videos[4].write_bytes(b"no video")
    failed = import_dataset("seamless", source, tmp_path / "two", workers=1).failed
    reasons = [reason for _, reason in sorted(failed.items())]
    assert len(reasons) == 2 and "expected 10 to 240 fps" in reasons[0] and "found 2 fps" in reasons[0]
    assert "cannot read" in reasons[1] and videos[4].name in reasons[1]


def test_seamless_takes_words_and_turns_from_its_transcripts(tmp_path):
    source = made.seamless(tmp_path / "source")
    report = import_dataset("seamless", source, tmp_path / "out", workers=1)
    found = exchanges(report.out)
    assert {e.split for e in found} == {"train", "validation", "test"}
    assert {e.license for e in found} == {"CC-BY-NC-4.0"}
    exchange = found[0]
    assert exchange.previous.text == exchange.responder.text == "right so"
    assert exchange.responder.words[0].start_s == pytest.approx(0.2, abs=0.03) and exchange.num_frames == 0
    wav = next(source.rglob("*.wav"))
    made.pcm_wav(wav, made.Talk(800).waveform(0), 16000)
    assert "48000 Hz" in next(iter(import_dataset("seamless", source, tmp_path / "two", workers=1).failed.values()))
