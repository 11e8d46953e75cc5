"""What every recording generates from, and the text that it reads."""

from collections.abc import Iterator
from pathlib import Path

TEXT = Path(__file__).with_name("declaration.txt")
"""The Declaration of Independence of the United States, in the public domain."""

PROMPTS = (
    "The capital of France is",
    "Water boils at a temperature of",
    "def fibonacci(n):\n    ",
    "Ingredients for pancakes:\n1. Flour\n2.",
    "Alice: How was your trip?\nBob:",
    "7 + 5 = 12\n8 + 6 =",
    "Once upon a time, in a small village by the sea, there lived",
    "SELECT name, price FROM products WHERE",
    "Le soleil se lève à l'est et se couche",
)
"""Facts, code, a list, dialogue, arithmetic, a story, another language."""

QUESTION = "Why is the sky blue?"
"""The last prompt, in the chat template where there is one."""


def prompts(tokenizer) -> Iterator[tuple[str, list[int]]]:
    """(what to show, tokens) of every prompt."""
    for prompt in PROMPTS:
        yield prompt, tokenizer(prompt).input_ids
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": QUESTION}]
        chat = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        yield f"(chat) {QUESTION}", chat["input_ids"]
