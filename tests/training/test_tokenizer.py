"""The tokenizer that is fitted on captions: what it makes of words and characters that it knows, and of others."""

import pytest

from anisora.training.text import fit_tokenizer, tokenize

CAPTIONS = [
    "A girl runs to the left, line art",
    "A boy runs to the right.",
    "一个女孩向左跑，线稿风格",
    "一个男孩向右走。",
]


@pytest.fixture(scope="module")
def tokenizer():
    return fit_tokenizer(CAPTIONS, vocab_size=200, max_tokens=24)


def test_english_words_are_pieces_and_new_ones_are_spelled(tokenizer):
    assert tokenizer.tokenize("A girl runs") == ["a", "girl", "runs"]
    for word in ("zebra", "pyjamas", "equip", "2024"):
        assert "".join(piece.removeprefix("##") for piece in tokenizer.tokenize(word)) == word
    assert len(tokenizer) <= 200
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_chinese_characters_are_pieces_wherever_they_stand(tokenizer):
    assert tokenizer.tokenize("女孩跑") == ["女", "孩", "跑"]
    assert tokenizer.tokenize("跑女孩") == ["跑", "女", "孩"]
    for caption in CAPTIONS:
        assert tokenizer.unk_token not in tokenizer.tokenize(caption)


def test_an_unknown_character_does_not_take_its_sentence_with_it(tokenizer):
    assert tokenizer.tokenize("一个鲸向左跑，line art") == ["一", "个", "<unk>", "向", "左", "跑", ",", "line", "art"]
    assert tokenizer.tokenize("A girl 鲸 runs") == ["a", "girl", "<unk>", "runs"]


def test_left_and_right_differ(tokenizer):
    ids, mask = tokenize(tokenizer, ["一个女孩向左跑", "一个女孩向右跑"], 24)
    assert (ids[0] != ids[1]).sum() == 1
    assert mask[0].tolist() == mask[1].tolist()
    assert ids[0][mask[0].sum() - 1] == tokenizer.eos_token_id
