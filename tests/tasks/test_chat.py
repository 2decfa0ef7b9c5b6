"""Tests of chat templates, valid and invalid, on the tiny model's files."""

import importlib.resources
import json
import pathlib
import shutil
import time

import pytest

from mass_jax.config import Config
from mass_jax.errors import UserError
from mass_jax.llama import tokenizer
from mass_jax.tasks import chat
from mass_jax.training.components import assemble

TINY = pathlib.Path(str(importlib.resources.files("mass_jax") / "data" / "tiny"))
SYSTEM = {"role": "system", "content": "rules"}
TALK = [SYSTEM, *chat.dialogue([("1 + 1?", "2")], "2 + 2?")]
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}"
CHATML = (
    "{%- if messages[0]['role'] != 'system' -%}<|im_start|>system\nBe kind.<|im_end|>\n{%- endif -%}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim }}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{- bos_token }}\n{%- if not tools is defined %}{%- set tools = none %}{%- endif %}\n"
    "{%- set ns = namespace(count=0, seen=[]) %}\n"
    "{%- for message in messages %}\n    {%- if loop.first %}{{- date_string }}{%- endif %}\n"
    "    {%- set ns.count = ns.count + 1 %}\n"
    "    {{- '<|' + message.role + '|>' + message.content.strip() + eos_token + ns.count | string }}\n"
    "    {%- if loop.last %}{{- message | tojson }}{%- endif %}\n"
    "    {{- loop.length ~ (loop.previtem or message).role ~ (loop.nextitem or message).role ~ loop.revindex }}\n"
    "    {%- for key, value in message.items() if key != 'role' %}{{- key }}{%- else %}none{%- endfor %}\n"
    "    {%- if message.role == 'nobody' %}{%- continue %}{%- endif %}\n"
    "    {%- generation %}{{- loop.index0 ~ dict(a=1).a }}{%- endgeneration %}\n{%- endfor %}\n"
)
# Constructs of the templates of Qwen3 and SmolLM3: a search from the end, thoughts in answers, a switch for thinking.
THINKING = (
    "{%- set ns = namespace(searching=true, last=messages | length - 1) %}\n"
    "{%- for message in messages[::-1] %}{%- set index = (messages | length - 1) - loop.index0 %}\n"
    "    {%- if ns.searching and message.role == 'user' and message.content is string and not"
    " (message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}\n"
    "        {%- set ns.searching = false %}{%- set ns.last = index %}\n    {%- endif %}\n{%- endfor %}\n"
    "{%- for message in messages %}\n    {{- '<|im_start|>' + message.role + '\\n' }}\n"
    "    {%- set text = message.content.split('</think>')[-1].lstrip('\\n') %}\n"
    "    {%- if message.reasoning_content is defined and message.reasoning_content is not none %}{{- 'never' }}\n"
    "    {%- elif message.role == 'assistant' and loop.index0 > ns.last %}{{- '<think>' }}{%- endif %}\n"
    "    {{- text + '<|im_end|>\\n' }}\n    {%- if message.tool_calls %}{{- 'never' }}{%- endif %}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n"
    "    {%- if enable_thinking is defined and enable_thinking is false %}\n"
    "        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}\n"
)


@pytest.fixture
def make(tmp_path):
    """A function that loads the tiny tokenizer with a chat template and further files."""

    def make(source=None, **files):
        shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
        file = tmp_path / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": source}))
        (tmp_path / "additional_chat_templates").mkdir()
        for name, text in files.items():
            (tmp_path / f"{name.replace('__', '/')}.jinja").write_text(text)
        return tokenizer.load(tmp_path)

    return make


@pytest.mark.parametrize("source", [PLAIN, CHATML, LLAMA, THINKING], ids=["plain", "chatml", "llama", "thinking"])
@pytest.mark.parametrize("messages", [TALK, TALK[1:], TALK[-1:]], ids=["system", "dialogue", "question"])
def test_render_matches_transformers(make, source, messages):
    encoder = make(source)
    wanted = encoder.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, date_string="26 Jul 2024", enable_thinking=False
    )
    found = chat.render(encoder, messages)
    assert found == wanted.removeprefix("<s>")
    assert found.endswith("<think>\n\n</think>\n\n") == (source == THINKING)


