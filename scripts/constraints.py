"""Print the versions of a uv.lock as constraints for pip, so that both install the same.

A name locked at several versions, one for each Python, is left to pip.
"""

import sys
import tomllib
from collections import defaultdict
from pathlib import Path


def constraints(lock_text: str) -> list[str]:
    """Return ``name==version`` for every package of the lock that has one version and comes from an index."""
    versions: dict[str, set[str]] = defaultdict(set)
    for package in tomllib.loads(lock_text)["package"]:
        if "registry" in package["source"]:
            versions[package["name"]].add(package["version"])
    return [f"{name}=={found.pop()}" for name, found in sorted(versions.items()) if len(found) == 1]


if __name__ == "__main__":
    print("\n".join(constraints(Path(sys.argv[1]).read_text(encoding="utf-8"))))
