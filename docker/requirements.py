"""Print what pyproject.toml requires, and what its extras named on the command line add, a requirement a line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = (project["optional-dependencies"][name] for name in sys.argv[1:])
print("\n".join([*project["dependencies"], *(requirement for extra in extras for requirement in extra)]))