BAD_TEMPLATES = [
    ("{{ raise_exception('No system\nmessage') }}", "does not render (TemplateError: No system message)"),
    ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}", "no system"),
    ("{% for m in messages %}{{ m.content }}", "TemplateSyntaxError: Unexpected end of template"),
    ("{{ messages | no_such_filter }}", "No filter named 'no_such_filter'"),
    ("{{ messages[0].no.such }}", "UndefinedError"),
    ("{{ 1 / 0 }}", "ZeroDivisionError"),
    ("{{ messages[0]['content'].__class__.__mro__ }}", "SecurityError"),
    ("{% set _ = messages.append(1) %}", "SecurityError"),
    ("{% include 'secret' %}", "does not render"),
    ("{{ messages | random }}", "No filter named 'random'"),
    ("{{ lipsum() }}", "'lipsum' is undefined"),
    ("", "is empty"),
    (" \n", "is empty"),
    (5, "is 5, not a string"),
    (True, "is True, not a string"),
    ([{"name": "chat", "template": PLAIN}, {"name": "rag", "template": "x"}], "none of the chat templates ['chat'"),
    ("always the same", "omits the last message"),
    ("{{ messages[0].content }}", "omits the last message"),
    ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "its loops have more than"),
    ("{% for m in messages %}{% for a in m.content %}{% for b in m.content %}{% for c in m.content %}"
     "{% endfor %}{% endfor %}{% endfor %}{{ m.content }}{% endfor %}", "its loops have more than"),
    ("{% macro f(n) %}{% if n %}{% set _ = f(n - 1) ~ f(n - 1) %}{% endif %}{% endmacro %}{{ f(40) }}",
     "runs longer than 3 s"),
    ("{% for m in messages recursive %}{{ m.content }}{% endfor %}", "it has a recursive loop"),
    ("{{ 'a' * 2000000 }}", "writes more than 1000000 characters"),
    ("{% for i in range(99999) %}{{ messages[0].content * 99 }}{% endfor %}", "writes more than 1000000"),
    ("{% set x = 'a' * 30000000000 %}", "MemoryError"),
    ("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "reason"), BAD_TEMPLATES, ids=[reason for _, reason in BAD_TEMPLATES])
def test_renderer_reports_bad_template(make, source, reason):
    encoder = make(source)
    start = time.monotonic()
    for use in (lambda: chat.renderer(encoder, SYSTEM), lambda: chat.render(encoder, TALK)):
        with pytest.raises(UserError) as caught:
            use()
        assert str(encoder.name_or_path) + "/tokenizer_config.json: " in str(caught.value)
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)
        if time.monotonic() - start > 4:
            return  # the time limit was hit; checking it once is enough


def test_render_uses_default_template(make):
    encoder = make([{"name": "tool_use", "template": "x"}, {"name": "default", "template": PLAIN}])
    assert chat.render(encoder, TALK[-1:]) == "[user] 2 + 2? "


def test_render_prefers_template_file(make):
    encoder = make("old", chat_template=PLAIN, additional_chat_templates__rag="{{ broken")
    assert chat.render(encoder, TALK[-1:]) == "[user] 2 + 2? "


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"chat_template": "{{ broken"}, r"chat_template\.jinja: the chat template does not render"),
        ({"additional_chat_templates__rag": PLAIN}, r"additional_chat_templates/rag\.jinja: none of the .*'rag'"),
    ],
)
def test_renderer_names_bad_file(make, files, words):
    with pytest.raises(UserError, match=words):
        chat.renderer(make(None, **files))


@pytest.mark.parametrize("task", ["families", "math"])
def test_assemble_rejects_bad_template(make, task):
    directory = make("{{ raise_exception('no') }}").name_or_path
    with pytest.raises(UserError, match=r"tokenizer_config\.json: the chat template .* no\)"):
        assemble(Config(task=task, model=directory, train_data="nowhere"))


def test_testbed_ignores_bad_template(make):
    directory = make("{{ raise_exception('no') }}").name_or_path
    assert assemble(Config(model=directory)).problems(0).train


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{{ raise_exception('an x') }}", r"an x\)"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}", "more than 1000000 steps"),
        ("{% for i in range(9999) %}{{ 'a' * 999 }}{% endfor %}", "more than 1000000 characters"),
    ],
)
def test_render_names_later_failure(make, body, words):
    encoder = make("{% if 'x' in messages[-1].content %}" + body + "{% endif %}" + PLAIN)
    with pytest.raises(UserError, match=rf"tokenizer_config\.json: .*{words}"):
        chat.renderer(encoder)([{"role": "user", "content": "x"}])


def test_render_pins_clock(make):
    source = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ date_string }} {{ messages[-1].content }}"
    assert chat.render(make(source), TALK) == "2024-07-26 00:00:00 26 Jul 2024 2 + 2?"


def test_render_removes_redundant_bos(make):
    encoder = make("\n{{ bos_token }}" + PLAIN)
    text = chat.render(encoder, TALK[-1:])
    assert text == "[user] 2 + 2? "
    assert tokenizer.encode(encoder, text).count(encoder.bos_token_id) == 1
    encoder.backend_tokenizer.post_processor = None
    assert "<s>" in chat.render(encoder, TALK[-1:])
