"""A reader of standard output that leaves early, as `… | head` does, is no error."""

import subprocess
import sys

WRITE = "from opennpu.tools.output import write_text; write_text('line\\n' * 100000)"


def test_closed_pipe():
    writer = subprocess.Popen([sys.executable, "-c", WRITE], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.readline() == b"line\n"
    writer.stdout.close()
    assert (writer.stderr.read(), writer.wait()) == (b"", 0)
