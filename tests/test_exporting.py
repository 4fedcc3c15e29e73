"""Motion out: read again by the importers, or by the readers of the other tools."""

from __future__ import annotations

import pickle
from pathlib import Path

import dataset_fixtures as made
import numpy as np
import pytest
import torch
from small_exchanges import write_dataset

from diffdyad import rotation
from diffdyad.cli import main
from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.exporting import FORMATS, bfm_angles, export_dataset, matlab
from diffdyad.data.importers import importer_of
from diffdyad.data.importers.corpus import import_dataset
from diffdyad.errors import UserError
from diffdyad.motion import Motion, MotionLayout, save_motion


@pytest.fixture(scope="module")
def flame(tmp_path_factory) -> Path:
    source = made.dualtalk(tmp_path_factory.mktemp("flame") / "source", train=1, test=0, ood=0)
    return import_dataset("dualtalk", source, source.parent / "out", workers=1).out


@pytest.fixture(scope="module")
def arkit(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("arkit")
    made.livelink(folder / "source" / "anna" / "a.csv", made.Talk(900, seconds=6.0, turns=[(0, 0.2, 5.8)]))
    return import_dataset("livelink", folder / "source", folder / "out", workers=1).out


def test_dualtalk_comes_back_as_it_went_out(flame, tmp_path):
    report = export_dataset(flame, tmp_path / "out", "dualtalk")
    assert report.exit_code == 0 and len(report.files) == 3 * 4
    assert all((tmp_path / "out" / file).is_file() for file in report.files)
    importer = importer_of("dualtalk")(tmp_path / "out")
    item = next(importer.scan())
    recording = importer.load(item)
    exchange = ExchangeShards(flame, "train")[0]
    for side, who in zip(recording.sides, ("previous", "responder")):
        before = exchange.motion(who)
        for group in ("expression", "global_orient", "jaw_pose"):
            torch.testing.assert_close(side.motion.select(group), before.select(group), atol=1e-5, rtol=0)
        np.testing.assert_allclose(side.waveform, exchange.person(who).waveform, atol=1e-6)
        np.testing.assert_allclose(side.betas, exchange.person(who).betas, atol=1e-5)
    with np.load(tmp_path / "out" / report.files[0]) as archive:
        widths = {key: archive[key].shape[1:] for key in archive.files}
    assert widths == {"shape": (100,), "tex": (50,), "exp": (50,), "pose": (6,), "cam": (3,), "light": (9, 3)}


def test_live_link_comes_back_as_it_went_out(arkit, tmp_path):
    export_dataset(arkit, tmp_path / "out", "arkit-csv")
    importer = importer_of("livelink")(tmp_path / "out")
    recording = importer.load(next(importer.scan()))
    exchange = ExchangeShards(arkit, "train")[0]
    back, before = recording.sides[0].motion.resample(25.0), exchange.motion("responder")
    assert len(back) == len(before) and recording.sides[0].waveform.any()
    for group in ("expression", "global_orient", "jaw_pose", "leye_pose", "reye_pose"):
        error = (back.select(group) - before.select(group)).abs()[3:-3]
        assert error.max() < 0.03, group


def test_a_motion_file_with_its_sound(tmp_path):
    layout = MotionLayout.arkit()
    values = torch.zeros(50, layout.dim)
    values[:, layout.channel("mouthSmileLeft")] = 0.5
    save_motion(tmp_path / "motion.npz", Motion(values, layout, 25.0))
    report = export_dataset(tmp_path / "motion.npz", tmp_path / "out", "arkit-csv", audio=torch.zeros(32000))
    assert report.files == ["motion.csv", "motion.wav"]
    header, first, *rest = (tmp_path / "out" / "motion.csv").read_text().splitlines()
    assert len(rest) == 119 and first.startswith("00:00:00:00.000,61,")
    assert float(first.split(",")[header.split(",").index("MouthSmileLeft")]) == pytest.approx(0.5)


def test_gagavatar_drivers_are_frames_of_flame(flame, tmp_path):
    report = export_dataset(flame, tmp_path / "out", "gagavatar", limit=1)
    path = next((tmp_path / "out").rglob("smoothed.pkl"))
    frames = pickle.loads(path.read_bytes())
    shapes = {key: value.shape for key, value in frames["frame_0"].items()}
    assert shapes == {"posecode": (6,), "expcode": (100,), "eyecode": (6,), "shapecode": (300,),
                      "transform_matrix": (3, 4), "bbox": (4,)}  # fmt: skip
    exchange = ExchangeShards(flame, "train")[0]
    motion = exchange.motion("previous" if "_previous" in str(path) else "responder")
    np.testing.assert_allclose(frames["frame_7"]["expcode"][:50], motion.select("expression")[7], atol=1e-6)
    assert not frames["frame_7"]["expcode"][50:].any() and any("img_lmdb" in note for note in report.notes)


def test_pirender_needs_a_map_and_takes_it(flame, tmp_path):
    with pytest.raises(UserError, match="expression-map"):
        export_dataset(flame, tmp_path / "out", "pirender")
    matrix = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    np.savez(tmp_path / "map.npz", matrix=matrix)
    report = export_dataset(flame, tmp_path / "out", "pirender", limit=1, expression_map=tmp_path / "map.npz")
    loadmat = pytest.importorskip("scipy.io", reason="scipy reads MATLAB files").loadmat
    name = next(file for file in report.files if file.endswith("_responder.mat"))
    content = loadmat(tmp_path / "out" / name)
    motion = ExchangeShards(flame, "train")[0].motion("responder")
    assert content["coeff"].shape == (len(motion), 257) and content["transform_params"].shape == (len(motion), 5)
    np.testing.assert_allclose(content["coeff"][:, 80:144], motion.select("expression").numpy() @ matrix, atol=1e-4)
    np.savez(tmp_path / "map.npz", matrix=matrix[:41])
    with pytest.raises(UserError, match=r"\(50, 64\).*\(41, 64\)"):
        export_dataset(flame, tmp_path / "out", "pirender", expression_map=tmp_path / "map.npz")


def test_matlab_files_are_read_by_scipy(tmp_path):
    loadmat = pytest.importorskip("scipy.io", reason="scipy reads MATLAB files").loadmat
    arrays = {"coeff": np.arange(15, dtype=np.float32).reshape(5, 3), "x": np.float32([[1.5]])}
    (tmp_path / "a.mat").write_bytes(matlab(arrays))
    for name, array in loadmat(tmp_path / "a.mat").items():
        if name in arrays:
            np.testing.assert_array_equal(array, arrays[name])


def test_bfm_angles_are_x_then_y_then_z():
    angles = torch.tensor([0.3, -0.2, 0.1])
    about = [rotation.axis_angle_to_quaternion(torch.eye(3)[k] * angles[k]) for k in range(3)]
    head = rotation.quaternion_multiply(about[2], rotation.quaternion_multiply(about[1], about[0]))
    torch.testing.assert_close(bfm_angles(rotation.quaternion_to_axis_angle(head)), angles, atol=1e-6, rtol=0)


def test_bases_are_never_mixed(flame, arkit, tmp_path):
    for format in ("dualtalk", "gagavatar"):
        with pytest.raises(UserError, match=f"flame2020 for {format}, found arkit"):
            export_dataset(arkit, tmp_path / "out", format)
    with pytest.raises(UserError, match="arkit for arkit-csv, found flame2020"):
        export_dataset(flame, tmp_path / "out", "arkit-csv")


def test_wrong_arguments_are_one_line(flame, tmp_path):
    with pytest.raises(UserError, match=", ".join(FORMATS)):
        export_dataset(flame, tmp_path / "out", "fbx")
    with pytest.raises(UserError, match="neither"):
        export_dataset(tmp_path / "nothing", tmp_path / "out", "dualtalk")
    with pytest.raises(UserError, match="validation"):
        export_dataset(flame, tmp_path / "out", "dualtalk", split="validation")
    (tmp_path / "sound.wav").write_bytes(b"RIFF" + bytes(99))
    with pytest.raises(UserError, match="expected a motion .npz, found another kind of file"):
        export_dataset(tmp_path / "sound.wav", tmp_path / "out", "dualtalk")
    for out in (tmp_path / "sound.wav", tmp_path / "sound.wav" / "out"):
        with pytest.raises(UserError, match="expected a folder for the output, found a file: .*sound.wav; give"):
            export_dataset(flame, out, "dualtalk")
    assert (tmp_path / "sound.wav").stat().st_size == 103 and not (tmp_path / "out").exists()


def test_damaged_shards_are_named_and_the_others_are_written(tmp_path, capsys):
    folder = write_dataset(tmp_path / "d", train=4, validation=0, shards=2)
    first, second = sorted(folder.glob("*.parquet"))
    first.write_bytes(first.read_bytes()[:3000])
    arguments = ["data", "export", str(folder), "--format", "arkit-csv", "--out", str(tmp_path / "out")]
    assert main(arguments) == 3
    error = capsys.readouterr().err
    assert first.name in error and second.name not in error and "damaged" in error
    assert len(list((tmp_path / "out").rglob("*.csv"))) == 4  # two exchanges of two people
    second.write_bytes(b"")
    assert main([*arguments[:-1], str(tmp_path / "other")]) == 2 and first.name in capsys.readouterr().err
