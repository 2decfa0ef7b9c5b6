"""Encoding of prompts and completions, with tokenizers that add bos and eos differently."""

import importlib.resources
import json
import pathlib
import shutil

import pytest

from mass_jax.errors import UserError
from mass_jax.llama import LlamaConfig, tokenizer
from mass_jax.method.text import encode_completion, encode_pairs, encode_prompts, pad_id

TINY = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
SPECIAL = {"<s>": 1, "</s>": 2}


@pytest.fixture
def make(tmp_path):
    """Returns a function that loads the tiny tokenizer with other special tokens around a text and other settings."""

    def make(front=("<s>",), back=(), **settings):
        shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
        file, config = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
        contents = json.loads(file.read_text())
        frame = [{"SpecialToken": {"id": token, "type_id": 0}} for token in (*front, *back)]
        frame.insert(len(front), {"Sequence": {"id": "A", "type_id": 0}})
        ids = {token: {"id": token, "ids": [SPECIAL[token]], "tokens": [token]} for token in (*front, *back)}
        contents["post_processor"] = {**contents["post_processor"], "single": frame, "special_tokens": ids}
        file.write_text(json.dumps(contents))
        config.write_text(json.dumps({**json.loads(config.read_text()), **settings}))
        return tokenizer.load(tmp_path)

    return make


FRAMES = [
    ((), (), []),
    (("<s>",), (), [1]),
    ((), ("</s>",), []),
    (("<s>",), ("</s>",), [1]),
    (("<s>",), ("</s>", "</s>"), [1]),
]


@pytest.mark.parametrize(("front", "back", "added"), FRAMES)
@pytest.mark.parametrize("text", ["solve 1 2", "1 </s> 2", "1 </s>"])
def test_encode_removes_appended_tokens(make, front, back, added, text):
    encoder = make(front, back)
    words = encoder(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.encode(encoder, text) == added + words
    assert tokenizer.adds_bos(encoder) is bool(added)


@pytest.mark.parametrize(("front", "back", "added"), FRAMES)
def test_encode_of_empty_text_is_bos(make, front, back, added):
    assert tokenizer.encode(make(front, back), "") == added


@pytest.mark.parametrize(("front", "back", "added"), FRAMES)
def test_encode_all_equals_encode_of_each(make, front, back, added):
    encoder = make(front, back)
    texts = ["solve 1 2", "", "<s> 1 </s>", "3"]
    assert tokenizer.encode_all(encoder, texts) == [tokenizer.encode(encoder, text) for text in texts]
    assert tokenizer.encode_all(encoder, []) == []


@pytest.mark.parametrize("back", [(), ("</s>",)])
def test_encode_adds_bos_once(make, back):
    encoder = make(("<s>",), back)
    assert tokenizer.encode(encoder, "<s> <s> 1") == tokenizer.encode(encoder, "1") == [1, 10]


@pytest.mark.parametrize(("front", "back", "added"), FRAMES)
@pytest.mark.parametrize("completion", ["1 2", "1 2 </s>", "1 2 </s> </s>"])
def test_training_pair_ends_with_one_eos(make, front, back, added, completion):
    encoder = make(front, back)
    text, too_long = encode_pairs(encoder, [("3", completion), ("3", "")], length=8)
    rows = [row[mask].tolist() for row, mask in zip(text.tokens_BT, text.mask_BT, strict=True)]
    assert rows == [[*added, 12, 10, 11, 2], [*added, 12, 2]]
    assert text.target_BT.sum(-1).tolist() == [3, 1]
    assert too_long == 0


def test_completion_ends_with_end_token(make):
    encoder = make()
    assert encode_completion(encoder, "1 2", end_token=9) == [10, 11, 9]
    assert encode_completion(encoder, "1 2 0 </s>", end_token=9) == [10, 11, 9]


def test_tokenizer_without_eos_uses_model_end_token(make):
    encoder = make(eos_token=None, pad_token=None)
    config = LlamaConfig(vocab_size=228, eos_token_id=(7, 2))
    assert tokenizer.end_token(encoder, config) == 7
    assert encode_pairs(encoder, [("3", "1")], 4, tokenizer.end_token(encoder, config))[0].tokens_BT.tolist() == [
        [1, 12, 10, 7]
    ]
    assert pad_id(encoder) == 0
    with pytest.raises(UserError, match="no eos token: set 'eos_token'"):
        encode_pairs(encoder, [("3", "1")], 4)
    with pytest.raises(UserError, match="the model's files define no end token"):
        tokenizer.end_token(encoder, LlamaConfig(vocab_size=228, eos_token_id=None))


def test_prompt_without_tokens_is_refused(make):
    with pytest.raises(UserError, match="has no tokens"):
        encode_prompts(make(()), ["1", ""], length=4)
    assert encode_prompts(make(), ["1", ""], length=2)[1].tolist() == [2, 1]


def test_larger_tokenizer_than_model_is_refused(make):
    encoder = make(eos_token="<|new|>")
    with pytest.raises(UserError, match=r"ids up to 228, but vocab_size is 228"):
        tokenizer.check_vocabulary(encoder, LlamaConfig(vocab_size=228), TINY)
    tokenizer.check_vocabulary(make(), LlamaConfig(vocab_size=228), TINY)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer_config.json", "[1]", r"tokenizer_config\.json contains a JSON list"),
        ("tokenizer_config.json", "{", r"tokenizer_config\.json is not JSON"),
        ("tokenizer_config.json", '{"eos_token": 2}', r"tokenizer_config\.json cannot be loaded \(.*eos_token"),
        ("tokenizer_config.json", '{"chat_template": [{"name": "x"}]}', r"tokenizer_config\.json: .*'chat_template'"),
        ("tokenizer.json", "{}", r"tokenizer\.json and .* cannot be loaded"),
    ],
)
def test_damaged_tokenizer_file_is_named(tmp_path, name, content, words):
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
