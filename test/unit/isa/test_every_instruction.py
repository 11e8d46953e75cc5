"""No instruction without a test of its own."""

from pathlib import Path

from opennpu.dialects.isa.table import ISA

SEQUENCER = (Path(__file__).parent / "test_sequencer_instructions.py").read_text()


def test_engine_instructions_have_a_file():
    missing = [
        s.name for s in ISA.engine_instructions if not Path(__file__).with_name(f"test_{s.name}.py").exists()
    ]
    assert not missing


def test_sequencer_instructions_are_in_one_file():
    missing = [s.name for s in ISA if not s.is_engine and f'"{s.name}"' not in SEQUENCER]
    assert missing == ["halt"]  # every program ends in one
