"""The small text encoder of a model trained from scratch: a WordPiece tokenizer fitted on captions, and a tiny UMT5.

Real backbones bring their own; this exists so that the bundled checkpoint has every part in diffusers' layout.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from anisora.errors import BadConfig


def fit_tokenizer(captions: Iterable[str], vocab_size: int, max_tokens: int) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer of at most `vocab_size` pieces; ends every text with `</s>`, pads on the right, as T5 does.

    Every word of the captions becomes one piece where the size allows; a word never seen is spelled in letters. (Unigram
    pieces, as T5 has them, came out as letters and syllables on so small a vocabulary: docs/lab-notes.md.)
    Chinese has no spaces: each of its characters is a piece, so that one never seen is one `<unk>` among those that are known,
    and does not take the rest of its sentence with it.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    by_character = pre_tokenizers.Split(Regex(r"\p{Han}"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([by_character, pre_tokenizers.BertPreTokenizer()])
    tokenizer.decoder = decoders.WordPiece()
    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size - len(letters),
        special_tokens=["<pad>", "</s>", "<unk>"],
        # Single letters stay in the vocabulary, so a word never seen is spelled rather than lost.
        initial_alphabet=list("abcdefghijklmnopqrstuvwxyz0123456789.,'-!?"),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    # A letter that no caption has inside a word is a piece there too, or a word with it would be lost as a whole.
    pieces = tokenizer.get_vocab()
    missing = (letter for letter in letters if letter not in pieces)
    pieces |= {letter: number for number, letter in enumerate(missing, len(pieces))}
    tokenizer.model = models.WordPiece(pieces, unk_token="<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=max_tokens,
    )


def build_text_encoder(vocab_size: int, dim: int, num_layers: int) -> UMT5EncoderModel:
    """A UMT5 encoder of width `dim`, randomly initialised."""
    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=dim,
        d_kv=dim // 4,
        d_ff=2 * dim,
        num_heads=4,
        num_layers=num_layers,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return UMT5EncoderModel(config)


@torch.no_grad()
def keep_known_words(
    known_encoder: UMT5EncoderModel,
    known: PreTrainedTokenizerFast,
    encoder: UMT5EncoderModel,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """Gives `known_encoder` the vocabulary of `tokenizer`: pieces that `known` has keep their vectors, the others have
    those of `encoder`. Raises BadConfig for encoders of different widths."""
    vectors_VD = encoder.get_input_embeddings().weight.clone()
    known_VD = known_encoder.get_input_embeddings().weight
    if known_VD.shape[1] != vectors_VD.shape[1]:
        got, expected = (f"{vectors.shape[1]} numbers a piece" for vectors in (known_VD, vectors_VD))
        raise BadConfig("the text vectors to keep have another width", got=got, expected=expected)
    before = known.get_vocab()
    for piece, number in tokenizer.get_vocab().items():
        if piece in before:
            vectors_VD[number] = known_VD[before[piece]]
    known_encoder.resize_token_embeddings(len(vectors_VD), mean_resizing=False)
    known_encoder.get_input_embeddings().weight.copy_(vectors_VD)


def embed(encoder: UMT5EncoderModel, token_BL: Tensor, mask_BL: Tensor) -> Tensor:
    """Text states [B, L, dim], zero beyond each text's end, exactly as the stock Wan pipeline passes them on."""
    states = encoder(token_BL, attention_mask=mask_BL).last_hidden_state
    return states * mask_BL[..., None].to(states.dtype)


def tokenize(tokenizer: PreTrainedTokenizerFast, texts: list[str], max_tokens: int) -> tuple[Tensor, Tensor]:
    """Token ids and mask [B, max_tokens], padded and cut to that length."""
    batch = tokenizer(texts, padding="max_length", max_length=max_tokens, truncation=True, return_tensors="pt")
    return batch.input_ids.to(torch.long), batch.attention_mask.to(torch.long)
