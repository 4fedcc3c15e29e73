import pytest
import torch
from conftest import tone

from diffdyad.audio import SpeechEncoder
from diffdyad.timeline import Timeline


@pytest.mark.parametrize("gain", [1.0, 0.05])
def test_who_speaks_softly_speaks(gain):
    audio = torch.cat([torch.zeros(32000), 0.2 * tone(1.0), torch.zeros(32000), tone(1.0), torch.zeros(32000)])
    speaking = Timeline(SpeechEncoder(), gain * audio, num_lead=10).speaking(0, 210)
    assert speaking[62:83].all() and speaking[137:158].all()  # two seconds and ten frames on
    assert not speaking[:50].any() and not speaking[95:125].any() and not speaking[170:].any()


def test_nobody_speaks_in_silence():
    assert not Timeline(SpeechEncoder(), torch.zeros(16000), num_lead=0).speaking(0, 25).any()
