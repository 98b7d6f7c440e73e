"""How pytest-xdist deals the tests out: in pieces that share what they make, the large pieces first.

By file, one long file would be left for the end. So only files with a fixture of their module stay whole; of the others
those tests stay together that differ in the last parameter alone (machines, which share the reference's results).
"""

import functools
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling


@functools.cache
def stays_whole(file: Path) -> bool:
    return 'scope="module"' in file.read_text()


class PieceScheduling(LoadScopeScheduling):
    """Sorted by the number of their tests, as the parent does: single tests are what the processes end with."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if stays_whole(self.config.rootpath / file):
            return file
        return nodeid.rpartition("-")[0] or nodeid
