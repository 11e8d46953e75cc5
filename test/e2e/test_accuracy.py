"""SmolLM2 on the virtual chip against transformers, and the engines against each other."""

from lab import Lab
from opennpu.runtime.language_model import Chunk
from opennpu.tools.validation.results import relative_error, top1_agreement
from torch import Tensor


def test_logits_as_good_as_transformers_in_bfloat16(
    native: Lab, text: list[int], transformers_logits: dict[str, Tensor]
):
    """Both compute in bfloat16 with roundings in other places: errors of one size are what to expect.

    One point of top-1 agreement is six of some 600 tokens, candidates within one rounding of each
    other; a factor of 1.5 in error leaves room for other roundings, not for a wrong formula.
    """
    sequence = native.sequence()
    (logits,) = native.model.forward([Chunk(sequence, text, logits=len(text))])
    native.model.release(sequence)
    exact, rounded = transformers_logits["float32"], transformers_logits["bfloat16"]
    ours, theirs = top1_agreement(logits, exact), top1_agreement(rounded, exact)
    our_error, their_error = relative_error(logits, exact), relative_error(rounded, exact)
    print(f"top-1 {ours:.4f} (transformers bf16 {theirs:.4f}), error {our_error:.5f} ({their_error:.5f})")
    assert ours >= theirs - 0.01
    assert our_error <= 1.5 * their_error


def test_reference_and_native_engine_agree(
    native: Lab, text: list[int], transformers_logits: dict[str, Tensor]
):
    """The engines differ in exp, silu and the like by a few ulp of float32. That flips some roundings
    to bfloat16, and the flips grow through the layers as roundings do: at most to what bfloat16 itself
    costs against float32. test_engines.py holds them to the tight bound, in float32."""
    tokens = text[:24]
    results = []
    for lab in (Lab(engine="reference", tokens=64), native):
        sequence = lab.sequence()
        lab.model.forward([Chunk(sequence, tokens[:17])])
        results += lab.model.forward([Chunk(sequence, tokens[17:], logits=7)])
        lab.model.release(sequence)
    exact, rounded = (transformers_logits[dtype][17:24] for dtype in ("float32", "bfloat16"))
    assert relative_error(results[1], results[0]) <= relative_error(rounded, exact)


def test_no_races(text: list[int]):
    """Prefill, decode and a mix of both under the race checker, which fails the launch it finds one in."""
    lab = Lab(engine="reference", tokens=64, race_check=True)
    a, b = lab.sequence(), lab.sequence()
    lab.model.forward([Chunk(a, text[:9])])
    lab.model.forward([Chunk(a, text[9:10]), Chunk(b, text[:5])])
    lab.model.forward([Chunk(a, text[10:11]), Chunk(b, text[5:6])])
