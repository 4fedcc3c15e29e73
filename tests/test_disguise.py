import torch

from diffdyad.data.disguise import Disguise, disguised

BANDS, COLUMNS = 16, 2
PLAIN = torch.tensor([1.0, 0.0, 1.0, *[0.0] * 10])


def features(seed=0):
    return torch.randn(3, 5, 1, COLUMNS * BANDS, generator=torch.Generator().manual_seed(seed))


def test_nothing_drawn_is_nothing_changed():
    drawn = torch.stack([Disguise().draw(torch.Generator().manual_seed(n)) for n in range(3)])
    assert not Disguise() and torch.equal(drawn[:, :11], PLAIN[:11].expand(3, -1))
    assert torch.allclose(disguised(features(), drawn, BANDS), features(), atol=1e-6)


def test_a_shift_moves_all_bands_of_every_column():
    drawn = PLAIN.repeat(3, 1)
    drawn[1, 1] = 2.0
    plain, moved = (x.unflatten(-1, (COLUMNS, BANDS)) for x in (features(), disguised(features(), drawn, BANDS)))
    assert torch.allclose(moved[1, ..., :-2], plain[1, ..., 2:], atol=1e-6)
    assert torch.allclose(moved[[0, 2]], plain[[0, 2]], atol=1e-6)


def test_a_stretch_moves_a_formant_in_proportion():
    tone = torch.zeros(1, 1, 1, COLUMNS, BANDS)
    tone[..., 12] = 1.0
    drawn = PLAIN[None].clone()
    drawn[0, 0] = 1.2  # what is at 12 is heard at 10
    moved = disguised(tone.flatten(-2), drawn, BANDS).unflatten(-1, (COLUMNS, BANDS))
    assert moved[0, 0, 0].argmax(-1).tolist() == [10, 10]


def test_colour_and_contrast_are_the_same_at_all_times():
    drawn = Disguise(colour=0.5, contrast=0.2).draw(torch.Generator().manual_seed(1))[None].repeat(3, 1)
    silent = disguised(torch.zeros_like(features()), drawn, BANDS)
    assert torch.allclose(silent, silent[:1, :1].expand_as(silent)) and silent.std() > 0.05
    assert torch.allclose(disguised(features(), drawn, BANDS) - silent, drawn[0, 2] * features(), atol=1e-5)


def test_masks_cover_neighbouring_bands_and_nothing_else():
    drawn = PLAIN.repeat(3, 1)
    drawn[0, 9], drawn[0, 11] = 0.25, 0.5  # a quarter of the bands, from the middle on
    plain, masked = (x.unflatten(-1, (COLUMNS, BANDS)) for x in (features(), disguised(features(), drawn, BANDS)))
    assert not masked[0, ..., 8:12].any()
    rest = [n for n in range(BANDS) if n not in range(8, 12)]
    assert torch.allclose(masked[0][..., rest], plain[0][..., rest]) and torch.allclose(masked[1:], plain[1:])
    for seed in range(20):
        widths, starts = Disguise(mask=0.2).draw(torch.Generator().manual_seed(seed))[9:].split(2)
        assert (widths >= 0).all() and (widths <= 0.2).all() and (starts >= 0).all() and (starts + widths <= 1).all()


def test_the_same_generator_draws_the_same():
    one, two = (Disguise(0.12, 0.4, 0.15, 0.1).draw(torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, two) and not torch.equal(one, PLAIN)
