"""Pages of commands: figures are made, but drawn only by the fixtures of a module, which run a command once."""

from tests.report.conftest import _not_drawn, drawn  # noqa: F401
