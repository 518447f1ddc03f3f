"""Chat templates of models whose folders hold none: their publishers wrote the format down elsewhere.

They are given by name, never guessed: a base model has the same files, and no chat to continue.
"""

from __future__ import annotations

LLAMA_2 = """\
{%- set system = messages[0].content if messages[0].role == 'system' else none -%}
{%- for message in (messages[1:] if system is not none else messages) -%}
{%- if (message.role == 'user') != (loop.index0 % 2 == 0) -%}
{{ raise_exception('LLaMA 2 needs a user and an assistant who take turns, after at most one system prompt') }}
{%- endif -%}
{%- set text = message.content | trim -%}
{%- if message.role == 'user' -%}
{%- set prompt = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if loop.first and system is not none else '' -%}
{{ bos_token | default('') + '[INST] ' + prompt + text + ' [/INST]' }}
{%- else -%}
{{ ' ' + text + ' ' + eos_token | default('') }}
{%- endif -%}
{%- endfor -%}"""

ORCA_2 = """\
{{ bos_token | default('') }}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '<|im_start|>assistant\\n' + message.content.lstrip('\\n') + eos_token | default('') + '\\n' }}
{%- else -%}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant' }}
{%- endif -%}"""

FORMATS = {
    "llama-2": LLAMA_2,  # Touvron et al. (2023), arXiv 2307.09288, and the publisher's own code for chats
    "orca-2": ORCA_2,  # Mitra et al. (2023), arXiv 2311.11045, and the model's card
}
"""By the names that `render_chat` and ``minislm chat --template`` take."""
