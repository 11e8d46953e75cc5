"""Progress of a command on the terminal."""

from collections.abc import Sequence


class Progress:
    """A bar of one step a stage, for `with`. Nothing is shown where stderr is no terminal."""

    def __init__(self, command: str, stages: Sequence[str]):
        self._command = command
        self._stages = stages

    def __enter__(self) -> "Progress":
        from tqdm import tqdm

        bar_format = self._command + " |{bar:24}| {elapsed} {desc}"
        self._bar = tqdm(total=len(self._stages), leave=False, disable=None, bar_format=bar_format)
        return self

    def __exit__(self, *exception) -> None:
        self._bar.close()

    def stage(self, name: str) -> None:
        """The stage that begins."""
        self._bar.n = self._stages.index(name)
        self._bar.set_description_str(name)

    def bytes(self, done: int, total: int) -> None:
        """How far the last stage is; a program without weights has none to go."""
        text = f"{self._stages[-1]} {done >> 20}/{total >> 20} MiB"
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(len(self._stages) - 1 + done / max(total, 1) - self._bar.n)
